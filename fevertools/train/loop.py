"""The training loop. Reads top to bottom: set up, resume, then epochs of steps, each logged as one JSON line."""

import bisect
import copy
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from fevertools.errors import DataError, MissingExtraError
from fevertools.train import checkpoint
from fevertools.train.losses import Losses
from fevertools.train.recipe import OptimOptions, Recipe, from_table


class Method(Protocol):
    """What the loop needs of a training method. The first tensor of a batch holds its images."""

    recipe: Recipe
    network: Any
    learning_rate: float  # of the step at hand; the loop writes it

    @property
    def steps_per_epoch(self) -> int: ...
    def batches(self, epoch: int, start: int, workers: int) -> DataLoader[Any]: ...
    def losses(self, network: nn.Module, batch: Any) -> Losses: ...
    def validate(self, network: Any) -> dict[str, float]: ...


@dataclasses.dataclass(frozen=True, slots=True)
class RunOptions:
    """How a recipe is run, apart from what it computes."""

    output: Path  # folder of checkpoint.safetensors, best.safetensors and log.jsonl
    device: str = "auto"
    workers: int = 1  # processes that prepare batches, for each device
    resume: bool = False
    max_steps: int | None = None  # stop early, with a checkpoint, after this many steps of this call
    log_every: int = 50
    save_every: int = 400
    devices: int = 1  # processes, each with its device; they share the batches of a step
    strategy: str = "auto"  # of Lightning Fabric; "auto" is ddp for several devices
    tensorboard: bool = False  # also write the log for TensorBoard, into `output`/tensorboard


def fit(method: Method, options: RunOptions) -> dict[str, float]:
    """Train, and return the figures of the last validation.

    `checkpoint.safetensors` is where a run goes on; `best.safetensors` holds the moving average that validated best.

    Raises:
        DataError: nothing to resume, a folder that already holds a run, a checkpoint of another recipe, batches that
            cannot be shared evenly, or restarts that do not fit the run.
        MissingExtraError: TensorBoard is asked for and not installed.
    """
    joined = torch.distributed.is_initialized()
    figures = _fit(method, options)
    if torch.distributed.is_initialized() and not joined:
        torch.distributed.barrier()  # one that leaves early takes the connections of the others with it
        torch.distributed.destroy_process_group()
    return figures


def _fit(method: Method, options: RunOptions) -> dict[str, float]:
    recipe, optim = method.recipe, method.recipe.optim
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "checkpoint.safetensors"
    if file.exists() and not options.resume:
        raise DataError(f"{file} exists: pass --resume to go on, or another --output")
    if options.resume and not file.exists():
        raise DataError(f"no {file} to resume")
    fabric = launch(options, optim)
    fabric.to_device(method.network)  # before the optimiser reads its state, which follows the parameters
    average = copy.deepcopy(method.network).requires_grad_(False)
    optimizer: Any = make_optimizer(method.network, optim)
    step, best, plateau = 0, math.inf, Plateau(optim.patience)
    if options.resume:
        state = checkpoint.restore(file, method.network, average, optimizer)
        # Through the reader: a run begun before the recipe had some field goes on with the field's default.
        if from_table(Recipe, state["recipe"], str(file)) != recipe:
            raise DataError(f"{file} is of another recipe; a run goes on only with the recipe it began with")
        step, best = state["step"], state["best"]
        plateau = Plateau(optim.patience, **state.get("plateau", {}))
    network, optimizer = fabric.setup(method.network, optimizer)
    per_epoch = method.steps_per_epoch // optim.accumulate
    if per_epoch == 0:
        raise DataError(f"an epoch has {method.steps_per_epoch} batches, and optim.accumulate is {optim.accumulate}")
    total, began, first, images, figures = optim.epochs * per_epoch, time.monotonic(), step, 0, {}
    rising = itertools.pairwise([0, *optim.restarts, optim.epochs])
    if optim.restarts and (optim.schedule != "cosine" or any(first >= second for first, second in rising)):
        raise DataError(
            f"optim.restarts, {list(optim.restarts)}, must rise between 0 and {optim.epochs} epochs, with a cosine"
        )
    restarts = [epoch * per_epoch for epoch in optim.restarts]
    watched = optim.schedule == "plateau" or optim.stop_after > 0
    log = Log(options.output / "log.jsonl", step, fabric)
    while step < total and not 0 < optim.stop_after <= plateau.stale:
        epoch, offset = divmod(step, per_epoch)
        loader = share(method.batches(epoch, offset * optim.accumulate, options.workers), fabric)
        share_of_step = optim.accumulate // fabric.world_size
        steps = zip(*[iter(loader)] * share_of_step, strict=False)  # the ragged end is dropped
        for batches in itertools.islice(steps, per_epoch - offset):
            network.train()
            warmup, period = int(optim.warmup_epochs * per_epoch), optim.step_epochs * per_epoch
            factor = schedule(step, total, warmup, optim.schedule, period, optim.floor, restarts)
            if optim.schedule == "plateau":
                factor *= plateau.factor
            method.learning_rate = optim.learning_rate * factor
            for group in optimizer.param_groups:
                group["lr"] = optim.learning_rate * group["factor"] * factor
            for number, batch in enumerate(batches, start=1):
                with fabric.no_backward_sync(network, enabled=number < len(batches)):
                    losses = method.losses(network, fabric.to_device(batch))
                    fabric.backward(losses.total / len(batches))
                images += len(batch[0]) * fabric.world_size
            if optim.gradient_clip > 0:
                fabric.clip_gradients(network, optimizer, max_norm=optim.gradient_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if watched:
                plateau.add(float(cast(torch.Tensor, fabric.all_reduce(losses.total.detach()))))
            update_average(average, method.network, min(optim.ema_decay, step / (step + 10)))
            if step % options.log_every == 0 or step == total:
                seconds = time.monotonic() - began
                terms = {name: float(t.detach()) for name, t in losses.terms.items()}
                values = {
                    "epoch": step / per_epoch,
                    "loss": float(losses.total.detach()),  # of the step's last batch
                    **terms,
                    "learning_rate": optim.learning_rate * factor,
                    "images_per_second": images / seconds,
                    "minutes_left": (total - step) / (step - first) * seconds / 60,
                }
                log.write(step, values)
            stop = options.max_steps is not None and step - first >= options.max_steps
            ends_epoch = step % per_epoch == 0
            if ends_epoch or stop:
                figures = fabric.broadcast(method.validate(average) if fabric.is_global_zero else {})
                log.write(step, {"epoch": step / per_epoch, "validation": figures})
                improved, best = figures["cross_entropy"] < best, min(best, figures["cross_entropy"])
            if ends_epoch and watched:
                plateau.end_epoch(-figures["accuracy"] if optim.watch == "accuracy" else None)
                stop = stop or 0 < optim.stop_after <= plateau.stale
            if fabric.is_global_zero and (ends_epoch or stop or step % options.save_every == 0):
                state = {"step": step, "best": best, "recipe": dataclasses.asdict(recipe), "plateau": plateau.state()}
                checkpoint.save(file, method.network, average, optimizer, state)
                if (ends_epoch or stop) and improved:
                    checkpoint.save(options.output / "best.safetensors", method.network, average, optimizer, state)
                if optim.keep_epochs > 0 and ends_epoch and (not restarts or step in {*restarts, total}):
                    checkpoint.keep(options.output, step // per_epoch, optim.keep_epochs, average, state)
            if stop:
                return figures
    return figures


def launch(options: RunOptions, optim: OptimOptions) -> Fabric:
    """Start the processes, or join those that `torchrun` has started."""
    loggers: list[Logger] = []
    if options.tensorboard:
        try:
            loggers = [TensorBoardLogger(options.output, name="", version="tensorboard")]
        except ModuleNotFoundError as error:
            raise MissingExtraError("--tensorboard needs TensorBoard: pip install tensorboard") from error
    fabric = Fabric(
        accelerator=options.device,
        strategy=options.strategy,
        devices=options.devices,
        precision=precision(optim),  # type: ignore[arg-type]
        loggers=loggers,
    )
    fabric.launch()
    torch.backends.cudnn.benchmark = True  # every batch has one size
    if optim.accumulate % fabric.world_size:
        raise DataError(
            f"{fabric.world_size} devices cannot share the {optim.accumulate} batches of a step evenly: pass --set "
            f"optim.accumulate={fabric.world_size}, which makes a step of {fabric.world_size} batches"
        )
    return fabric


def share(loader: DataLoader[Any], fabric: Fabric) -> DataLoader[Any]:
    """The batches of this process: the same ones, every `world_size`-th from its own rank on."""
    if fabric.world_size == 1:
        return loader
    assert loader.batch_sampler is not None
    own = list(loader.batch_sampler)[fabric.global_rank :: fabric.world_size]
    return DataLoader(
        loader.dataset,
        batch_sampler=own,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        generator=loader.generator,
    )


def make_optimizer(network: nn.Module, optim: OptimOptions) -> Optimizer:
    """The optimiser of a recipe."""
    groups = parameter_groups(network, optim)
    if optim.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=optim.learning_rate, momentum=0.9, nesterov=True)
    adam = torch.optim.Adam if optim.optimizer == "adam" else torch.optim.AdamW
    return adam(groups, lr=optim.learning_rate, fused=True)


def schedule(
    step: int,
    total: int,
    warmup: int,
    kind: str = "cosine",
    period: int = 0,
    floor: float = 0.0,
    restarts: Sequence[int] = (),
) -> float:
    """Factor 0-1 of the learning rate at `step`: linear warm-up, then half a cosine down to `floor`.

    After each of the steps in `restarts` the cosine begins anew, at 1 (SGDR, Loshchilov and Hutter 2017, Eq. 5). Kind
    "step" divides the factor by ten after every `period` of all steps; other kinds leave it at 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    if kind == "step":
        return float(10.0 ** -(step // period))
    if kind != "cosine":
        return 1.0
    number = bisect.bisect_right(restarts, step)
    begin, end = [warmup, *restarts][number], [*restarts, total][number]
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - begin) / max(1, end - begin)))


@dataclasses.dataclass(slots=True)
class Plateau:
    """Divides the learning rate by ten whenever a figure stops falling, and tells when it has not fallen for long."""

    patience: int  # epochs without a new least value
    factor: float = 1.0  # of the learning rate
    least: float = math.inf
    waited: int = 0  # epochs since then
    least_ever: float = math.inf
    stale: int = 0  # epochs since then
    sum: float = 0.0  # of the training losses of the epoch at hand
    steps: int = 0

    def add(self, loss: float) -> None:
        """Take the training loss of one step."""
        self.sum, self.steps = self.sum + loss, self.steps + 1

    def end_epoch(self, value: float | None = None) -> None:
        """Judge the epoch by a value that should fall; None is its mean training loss."""
        value = self.sum / self.steps if value is None else value
        self.sum, self.steps = 0.0, 0
        self.least_ever, self.stale = (
            (value, 0) if _lower(value, self.least_ever) else (self.least_ever, self.stale + 1)
        )
        self.least, self.waited = (value, 0) if _lower(value, self.least) else (self.least, self.waited + 1)
        if self.waited >= self.patience:
            # From here on anew: weights of the losses may depend on the learning rate.
            self.factor, self.least, self.waited = self.factor / 10, math.inf, 0

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps; JSON has no infinity."""
        state = dataclasses.asdict(self)
        return {name: value for name, value in state.items() if name != "patience" and value != math.inf}


def _lower(value: float, least: float) -> bool:
    """Whether it fell by more than a thousandth, which is noise."""
    return least == math.inf or value < least - 1e-3 * abs(least)


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
    means, sources = list(average.state_dict().values()), list(network.state_dict().values())
    floating = [mean.is_floating_point() for mean in means]
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    update(list(itertools.compress(means, floating)), list(itertools.compress(sources, floating)), None)
    for mean, source, moves in zip(means, sources, floating, strict=True):
        if not moves:
            mean.copy_(source)


def precision(optim: OptimOptions) -> str:
    """`auto` takes bfloat16 where it is fast: a GPU that has it, or a CPU with AMX tiles or AVX-512 BF16."""
    if optim.precision != "auto":
        return optim.precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    able = torch.cpu.get_capabilities()
    return "bf16-mixed" if able.get("amx_tile") or able.get("avx512_bf16") else "32-true"


class Log:
    """One JSON object a line, by the first process. Lines beyond the step that a run resumes from are dropped."""

    def __init__(self, path: Path, step: int, fabric: Fabric) -> None:
        self.path, self.fabric = path, fabric
        if not fabric.is_global_zero:
            return
        kept = []
        if path.exists() and step > 0:
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append a line and print it; the same to Fabric's loggers."""
        if not self.fabric.is_global_zero:
            return
        figures = values.get("validation", {})
        flat = {name: value for name, value in values.items() if name != "validation"}
        self.fabric.log_dict(flat | {f"validation/{name}": value for name, value in figures.items()}, step)
        line = json.dumps({"step": step, **values})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)
