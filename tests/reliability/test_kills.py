"""A batch that is killed, interrupted or run twice at once: nothing half-written passes for whole, and resuming ends
with the bytes of a run that nothing disturbed."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("onnx")

from fevertools.cli import main
from tests.cli.conftest import ROOT, json_rows, start
from tests.reliability.conftest import COUNT, FORMATS, litter

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.mark.parametrize("form", FORMATS)
def test_a_journal_cut_at_any_byte_resumes_to_the_same_bytes(batch, tmp_path, form):
    lines = batch.journal.splitlines(keepends=True)
    ends = np.cumsum([len(line) for line in lines]).tolist()
    inside = random.Random(form).sample(range(len(batch.journal)), 8)
    for cut in (0, 1, ends[0] - 1, ends[0], ends[1], ends[-2], ends[-1] - 1, ends[-1], *inside):
        (tmp_path / f"x.{form}.partial").write_bytes(batch.journal[:cut])
        assert batch.run(tmp_path / f"x.{form}", "--resume") == 1
        assert (tmp_path / f"x.{form}").read_bytes() == batch.whole[form]
        assert litter(tmp_path) == [f"x.{form}"]
        (tmp_path / f"x.{form}").unlink()


def wait_for(journal, lines):
    """Until the journal holds so many."""
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= lines):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@posix
@pytest.mark.parametrize("form", FORMATS)
def test_killed_again_and_again(batch, tmp_path, form):
    output, journal = tmp_path / f"x.{form}", tmp_path / f"x.{form}.partial"
    for fed in (20, 28, 36):
        with batch.start(output, "--resume", inputs="-") as running:
            # The list does not end, so neither does the process.
            running.stdin.write("".join(f"{name}\n" for name in batch.names(fed)).encode())
            running.stdin.flush()
            wait_for(journal, fed - 18)
            running.kill()
            assert running.wait(60) == -signal.SIGKILL
        assert litter(tmp_path) == [journal.name]
    assert batch.run(output, "--resume") == 1
    assert output.read_bytes() == batch.whole[form]
    assert litter(tmp_path) == [output.name]


def killed_at(batch, output, patch, *more):
    """Run in a process that kills itself where the patch says."""
    code = (
        "import os, pathlib, signal, sys\n"
        "from fevertools.cli import _output, _writers, main\n"
        "die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{patch}\n"
        "main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "embed", "many", "-o", str(output), *batch.options, *more],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=batch.folder,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


@posix
@pytest.mark.parametrize("form", FORMATS)
def test_killed_before_the_output_has_its_name(batch, tmp_path, form):
    output = tmp_path / f"x.{form}"
    killed_at(batch, output, "_output.os.replace = die")
    assert litter(tmp_path) == [f"x.{form}.partial", f"x.{form}.tmp"]
    assert (tmp_path / f"x.{form}.tmp").read_bytes() == batch.whole[form]
    (tmp_path / f"x.{form}.tmp").write_bytes(b"half")
    assert batch.run(output, "--resume") == 1
    assert output.read_bytes() == batch.whole[form]
    assert litter(tmp_path) == [output.name]


@posix
def test_killed_in_the_middle_of_the_output(batch, tmp_path):
    output = tmp_path / "x.csv"
    output.write_bytes(b"of an earlier run")
    seventh = "lines = iter(range(7)); line = _writers.CsvText.line"
    dying = "_writers.CsvText.line = lambda self, row: line(self, row) if next(lines, None) is not None else die()"
    killed_at(batch, output, f"{seventh}\n{dying}", "--overwrite")
    assert output.read_bytes() == b"of an earlier run"
    assert batch.run(output, "--resume", "--overwrite") == 1
    assert output.read_bytes() == batch.whole["csv"]
    assert litter(tmp_path) == ["x.csv"]


@posix
def test_killed_after_the_output_has_its_name(batch, tmp_path, capsys):
    output = tmp_path / "x.csv"
    dying = "pathlib.Path.unlink = lambda self, **_: die() if self.suffix == '.partial' else None"
    killed_at(batch, output, dying)
    assert output.read_bytes() == batch.whole["csv"]
    assert batch.run(output, "--resume") == 2
    assert "exists" in capsys.readouterr().err
    assert output.read_bytes() == batch.whole["csv"]
    assert batch.run(output, "--resume", "--overwrite") == 1
    assert output.read_bytes() == batch.whole["csv"]
    assert litter(tmp_path) == ["x.csv"]


@posix
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", -signal.SIGTERM)])
def test_stopped_by_a_signal(batch, tmp_path, name, code):
    output, journal = tmp_path / "x.csv", tmp_path / "x.csv.partial"
    with batch.start(output, inputs="-") as running:
        running.stdin.write("".join(f"{path}\n" for path in batch.names(36)).encode())
        running.stdin.flush()
        wait_for(journal, 20)
        sent = time.monotonic()
        running.send_signal(getattr(signal, name))
        assert running.wait(60) == code
        assert time.monotonic() - sent < 30  # at once; the machine may be busy
        told = running.stderr.read().decode()
    if name == "SIGINT":
        assert "Traceback" not in told
        assert told.endswith("interrupted\n")
        assert "--resume" in told
        assert journal.read_bytes().endswith(b"\n")
    assert [record["source"] for record in json_rows(journal.read_text())[1:20]] == batch.names(19)
    assert batch.run(output, "--resume") == 1
    assert output.read_bytes() == batch.whole["csv"]


@posix
def test_ctrl_c_in_the_middle_of_a_detection(tmp_path):
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    for i in range(30):
        Image.fromarray(noise).save(tmp_path / f"{i:02}.bmp")
    journal = tmp_path / "x.csv.partial"
    with start("detect", tmp_path, "-o", tmp_path / "x.csv", "--device", "cpu", "--threads", "2") as running:
        wait_for(journal, 2)
        sent = time.monotonic()
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
        assert time.monotonic() - sent < 30
        assert "Traceback" not in running.stderr.read().decode()
    assert len(json_rows(journal.read_text())) < 31
    assert journal.read_bytes().endswith(b"\n")


@posix
def test_a_second_run_does_not_write_between(batch, tmp_path, capsys):
    output, journal = tmp_path / "x.csv", tmp_path / "x.csv.partial"
    with batch.start(output, inputs="-") as running:
        running.stdin.write("".join(f"{path}\n" for path in batch.names()).encode())
        running.stdin.flush()
        wait_for(journal, COUNT - 18)
        for way in ("--resume", "--overwrite"):
            assert batch.run(output, way) == 2
            assert "another run writes" in capsys.readouterr().err
        running.stdin.close()
        assert running.wait(60) == 1
    assert output.read_bytes() == batch.whole["csv"]
    assert litter(tmp_path) == ["x.csv"]


def test_detection_and_embedding_resume_to_the_same_bytes(tmp_path, monkeypatch):
    """The same with the real networks, whose results are compared bit by bit."""
    data = pytest.importorskip("skimage.data")
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    photo = data.astronaut()[:300, 100:400]
    for i in range(6):
        Image.fromarray(np.roll(photo, 3 * i, axis=1)).save(f"{i}.png")
    command = ["classify", *(f"{i}.png" for i in range(6)), "--min-face-size", "60", "--batch-size", "2"]
    assert main([*command, "-o", "whole.csv"]) == 0
    journal = tmp_path / "x.csv.partial"

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fevertools.cli._output.os.replace", interrupted)
        assert main([*command, "-o", "x.csv"]) == 130
    whole = journal.read_bytes()
    assert whole.count(b"\n") == 7
    for cut in (len(whole) // 4, len(whole) // 2, len(whole) - 1):
        journal.write_bytes(whole[:cut])
        assert main([*command, "-o", "x.csv", "--resume"]) == 0
        assert (tmp_path / "x.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
        (tmp_path / "x.csv").unlink()
