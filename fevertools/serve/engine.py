"""The work behind the answers. Pictures are prepared one by one; the faces of concurrent requests share a run."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from fevertools.manifest import WeightsEntry
from fevertools.pipeline import Analyzer, _Prepared
from fevertools.serve.batching import Batcher, Workers
from fevertools.serve.settings import Settings
from fevertools.similarity import Metric
from fevertools.types import Face, FaceResult, Float32, ImageResult

PREPARING: Final = 2
"""Pictures that are decoded and looked at at once: what bounds the memory."""


class Halves(Analyzer):
    """An Analyzer in two halves: one picture to its crops, and the crops of many pictures to their results."""

    def prepare(self, image: bytes | bytearray, *, cropped: bool, max_faces: int) -> _Prepared:
        """Decode, detect and crop; only the largest faces."""
        prepared = self._prepare(None, self._load(image, "rgb", cropped), cropped)
        return replace(prepared, faces=prepared.faces[:max_faces], crops=prepared.crops[:max_faces])

    def finish(self, window: list[_Prepared]) -> list[ImageResult]:
        """Encode the crops of all in one run."""
        return self._finish(window)


class Engine:
    """Networks, threads and batches of one server. Making one loads the networks.

    Args:
        settings: of the server.
        told: is called with the number of faces of every run of the encoder.

    Raises:
        FevertoolsError: the networks cannot be loaded, as for `Analyzer`.
    """

    def __init__(self, settings: Settings, told: Callable[[int], object]) -> None:
        options: dict[str, Any] = {
            "precision": settings.precision,
            "device": settings.device,
            "threads": settings.threads,
            # The most that a batch can grow to, so that each is one run.
            "batch_size": settings.batch - 1 + settings.max_faces,
            "preset": settings.preset,
            "min_face_size": settings.min_face_size,
            "max_faces": settings.max_faces,
            "max_pixels": settings.max_pixels,
            "cache_dir": settings.cache_dir,
            "local_files_only": settings.local_files_only,
        }
        self._plain = Halves(settings.weights, **options)
        self._flipped = Halves(settings.weights, **options, flip=True)
        blank = np.zeros((64, 64, 3), np.uint8)
        self._plain.detect(blank)
        self._plain.embed(blank, cropped=True)
        self._workers = Workers(PREPARING, "prepare")
        self._batchers = {
            flip: Batcher(
                analyzer.finish,
                weigh=lambda prepared: len(prepared.crops),
                most=settings.batch,
                coming=lambda: self._workers.busy > 0,
                told=told,
            )
            for flip, analyzer in ((False, self._plain), (True, self._flipped))
        }

    @property
    def entry(self) -> WeightsEntry:
        """The manifest entry of the encoder."""
        return self._plain.entry

    async def detect(self, image: bytes | bytearray, *, max_faces: int) -> list[Face]:
        """The largest faces of a picture; errors are those of `Analyzer.detect`."""
        return (await self._workers.run(partial(self._plain.detect, image)))[:max_faces]

    async def analyze(
        self, image: bytes | bytearray, *, max_faces: int, cropped: bool, flip: bool
    ) -> tuple[FaceResult, ...]:
        """The largest faces of a picture, with embeddings and expressions; errors are those of `Analyzer.analyze`."""
        prepare = partial(self._plain.prepare, image, cropped=cropped, max_faces=max_faces)
        prepared = await self._workers.run(prepare)
        if not prepared.faces:
            return ()
        return (await asyncio.wrap_future(self._batchers[flip].submit(prepared))).faces

    def similarity(self, a: list[float], b: list[float], metric: Metric) -> float | Float32:
        """As `Analyzer.similarity`."""
        return self._plain.similarity(np.asarray(a, np.float64), np.asarray(b, np.float64), metric=metric)

    def close(self) -> None:
        """Finish what has begun, and give threads and memory back."""
        self._workers.close()
        for batcher in self._batchers.values():
            batcher.close()
        for analyzer in (self._plain, self._flipped):
            analyzer.close()
