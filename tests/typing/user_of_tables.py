"""As user.py, for tables: pyarrow has no types, so that pyright knows nothing of a table itself."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import fevertools as ft
from fevertools import tables
from fevertools.image import ImageInput


def files(photos: list[ImageInput], folder: Path) -> None:
    """Tables, data frames and files."""
    analyzer = ft.Analyzer(device="cpu")
    table = tables.to_table(analyzer.stream(photos), analyzer.entry, keep_empty=True)
    tables.write_parquet(table, folder / "faces.parquet")
    again = tables.read_parquet([folder / "faces.parquet"])
    assert_type(tables.vectors(again, analyzer.entry), npt.NDArray[np.float32])
    assert_type(tables.metadata_of(again), dict[str, Any])
    assert_type(tables.identity(analyzer.entry), dict[str, str])
    assert_type(analyzer.to_frame(photos, backend="pandas"), Any)
    tables.to_backend(table, "polars")


def wrong(photos: list[ImageInput]) -> None:
    """What a checker has to refuse; never run."""
    ft.Analyzer().to_frame(photos, backend="excel")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tables.identity("deepfever-s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
