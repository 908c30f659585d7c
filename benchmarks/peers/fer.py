"""The package `fer`: its network in the ways that TensorFlow can run it, and its own way from a photo to emotions."""

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when tensorflow is imported

import cv2
import numpy as np
import tensorflow as tf
from fer.fer import FER

from benchmarks._peer import answer, peak_bytes, timed

SIDE = 64
LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def data(name: str) -> Path:
    """A file that the package has with it."""
    spec = importlib.util.find_spec("fer")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / name


class Fer:
    """The network of one process.

    Args:
        threads: of TensorFlow inside an operator, TensorFlow Lite and OpenCV.
        mtcnn: detect with facenet-pytorch's MTCNN in place of OpenCV's Haar cascade.
    """

    def __init__(self, threads: int, mtcnn: bool) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        cv2.setNumThreads(threads)
        self._threads, self._mtcnn = threads, mtcnn
        self._photos: FER | None = None
        self._runs: dict[str, Callable[[Any], Any]] = {}
        self._batch = 0

    def ways(self) -> list[str]:
        return ["TFLite, face by face", "Keras, called", "predict_on_batch", "tf.function", "TFLite, batches"]

    def crops(self, way: str, batch: int, calls: int) -> list[float]:
        faces = np.random.default_rng(0).uniform(-1, 1, (batch, SIDE, SIDE)).astype(np.float32)
        run = self._run(way, batch)
        return timed(lambda: np.asarray(run(faces)), calls)

    def _run(self, way: str, batch: int) -> Callable[[Any], Any]:
        """float32 (batch, SIDE, SIDE) -> probabilities (batch, 7)."""
        key = f"{way} {batch}"
        if key not in self._runs:
            self._runs[key] = self._make(way, batch)
        return self._runs[key]

    def _make(self, way: str, batch: int) -> Callable[[Any], Any]:
        # The first two are what FER.detect_emotions calls, with use_tflite=True, its default, and False.
        if way == "TFLite, face by face":
            return FER()._classify_emotions  # type: ignore[no-any-return]
        if way == "Keras, called":
            return FER(use_tflite=False)._classify_emotions  # type: ignore[no-any-return]
        if way == "TFLite, batches":
            return self._interpreter(batch)
        network = tf.keras.models.load_model(data("emotion_model.hdf5"), compile=False)
        if way == "predict_on_batch":
            return lambda faces: network.predict_on_batch(faces[..., None])
        compiled = tf.function(lambda faces: network(faces, training=False))
        return lambda faces: compiled(tf.constant(faces[..., None])).numpy()

    def _interpreter(self, batch: int) -> Callable[[Any], Any]:
        path = str(data("emotion_model_quantized.tflite"))
        interpreter = tf.lite.Interpreter(model_path=path, num_threads=self._threads)
        (given,), (told,) = interpreter.get_input_details(), interpreter.get_output_details()
        interpreter.resize_tensor_input(given["index"], (batch, SIDE, SIDE, 1))
        interpreter.allocate_tensors()

        def run(faces: Any) -> Any:
            interpreter.set_tensor(given["index"], faces[..., None])
            interpreter.invoke()
            return interpreter.get_tensor(told["index"])

        return run

    def photo(self, path: str) -> dict[str, object]:
        """From the file to the emotions."""
        if self._photos is None:
            self._photos = FER(mtcnn=self._mtcnn)
        start = time.perf_counter()
        found = self._photos.detect_emotions(path)
        seconds = time.perf_counter() - start
        boxes = [[float(value) for value in face["box"]] for face in found]
        return {"seconds": seconds, "boxes": [[x, y, x + width, y + height] for x, y, width, height in boxes]}

    def predict(self, way: str, images: str, output: str) -> dict[str, object]:
        """Probabilities of framed faces, uint8 (N, H, W) in a .npy file, written to another."""
        start = time.perf_counter()
        faces = np.array([cv2.resize(image, (SIDE, SIDE)) for image in np.load(images)], np.float32)
        np.save(output, np.asarray(self._run(way, len(faces))((faces / 255 - 0.5) * 2)))
        seconds = time.perf_counter() - start
        name = "emotion_model_quantized.tflite" if "TFLite" in way else "emotion_model.hdf5"
        return {"seconds": seconds, "labels": LABELS, "bytes": data(name).stat().st_size}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--mtcnn", action="store_true")
    parser.add_argument("--borrow", help="site-packages to take PyTorch and facenet-pytorch from")
    options = parser.parse_args()
    if options.mtcnn:
        sys.path.append(options.borrow)  # last: everything else is fer's own
        sys.modules["triton"] = None  # type: ignore[assignment]  # its LLVM and TensorFlow's crash in one process
        import torch

        torch.set_num_threads(options.threads)
    peer = Fer(options.threads, options.mtcnn)
    answer({"ways": peer.ways, "crops": peer.crops, "photo": peer.photo, "predict": peer.predict, "peak": peak_bytes})


if __name__ == "__main__":
    main()
