"""Work side by side: order, bounds, errors, and how many threads there are."""

import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fevertools.errors import OptionError
from fevertools.streaming import MOST_WORKERS, Room, are_few, read_ahead, work_in_groups, worker_pool, workers_of


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (8, 8), (64, MOST_WORKERS)])
def test_workers_are_as_many_as_cores_up_to_a_limit(monkeypatch, cores, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert workers_of(None) == workers
    assert workers_of(1) == 1
    assert workers_of(3) == 3
    assert workers_of(100) == 100  # whoever says a number has it
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert workers_of(None) == workers
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert workers_of(None) == 1


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, "2", 1025])
def test_other_numbers_of_threads_are_refused(threads):
    with pytest.raises(OptionError, match="threads"):
        workers_of(threads)


@pytest.mark.parametrize(("workers", "few"), [(1, 1), (2, 1), (4, 1), (8, 2), (16, 4)])
def test_few_images_are_done_one_after_another(workers, few):
    assert [are_few(range(count), workers)[0] for count in range(few + 3)] == [True] * (few + 1) + [False] * 2
    for count in range(few + 3):
        assert list(are_few(range(count), workers)[1]) == list(range(count))
    endless = are_few(itertools.count(), workers)[1]
    assert [next(endless) for _ in range(30)] == list(range(30))


@pytest.mark.parametrize("workers", [1, 8, 64])
def test_an_error_of_the_first_sources_keeps_its_place(workers):
    taken = []
    _, sources = are_few(failing(), workers)
    with pytest.raises(KeyError, match="of the caller"):
        taken.extend(sources)
    assert taken == list(range(5))


def uneven(value):
    """Later values are often there sooner."""
    time.sleep(0.002 * (value * 7 % 5))
    return value * value


def test_what_is_read_ahead_comes_in_order_and_side_by_side():
    most, running, lock = 0, 0, threading.Lock()

    def read(value):
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        result = uneven(value)
        with lock:
            running -= 1
        return result

    with worker_pool(3) as pool:
        assert list(read_ahead(range(40), read, pool=pool)) == [(i, i * i) for i in range(40)]
    assert most == 3


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_sources_are_taken_no_further_than_said(ahead):
    taken = []

    def sources():
        for value in itertools.count():
            taken.append(value)
            yield value

    with worker_pool(2) as pool:
        values = read_ahead(sources(), uneven, pool=pool, ahead=ahead)
        for given in range(1, 20):
            next(values)
            assert len(taken) == given + ahead


def pairs(group):
    return len(group) == 2


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_groups_come_in_order(ahead):
    def work(group):
        return [uneven(value) for value in group]

    with worker_pool(3) as pool:
        found = list(work_in_groups(range(9), pairs, work, pool=pool, ahead=ahead))
    assert found == [[0, 1], [4, 9], [16, 25], [36, 49], [64]]


def test_no_more_groups_are_in_work_than_said():
    begun = []
    go_on = threading.Event()

    def work(group):
        begun.append(group)
        go_on.wait(20)
        return group

    taken = []

    def values():
        for value in itertools.count():
            taken.append(value)
            yield value

    with worker_pool(4) as pool:
        results = work_in_groups(values(), pairs, work, pool=pool, ahead=2)
        threading.Timer(0.2, go_on.set).start()
        assert next(results) == [0, 1]
        assert taken == list(range(6))  # two groups in work, and a third that made it wait for the first
        assert sorted(begun[:3]) == [[0, 1], [2, 3], [4, 5]]


def test_a_result_that_is_there_is_given_before_another_value_is_taken():
    taken = []

    def values():
        for value in range(20):
            taken.append(value)
            yield value
            time.sleep(0.02)  # enough for the group to be done

    with worker_pool(2) as pool:
        results = work_in_groups(values(), pairs, list, pool=pool, ahead=8)
        assert next(results) == [0, 1]
        assert len(taken) <= 3


def failing():
    yield from range(5)
    raise KeyError("of the caller")


def test_an_error_of_the_source_comes_after_all_that_came_before():
    read, grouped = [], []
    with worker_pool(2) as pool:
        with pytest.raises(KeyError, match="of the caller"):
            read.extend(value for _, value in read_ahead(failing(), uneven, pool=pool))
        with pytest.raises(KeyError, match="of the caller"):
            grouped.extend(work_in_groups(failing(), pairs, sum, pool=pool, ahead=2))
    assert read == [0, 1, 4, 9, 16]
    assert grouped == [1, 5, 4]


def test_an_error_of_the_work_comes_in_its_place():
    def work(group):
        if 2 in group:
            raise ValueError("of the work")
        return sum(group)

    found = []
    with worker_pool(2) as pool, pytest.raises(ValueError, match="of the work"):
        found.extend(work_in_groups(range(20), pairs, work, pool=pool, ahead=3))
    assert found == [1]


def test_what_has_not_begun_is_dropped_at_the_end():
    begun = []
    with worker_pool(1) as pool:
        for value in range(100):
            pool.submit(lambda value=value: begun.append(value) or time.sleep(0.02))
    assert len(begun) < 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fevertools-worker")]


# ---------------------------------------------------------------------------------------------------------------- room


@pytest.mark.parametrize(("amount", "together"), [(1, 6), (3, 3), (4, 2), (6, 1), (10, 1), (99, 1)])
def test_room_is_for_what_fits_together_or_for_one_alone(amount, together):
    room, lock = Room(10), threading.Lock()
    most = held = 0

    def enter(_):
        nonlocal most, held
        with room.holding(amount):
            with lock:
                held += 1
                most = max(most, held)
            time.sleep(0.02)
            with lock:
                held -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(enter, range(12)))
    assert most == together


def test_room_is_given_back_after_an_error():
    room = Room(1)
    for _ in range(3):
        with pytest.raises(KeyError), room.holding(5):
            raise KeyError
