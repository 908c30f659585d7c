"""Make the environments of the packages that a user might pick instead, and one of fevertools as a user installs it.

Run: `python -m benchmarks.setup_peers [--folder DIR] [--most BYTES]`

The one benchmark module that needs a package registry: that which pip is set up for, and uv for the sizes of downloads.
What it learns of each package lies in DIR/sizes.json, for `benchmarks.weight`.
"""

import argparse
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._peer import PEERS, ROOT

MOST = 2_500_000_000
"""Bytes of downloads; an environment that needs more is not made."""

TORCH = re.compile("torch|torchvision|facenet-pytorch|triton|nvidia-.*|cuda-.*")
"""PyTorch with what it brings along."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A package and what its environment needs to run offline."""

    name: str
    requirement: str
    left_out: re.Pattern[str] | None = None  # dependencies that are not installed; they count as downloads
    pins: tuple[str, ...] = ()  # in place of the releases that pip takes
    beside: tuple[str, ...] = ()  # packages installed without their dependencies; they count nowhere


_CHOSEN = (
    # It imports pkg_resources, which later releases of setuptools do not have. Its dependency facenet-pytorch is for
    # mtcnn=True alone, which borrows PyTorch from the environment of the benchmarks. The others run in its TensorFlow.
    Peer(
        "fer", "fer==25.10.3", TORCH, ("setuptools==80.9.0",),
        ("facex==1.1.0", "facemood==1.0.1", "scikit-image==0.25.2", "lazy-loader==0.4", "scipy==1.15.3",
         "tifffile==2025.5.10"),
    ),
    Peer("emotiefflib", "emotiefflib==1.1.1"),
    Peer("deepface", "deepface==0.0.103"),
    Peer("rmn", "rmn==3.3.0"),
    Peer("py-feat", "py-feat==2.1.5"),
)  # fmt: skip
CHOSEN = {peer.name: peer for peer in _CHOSEN}


def pip(*arguments: str, python: Path | None = None) -> None:
    """Run pip, on another environment where one is named."""
    place = ["--python", str(python)] if python else []
    command = [sys.executable, "-m", "pip", *place, *arguments, "--quiet", "--disable-pip-version-check"]
    subprocess.run(command, check=True)


def make(folder: Path) -> Path:
    """An empty environment without pip; its Python."""
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


def resolve(requirement: str, scratch: Path) -> list[dict[str, Any]]:
    """What pip would install: entries of its report."""
    report = scratch / "report.json"
    pip("install", "--dry-run", "--ignore-installed", "--report", str(report), requirement)
    entries: list[dict[str, Any]] = json.loads(report.read_text("utf-8"))["install"]
    return entries


def canonical(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(entries: Iterable[dict[str, Any]], peer: Peer) -> list[str]:
    """The releases of a report, without those that are left out and with the pins of the peer in their place."""
    pins = {canonical(pin.partition("==")[0]): pin for pin in peer.pins}
    releases = {}
    for entry in entries:
        name = canonical(entry["metadata"]["name"])
        if peer.left_out is None or not peer.left_out.fullmatch(name):
            releases[name] = pins.get(name, f"{name}=={entry['metadata']['version']}")
    return sorted({**pins, **releases}.values())


def download_bytes(entries: Sequence[dict[str, Any]], uv: Path, scratch: Path) -> int:
    """Size of the files of a report: the registry's own figures, which uv asks for."""
    hashes = {entry["download_info"]["archive_info"]["hashes"]["sha256"] for entry in entries}
    pins, lock = scratch / "pins.txt", scratch / "pylock.toml"
    pins.write_text("".join(f"{e['metadata']['name']}=={e['metadata']['version']}\n" for e in entries), "utf-8")
    command = [str(uv), "pip", "compile", "--quiet", "--no-deps", "--format", "pylock.toml", "--output-file", str(lock)]
    subprocess.run([*command, "--python", sys.executable, str(pins)], check=True)
    sizes = {}
    for package in tomllib.loads(lock.read_text("utf-8"))["packages"]:
        for file in (*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())):
            sizes[file["hashes"]["sha256"]] = file["size"]
    return sum(sizes[digest] for digest in hashes)


def names(entries: Iterable[dict[str, Any]]) -> set[str]:
    """Of the distributions in a report."""
    return {canonical(entry["metadata"]["name"]) for entry in entries}


def site_packages(python: Path) -> Path:
    """Of the environment of that Python."""
    (site,) = (python.parents[1] / "lib").glob("python*/site-packages")
    return site


def installed_bytes(site: Path, wanted: set[str]) -> int:
    """Size of every file of those distributions that are installed there, compiled files among them."""
    return sum(
        Path(str(file.locate())).stat().st_size
        for found in importlib.metadata.distributions(path=[str(site)])
        if canonical(found.name) in wanted
        for file in found.files or ()
        if Path(str(file.locate())).is_file()
    )


def facts(peer: Peer, entries: Sequence[dict[str, Any]], download: int | None) -> dict[str, Any]:
    """What is known before anything is installed."""
    return {
        "version": next(e["metadata"]["version"] for e in entries if canonical(e["metadata"]["name"]) == peer.name),
        "packages": len(entries),
        "download_bytes": download,
        "installed_bytes": None,
        "left_out": [
            name for name in sorted(names(entries)) if peer.left_out is not None and peer.left_out.fullmatch(name)
        ],
    }


def theirs(peer: Peer, folder: Path, uv: Path, scratch: Path, most: int) -> dict[str, Any]:
    """What is known of a peer, and its environment where that needs no larger downloads than `most`."""
    entries = resolve(peer.requirement, scratch)
    known = facts(peer, entries, download_bytes(entries, uv, scratch))
    kept = [entry for entry in entries if canonical(entry["metadata"]["name"]) not in known["left_out"]]
    if download_bytes(kept, uv, scratch) <= most:
        python = make(folder / peer.name)
        pip("install", "--no-deps", *pinned(entries, peer), python=python)
        if peer.beside:
            pip("install", "--no-deps", *peer.beside, python=python)
        known["installed_bytes"] = installed_bytes(site_packages(python), names(entries))
    return known


def own(folder: Path, uv: Path, scratch: Path) -> dict[str, Any]:
    """Build the wheel of this tree and install it as a user does."""
    pip("wheel", "--no-deps", "--wheel-dir", str(scratch), str(ROOT))
    (wheel,) = scratch.glob("fevertools-*.whl")
    peer, entries = Peer("fevertools", str(wheel)), resolve(str(wheel), scratch)
    others = [entry for entry in entries if canonical(entry["metadata"]["name"]) != "fevertools"]
    known = facts(peer, entries, download_bytes(others, uv, scratch) + wheel.stat().st_size)
    python = make(folder / peer.name)
    pip("install", "--no-deps", str(wheel), *pinned(others, peer), python=python)
    known["installed_bytes"] = installed_bytes(site_packages(python), names(entries))
    return {**known, "wheel_bytes": wheel.stat().st_size}


def main(arguments: Sequence[str] | None = None) -> None:
    known = ("fevertools", *CHOSEN)
    parser = argparse.ArgumentParser(description="Make the environments of the peers.")
    parser.add_argument("--folder", type=Path, default=PEERS, help="where they go")
    parser.add_argument("--most", type=int, default=MOST, help="bytes of downloads for one environment")
    parser.add_argument("--only", nargs="+", choices=known, default=known, help="the others stay as they are")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "sizes.json"
    sizes: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        pip("install", "uv", python=make(options.folder / "tools"))
        uv = options.folder.resolve() / "tools" / "bin" / "uv"
        for name in options.only:
            sizes[name] = (
                theirs(CHOSEN[name], options.folder, uv, scratch, options.most)
                if name in CHOSEN
                else own(options.folder, uv, scratch)
            )
            path.write_text(json.dumps(sizes, indent=2) + "\n", "utf-8")
    print(json.dumps(sizes, indent=2))


if __name__ == "__main__":
    main()
