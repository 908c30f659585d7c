"""Image -> faces -> crops -> embeddings and expressions: the only place where the parts meet."""

import os
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterable, Sequence, Sized
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np

from fevertools.align import crop_face
from fevertools.detector import Detector
from fevertools.encoder import Encoder, Encoding, express
from fevertools.errors import DegenerateFaceError, FevertoolsError, ImageError, OptionError
from fevertools.image import DEFAULT_MAX_PIXELS, ImageInput, load
from fevertools.manifest import Manifest, WeightsEntry, load_manifest
from fevertools.preprocess import fit_crop, to_luminance
from fevertools.streaming import Progress, read_ahead
from fevertools.types import Color, Expression, Face, FaceGeometry, FaceResult, Float32, ImageResult, UInt8Image
from fevertools.weights import resolve

OnError: TypeAlias = Literal["skip", "raise"]

LOOK_AHEAD: Final = 16
"""Most images whose faces `stream` gathers into one run of the encoder."""


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """One image after detection: its pixels are gone, its crops wait for the encoder."""

    source: object
    faces: list[Face]
    crops: list[UInt8Image]  # n_faces of (H, W, 1)
    error: FevertoolsError | None = None


class Analyzer:
    """Detection, embedding and classification with one choice of weights, device and options.

    Making one is cheap: sessions are made at first use, once, and shared by all threads that use the Analyzer. The
    detector is never made where only `cropped=True` is used. Use it as a context manager, or call `close`, to give the
    memory back early. Do not carry one over a fork; make it in the child.

    Args:
        weights: name of an encoder in the manifest; the path of a manifest file (it ends in ".json") whose default
            encoder lies beside it, such as the export command writes; or None for the package's default.
        device: "auto", "cpu" or another of `session.available_devices()`.
        providers: ONNX Runtime execution providers, in place of `device`.
        threads: threads of one run of a network; None leaves it to ONNX Runtime.
        batch_size: most faces in one run of the encoder.
        flip: average each face's embedding and logits with those of its mirror image.
        min_face_size: smallest face to look for, pixels.
        thresholds: scores that the three stages of the detector ask for, 0-1.
        max_faces: only so many of the largest faces; None for all.
        largest: only the largest face.
        max_pixels: refuse images of more pixels than this.
        cache_dir: folder of the Hugging Face Hub cache; None is the library's own.

    Raises:
        UnknownWeightsError: the manifest has no encoder of this name.
        ManifestError: the manifest is not valid.
        OptionError: another argument is outside what is documented here. Options of the detector and the device are
            checked when its networks are made, at first use.

    Example:
        >>> with fevertools.Analyzer(device="cpu") as analyzer:
        ...     for image in analyzer.stream(Path("photos").glob("*.jpg")):
        ...         for face in image.faces:
        ...             print(image.source, face.face.box, face.expression.label)
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        device: str = "auto",
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        batch_size: int = 64,
        flip: bool = False,
        min_face_size: int = 20,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        max_faces: int | None = None,
        largest: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        cache_dir: Path | str | None = None,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise OptionError(f"batch_size must be a whole number above 0, got {batch_size!r}")
        self._options: dict[str, Any] = {
            "min_face_size": min_face_size,
            "thresholds": tuple(thresholds),
            "max_faces": max_faces,
            "largest": largest,
        }
        self._device, self._providers, self._threads = device, providers, threads
        self._batch_size, self._flip, self._max_pixels, self._cache_dir = batch_size, flip, max_pixels, cache_dir
        self._manifest = load_manifest()
        # No choice is no error yet: detection needs no encoder.
        self._entry = None if weights is None else _find(self._manifest, weights)
        self._lock = threading.Lock()
        self._detector: Detector | None = None
        self._encoder: Encoder | None = None
        self._closed = False

    @property
    def entry(self) -> WeightsEntry:
        """The manifest entry of the encoder in use: geometry, dimension, labels, licence, data and metrics."""
        if self._entry is None:
            self._entry = self._manifest.entry(None, "encoder")
        return self._entry

    def detect(self, image: ImageInput, *, color: Color = "rgb") -> list[Face]:
        """The faces of one image, see `Face`.

        Args:
            image: what `image.load` takes.
            color: channel order of an array, "rgb" or "bgr".

        Raises:
            ImageError: the image cannot be read.
            WeightsError: the detector's files are missing or broken.
        """
        return self._detect(self._load(image, color))

    def embed(self, image: ImageInput, *, cropped: bool = False, color: Color = "rgb") -> Float32:
        """One expression embedding per face, in the order of `detect`.

        Args:
            image: what `image.load` takes.
            cropped: the image is one face, framed as `entry.geometry` says; nothing is detected.
            color: channel order of an array, "rgb" or "bgr".

        Returns:
            float32 (n_faces, D); (0, D) where no face is found.

        Raises:
            ImageError: the image cannot be read.
            WeightsError: a network's files are missing or broken.
        """
        return self._encode(self._prepare(image, self._load(image, color), cropped).crops).embeddings

    def classify(self, image: ImageInput, *, cropped: bool = False, color: Color = "rgb") -> list[Expression]:
        """One expression per face, in the order of `detect`. Arguments and errors are those of `embed`."""
        return [face.expression for face in self.analyze(image, cropped=cropped, color=color).faces]

    def analyze(self, image: ImageInput, *, cropped: bool = False, color: Color = "rgb") -> ImageResult:
        """Faces, embeddings and expressions of one image at once. Arguments and errors are those of `embed`.

        Under `cropped` the one face has the whole image as its box, score 1 and the landmarks of the template.
        """
        return self._finish([self._prepare(image, self._load(image, color), cropped)])[0]

    def stream(
        self,
        images: Iterable[ImageInput],
        *,
        cropped: bool = False,
        color: Color = "rgb",
        progress: bool = False,
        on_error: OnError = "skip",
    ) -> Generator[ImageResult, None, None]:
        """Analyze any number of images, one result per image, in order, in flat memory.

        Images are decoded in background threads while others are analyzed, and the faces of several images share a
        run of the encoder, so up to READ_AHEAD + LOOK_AHEAD + 1 images are taken from `images` before their results
        are given. Should `images` itself raise, the results of what it gave before come first.

        Args:
            images: an iterable of what `image.load` takes; iterated once, in the caller's thread.
            cropped: every image is one face, framed as `entry.geometry` says.
            color: channel order of arrays, "rgb" or "bgr".
            progress: show a line on stderr, if that is a terminal.
            on_error: for images that cannot be read: "skip" gives an ImageResult with the error and no faces; "raise"
                raises it after the results of the images before.

        Raises:
            OptionError: at once, where `images` is a single image or `on_error` is unknown.
        """
        if on_error not in ("skip", "raise"):
            raise OptionError(f"on_error must be 'skip' or 'raise', got {on_error!r}")
        if not isinstance(images, Iterable) or isinstance(images, str | bytes | os.PathLike):
            raise OptionError("stream takes an iterable of images; for one image use analyze()")
        if isinstance(images, np.ndarray) and (images.ndim < 3 or images.shape[2:] == (3,)):
            raise OptionError(f"stream takes an iterable of images; {images.shape} is one image, so use analyze()")
        self._check_open()
        return self._stream(images, cropped, color, progress, on_error)

    def _stream(
        self, images: Iterable[ImageInput], cropped: bool, color: Color, progress: bool, on_error: OnError
    ) -> Generator[ImageResult, None, None]:
        total = len(images) if isinstance(images, Sized) else None
        # Each generator is closed by name: the threads must be gone when this one is closed.
        with (
            Progress(total, shown=progress) as line,
            closing(read_ahead(images, lambda image: self._try_load(image, color))) as pictures,
            closing(self._windows(pictures, cropped, on_error)) as windows,
        ):
            for window in windows:
                for result in self._finish(window):
                    if result.error is not None and on_error == "raise":
                        raise result.error
                    line.advance()
                    yield result

    def _windows(
        self, pictures: Iterable[tuple[ImageInput, UInt8Image | FevertoolsError]], cropped: bool, on_error: OnError
    ) -> Generator[list[_Prepared], None, None]:
        """Images in groups whose faces fill a batch. A group ends early at an error that is to be raised."""
        window: list[_Prepared] = []
        try:
            for source, picture in pictures:
                window.append(self._try_prepare(source, picture, cropped))
                faces = sum(len(prepared.faces) for prepared in window)
                stop = window[-1].error is not None and on_error == "raise"
                if stop or faces >= self._batch_size or len(window) == LOOK_AHEAD:
                    full, window = window, []
                    yield full
        except Exception:
            # Whatever the caller's iterable or a network raises goes on, after what came before it, which is whole.
            if window:
                yield window
            raise
        if window:
            yield window

    def close(self) -> None:
        """Give the sessions back. Any later use raises FevertoolsError; closing twice is fine."""
        with self._lock:
            self._closed, self._detector, self._encoder = True, None, None

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise FevertoolsError("this Analyzer is closed; make a new one")

    def _load(self, image: ImageInput, color: Color) -> UInt8Image:
        self._check_open()
        return load(image, color=color, max_pixels=self._max_pixels)

    def _try_load(self, image: ImageInput, color: Color) -> UInt8Image | FevertoolsError:
        try:
            return self._load(image, color)
        except ImageError as error:
            return _without_traceback(error)

    def _detect(self, picture: UInt8Image) -> list[Face]:
        with self._lock:
            self._check_open()
            if self._detector is None:
                files = resolve(self._manifest.entry(None, "detector"), cache_dir=self._cache_dir)
                self._detector = Detector(
                    models=files,
                    device=self._device,
                    threads=self._threads,
                    providers=self._providers,
                    **self._options,
                )
            detector = self._detector
        return detector(picture)

    def _encode(self, crops: list[UInt8Image]) -> Encoding:
        geometry = self.entry.geometry
        with self._lock:
            self._check_open()
            if self._encoder is None:
                self._encoder = Encoder(
                    self.entry,
                    resolve(self.entry, cache_dir=self._cache_dir),
                    device=self._device,
                    threads=self._threads,
                    batch_size=self._batch_size,
                    providers=self._providers,
                )
            encoder = self._encoder
        empty = np.empty((0, geometry.height, geometry.width, 1), np.uint8)
        return encoder.encode(np.stack(crops) if crops else empty, flip=self._flip)

    def _prepare(self, source: object, picture: UInt8Image, cropped: bool) -> _Prepared:
        geometry = self.entry.geometry
        if cropped:
            faces, crops = [_whole(picture, geometry)], [fit_crop(picture, geometry)]
        else:
            faces = self._detect(picture)
            crops = [_frame(picture, face, geometry) for face in faces]
        return _Prepared(source, faces, [to_luminance(crop)[:, :, None] for crop in crops])

    def _try_prepare(self, source: object, picture: UInt8Image | FevertoolsError, cropped: bool) -> _Prepared:
        if isinstance(picture, FevertoolsError):
            return _Prepared(source, [], [], picture)
        try:
            return self._prepare(source, picture, cropped)
        except (ImageError, DegenerateFaceError) as error:
            return _Prepared(source, [], [], _without_traceback(error))

    def _finish(self, window: list[_Prepared]) -> list[ImageResult]:
        encoding = self._encode([crop for prepared in window for crop in prepared.crops])
        rows = iter(zip(encoding.embeddings, encoding.logits, strict=True))
        results = []
        for prepared in window:
            found = []
            for face in prepared.faces:
                embedding, logits = next(rows)
                # A copy, so that one kept face does not keep the batch.
                found.append(FaceResult(face, embedding.copy(), express(logits, self.entry.labels)))
            results.append(ImageResult(prepared.source, tuple(found), prepared.error))
        return results


def _find(manifest: Manifest, weights: str | Path) -> WeightsEntry:
    if str(weights).endswith(".json"):
        return load_manifest(weights).entry(None, "encoder")
    return manifest.entry(str(weights), "encoder")


def _whole(picture: UInt8Image, geometry: FaceGeometry) -> Face:
    height, width = picture.shape[:2]
    landmarks = np.asarray(geometry.landmarks, np.float32) * np.asarray((width, height), np.float32)
    return Face(np.array([0, 0, width, height], np.float32), 1.0, landmarks)


def _frame(picture: UInt8Image, face: Face, geometry: FaceGeometry) -> UInt8Image:
    """The crop of one face. Where its landmarks coincide, its box stands for them, so that no face is lost."""
    try:
        return crop_face(picture, face.landmarks, geometry)
    except DegenerateFaceError:
        # The detector's boxes run from forehead to chin, nearly as the training frames do.
        return crop_face(
            picture, face.box[:2] + np.asarray(geometry.landmarks) * (face.box[2:] - face.box[:2]), geometry
        )


def _without_traceback(error: FevertoolsError) -> FevertoolsError:
    """Frames hold the bytes that could not be decoded; a kept result must not keep those."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


_SHARED_MOST: Final = 4
_shared: OrderedDict[tuple[object, ...], Analyzer] = OrderedDict()
_shared_lock = threading.Lock()


def shared_analyzer(**options: Any) -> Analyzer:
    """The Analyzer behind the module-level functions: made at first use, one per set of options.

    The few used last are kept. None is closed, since another thread may still use it.
    """
    # The process is part of the key because the threads of a session do not survive a fork.
    key = (os.getpid(), *sorted(options.items()))
    with _shared_lock:
        analyzer = _shared.pop(key, None) or Analyzer(**options)
        _shared[key] = analyzer
        while len(_shared) > _SHARED_MOST:
            _shared.popitem(last=False)
    return analyzer
