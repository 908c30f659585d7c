"""stdin, stdout and stderr that are closed, or whose other end goes away. Each in a process of its own."""

import csv
import io
import os
import re
import subprocess
import sys
from functools import partial

import pytest

pytest.importorskip("onnx")

from tests.cli.conftest import ROOT, start
from tests.reliability.conftest import BROKEN, litter

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX descriptors and pipes")


@pytest.fixture(autouse=True)
def buffered(monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


def finish(running):
    output, told = running.communicate(timeout=120)
    return running.returncode, (output or b"").decode(), (told or b"").decode()


def test_a_closed_stdin_is_an_empty_list(batch, tmp_path):
    with batch.start(tmp_path / "x.csv", inputs="-", stdin=None, preexec_fn=partial(os.close, 0)) as running:
        code, _, told = finish(running)
    assert code == 2
    assert told.startswith("fevertools: stdin is closed")
    assert "Traceback" not in told
    assert litter(tmp_path) == []


def test_a_closed_stdin_does_not_matter_without_a_list(batch, tmp_path):
    with batch.start(tmp_path / "x.csv", stdin=None, preexec_fn=partial(os.close, 0)) as running:
        assert finish(running)[0] == 1
    assert (tmp_path / "x.csv").read_bytes() == batch.whole["csv"]


def test_a_closed_stdout_is_told_before_any_work(batch):
    with batch.start("-", stdout=None, preexec_fn=partial(os.close, 1)) as running:
        assert finish(running) == (2, "", "fevertools: error: stdout is closed; name a file with -o\n")


def test_a_closed_stderr_puts_no_message_among_the_rows(batch):
    with batch.start("-", stderr=None, preexec_fn=partial(os.close, 2)) as running:
        code, output, _ = finish(running)
    assert code == 1
    rows = list(csv.DictReader(io.StringIO(output)))
    names = batch.names()
    assert [row["source"] for row in rows] == names[:BROKEN] + names[BROKEN + 1 :]


def close_all():
    os.closerange(0, 3)


@pytest.mark.parametrize("form", ["csv", "npz"])
def test_without_any_stream_a_file_is_written_all_the_same(batch, tmp_path, form):
    output = tmp_path / f"x.{form}"
    with batch.start(output, stdin=None, stdout=None, stderr=None, preexec_fn=close_all) as running:
        assert finish(running)[0] == 1
    assert output.read_bytes() == batch.whole[form]


def test_no_file_takes_the_number_of_a_closed_stream():
    """What C libraries write to descriptors 1 and 2 must not end up in a file of ours."""
    code = (
        "import os, sys\n"
        "from fevertools.cli import main\n"
        "main(['--version'])\n"
        "with open(sys.argv[1], 'wb') as file: sys.exit(file.fileno())\n"
    )
    command = [sys.executable, "-c", code, os.devnull]
    done = subprocess.run(command, preexec_fn=close_all, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.returncode > 2


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_head_ends_it_quietly(batch, form):
    """`fevertools embed many | head -1`."""
    with batch.start("-", "--format", form, inputs="-") as running:
        running.stdin.write("".join(f"{name}\n" for name in batch.names()).encode())
        running.stdin.flush()
        assert running.stdout.readline().startswith({"csv": b"source,face,", "jsonl": b'{"source": "many/00'}[form])
        running.stdout.close()
        running.stdin.write("".join(f"./{name}\n" for name in batch.names()).encode())
        running.stdin.close()
        told = running.stderr.read().decode()
        assert running.wait(60) == 141  # 128 + SIGPIPE, as of `cat` and its kin in a shell
    assert re.sub(r"fevertools: many/11 .*\n", "", told) == ""  # nothing but the image that is none


@pytest.mark.parametrize("command", [["--help"], ["weights", "list"], ["doctor"]])
def test_a_reader_that_has_gone_before(command):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe, start(*command, stdout=pipe) as running:
        assert finish(running) == (141, "", "")


def test_a_reader_of_messages_that_has_gone(batch, tmp_path):
    """The broken image cannot be told of. The rows so far are kept, and the rest follows."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe, batch.start(tmp_path / "x.csv", stderr=pipe) as running:
        assert finish(running)[0] == 141
    assert batch.run(tmp_path / "x.csv", "--resume") == 1
    assert (tmp_path / "x.csv").read_bytes() == batch.whole["csv"]
