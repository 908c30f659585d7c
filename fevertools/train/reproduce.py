"""`reproduce`: every stage from the data to measured weights, in order, each resumed where it was stopped."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fevertools.train import checkpoint, export
from fevertools.train.datasets.ferplus import FerPlus
from fevertools.train.evaluate.command import EvaluateOptions, evaluate
from fevertools.train.loop import RunOptions, fit
from fevertools.train.methods import build_method
from fevertools.train.methods.distill import unlabeled_faces
from fevertools.train.methods.targets import targets_path, taught_faces, teach
from fevertools.train.recipe import Recipe, load_recipe


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the plan."""

    title: str
    work: float  # relative cost, million pixels through networks; 0 where it takes no more than minutes
    done: Callable[[], bool]
    run: Callable[[], object]


LEARN_FROM_STORED = ("deepfever-student", "emoxnet-lite")
"""Systems whose teachers' outputs are computed before."""

EVALUATED_ONLY: dict[str, tuple[str, ...]] = {
    "densenet-center": ("ferplus", "spread"),
    "ed2l": ("ferplus", "spread"),
    "emoxnet": ("ferplus",),
}
"""Systems whose networks are measured and not shipped -> the parts of the evaluation."""


def reproduce(name: str, data: FerPlus, root: Path, runs: Path, device: str, workers: int) -> None:
    """Print the plan, then run what is left of it.

    Args:
        name: of a recipe, with dashes or underscores, such as "deepfever-s".
        data: FER-2013 with FER+.
        root: data folder, in which LFW is looked for.
        runs: folder of the runs. The exported files and the figures end up in `<runs>/<name>/release`.
        device: accelerator for Lightning Fabric.
        workers: processes that prepare batches.

    Raises:
        DataError: no such recipe, or data that it needs is missing.
    """
    recipe = load_recipe(name.replace("-", "_"))
    stages = list(plan(recipe, data, root, runs, device, workers))
    for number, stage in enumerate(stages, start=1):
        print(f"{number}/{len(stages)} {stage.title}{': done' if stage.done() else ''}")
    spent, worked = 0.0, 0.0
    for number, stage in enumerate(stages, start=1):
        if stage.done():
            continue
        left = sum(s.work for s in stages[number - 1 :] if not s.done())
        hours = f", about {left * spent / worked / 3600:.1f} hours left" if worked > 0 else ""
        print(f"== {number}/{len(stages)} {stage.title}{hours}", flush=True)
        began = time.monotonic()
        stage.run()
        if stage.work > 0:
            spent, worked = spent + time.monotonic() - began, worked + stage.work


def plan(recipe: Recipe, data: FerPlus, root: Path, runs: Path, device: str, workers: int) -> Iterator[Stage]:
    """The stages of a recipe, those of the runs it builds on first."""
    for earlier in requirements(recipe):
        yield _fit_stage(earlier, data, root, runs, device, workers)
    # Only open students learn from stored outputs; those of the paper's recipes run their teachers at every step.
    for teacher in recipe.distill.teachers if recipe.system in LEARN_FROM_STORED else ():
        resolution = load_recipe(teacher.replace("-", "_")).model.resolution
        yield Stage(
            f"outputs of {teacher} for {recipe.distill.views} views of every face",
            recipe.distill.views * len(data.images) * resolution**2 / 3e6,  # a forward pass is a third of a step
            targets_path(recipe, teacher, runs).exists,
            lambda teacher=teacher: teach(  # type: ignore[misc]
                recipe, teacher, taught_faces(recipe, data, unlabeled_faces(recipe, root, runs)), runs
            ),
        )
    yield _fit_stage(recipe, data, root, runs, device, workers)
    release = runs / recipe.name / "release"
    if recipe.system not in EVALUATED_ONLY:
        yield Stage(
            "export", 0, (release / "weights_manifest.json").exists, lambda: _export(recipe, data, runs, release)
        )
    parts = EVALUATED_ONLY.get(recipe.system, ())
    options = EvaluateOptions(parts, root=root, lfw_cache=runs / "lfw")
    evaluated = {"figures.json": runs / recipe.name / "checkpoint.safetensors"}
    if recipe.optim.keep_epochs > 0:
        evaluated["figures-ensemble.json"] = runs / recipe.name
    for name, weights in evaluated.items():
        figures = release / name
        yield Stage(
            f"evaluation on the test split, into {figures}",
            0,
            figures.exists,
            lambda weights=weights, figures=figures: evaluate(  # type: ignore[misc]
                str(weights), data, "test", figures, None, options
            ),
        )


def requirements(recipe: Recipe) -> list[Recipe]:
    """The recipes whose runs this one builds on, each after its own requirements."""
    found: dict[str, Recipe] = {}
    for name in (recipe.model.initial, *recipe.distill.teachers, *recipe.emoxnet.runs):
        if name and name not in found:
            earlier = load_recipe(name.replace("-", "_"))
            found |= {r.name: r for r in (*requirements(earlier), earlier) if r.name not in found}
    return list(found.values())


def _fit_stage(recipe: Recipe, data: FerPlus, root: Path, runs: Path, device: str, workers: int) -> Stage:
    folder = runs / recipe.name
    images = recipe.optim.epochs * len(data.images) * (1 + recipe.distill.unlabeled / recipe.optim.batch_size)

    def run() -> None:
        resume = (folder / "checkpoint.safetensors").exists()
        fit(build_method(recipe, root, runs, data), RunOptions(folder, device, workers, resume))

    return Stage(f"fit {recipe.name}", images * recipe.model.resolution**2 / 1e6, lambda: _finished(folder), run)


def _finished(folder: Path) -> bool:
    """Whether a run has come to its last step, or to an early stop; its log says at which epoch it is."""
    log, file = folder / "log.jsonl", folder / "checkpoint.safetensors"
    if not (log.exists() and file.exists()):
        return False
    _, state = checkpoint.read(file)
    last, optim = json.loads(log.read_text(encoding="utf-8").splitlines()[-1]), state["recipe"]["optim"]
    stopped = 0 < optim.get("stop_after", 0) <= state.get("plateau", {}).get("stale", 0)
    return bool(last["step"] == state["step"] and (stopped or last["epoch"] >= optim["epochs"]))


def _export(recipe: Recipe, data: FerPlus, runs: Path, release: Path) -> None:
    """Files and a manifest of their own, so that `fevertools.Analyzer(<release>/weights_manifest.json)` serves them."""
    release.mkdir(parents=True, exist_ok=True)
    manifest = release / "weights_manifest.json"
    partial = manifest.with_suffix(".partial")
    partial.write_text(json.dumps({"manifest_version": 1, "default": {"encoder": recipe.name}, "weights": {}}))
    export.export(runs / recipe.name / "checkpoint.safetensors", recipe.name, data, release, partial)
    os.replace(partial, manifest)
