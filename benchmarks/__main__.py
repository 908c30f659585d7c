"""Everything written from benchmarks/results/*.json.

`python -m benchmarks tables` writes the tables of README and docs, which stand between `<!-- begin NAME -->` and
`<!-- end NAME -->`, and the model cards in docs/cards; `--check` only tells whether one is out of date.
`python -m benchmarks ablation` puts the ablation of the default weights into weights_manifest.json.
`python -m benchmarks all` runs every timing of inference and training on this machine, without network, into
benchmarks/results, and then writes the tables. It wants the machine to itself.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    curve,
    detection,
    end_to_end,
    limit,
    notebooks,
    peer_accuracy,
    precision,
    serve,
    stream,
    systems,
    training,
    video,
    weight,
)
from benchmarks import embedding as embedding_peers
from benchmarks._common import header
from fevertools.manifest import load_manifest
from fevertools.train.card import model_card

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
PAGES = (
    "README.md",
    "docs/experiments.md",
    "docs/similarity.md",
    "docs/systems.md",
    "docs/probes.md",
    "docs/benchmarks.md",
    "docs/serve.md",
    "docs/video.md",
)


def accuracy() -> str:
    """PrivateTest figures of every encoder that has been evaluated."""
    rows = header("weights", "protocol", "rows", "accuracy %", "without earlier twins %", "mean recall %", "ECE")
    for path in sorted(RESULTS.glob("accuracy-*.json")):
        result = json.loads(path.read_text())
        for view, words in (("single", ""), ("flip", ", mirror averaged")):
            for protocol, figures in result["PrivateTest"][view].items():
                everything, clean = figures["all"], figures["without earlier twins"]
                rows.append(
                    f"| {result['weights']}{words} | {protocol} | {everything['n']:,} | {everything['accuracy']:.2f} "
                    f"| {clean['accuracy']:.2f} ({clean['n']:,}) | {everything['mean_recall']:.2f} "
                    f"| {everything['ece']:.3f} |"
                )
    return "\n".join(rows)


def recall() -> str:
    """Recall of each class, ferplus8, PrivateTest, without mirror averaging."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("accuracy-*.json"))]
    classes = list(results[0]["PrivateTest"]["flip"]["ferplus8"]["recall"])
    rows = header("weights", *classes)
    for result in results:
        values = result["PrivateTest"]["single"]["ferplus8"]["recall"].values()
        rows.append(f"| {result['weights']} | " + " | ".join(f"{value:.0f}" for value in values) + " |")
    return "\n".join(rows)


def runs() -> str:
    """Validation of the trainings on the way to the default: each fourth, the last, and the best by cross-entropy."""
    rows = header(
        "run", "epoch", "accuracy %", "mean recall %", "ECE", "cross-entropy", "FER-2013 head %", "training images/s"
    )
    for path in sorted(set(RESULTS.glob("run-*.jsonl")) - set(RESULTS.glob("run-system-*"))):
        lines, speed = [], 0.0
        for line in map(json.loads, path.read_text().splitlines()):
            speed = line.get("images_per_second", speed)
            if "validation" in line:
                lines.append({**line, "speed": speed})
        best = min(lines, key=lambda line: line["validation"]["cross_entropy"])
        for number, line in enumerate(lines, start=1):
            if number % 4 and line is not best and line is not lines[-1]:
                continue
            figures, mark = line["validation"], " (best)" if line is best else ""
            fer2013 = f"{figures['fer2013_accuracy']:.2f}" if "fer2013_accuracy" in figures else ""
            rows.append(
                f"| {path.stem.removeprefix('run-')}{mark} | {line['epoch']:.0f} | {figures['accuracy']:.2f} "
                f"| {figures['mean_recall']:.2f} | {figures['ece']:.3f} | {figures['cross_entropy']:.4f} "
                f"| {fer2013} | {line['speed']:.0f} |"
            )
    return "\n".join(rows)


def choice() -> str:
    """PublicTest figures of the candidates of each training, from which the one that ships was chosen."""
    rows = header("candidate", "ferplus8 %", "mirror averaged", "ferplus8-majority %", "mirror averaged", "ECE")
    for path in sorted(RESULTS.glob("choice-*.json")):
        result = json.loads(path.read_text())
        single, flip = (
            {name: protocol["all"] for name, protocol in result["PublicTest"][view].items()}
            for view in ("single", "flip")
        )
        cells = [
            f"{view[name]['accuracy']:.2f}" for name in ("ferplus8", "ferplus8-majority") for view in (single, flip)
        ]
        rows.append(f"| {result['weights']} | {' | '.join(cells)} | {single['ferplus8']['ece']:.3f} |")
    return "\n".join(rows)


def agreement() -> str:
    """How often votes agree with the similarity of the default weights, by how far two similarities differ."""
    manifest = json.loads((ROOT / "weights_manifest.json").read_text())
    name = manifest["default"]["encoder"]
    head = "triplet" in manifest["weights"][name]["files"]
    result = json.loads((RESULTS / f"accuracy-{name}.json").read_text())
    if "agreement" not in result:
        which = "have a triplet head: its" if head else "have no triplet head: the cosine's"
        return f"The default weights, `{name}`, {which} agreement has not been measured."
    rows = header("difference of the similarities", "votes agree %", "triplets")
    rows += [f"| {row['difference']:.2f} | {100 * row['share']:.1f} | {row['n']:,} |" for row in result["agreement"]]
    metric = "triplet" if head else "cosine"
    return "\n".join(rows) + f"\n\nThe default weights, `{name}`, metric `{metric}`, PublicTest."


def embedding() -> str:
    """What the embedding alone is worth: probes, triplets, transfer to LFW and what is left of the person."""
    rows = header(
        "weights", "FER-2013, probe %", "ferplus8, probe %", "triplets %", "LFW, zero-shot %", "LFW, probe C = 10000 %",
        "LFW, probe C = 1 %", "identity AUC",
    )  # fmt: skip
    for path in sorted(RESULTS.glob("accuracy-*.json")):
        result = json.loads(path.read_text())
        if "probe" not in result:
            continue
        probes, transfer = (
            (result["probe"][task]["all"]["accuracy"] for task in ("fer2013", "ferplus8")),
            result["transfer"],
        )
        triplets = result["triplets"].get("head", result["triplets"]["embedding"])["all"]
        recalls = (transfer["zero_shot"]["restricted"], *(transfer["probe"][f"C={c}"] for c in (10000, 1)))
        cells = [f"{value:.2f}" for value in (*probes, triplets, *(figures["mean_recall"] for figures in recalls))]
        rows.append(f"| {result['weights']} | {' | '.join(cells)} | {result['leakage']['auc']:.3f} |")
    return "\n".join(rows) if len(rows) > 2 else "Nothing has been measured yet."


ABLATION = {
    "start": "face-recognition start, untouched",
    "ferplus-mobilenet": "plain classifier",
    "teacher-256": "teacher, D = 256",
    "teacher-128": "teacher, D = 128",
    "teacher-vgg": "teacher, VGG",
    "teacher-resnet": "teacher, ResNet",
    "no-distillation": "student without distillation, 3 epochs",
    "no-unlabeled": "student without unlabeled faces, 3 epochs",
    "full-short": "full student, 3 epochs",
    "deepfever-s": "full student, 36 epochs, as shipped",
}
"""Results file `ablation-KEY.json`, or `accuracy-KEY.json` for weights that ship -> what it is the result of."""


def ablations() -> dict[str, dict[str, float]]:
    """What each network of the ablation reaches on PrivateTest, those that have been measured."""
    found = {}
    for key, words in ABLATION.items():
        paths = [path for kind in ("ablation", "accuracy") if (path := RESULTS / f"{kind}-{key}.json").is_file()]
        result = json.loads(paths[0].read_text()) if paths else {}
        if "embedding" not in result.get("triplets", {}):
            continue
        figures = {}
        for name, protocol in result.get("PrivateTest", {}).get("single", {}).items():
            figures[name] = protocol["all"]["accuracy"]
        if figures:
            figures["ferplus8 mean recall"] = result["PrivateTest"]["single"]["ferplus8"]["all"]["mean_recall"]
        for name in ("embedding", "head"):
            if name in result["triplets"]:
                figures[f"triplets, {name}"] = result["triplets"][name]["all"]
        found[words] = figures
    return found


def ablation() -> str:
    """The table of the ablation."""
    found = ablations()
    if not found:
        return "Nothing has been measured yet."
    columns = list(dict.fromkeys(name for figures in found.values() for name in figures))
    rows = header("network", *(f"{name} %" for name in columns))
    for words, figures in found.items():
        cells = [f"{figures[name]:.2f}" if name in figures else "" for name in columns]
        rows.append(f"| {words} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def write_ablation() -> None:
    """The ablation of the default weights into the manifest, from which their card is written."""
    from fevertools.train.export import read_manifest, update_manifest  # needs torch, which tables do not

    path = ROOT / "weights_manifest.json"
    manifest = read_manifest(path)
    name = manifest["default"]["encoder"]
    entry = manifest["weights"][name]
    entry["metrics"]["ablation, PrivateTest"] = ablations()
    update_manifest(path, name, entry)


TABLES: dict[str, Callable[[], str]] = {
    "accuracy": accuracy,
    "recall": recall,
    "detection": lambda: detection.table(RESULTS),
    "detection_sizes": lambda: detection.sizes_table(RESULTS),
    "runs": runs,
    "choice": choice,
    "agreement": agreement,
    "ablation": ablation,
    "embedding": embedding,
    "emoxnet": lambda: systems.emoxnet(RESULTS),
    "emoxnet_f1": lambda: systems.emoxnet_f1(RESULTS),
    "densenet": lambda: systems.densenet(RESULTS),
    "omni": lambda: systems.omni(RESULTS),
    "ed2l": lambda: systems.ed2l(RESULTS),
    "densenet201": lambda: systems.densenet201(RESULTS),
    "system_runs": lambda: systems.curves(RESULTS),
    "smile": lambda: notebooks.smile(RESULTS),
    "serve": lambda: serve.table(RESULTS),
    "video": lambda: video.table(RESULTS),
    "curve": lambda: curve.table(RESULTS),
    "limit": lambda: limit.table(RESULTS),
    "peer_accuracy": lambda: peer_accuracy.table(RESULTS),
    "peer_embedding": lambda: embedding_peers.table(RESULTS),
    "peer_photos": lambda: end_to_end.table(RESULTS),
    "peer_weight": lambda: weight.table(RESULTS),
    "precision": lambda: precision.table(RESULTS),
    "stream": lambda: stream.table(RESULTS),
    "training": lambda: training.table(RESULTS),
}


def fill(text: str) -> str:
    """A page with every table written anew."""

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- begin (\w+) -->)\n.*?(<!-- end \2 -->)", table, text, flags=re.DOTALL)


def cards() -> dict[str, str]:
    """The model card of every encoder, by its place."""
    entries = load_manifest(ROOT / "weights_manifest.json").weights.values()
    return {f"docs/cards/{entry.name}.md": model_card(entry) for entry in entries if entry.kind == "encoder"}


TIMINGS = (
    "detection",
    "embedding",
    "precision",
    "end_to_end",
    "stream",
    "weight",
    "peer_accuracy",
    "limit",
    "training",
)
"""Modules of `python -m benchmarks all`, one after the other: each has a process of its own, and the machine."""


def run_all(names: Sequence[str]) -> list[str]:
    """Run benchmarks into their results files. Returns the names of those that failed; their old results stay."""
    failed = []
    for name in names:
        start = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{name}", "--output", str(RESULTS / f"{name}.json")]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        print(f"{name}: {'done' if done.returncode == 0 else 'FAILED'}, {time.monotonic() - start:.0f} s", flush=True)
        if done.returncode:
            failed.append(name)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("command", choices=("tables", "ablation", "all"))
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a table is out of date")
    parser.add_argument("--only", nargs="+", choices=TIMINGS, default=TIMINGS, help="of `all`: run these")
    options = parser.parse_args(arguments)
    if options.command == "ablation":
        write_ablation()
        return 0
    failed = run_all(options.only) if options.command == "all" else []
    stale: list[Any] = []
    pages = {page: fill((ROOT / page).read_text(encoding="utf-8")) for page in PAGES}
    for page, after in (pages | cards()).items():
        path = ROOT / page
        if not path.is_file() or path.read_text(encoding="utf-8") != after:
            stale.append(page)
            if not options.check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(after, encoding="utf-8")
    print("out of date: " + ", ".join(stale) if stale else "up to date")
    return 1 if failed or (options.check and stale) else 0


if __name__ == "__main__":
    sys.exit(main())
