"""What is fuzzed: how an input is made, and what may come of it.

A run returns "read", or the name of the error of ours that refused the input. Whatever else it raises is a finding.
"""

import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from fevertools import image, weights
from fevertools.cli import EXIT_CODES, main
from fevertools.errors import FevertoolsError, ImageError, WeightsError
from fevertools.manifest import load_manifest, manifest_path
from fevertools.pipeline import Analyzer
from tests._tiny import DIMENSION, HEAD, file_entry, write_weights
from tests.reliability import pictures
from tests.reliability.mutations import deepen, mutate_bytes, mutate_json

MAX_PIXELS: Final = 4_000_000
"""Of a mutated picture. With MEMORY of `tests.fuzz` this leaves 64 bytes a pixel for decoding and conversion."""


class Target(Protocol):
    """Something that reads input of strangers. Made once a process."""

    seeds: Sequence[bytes]  # inputs that are read as they are, or refused by an error of ours

    def make(self, rng: random.Random) -> bytes:
        """A seed, mutated."""
        ...

    def run(self, data: bytes) -> str:
        """Read the input: "read", or the name of the error that refused it."""
        ...


class ImageTarget:
    """`image.load` on encoded pictures."""

    def __init__(self) -> None:
        self.seeds: Sequence[bytes] = pictures.encoded()

    def make(self, rng: random.Random) -> bytes:
        return mutate_bytes(rng.choice(self.seeds), self.seeds, rng)

    def run(self, data: bytes) -> str:
        with warnings.catch_warnings():
            # Some programs make errors of warnings, which must not get past `load` either.
            warnings.simplefilter("error" if len(data) % 4 == 0 else "ignore")
            try:
                found = image.load(data, max_pixels=MAX_PIXELS)
            except ImageError as error:
                return type(error).__name__
        assert found.dtype == np.uint8
        assert found.ndim == 3
        assert found.shape[2] == 3
        assert 0 < found.shape[0] * found.shape[1] <= MAX_PIXELS
        assert found.flags.c_contiguous
        return "read"


class ManifestTarget:
    """`load_manifest`, and the look for the files that the entries name."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        tiny = json.loads(write_weights(Path(self._folder.name), head=HEAD).read_text("utf-8"))
        tiny["weights"]["tiny"]["hub"] = {"repo_id": "someone/tiny", "revision": "0123456789" * 4}
        self.seeds: Sequence[bytes] = [manifest_path().read_bytes(), json.dumps(tiny).encode()]

    def make(self, rng: random.Random) -> bytes:
        seed = rng.choice(self.seeds)
        if rng.random() < 0.25:
            return mutate_bytes(seed, self.seeds, rng)
        value, word = mutate_json(json.loads(seed), rng)
        return deepen(json.dumps(value), word, rng).encode()

    def run(self, data: bytes) -> str:
        path = Path(self._folder.name) / "weights_manifest.json"
        path.write_bytes(data)
        try:
            manifest = load_manifest(path)
            for entry in manifest.weights.values():
                weights.resolve(entry, local_files_only=True, cache_dir=self._folder.name)
            assert manifest.entry(None, "encoder").geometry.template().shape == (5, 2)
        except WeightsError as error:
            return type(error).__name__
        return "read"


class _SideFile:
    """A file beside a manifest whose size and SHA-256 are those of the mutated bytes, as a stranger would make it."""

    def __init__(self, role: str) -> None:
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        self._role, self._changes = role, 0
        self.manifest = write_weights(self.folder, head=HEAD)
        self._value: dict[str, Any] = json.loads(self.manifest.read_text("utf-8"))
        self._file = self.folder / self._value["weights"]["tiny"]["files"][role]["path"]
        self.seeds: Sequence[bytes] = [self._file.read_bytes()]

    def make(self, rng: random.Random) -> bytes:
        return mutate_bytes(rng.choice(self.seeds), self.seeds, rng)

    def write(self, data: bytes) -> None:
        self._file.write_bytes(data)
        # A file is verified once a process and time of change, and the clock of file systems is slower than this.
        self._changes += 1
        os.utime(self._file, ns=(0, self._changes))
        # Now and then the manifest tells of the file as it was.
        true = zlib.crc32(data) % 8 != 0
        self._value["weights"]["tiny"]["files"][self._role] = (
            file_entry(self._file) if true else {**file_entry(self._file), "sha256": "0" * 64}
        )
        self.manifest.write_text(json.dumps(self._value), "utf-8")


class TripletTarget(_SideFile):
    """`weights.load_head`."""

    def __init__(self) -> None:
        super().__init__("triplet")
        wide = io.BytesIO()
        np.save(wide, HEAD.astype(">f8"))
        self.seeds = [*self.seeds, wide.getvalue()]

    def run(self, data: bytes) -> str:
        self.write(data)
        try:
            head = weights.load_head(load_manifest(self.manifest).entry(None, "encoder"))
        except WeightsError as error:
            return type(error).__name__
        assert head.dtype == np.float32
        assert head.shape == (len(HEAD), DIMENSION + 1)
        assert np.isfinite(head).all()
        return "read"


class OnnxTarget(_SideFile):
    """An encoder's graph: loaded, checked and run once."""

    def __init__(self) -> None:
        super().__init__("onnx")

    def run(self, data: bytes) -> str:
        self.write(data)
        try:
            with Analyzer(self.manifest, device="cpu", threads=1) as analyzer:
                vector = analyzer.embed(np.full((48, 48), 90, np.uint8), cropped=True)
        except FevertoolsError as error:
            return type(error).__name__
        assert vector.shape == (1, DIMENSION)
        assert np.isfinite(vector).all()
        return "read"


class CommandTarget:
    """`fevertools` itself, in this process: arguments, a list of paths on stdin, and the journal of an earlier run.

    An input is JSON: {"arguments": [text], "stdin": text, "journal": text}, where text may hold lone surrogates for
    bytes that are not UTF-8, as the arguments of a process do.
    """

    _NETWORK: Final = ("--cropped", "--weights", "weights_manifest.json", "--device", "cpu", "--threads", "1")
    _LINES: Final = (
        ("embed", "a.png", *_NETWORK), ("embed", "-", *_NETWORK, "--format", "jsonl"),
        ("classify", "below", "a.png", *_NETWORK, "-o", "out.csv", "--resume"),
        ("embed", "*.png", *_NETWORK, "-o", "out.npz", "--flip", "--batch-size", "2"),
        ("embed", "a.png", "broken.png", *_NETWORK, "-o", "out.jsonl", "--on-error", "raise"),
        ("detect", "a.png", "--draw", "drawn.png", "--min-face-size", "12", "--largest"),
        ("detect", "below/**", "-", "-o", "out.csv", "--max-faces", "3", "-q"),
        ("similarity", "a.png", "below/b.bmp", *_NETWORK, "--metric", "cosine"),
        ("weights", "verify"), ("weights", "list"), ("weights", "path", "mtcnn"), ("--version",), ("embed", "--help"),
    )  # fmt: skip
    _WORDS: Final = (
        "", "-", "--", "-o", "--output", "out.csv", "out.pq", "out", ".", "below", "a.png", "broken.png", "[", "[a-",
        "*", "**", "?" * 30, "a*a*a*a*a*a*b", "nowhere.png", "x" * 300, "é\udcff", "--resume", "--overwrite",
        "--format", "csv", "npz", "--draw", "--weights", "mtcnn", "someone/tiny", "--threads", "--batch-size",
        "--max-faces", "0", "-1", "3", "1e3", "9" * 25, "nan", "--device", "cuda", "tensorrt", "auto", "--metric",
        "triplet", "--quiet", "--on-error", "raise", "weights", "embed", "--min-face-size", "journal",
        "out.csv.partial", "data:image/png,x",
    )  # fmt: skip

    def __init__(self) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"  # before the Hub's library is loaded
        self._temporary = tempfile.TemporaryDirectory()
        self._model = Path(self._temporary.name) / "model"
        (self._model / "below").mkdir(parents=True)
        pictures.picture(48, 48).save(self._model / "a.png")
        pictures.picture(48, 48).save(self._model / "below" / "b.bmp")
        (self._model / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
        write_weights(self._model)
        with self._new_folder():
            run = ["classify", "a.png", "broken.png", *self._NETWORK, "-o", "out.csv", "--on-error", "raise"]
            self._call(run, b"")
            journal = Path("out.csv.partial").read_text("ascii")
        self.seeds: Sequence[bytes] = [
            json.dumps({"arguments": line, "stdin": "a.png\nbelow/b.bmp\n", "journal": journal}).encode()
            for line in self._LINES
        ]

    def make(self, rng: random.Random) -> bytes:
        if rng.random() < 0.15:  # nothing but a damaged journal, which most other cases do not even open
            case = json.loads(next(seed for seed in self.seeds if b"--resume" in seed))
            return json.dumps({**case, "journal": self._mutate_journal(case["journal"], rng)}).encode()
        case = json.loads(rng.choice(self.seeds))
        arguments = case["arguments"]
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            place = rng.randrange(len(arguments) + 1)
            action = rng.random()
            if action < 0.3:
                arguments.insert(place, rng.choice(self._WORDS))
            elif action < 0.6:
                arguments[place : place + 1] = [rng.choice(self._WORDS)]
            elif action < 0.8:
                del arguments[place : place + 1]
            elif place < len(arguments):
                arguments[place] = _mutate_text(arguments[place], rng)
        # Nothing is written or searched outside of the folder.
        case["arguments"] = [
            word.replace("\0", "").replace("..", "").replace("~", "").lstrip("/") for word in arguments
        ]
        if rng.random() < 0.3:
            case["stdin"] = _mutate_text(case["stdin"], rng)
        if rng.random() < 0.5:
            case["journal"] = self._mutate_journal(case["journal"], rng)
        return json.dumps(case).encode()

    def run(self, data: bytes) -> str:
        case = json.loads(data)
        with self._new_folder():
            if "--resume" in case["arguments"]:
                Path("out.csv.partial").write_bytes(os.fsencode(case["journal"]))
            code = self._call(case["arguments"], os.fsencode(case["stdin"]))
        assert code in EXIT_CODES, code
        return f"exit {code}"

    @staticmethod
    def _mutate_journal(journal: str, rng: random.Random) -> str:
        if rng.random() < 0.4:
            return _mutate_text(journal, rng)
        lines = journal.splitlines()
        place = rng.randrange(len(lines))
        value, word = mutate_json(json.loads(lines[place]), rng)
        lines[place] = deepen(json.dumps(value), word, rng)
        return "\n".join((*lines, ""))

    @staticmethod
    def _call(arguments: Sequence[str], stdin: bytes) -> int:
        output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        before = sys.stdin
        sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
                return main(arguments)
        finally:
            sys.stdin = before

    @contextlib.contextmanager
    def _new_folder(self) -> Iterator[None]:
        """A working folder with two pictures, one broken file and the tiny weights, gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self._temporary.name) as folder:
            shutil.copytree(self._model, folder, dirs_exist_ok=True)
            with contextlib.chdir(folder):
                yield


def _mutate_text(text: str, rng: random.Random) -> str:
    data = os.fsencode(text) or b"x"
    return os.fsdecode(mutate_bytes(data, [data], rng))
