"""fevertools: expression embeddings of faces.

>>> import fevertools as ft
>>> vectors = ft.embed("photo.jpg")            # float32 (n_faces, 256), one expression embedding per face
>>> for expression in ft.classify("photo.jpg"):
...     print(expression.label, expression.probabilities)
>>> ft.similarity(vectors[0], vectors[1])      # how alike two expressions look

These functions share networks that are made at first use. `Analyzer` gives the choice of weights, device and options,
and `Analyzer.stream` takes any number of images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy.typing as npt

from fevertools import errors
from fevertools.errors import FevertoolsError
from fevertools.image import ImageInput
from fevertools.labels import EMOTIONS
from fevertools.options import fractions
from fevertools.pipeline import Analyzer, shared_analyzer
from fevertools.similarity import Metric
from fevertools.types import Color, Expression, Face, FaceResult, Float32, ImageResult

__version__ = "0.1.0"

__all__ = [
    "detect",
    "embed",
    "classify",
    "similarity",
    "Analyzer",
    "Face",
    "Expression",
    "FaceResult",
    "ImageResult",
    "FevertoolsError",
    "errors",
    "EMOTIONS",
    "__version__",
]


def detect(
    image: ImageInput,
    *,
    color: Color = "rgb",
    preset: str = "exact",
    min_face_size: int | None = None,
    thresholds: Sequence[float] | None = None,
    max_faces: int | None = None,
    largest: bool = False,
) -> list[Face]:
    """Find the faces of one image.

    Args:
        image: a path, encoded bytes, a binary file object, a PIL image, or a uint8 array (H, W, 3) or (H, W).
        color: channel order of an array: "rgb", or "bgr" for OpenCV frames.
        preset: "exact", or "fast" for well under half of the time where a lost face does little harm, see
            `fevertools.detector.Detector`.
        min_face_size: smallest face to look for, pixels; None is the preset's: 20, and 40 of "fast".
        thresholds: scores that the three stages of the detector ask for, 0-1; None is the preset's.
        max_faces: only so many of the largest faces; None for all.
        largest: only the largest face.

    Returns:
        One `Face` per face: box (4,), score, landmarks (5, 2), in pixels of the upright image; the largest
        first. Empty without faces.

    Raises:
        errors.ImageError: the image cannot be read.
        errors.OptionError: an argument is outside what is documented here.
        errors.WeightsError: the detector's files are missing or broken.

    Example:
        >>> for face in fevertools.detect("photo.jpg"):
        ...     print(face.box, face.score)
    """
    options = {"preset": preset, "min_face_size": min_face_size, "max_faces": max_faces, "largest": largest}
    # A tuple, since it is looked up by its options.
    asked = None if thresholds is None else fractions(thresholds, "thresholds", 3)
    return shared_analyzer(thresholds=asked, **options).detect(image, color=color)


def embed(
    image: ImageInput,
    *,
    weights: str | Path | None = None,
    cropped: bool = False,
    color: Color = "rgb",
    device: str = "auto",
) -> Float32:
    """One expression embedding per face, in the order of `detect`.

    Args:
        image: a path, encoded bytes, a binary file object, a PIL image, or a uint8 array (H, W, 3) or (H, W).
        weights: name of an encoder in the manifest, path of an exported manifest, or organisation/name@revision:entry
            of a repository on the Hugging Face Hub; None is the default.
        cropped: the image is one face that is framed already as the weights expect; nothing is detected.
        color: channel order of an array: "rgb", or "bgr" for OpenCV frames.
        device: "auto", "cpu", "cuda" or another device of the installed ONNX Runtime.

    Returns:
        float32 (n_faces, D), D = 256 for the default weights; (0, D) without faces.

    Raises:
        errors.ImageError: the image cannot be read.
        errors.OptionError: an argument is outside what is documented here.
        errors.DeviceUnavailableError: the installed ONNX Runtime cannot use the device.
        errors.WeightsError: the weights are unknown, missing or broken.

    Example:
        >>> vectors = fevertools.embed("photo.jpg")
        >>> vectors.shape
        (3, 256)
    """
    return shared_analyzer(weights=weights, device=device).embed(image, cropped=cropped, color=color)


def classify(
    image: ImageInput,
    *,
    weights: str | Path | None = None,
    cropped: bool = False,
    color: Color = "rgb",
    device: str = "auto",
) -> list[Expression]:
    """One expression per face, in the order of `detect`. Arguments and errors are those of `embed`.

    Returns:
        One `Expression` per face: label, probabilities of all eight labels, entropy. Empty without faces.

    Example:
        >>> fevertools.classify("photo.jpg")[0].label
        'happiness'
    """
    return shared_analyzer(weights=weights, device=device).classify(image, cropped=cropped, color=color)


def similarity(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    metric: Metric | None = None,
    weights: str | Path | None = None,
) -> float | Float32:
    """How alike expressions look to people, from their embeddings: 1 is the same, 0 unrelated, -1 the opposite.

    Similarities are to be compared with one another: where `similarity(a, b)` exceeds `similarity(a, c)` by x, people's
    votes agree that b looks nearer to a than c does in the share of triplets that docs/similarity.md gives for x.

    Args:
        a: (D,) one embedding or (n, D) several, as `embed` gives them.
        b: (D,) or (m, D).
        metric: "triplet" is 1 - d^2 / 2 for the distance d between the outputs, scaled to length 1, of the head that
            was trained on triplets of faces; "cosine" is the cosine of the embeddings themselves. None is "triplet"
            where the weights have that head, else "cosine".
        weights: those that made the embeddings, as for `embed`; None is the default.

    Returns:
        float for two single embeddings; float32 (n, m) for two sets; float32 (n,) or (m,) for one against a set.

    Raises:
        errors.OptionError: another shape or dtype, dimensions that differ from each other or, under "triplet", from
            those of the weights, numbers that are not finite, an unknown metric, or "triplet" where the weights have
            no such head.
        errors.WeightsError: the weights are unknown, missing or broken.

    Example:
        >>> vectors = fevertools.embed("photo.jpg")             # (n_faces, 256)
        >>> fevertools.similarity(vectors[0], vectors[1])       # float
        >>> fevertools.similarity(vectors, vectors)             # (n_faces, n_faces)
    """
    return shared_analyzer(weights=weights, device="auto").similarity(a, b, metric=metric)
