"""From a checkpoint to what ships: batch norms folded, temperature fitted, weights rounded to float16, in one graph."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS
from fevertools.train import checkpoint
from fevertools.train.datasets.ferplus import LANDMARKS, FerPlus, select
from fevertools.train.evaluate.metrics import fit_temperature
from fevertools.train.methods.classify import heads
from fevertools.train.models import build
from fevertools.train.models.face_resnet import ConvNorm
from fevertools.train.models.mobilenet import ConvUnit
from fevertools.train.models.starts import STARTS
from fevertools.train.models.student import MEAN, STD, Student
from fevertools.train.recipe import Recipe, from_table
from fevertools.types import Float32

OPSET = 18  # ONNX Runtime 1.14 and later
LARGE = 4096  # weights of a matrix that 8-bit storage is worth its scales for


class Served(nn.Module):
    """The graph that ships: uint8 crops (N, H, W, 1) -> embedding (N, D), calibrated logits (N, 8).

    Where the backbone tells its features before pooling, also class activation maps (N, 8, rows, columns), Zhou et al.
    2016, Eq. 2: all behind the pooling is linear, so that what a place adds to a logit is a product with one row.

    Args:
        student: as `release` gives it, its batch norms folded.
    """

    evidence: Tensor

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student
        rows = student.classify.weight @ student.embed.weight / student.temperature
        self.register_buffer("evidence", rows.detach()[:, :, None, None], persistent=False)

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        if not has_maps(self.student):
            output = self.student(crops)
            return output.embedding, output.logits
        features = self.student.backbone.maps(self.student.prepare(crops))  # type: ignore[operator]
        output = self.student.answer(features.mean(dim=(2, 3)))
        return output.embedding, output.logits, F.conv2d(features, self.evidence)


def has_maps(student: Student) -> bool:
    """Whether the backbone tells its features before pooling."""
    return hasattr(student.backbone, "maps")


def load_student(path: Path) -> tuple[Student, Recipe]:
    """The averaged network of a checkpoint, in evaluation mode, and its recipe."""
    tensors, state = checkpoint.read(path)
    recipe = from_table(Recipe, state["recipe"], str(path))
    student = build(recipe.model, heads(recipe))
    checkpoint.load_weights(student, tensors, "average.", path)
    return student.eval(), recipe


@torch.no_grad()
def release(student: Student, data: FerPlus, protocol: str, storage: str = "float16") -> Student:
    """A copy that is ready to serve: folded, calibrated on the validation split, every weight a number of its storage.

    Rounding here, and not in the ONNX file alone, keeps the PyTorch network and the ONNX graph the same function.

    Args:
        student: as trained.
        data: FER-2013 with FER+.
        protocol: whose validation split the temperature is fitted on.
        storage: "float16", or "int8": large matrices as 8-bit integers with a scale for each row, the rest float16.
    """
    student = copy.deepcopy(student).eval().float()
    for module in student.modules():
        if isinstance(module, ConvUnit | ConvNorm):
            module.conv = fuse_conv_bn_eval(module.conv, cast(nn.BatchNorm2d, module.norm))
            module.norm = nn.Identity()
    student.embed = fuse_linear_bn_eval(student.embed, cast(nn.BatchNorm1d, student.norm))
    student.norm = nn.Identity()
    student.classify_fer2013 = student.relate = None  # what only training needs
    validation = select(data, protocol, "validation")
    crops = torch.from_numpy(data.images[validation.rows][:, :, :, None])
    logits = torch.cat([student(chunk).logits for chunk in torch.split(crops, 256)])
    student.temperature.fill_(fit_temperature(logits.numpy(), validation.target))
    for parameter in student.parameters():
        small = parameter.ndim < 2 or parameter.numel() < LARGE
        parameter.copy_(parameter.half().float() if small or storage == "float16" else on_grid(parameter))
    return student


def on_grid(weight: Tensor) -> Tensor:
    """The nearest weights that are a scale of their row times an integer from -127 to 127, which one of them reaches.

    Scales are bfloat16 numbers, so that the integers can be found again without a rounding error.
    """
    rows = weight.flatten(1)
    scale = (rows.abs().amax(dim=1, keepdim=True) / 127).bfloat16().float().clamp_min(1e-30)
    return ((rows / scale).round().clamp(-127, 127) * scale).view_as(weight)


def to_onnx(student: Student, crop: int, path: Path) -> None:
    """Write the graph with float16-stored weights and float32 arithmetic, deterministic bytes.

    Raises:
        DataError: the graph does not hold what the manifest promises.
    """
    example = torch.zeros(2, crop, crop, 1, dtype=torch.uint8)
    program = torch.onnx.export(
        Served(student).eval(), (example,), dynamo=True, opset_version=OPSET, verbose=False, optimize=True,
        input_names=["crops"], output_names=["embedding", "logits", "maps"][: 3 if has_maps(student) else 2],
        dynamic_shapes={"crops": {0: "batch"}},
    )  # fmt: skip
    assert program is not None
    save(program.model_proto, path)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph, changed in place: weights in the smallest type that holds them, nothing of the machine.

    Raises:
        DataError: the graph does not hold what the manifest promises.
    """
    _store_small(model)
    graph = model.graph
    graph.name = path.stem
    del model.metadata_props[:]
    for entry in (*graph.node, *graph.value_info, *graph.input, *graph.output, graph, model):
        del entry.metadata_props[:]  # the exporter's stack traces name files of the machine that exported
        entry.doc_string = ""
    model.producer_name, model.producer_version = "fevertools", ""
    onnx.checker.check_model(model, full_check=True)
    outputs = {o.name: o.type.tensor_type.shape.dim[-1].dim_value for o in model.graph.output}
    if outputs.get("logits") != len(EMOTIONS):
        raise DataError(f"exported graph has outputs {outputs}, expected logits of {len(EMOTIONS)}")
    path.write_bytes(model.SerializeToString(deterministic=True))


def _store_small(model: onnx.ModelProto) -> None:
    """Store large float32 initializers in a smaller type, and what undoes it behind; sessions fold that when they load.

    Only what the type holds exactly: the weights were rounded to it, constants such as the mean were not.
    """
    undone, scales = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < 256:
            continue
        name, half = tensor.name, values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
            undone.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
        elif values.size >= LARGE and (found := _integers(values)) is not None:
            tensor.CopyFrom(numpy_helper.from_array(found[0], f"{name}_int8"))
            scales.append(numpy_helper.from_array(found[1], f"{name}_scale"))
            undone += [
                helper.make_node("Cast", [f"{name}_int8"], [f"{name}_whole"], to=TensorProto.FLOAT),
                helper.make_node("Mul", [f"{name}_whole", f"{name}_scale"], [name]),
            ]
    model.graph.initializer.extend(scales)
    nodes = [*undone, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _integers(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], Float32] | None:
    """The integers and scales of weights `on_grid`, whose rows lie along the first axis, or the last; else None."""
    for axis in (0, values.ndim - 1):
        others = tuple(a for a in range(values.ndim) if a != axis)
        scale = np.maximum(np.abs(values).max(axis=others, keepdims=True) / np.float32(127), np.float32(1e-30))
        whole = np.rint(values / scale)
        if np.array_equal(whole * scale, values):
            return whole.astype(np.int8), scale
    return None


def to_safetensors(student: Student, path: Path) -> None:
    """Write the weights, float16, for those who want to train on from them."""
    tensors = {name: tensor.half().contiguous() for name, tensor in student.named_parameters()}
    save_file(tensors, path, metadata={"temperature": repr(float(student.temperature))})


def to_head(student: Student, path: Path) -> None:
    """Write the triplet head as `weights.load_head` reads it: float32 (E, D + 1), the last column the bias.

    A .npy file has no time in it, so its bytes are deterministic.
    """
    assert student.compare is not None
    with torch.no_grad():
        np.save(path, torch.cat([student.compare.weight, student.compare.bias[:, None]], dim=1).numpy())


def to_files(student: Student, crop: int, folder: Path, name: str) -> dict[str, Path]:
    """Write what ships into a folder: role -> file, as the manifest names the roles."""
    files = {"onnx": folder / f"{name}.onnx"}
    to_onnx(student, crop, files["onnx"])
    if student.compare is not None:
        files["triplet"] = folder / f"{name}-triplet.npy"
        to_head(student, files["triplet"])
    return files


def export(checkpoint_file: Path, name: str, data: FerPlus, folder: Path, manifest: Path) -> Student:
    """From a checkpoint to files in a folder and their entry in a manifest.

    Args:
        checkpoint_file: of a run on FER+.
        name: of the weights in the manifest.
        data: FER-2013 with FER+, on whose validation split the temperature is fitted.
        folder: where the files are written; it may exist.
        manifest: the file that gets the entry.

    Returns:
        The released network.

    Raises:
        DataError: not such a checkpoint, or no manifest.
    """
    read_manifest(manifest)  # before minutes of work, not after
    student, recipe = load_student(checkpoint_file)
    student = release(student, data, recipe.data.protocol, recipe.model.storage)
    folder.mkdir(parents=True, exist_ok=True)
    files = to_files(student, recipe.model.crop, folder, name)
    update_manifest(manifest, name, manifest_entry(student, recipe, files))
    sizes = ", ".join(f"{path} ({path.stat().st_size / 1e6:.2f} MB)" for path in files.values())
    print(f"wrote {sizes}, temperature {float(student.temperature):.3f}")
    return student


def describe_file(path: Path) -> dict[str, Any]:
    """Name, size and sha256 of a file, as the manifest has them."""
    data = path.read_bytes()
    return {"path": path.name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def manifest_entry(student: Student, recipe: Recipe, files: dict[str, Path]) -> dict[str, Any]:
    """The manifest entry of freshly exported `files`, by role; the evaluation command fills its metrics in."""
    triplet = {} if student.compare is None else {"triplet": student.compare.out_features}
    maps = {"maps": len(EMOTIONS)} if has_maps(student) else {}
    origin = STARTS[recipe.model.start].origin if recipe.model.start in STARTS else "random"
    lfw = {"name": "LFW", "terms": "web-scraped images, distributed for research", "use": "unlabeled, deep-funneled"}
    return {
        "kind": "encoder",
        "title": recipe.description,
        "version": "1",
        "files": {role: describe_file(path) for role, path in files.items()},
        "bundled": True,
        "hub": None,
        "input": {
            "name": "crops", "height": recipe.model.crop, "width": recipe.model.crop, "channels": "luminance",
            "layout": "NHWC", "dtype": "uint8", "landmarks": [list(point) for point in LANDMARKS],
            "mean": MEAN, "std": STD, "normalisation": "in the graph",
        },
        "outputs": {"embedding": recipe.model.dimension, "logits": len(EMOTIONS), **triplet, **maps},
        "dimension": recipe.model.dimension,
        "labels": list(EMOTIONS),
        "licence": "Apache-2.0",
        "data": [
            {"name": "FER-2013", "terms": "web-scraped images, distributed for research (Database Contents License)"},
            {"name": "FER+", "terms": "votes of ten crowd-sourced taggers an image, MIT"},
            *([lfw] if recipe.distill.unlabeled > 0 else []),
        ],
        "start": f"{recipe.model.initial}, which began from {origin}" if recipe.model.initial else origin,
        "recipe": recipe.name.replace("-", "_"),
        "metrics": {"temperature": round(float(student.temperature), 4)},
    }  # fmt: skip


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest file as plain JSON, to be changed.

    Raises:
        DataError: there is no such file, or it is not a manifest.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the manifest {path}: {error}; pass --manifest the path of one") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("weights"), dict):
        raise DataError(f"{path} is not a weights manifest; pass --manifest the path of one")
    return manifest


def update_manifest(path: Path, name: str, entry: dict[str, Any]) -> None:
    """Put one entry into a manifest file, leaving the others as they are.

    Raises:
        DataError: there is no such file, or it is not a manifest.
    """
    manifest = read_manifest(path)
    manifest["weights"][name] = entry
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
