"""Work side by side, in order and in bounded memory, and telling how far it is: what many images need."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from fevertools.options import MOST_THREADS, whole

Source = TypeVar("Source")
Value = TypeVar("Value")
Result = TypeVar("Result")

READ_AHEAD: Final = 4
"""Most values for each worker that are read, or being read, before they are asked for."""

MOST_WORKERS: Final = 16
"""Beyond so many, the interpreter's lock leaves more threads nothing to do; processes then share the images."""


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def workers_of(threads: int | None) -> int:
    """How many images are worked on side by side, one thread each.

    Args:
        threads: so many; None for one a core, at most MOST_WORKERS.

    Raises:
        OptionError: not a whole number from 1 to 1024.
    """
    return min(cores(), MOST_WORKERS) if threads is None else whole(threads, "threads", 1, MOST_THREADS)


def are_few(sources: Iterable[Source], workers: int) -> tuple[bool, Iterator[Source]]:
    """Whether there are so few sources that all workers had better do one after another, and an iterator of them all.

    Takes the first sources at once. What the iterable raises is raised by the iterator, in its place.
    """
    iterator, taken = iter(sources), list[Source]()
    try:
        while len(taken) < max(2, workers // 4 + 1):
            taken.append(next(iterator))
    except StopIteration:
        return True, iter(taken)
    except Exception as error:  # noqa: BLE001 - raised again, in its place
        return True, chain(taken, _raise(error))
    return False, chain(taken, iterator)


def _raise(error: Exception) -> Iterator[Any]:
    raise error
    yield


@contextmanager
def worker_pool(workers: int) -> Iterator[Executor]:
    """So many threads. At the end what has begun is finished, what has not is dropped, and the threads are gone."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fevertools-worker")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def read_ahead(
    sources: Iterable[Source], read: Callable[[Source], Value], *, pool: Executor, ahead: int = READ_AHEAD
) -> Generator[tuple[Source, Value], None, None]:
    """Call `read` on each source in the threads of the pool, and yield (source, value) in the order of the sources.

    The sources are iterated in the caller's thread, at most `ahead` + 1 beyond what was yielded. Where their iterator
    raises, everything read before is yielded first.
    """
    iterator = iter(sources)
    queue: deque[tuple[Source, Future[Value]]] = deque()
    while True:
        try:
            source = next(iterator)
        except StopIteration:
            break
        except Exception:  # whatever it is goes on, after what was read before it
            yield from _drain(queue)
            raise
        queue.append((source, pool.submit(read, source)))
        if len(queue) > ahead:
            yield _first(queue)
    yield from _drain(queue)


def _first(queue: deque[tuple[Source, Future[Value]]]) -> tuple[Source, Value]:
    source, future = queue.popleft()
    return source, future.result()


def _drain(queue: deque[tuple[Source, Future[Value]]]) -> Generator[tuple[Source, Value], None, None]:
    while queue:
        yield _first(queue)


def work_in_groups(
    values: Iterable[Value],
    is_whole: Callable[[list[Value]], bool],
    work: Callable[[list[Value]], Result],
    *,
    pool: Executor,
    ahead: int,
) -> Generator[Result, None, None]:
    """Gather values into groups, call `work` on each group in the threads of the pool, and yield in the same order.

    The values are iterated in the caller's thread, while at most `ahead` groups are worked on. A result that is there
    is given before another value is taken. Where the iterator of the values raises, the results of all that came
    before, which is a group then, are yielded first.
    """
    iterator = iter(values)
    group: list[Value] = []
    running: deque[Future[Result]] = deque()
    while True:
        try:
            group.append(next(iterator))
        except StopIteration:
            break
        except Exception:  # of the caller's iterator, any kind; it goes on below, behind what it gave before
            yield from _results(running, group, work, pool)
            raise
        if is_whole(group):
            running.append(pool.submit(work, group))
            group = []
        while running and (len(running) > ahead or running[0].done()):
            yield running.popleft().result()
    yield from _results(running, group, work, pool)


def _results(
    running: deque[Future[Result]], group: list[Value], work: Callable[[list[Value]], Result], pool: Executor
) -> Generator[Result, None, None]:
    if group:
        running.append(pool.submit(work, group))
    while running:
        yield running.popleft().result()


class Room:
    """Lets threads in as long as what they hold fits together. One that would hold too much waits until it is alone.

    Args:
        size: most that they hold together, in any unit.
    """

    def __init__(self, size: int) -> None:
        self._size, self._held = size, 0
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, amount: int) -> Iterator[None]:
        """Wait for room, and hold it until the end of the `with` block."""
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + amount <= self._size)
            self._held += amount
        try:
            yield
        finally:
            with self._changed:
                self._held -= amount
                self._changed.notify_all()


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
