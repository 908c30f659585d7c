"""OpenCV's Haar cascade as the package `fer` calls it. OpenCV 5 has no cascades, so this runs in its environment."""

import argparse
from typing import Any

import cv2
import numpy as np

from benchmarks._peer import answer, timed

FILE = "haarcascade_frontalface_default.xml"


class Haar:
    """The detector of one process, on one picture at a time."""

    def __init__(self, threads: int) -> None:
        cv2.setNumThreads(threads)
        self._cascade = cv2.CascadeClassifier(cv2.data.haarcascades + FILE)  # type: ignore[attr-defined]
        self._image = np.empty((0, 0, 3), np.uint8)

    def take(self, path: str) -> int:
        """Read the picture to work on, an .npy file of RGB; the number of faces in it."""
        self._image = np.load(path)
        return len(self._detect())

    def time(self) -> list[float]:
        return timed(self._detect, 1)

    def _detect(self) -> Any:
        # The defaults of FER: scale_factor, min_neighbors, min_face_size.
        return self._cascade.detectMultiScale(
            cv2.cvtColor(self._image, cv2.COLOR_RGB2GRAY),
            scaleFactor=1.1,
            minNeighbors=5,
            flags=cv2.CASCADE_SCALE_IMAGE,  # type: ignore[attr-defined]
            minSize=(50, 50),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Detect faces by OpenCV's Haar cascade.")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of OpenCV")
    haar = Haar(parser.parse_args().threads)
    answer({"take": haar.take, "time": haar.time})


if __name__ == "__main__":
    main()
