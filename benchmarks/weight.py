"""What does a package cost before its first result: downloads, disk, the import, and a fresh process?

Run: `python -m benchmarks.weight [--rounds N] [--peers DIR] [--output FILE]`

Needs no network: sizes are those that `python -m benchmarks.setup_peers` wrote, and processes start in the environments
that it made. Each runs in turn with the others and with a Python that does nothing, whose time is taken off.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._common import header, interleaved, machine, report
from benchmarks._peer import PEERS, Aside, digits

FER = "from fer.fer import FER"
FACENET = "from facenet_pytorch import MTCNN, InceptionResnetV1"
BARE = "pass"


@dataclass(frozen=True, slots=True)
class Programs:
    """What a fresh process runs. PHOTO and FACE stand for the paths of a photo and of a framed face of 48 x 48."""

    environment: str | None  # of `benchmarks.setup_peers`; None: the one of this process
    imports: str
    face: str | None = None
    photo: str | None = None


PROGRAMS = {
    "fevertools": Programs(
        "fevertools", "import fevertools", "fevertools.embed(FACE, cropped=True)", "fevertools.embed(PHOTO)"
    ),
    "fer": Programs(
        "fer",
        FER,
        "import cv2; FER().detect_emotions(cv2.imread(FACE), face_rectangles=[(0, 0, 48, 48)])",
        "FER().detect_emotions(PHOTO)",
    ),
    "deepface": Programs("deepface", "from deepface import DeepFace"),
    "emotiefflib": Programs("emotiefflib", "from emotiefflib.facial_analysis import EmotiEffLibRecognizer"),
    "facenet-pytorch": Programs(
        None,
        FACENET,
        "import torch; InceptionResnetV1().eval()(torch.zeros(1, 3, 160, 160))",
        "from PIL import Image; found = MTCNN(keep_all=True)(Image.open(PHOTO)); InceptionResnetV1().eval()(found)",
    ),
}
"""Distribution -> what is started. Those that are not here cannot be installed within the limit of `setup_peers`."""
KINDS = ("imports", "face", "photo")


def commands(peers: Path, face: Path, photo: Path) -> dict[str, list[str]]:
    """The command of each fresh process, by "DISTRIBUTION KIND"."""
    made = {"bare": [sys.executable, "-c", BARE]}
    for name, programs in PROGRAMS.items():
        python = Path(sys.executable)
        if programs.environment is not None:
            python = peers.resolve() / programs.environment / "bin" / "python"
        steps = {"imports": "pass", "face": programs.face, "photo": programs.photo}
        for kind, step in steps.items():
            if step is not None:
                paths = f"FACE, PHOTO = {str(face)!r}, {str(photo)!r}"
                made[f"{name} {kind}"] = [str(python), "-c", f"{programs.imports}; {paths}; {step}"]
    return made


def run(command: Sequence[str], folder: str) -> None:
    """A process from its start to its end; away from the repository, whose packages it would import."""
    subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)


def working(made: Mapping[str, Sequence[str]], folder: str) -> tuple[dict[str, Callable[[], None]], dict[str, str]]:
    """The processes that end well, which have now run once, and why the others do not."""
    runs: dict[str, Callable[[], None]] = {}
    missing = {}
    for key, command in made.items():
        try:
            run(command, folder)
        except FileNotFoundError:
            missing[key] = "its environment is not there; run `python -m benchmarks.setup_peers`"
        except subprocess.CalledProcessError as error:
            missing[key] = (error.stderr.strip().splitlines() or [f"ended with {error.returncode}"])[-1]
        else:
            runs[key] = functools.partial(run, command, folder)
    return runs, missing


def pictures(folder: Path) -> tuple[Path, Path]:
    """A photo of one person, 512 x 512, and her face, 48 x 48."""
    from PIL import Image
    from skimage import data

    astronaut = Image.fromarray(data.astronaut())  # type: ignore[no-untyped-call]
    photo, face = folder / "photo.png", folder / "face.png"
    astronaut.save(photo)
    astronaut.crop((168, 62, 280, 174)).resize((48, 48)).convert("L").save(face)
    return face, photo


def measure(peers: Path, rounds: int) -> dict[str, Any]:
    """Seconds of a Python that does nothing, those of fresh processes above them, {distribution: {kind: figures}}, and
    why others have none."""
    with tempfile.TemporaryDirectory() as folder:
        runs, missing = working(commands(peers, *pictures(Path(folder))), folder)
        seconds = interleaved(runs, rounds, warmups=0)
    bare = statistics.median(seconds.pop("bare"))
    found: dict[str, Any] = {}
    for key, times in seconds.items():
        name, kind = key.split()
        above = sorted(time - bare for time in times)
        figures = {"median": statistics.median(above), "min": above[0], "max": above[-1]}
        found.setdefault(name, {})[kind] = {which: digits(value) for which, value in figures.items()}
    return {"bare_python": digits(bare), "seconds": found, "missing": missing}


def table(results: Path) -> str:
    """What each package costs."""
    result = json.loads((results / "weight.json").read_text("utf-8"))
    rows = header(
        "package", "release", "packages", "downloads MB", "installed MB", "import s", "first framed face s",
        "first photo s",
    )  # fmt: skip
    sizes, seconds = result["sizes"], result["seconds"]
    for name in dict.fromkeys((*PROGRAMS, *sizes)):
        size, times = sizes.get(name, {}), seconds.get(name, {})
        known = [f"{times[kind]['median']:.2f}" if kind in times else "" for kind in KINDS]
        rows.append(
            f"| {name} | {size.get('version', '')} | {size.get('packages', '')} | {_mb(size.get('download_bytes'))} "
            f"| {_installed(size)} | {' | '.join(known)} |"
        )
    own = sizes.get("fevertools", {}).get("wheel_bytes")
    told = (
        f"{result['machine']['processor']}, {result['machine']['cores']} cores; medians of {result['rounds']} fresh "
        f"processes in turn, less {result['bare_python']:.2f} s of a Python that does nothing; downloads and disk with "
        "all dependencies on this system. Each detects the photo's face with its default detector; InceptionResnetV1 "
        "has random weights."
    )
    told += f" The wheel of fevertools itself has {own / 1e6:.1f} MB." if own else " Sizes: not measured."
    for name, size in sizes.items():
        if size["left_out"] and size["installed_bytes"] is not None:
            count = len(size["left_out"])
            told += (
                f" On disk `{name}` is counted without {count} packages of PyTorch and CUDA, which it also installs."
            )
    unmade = [f"`{name}`" for name, size in sizes.items() if size["installed_bytes"] is None]
    if unmade:
        told += f" {' and '.join(unmade)}: not installed, for the size of the downloads."
    for name, why in result["missing"].items():
        told += f" {name}: not measured ({why})."
    return "\n".join(rows) + f"\n\n{told}"


def _mb(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:,.0f}"


def _installed(size: Mapping[str, Any]) -> str:
    more = "over " if size.get("left_out") and size.get("installed_bytes") is not None else ""
    return more + _mb(size.get("installed_bytes"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time fresh processes; collect the sizes of installations.")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each")
    parser.add_argument("--peers", type=Path, default=PEERS, help="folder of the environments")
    parser.add_argument("--output", type=Path, help="also write the JSON object here")
    options = parser.parse_args(arguments)
    with Aside() as others:
        measured = measure(options.peers, options.rounds)
    sizes = options.peers / "sizes.json"
    result = {
        "benchmark": "weight",
        "machine": machine(),
        "rounds": options.rounds,
        "cores_busy_with_other_processes": others.cores,
        **measured,
        "sizes": json.loads(sizes.read_text("utf-8")) if sizes.is_file() else {},
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
