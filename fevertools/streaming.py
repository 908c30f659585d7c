"""Reading a little ahead, in order, and telling how far it is: what a long run over many images needs."""

import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self, TypeVar

Source = TypeVar("Source")
Value = TypeVar("Value")

READ_AHEAD: Final = 4
"""Most values that are read, or being read, before they are asked for."""

_WORKERS: Final = 2


def read_ahead(
    sources: Iterable[Source], read: Callable[[Source], Value]
) -> Generator[tuple[Source, Value], None, None]:
    """Call `read` on each source in background threads, and yield (source, value) in the order of the sources.

    The sources are iterated in the caller's thread, at most READ_AHEAD + 1 beyond what was yielded. Where their
    iterator raises, everything read before is yielded first. Closing the generator stops its threads.
    """
    iterator = iter(sources)
    queue: deque[tuple[Source, Future[Value]]] = deque()
    pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="fevertools-read")
    try:
        while True:
            try:
                source = next(iterator)
            except StopIteration:
                break
            except Exception:  # whatever it is goes on, after what was read before it
                yield from _drain(queue)
                raise
            queue.append((source, pool.submit(read, source)))
            if len(queue) > READ_AHEAD:
                yield _first(queue)
        yield from _drain(queue)
    finally:
        pool.shutdown(cancel_futures=True)


def _first(queue: deque[tuple[Source, Future[Value]]]) -> tuple[Source, Value]:
    source, future = queue.popleft()
    return source, future.result()


def _drain(queue: deque[tuple[Source, Future[Value]]]) -> Generator[tuple[Source, Value], None, None]:
    while queue:
        yield _first(queue)


class Progress:
    """One line on stderr: count, rate and, where the total is known, the time left. Silent unless stderr is a terminal.

    Args:
        total: number of images, or None.
        shown: False for no line at all.
        unit: what is counted.
    """

    def __init__(self, total: int | None, *, shown: bool, unit: str = "images") -> None:
        self._stream = sys.stderr if shown and sys.stderr is not None and sys.stderr.isatty() else None
        self._total, self._unit = total, unit
        self._count = 0
        self._started = self._written = time.monotonic()

    def advance(self) -> None:
        """One more is done. Writes ten times a second at most."""
        self._count += 1
        now = time.monotonic()
        if now - self._written >= 0.1:
            self._written = now
            self._write(now)

    def line(self, elapsed: float) -> str:
        """The text after `elapsed` seconds, such as `  128/1000 images  32.0/s  27 s left`."""
        rate = self._count / max(elapsed, 1e-9)
        if self._total is None:
            return f"{self._count:5d} {self._unit}  {rate:.1f}/s"
        left = f"  {(self._total - self._count) / rate:.0f} s left" if 0 < self._count < self._total else ""
        return f"{self._count:5d}/{self._total} {self._unit}  {rate:.1f}/s{left}"

    def _write(self, now: float) -> None:
        if self._stream is not None:
            self._stream.write(f"\r{self.line(now - self._started):<60}")
            self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._write(time.monotonic())
            self._stream.write("\n")
