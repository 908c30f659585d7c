"""Threads, processes and event loops give what one call after another gives, bit by bit, and leak nothing."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import fevertools as ft
from fevertools.encoder import Encoder
from fevertools.errors import FevertoolsError
from fevertools.pipeline import Analyzer
from fevertools.weights import load_manifest, resolve
from tests.cli.conftest import ROOT
from tests.golden import drawn_crops


def crops(count=64):
    """uint8 (count, 48, 48): the drawn faces of the golden vectors, each with noise of its own."""
    rng = np.random.default_rng(1)
    drawn = np.resize(drawn_crops()[..., 0], (count, 48, 48)).astype(int)
    return np.clip(drawn + rng.integers(-30, 31, drawn.shape), 0, 255).astype(np.uint8)


def scenes(count=6):
    """Pictures of several sizes with up to two faces, or none."""
    data = pytest.importorskip("skimage.data")
    photo = data.astronaut()
    face = photo[:300, 100:400]
    both = np.concatenate([face, face[:, ::-1]], axis=1)
    return [np.roll((face, both, photo[300:, :200])[i % 3], 5 * i, axis=1) for i in range(count)]


def embed_one_by_one(pictures):
    """In a process of its own."""
    with Analyzer(device="cpu", threads=1) as analyzer:
        return [analyzer.embed(picture, cropped=True) for picture in pictures]


def equal(left, right):
    return len(left) == len(right) and all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_32_threads_on_one_analyzer(threads):
    pictures = [*crops()] * 4
    with Analyzer(device="cpu", threads=threads) as analyzer:
        serial = [analyzer.embed(picture, cropped=True) for picture in pictures[:64]] * 4
    with Analyzer(device="cpu", threads=threads) as analyzer, ThreadPoolExecutor(32) as pool:
        start = threading.Barrier(32)
        list(pool.map(lambda _: start.wait(), range(32)))  # all threads are there, and none has loaded the network
        parallel = list(pool.map(lambda picture: analyzer.embed(picture, cropped=True), pictures))
    assert equal(parallel, serial)


def facts(result):
    return [
        np.concatenate([face.face.box, face.face.landmarks.ravel(), [face.face.score], face.embedding])
        for face in result.faces
    ]


def test_32_threads_detect_and_embed():
    pictures = scenes() * 8
    with Analyzer(device="cpu", min_face_size=60) as analyzer, ThreadPoolExecutor(32) as pool:
        serial = [facts(analyzer.analyze(picture)) for picture in pictures[:6]] * 8
        parallel = [facts(result) for result in pool.map(analyzer.analyze, pictures)]
    assert [len(faces) for faces in serial[:3]] == [1, 2, 0]
    assert all(map(equal, parallel, serial))


def test_streams_side_by_side():
    pictures = [*crops(40)]
    with Analyzer(device="cpu") as analyzer, ThreadPoolExecutor(8) as pool:

        def run(_):
            return [result.faces[0].embedding for result in analyzer.stream(pictures, cropped=True)]

        first, *others = pool.map(run, range(8))
    assert all(equal(first, other) for other in others)


def test_4_processes():
    pictures = [*crops()]
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(embed_one_by_one, [pictures[i::4] for i in range(4)]))
    serial = embed_one_by_one(pictures)
    assert all(equal(part, serial[i::4]) for i, part in enumerate(parts))


ENCODERS = [entry for entry in load_manifest().weights.values() if entry.kind == "encoder" and entry.bundled]


@pytest.mark.parametrize("entry", ENCODERS, ids=lambda entry: entry.name)
@pytest.mark.parametrize("threads", [1, 2])
def test_what_batching_changes(entry, threads):
    """Kernels may add in another order for another batch. Equal on the machine of docs/reliability.md."""
    batch = crops()[..., None]
    encode = [
        Encoder(entry, resolve(entry), device="cpu", threads=threads, batch_size=size).encode(batch)
        for size in (1, 2, 7, 16, 33, 64)
    ]
    for other in encode[1:]:
        np.testing.assert_allclose(other.embeddings, encode[0].embeddings, atol=1e-5, rtol=0)
        np.testing.assert_allclose(other.logits, encode[0].logits, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------------------- event loops


def test_asyncio():
    """`asyncio.to_thread`, as docs/reliability.md has it: the same numbers, and the loop goes on meanwhile."""
    pictures = [*crops(32)]

    async def run(analyzer):
        beats = 0

        async def heart():
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0.001)

        beating = asyncio.create_task(heart())
        results = await asyncio.gather(*(asyncio.to_thread(analyzer.embed, crop, cropped=True) for crop in pictures))
        beating.cancel()
        return results, beats

    with Analyzer(device="cpu", threads=1) as analyzer:
        results, beats = asyncio.run(run(analyzer))
        assert equal(results, [analyzer.embed(crop, cropped=True) for crop in pictures])
    assert beats > 3


# -------------------------------------------------------------------------------------------------- closing and leaks


def test_close_ends_the_threads_and_later_use_says_so():
    def detecting():
        return {thread for thread in threading.enumerate() if thread.name.startswith("fevertools-detector")}

    before = detecting()  # of other analyzers; some may end meanwhile
    with Analyzer(device="cpu", threads=4) as analyzer:
        analyzer.detect(np.zeros((300, 300, 3), np.uint8))
        own = detecting() - before
        assert own
    deadline = time.monotonic() + 20
    while own & detecting() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not own & detecting()
    with pytest.raises(FevertoolsError, match="closed; make a new one"):
        analyzer.detect(np.zeros((300, 300, 3), np.uint8))


def test_close_while_others_use_it():
    """What has begun ends well; what comes later is refused; nothing else is raised."""
    analyzer, outcomes = Analyzer(device="cpu", threads=1), []

    def use():
        try:
            while True:
                assert analyzer.embed(crops(1)[0], cropped=True).shape == (1, 256)
                outcomes.append("fine")
        except FevertoolsError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    while outcomes.count("fine") < 16:
        time.sleep(0.005)
    analyzer.close()
    for thread in threads:
        thread.join(60)
    assert [outcome for outcome in outcomes if outcome != "fine"] == ["this Analyzer is closed; make a new one"] * 8


LEAK = """
import sys
import numpy as np
from fevertools import Analyzer

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

def show(name, count, call):
    most = [0, 0]
    for i in range(count):
        call(i)
        most[2 * i // count] = max(most[2 * i // count], resident())
    print(name, count, *(round(value, 1) for value in most))

crops = np.random.default_rng(0).integers(0, 256, (64, 48, 48), np.uint8)
calls, pictures, openings = map(int, sys.argv[1:])

with Analyzer(device="cpu", threads=1) as analyzer:
    for name, count, call in (
        ("calls", calls, lambda i: analyzer.embed(crops[i % 64], cropped=True)),
        ("pictures", pictures, lambda i: analyzer.analyze(np.resize(crops[i % 64], (90 + i % 53, 100 + i % 71, 3)))),
    ):
        show(name, count, call)

def open_and_close(i):
    with Analyzer(device="cpu", threads=2) as analyzer:
        analyzer.analyze(crops[0])

show("openings", openings, open_and_close)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
def test_memory_stays_flat():
    """The most MB that are resident during the first half of the calls, and during the second."""
    command = [sys.executable, "-c", LEAK, "20000", "600", "60"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    print(done.stdout)
    for line in done.stdout.splitlines():
        _, _, first, second = line.split()
        assert float(second) - float(first) < 4, done.stdout


def test_the_functions_of_the_package_may_be_called_by_threads():
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda crop: ft.embed(crop, cropped=True, device="cpu"), [*crops(32)]))
    assert equal(found, [ft.embed(crop, cropped=True, device="cpu") for crop in crops(32)])
