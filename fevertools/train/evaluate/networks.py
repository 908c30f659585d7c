"""What can be measured: shipped files, checkpoints and untouched starts, all behind one function."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import nn

from fevertools.encoder import Encoder, softmax
from fevertools.errors import DataError, OptionError
from fevertools.train import checkpoint as checkpoints
from fevertools.train.datasets.ferplus import SPLITS, FerPlus
from fevertools.train.export import load_student
from fevertools.train.models import build
from fevertools.train.recipe import ModelOptions, Recipe, from_table
from fevertools.types import Float32, UInt8Image
from fevertools.weights import find, load_head, resolve

BATCH_SIZE = 256
START = "start:"
STARTS = {
    "faceres": ModelOptions("mobilenet_v1", "faceres", resolution=96, dimension=1024),
    "faceres-deep": ModelOptions("mobilenet_v1", "faceres-deep", resolution=96, dimension=1024),
    "face-api": ModelOptions("face_resnet", "face-api", resolution=150, dimension=256),
}
"""The pretrained starts, at the resolutions of the recipes that begin with them; the dimension is of their features."""


def _discriminative(recipe: Recipe) -> nn.Module:
    from fevertools.train.methods.discriminative import make_discriminative

    return make_discriminative(recipe)


def _ed2l(recipe: Recipe) -> nn.Module:
    from fevertools.train.methods.ed2l import make_ed2l

    return make_ed2l(recipe)


def _emoxnet(recipe: Recipe) -> nn.Module:
    from fevertools.train.methods.emoxnet import make_emoxnet

    return make_emoxnet(recipe)


MAKERS: dict[str, Callable[[Recipe], nn.Module]] = {
    "densenet-center": _discriminative,
    "ed2l": _ed2l,
    "emoxnet": _emoxnet,
}
"""Systems whose networks are no students -> the function that makes them."""


class Outputs(NamedTuple):
    """What a network says of N crops; None where it has no such head."""

    embedding: Float32  # (N, D)
    logits: Float32 | None = None  # (N, 8) in the order of `labels.EMOTIONS`, or (N, 7) without contempt
    fer2013: Float32 | None = None  # (N, 7) in the order of `labels.FER2013`
    triplet: Float32 | None = None  # (N, E), any norm
    dispelled: Float32 | None = None  # (N, D) what ED2L's other branch says


Predict: TypeAlias = Callable[[UInt8Image], Outputs]
"""uint8 crops (N, 48, 48, 1) -> what the network says of them."""


def load_network(weights: str, data: FerPlus, precision: str = "float32") -> Predict:
    """The network behind a name.

    Args:
        weights: a checkpoint (it ends in ".safetensors"); a folder of a run that kept its last epochs, which are an
            ensemble; "start:" and the name of a pretrained start; or what `weights.find` takes, such as a name in the
            manifest.
        data: its training images calibrate the batch norms of a start.
        precision: of the arithmetic, a key of `manifest.PRECISIONS`; all but shipped weights have float32 only.

    Raises:
        OptionError: these weights have no such precision.
        DataError: not a checkpoint, no such start, or a folder without kept epochs.
        WeightsError: no such weights, or their files are missing or broken.
    """
    folder = os.sep in weights and Path(weights).is_dir()  # a bare name is one of the manifest
    if not (weights.startswith(START) or folder or weights.endswith(".safetensors")):
        return shipped(weights, precision)
    if precision != "float32":
        raise OptionError(f"{weights} has no {precision} graph; export it, then run quantize, and name the manifest")
    if weights.startswith(START):
        return start(weights.removeprefix(START), data)
    return ensemble(Path(weights)) if folder else checkpoint(Path(weights))


def shipped(weights: str, precision: str = "float32") -> Predict:
    """The shipped file itself, through the code that serves it."""
    entry = find(weights, "encoder")
    encoder = Encoder(entry, resolve(entry), precision=precision, device="cpu")
    head = load_head(entry) if "triplet" in entry.files else None

    def predict(crops: UInt8Image) -> Outputs:
        encoding = encoder.encode(crops)
        triplet = None if head is None else encoding.embeddings @ head[:, :-1].T + head[:, -1]
        return Outputs(encoding.embeddings, encoding.logits, triplet=triplet)

    return predict


def checkpoint(path: Path) -> Predict:
    """The averaged network of a checkpoint, in float32."""
    tensors, state = checkpoints.read(path)
    recipe = from_table(Recipe, state["recipe"], str(path))
    if recipe.system not in MAKERS:
        student, _ = load_student(path)
        return lambda crops: _run(student, crops)
    network = MAKERS[recipe.system](recipe)
    checkpoints.load_weights(network, tensors, "average.", path)
    return lambda crops: _run(network, crops)


def ensemble(folder: Path) -> Predict:
    """The mean probabilities of the networks that a run kept, as logits; embeddings do not average.

    Raises:
        DataError: the run kept none.
    """
    paths = sorted(folder.glob("epoch-*.safetensors"))
    if not paths:
        raise DataError(f"{folder} has no epoch-*.safetensors: fit with optim.keep_epochs, or name a checkpoint")
    members = [checkpoint(path) for path in paths]

    def predict(crops: UInt8Image) -> Outputs:
        outputs = [member(crops) for member in members]
        logits, fer2013 = (
            mean_log_probabilities([getattr(o, name) for o in outputs]) for name in ("logits", "fer2013")
        )
        return Outputs(outputs[-1].embedding, logits, fer2013)

    return predict


def mean_log_probabilities(logits: list[Float32 | None]) -> Float32 | None:
    """Of (N, C) each; None where the members have no such head."""
    found = [softmax(values) for values in logits if values is not None]
    return np.log(np.mean(found, axis=0) + 1e-12).astype(np.float32) if found else None


def start(name: str, data: FerPlus) -> Predict:
    """A face-recognition network before any training on expressions; the embedding is its pooled features.

    Raises:
        DataError: no start has this name, or its files cannot be found.
    """
    if name not in STARTS:
        raise DataError(f"no start named {name!r}; known: {', '.join(START + known for known in STARTS)}")
    rows = np.flatnonzero(data.split == SPLITS["train"])
    student = build(STARTS[name], calibration=torch.from_numpy(data.images[rows[:: max(1, len(rows) // 256)][:256]]))
    # The layers behind the features are random: the embedding is taken before them, and the logits mean nothing.
    student.embed, student.norm = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    return lambda crops: _run(student, crops)._replace(logits=None)


@torch.no_grad()
def _run(network: nn.Module, crops: UInt8Image) -> Outputs:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device).eval()
    batches = [network(chunk.to(device)) for chunk in torch.split(torch.from_numpy(crops), BATCH_SIZE)]

    def joined(name: str) -> Any:
        parts: list[Any] = [getattr(batch, name, None) for batch in batches]
        return None if parts[0] is None else torch.cat(parts).float().cpu().numpy()

    return Outputs(*map(joined, Outputs._fields))
