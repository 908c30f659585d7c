"""detect, embed, classify and similarity."""

import argparse
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from fevertools import __version__
from fevertools.cli._draw import Gallery
from fevertools.cli._inputs import Input, expand
from fevertools.cli._output import FAILED_IMAGE, Sink, open_sink
from fevertools.cli._parser import FAILED, FINE, UNUSABLE
from fevertools.cli._rows import Record, columns, floats, printable
from fevertools.cli._writers import Metadata
from fevertools.drawing import draw_expressions, draw_faces, draw_maps
from fevertools.errors import FevertoolsError, ImageError, UnreadableImageError
from fevertools.image import load
from fevertools.labels import EMOTIONS
from fevertools.manifest import ROLES, WeightsEntry, load_manifest
from fevertools.pipeline import Analyzer, fills_window
from fevertools.streaming import READ_AHEAD, Progress, are_few, read_ahead, worker_pool, workers_of
from fevertools.types import Expression, Face, FaceResult, ImageResult

Records: TypeAlias = Generator[Record, None, None]

_ANALYZER_OPTIONS: Final = (
    "weights", "precision", "device", "threads", "batch_size", "flip", "preset", "min_face_size", "draft",
    "max_faces", "largest", "cache_dir", "local_files_only",
)  # fmt: skip


def detect(options: argparse.Namespace) -> int:
    """`fevertools detect`."""
    gallery = Gallery(options)
    entry = load_manifest().entry(None, "detector")
    metadata = metadata_of("detect", entry, options, "preset", "min_face_size", "draft", "max_faces", "largest")
    with open_sink(options, columns("detect"), metadata) as sink:
        return run(options, sink, lambda images: _detections(options, images, gallery), gallery.enlist)


def embed(options: argparse.Namespace) -> int:
    """`fevertools embed`."""
    return _analyze(options, lambda face: {"embedding": floats(face.embedding)}, Gallery(options))


def classify(options: argparse.Namespace) -> int:
    """`fevertools classify`."""
    return _analyze(options, lambda face: expression_cells(face.expression), Gallery(options))


def similarity(options: argparse.Namespace) -> int:
    """`fevertools similarity`."""
    vectors = []
    with analyzer_of(options, largest=True) as analyzer:
        for path in (options.a, options.b):
            found = analyzer.embed(path, cropped=options.cropped)
            if len(found) == 0:
                print(
                    f"fevertools: no face in {printable(path)}; try a smaller --min-face-size, or --cropped if the "
                    "picture is one framed face",
                    file=sys.stderr,
                )
                return FAILED
            vectors.append(found[0])
        print(f"{analyzer.similarity(*vectors, metric=options.metric):.6f}")
    return FINE


def _analyze(options: argparse.Namespace, extra: Callable[[FaceResult], dict[str, Any]], gallery: Gallery) -> int:
    with analyzer_of(options) as analyzer:
        detected = () if options.cropped else ("preset", "min_face_size", "draft", "max_faces", "largest")
        names = ("precision", "flip", "cropped", *detected)
        metadata = metadata_of(options.command, analyzer.entry, options, *names)
        if not options.cropped:
            metadata["detector"] = _identity(load_manifest().entry(None, "detector"))

        def is_group(images: int, faces: int) -> bool:
            return fills_window(images, faces, options.batch_size)

        def draw(result: ImageResult) -> None:
            if gallery and result.error is None:
                source = str(result.source)
                picture = load(source)  # once more, for `stream` keeps no pixels
                explain = partial(analyzer.explain, source, cropped=options.cropped)
                gallery.add("explain", source, lambda: draw_maps(picture, explain()))
                gallery.add("draw", source, partial(draw_expressions, picture, result.faces))

        with open_sink(options, columns(options.command, analyzer.entry.dimension), metadata, is_group) as sink:
            return run(options, sink, lambda images: analyses(options, analyzer, images, extra, draw), gallery.enlist)


def analyzer_of(options: argparse.Namespace, **changes: Any) -> Analyzer:
    given = {name: value for name, value in vars(options).items() if name in _ANALYZER_OPTIONS}
    return Analyzer(**{**given, **changes})


def metadata_of(command: str, entry: WeightsEntry, options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """How the rows are made: all that changes them, and nothing else, so that --resume can compare it."""
    return {
        "command": command,
        "fevertools": __version__,
        "weights": _identity(entry),
        "options": {name: getattr(options, name) for name in names},
        "labels": list(entry.labels),
    }


def _identity(entry: WeightsEntry) -> Metadata:
    """Name, version and SHA-256: of the file, or of several files' SHA-256, one a line, in the order of their roles."""
    digests = [entry.files[role].sha256 for role in ROLES[entry.kind][0]]
    if len(digests) > 1:
        import hashlib

        digests = [hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode("ascii")).hexdigest()]
    return {"name": entry.name, "version": entry.version, "sha256": digests[0]}


# -------------------------------------------------------------------------------------------- one image, one record


def analyses(
    options: argparse.Namespace,
    analyzer: Analyzer,
    images: Iterator[Input],
    extra: Callable[[FaceResult], dict[str, Any]],
    draw: Callable[[ImageResult], None] = lambda result: None,
) -> Records:
    stream = analyzer.stream(
        (image.path for image in images),
        cropped=options.cropped,
        progress=shows_progress(options),
        on_error=options.on_error,
    )
    with closing(stream) as results:
        for result in results:
            draw(result)
            faces = [{**face_cells(found.face), **extra(found)} for found in result.faces]
            yield _record(str(result.source), faces, result.error)


def _detections(options: argparse.Namespace, images: Iterator[Input], gallery: Gallery) -> Records:
    """As `Analyzer.stream`, without an encoder."""
    workers = workers_of(options.threads)
    few, images = are_few(images, workers)
    threads, workers = (options.threads, 1) if few else (1, workers)

    def look(image: Input) -> list[Face] | ImageError:
        try:
            return analyzer.detect(image.path)
        except ImageError as error:
            return error

    with (
        Progress(None, shown=shows_progress(options)) as line,
        analyzer_of(options, threads=threads) as analyzer,
        worker_pool(workers) as pool,
    ):
        for image, found in read_ahead(images, look, pool=pool, ahead=READ_AHEAD * workers):
            if isinstance(found, ImageError):
                if options.on_error == "raise":
                    raise found
                record = _record(image.path, [], found)
            else:
                if gallery:
                    gallery.add("draw", image.path, partial(draw_faces, load(image.path), found))
                record = _record(image.path, [face_cells(face) for face in found], None)
            line.advance()
            yield record


def shows_progress(options: argparse.Namespace) -> bool:
    """Whether a progress line is wanted."""
    return not (options.no_progress or options.quiet)


def _record(source: str, faces: list[dict[str, Any]], error: FevertoolsError | None) -> Record:
    return {"source": source, "faces": faces, "error": None if error is None else str(error)}


def expression_cells(expression: Expression) -> dict[str, Any]:
    """Columns of a row, by name."""
    return {
        "label": expression.label,
        "probabilities": floats([expression.probabilities[label] for label in EMOTIONS]),
        "entropy": floats([expression.entropy])[0],
    }


def face_cells(face: Face) -> dict[str, Any]:
    """Columns of a row, by name."""
    landmarks = floats(face.landmarks)
    return {
        "box": floats(face.box),
        "score": floats([face.score])[0],
        "landmarks": [landmarks[i : i + 2] for i in range(0, len(landmarks), 2)],
    }


# ------------------------------------------------------------------------------------------------------------ one run


@dataclass(slots=True)
class _Counts:
    images: int = 0
    faces: int = 0
    faceless: int = 0
    errors: int = 0
    empty: int = 0  # inputs that name no image

    def add(self, faces: int) -> None:
        self.images += 1
        self.faces += max(faces, 0)
        self.faceless += faces == 0
        self.errors += faces == FAILED_IMAGE

    def __str__(self) -> str:
        return (
            f"{self.images} images, {self.faces} faces, {self.faceless} images without a face, "
            f"{self.errors + self.empty} errors"
        )


def run(
    options: argparse.Namespace,
    sink: Sink,
    analyze: Callable[[Iterator[Input]], Records],
    enlist: Callable[[Input], None] = lambda image: None,
) -> int:
    """Every image of the inputs through `analyze` into the sink. `enlist` is told of each image first."""
    counts = _Counts()

    def problem(text: str) -> None:
        if options.on_error == "raise":
            raise UnreadableImageError(text)
        counts.empty += 1
        tell(options, text)

    with closing(analyze(_fresh(options.inputs, sink, counts, problem, enlist))) as records:
        for record in records:
            sink.write(record)
            counts.add(FAILED_IMAGE if record["error"] is not None else len(record["faces"]))
            if record["error"] is not None:
                tell(options, f"{printable(record['source'])}: {record['error']}")
    if counts.images == 0:
        print("fevertools: error: no image found; name files, folders, patterns or - (stdin)", file=sys.stderr)
        return UNUSABLE
    sink.commit()
    if not options.quiet:
        print(f"fevertools: {counts}", file=sys.stderr)
    return FAILED if counts.errors or counts.empty else FINE


def _fresh(
    inputs: Sequence[str],
    sink: Sink,
    counts: _Counts,
    problem: Callable[[str], None],
    enlist: Callable[[Input], None],
) -> Iterator[Input]:
    """The images that an earlier run has not done."""
    for image in expand(inputs, problem):
        enlist(image)
        if image.path in sink.done:
            sink.met(image.path)
            counts.add(sink.done[image.path])
        else:
            yield image


def tell(options: argparse.Namespace, text: str) -> None:
    """One line on stderr."""
    # Where a progress line is shown, it is written over.
    over = shows_progress(options) and sys.stderr.isatty()
    print(f"\rfevertools: {text:<48}" if over else f"fevertools: {text}", file=sys.stderr)
