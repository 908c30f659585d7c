import contextlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from fevertools.cli import main
from tests.cli.conftest import save_crop, start

FORMATS = ("csv", "jsonl", "npz", "parquet")
COUNT = 40
BROKEN = 11  # this one of them is no image


@dataclass(frozen=True)
class Batch:
    """`fevertools embed` of 40 crops, one of them broken, in groups of at most 7 faces."""

    folder: Path  # the working folder of every run
    options: tuple[str, ...]
    whole: dict[str, bytes]  # format -> the output of a run that nothing disturbed
    journal: bytes  # of such a run, just before its output appears

    def run(self, output: Path, *more: str) -> int:
        """In this process; the exit code is 1 for the broken image."""
        return main(["embed", "many", "-o", str(output), *self.options, *more])

    def start(self, output: Path, *more: str, inputs: str = "many", **options):
        """In a process of its own, under way."""
        return start("embed", inputs, "-o", output, *self.options, *more, cwd=self.folder, **options)

    def names(self, count: int = COUNT) -> list[str]:
        return [f"many/{seed:02} gruß 顔.png" for seed in range(count)]


class Stopped(BaseException):
    pass


def stop(*_):
    raise Stopped


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, tiny_weights) -> Batch:
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("batch")
    options = ("--cropped", "--weights", str(tiny_weights), "--device", "cpu", "--threads", "1", "--batch-size", "7")
    batch = Batch(folder, options, {}, b"")
    with contextlib.chdir(folder):
        for seed, name in enumerate(batch.names()):
            save_crop(folder / name, seed)
        (folder / batch.names()[BROKEN]).write_bytes(b"no image")
        for form in FORMATS:
            assert batch.run(folder / f"x.{form}") == 1
            batch.whole[form] = (folder / f"x.{form}").read_bytes()
        with patch("fevertools.cli._output.os.replace", stop), pytest.raises(Stopped):
            batch.run(folder / "y.csv")
    return Batch(folder, options, batch.whole, (folder / "y.csv.partial").read_bytes())


@pytest.fixture
def batch(undisturbed, monkeypatch) -> Batch:
    """The batch, in its folder."""
    monkeypatch.chdir(undisturbed.folder)
    return undisturbed


def litter(folder: Path) -> list[str]:
    """What lies in a folder, by name."""
    return sorted(path.name for path in folder.iterdir())


def mount(*arguments: object) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no right to mount here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """A function that makes a disk of so many bytes, or gives it another size; its folder. Needs root."""
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("only root makes disks")
    folder = tmp_path / "disk"
    folder.mkdir()

    def resize(size: int) -> Path:
        mount("-t", "tmpfs", "-o", f"{'remount,' if os.path.ismount(folder) else ''}size={size}", "tmpfs", folder)
        return folder

    yield resize
    if os.path.ismount(folder):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def read_only():
    """A function that lets nobody write to a folder, not even root, until the test ends."""
    frozen: list[Path] = []

    def freeze(folder: Path) -> None:
        if os.geteuid() == 0:
            mount("--bind", folder, folder)
            frozen.append(folder)
            mount("-o", "remount,bind,ro", folder)
        else:
            folder.chmod(0o555)
            frozen.append(folder)

    if os.name == "nt":
        pytest.skip("POSIX permissions")
    yield freeze
    for folder in frozen:
        if os.geteuid() == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        else:
            folder.chmod(0o755)
