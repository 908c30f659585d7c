"""The networks inside the packages `facex` and `facemood`, fed as those packages feed them."""

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when tensorflow is imported

import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks._peer import answer, peak_bytes

FACEX = ("anger", "disgust", "fear", "happy", "neutral", "sadness", "surprised")
FACEMOOD = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")


def file(package: str, name: str) -> Path:
    """A file of a package that is not imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / name


def facex(path: Path) -> Callable[[Any], Any]:
    """uint8 (N, H, W) -> probabilities (N, 7) in the order of FACEX."""
    from facex.core import EmotionClassifier

    classifier = EmotionClassifier(str(path), FACEX)
    return lambda images: [[told[name] for name in FACEX] for told in map(classifier.detect_emotion, images)]


def facemood(path: Path, side: int = 170) -> Callable[[Any], Any]:
    """uint8 (N, H, W) -> probabilities (N, 7) in the order of FACEMOOD."""
    network = tf.keras.models.load_model(path, compile=False)

    def batch(images: Any) -> Any:
        pictures = [np.asarray(Image.fromarray(image).convert("RGB").resize((side, side))) for image in images]
        return network.predict_on_batch(np.array(pictures) / 255.0)

    return lambda images: np.concatenate([batch(images[start : start + 64]) for start in range(0, len(images), 64)])


NETWORKS = {
    "facex": (facex, file("facex", "assets/model_optimized.tflite"), FACEX),
    "facemood": (facemood, file("facemood", "model__version1.0.0__.h5"), FACEMOOD),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    threads = parser.parse_args().threads
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    def predict(way: str, images: str, output: str) -> dict[str, object]:
        make, path, labels = NETWORKS[way]
        faces = np.load(images)
        run = make(path)
        run(faces[:64])
        start = time.perf_counter()
        np.save(output, np.asarray(run(faces)))
        return {"seconds": time.perf_counter() - start, "labels": labels, "bytes": path.stat().st_size}

    answer({"ways": lambda: list(NETWORKS), "predict": predict, "peak": peak_bytes})


if __name__ == "__main__":
    main()
