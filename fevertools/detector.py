"""Faces and their five landmarks by MTCNN (Zhang et al. 2016), on ONNX Runtime.

The weights are facenet-pytorch's (MIT), and so are the results: boxes, scores, landmarks and the order of the faces.
"""

import importlib.resources
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fevertools import _mtcnn
from fevertools.errors import OptionError, UnsupportedImageError
from fevertools.options import MOST_THREADS, flag, fraction, fractions, whole
from fevertools.session import make_session
from fevertools.types import Face, Float32, UInt8Image

if TYPE_CHECKING:
    import onnxruntime

_NETWORKS = ("pnet", "rnet", "onet")
_LEVEL_NMS = 0.5  # within one pyramid level
_IMAGE_NMS = 0.7
_REFINE_SIZE = 24  # pixels, side of the crops of the second network
_OUTPUT_SIZE = 48  # pixels, side of the crops of the third network
_BATCH = {
    _REFINE_SIZE: 32,
    _OUTPUT_SIZE: 4,
}  # crops a call: fit the cache, and no thread idles for long
_MOST_THREADS = 8  # more find nothing to do on one image
_MIN_FACE_SIZE = 4  # pixels; the search enlarges the image by 12 / min_face_size
_LARGEST_FACTOR = 0.99  # nearer to 1 the levels of the pyramid have no end


class Detector:
    """Multi-task cascaded face detector. Threads may share one; a forked process makes its own.

    Args:
        min_face_size: smallest side of a face in pixels, at least 4. Time and memory grow with its inverse square.
        thresholds: lowest probability that each of the three networks lets pass, each between 0 and 1.
        factor: ratio of two levels of the image pyramid, above 0 and not above 0.99.
        max_faces: return only so many of the largest faces; None for all.
        largest: return only the largest face; the same as `max_faces=1`.
        device: see `session.make_session`.
        threads: CPU threads that work on one image, at most 1024; None for one a core, at most 8.
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
        min_face_size: int = 20,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
        max_faces: int | None = None,
        largest: bool = False,
        device: str = "auto",
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        models: Mapping[str, Path] | None = None,
    ) -> None:
        self._min_face_size = whole(min_face_size, "min_face_size", _MIN_FACE_SIZE)
        self._thresholds = fractions(thresholds, "thresholds", len(_NETWORKS))
        self._factor = fraction(factor, "factor", _LARGEST_FACTOR)
        limit = None if max_faces is None else whole(max_faces, "max_faces")
        self._max_faces = 1 if flag(largest, "largest") else limit
        workers = min(_cores(), _MOST_THREADS) if threads is None else whole(threads, "threads", 1, MOST_THREADS)
        files = _bundled_models() if models is None else models
        missing = [name for name in _NETWORKS if name not in files]
        if missing:
            raise OptionError(f"models has no entry {missing[0]!r}; it needs {', '.join(_NETWORKS)}")
        # Single-threaded calls side by side beat calls with parallel operators: the operators are short, and the
        # resizing and cropping for the next call go on meanwhile.
        self._pnet, self._rnet, self._onet = (
            make_session(files[name], device=device, threads=1, providers=providers) for name in _NETWORKS
        )
        on_cpu = self._pnet.get_providers()[0] == "CPUExecutionProvider"
        self._pool = ThreadPoolExecutor(workers, "fevertools-detector") if on_cpu and workers > 1 else None

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
        table = _mtcnn.sum_table(np.ascontiguousarray(image))
        boxes, landmarks = self._output(table, self._refine(table, self._propose(table, scales)))
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        order = np.argsort(area, kind="stable")[::-1][: self._max_faces]
        return [Face(boxes[i, :4].copy(), float(boxes[i, 4]), landmarks[i].copy()) for i in order]

    def _propose(self, table: _mtcnn.SumTable, scales: list[float]) -> Float32:
        """First stage: candidates of all pyramid levels, squares (N, 5) x1, y1, x2, y2, probability."""

        strips = [strip for scale in scales for strip in _mtcnn.strips(table.height, table.width, scale)]
        cells = self._run(self._pnet, (_mtcnn.area_resize(table, strip) for strip in strips))
        found = [
            _mtcnn.decode_cells(out[0], strip, self._thresholds[0]) for out, strip in zip(cells, strips, strict=True)
        ]
        levels = []
        for scale in scales:
            boxes = np.concatenate([part for part, strip in zip(found, strips, strict=True) if strip.scale == scale])
            levels.append(boxes[_mtcnn.suppress(boxes[:, :4], boxes[:, 4], _LEVEL_NMS)])
        boxes = np.concatenate(levels)
        boxes = boxes[_mtcnn.suppress(boxes[:, :4], boxes[:, 4], _IMAGE_NMS)]
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
        batches = _batches(bounds[seen], _BATCH[size])
        outputs = self._run(network, (_mtcnn.area_crops(table, batch, size) for batch in batches))
        values = np.concatenate([*outputs, np.empty((0, network.get_outputs()[0].shape[1]), np.float32)])
        probability = _mtcnn.sigmoid(values[:, 0])
        passed = probability > np.float32(threshold)
        boxes = np.concatenate([boxes[seen, :4], probability[:, None]], axis=1)
        return boxes[passed], values[passed, 1:]

    def _run(self, network: "onnxruntime.InferenceSession", inputs: Iterable[Float32]) -> list[Float32]:
        """Run a network on each of the inputs, which this thread makes while the others run it."""
        name = network.get_inputs()[0].name

        def run(array: Float32) -> Float32:
            output: Float32 = network.run(None, {name: array})[0]
            return output

        return list(map(run, inputs) if self._pool is None else self._pool.map(run, inputs))


def _batches(bounds: _mtcnn.Int32, size: int) -> Iterator[_mtcnn.Int32]:
    for start in range(0, len(bounds), size):
        yield bounds[start : start + size]


def _bundled_models() -> dict[str, Path]:
    folder = Path(str(importlib.resources.files("fevertools") / "bundled"))
    return {name: folder / f"mtcnn_{name}.onnx" for name in _NETWORKS}


def _cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1
