"""`evaluate`: from weights to a JSON file of figures, and into the manifest."""

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fevertools.errors import DataError, UnknownWeightsError
from fevertools.options import choice
from fevertools.train.datasets.ferplus import FerPlus, Split, default_data_root, without_evaluated_twins
from fevertools.train.evaluate.closeness import closeness
from fevertools.train.evaluate.disentangle import disentanglement
from fevertools.train.evaluate.image_sets import Encoded, LfwFaces, split_rows
from fevertools.train.evaluate.leakage import leakage
from fevertools.train.evaluate.networks import load_network
from fevertools.train.evaluate.probe import ProbeOptions, evaluate_probe
from fevertools.train.evaluate.protocols import evaluate_ferplus
from fevertools.train.evaluate.spread import spread
from fevertools.train.evaluate.transfer import transfer_probe, zero_shot
from fevertools.train.evaluate.triplet import agreement, evaluate_triplets, fixed_list
from fevertools.train.evaluate.tta import with_tta
from fevertools.train.export import read_manifest, update_manifest
from fevertools.train.recipe import from_table
from fevertools.types import Float32, UInt8Image

SPLIT_NAMES: dict[Split, str] = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
LFW_CACHE = Path("runs") / "lfw"
VERSIONS = ("fevertools", "numpy", "onnxruntime", "scikit-learn", "torch")


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What is measured, and with what."""

    only: tuple[str, ...] = ()  # keys of `PARTS`; none is `USUAL`
    probe: ProbeOptions = field(default_factory=ProbeOptions)
    tta: int = 1  # views of every face whose answers are averaged
    precision: str = "float32"  # of the arithmetic, a key of `manifest.PRECISIONS`
    root: Path | None = None  # data folder, in which LFW is looked for; None is the default one
    lfw_cache: Path = LFW_CACHE  # folder of the crops of LFW, made there if they are not


class Subject:
    """One network and everything it is shown. Images are read and encoded when a part first asks for them."""

    def __init__(self, weights: str, data: FerPlus, split: Split, options: EvaluateOptions) -> None:
        self.weights, self.data, self.split, self.options = weights, data, split, options
        predict = load_network(weights, data, options.precision)
        if options.tta > 1:
            predict = with_tta(predict, options.tta)
        self.rows = {name: Encoded(predict, partial(_images, data, name)) for name in SPLIT_NAMES}
        self.faces = Encoded(predict, lambda: self.lfw.crops.images)

    @cached_property
    def lfw(self) -> LfwFaces:
        return LfwFaces(self.options.root or default_data_root(), self.options.lfw_cache)

    def embedding(self, encoded: Encoded) -> Float32:
        """The embeddings that probes read."""
        return (encoded.flip if self.options.probe.mirror else encoded.single).embedding


def _images(data: FerPlus, split: Split) -> UInt8Image:
    return data.images[split_rows(data, split)]


def ferplus(subject: Subject) -> dict[str, Any]:
    """The FER+ protocols, under the name of the split."""
    figures = evaluate_ferplus(subject.rows[subject.split], subject.data, subject.split)
    return {SPLIT_NAMES[subject.split]: figures}


def public(subject: Subject) -> dict[str, Any]:
    """The same of PublicTest, beside those of the split: papers on FER-2013 report both."""
    return {SPLIT_NAMES["validation"]: evaluate_ferplus(subject.rows["validation"], subject.data, "validation")}


def probe(subject: Subject) -> dict[str, Any]:
    """Linear probes on FER-2013 and FER+."""
    options, split = subject.options.probe, subject.split
    training, evaluated = (subject.embedding(subject.rows[name]) for name in ("train", split))
    figures = evaluate_probe(training, evaluated, subject.data, split, options)
    return {"probe": {"split": SPLIT_NAMES[split], "options": asdict(options), **figures}}


def triplets(subject: Subject) -> dict[str, Any]:
    """Triplet accuracy, and the table of agreement, which is of PublicTest whatever the split."""
    figures = evaluate_triplets(subject.rows[subject.split].single, subject.data, subject.split)
    public = subject.rows["validation"].single
    vectors = public.embedding if public.triplet is None else public.triplet
    table = agreement(vectors, fixed_list(subject.data, "validation")[0])
    return {"triplets": {"split": SPLIT_NAMES[subject.split], **figures}, "agreement": table}


def transfer(subject: Subject) -> dict[str, Any]:
    """Emotions of LFW, by the class head where there is one, and by a probe."""
    rows, label, person = subject.lfw.labelled()
    logits = subject.faces.single.logits
    figures = {} if logits is None else {"zero_shot": zero_shot(logits[rows], label)}
    embedding = subject.embedding(subject.faces)[rows]
    figures["probe"] = transfer_probe(embedding, label, person, subject.options.probe)
    return {"transfer": {"missing_faces": subject.lfw.crops.missing, **figures}}


def cross(subject: Subject) -> dict[str, Any]:
    """Emotions of the half of LFW that no omni-supervised learner has seen, by the class head as it is."""
    rows, label, person = subject.lfw.labelled()
    logits = subject.faces.single.logits
    if logits is None:
        raise DataError("these weights have no class logits")
    unseen = person % 2 == 1
    return {"cross": zero_shot(logits[rows[unseen]], label[unseen])}


def disentangle(subject: Subject) -> dict[str, Any]:
    """Probes for expression and identity on both features of ED2L; on the one feature of other networks."""
    train, judged, faces = (e.single for e in (subject.rows["train"], subject.rows[subject.split], subject.faces))
    rows = split_rows(subject.data, "train")
    clean = without_evaluated_twins(subject.data, rows)
    features = {"distilled": (train.embedding[clean], judged.embedding, faces.embedding)}
    if train.dispelled is not None and judged.dispelled is not None and faces.dispelled is not None:
        features["dispelled"] = (train.dispelled[clean], judged.dispelled, faces.dispelled)
    label, judged_label = subject.data.label[rows[clean]], subject.data.label[split_rows(subject.data, subject.split)]
    figures = disentanglement(features, label, judged_label, subject.lfw.crop_person())
    return {"disentangle": {"split": SPLIT_NAMES[subject.split], **figures}}


def identity(subject: Subject) -> dict[str, Any]:
    """What is left of the person."""
    return {"leakage": leakage(subject.faces.single.embedding, *subject.lfw.pairs())}


def variance(subject: Subject) -> dict[str, Any]:
    """How far faces of one FER-2013 label lie from each other."""
    rows = split_rows(subject.data, subject.split)
    figures = spread(subject.rows[subject.split].single.embedding, subject.data.label[rows])
    return {"spread": {"split": SPLIT_NAMES[subject.split], **figures}}


def fidelity(subject: Subject) -> dict[str, Any]:
    """How near the precision comes to float32: cosine of the two embeddings of a face, and how often labels agree."""
    if subject.options.precision == "float32":
        raise DataError("only another precision can be compared with float32; pass --precision int8")
    mine = subject.rows[subject.split].single
    exact = load_network(subject.weights, subject.data)(_images(subject.data, subject.split)[..., None])
    figures = closeness(mine.embedding, exact.embedding)
    if mine.logits is not None and exact.logits is not None:
        figures["same_label"] = round(100 * float((mine.logits.argmax(1) == exact.logits.argmax(1)).mean()), 2)
    return {"fidelity": {"split": SPLIT_NAMES[subject.split], **figures}}


PARTS: dict[str, Callable[[Subject], dict[str, Any]]] = {
    "ferplus": ferplus,
    "public": public,
    "probe": probe,
    "triplets": triplets,
    "transfer": transfer,
    "leakage": identity,
    "spread": variance,
    "cross": cross,
    "disentangle": disentangle,
    "fidelity": fidelity,
}
"""Name of a part -> the function that measures it; its top-level keys join those of the result."""

USUAL = ("ferplus", "probe", "triplets", "transfer", "leakage")
"""The parts that are measured where none is named; of another precision than float32 also "fidelity"."""


def evaluate(
    weights: str,
    data: FerPlus,
    split: Split,
    output: Path | None,
    manifest: Path | None,
    options: EvaluateOptions = EvaluateOptions(),
) -> dict[str, Any]:
    """Measure weights, print the headline figures, and write all of them where asked.

    Args:
        weights: see `networks.load_network`.
        data: FER-2013 with FER+.
        split: choose on "validation", report "test" once.
        output: JSON file of everything measured.
        manifest: manifest whose entry `weights` gets the headline figures.
        options: which parts, how the probe is fitted, where LFW is.

    Returns:
        what the JSON file holds. A part whose data is absent, or that these weights have no head for, is
        {"skipped": reason} under its name.

    Raises:
        OptionError: no part has this name, or these weights have no such precision.
        UnknownWeightsError: no entry of this name, in the package's manifest or in the one to fill.
        DataError: a checkpoint or a manifest that cannot be read.
    """
    # Before minutes of work, not after.
    for name in options.only:
        choice(name, "part", PARTS)
    entry = None if manifest is None else _entry_to_fill(manifest, weights)
    subject = Subject(weights, data, split, options)
    result = {
        "weights": weights if options.precision == "float32" else f"{weights}, {options.precision}",
        "command": _command(weights, split, options),
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": {name: version(name) for name in VERSIONS},
    }
    usual = USUAL if options.precision == "float32" else (*USUAL, "fidelity")
    for name in options.only or usual:
        began = time.monotonic()
        try:
            result |= PARTS[name](subject)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        except DataError as error:
            result[name] = {"skipped": str(error)}
            print(f"{name}: skipped: {error}", file=sys.stderr, flush=True)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    headline = summary(result)
    if manifest is not None and entry is not None:
        metrics = entry.setdefault("metrics", {})
        if options.precision != "float32":
            metrics = metrics.setdefault(options.precision, {})
        for name, figures in headline.items():
            metrics[name] = {**metrics.get(name, {}), **figures}
        update_manifest(manifest, weights, entry)
    print(json.dumps(headline, indent=1))
    return result


def probe_options(items: Sequence[str]) -> ProbeOptions:
    """From "key=value" texts, such as "balanced=true".

    Raises:
        DataError: an unknown key, or a value of the wrong type.
    """
    table = {}
    for item in items:
        key, _, value = item.partition("=")
        try:
            table[key] = json.loads(value)
        except ValueError as error:
            raise DataError(f"--probe {item}: {value!r} is neither true, false nor a number") from error
    return from_table(ProbeOptions, table, "--probe")


def _entry_to_fill(manifest: Path, name: str) -> dict[str, Any]:
    weights = read_manifest(manifest)["weights"]
    if name not in weights:
        raise UnknownWeightsError(f"{manifest} has no entry {name!r} for the figures; known: {', '.join(weights)}")
    entry: dict[str, Any] = weights[name]
    return entry


def _command(weights: str, split: Split, options: EvaluateOptions) -> str:
    """What to type for the same figures; places of files, which change none, are left out."""
    words = ["python -m fevertools.train evaluate", weights, "--split", split]
    if options.only:
        words += ["--only", ",".join(options.only)]
    if options.precision != "float32":
        words += ["--precision", options.precision]
    if options.tta > 1:
        words += ["--tta", str(options.tta)]
    usual = asdict(ProbeOptions())
    for key, value in asdict(options.probe).items():
        if value != usual[key]:
            words += ["--probe", f"{key}={json.dumps(value)}"]
    return " ".join(words)


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """The headline figures, nested numbers for the manifest: {split: {...}, "LFW": {...}}."""
    headline = {split: _without_tables(result[split]) for split in SPLIT_NAMES.values() if split in result}
    for name, shorten in HEADLINES.items():
        if "skipped" not in (figures := result.get(name, {"skipped": "not asked for"})):
            headline.setdefault(figures.get("split", "LFW"), {})[name] = shorten(figures)
    return headline


def _without_tables(figures: dict[str, Any]) -> dict[str, Any]:
    """The FER+ figures without confusion matrices and F1 of classes, which the manifest has no room for."""
    return {
        view: {
            name: {key: value for key, value in protocol.items() if key not in ("confusion", "f1")}
            for name, protocol in protocols.items()
        }
        for view, protocols in figures.items()
    }


HEADLINES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "probe": lambda figures: {
        "accuracy": {
            task: {rows: figures[task][rows]["accuracy"] for rows in ("all", "without earlier twins")}
            for task in ("fer2013", "ferplus8")
        }
    },
    "triplets": lambda figures: {
        "accuracy": {name: figures[name]["all"] for name in ("embedding", "head") if name in figures}
    },
    "transfer": lambda figures: {
        "mean_recall": {
            **{f"zero-shot {name}": found["mean_recall"] for name, found in figures.get("zero_shot", {}).items()},
            **{f"probe {name}": found["mean_recall"] for name, found in figures["probe"].items()},
        }
    },
    "leakage": dict,
    "disentangle": lambda figures: {name: value for name, value in figures.items() if name != "split"},
    "cross": lambda figures: {name: figures[name]["mean_recall"] for name in figures},
    "spread": lambda figures: {name: value for name, value in figures.items() if name != "split"},
    "fidelity": lambda figures: {name: value for name, value in figures.items() if name != "split"},
}
"""Name of a part -> what the manifest says of it."""
