"""`evaluate`: from weights to a JSON file of figures, and into the manifest."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fevertools.encoder import Encoder
from fevertools.errors import UnknownWeightsError
from fevertools.manifest import load_manifest
from fevertools.train.datasets.ferplus import FerPlus, Split
from fevertools.train.evaluate.protocols import Predict, evaluate_ferplus
from fevertools.train.export import load_student, read_manifest, update_manifest
from fevertools.types import Float32
from fevertools.weights import resolve

SPLIT_NAMES: dict[Split, str] = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}


def evaluate(weights: str, data: FerPlus, split: Split, output: Path | None, manifest: Path | None) -> dict[str, Any]:
    """Measure weights, print the figures, and write them where asked.

    Args:
        weights: name of an encoder in the manifest, or a checkpoint file.
        data: FER-2013 with FER+.
        split: choose on "validation", report "test" once.
        output: JSON file of everything measured.
        manifest: manifest whose entry `weights` gets the summary.

    Raises:
        UnknownWeightsError: no entry of this name, in the package's manifest or in the one to fill.
        DataError: a checkpoint or a manifest that cannot be read.
    """
    # Before minutes of work, not after.
    entry = None if manifest is None else _entry_to_fill(manifest, weights)
    predict = checkpoint_predictor(Path(weights)) if weights.endswith(".safetensors") else manifest_predictor(weights)
    figures = evaluate_ferplus(predict, data, split)
    result = {
        "weights": weights,
        "command": f"python -m fevertools.train evaluate {weights} --split {split}",
        "machine": f"{platform.machine()}, {platform.system()}",
        "onnxruntime": version("onnxruntime"),
        SPLIT_NAMES[split]: figures,
    }
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if manifest is not None and entry is not None:
        entry.setdefault("metrics", {})[SPLIT_NAMES[split]] = summary(figures)
        update_manifest(manifest, weights, entry)
    print(json.dumps(summary(figures), indent=1))
    return result


def _entry_to_fill(manifest: Path, name: str) -> dict[str, Any]:
    weights = read_manifest(manifest)["weights"]
    if name not in weights:
        raise UnknownWeightsError(f"{manifest} has no entry {name!r} for the figures; known: {', '.join(weights)}")
    entry: dict[str, Any] = weights[name]
    return entry


def summary(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures without confusion matrices, which the manifest has no room for."""
    return {
        view: {name: {k: v for k, v in protocol.items() if k != "confusion"} for name, protocol in protocols.items()}
        for view, protocols in figures.items()
    }


def manifest_predictor(name: str) -> Predict:
    """The shipped file itself, through the code that serves it."""
    entry = load_manifest().entry(name, "encoder")
    encoder = Encoder(entry, resolve(entry), device="cpu", batch_size=256)

    def predict(crops: npt.NDArray[np.uint8]) -> tuple[Float32, Float32]:
        encoding = encoder.encode(crops)
        return encoding.embeddings, encoding.logits

    return predict


def checkpoint_predictor(path: Path) -> Predict:
    """The averaged network of a checkpoint, in float32."""
    student, _ = load_student(path)

    @torch.no_grad()
    def predict(crops: npt.NDArray[np.uint8]) -> tuple[Float32, Float32]:
        outputs = [student(chunk) for chunk in torch.split(torch.from_numpy(crops), 256)]
        embeddings, logits = (torch.cat([o[i] for o in outputs]).float().numpy() for i in (0, 1))
        return embeddings, logits

    return predict
