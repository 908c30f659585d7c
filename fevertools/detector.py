"""Faces and their five landmarks by MTCNN (Zhang et al. 2016), on ONNX Runtime.

The weights are facenet-pytorch's (MIT), and so are the results: boxes, scores, landmarks and the order of the faces.
"""

import importlib.resources
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from fevertools import _mtcnn
from fevertools.errors import OptionError, UnsupportedImageError
from fevertools.options import MOST_THREADS, choice, flag, fraction, fractions, whole
from fevertools.session import make_session
from fevertools.streaming import cores as available_cores
from fevertools.types import Face, Float32, UInt8Image

if TYPE_CHECKING:
    import onnxruntime

Item = TypeVar("Item")
Result = TypeVar("Result")

_NETWORKS = ("pnet", "rnet", "onet")
_LEVEL_NMS = 0.5  # within one pyramid level
_IMAGE_NMS = 0.7
_REFINE_SIZE = 24  # pixels, side of the crops of the second network
_OUTPUT_SIZE = 48  # pixels, side of the crops of the third network
_BATCH = {_REFINE_SIZE: 32, _OUTPUT_SIZE: 8}  # most crops a call: fit the cache, and no thread idles for long
_MOST_THREADS = 8  # more find nothing to do on one image
_MIN_FACE_SIZE = 4  # pixels; the search enlarges the image by 12 / min_face_size
_LARGEST_FACTOR = 0.99  # nearer to 1 the levels of the pyramid have no end


@dataclass(frozen=True, slots=True)
class Preset:
    """What a detector searches for where nothing else is asked: see `Detector`."""

    min_face_size: int
    thresholds: tuple[float, float, float]
    factor: float


PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {"exact": Preset(20, (0.6, 0.7, 0.7), 0.709), "fast": Preset(40, (0.8, 0.7, 0.7), 0.6)}
)
"""By name. "exact" is what facenet-pytorch does."""


class Detector:
    """Multi-task cascaded face detector. Threads may share one; a forked process makes its own.

    Args:
        preset: a name in PRESETS, for the next three where they are None. "exact" finds facenet-pytorch's faces. "fast"
            looks for faces of 40 pixels and more, on fewer levels, in well under half of the time: it loses the
            smaller faces, and one or two in a hundred of the others. Landmarks move by about 2 % of the side of
            the box; the benchmark of detection has the loss.
        min_face_size: smallest side of a face in pixels, at least 4. Time and memory grow with its inverse square.
        thresholds: lowest probability that each of the three networks lets pass, each between 0 and 1.
        factor: ratio of two levels of the image pyramid, above 0 and not above 0.99.
        max_faces: return only so many of the largest faces; None for all.
        largest: return only the largest face; the same as `max_faces=1`.
        device: see `session.make_session`.
        threads: CPU threads that work on one image, at most 1024, the one that calls among them; None for one a core,
            at most 8. The results are the same, bit for bit, for any number.
        providers: ONNX Runtime execution providers, in place of `device`.
        models: paths of the three ONNX files by the names "pnet", "rnet", "onet"; None for the bundled ones.

    Raises:
        OptionError: a value outside these ranges.
        DeviceUnavailableError: the device is not in the installed ONNX Runtime.
        WeightsUnavailableError: there is no such model file.
        WeightsIntegrityError: ONNX Runtime cannot load a model file.
    """

    def __init__(
        self,
        *,
        preset: str = "exact",
        min_face_size: int | None = None,
        thresholds: tuple[float, float, float] | None = None,
        factor: float | None = None,
        max_faces: int | None = None,
        largest: bool = False,
        device: str = "auto",
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        models: Mapping[str, Path] | None = None,
    ) -> None:
        usual = PRESETS[choice(preset, "preset", PRESETS)]
        smallest = usual.min_face_size if min_face_size is None else min_face_size
        self._min_face_size = whole(smallest, "min_face_size", _MIN_FACE_SIZE)
        asked = usual.thresholds if thresholds is None else thresholds
        self._thresholds = fractions(asked, "thresholds", len(_NETWORKS))
        self._factor = fraction(usual.factor if factor is None else factor, "factor", _LARGEST_FACTOR)
        limit = None if max_faces is None else whole(max_faces, "max_faces")
        self._max_faces = 1 if flag(largest, "largest") else limit
        most = min(available_cores(), _MOST_THREADS)
        self._workers = workers = most if threads is None else whole(threads, "threads", 1, MOST_THREADS)
        files = _bundled_models() if models is None else models
        missing = [name for name in _NETWORKS if name not in files]
        if missing:
            raise OptionError(f"models has no entry {missing[0]!r}; it needs {', '.join(_NETWORKS)}")
        # Single-threaded calls side by side beat calls with parallel operators: the operators are short, and the
        # resizing and cropping for one call go on during another.
        self._pnet, self._rnet, self._onet = (
            make_session(files[name], device=device, threads=1, providers=providers) for name in _NETWORKS
        )
        on_cpu = self._pnet.get_providers()[0] == "CPUExecutionProvider"
        # One fewer, since the thread that calls works too.
        self._pool = ThreadPoolExecutor(workers - 1, "fevertools-detector") if on_cpu and workers > 1 else None

    def __call__(self, image: UInt8Image) -> list[Face]:
        """Find the faces of one image.

        Args:
            image: uint8 RGB, (H, W, 3), upright.

        Returns:
            The faces, largest box first; empty where there is none. Boxes may reach past the image border.

        Raises:
            UnsupportedImageError: not a uint8 array of shape (H, W, 3).
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UnsupportedImageError("the detector takes a uint8 RGB array (H, W, 3); read files with image.load")
        height, width = image.shape[:2]
        scales = _mtcnn.pyramid_scales(height, width, self._min_face_size, self._factor)
        if not scales:
            return []
        levels = [_mtcnn.make_level(height, width, scale) for scale in scales]
        table = _mtcnn.SumTable(np.ascontiguousarray(image), self._share)
        boxes, landmarks = self._output(table, self._refine(table, self._propose(table, levels)))
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        order = np.argsort(area, kind="stable")[::-1][: self._max_faces]
        return [Face(boxes[i, :4].copy(), float(boxes[i, 4]), landmarks[i].copy()) for i in order]

    def _propose(self, table: _mtcnn.SumTable, levels: list[_mtcnn.Level]) -> Float32:
        """First stage: candidates of all pyramid levels, squares (N, 5) x1, y1, x2, y2, probability."""
        cells = [np.empty((5, *level.cells), np.float32) for level in levels]

        def look(task: tuple[Float32, _mtcnn.Strip]) -> None:
            cells, strip = task
            top, left = strip.top // _mtcnn.STRIDE, strip.left // _mtcnn.STRIDE
            found = self._pnet.run(None, {"image": _mtcnn.area_resize(table, strip)})[0][0]
            cells[:, top : top + found.shape[1], left : left + found.shape[2]] = found

        def decode(task: tuple[Float32, _mtcnn.Level]) -> Float32:
            cells, level = task
            boxes = _mtcnn.decode_cells(cells, level.scale, self._thresholds[0])
            return boxes[_mtcnn.suppress(boxes[:, :4], boxes[:, 4], _LEVEL_NMS)]

        pairs = list(zip(cells, levels, strict=True))
        self._share(look, [(cells, strip) for cells, level in pairs for strip in _mtcnn.strips(level)])
        found = self._share(decode, pairs)
        boxes = np.concatenate(found)[_mtcnn.suppress_levels(found, _LEVEL_NMS, _IMAGE_NMS)]
        return _mtcnn.square(_mtcnn.apply_proposal_offsets(boxes))

    def _refine(self, table: _mtcnn.SumTable, boxes: Float32) -> Float32:
        """Second stage: fewer and better squares (N, 5)."""
        boxes, offsets = self._look(self._rnet, table, boxes, _REFINE_SIZE, self._thresholds[1])
        kept = _mtcnn.suppress(boxes[:, :4], boxes[:, 4], _IMAGE_NMS)
        return _mtcnn.square(_mtcnn.apply_offsets(boxes[kept], offsets[kept]))

    def _output(self, table: _mtcnn.SumTable, boxes: Float32) -> tuple[Float32, Float32]:
        """Third stage: faces (N, 5) and landmarks (N, 5, 2)."""
        boxes, values = self._look(self._onet, table, boxes, _OUTPUT_SIZE, self._thresholds[2])
        landmarks = _mtcnn.place_landmarks(boxes, values[:, 4:])
        boxes = _mtcnn.apply_offsets(boxes, values[:, :4])
        kept = _mtcnn.suppress(boxes[:, :4], boxes[:, 4], _IMAGE_NMS, of_smaller=True)
        return boxes[kept], landmarks[kept]

    def _look(
        self,
        network: "onnxruntime.InferenceSession",
        table: _mtcnn.SumTable,
        boxes: Float32,
        size: int,
        threshold: float,
    ) -> tuple[Float32, Float32]:
        """Run a network on the crops of the boxes: those that pass, with its probability, and its other values."""

        bounds = _mtcnn.crop_bounds(boxes, table.height, table.width)
        seen = (bounds[:, 2] > bounds[:, 0]) & (bounds[:, 3] > bounds[:, 1])

        def run(batch: _mtcnn.Int32) -> Float32:
            output: Float32 = network.run(None, {"crops": _mtcnn.area_crops(table, batch, size)})[0]
            return output

        outputs = self._share(run, _batches(bounds[seen], _BATCH[size]))
        values = np.concatenate([*outputs, np.empty((0, network.get_outputs()[0].shape[1]), np.float32)])
        probability = _mtcnn.sigmoid(values[:, 0])
        passed = probability > np.float32(threshold)
        boxes = np.concatenate([boxes[seen, :4], probability[:, None]], axis=1)
        return boxes[passed], values[passed, 1:]

    def _share(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The result of each item. Whichever thread is free takes the next one: this one, and those of the pool."""
        if self._pool is None:
            return [work(item) for item in items]
        results: dict[int, Result] = {}
        todo = deque(enumerate(items))

        def take() -> None:
            while todo:
                try:
                    number, item = todo.popleft()
                except IndexError:  # another thread was faster
                    return
                results[number] = work(item)

        helpers = [self._pool.submit(take) for _ in range(min(self._workers, len(items)) - 1)]
        try:
            take()
        finally:
            todo.clear()
            # A helper that has not begun, since the pool works for other callers, is not waited for.
            begun = [helper for helper in helpers if not helper.cancel()]
            wait(begun)
        for helper in begun:
            helper.result()
        return [results[number] for number in range(len(items))]


def _batches(bounds: _mtcnn.Int32, most: int) -> list[_mtcnn.Int32]:
    """Equal parts, in pairs for two threads; the same for any number of them, and so are the results."""
    pairs = -(-len(bounds) // (2 * most))
    return [part for part in np.array_split(bounds, max(1, 2 * pairs)) if len(part)]


def _bundled_models() -> dict[str, Path]:
    folder = Path(str(importlib.resources.files("fevertools") / "bundled"))
    return {name: folder / f"mtcnn_{name}.onnx" for name in _NETWORKS}
