"""Results of a run -> columns, one row a face, and which rows a page shows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from fevertools.image import ImageInput
from fevertools.types import FaceResult, Float32, ImageResult

Rows: TypeAlias = npt.NDArray[np.int64]

TYPICAL: Final = 6
"""Faces of a label that are listed as most typical, and as least."""

UNCERTAIN: Final = 48
"""Faces that are listed for their entropy."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What became of every image; the faces in columns."""

    images: int
    faceless: list[str]  # images that were read and have no face
    failed: list[tuple[str, str]]  # image, and why it could not be used
    sources: list[ImageInput]  # images with faces, as they were passed in
    names: list[str]  # of the same: the path, or of an image that is none its position, such as "#3"
    image: Rows  # (n,) row of `sources`
    number: Rows  # (n,) of the face in its image, from 0
    landmarks: Float32  # (n, 5, 2) pixels
    embeddings: Float32  # (n, D)
    probabilities: Float32  # (n, L)
    entropy: Float32  # (n,) nats

    def __len__(self) -> int:
        return len(self.image)

    @property
    def label(self) -> Rows:
        """(n,) the most probable label of each face."""
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)


def gather(results: Iterable[ImageResult], dimension: int, labels: int) -> Run:
    """Take a run apart. Pixels of images that are no path are kept as long as the Run is.

    Args:
        results: what `Analyzer.stream` gives.
        dimension: D, of the embeddings.
        labels: L.
    """
    faceless: list[str] = []
    failed: list[tuple[str, str]] = []
    sources: list[Any] = []
    names: list[str] = []
    found: list[tuple[int, int, FaceResult]] = []
    images = 0
    for position, result in enumerate(results):
        images = position + 1
        name = printable(result.source) if isinstance(result.source, str | PathLike) else f"#{position}"
        if result.error is not None:
            failed.append((name, printable(result.error)))
        elif not result.faces:
            faceless.append(name)
        else:
            found += [(len(sources), number, face) for number, face in enumerate(result.faces)]
            sources.append(result.source)
            names.append(name)
    faces = [face for _, _, face in found]
    return Run(
        images, faceless, failed, sources, names,
        np.array([image for image, _, _ in found], np.int64),
        np.array([number for _, number, _ in found], np.int64),
        _stack([face.face.landmarks for face in faces], 5, 2),
        _stack([face.embedding for face in faces], dimension),
        _stack([[*face.expression.probabilities.values()] for face in faces], labels),
        np.array([face.expression.entropy for face in faces], np.float32),
    )  # fmt: skip


def _stack(rows: Sequence[npt.ArrayLike], *shape: int) -> Float32:
    return np.asarray(rows, np.float32).reshape(-1, *shape)


def printable(value: object) -> str:
    """As text that UTF-8 can hold: bytes of a file name that are none become \\udcXX escapes."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True, slots=True, eq=False)
class Highlights:
    """Rows that are listed for what they are, best example first."""

    most: list[Rows]  # a list for each label, that of the most typical face first
    least: list[Rows]  # the same, of the least typical face first; none is in both
    uncertain: Rows  # that of the largest entropy first

    def keep(self, rows: Rows) -> "Highlights":
        """Those of them that are among `rows`, as their positions there; `rows` ascend."""

        def positions(listed: Rows) -> Rows:
            return np.searchsorted(rows, listed[np.isin(listed, rows)])

        return Highlights([*map(positions, self.most)], [*map(positions, self.least)], positions(self.uncertain))


def highlight(run: Run, labels: int, alike: Callable[[Float32, Float32], Float32]) -> Highlights:
    """Find the faces to list.

    Args:
        run: its faces.
        labels: L.
        alike: (m, D) embeddings and one (D,) -> (m,) similarities. A face is the more typical of its label, the more
            it is like the mean embedding of all faces of that label.
    """
    most, least, label = [], [], run.label
    for number in range(labels):
        rows = np.flatnonzero(label == number)
        if len(rows):
            vectors = run.embeddings[rows]
            rows = rows[np.argsort(-alike(vectors, vectors.mean(axis=0)), kind="stable")]
        most.append(rows[: min(TYPICAL, (len(rows) + 1) // 2)])
        least.append(rows[::-1][: min(TYPICAL, len(rows) // 2)])
    return Highlights(most, least, np.argsort(-run.entropy, kind="stable")[:UNCERTAIN])


def select(highlights: Highlights, count: int, limit: int, seed: int) -> Rows:
    """The rows that a page of at most `limit` faces shows, ascending.

    All of them where they are not too many. Else half of the page at most is for the highlights, first ones first, and
    the others are drawn at random, without replacement.
    """
    if count <= limit:
        return np.arange(count)
    lists = [highlights.uncertain, *highlights.most, *highlights.least]
    ranked = [rows[rank] for rank in range(UNCERTAIN) for rows in lists if rank < len(rows)]
    first = [*dict.fromkeys(ranked)][: limit // 2]
    others = np.setdiff1d(np.arange(count), first)
    drawn = np.random.default_rng(seed).choice(others, limit - len(first), replace=False)
    return np.sort(np.concatenate([np.array(first, np.int64), drawn]))
