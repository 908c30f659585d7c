"""One HTML page about the faces of many images: it holds everything in itself, and loads nothing.

    pip install "fevertools[report]"

>>> from pathlib import Path
>>> from fevertools.report import write_report
>>> write_report(sorted(Path("photos").glob("*.jpg")), "report.html")
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fevertools import __version__
from fevertools._report import layout
from fevertools._report.faces import Highlights, Rows, Run, gather, highlight, printable, select
from fevertools._report.page import render
from fevertools._report.pictures import pictures
from fevertools.errors import OptionError, UnreadableImageError
from fevertools.image import ImageInput
from fevertools.options import whole
from fevertools.pipeline import Analyzer
from fevertools.tables import identity, metadata_of
from fevertools.types import Color, Expression, Face, FaceResult, Float32, ImageResult

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Written", "results_of", "write_report", "write_results"]

LIMIT: Final = 2000
"""Faces that a page shows unless it is told otherwise; about 1.6 KB each."""

MOST: Final = 5000
"""Faces that a page can show: similarities of all pairs are computed, and each face is an element of the map."""

NEIGHBOURS: Final = 12

_FILES: Final = 1000
"""Images without a face, and as many that failed, that are named; the others are counted."""

_COLUMNS: Final = ("source", "face", "box", "score", "landmarks", "embedding", "label", "probabilities", "entropy")


@dataclass(frozen=True, slots=True)
class Written:
    """What a report says."""

    path: Path
    images: int
    faces: int
    shown: int  # of the faces, those on the page
    faceless: int  # images without a face
    failed: int  # images that could not be used
    size: int  # of the file, bytes


def write_report(
    images: Iterable[ImageInput],
    output: str | os.PathLike[str],
    *,
    analyzer: Analyzer | None = None,
    cropped: bool = False,
    color: Color = "rgb",
    title: str = "Facial expressions",
    limit: int = LIMIT,
    seed: int = 0,
    progress: bool = False,
) -> Written:
    """Analyze images and write a page about their faces: a map of the embeddings with a picture of each face, how often
    each expression is, the most and least typical faces, nearest neighbours, uncertain faces, and what went wrong.

    Images that cannot be read are named on the page, and the others go on. Those with faces on the page are read twice:
    a path is opened again, so its file should stay as it is, other images are kept in memory. A file object can be read
    only once, so its faces have no picture.

    Args:
        images: what `Analyzer.stream` takes.
        output: the HTML file; one that is there is replaced, in one step.
        analyzer: weights, device and options; None is `Analyzer()`.
        cropped: every image is one face, framed as the weights expect.
        color: channel order of arrays, "rgb" or "bgr".
        title: heading of the page.
        limit: most faces on the page, 1 to MOST. Counts are always of all faces; of more than `limit`, the highlights
            of all come first, in half of the page at most, and the others are drawn at random.
        seed: of that draw and of the map; the same seed on the same machine gives the same page but for its date.
        progress: show a line on stderr, if that is a terminal.

    Raises:
        OptionError: another argument than these, or `output` is in no folder.
        MissingExtraError: scikit-learn is not installed.
        WeightsError: the weights are missing or broken.
        OSError: the file cannot be written.
    """
    _check(output, limit, seed)
    with nullcontext(analyzer) if analyzer is not None else Analyzer() as used:
        stream = used.stream(images, cropped=cropped, color=color, progress=progress)
        with closing(stream) as results:
            return write_results(results, output, analyzer=used, color=color, title=title, limit=limit, seed=seed)


def write_results(
    results: Iterable[ImageResult],
    output: str | os.PathLike[str],
    *,
    analyzer: Analyzer,
    color: Color = "rgb",
    title: str = "Facial expressions",
    limit: int = LIMIT,
    seed: int = 0,
) -> Written:
    """As `write_report`, of what was analyzed already.

    Args:
        results: what `Analyzer.stream` or `results_of` gives.
        analyzer: the one that made them, or another with the same weights, for similarities and the framing.
        output, color, title, limit, seed: as for `write_report`. Errors are its own too.
    """
    path = _check(output, limit, seed)
    labels = analyzer.entry.labels
    run = gather(results, analyzer.entry.dimension, len(labels))
    found = highlight(run, len(labels), lambda vectors, one: np.asarray(analyzer.similarity(vectors, one)))
    rows = select(found, len(run), limit, seed)
    about = _about(run, len(rows), analyzer, seed)
    facts = {
        "labels": labels,
        "counts": _counts(run, len(labels)),
        "images": run.images,
        "faceless": {"count": len(run.faceless), "names": run.faceless[:_FILES]},
        "failed": {"count": len(run.failed), "names": run.failed[:_FILES]},
        **_shown(run, rows, found.keep(rows), analyzer, color, seed),
        "about": about,
    }
    title = printable(title)
    size = len(render(facts, title))  # characters, all of them ASCII but for the title and the assets
    about.append(("Size of this page", f"{size / 1e6:.1f} MB, most of it the pictures"))
    _write(path, render(facts, title))
    return Written(path, run.images, len(run), len(rows), len(run.faceless), len(run.failed), path.stat().st_size)


def _check(output: str | os.PathLike[str], limit: int, seed: int) -> Path:
    """What can be known before hours of work."""
    whole(limit, "limit", 1, MOST)
    whole(seed, "seed", 0, 2**32 - 1)
    layout.learners()
    path = Path(output)
    if not path.parent.is_dir():
        raise OptionError(f"there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise OptionError(f"{path} is a folder; name a file, such as {path / 'report.html'}")
    return path


def _counts(run: Run, labels: int) -> list[dict[str, float]]:
    """Of each label: faces for which it is the most probable, and its mean probability over all faces."""
    number = np.bincount(run.label, minlength=labels) if len(run) else np.zeros(labels, int)
    mean = run.probabilities.mean(axis=0, dtype=np.float64) if len(run) else np.zeros(labels)
    return [
        {"faces": int(faces), "mean": round(float(probability), 4)}
        for faces, probability in zip(number, mean, strict=True)
    ]


def _shown(run: Run, rows: Rows, highlights: Highlights, analyzer: Analyzer, color: Color, seed: int) -> dict[str, Any]:
    """The faces of the page, and the lists of them; a face is named by its position among them."""
    vectors = run.embeddings[rows]
    alike = np.asarray(analyzer.similarity(vectors, vectors)) if len(rows) else np.empty((0, 0), np.float32)
    places, height = layout.place(alike, seed)
    neighbours = _neighbours(alike)
    images, image = np.unique(run.image[rows], return_inverse=True)
    small = pictures(run, rows, analyzer.entry.geometry, color)
    faces = [
        {
            "image": int(image[position]),
            "number": int(run.number[row]),
            "label": int(run.label[row]),
            "probabilities": [round(float(value), 3) for value in run.probabilities[row]],
            "entropy": round(float(run.entropy[row]), 3),
            "place": [round(float(value), 1) for value in places[position]],
            "picture": small[position],
            "near": [[int(other), round(float(alike[position, other]), 3)] for other in neighbours[position]],
        }
        for position, row in enumerate(rows)
    ]
    return {
        "height": height,
        "sources": [run.names[number] for number in images],
        "faces": faces,
        "most": [listed.tolist() for listed in highlights.most],
        "least": [listed.tolist() for listed in highlights.least],
        "uncertain": highlights.uncertain.tolist(),
    }


def _neighbours(alike: Float32) -> Rows:
    """The most similar others of each face, most similar first: (n, NEIGHBOURS or n - 1)."""
    others = alike.copy()
    np.fill_diagonal(others, -np.inf)
    return np.argsort(-others, axis=1, kind="stable")[:, : min(NEIGHBOURS, max(len(alike) - 1, 0))]


def _about(run: Run, shown: int, analyzer: Analyzer, seed: int) -> list[tuple[str, str]]:
    """Where the page comes from: names and values."""
    weights = identity(analyzer.entry)
    head = "triplet" if "triplet" in analyzer.entry.files else "cosine"
    chosen = "all of them" if shown == len(run) else f"{shown:,} of them: highlights, and others drawn with seed {seed}"
    return [
        ("Weights", f"{weights['name']}, version {weights['version']}"),
        ("SHA-256 of the weights", weights["sha256"]),
        ("Trained on", ", ".join(str(data["name"]) for data in analyzer.entry.data)),
        ("Licence of the weights", analyzer.entry.licence),
        ("Faces on this page", chosen),
        ("Map", f"{layout.method(shown)}, seed {seed}"),
        ("Similarity", f"metric {head} of fevertools, -1 to 1"),
        ("Typical", "similarity to the mean embedding of all faces of the label"),
        ("Made by", f"fevertools {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
    ]


def _write(path: Path, text: str) -> None:
    """The file appears as a whole, or not at all."""
    temporary = path.with_name(f".{os.getpid()}.tmp")
    try:
        temporary.write_text(text, "utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def results_of(table: "pa.Table", analyzer: Analyzer) -> Iterator[ImageResult]:
    """What `tables.to_table` made a table of: one result for each run of rows with the same source.

    An error comes back as an UnreadableImageError with its text.

    Args:
        table: of `Analyzer.to_frame(backend="arrow")` or `tables.read_parquet`.
        analyzer: with the weights that made it.

    Raises:
        OptionError: columns are missing, or the vectors are of other weights.
    """
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise OptionError(
            f"the table has no {', '.join(missing)}; make it with Analyzer.to_frame or tables.to_table, or give the "
            "images"
        )
    own, wanted = metadata_of(table), identity(analyzer.entry)
    if own.get("weights") != wanted or own.get("labels") != list(analyzer.entry.labels):
        raise OptionError(
            f"the table is of the weights {own.get('weights')}, not of {wanted}; use an Analyzer of those"
        )
    return _results(table, analyzer.entry.labels)


def _results(table: "pa.Table", labels: Sequence[str]) -> Iterator[ImageResult]:
    source: str | None = None
    faces: list[FaceResult] = []
    for batch in table.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            # A face numbered 0 begins another image, also where one source was taken twice.
            if faces and (row["source"] != source or row["face"] in (0, None)):
                yield ImageResult(source, tuple(faces))
                faces = []
            source = row["source"]
            if row["face"] is None:
                error = row.get("error")
                yield ImageResult(source, (), None if error is None else UnreadableImageError(error))
            else:
                faces.append(_face(row, labels))
    if faces:
        yield ImageResult(source, tuple(faces))


def _face(row: dict[str, Any], labels: Sequence[str]) -> FaceResult:
    landmarks = np.array(row["landmarks"], np.float32).reshape(-1, 2)
    expression = Expression(row["label"], dict(zip(labels, row["probabilities"], strict=True)), row["entropy"])
    face = Face(np.array(row["box"], np.float32), row["score"], landmarks)
    return FaceResult(face, np.array(row["embedding"], np.float32), expression)
