"""The protocol of the contestants' processes, and what is made of their times."""

import subprocess
import sys
import textwrap
import time

import pytest

from benchmarks import _peer
from benchmarks._common import OtherLoad
from benchmarks._peer import Aside, Contestant, PeerError, Worker, digits, in_turn, percentile_ms, ratio

SCRIPT = """
    import os, sys
    from benchmarks._peer import answer

    def die(code):
        print("why it died", file=sys.stderr)
        os._exit(code)

    def talk(words):
        print("a library that prints on stdout")
        os.write(1, b"and one that does it below Python")
        return [words, sys.argv[1:]]

    answer({"talk": talk, "die": die, "abort": os.abort})
"""


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Contestant:
    """A worker script in a tree of its own, with the real protocol."""
    (tmp_path / "benchmarks" / "peers").mkdir(parents=True)
    (tmp_path / "benchmarks" / "peers" / "toy.py").write_text(textwrap.dedent(SCRIPT))
    for folder in ("benchmarks", "benchmarks/peers"):  # without these the package of the repository comes first
        (tmp_path / folder / "__init__.py").touch()
    for name in ("_peer", "_common"):
        (tmp_path / "benchmarks" / f"{name}.py").symlink_to(_peer.ROOT / "benchmarks" / f"{name}.py")
    monkeypatch.setattr(_peer, "ROOT", tmp_path)
    return Contestant("Toy", "toy", ("--own",))


def test_worker_answers_and_what_libraries_print_is_no_answer(toy: Contestant) -> None:
    with Worker(toy, "--more") as worker:
        assert worker.ask("talk", words="one") == ["one", ["--own", "--more"]]
        assert worker.ask("talk", words="two\n") == ["two\n", ["--own", "--more"]]


def test_worker_that_ends_says_why(toy: Contestant) -> None:
    with Worker(toy) as worker, pytest.raises(PeerError, match="why it died"):
        worker.ask("die", code=3)
    with Worker(toy) as worker, pytest.raises(PeerError, match="KeyError: 'unknown'"):
        worker.ask("unknown")
    with Worker(toy) as worker, pytest.raises(PeerError, match="ended by signal 6"):
        worker.ask("abort")


def test_no_environment_is_told_with_its_mend(tmp_path) -> None:
    with pytest.raises(PeerError, match="-m benchmarks"):
        Worker(Contestant("Fer", "fer", (), "fer"), peers=tmp_path)


def test_protocol_needs_the_standard_library_alone() -> None:
    subprocess.run([sys.executable, "-S", "-E", "-c", "import benchmarks._peer"], cwd=_peer.ROOT, check=True)


def test_in_turn_is_a_b_a_b() -> None:
    order: list[str] = []
    asks = {name: lambda name=name: order.append(name) or [1.0] for name in "ab"}
    assert in_turn(asks, 3, pause=0) == {"a": [[1.0]] * 3, "b": [[1.0]] * 3}
    assert order == list("ababab")


def test_ratio_is_of_the_same_round() -> None:
    # A slow spell doubles the second round of both: the ratio does not see it. The third call is an outlier.
    ours, peer = [[1.0, 1.0, 9.0], [2.0, 2.0, 2.0], [1.0]], [[3.0], [6.0], [4.0]]
    assert ratio(ours, peer) == {"median": 3.0, "min": 3.0, "max": 4.0}


def test_digits_and_percentiles() -> None:
    assert digits(1234.5) == 1230.0
    assert digits(0.0123456) == 0.0123
    assert percentile_ms([0.25], 95) == 250.0
    seconds = [number / 1000 for number in range(101)]
    assert (percentile_ms(seconds, 50), percentile_ms(seconds, 95)) == (50.0, 95.0)


def test_load_of_ended_workers_is_no_other_work() -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    with OtherLoad() as everything, Aside() as others:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", burn], check=True)
        wall = time.perf_counter() - start
    if everything.cores is None or others.cores is None:
        pytest.skip("this system does not tell how busy it is")
    assert everything.cores - others.cores == pytest.approx(0.5 / wall, rel=0.3)
