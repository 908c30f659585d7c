"""Workers and batches by themselves: what runs at once, what waits, and for how long."""

import asyncio
import gc
import threading
import time
import weakref

import pytest

pytest.importorskip("starlette", reason="needs the extra `serve`")

from fevertools.serve import batching
from fevertools.serve.batching import Batcher, Workers


@pytest.fixture
def batcher_of():
    made = []

    def make(run=lambda items: [-item for item in items], *, most=10, coming=lambda: False, told=lambda weight: None):
        made.append(Batcher(run, weigh=lambda item: item, most=most, coming=coming, told=told))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()
        assert not batcher._thread.is_alive()


@pytest.fixture
def gate(batcher_of):
    """A batcher whose first batch waits for an event, the event, and the batches so far."""
    batches, event = [], threading.Event()

    def run(items):
        batches.append(items)
        event.wait(10)
        return [-item for item in items]

    yield lambda **options: (batcher_of(run, **options), event, batches)
    event.set()


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_gathers_during_a_batch_is_the_next_one(gate):
    weights = []
    batcher, event, batches = gate(most=10, told=weights.append)
    futures = [batcher.submit(1)]
    until(lambda: batches)
    futures += [batcher.submit(item) for item in (4, 5, 3, 2, 11, 7)]
    event.set()
    assert [future.result(10) for future in futures] == [-1, -4, -5, -3, -2, -11, -7]
    assert batches == [[1], [4, 5, 3], [2, 11], [7]]  # full at 10, which the last may exceed
    assert weights == [1, 12, 13, 7]


def test_who_is_alone_does_not_wait(batcher_of, monkeypatch):
    monkeypatch.setattr(batching, "WAIT", 5)
    start = time.monotonic()
    assert batcher_of().submit(3).result(10) == -3
    assert time.monotonic() - start < 2


def test_a_batch_waits_for_those_on_their_way(batcher_of, monkeypatch):
    monkeypatch.setattr(batching, "WAIT", 0.4)
    batches = []
    batcher = batcher_of(lambda items: batches.append(items) or items, coming=lambda: True, most=4)
    start = time.monotonic()
    first = batcher.submit(1)
    time.sleep(0.1)
    second = batcher.submit(2)
    assert (first.result(10), second.result(10)) == (1, 2)
    assert 0.35 < time.monotonic() - start < 2
    assert batches == [[1, 2]]
    start = time.monotonic()
    assert batcher.submit(4).result(10) == 4  # is full at once
    assert time.monotonic() - start < 0.3


def test_what_was_given_up_is_not_done(gate):
    batcher, event, batches = gate()
    futures = [batcher.submit(1)]
    until(lambda: batches)
    futures += [batcher.submit(2), batcher.submit(3)]
    assert futures[1].cancel()
    event.set()
    assert futures[2].result(10) == -3
    assert batches == [[1], [3]]


def test_a_failure_goes_to_its_batch_only(batcher_of):
    def run(items):
        if 2 in items:
            raise KeyError("two")
        return items

    batcher = batcher_of(run)
    with pytest.raises(KeyError, match="two"):
        batcher.submit(2).result(10)
    assert batcher.submit(3).result(10) == 3


def test_closing_does_what_waits(gate):
    batcher, event, batches = gate(most=1)
    futures = [batcher.submit(item) for item in (1, 2, 3)]
    until(lambda: batches)
    threading.Timer(0.1, event.set).start()
    batcher.close()
    assert [future.result(0) for future in futures] == [-1, -2, -3]


class Picture:
    """Something that can be looked for."""


def test_no_item_is_kept_after_its_batch():
    batcher = Batcher(lambda items: [None] * len(items), weigh=lambda _: 1, most=9, coming=bool, told=lambda _: None)
    picture = Picture()
    kept = weakref.ref(picture)
    batcher.submit(picture).result(10)
    del picture
    until(lambda: gc.collect() is not None and kept() is None)
    batcher.close()


def test_no_more_run_than_there_are_workers():
    running, most = 0, 0
    lock, event = threading.Lock(), threading.Event()

    def work():
        nonlocal running, most
        with lock:
            running, most = running + 1, max(most, running + 1)
        event.wait(10)
        with lock:
            running -= 1
        return True

    async def main():
        workers = Workers(2, "test")
        given_up = [asyncio.ensure_future(workers.run(work)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert workers.busy == 2
        for task in given_up:
            task.cancel()
        others = [asyncio.ensure_future(workers.run(work)) for _ in range(5)]
        await asyncio.sleep(0.1)
        # What was given up still runs, so no other has begun.
        assert (workers.busy, most) == (2, 2)
        others.pop().cancel()
        event.set()
        assert await asyncio.gather(*others) == [True] * 4
        await asyncio.sleep(0)
        assert workers.busy == 0
        event.clear()
        others = [asyncio.ensure_future(workers.run(work)) for _ in range(5)]
        await asyncio.sleep(0.1)
        assert workers.busy == 2
        event.set()
        await asyncio.gather(*others)
        workers.close()

    asyncio.run(main())
    assert most == 2
