"""How much of the training loop's time goes to anything but the network: reading, augmentation, the optimiser?

Run: `python -m benchmarks.training [--recipe NAME ...] [--steps N] [--rounds N] [--output FILE]`

Three speeds of the same network and batch size, in turn: forward and backward of one batch that is held in memory; the
same with the optimiser and the moving average of the weights; the loop itself, whose batches a process beside it makes.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._common import OtherLoad, data_folder, header, machine, report, versions

if TYPE_CHECKING:  # the table needs no torch
    from torch import nn

    from fevertools.train.loop import Method
    from fevertools.train.losses import Losses

PACKAGES = ("fevertools", "torch", "lightning-fabric", "opencv-python-headless", "numpy")
RECIPES = ("ferplus_mobilenet", "ed2l_baseline_open")
WARM = 8
"""Steps before the clock starts: the loader's first batches, and what torch prepares at first use."""

Speed = Callable[[int], float]
"""From a number of steps to images a second."""


class Clocked:
    """A method that notes when each step of the loop begins, and validates nothing."""

    def __init__(self, method: "Method") -> None:
        self.method = method
        self.began: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def losses(self, network: "nn.Module", batch: Any) -> "Losses":
        self.began.append(time.perf_counter())
        return self.method.losses(network, batch)

    def validate(self, network: "nn.Module") -> dict[str, float]:
        return {"cross_entropy": 0.0, "accuracy": 0.0}


def loop_speed(method: "Method") -> Speed:
    """The loop with one process that prepares batches, which is its default."""
    from fevertools.train.loop import RunOptions, fit

    def speed(steps: int) -> float:
        clocked: Any = Clocked(method)
        with tempfile.TemporaryDirectory() as folder:
            fit(clocked, RunOptions(Path(folder), max_steps=WARM + steps + 1))
        began = clocked.began[WARM:]
        return (len(began) - 1) * method.recipe.optim.batch_size / (began[-1] - began[0])

    return speed


def bare_speeds(method: "Method") -> tuple[Speed, Speed]:
    """Forward and backward of one batch that is held in memory; and that with the rest of the loop's step."""
    from fevertools.train.loop import RunOptions, launch, make_optimizer, update_average

    optim = method.recipe.optim
    fabric = launch(RunOptions(Path()), optim)
    plain = copy.deepcopy(method.network)
    average = copy.deepcopy(plain).requires_grad_(False)
    network, optimizer = fabric.setup(plain, make_optimizer(plain, optim))
    batch = fabric.to_device(next(iter(method.batches(0, 0, 0))))

    def passes() -> None:
        network.train()
        fabric.backward(method.losses(network, batch).total)
        optimizer.zero_grad(set_to_none=True)

    def step() -> None:
        network.train()
        fabric.backward(method.losses(network, batch).total)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update_average(average, plain, 0.99)

    def timed(run: Callable[[], None]) -> Speed:
        def speed(steps: int) -> float:
            run()
            start = time.perf_counter()
            for _ in range(steps):
                run()
            return steps * optim.batch_size / (time.perf_counter() - start)

        return speed

    return timed(passes), timed(step)


def measure(name: str, steps: int, rounds: int) -> dict[str, Any]:
    """Speeds of one recipe, in turn."""
    from fevertools.train.methods import build_method
    from fevertools.train.recipe import load_recipe

    recipe = load_recipe(name, {"model.start": "random"})  # speed does not depend on the weights
    method = build_method(recipe, data_folder(""), Path("runs"))
    passes, step = bare_speeds(method)
    contestants = {"forward and backward": passes, "step": step, "loop": loop_speed(method)}
    found: dict[str, list[float]] = {kind: [] for kind in contestants}
    for _ in range(rounds):
        for kind, speed in contestants.items():
            found[kind].append(speed(steps))
    median = {kind: round(statistics.median(values), 1) for kind, values in found.items()}
    return {
        "batch": recipe.optim.batch_size,
        "images_per_second": median,
        "spread": {kind: [round(min(values), 1), round(max(values), 1)] for kind, values in found.items()},
        "data_path_share": round(1 - median["loop"] / median["step"], 4),
        "share_beside_forward_and_backward": round(1 - median["loop"] / median["forward and backward"], 4),
    }


def table(results: Path) -> str:
    """Images a second of each recipe, and what the loop loses."""
    result = json.loads((results / "training.json").read_text())
    rows = header(
        "recipe", "forward + backward", "+ optimiser and average", "the loop", "data path costs %", "all costs %"
    )
    for name, found in result["recipes"].items():
        speeds = " | ".join(f"{value:.0f}" for value in found["images_per_second"].values())
        shares = (found["data_path_share"], found["share_beside_forward_and_backward"])
        rows.append(f"| {name} | {speeds} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |")
    return (
        "\n".join(rows) + f"\n\nImages a second on {result['machine']['processor']}, {result['threads']} threads, "
        f"medians of {result['rounds']} rounds of {result['steps']} steps in turn."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time the training loop against its network alone.")
    parser.add_argument("--recipe", nargs="+", default=list(RECIPES), help="recipes to time")
    parser.add_argument("--steps", type=int, default=20, help="steps of each in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="also write the JSON object here")
    options = parser.parse_args(arguments)
    import torch

    with OtherLoad() as others:
        recipes = {name: measure(name, options.steps, options.rounds) for name in options.recipe}
    result = {
        "benchmark": "training",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "threads": torch.get_num_threads(),
        "steps": options.steps,
        "rounds": options.rounds,
        "cores_busy_with_other_processes": others.cores,
        "recipes": recipes,
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
