"""The script for bash, in bash; those for other shells, where these are installed, as far as their syntax goes."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest

from fevertools.cli import main

pytest.importorskip("shtab", reason="needs the extra `completion`")

COMPLETE = """
source ./script
function=$(complete -p fevertools | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
"$function" fevertools "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(tmp_path, monkeypatch, capsys):
    """A working folder with the script for bash, a picture and a folder."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    monkeypatch.chdir(tmp_path)
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out, "utf-8")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photo.jpg").touch()
    return tmp_path / "script"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("em",), {"embed"}),
        (("embed", "--form"), {"--format"}),
        (("embed", "--format", ""), {"csv", "jsonl", "npz", "parquet"}),
        (("similarity", "--metric", "c"), {"cosine"}),
        (("weights", "p"), {"pull", "path"}),
        (("probe", "fit", "--cal"), {"--calibration"}),
        (("embed", "ph"), {"photo.jpg", "photos"}),
        (("embed", "--cache-dir", "ph"), {"photos"}),
        (("completion", ""), {"bash", "zsh", "fish"}),
    ],
)
def test_bash_offers(script, words, offered):
    run = subprocess.run(
        ["bash", "--norc", "-c", COMPLETE, "bash", "fevertools", *words], capture_output=True, text=True, check=True
    )
    assert set(run.stdout.split()) == offered


def test_every_command_is_offered(script):
    from fevertools.cli import _MODULES

    run = subprocess.run(
        ["bash", "--norc", "-c", COMPLETE, "bash", "fevertools", ""], capture_output=True, text=True, check=True
    )
    assert set(_MODULES) <= set(run.stdout.split())


def test_the_tab_key_completes(script):
    """At the prompt of an interactive bash."""
    terminal, inside = pty.openpty()
    environment = {**os.environ, "PS1": "READY ", "TERM": "dumb"}
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=inside, stdout=inside, stderr=inside, start_new_session=True, env=environment,
    )  # fmt: skip
    shown = ""

    def wait_for(text):
        nonlocal shown
        end = time.monotonic() + 20
        while text not in shown and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                shown += os.read(terminal, 4096).decode()
        assert text in shown, shown
        shown = shown.partition(text)[2]

    try:
        wait_for("READY ")
        os.write(terminal, b"source ./script; echo lo''aded\n")
        wait_for("loaded")
        wait_for("READY ")
        os.write(terminal, b"fevertools classi\t--form\t")
        wait_for("fevertools classify --format ")
    finally:
        bash.kill()
        bash.wait()
        os.close(terminal)
        os.close(inside)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_theirs(shell, tmp_path, capsys):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    assert main(["completion", shell]) == 0
    path = tmp_path / "script"
    path.write_text(capsys.readouterr().out, "utf-8")
    subprocess.run([shell, "-n", path], check=True)


def test_without_shtab_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "fevertools[completion]" in capsys.readouterr().err
