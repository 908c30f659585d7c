"""python .ci/lock.py: resolve the extra `dev` and .ci/tools.txt anew, and write the versions to .ci/lock.txt.

The lock is a constraints file of exact versions: pip takes these and no others, and installs nothing that is not asked
for, so that one file serves machines with and without the CUDA packages of torch. There are no hashes in it, for they
would name the wheels of one platform and Python. torch and torchvision stay in .ci/constraints.txt.

python .ci/lock.py --check: is everything that is installed here in the lock?
"""

import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOCK, CONSTRAINTS, TOOLS = HERE / "lock.txt", HERE / "constraints.txt", HERE / "tools.txt"
OWN = {"fevertools", "torch", "torchvision", "pip"}
CUDA = re.compile(r"(nvidia|cuda)-.*|triton")
HEADER = """\
# Exact versions of everything that CI installs, for Python {}. Written by `python .ci/lock.py`; do not edit.
"""


def normal(name: str) -> str:
    """The name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve() -> dict[str, str]:
    """Name -> version, of what pip would install into an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        dry = ("--dry-run", "--ignore-installed", "--quiet", "--report", str(report))
        asked = ("--constraint", str(CONSTRAINTS), "--requirement", str(TOOLS), f"{HERE.parent}[dev]")
        subprocess.run([sys.executable, "-m", "pip", "install", *dry, *asked], check=True)
        found = [item["metadata"] for item in json.loads(report.read_text("utf-8"))["install"]]
    return {normal(item["name"]): item["version"] for item in found}


def write(versions: dict[str, str]) -> None:
    """The lock file. torch's CUDA packages are for the platform whose torch has them."""
    lines = [
        f"{name}=={version}" + ('; platform_machine == "x86_64"' if CUDA.fullmatch(name) else "")
        for name, version in sorted(versions.items())
        if name not in OWN
    ]
    header = HEADER.format(".".join(map(str, sys.version_info[:2])))
    LOCK.write_text(header + "\n".join((*lines, "")), "ascii")


def strangers() -> list[str]:
    """What is installed here, and not in the lock."""
    pinned = {line.partition(";")[0].strip() for line in LOCK.read_text("ascii").splitlines()}
    installed = {normal(item.name): item.version for item in metadata.distributions()}
    return sorted(
        f"{name}=={version}"
        for name, version in installed.items()
        if name not in OWN and f"{name}=={version}" not in pinned
    )


if __name__ == "__main__":
    if "--check" not in sys.argv:
        write(resolve())
    elif left := strangers():
        sys.exit(f"not in {LOCK.name}: {', '.join(left)}; run python .ci/lock.py")
