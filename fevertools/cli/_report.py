"""`fevertools report`: one HTML page about the faces of files and folders, or of a Parquet table of them."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fevertools.cli._commands import analyzer_of
from fevertools.cli._inputs import expand
from fevertools.cli._parser import FAILED, FINE, UNUSABLE
from fevertools.cli._rows import printable
from fevertools.errors import DataError, FevertoolsError, OptionError
from fevertools.pipeline import Analyzer
from fevertools.report import Written, results_of, write_results
from fevertools.tables import read_parquet
from fevertools.types import ImageResult

if TYPE_CHECKING:
    import pyarrow as pa

_TABLES: Final = (".parquet", ".pq")


def report(options: argparse.Namespace) -> int:
    """`fevertools report`."""
    output = Path(options.output)
    if output.exists() and not options.overwrite:
        raise OptionError(f"{output} exists; name another file with -o, or replace it with --overwrite")
    problems: list[str] = []

    def problem(text: str) -> None:
        problems.append(text)
        print(f"fevertools: {text}", file=sys.stderr)

    tables = [name for name in options.inputs if name.lower().endswith(_TABLES)]
    if tables and len(tables) < len(options.inputs):
        raise OptionError("tables and pictures cannot be mixed in one report; make one of each")
    with analyzer_of(options) as analyzer:
        if tables:
            return _end(options, _write(options, analyzer, results_of(_read(tables), analyzer)), problems)
        images = (image.path for image in expand(options.inputs, problem))
        first = next(images, None)
        if first is None:
            print("fevertools: error: no image found; name files, folders, patterns or - (stdin)", file=sys.stderr)
            return UNUSABLE
        progress = not (options.no_progress or options.quiet)
        stream = analyzer.stream(chain([first], images), cropped=options.cropped, progress=progress)
        with closing(stream) as results:
            return _end(options, _write(options, analyzer, results), problems)


def _read(tables: list[str]) -> "pa.Table":
    try:
        return read_parquet(tables)
    except FevertoolsError:
        raise
    except ValueError as error:  # pyarrow's, for what is no Parquet file
        raise DataError(f"{', '.join(tables)}: not a Parquet table: {error}") from error


def _write(options: argparse.Namespace, analyzer: Analyzer, results: Iterator[ImageResult]) -> Written:
    return write_results(
        map(_told, results),
        options.output,
        analyzer=analyzer,
        title=options.title,
        limit=options.limit,
        seed=options.seed,
    )


def _told(result: ImageResult) -> ImageResult:
    if result.error is not None:
        print(f"fevertools: {printable(str(result.source))}: {result.error}", file=sys.stderr)
    return result


def _end(options: argparse.Namespace, written: Written, problems: list[str]) -> int:
    if not options.quiet:
        shown = "" if written.shown == written.faces else f", {written.shown} of them on the page"
        print(
            f"fevertools: {written.path}: {written.images} images, {written.faces} faces{shown}, {written.faceless} "
            f"images without a face, {written.failed + len(problems)} errors; {written.size / 1e6:.1f} MB",
            file=sys.stderr,
        )
    return FAILED if written.failed or problems else FINE
