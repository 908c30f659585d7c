"""python .ci/audit.py: known vulnerabilities of what .ci/lock.txt and .ci/constraints.txt pin, by pip-audit.

Fails where there is one that EXPLAINED does not explain. Says SKIPPED where no vulnerability service can be reached,
which is no proof of anything.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SERVICES = ("osv", "pypi")
EXPLAINED: dict[str, str] = {}
"""Id of a vulnerability -> why it does not reach us. It is printed at each run."""


def audit(service: str, *files: Path) -> list[dict[str, Any]]:
    """What the service knows of the pinned packages; those that it does not know have a `skip_reason`."""
    asked = [argument for file in files for argument in ("--requirement", str(file))]
    command = [sys.executable, "-m", "pip_audit", *asked, "--no-deps", "--disable-pip", "--vulnerability-service"]
    options = (service, "--format", "json", "--timeout", "15", "--progress-spinner", "off")
    run = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    try:
        return list(json.loads(run.stdout)["dependencies"])
    except ValueError:
        print(f"{service}: {run.stderr.strip().splitlines()[-1][:200]}")
        return []


def answers(service: str) -> bool:
    """Whether the service can be reached: asked for one package, for each may take its time to fail."""
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "one.txt"
        one.write_text("pillow==9.0.0\n", "ascii")  # known to have some
        return any(package.get("vulns") for package in audit(service, one))


def main() -> int:
    """0 where nothing is found, or nobody can be asked."""
    service = next(filter(answers, SERVICES), None)
    if service is None:
        print("SKIPPED: no vulnerability service can be reached from here")
        return 0
    packages = audit(service, HERE / "lock.txt", HERE / "constraints.txt")
    if not packages:
        print(f"SKIPPED: {service} answers no more")
        return 0
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    found = {
        f"{package['name']} {package['version']}: {flaw['id']}": EXPLAINED.get(flaw["id"])
        for package in packages
        for flaw in package.get("vulns", ())
    }
    for flaw, reason in sorted(found.items()):
        print(f"{flaw}: {reason or 'NOT EXPLAINED'}")
    print(f"{service}: {len(packages)} packages asked for, {len(unknown)} unknown, {len(found)} vulnerabilities")
    return 1 if None in found.values() else 0


if __name__ == "__main__":
    sys.exit(main())
