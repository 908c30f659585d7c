"""Ray Data: embeddings of any number of images, on the machines of a cluster.

    pip install "fevertools[ray]"

>>> import ray
>>> from fevertools.ray import embed_dataset
>>> faces = embed_dataset(ray.data.from_items([{"path": path} for path in paths]), concurrency=8)
>>> faces.write_parquet("faces/")
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from fevertools.errors import MissingExtraError, OptionError
from fevertools.options import choice, whole
from fevertools.pipeline import Analyzer
from fevertools.tables import to_table

try:
    import ray.data
except ModuleNotFoundError as _error:
    raise MissingExtraError('fevertools.ray needs Ray Data: pip install "fevertools[ray]"') from _error

if TYPE_CHECKING:
    import pyarrow as pa

Column: TypeAlias = Literal["path", "bytes", "image"]

COLUMNS: Final = ("path", "bytes", "image")
"""Where the images of a dataset may be, named as `ray.data.read_binary_files` and `read_images` name them."""


def embed_dataset(
    ds: "ray.data.Dataset",
    column: Column = "path",
    *,
    source: str = "path",
    weights: str | Path | None = None,
    device: str = "auto",
    concurrency: int = 1,
    threads: int = 1,
    num_gpus: float | None = None,
    batch_size: int = 64,
    cropped: bool = False,
    keep_empty: bool = True,
    **options: Any,
) -> "ray.data.Dataset":
    """Faces, embeddings and expressions of the images of a dataset. Lazy, as all of Ray Data.

    The work is done by actors that load the networks once each. Where one dies, Ray starts another, which does its
    batches again; each image comes out once.

    Args:
        ds: one row an image.
        column: what holds the image: "path", text that every machine can open; "bytes", an encoded file; "image", a
            uint8 array (H, W, 3) or (H, W).
        source: the column that names the image, for the column of that name in the result.
        weights: as for `Analyzer`; a path must be there on every machine.
        device: as for `Analyzer`; "auto" is the CPU unless there is `num_gpus`.
        concurrency: actors, each with networks of its own. Leave a CPU of the cluster to what reads the images, which
            waits for ever where the actors have all.
        threads: CPU threads and, for Ray, CPUs of an actor.
        num_gpus: GPUs of an actor, which may be a part of one; None is 0 for "auto" and "cpu" and 1 for other devices.
        batch_size: images that an actor takes at a time, and does again where it is lost.
        cropped: every image is one face, framed as the weights expect.
        keep_empty: also a row for an image without a face, so that every image has one. An image that cannot be read
            always has one, with its error.
        options: of `Analyzer`, such as `flip` and `max_faces`.

    Returns:
        One row a face, with the columns of `tables.to_table`.

    Raises:
        OptionError: an argument is outside what is documented here, or the dataset lacks a column.
        WeightsError: the weights are unknown, or their manifest is not valid.
    """
    choice(column, "column", COLUMNS)
    if num_gpus is None:
        num_gpus = 0 if device in ("auto", "cpu") else 1
    chosen = {
        "weights": weights,
        "device": "cpu" if device == "auto" and not num_gpus else device,
        "threads": whole(threads, "threads"),
        **options,
    }
    with Analyzer(**chosen):  # says here what it would say on every machine
        pass
    columns = ds.columns(fetch_if_missing=False)  # None where only a run would tell
    for name in (column, source):
        if columns is not None and name not in columns:
            raise OptionError(f"the dataset has no column {name!r}; it has {', '.join(columns)}")
    return ds.map_batches(
        Embedder,
        fn_constructor_args=(chosen, column, source, cropped, keep_empty),
        batch_size=whole(batch_size, "batch_size"),
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=whole(concurrency, "concurrency")),
        num_cpus=threads,
        num_gpus=num_gpus or None,
    )


class Embedder:
    """What an actor does: batches of images to tables of faces. `embed_dataset` has the arguments."""

    def __init__(self, options: dict[str, Any], column: Column, source: str, cropped: bool, keep_empty: bool) -> None:
        self._analyzer = Analyzer(**options)
        self._column, self._source, self._cropped, self._keep_empty = column, source, cropped, keep_empty

    def __call__(self, batch: dict[str, Any]) -> "pa.Table":
        results = self._analyzer.stream(list(batch[self._column]), cropped=self._cropped)
        named = (replace(result, source=str(name)) for result, name in zip(results, batch[self._source], strict=True))
        return to_table(named, self._analyzer.entry, keep_empty=self._keep_empty)
