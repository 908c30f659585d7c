"""python -m benchmarks.notebooks: run the notebooks that need the data folder, and keep their figures.

Each writes results/notebook-NAME.json, from which its page is drawn where the data is absent (docs/hooks.py), and from
which `python -m benchmarks tables` writes the table of docs/probes.md. A minute or two on two cores.
"""

import argparse
import json
import os
import runpy
from collections.abc import Sequence
from pathlib import Path

from benchmarks._common import header, machine, versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
NOTEBOOKS = ("smile_probe", "comparing")
PACKAGES = ("fevertools", "numpy", "onnxruntime", "scikit-learn")


def smile(results: Path) -> str:
    """The table of the smile probe."""
    figures = json.loads((results / "notebook-smile_probe.json").read_text("utf-8"))["figures"]
    rows = header("", "balanced accuracy %")
    reach = f"{100 * figures['lower end, 95 %']:.1f} to {100 * figures['upper end, 95 %']:.1f}"
    happy = f"{100 * figures['happiness above one half']:.1f}"
    rows += [
        f"| probe, C = {figures['C']} | {100 * figures['balanced accuracy']:.1f} ({reach}) |",
        f"| without a probe: `happiness` of the default weights above one half | {happy} |",
        "| chance | 50.0 |",
    ]
    told = (
        f"{figures['training faces']:,} training faces; {figures['test faces']:,} test faces of "
        f"{figures['test people']:,} people, none of whom is in the training photos. In brackets: 95 % of 1,000 "
        "draws of the test people."
    )
    return "\n".join(rows) + f"\n\n{told}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.notebooks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NOTEBOOKS)} (default: all)")
    os.environ.setdefault("MPLBACKEND", "Agg")
    for name in parser.parse_args(arguments).names or NOTEBOOKS:
        figures = runpy.run_path(str(ROOT / "docs" / "notebooks" / f"{name}.py"))["figures"]
        result = {"machine": machine(), "versions": versions(*PACKAGES), "figures": figures}
        path = RESULTS / f"notebook-{name}.json"
        path.write_text(json.dumps(result, default=float) + "\n", "utf-8")
        print(path)


if __name__ == "__main__":
    main()
