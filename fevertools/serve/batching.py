"""Threads of a server: a few without a queue before them, and one that works in batches."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeAlias, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")

WAIT: Final = 0.004
"""Seconds that a batch waits for other items, where some are on their way."""


class Workers:
    """A few threads with no queue before them: who waits does so in the event loop, and can give up.

    What was given up keeps its thread until it ends, so that never more than `count` run.
    """

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=f"fevertools-{name}")
        self._free = asyncio.Semaphore(count)
        self.busy: int = 0

    async def run(self, call: Callable[[], Value]) -> Value:
        """What `call` returns, or raises."""
        await self._free.acquire()
        self.busy += 1
        loop = asyncio.get_running_loop()
        work = self._pool.submit(call)

        def ended(_: Future[Value]) -> None:
            with suppress(RuntimeError):  # the loop ended first
                loop.call_soon_threadsafe(self._release)

        work.add_done_callback(ended)
        return await asyncio.wrap_future(work)

    def _release(self) -> None:
        self.busy -= 1
        self._free.release()

    def close(self) -> None:
        """Wait for what runs, and end the threads."""
        self._pool.shutdown(cancel_futures=True)


_Entry: TypeAlias = tuple[Item, Future[Value]]


class Batcher(Generic[Item, Value]):
    """A thread that works on what waits for it in batches.

    A batch is what has gathered during the one before. Where that is less than `most`, and `coming` says that more is
    on its way, the batch waits for it, WAIT at the longest; so a client that is alone never waits.

    Args:
        run: items to their values, in order.
        weigh: what an item counts for; the batch is full at `most`, which its last item may exceed.
        coming: whether items are on their way.
        told: is called with the weight of every batch.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Value]],
        *,
        weigh: Callable[[Item], int],
        most: int,
        coming: Callable[[], bool],
        told: Callable[[int], object],
    ) -> None:
        self._run, self._weigh, self._most, self._coming, self._told = run, weigh, most, coming, told
        self._queue: SimpleQueue[_Entry[Item, Value] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="fevertools-encode", daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> Future[Value]:
        """The value to come. Where it is cancelled before its batch begins, nothing is done."""
        future: Future[Value] = Future()
        self._queue.put((item, future))
        return future

    def close(self) -> None:
        """Do what waits, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        # No name here holds an item, or the last pictures would stay in memory until the next ones come.
        while self._batch(self._queue.get()):
            pass

    def _batch(self, first: _Entry[Item, Value] | None) -> bool:
        if first is None:
            return False
        gathered = [(item, future) for item, future in self._gather(first) if future.set_running_or_notify_cancel()]
        items = [item for item, _ in gathered]
        if items:
            self._told(sum(map(self._weigh, items)))
            try:
                values = self._run(items)
            except Exception as error:  # noqa: BLE001 - whatever it is goes to those who wait
                for _, future in gathered:
                    future.set_exception(error)
            else:
                for (_, future), value in zip(gathered, values, strict=True):
                    future.set_result(value)
        return True

    def _gather(self, first: _Entry[Item, Value]) -> list[_Entry[Item, Value]]:
        found, until = [first], time.monotonic() + WAIT
        while sum(self._weigh(item) for item, _ in found) < self._most:
            left = until - time.monotonic() if self._coming() else 0.0
            try:
                entry = self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
            except Empty:
                break
            if entry is None:
                self._queue.put(None)
                break
            found.append(entry)
        return found
