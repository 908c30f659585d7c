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
import numpy.typing as npt

from fevertools._draft import at_full_size, draft_factor, in_picture
from fevertools.align import crop_face
from fevertools.detector import PRESETS, Detector
from fevertools.encoder import Encoder, Encoding, express_each, network_role
from fevertools.errors import DegenerateFaceError, FevertoolsError, ImageError, OptionError
from fevertools.hub import CacheOptions
from fevertools.image import DEFAULT_MAX_PIXELS, ImageInput, Picture, load_reduced
from fevertools.manifest import PRECISIONS, WeightsEntry, load_manifest
from fevertools.options import MOST_THREADS, choice, flag, fractions, whole
from fevertools.preprocess import enlarge, fit_crop, to_luminance
from fevertools.session import runs_on_cpu
from fevertools.similarity import METRICS, Metric
from fevertools.similarity import similarity as compare
from fevertools.streaming import (
    READ_AHEAD,
    Progress,
    Room,
    are_few,
    read_ahead,
    work_in_groups,
    worker_pool,
    workers_of,
)
from fevertools.tables import BACKENDS, Backend, to_backend, to_table
from fevertools.types import (
    Color,
    Explanation,
    Expression,
    Face,
    FaceGeometry,
    FaceResult,
    Float32,
    ImageResult,
    UInt8Image,
)
from fevertools.weights import find, load_head, resolve

OnError: TypeAlias = Literal["skip", "raise"]

LOOK_AHEAD: Final = 16
"""Most images whose faces `stream` gathers into one run of the encoder."""

_PIXELS_AT_ONCE: Final = 64_000_000  # in pictures that are searched side by side; each takes tens of bytes there


def fills_window(images: int, faces: int, batch_size: int) -> bool:
    """Whether so many images, with so many faces, make up one run of the encoder in `Analyzer.stream`."""
    return faces >= batch_size or images >= LOOK_AHEAD


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
    memory back early. One that was used before a fork raises FevertoolsError in the child, which makes its own.

    Args:
        weights: name of an encoder in the manifest; the path of a manifest file (it ends in ".json") whose default
            encoder lies beside it, such as the export command writes; "organisation/name@revision:entry" of a
            repository on the Hugging Face Hub, whose manifest is fetched here, see `weights.find`; or None for the
            package's default.
        device: "auto", "cpu" or another of `session.available_devices()`.
        providers: ONNX Runtime execution providers, in place of `device`.
        threads: CPU threads that work at once: together on one image, or in `stream` on as many images, one each. None
            is one a core, at most 8 on one image and MOST_WORKERS in a stream. Results do not depend on it.
        precision: of the encoder's arithmetic: "float32", or "int8" where the weights have such a graph, see
            `Encoder`. The embeddings of both can be compared with each other.
        batch_size: most faces in one run of the encoder.
        flip: average each face's embedding and logits with those of its mirror image.
        preset: of the detector: "exact", or "fast" for well under half of the time where a lost face does little harm,
            see `Detector`.
        min_face_size: smallest face to look for, pixels; None is the preset's: 20, and 40 of "fast".
        thresholds: scores that the three stages of the detector ask for, 0-1; None is the preset's.
        max_faces: only so many of the largest faces; None for all.
        largest: only the largest face.
        max_pixels: refuse images of more pixels than this.
        draft: decode JPEGs at a half, a quarter or an eighth of their size where faces of `min_face_size` are at least
            48 pixels large even then, so 96 and more, and look for faces there. Takes a fraction of the time for large
            photos, and finds nearly the same faces, in pixels of the full size as ever. Other formats, arrays and
            `cropped` images are read as always.
        cache_dir: folder of the Hugging Face Hub cache; None is the library's own.
        local_files_only: never use the network, only what is bundled or cached.

    Raises:
        UnknownWeightsError: the manifest has no encoder of this name.
        ManifestError: the manifest is not valid.
        WeightsUnavailableError: the manifest of a repository is not cached and could not be fetched.
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
        precision: str = "float32",
        batch_size: int = 64,
        flip: bool = False,
        preset: str = "exact",
        min_face_size: int | None = None,
        thresholds: tuple[float, float, float] | None = None,
        max_faces: int | None = None,
        largest: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        draft: bool = False,
        cache_dir: Path | str | None = None,
        local_files_only: bool = False,
    ) -> None:
        usual = PRESETS[choice(preset, "preset", PRESETS)]
        self._options: dict[str, Any] = {
            "preset": preset,
            "min_face_size": usual.min_face_size if min_face_size is None else whole(min_face_size, "min_face_size"),
            "thresholds": usual.thresholds if thresholds is None else fractions(thresholds, "thresholds", 3),
            "max_faces": max_faces,
            "largest": largest,
        }
        self._device, self._providers, self._threads = device, providers, threads
        self._precision = choice(precision, "precision", PRECISIONS)
        self._batch_size, self._flip = whole(batch_size, "batch_size"), flag(flip, "flip")
        self._max_pixels, self._draft = whole(max_pixels, "max_pixels"), flag(draft, "draft")
        self._cache: CacheOptions = {
            "cache_dir": cache_dir,
            "local_files_only": flag(local_files_only, "local_files_only"),
        }
        self._manifest = load_manifest()
        # No choice is no error yet: detection needs no encoder.
        self._entry = None if weights is None else find(weights, "encoder", **self._cache)
        self._lock = threading.Lock()
        # By the threads of one run: calls have all that were asked for, the workers of a stream one each.
        self._detectors: dict[tuple[int | None, int], Detector] = {}  # and by the factor of the picture's size
        self._encoders: dict[int | None, Encoder] = {}
        self._room = Room(_PIXELS_AT_ONCE)
        self._head: Float32 | None = None
        self._closed = False
        self._process = os.getpid()

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
        return self._detect(self._load(image, color, False))

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
        return self._encode(self._prepare(image, self._load(image, color, cropped), cropped).crops).embeddings

    def classify(self, image: ImageInput, *, cropped: bool = False, color: Color = "rgb") -> list[Expression]:
        """One expression per face, in the order of `detect`. Arguments and errors are those of `embed`."""
        return [face.expression for face in self.analyze(image, cropped=cropped, color=color).faces]

    def analyze(self, image: ImageInput, *, cropped: bool = False, color: Color = "rgb") -> ImageResult:
        """Faces, embeddings and expressions of one image at once. Arguments and errors are those of `embed`.

        Under `cropped` the one face has the whole image as its box, score 1 and the landmarks of the template.
        """
        return self._finish([self._prepare(image, self._load(image, color, cropped), cropped)])[0]

    def explain(self, image: ImageInput, *, cropped: bool = False, color: Color = "rgb") -> list[Explanation]:
        """Where the network looked: a class activation map of every label for each face, in the order of `detect`.

        The maps say which places of the crop spoke for a label in this network, and nothing about why a person looks
        as they do. They are as coarse as the network's last layer, and enlarged. Arguments are those of `embed`.

        Raises:
            OptionError: these weights have no maps.
            ImageError: the image cannot be read.
            WeightsError: a network's files are missing or broken.
        """
        prepared = self._prepare(image, self._load(image, color, cropped), cropped)
        (result,) = self._finish([prepared])
        maps = self._made_encoder().maps(self._stacked(prepared.crops))
        labels = self.entry.labels
        explanations = []
        for found, crop, coarse in zip(result.faces, prepared.crops, maps, strict=True):
            by_label = dict(zip(labels, enlarge(coarse, self.entry.geometry), strict=True))
            explanations.append(Explanation(found.face, found.expression, crop[:, :, 0], by_label))
        return explanations

    def similarity(self, a: npt.ArrayLike, b: npt.ArrayLike, *, metric: Metric | None = None) -> float | Float32:
        """How alike expressions look, from embeddings that this Analyzer made, see `fevertools.similarity`.

        Args:
            a: (D,) one embedding or (n, D) several.
            b: (D,) or (m, D).
            metric: "triplet" is on the triplet head of these weights, "cosine" on the embeddings themselves; None is
                "triplet" where these weights have that head, else "cosine".

        Returns:
            float; float32 (n, m), (n,) or (m,) where sets are compared.

        Raises:
            OptionError: not embeddings of these weights, an unknown metric, or "triplet" where they have no such head.
            WeightsError: the file of the head is missing or broken.
        """
        self._check_open()
        if metric is not None:
            choice(metric, "metric", METRICS)
        return compare(a, b, metric=metric, head=None if metric == "cosine" else self._triplet_head(metric))

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

        Several images are decoded and searched side by side, one thread each, in as many threads as `threads` says
        (None: one a core, at most MOST_WORKERS), and the faces of several images share a run of the encoder, so up to
        (threads + 1) * (LOOK_AHEAD + READ_AHEAD) images are taken from `images` before their results are given. Should
        `images` itself raise, the results of what it gave before come first.

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
        choice(on_error, "on_error", ("skip", "raise"))
        flag(cropped, "cropped")
        if not isinstance(images, Iterable) or isinstance(images, str | bytes | os.PathLike):
            raise OptionError("stream takes an iterable of images; for one image use analyze()")
        if isinstance(images, np.ndarray) and (images.ndim < 3 or images.shape[2:] == (3,)):
            raise OptionError(f"stream takes an iterable of images; {images.shape} is one image, so use analyze()")
        self._check_open()
        return self._stream(images, cropped, color, progress, on_error)

    def to_frame(
        self,
        images: Iterable[ImageInput],
        *,
        backend: Backend = "pandas",
        cropped: bool = False,
        color: Color = "rgb",
        progress: bool = False,
        on_error: OnError = "skip",
        keep_empty: bool = False,
    ) -> Any:
        """Analyze any number of images into a data frame, one row for each face.

        Args:
            images, cropped, color, progress, on_error: as for `stream`. An image that cannot be read has a row with its
                error.
            backend: "pandas", "polars" or "arrow", a pyarrow table. All need pyarrow: the extra `parquet`.
            keep_empty: also a row for each image without a face.

        Returns:
            pandas.DataFrame, polars.DataFrame or pyarrow.Table; the columns are those of `tables.to_table`.

        Raises:
            OptionError: as for `stream`, or an unknown backend.
            MissingExtraError: pyarrow or the backend is not installed.
        """
        choice(backend, "backend", BACKENDS)
        results = self.stream(images, cropped=cropped, color=color, progress=progress, on_error=on_error)
        with closing(results):
            return to_backend(to_table(results, self.entry, keep_empty=keep_empty), backend)

    def _stream(
        self, images: Iterable[ImageInput], cropped: bool, color: Color, progress: bool, on_error: OnError
    ) -> Generator[ImageResult, None, None]:
        total = len(images) if isinstance(images, Sized) else None
        workers = workers_of(self._threads)
        alone, images = are_few(images, workers)
        workers = 1 if alone else workers
        # Photos keep the workers busy by themselves; crops have only the encoder's work to share.
        groups = workers if cropped else -(-workers // 4)

        def prepare(image: ImageInput) -> _Prepared:
            return self._try_prepare(image, cropped, color, alone)

        def is_whole(window: list[_Prepared]) -> bool:
            faces = sum(len(prepared.faces) for prepared in window)
            stop = window[-1].error is not None and on_error == "raise"
            return stop or fills_window(len(window), faces, self._batch_size)

        def finish(window: list[_Prepared]) -> list[ImageResult]:
            return self._finish(window, alone=alone)

        with Progress(total, shown=progress) as line, worker_pool(workers) as pool:
            read = read_ahead(images, prepare, pool=pool, ahead=READ_AHEAD * workers)
            windows = work_in_groups((prepared for _, prepared in read), is_whole, finish, pool=pool, ahead=groups)
            for window in windows:
                for result in window:
                    if result.error is not None and on_error == "raise":
                        raise result.error
                    line.advance()
                    yield result
                    self._check_open()  # a fork takes the generator along, and not its threads

    def close(self) -> None:
        """Give the sessions back. Any later use raises FevertoolsError; closing twice is fine."""
        with self._lock:
            self._closed, self._head = True, None
            self._detectors.clear()
            self._encoders.clear()

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
        # Asked before the process, or another thread of a child could be taken for the parent's.
        in_use = self._lock.locked() or self._detectors or self._encoders
        if self._process != os.getpid():
            if in_use:
                raise FevertoolsError(
                    "this Analyzer loaded its networks before a fork, and their threads stay in the parent; make a new "
                    "one in the child, or start processes by 'spawn'"
                )
            self._process = os.getpid()

    def _load(self, image: ImageInput, color: Color, cropped: bool) -> Picture:
        self._check_open()
        factor = draft_factor(self._options["min_face_size"]) if self._draft and not cropped else 1
        return load_reduced(image, factor, color=color, max_pixels=self._max_pixels)

    def _detect(self, picture: Picture, *, alone: bool = True) -> list[Face]:
        return at_full_size(self._search(picture, alone), picture)

    def _search(self, picture: Picture, alone: bool) -> list[Face]:
        """The faces in pixels of the picture as it was decoded."""
        detector = self._made_detector(alone, picture.factor)
        height, width = picture.pixels.shape[:2]
        with self._room.holding(height * width):
            return in_picture(detector(picture.pixels), picture)

    def _threads_of(self, alone: bool) -> int | None:
        """Threads of one run of a network: one where others run beside it, unless a GPU does the work anyway."""
        threads = None if self._threads is None else whole(self._threads, "threads", 1, MOST_THREADS)
        return threads if alone or not runs_on_cpu(self._device, self._providers) else 1

    def _made_detector(self, alone: bool, factor: int) -> Detector:
        with self._lock:
            self._check_open()
            threads = self._threads_of(alone)
            if (threads, factor) not in self._detectors:
                options = {**self._options, "min_face_size": self._options["min_face_size"] // factor}
                self._detectors[threads, factor] = Detector(
                    models=resolve(self._manifest.entry(None, "detector"), **self._cache),
                    device=self._device,
                    threads=threads,
                    providers=self._providers,
                    **options,
                )
            return self._detectors[threads, factor]

    def _encode(self, crops: list[UInt8Image], *, alone: bool = True) -> Encoding:
        return self._made_encoder(alone).encode(self._stacked(crops), flip=self._flip)

    def _stacked(self, crops: list[UInt8Image]) -> UInt8Image:
        geometry = self.entry.geometry
        return np.stack(crops) if crops else np.empty((0, geometry.height, geometry.width, 1), np.uint8)

    def _made_encoder(self, alone: bool = True) -> Encoder:
        with self._lock:
            self._check_open()
            threads = self._threads_of(alone)
            if threads not in self._encoders:
                graph = network_role(self.entry, self._precision)
                # Not the graphs of other precisions, which would be fetched for nothing.
                roles = [role for role in self.entry.served if role == graph or role not in PRECISIONS.values()]
                self._encoders[threads] = Encoder(
                    self.entry,
                    resolve(self.entry, roles=roles, **self._cache),
                    precision=self._precision,
                    device=self._device,
                    threads=threads,
                    batch_size=self._batch_size,
                    providers=self._providers,
                )
            return self._encoders[threads]

    def _triplet_head(self, metric: Metric | None) -> Float32 | None:
        if "triplet" not in self.entry.files:
            if metric != "triplet":
                return None
            known = [name for name, entry in self._manifest.weights.items() if "triplet" in entry.files]
            raise OptionError(
                f"{self.entry.name} has no triplet head; weights that have one: {', '.join(known) or 'none'}. "
                "Embed with those, or use metric='cosine'"
            )
        with self._lock:
            self._check_open()
            if self._head is None:
                self._head = load_head(self.entry, **self._cache)
            return self._head

    def _prepare(self, source: object, picture: Picture, cropped: bool, *, alone: bool = True) -> _Prepared:
        geometry = self.entry.geometry
        if flag(cropped, "cropped"):
            faces, crops = [_whole(picture.pixels, geometry)], [fit_crop(picture.pixels, geometry)]
        else:
            found = self._search(picture, alone)
            crops = [_frame(picture.pixels, face, geometry) for face in found]
            faces = at_full_size(found, picture)
        return _Prepared(source, faces, [to_luminance(crop)[:, :, None] for crop in crops])

    def _try_prepare(self, source: ImageInput, cropped: bool, color: Color, alone: bool) -> _Prepared:
        try:
            return self._prepare(source, self._load(source, color, cropped), cropped, alone=alone)
        except (ImageError, DegenerateFaceError) as error:
            return _Prepared(source, [], [], _without_traceback(error))

    def _finish(self, window: list[_Prepared], *, alone: bool = True) -> list[ImageResult]:
        encoding = self._encode([crop for prepared in window for crop in prepared.crops], alone=alone)
        # A copy of each embedding, so that one kept face does not keep the batch.
        rows = zip(map(np.copy, encoding.embeddings), express_each(encoding.logits, self.entry.labels), strict=True)
        return [
            ImageResult(
                prepared.source, tuple(FaceResult(face, *next(rows)) for face in prepared.faces), prepared.error
            )
            for prepared in window
        ]


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
    # The process is part of the key because the threads of a session do not survive a fork; the types, because 0 equals
    # False, and only one of them may be a flag.
    key = (os.getpid(), *((name, type(options[name]), options[name]) for name in sorted(options)))
    try:
        hash(key)
    except TypeError:  # an option of a type that none may have, as this one will say
        return Analyzer(**options)
    with _shared_lock:
        analyzer = _shared.get(key)
    # Not under the lock: making one may fetch a manifest from the Hub, for which no other thread need wait.
    analyzer = analyzer or Analyzer(**options)
    with _shared_lock:
        analyzer = _shared.setdefault(key, analyzer)
        _shared.move_to_end(key)
        while len(_shared) > _SHARED_MOST:
            _shared.popitem(last=False)
    return analyzer
