"""Tables of docs/systems.md: the open runs of four systems beside what their papers say.

They are written from `results/system-*.json`, which `python -m fevertools.train evaluate` and `distil-dataset` write. A
figure whose file is not there, or that its file does not hold, is a dash.
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._common import header

DASH = "-"

MEMBERS = {
    "emoxnet-vgg16": ("VGG-16", 79.68, 77.38),
    "emoxnet-densenet121": ("DenseNet-121", 82.32, 78.75),
    "emoxnet-seresnet34": ("SE-ResNet-34", 80.31, 74.58),
    "emoxnet-seresnext50": ("SE-ResNeXt-50", 82.77, 76.99),
    "emoxnet": ("EmoXNet, the four together", 85.07, 86.25),
    "emoxnet-lite": ("EmoXNetLite", 82.07, 81.78),
}
"""Results file -> title, and the paper's accuracy on FER+ and RAF-DB: tables 1 and 2, the last two by the abstract."""

PAPER_F1 = {
    "neutral": (87, 89),
    "happiness": (93, 92),
    "surprise": (88, 88),
    "sadness": (68, 68),
    "anger": (79, 79),
    "disgust": (58, 67),
    "fear": (60, 59),
}
"""Emotion -> F1 of EmoXNet and of EmoXNetLite on FER+, percent: table 3."""

DENSENETS = {
    "densenet-bc": ("DenseNet-BC", (69.5, 70.7), (69.8, 71.0)),
    "densenet-bc-center": ("DenseNet-BC, center loss", (68.9, 70.7), (69.7, 70.9)),
    "densenet-bc-soft": ("DenseNet-BC, soft labels", (None,), (None,)),
    "densenet-bc-center-soft": ("DenseNet-BC, center loss, soft labels", (None,), (None,)),
    "densenet-bc-soft-long": ("DenseNet-BC, soft labels, longer", (None,), (None,)),
    "densenet-bc-soft-cycles": ("DenseNet-BC, soft labels, five cosines", (None,), (None,)),
    "densenet-wide-bc": ("wide DenseNet-BC", (70.2, 71.5), (70.9, 71.9)),
    "densenet-wide-bc-center": ("wide DenseNet-BC, center loss", (70.6, 72.2), (70.7, 72.2)),
}
"""Results file -> title, and the paper's PublicTest and PrivateTest, alone and five checkpoints together: table II."""

OMNI = {
    "plain": ("nothing", (85.15, 84.63), (71.79, 70.89), 60.82),
    "vas": ("mined faces (VAS)", (85.84, 85.84), (72.08, 70.98), None),
    "das": ("distilled images (DAS)", (86.55, 85.24), (73.27, 71.20), 63.34),
}
"""Part of the file names -> what is added, and the paper's figures: RAF-DB (table 1) and FER-2013 with itself as the
anchor (table 2), each with VGG-Face and with ResNet-34; from RAF-DB to MMI (table 6)."""

ED2L = {
    "baseline": ("baseline, no dispelling branch", (94.50, 76.56, 87.17, 84.58)),
    "gradient": ("ED2L, its dispeller trained as in the paper", (97.86, 80.38, 88.67, 87.71)),
    "solved": ("ED2L, its dispeller solved for in every step", (None,)),
}
"""Part of the file names -> title, and the paper's accuracy, fine-tuned: CK+, MMI, BU-3DFE, Oulu-CASIA (tables 2-5)."""

LABELS = {"emoxnet": "ferplus7", "densenet": "fer2013", "omni": "ferplus8", "ed2l": "fer2013"}
"""First part of a run's name -> the labels that it was validated on."""

SHIPPED = {"emoxnet-lite": "emoxnetlite"}
"""Networks whose figures are those of weights in the manifest."""

SEEDS = {"omni": (61, 62, 63), "ed2l": (41, 42, 43)}


def read(results: Path, name: str) -> dict[str, Any]:
    """`system-NAME.json`, or `accuracy-WEIGHTS.json` where it ships; nothing where it has not been made."""
    path = results / (f"accuracy-{SHIPPED[name]}.json" if name in SHIPPED else f"system-{name}.json")
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def at(result: Any, *keys: str) -> float | None:
    """The number behind some keys; None where one of them is not there."""
    for key in keys:
        if not isinstance(result, dict) or key not in result:
            return None
        result = result[key]
    return float(result)


def cell(*values: float | None, digits: int = 2) -> str:
    """Numbers side by side; one dash where none is known."""
    if all(value is None for value in values):
        return DASH
    return " / ".join(DASH if value is None else f"{value:.{digits}f}" for value in values)


def over_seeds(values: Sequence[float | None], planned: int) -> str:
    """Mean and standard deviation of what is known, and of how many where some of it is not."""
    known = [value for value in values if value is not None]
    if not known:
        return DASH
    deviation = f" ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""
    count = "" if len(known) == planned else f" ({len(known)} run{'s'[: len(known) > 1]})"
    return f"{statistics.mean(known):.2f}{deviation}{count}"


def emoxnet(results: Path) -> str:
    """PrivateTest, seven emotions, of every member, the ensemble and its student, and how fast the student is.

    Networks "from votes alone" had no teacher; their ensemble and its student are of such networks.
    """
    rows = header(
        "network", "FER+ %", "10 views %", "mean F1 %", "mean F1, 10 views %", "from votes alone, FER+ %",
        "paper, FER+ %", "paper, RAF-DB %",
    )  # fmt: skip
    for name, (title, ferplus, rafdb) in MEMBERS.items():
        found = [at_ferplus7(read(results, f"{name}{ending}")) for ending in ("", "-tta")]
        figures = [cell(at(f, "all", key)) for key in ("accuracy", "mean_f1") for f in found]
        figures.append(cell(at(at_ferplus7(read(results, f"{name}-votes")), "all", "accuracy")))
        rows.append(f"| {title} | {' | '.join(figures)} | {ferplus:.2f} | {rafdb:.2f} |")
    return "\n".join(rows) + emoxnet_speed(results)


def at_ferplus7(result: dict[str, Any]) -> dict[str, Any]:
    """The figures of the protocol ferplus7 on PrivateTest."""
    return dict(result.get("PrivateTest", {}).get("single", {}).get("ferplus7", {}))


def emoxnet_speed(results: Path) -> str:
    """What `benchmarks.emoxnet` measured, as a paragraph."""
    path = results / "speed-emoxnet.json"
    if not path.is_file():
        return "\n\nSpeed: not measured yet."
    speed = json.loads(path.read_text(encoding="utf-8"))
    each = speed["images_per_second"]
    return (
        f"\n\nEmoXNetLite is {speed['ratio']['onnx']:.0f} times as fast as EmoXNet in ONNX Runtime "
        f"({each['EmoXNetLite, ONNX']:.0f} and {each['EmoXNet, ONNX']:.1f} faces/s) and "
        f"{speed['ratio']['torch']:.0f} times in PyTorch ({each['EmoXNetLite, torch']:.0f} and "
        f"{each['EmoXNet, torch']:.1f} faces/s): {speed['machine']['processor']}, {speed['threads']} threads, batches "
        f"of {speed['batch']}, medians of {speed['rounds']} runs in turn."
    )


def emoxnet_f1(results: Path) -> str:
    """F1 of every emotion on PrivateTest, one view."""
    rows = header("emotion", "EmoXNet %", "paper %", "EmoXNetLite %", "paper %")
    ours = [at_ferplus7(read(results, name)) for name in ("emoxnet", "emoxnet-lite")]
    for emotion, paper in PAPER_F1.items():
        pairs = [f"{cell(at(f, 'f1', emotion), digits=0)} | {p}" for f, p in zip(ours, paper, strict=True)]
        rows.append(f"| {emotion} | {' | '.join(pairs)} |")
    return "\n".join(rows)


def densenet(results: Path) -> str:
    """FER-2013's labels on PublicTest and PrivateTest, alone and as an ensemble, and how compact the classes are."""
    rows = header(
        "network", "Public / PrivateTest %", "five checkpoints %", "with mirror images %",
        "variance inside of classes : between", "paper %", "paper, five checkpoints %",
    )  # fmt: skip
    for name, (title, *paper) in DENSENETS.items():
        alone, together = read(results, name), read(results, f"{name}-ensemble")
        ours = [
            cell(*(at(f, split, view, "fer2013", "all", "accuracy") for split in ("PublicTest", "PrivateTest")))
            for f, view in ((alone, "single"), (together, "single"), (together, "flip"))
        ]
        theirs = [cell(*pair, digits=1) for pair in paper]
        rows.append(f"| {title} | {' | '.join([*ours, cell(at(alone, 'spread', 'ratio')), *theirs])} |")
    return "\n".join(rows)


def omni(results: Path) -> str:
    """FER+ on PrivateTest and five emotions on people of LFW that no learner saw; what distilled images teach alone."""
    rows = header(
        "added to FER+", "FER+ %", "LFW, mean recall %", "LFW %", "paper, RAF-DB %", "paper, FER-2013 %",
        "paper, RAF-DB to MMI %",
    )  # fmt: skip
    paths = (
        ("PrivateTest", "single", "ferplus8", "all", "accuracy"),
        ("cross", "restricted", "mean_recall"),
        ("cross", "restricted", "accuracy"),
    )
    for name, (title, rafdb, fer2013, mmi) in OMNI.items():
        runs = [read(results, f"omni-{name}-{seed}") for seed in SEEDS["omni"]]
        ours = [over_seeds([at(run, *path) for run in runs], len(runs)) for path in paths]
        rows.append(f"| {title} | {' | '.join(ours)} | {cell(*rafdb)} | {cell(*fer2013)} | {cell(mmi)} |")
    return "\n".join(rows) + omni_distilled(results)


def omni_distilled(results: Path) -> str:
    """What networks learn from the distilled images alone, as a paragraph."""
    found = read(results, "omni-distilled")
    if not found:
        return "\n\nWhat fresh classifiers learn from the distilled images alone has not been measured yet."
    accuracy, recall, images = found["accuracy"], found["mean_recall"], found["images"]
    return (
        f"\n\n{len(accuracy)} fresh classifiers, each taught by the {images} distilled images alone, have a mean "
        f"recall of {over_seeds(recall, len(recall))}% on {found['split']}, where chance has {100 / images:.2f}%, "
        f"and are right about {over_seeds(accuracy, len(accuracy))}%; always naming the most frequent emotion "
        f"is right about {found['chance']:.2f}%."
    )


def ed2l(results: Path) -> str:
    """FER-2013's labels on PrivateTest, and what linear probes read out of both features."""
    rows = header(
        "network", "FER-2013 %", "expression from the distilled / dispelled feature %",
        "identity from the distilled / dispelled feature %", "paper: CK+ / MMI / BU-3DFE / Oulu-CASIA %",
    )  # fmt: skip
    chance = None
    for name, (title, paper) in ED2L.items():
        runs = [read(results, f"ed2l-{name}-{seed}") for seed in SEEDS["ed2l"]]
        chance = next((c for run in runs if (c := at(run, "disentangle", "distilled", "identity", "chance"))), chance)

        def mean(*keys: str, runs: list[dict[str, Any]] = runs) -> str:
            return over_seeds([at(run, *keys) for run in runs], len(runs))

        probes = [
            " / ".join(mean("disentangle", feature, *keys) for feature in ("distilled", "dispelled"))
            for keys in (("expression",), ("identity", "accuracy"))
        ]
        accuracy = mean("PrivateTest", "single", "fer2013", "all", "accuracy")
        rows.append(f"| {title} | {accuracy} | {' | '.join(probes)} | {cell(*paper)} |")
    note = "" if chance is None else f"\n\nAlways naming the most frequent person is right about {chance:.2f}%."
    return "\n".join(rows) + note


def curves(results: Path) -> str:
    """Validation of every open run, `run-system-*.jsonl`: after each quarter, and where cross-entropy was least."""
    rows = header("run", "labels", "epoch", "accuracy %", "mean recall %", "cross-entropy", "minutes")
    for path in sorted(results.glob("run-system-*.jsonl")):
        name = path.stem.removeprefix("run-system-")
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        validated = [{**line, "minutes": minutes(lines, line["step"])} for line in lines if "validation" in line]
        best = min(validated, key=lambda line: line["validation"]["cross_entropy"])
        quarters = [validated[len(validated) * quarter // 4 - 1] for quarter in range(1, 5)]
        for line in sorted({line["step"]: line for line in (*quarters, best)}.values(), key=lambda line: line["step"]):
            figures, mark = line["validation"], " (best)" if line is best else ""
            rows.append(
                f"| {name}{mark} | {LABELS[name.partition('-')[0]]} | {line['epoch']:.0f} | {figures['accuracy']:.2f} "
                f"| {figures['mean_recall']:.2f} | {figures['cross_entropy']:.4f} | {line['minutes']:.0f} |"
            )
    return "\n".join(rows) if len(rows) > 2 else "Nothing has been measured yet."


def minutes(lines: Sequence[dict[str, Any]], until: int) -> float:
    """How long a run took up to a step, from the minutes that it said were left: those of its interruptions are out.

    One that was made longer when it had ended said so each time that it came to an end.
    """
    ends = [line["step"] for line in lines if line.get("minutes_left") == 0] + [lines[-1]["step"]]
    last, spent, rate = 0, 0.0, 0.0
    for line in lines:
        if "minutes_left" not in line or line["step"] > until:
            continue
        if line["minutes_left"] > 0 and line["step"] < ends[-1]:
            rate = line["minutes_left"] / (min(end for end in ends if end > line["step"]) - line["step"])
        spent, last = spent + rate * (line["step"] - last), line["step"]
    return spent + rate * (until - last)


def densenet201(results: Path) -> str:
    """How the losses of `deepfever_densenet201_open` fall, means over 50 steps, and how long the whole run would be."""
    path = results / "steps-deepfever-densenet201-open.jsonl"
    if not path.is_file():
        return "Nothing has been measured yet."
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    terms = ("loss", "triplet", "votes", "rkd_distance", "rkd_angle")
    rows = header("steps", *terms)
    for first in range(0, steps[-1]["step"] - 49, 50):
        window = [line for line in steps if first < line["step"] <= first + 50]
        means = [statistics.mean(line[term] for line in window) for term in terms]
        rows.append(f"| {first + 1} to {first + 50} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    left = steps[-1]["minutes_left"] / 60
    return (
        "\n".join(rows)
        + f"\n\nAfter {steps[-1]['step']} steps the run says that {left:.1f} hours are left, on one core."
    )
