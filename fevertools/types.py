"""Results and array types. Results are frozen; every field states its shape, dtype and unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fevertools.errors import FevertoolsError

UInt8Image: TypeAlias = npt.NDArray[np.uint8]
"""uint8 (H, W, 3) RGB, or (H, W) luminance where a function says so."""

Float32: TypeAlias = npt.NDArray[np.float32]

Color: TypeAlias = Literal["rgb", "bgr"]
"""Channel order of an array that a caller passes in. Inside the package everything is RGB."""

Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One detected face. Coordinates are pixels of the upright image (EXIF orientation applied), x right and y down."""

    box: Float32  # (4,) x1, y1, x2, y2; may reach past the image border
    score: float  # detector confidence, 0-1
    landmarks: Float32  # (5, 2) x, y in the order of `labels.LANDMARKS`


@dataclass(frozen=True, slots=True)
class Expression:
    """How one face looks: for each label, the calibrated probability that most people would choose it."""

    label: str  # the most probable of `labels.EMOTIONS`
    probabilities: Mapping[str, float]  # all eight labels, in the order of `labels.EMOTIONS`; sums to 1
    entropy: float  # nats, 0 (certain) to ln 8 = 2.08 (no idea)


@dataclass(frozen=True, slots=True, eq=False)
class FaceResult:
    """Everything known about one face."""

    face: Face
    embedding: Float32  # (D,) expression embedding; D = 256 for the default weights
    expression: Expression

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON: those of face and expression, and the embedding."""
        return {
            "box": self.face.box.tolist(),
            "score": float(self.face.score),
            "landmarks": self.face.landmarks.tolist(),
            "embedding": self.embedding.tolist(),
            "label": self.expression.label,
            "probabilities": dict(self.expression.probabilities),
            "entropy": self.expression.entropy,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Where the network looked on one face."""

    face: Face
    expression: Expression
    crop: UInt8Image  # uint8 (H, W) luminance, what the network was shown
    maps: Mapping[str, Float32]  # label -> float32 (H, W), what each place of the crop adds to the label's logit

    def heat(self, label: str | None = None) -> Float32:
        """The map of a label, None for the most probable, from 0, least, to 1, most: float32 (H, W)."""
        shown = self.maps[self.expression.label if label is None else label]
        low, high = float(shown.min()), float(shown.max())
        return (shown - low) / (high - low) if high > low else np.zeros_like(shown)


@dataclass(frozen=True, slots=True, eq=False)
class ImageResult:
    """What `Analyzer.stream` yields for one input. An unreadable input has no faces and its error."""

    source: object  # the input as it was passed in
    faces: tuple[FaceResult, ...]
    error: FevertoolsError | None = None

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON: faces as `FaceResult.to_dict`, the error as text.

        The source is a path as text; of an image that is no path, the name of its type, such as "<ndarray>".
        """
        named = isinstance(self.source, str | PathLike)
        return {
            "source": str(self.source) if named else f"<{type(self.source).__name__}>",
            "faces": [face.to_dict() for face in self.faces],
            "error": None if self.error is None else str(self.error),
        }


@dataclass(frozen=True, slots=True)
class FaceGeometry:
    """The framing a network was trained on. Comes from the weights manifest."""

    height: int  # pixels
    width: int  # pixels
    landmarks: tuple[Point, Point, Point, Point, Point]  # fractions of width and height, order of `labels.LANDMARKS`

    def template(self) -> Float32:
        """The five landmarks in pixels of the crop, float32 (5, 2)."""
        return np.asarray(self.landmarks, np.float32) * np.asarray((self.width, self.height), np.float32)
