"""Checkpoints: safetensors and JSON, never pickle. One file holds all that a run needs to go on as if never stopped."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from fevertools.errors import DataError


def save(path: Path, network: nn.Module, average: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Write a checkpoint; a reader sees the old file or the new one, never a part of it.

    Args:
        path: ends in .safetensors.
        network: the weights in training.
        average: their moving average, which is what gets evaluated and exported.
        optimizer: its tensors are stored by parameter index.
        state: JSON values, such as the step and the recipe.
    """
    tensors = {f"network.{name}": t for name, t in network.state_dict().items()}
    tensors |= {f"average.{name}": t for name, t in average.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(v) for name, v in values.items()}
    tensors["random.torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    algorithm, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    tensors["random.numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    state = {**state, "numpy_random": [str(algorithm), int(position), int(has_gauss), float(cached)]}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    contiguous = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    save_file(contiguous, partial, metadata={"fevertools": json.dumps(state)})
    os.replace(partial, path)


def keep(folder: Path, epoch: int, count: int, average: nn.Module, state: dict[str, Any]) -> None:
    """Keep the network after an epoch, `epoch-NNNN.safetensors`, and only those of the last `count` epochs.

    `read` reads it as it reads a checkpoint; no run can go on from it.
    """
    path = folder / f"epoch-{epoch:04d}.safetensors"
    tensors = {f"average.{name}": t.detach().cpu().contiguous().clone() for name, t in average.state_dict().items()}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"fevertools": json.dumps(state)})
    os.replace(partial, path)
    for older in sorted(folder.glob("epoch-*.safetensors"))[:-count]:
        older.unlink()


def restore(path: Path, network: nn.Module, average: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Load a checkpoint into a run, in place, random states too, and return its JSON state.

    Raises:
        DataError: not a checkpoint, or one of another network.
    """
    tensors, state = read(path)
    load_weights(network, tensors, "network.", path)
    load_weights(average, tensors, "average.", path)
    saved: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            saved.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": saved, "param_groups": groups})
    _lay_out(optimizer)
    torch.set_rng_state(tensors["random.torch"])
    if torch.cuda.is_available() and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])
    algorithm, position, has_gauss, cached = state["numpy_random"]
    keys = tensors["random.numpy"].numpy().astype(np.uint32)
    np.random.set_state((algorithm, keys, position, has_gauss, cached))  # noqa: NPY002
    return state


def _lay_out(optimizer: Optimizer) -> None:
    """Give every state tensor the strides of its parameter: PyTorch's fused AdamW takes them to be the same."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors of a checkpoint by name, and its JSON state."""
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})["fevertools"])
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} is not a checkpoint of fevertools: {error!r}") from error


def load_weights(network: nn.Module, tensors: dict[str, Tensor], prefix: str, path: Path) -> None:
    """Load the tensors under `prefix` into a network, strictly."""
    try:
        network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    except RuntimeError as error:
        raise DataError(f"{path} holds another network: {error}") from error
