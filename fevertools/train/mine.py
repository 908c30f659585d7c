"""`mine`: unlabeled faces that a primitive learner is sure of become auxiliary samples ("Omni-supervised FER", 3.3)."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.preprocessing import normalize

from fevertools.errors import DataError, MissingExtraError
from fevertools.labels import EMOTIONS
from fevertools.train.datasets.ferplus import FerPlus, select, without_evaluated_twins
from fevertools.train.evaluate.image_sets import LfwFaces
from fevertools.train.evaluate.networks import load_network
from fevertools.types import Float32, UInt8Image

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Mined:
    """The auxiliary samples of a pool."""

    rows: Int64  # (M,) rows of the pool, ascending
    label: Int64  # (M,) pseudo label, 0 to C - 1
    similarity: Float32  # (M,) cosine to the centroid of that class
    margin: Float32  # (M,) how much larger it is than the cosine to any other centroid


def centroids(embedding: Float32, label: Int64, classes: int) -> Float32:
    """Mean embedding of every class of the labelled faces. Eq. 3.

    Args:
        embedding: (N, D).
        label: (N,) 0 to C - 1.
        classes: C.

    Raises:
        DataError: a class without faces has no centroid.
    """
    counts = np.bincount(label, minlength=classes)
    if (counts == 0).any():
        raise DataError(f"no labelled face of class {int(counts.argmin())}: it has no centroid to be mined with")
    sums = np.zeros((classes, embedding.shape[1]))
    np.add.at(sums, label, embedding.astype(np.float64))
    return (sums / counts[:, None]).astype(np.float32)


def similarities(embedding: Float32, centers: Float32) -> Float32:
    """Cosine of every embedding (N, D) to every centroid (C, D). Eq. 4: (N, C)."""
    unit, center = (normalize(values.astype(np.float64)) for values in (embedding, centers))
    return np.asarray(unit @ center.T, np.float32)


def mine(similarity: Float32, delta: float) -> Mined:
    """Keep the faces that lie nearer to one centroid than to every other, by a margin. Eq. 5.

    The equation is written for a distance, `d(k') <= d(k) - delta`, and Eq. 4 defines d as the cosine, which grows with
    likeness. What is meant is the nearest class: here `cosine(k') >= cosine(k) + delta`.

    Args:
        similarity: (N, C), as `similarities` gives them.
        delta: the margin, 0 to 2.
    """
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :2]
    best, second = np.take_along_axis(similarity, order, axis=1).T
    rows = np.flatnonzero(best - second >= delta)
    return Mined(rows, order[rows, 0].astype(np.int64), best[rows], (best - second)[rows])


def pool_faces(root: Path, runs: Path) -> tuple[UInt8Image, Int64]:
    """The unlabeled pool of the open runs: faces of half of the people of LFW.

    The other half is left for evaluation across data sets, so that no face that is judged has been trained on.

    Returns:
        uint8 (N, 48, 48) crops, and their rows (N,) among all crops of LFW.
    """
    faces = LfwFaces(root, runs / "lfw")
    rows = np.flatnonzero(faces.crop_person() % 2 == 0)
    return faces.crops.images[rows], rows


def write_list(mined: Mined, classes: tuple[str, ...], path: Path, origin: dict[str, object]) -> None:
    """Write the samples as Parquet: row, class, similarity, margin; `origin` goes into the metadata as JSON."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise MissingExtraError('the list of samples is Parquet: pip install "fevertools[parquet]"') from error
    table = pa.table(
        {
            "row": mined.rows,
            "class": [classes[k] for k in mined.label],
            "similarity": mined.similarity,
            "margin": mined.margin,
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"fevertools": json.dumps(origin)}), path)


def read_list(path: Path, classes: tuple[str, ...]) -> Mined:
    """Read what `write_list` wrote.

    Raises:
        DataError: not such a file, or it names a class that is not among `classes`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path).to_pydict()
        label = np.array([classes.index(name) for name in table["class"]], np.int64)
        rows, similarity, margin = (np.array(table[name]) for name in ("row", "similarity", "margin"))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} is no list of mined samples of {', '.join(classes)}: {error}") from error
    return Mined(rows.astype(np.int64), label, similarity.astype(np.float32), margin.astype(np.float32))


def contact_sheet(images: UInt8Image, mined: Mined, label: int, columns: int = 12, count: int = 96) -> UInt8Image:
    """The samples of one class, most similar first, in rows: what figure 3 shows.

    Args:
        images: the pool, uint8 (N, S, S).
        mined: its samples.
        label: which class.
        columns: faces in a row.
        count: the most faces shown.

    Returns:
        uint8 (rows * S, columns * S), black where there is no face; one row at least.
    """
    own = np.flatnonzero(mined.label == label)
    own = own[np.argsort(-mined.similarity[own], kind="stable")][:count]
    size = images.shape[1]
    sheet = np.zeros((max(1, -(-len(own) // columns)) * size, columns * size), np.uint8)
    for place, row in enumerate(mined.rows[own]):
        top, left = (size * part for part in divmod(place, columns))
        sheet[top : top + size, left : left + size] = images[row]
    return sheet


def write_sheets(images: UInt8Image, mined: Mined, classes: tuple[str, ...], folder: Path) -> None:
    """A contact sheet of every class: `CLASS.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    for label, name in enumerate(classes):
        cv2.imwrite(str(folder / f"{name}.png"), contact_sheet(images, mined, label))


def mine_pool(
    weights: str, data: FerPlus, root: Path, runs: Path, delta: float, output: Path, sheets: Path | None
) -> Mined:
    """From a primitive learner to the list of auxiliary samples, and contact sheets where they are asked for.

    Args:
        weights: of the primitive learner, see `evaluate.networks.load_network`.
        data: the anchor, FER-2013 with FER+: its training rows and their majority labels give the centroids.
        root: data folder, in which LFW is looked for.
        runs: folder of the runs, which has the crops of LFW.
        delta: the margin of Eq. 5.
        output: Parquet file.
        sheets: folder.
    """
    predict = load_network(weights, data)
    anchor = select(data, "ferplus8", "train")
    keep = without_evaluated_twins(data, anchor.rows)
    embedding = predict(data.images[anchor.rows[keep]][..., None]).embedding
    centers = centroids(embedding, anchor.target[keep].argmax(axis=1), len(EMOTIONS))
    images, _ = pool_faces(root, runs)
    mined = mine(similarities(predict(images[..., None]).embedding, centers), delta)
    write_list(mined, EMOTIONS, output, {"weights": weights, "anchor": "ferplus8", "pool": "LFW, half", "delta": delta})
    if sheets is not None:
        write_sheets(images, mined, EMOTIONS, sheets)
    counts = dict(zip(EMOTIONS, np.bincount(mined.label, minlength=len(EMOTIONS)).tolist(), strict=True))
    print(json.dumps({"pool": len(images), "mined": len(mined.rows), "classes": counts}))
    return mined
