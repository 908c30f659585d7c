"""Where rows go: to stdout as they come, or to a journal that becomes the output file at the end.

The journal, FILE.partial, holds JSON lines: a header that says how the rows are made, then one record an image, also
for images without faces and for those that failed. It is what --resume goes on from, after the last group of images
that is whole: a group shares a run of the encoder, and the last bits of an embedding may depend on the others in it.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Final, Protocol, Self, TypeAlias

from fevertools.cli._parser import FORMATS, SUFFIXES
from fevertools.cli._rows import Column, Record, Row, is_record, rows
from fevertools.cli._writers import TEXTS, WRITERS, Metadata, import_parquet
from fevertools.errors import OptionError

FAILED_IMAGE: Final = -1

IsGroup: TypeAlias = Callable[[int, int], bool]
"""Whether so many images, with so many faces, are a whole group."""

_NUMBERS: Final[Mapping[str, Callable[[str], str | float]]] = MappingProxyType({"csv": str})
"""Format -> what it wants of a number in the journal, where that is its text as it stands there."""


class Sink(Protocol):
    """Takes one record an image."""

    done: Mapping[str, int]  # source -> number of faces, or FAILED_IMAGE, of images that need no further work

    def met(self, source: str) -> None:
        """This image of `done` is among the inputs."""

    def kept(self) -> Iterator[Record]:
        """The records of the images of `done`, in their order. To be read before the first is written."""

    def write(self, record: Record) -> None:
        """Keep the record of one more image."""

    def commit(self) -> None:
        """No more records will come."""

    def stop(self) -> None:
        """The run ends early: whatever there is so far is to be whole."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_sink(
    options: argparse.Namespace,
    columns: Sequence[Column],
    metadata: Metadata,
    is_group: IsGroup = lambda images, faces: True,
    *,
    stoppable: bool = False,
) -> Sink:
    """The sink that the options ask for. Images are in groups where they depend on each other.

    A run that is `stoppable` may call `stop`, so that --resume finds a file and the journal that goes on from it.

    Raises:
        OptionError: the format is unknown or cannot go to stdout, stdout is closed, the file exists, or the journal is
            of another run.
        MissingExtraError: Parquet without pyarrow; told now, not after hours of work.
    """
    to_stdout = options.output in (None, "-")
    form = options.format or ("csv" if to_stdout else _by_suffix(options.output))
    if form == "parquet":
        import_parquet()
    if not to_stdout:
        given = options.resume, options.overwrite
        return JournalSink(Path(options.output), form, columns, metadata, *given, is_group, stoppable)
    if sys.stdout is None:
        raise OptionError("stdout is closed; name a file with -o")
    if form not in TEXTS:
        raise OptionError(f"{form} cannot go to stdout; name a file with -o, or use --format {' or '.join(TEXTS)}")
    if options.resume:
        raise OptionError("--resume needs -o FILE: stdout keeps nothing to go on from")
    return StdoutSink(form, columns, metadata)


def _by_suffix(output: str) -> str:
    suffix = os.path.splitext(output)[1].lower()
    if suffix not in SUFFIXES:
        raise OptionError(
            f"{output} has none of the suffixes {', '.join(SUFFIXES)}; use one, or --format {'|'.join(FORMATS)}"
        )
    return SUFFIXES[suffix]


class StdoutSink:
    """Rows go out as soon as they are known."""

    def __init__(self, form: str, columns: Sequence[Column], metadata: Metadata) -> None:
        self.done: Mapping[str, int] = {}
        self._text = TEXTS[form](columns, metadata)
        self._header = self._text.header()

    def met(self, source: str) -> None:
        """Never called: `done` is empty."""

    def kept(self) -> Iterator[Record]:
        return iter(())

    def write(self, record: Record) -> None:
        sys.stdout.write(self._header)
        # Not in __init__: what ends before its first image prints nothing.
        self._header = ""
        sys.stdout.writelines(map(self._text.line, rows(record)))
        sys.stdout.flush()

    def commit(self) -> None:
        """Everything is out already."""

    def stop(self) -> None:
        """As `commit`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class JournalSink:
    """Records go to `FILE.partial`; `commit` turns them into FILE in one step.

    Args:
        path: the output file.
        form: a key of WRITERS.
        columns: of its rows.
        metadata: how the rows are made; a journal is gone on with only if its own is the same.
        resume: go on with a journal that is there.
        overwrite: replace a file, or a journal, that is there.
        is_group, stoppable: see `open_sink`.

    Raises:
        OptionError: a file or journal is in the way, the journal was made in another way, or another run writes it.
    """

    def __init__(
        self,
        path: Path,
        form: str,
        columns: Sequence[Column],
        metadata: Metadata,
        resume: bool,
        overwrite: bool,
        is_group: IsGroup,
        stoppable: bool = False,
    ) -> None:
        self._path, self._form, self._columns, self._metadata = path, form, columns, metadata
        self._journal = path.with_name(f"{path.name}.partial")
        self._stream: IO[str] | None = None
        stopped = stoppable and resume and self._journal.exists()
        self._check_way(resume, overwrite or stopped)
        self._may_go_on = resume or overwrite
        self.done: Mapping[str, int] = {}
        self._end = 0  # bytes of the journal that are whole
        if resume and self._journal.exists():
            self.done, self._end = _read_journal(self._journal, columns, metadata, is_group)
        self._strays = set(self.done)  # journaled images that this run's inputs do not name

    def _check_way(self, resume: bool, overwrite: bool) -> None:
        if not self._path.parent.is_dir():
            raise OptionError(f"there is no folder {self._path.parent}; make it first")
        if self._path.exists() and not self._path.is_file():
            raise OptionError(f"{self._path} is not a file; name another with -o")
        if self._path.exists() and not overwrite:
            raise OptionError(f"{self._path} exists; name another file with -o, or replace it with --overwrite")
        if self._journal.exists() and not (resume or overwrite):
            raise OptionError(
                f"{self._journal} holds what an earlier run finished; go on from there with --resume, or start anew "
                "with --overwrite"
            )

    def met(self, source: str) -> None:
        self._strays.discard(source)

    def write(self, record: Record) -> None:
        if self._stream is None:
            self._stream = self._open()
        # One write and a flush an image, so that a kill costs at most the line it cuts.
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()

    def _open(self) -> IO[str]:
        """The journal, cut to its whole groups; with a header where it has none."""
        # "x": a run that began at the same time must not be written over.
        mode = "r+" if self._may_go_on and self._journal.exists() else "x"
        stream = self._journal.open(mode, encoding="ascii", newline="\n")
        _lock(stream, self._journal)
        stream.seek(self._end)
        stream.truncate()
        if not self._end:
            stream.write(json.dumps(self._metadata) + "\n")
        return stream

    def commit(self) -> None:
        """Write FILE as a whole, then drop the journal. Rows of images that the inputs no longer name are left out."""
        stream = self._publish()
        stream.close()  # and with it the lock
        self._journal.unlink()

    def stop(self) -> None:
        """Write FILE of what is in the journal, and leave the journal to --resume."""
        if self._stream is not None or self._end:
            self._publish()

    def _publish(self) -> IO[str]:
        if self._stream is None:
            self._stream = self._open()
        self._stream.flush()
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        try:
            WRITERS[self._form](temporary, self._rows(), self._columns, self._metadata)
            _sync(temporary)
            os.replace(temporary, self._path)
        finally:
            temporary.unlink(missing_ok=True)
        return self._stream

    def kept(self) -> Iterator[Record]:
        if self._end:
            with self._journal.open("rb") as stream:
                next(stream)  # the header
                while stream.tell() < self._end:
                    yield json.loads(stream.readline())

    def _rows(self) -> Iterator[Row]:
        with self._journal.open(encoding="ascii") as stream:
            next(stream)  # the header
            for line in stream:
                record = json.loads(line, parse_float=_NUMBERS.get(self._form))
                if record["source"] not in self._strays:
                    yield from rows(record)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            with suppress(OSError):  # a full disk, which the error on its way says already
                self._stream.close()
        if kind is not None and self._journal.exists():
            print(f"fevertools: what is finished is in {self._journal}; --resume goes on from there", file=sys.stderr)


def _lock(stream: IO[str], journal: Path) -> None:
    """Keep other runs out, until the stream is closed."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.close()
        raise OptionError(f"another run writes {journal}; wait for its end, or name another file with -o") from error
    except OSError:
        return  # a network drive without locks


def _sync(path: Path) -> None:
    """Have the bytes on the disk before the name is: a loss of power could leave an empty file."""
    with path.open("rb+") as stream:
        os.fsync(stream)


def _read_journal(
    journal: Path, columns: Sequence[Column], metadata: Metadata, is_group: IsGroup
) -> tuple[dict[str, int], int]:
    """Images of the groups that are whole in the journal, and the bytes up to their end."""
    done: dict[str, int] = {}
    group: dict[str, int] = {}
    end = read = 0
    with journal.open("rb") as stream:
        for line in stream:
            record = _parse(line)
            if record is None:
                break
            read += len(line)
            if end == 0:
                _check_header(journal, record, metadata)
                end = read
                continue
            if not is_record(record, columns):
                break
            group[record["source"]] = FAILED_IMAGE if record["error"] is not None else len(record["faces"])
            if is_group(len(group), sum(max(faces, 0) for faces in group.values())):
                done |= group
                group, end = {}, read
    return done, end


def _parse(line: bytes) -> Record | None:
    """The object on the line; None where it is cut or damaged."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if line.endswith(b"\n") and isinstance(record, dict) else None


def _check_header(journal: Path, header: Record, metadata: Metadata) -> None:
    wanted = json.loads(json.dumps(metadata))
    different = [name for name in {**wanted, **header} if wanted.get(name) != header.get(name)]
    if different:
        name = different[0]
        raise OptionError(
            f"{journal} was made with {name} {_short(header.get(name), wanted.get(name))}; give the same options and "
            "weights again to go on, or start anew with --overwrite alone"
        )


def _short(theirs: object, ours: object) -> str:
    """What differs, without what does not."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        names = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
        theirs, ours = {name: theirs.get(name) for name in names}, {name: ours.get(name) for name in names}
    return f"{json.dumps(theirs)}, not {json.dumps(ours)}"
