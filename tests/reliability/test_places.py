"""Names and folders of every length and script, and machines without a home folder."""

import csv
import os
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("onnx")

from fevertools.cli import main
from fevertools.errors import UnreadableImageError
from fevertools.image import load
from tests.cli.conftest import ROOT, json_rows, save_crop
from tests.reliability.conftest import FORMATS, litter

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX file names")

NAMES = (
    "n" * 251 + ".png",  # 255 bytes, as long as a name can be
    "顔" * 83 + "ab.png",  # 255 bytes again
    "gruß 顔 🙂.png",
    "e\u0301 \u00e9.png",  # one letter, written in two ways
    "\u202eright to left\u202c ועברית.png",
    'quotes "and", commas; tabs\t.png',
    "two\nlines\r.png",
    "-o.png",
    "*[!a]?.png",
    os.fsdecode(b"latin-1 \xe4\xf6.png"),
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def options(tiny_weights):
    return ["--cropped", "--weights", str(tiny_weights), "--device", "cpu", "--threads", "1"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names(place, options, name):
    (place / "in").mkdir()
    save_crop(place / "x.png", 3).rename(place / "in" / name)
    expected = load(f"in/{name}")
    assert expected.shape == (48, 48, 3)
    assert main(["embed", "in", "-o", "x.jsonl", *options]) == 0
    (row,) = json_rows((place / "x.jsonl").read_text("utf-8"))
    assert row["source"] == f"in/{name}".encode("utf-8", "backslashreplace").decode()
    assert main(["embed", "in", "-o", "x.csv", *options]) == 0
    with open("x.csv", encoding="utf-8", newline="") as stream:
        (cells,) = csv.DictReader(stream)
    assert cells["source"] == row["source"]
    assert main(["detect", "in", "--draw", "drawn", "-o", "y.csv"]) == 0
    assert litter(place / "drawn") == [name]


@pytest.fixture
def long_folder(place):
    """A folder whose path has 3,900 bytes."""
    folder = os.path.join(*(["f" * 129] * 30))
    os.makedirs(folder)
    assert len(folder) == 30 * 130 - 1
    return folder


def test_paths_of_4000_bytes(place, long_folder, options):
    name = "n" * 92 + ".png"
    shutil.copyfile(save_crop(place / "x.png", 3), os.path.join(long_folder, name))
    assert len(os.path.join(long_folder, name)) > 3990
    for form in FORMATS:
        output = os.path.join(long_folder, f"x.{form}")
        assert main(["embed", "f" * 129, "-o", output, *options]) == 0
        assert main(["embed", os.path.join(long_folder, name), "-o", f"y.{form}", *options]) == 0
        with open(output, "rb") as left, open(f"y.{form}", "rb") as right:
            assert left.read() == right.read()


def test_longer_than_any_path(place, options, capsys):
    path = os.path.join(*(["f" * 250] * 20), "x.png")
    with pytest.raises(UnreadableImageError, match="File name too long"):
        load(path)
    save_crop(place / "a.png", 1)
    assert main(["embed", path, "a.png", "-o", "x.csv", *options]) == 1
    assert "File name too long" in capsys.readouterr().err
    assert len((place / "x.csv").read_text().splitlines()) == 2


def test_an_output_name_without_room_for_that_of_its_journal(place, options, capsys):
    save_crop(place / "a.png", 1)
    assert main(["embed", "a.png", "-o", "n" * 251 + ".csv", *options]) == 2
    assert "File name too long" in capsys.readouterr().err
    assert litter(place) == ["a.png"]


def test_folders_nested_deeper_than_calls(place, options, capsys):
    depth = 1500
    top = place / "deep"
    save_crop(place / "x.png", 3)
    try:
        top.mkdir()
        os.chdir(top)
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        shutil.copyfile(place / "x.png", "x.png")
        os.chdir(place)
        assert main(["embed", "deep", "--format", "jsonl", *options]) == 0
        (row,) = json_rows(capsys.readouterr().out)
        assert row["source"] == "deep/" + "d/" * depth + "x.png"
        assert main(["embed", "deep/**/*.png", "x.png", "-o", "x.csv", *options]) == 1
        assert "nested too deep for a pattern" in capsys.readouterr().err
    finally:
        os.chdir(place)
        subprocess.run(["rm", "-rf", str(top)], check=True)  # Python's own removal recurses


# --------------------------------------------------------------------------------------------------------------- home

CODE = (
    "import numpy as np, fevertools as ft, os, sys\n"
    "from fevertools.session import runtime\n"
    "if sys.argv[1:]:\n"
    "    runtime()  # the folders of Python itself may be closed to others\n"
    "    os.setgroups([]); os.setgid(54321); os.setuid(54321)\n"
    "print(ft.embed(np.zeros((48, 48), np.uint8), cropped=True).shape, len(ft.detect(np.zeros((99, 99), np.uint8))))\n"
)


def unset(*starts):
    """The environment without the variables that start so."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(starts)}
    return {**known, "PYTHONPATH": str(ROOT)}


def embed_with(environment, *arguments, **options):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        env={**unset("HOME", "XDG", "HF", "ORT"), **environment},
        capture_output=True,
        timeout=120,
        check=False,
        **options,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"(1, 256) 0\n", b"")


@pytest.mark.parametrize("home", [None, "", "/nonexistent", "/dev/null", "relative"], ids=str)
def test_homes(tmp_path, home):
    embed_with({} if home is None else {"HOME": home}, cwd=tmp_path)
    assert litter(tmp_path) == []
    assert not os.path.exists("/nonexistent")


def test_the_home_stays_empty(tmp_path):
    """Bundled weights need no cache, and ONNX Runtime is kept from its telemetry, which would leave files there."""
    home, work = tmp_path / "home", tmp_path / "work"
    for folder in (home, work):
        folder.mkdir()
    places = {"HOME": str(home), "TMPDIR": str(work)}
    embed_with(places, cwd=work)
    command = [sys.executable, "-m", "fevertools", "doctor"]
    told = subprocess.run(command, env={**unset("XDG", "HF", "ORT"), **places}, cwd=work, stdout=subprocess.PIPE).stdout
    assert b"verified" in told
    assert litter(home) == litter(work) == []


def test_a_user_whom_the_machine_does_not_know():
    """As in a container with a made-up user: no home, no entry in the password file, nothing may be written."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    if not all(folder.stat().st_mode & 0o005 == 0o005 for folder in (ROOT, *ROOT.parents)):
        pytest.skip("the checkout is not for others to read")
    embed_with({}, "become another", cwd="/")


def test_telemetry_of_onnx_runtime_is_off_and_its_setting_can_be_chosen():
    code = (
        "import os, sys, fevertools\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "from fevertools.session import runtime\n"
        "runtime()\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])\n"
    )
    for given, seen in (({}, "1\n"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0\n")):
        environment = {**unset("ORT"), **given}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        assert done.stdout == seen, done.stderr
