"""The training loop. Reads top to bottom: set up, resume, then epochs of steps, each logged as one JSON line."""

import copy
import dataclasses
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import nn

from fevertools.errors import DataError
from fevertools.train import checkpoint
from fevertools.train.losses import Losses
from fevertools.train.recipe import OptimOptions, Recipe


class Method(Protocol):
    """What the loop needs of a training method."""

    recipe: Recipe
    network: Any

    @property
    def steps_per_epoch(self) -> int: ...
    def batches(self, epoch: int, start: int, workers: int) -> Iterable[Any]: ...
    def losses(self, network: nn.Module, batch: Any) -> Losses: ...
    def validate(self, network: Any) -> dict[str, float]: ...


@dataclasses.dataclass(frozen=True, slots=True)
class RunOptions:
    """How a recipe is run, apart from what it computes."""

    output: Path  # folder of checkpoint.safetensors, best.safetensors and log.jsonl
    device: str = "auto"
    workers: int = 1
    resume: bool = False
    max_steps: int | None = None  # stop early, with a checkpoint, after this many steps of this call
    log_every: int = 50
    save_every: int = 400


def fit(method: Method, options: RunOptions) -> dict[str, float]:
    """Train, and return the figures of the last validation.

    `checkpoint.safetensors` is where a run goes on; `best.safetensors` holds the moving average that validated best.

    Raises:
        DataError: nothing to resume, a folder that already holds a run, or a checkpoint of another recipe.
    """
    recipe, optim = method.recipe, method.recipe.optim
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "checkpoint.safetensors"
    if file.exists() and not options.resume:
        raise DataError(f"{file} exists: pass --resume to go on, or another --output")
    if options.resume and not file.exists():
        raise DataError(f"no {file} to resume")
    fabric = Fabric(accelerator=options.device, devices=1, precision=precision(optim))  # type: ignore[arg-type]
    average = copy.deepcopy(method.network).requires_grad_(False)
    optimizer = torch.optim.AdamW(parameter_groups(method.network, optim), lr=optim.learning_rate, fused=True)
    step, best = 0, math.inf
    if options.resume:
        state = checkpoint.restore(file, method.network, average, optimizer)
        if state["recipe"] != dataclasses.asdict(recipe):
            raise DataError(f"{file} is of another recipe; a run goes on only with the recipe it began with")
        step, best = state["step"], state["best"]
    average.to(fabric.device)
    network, optimizer = fabric.setup(method.network, optimizer)
    total, began, first, figures = optim.epochs * method.steps_per_epoch, time.monotonic(), step, {}
    log = Log(options.output / "log.jsonl", step)
    while step < total:
        epoch, offset = divmod(step, method.steps_per_epoch)
        for batch in method.batches(epoch, offset, options.workers):
            network.train()
            factor = schedule(step, total, int(optim.warmup_epochs * method.steps_per_epoch))
            for group in optimizer.param_groups:
                group["lr"] = optim.learning_rate * group["factor"] * factor
            losses = method.losses(network, fabric.to_device(batch))
            fabric.backward(losses.total)
            fabric.clip_gradients(network, optimizer, max_norm=optim.gradient_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            update_average(average, method.network, min(optim.ema_decay, step / (step + 10)))
            if step % options.log_every == 0 or step == total:
                speed = (step - first) / (time.monotonic() - began)
                terms = {name: float(t.detach()) for name, t in losses.terms.items()}
                values = {
                    "epoch": step / method.steps_per_epoch,
                    "loss": float(losses.total.detach()),
                    **terms,
                    "learning_rate": optim.learning_rate * factor,
                    "images_per_second": speed * optim.batch_size,
                    "minutes_left": (total - step) / speed / 60,
                }
                log.write(step, values)
            stop = options.max_steps is not None and step - first >= options.max_steps
            ends_epoch = step % method.steps_per_epoch == 0
            if ends_epoch or stop:
                figures = method.validate(average)
                log.write(step, {"epoch": step / method.steps_per_epoch, "validation": figures})
                improved, best = figures["cross_entropy"] < best, min(best, figures["cross_entropy"])
            if ends_epoch or stop or step % options.save_every == 0:
                state = {"step": step, "best": best, "recipe": dataclasses.asdict(recipe)}
                checkpoint.save(file, method.network, average, optimizer, state)
                if (ends_epoch or stop) and improved:
                    checkpoint.save(options.output / "best.safetensors", method.network, average, optimizer, state)
            if stop:
                return figures
    return figures


def schedule(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then half a cosine down to zero: factor 0-1 of the learning rate at `step`."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def parameter_groups(network: nn.Module, optim: OptimOptions) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only; the backbone's learning rate times `start_factor`."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        groups.setdefault((name.startswith("backbone."), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "factor": optim.start_factor if started else 1.0,
            "weight_decay": optim.weight_decay if decays else 0.0,
        }
        for (started, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Exponential moving average of parameters and of batch-norm statistics; integer buffers are copied."""
    source = network.state_dict()
    for name, mean in average.state_dict().items():
        if mean.is_floating_point():
            mean.lerp_(source[name].to(mean.dtype), 1 - decay)
        else:
            mean.copy_(source[name])


def precision(optim: OptimOptions) -> str:
    """`auto` takes bfloat16 where it is fast: a GPU that has it, or a CPU with AMX tiles."""
    if optim.precision != "auto":
        return optim.precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return "bf16-mixed" if torch.cpu.get_capabilities().get("amx_tile") else "32-true"


class Log:
    """One JSON object a line. Lines beyond the step that a resumed run starts from are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = []
        if path.exists() and step > 0:
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append a line and print it."""
        line = json.dumps({"step": step, **values})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)
