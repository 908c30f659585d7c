"""fevertools itself."""

import argparse
import inspect
import time
from typing import Any

import numpy as np

from benchmarks._peer import answer, peak_bytes, timed
from fevertools import Analyzer
from fevertools.encoder import Encoder
from fevertools.weights import resolve


class Fevertools:
    """The Analyzer of one process, with the options that are not None.

    Args:
        threads: CPU threads of one run of a network.
        options: of `Analyzer`; one that this version does not have ends the process, which says so.
    """

    def __init__(self, threads: int, options: dict[str, str]) -> None:
        unknown = options.keys() - inspect.signature(Analyzer).parameters.keys()
        if unknown:
            raise SystemExit(f"this version of fevertools has no {', '.join(sorted(unknown))}")
        self._analyzer = Analyzer(device="cpu", threads=threads, **options)  # type: ignore[arg-type]
        self._threads = threads
        self._role = "int8" if options.get("precision") == "int8" else "onnx"
        self._encoder: Encoder | None = None
        self._random = np.random.default_rng(0)

    def ways(self) -> list[str]:
        return ["Encoder.encode"]

    def crops(self, way: str, batch: int, calls: int) -> list[float]:
        """Seconds of each call on framed faces: uint8 (batch, height, width, 1)."""
        entry = self._analyzer.entry
        assert entry.input is not None
        if self._encoder is None:
            options: dict[str, Any] = {"device": "cpu", "threads": self._threads}
            if self._role == "int8":
                options["precision"] = "int8"
            self._encoder = Encoder(entry, resolve(entry), **options)
        shape = (batch, entry.input.geometry.height, entry.input.geometry.width, 1)
        crops = self._random.integers(0, 256, shape).astype(np.uint8)
        encoder = self._encoder
        return timed(lambda: encoder.encode(crops), calls)

    def photo(self, path: str) -> dict[str, object]:
        """From the file to the embeddings."""
        start = time.perf_counter()
        faces = self._analyzer.analyze(path).faces
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "boxes": [face.face.box.tolist() for face in faces]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--precision")
    parser.add_argument("--preset")
    options = vars(parser.parse_args())
    ours = Fevertools(options.pop("threads"), {name: value for name, value in options.items() if value is not None})
    answer({"ways": ours.ways, "crops": ours.crops, "photo": ours.photo, "peak": peak_bytes})


if __name__ == "__main__":
    main()
