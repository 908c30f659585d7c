"""`reproduce`: every stage from the data to measured weights, in order, each resumed where it was stopped."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fevertools.train import checkpoint, export
from fevertools.train.datasets.ferplus import SIZE, FerPlus
from fevertools.train.datasets.patches import PATCHES
from fevertools.train.datasets.posed import FOLDS
from fevertools.train.evaluate.command import EvaluateOptions, evaluate
from fevertools.train.folds import folder_of_fold, folder_of_folds, of_fold, write_figures
from fevertools.train.loop import RunOptions, fit
from fevertools.train.methods import build_method
from fevertools.train.methods.distill import unlabeled_faces
from fevertools.train.methods.ed2l_paper import read_posed
from fevertools.train.methods.targets import PUBLISHED, targets_path, taught_faces, teach
from fevertools.train.omni_stages import needed, omni_stages, photo_figures_stage
from fevertools.train.quantize import quantize
from fevertools.train.recipe import Recipe, load_recipe
from fevertools.train.stages import Setup, Stage, run_stages

LEARN_FROM_STORED = ("deepfever-student", "densenet-center", "emoxnet", "emoxnet-lite")
"""Systems whose teachers' outputs are computed before."""

NOT_SHIPPED = ("densenet-center", "ed2l", "emoxnet")
"""Systems whose networks are measured and not exported."""

FITTED_ONLY = ("deepfever-paper-teacher", "deepfever-paper-student", "ed2l-paper")
"""Systems that end with their training: the figures of their validation, in the log, are those of the papers."""

QUANTISED = ("deepfever-student",)
"""Systems whose networks get an int8 graph as well."""

EVALUATED: dict[str, tuple[str, ...]] = {
    "densenet-center": ("ferplus", "public", "spread"),
    "ed2l": ("ferplus", "spread", "disentangle"),
    "emoxnet": ("ferplus",),
    "omni": ("ferplus", "cross"),
}
"""System -> the parts of its evaluation; the usual ones where none are named."""

TTA_STEPS = {"emoxnet": 10, "emoxnet-lite": 10}
"""Systems that are also measured with test-time augmentation."""


def reproduce(name: str, data: FerPlus | None, root: Path, runs: Path, device: str, workers: int) -> None:
    """Print the plan, then run what is left of it.

    Args:
        name: of a recipe, with dashes or underscores, such as "deepfever-s".
        data: FER-2013 with FER+; None where no stage learns from it or is measured on it.
        root: data folder, in which other sets are looked for.
        runs: folder of the runs. The exported files and the figures end up in `<runs>/<name>/release`.
        device: accelerator for Lightning Fabric.
        workers: processes that prepare batches.

    Raises:
        DataError: no such recipe, or data that it needs is missing.
    """
    setup = Setup(data, root, runs, device, workers)
    run_stages(list(plan(load_recipe(name.replace("-", "_")), setup)))


def plan(recipe: Recipe, setup: Setup) -> Iterator[Stage]:
    """The stages of a recipe, those of the runs it builds on first."""
    stored: set[Path] = set()
    for earlier in requirements(recipe):
        yield from _teacher_stages(earlier, setup, stored)
        yield _fit_stage(earlier, setup)
    yield from _teacher_stages(recipe, setup, stored)
    yield from omni_stages(recipe, setup)
    if recipe.posed.dataset:
        yield from _fold_stages(recipe, setup)
        return
    yield _fit_stage(recipe, setup)
    if recipe.system == "omni-paper":
        yield photo_figures_stage(recipe, setup)
    elif recipe.system not in FITTED_ONLY:
        yield from _release_stages(recipe, setup)


def _teacher_stages(recipe: Recipe, setup: Setup, stored: set[Path]) -> Iterator[Stage]:
    """What teachers say, computed before; files that are `stored` by an earlier stage are not made again."""
    # Only open students learn from stored outputs; those of the paper's recipes run their teachers at every step.
    if recipe.system not in LEARN_FROM_STORED or not recipe.distill.teachers:
        return
    data, runs = needed(setup), setup.runs
    for teacher in recipe.distill.teachers:
        path = targets_path(recipe, teacher, runs)
        if path in stored:
            continue
        stored.add(path)
        published = teacher.startswith(PUBLISHED)
        resolution = SIZE if published else load_recipe(teacher.replace("-", "_")).model.resolution

        def run(teacher: str = teacher) -> None:
            faces = taught_faces(recipe, data, unlabeled_faces(recipe, setup.root, runs))
            teach(recipe, teacher, faces, runs, setup.device, setup.workers)

        yield Stage(
            f"outputs of {teacher} for {recipe.distill.views} views of every face",
            recipe.distill.views * len(data.images) * resolution**2 / 3e6,  # a forward pass is a third of a step
            path.exists,
            run,
        )


def _fold_stages(recipe: Recipe, setup: Setup) -> Iterator[Stage]:
    """Ten folds of a posed set, and what they say together."""
    photographs = len(read_posed(recipe, setup.root))
    for own in (of_fold(recipe, fold) for fold in range(FOLDS)):
        title = f"fit fold {own.posed.fold} of {recipe.posed.dataset}"
        yield _fit_stage(own, setup, folder_of_fold(own, setup.runs), title, photographs)
    figures = folder_of_folds(recipe, setup.runs) / "folds.json"
    yield Stage(
        f"figures of all folds, into {figures}",
        0,
        figures.exists,
        lambda: write_figures(recipe, setup.root, setup.runs),
    )


def _release_stages(recipe: Recipe, setup: Setup) -> Iterator[Stage]:
    """Files that can be served, and figures on the test split."""
    data, runs = needed(setup), setup.runs
    release = runs / recipe.name / "release"
    manifest = release / "weights_manifest.json"
    if recipe.system not in NOT_SHIPPED:
        yield Stage("export", 0, manifest.exists, lambda: _export(recipe, data, runs, release))
    if recipe.system in QUANTISED:
        yield Stage(
            "int8 graph", 0, lambda: _quantised(recipe.name, manifest), lambda: quantize(recipe.name, data, manifest)
        )
    options = EvaluateOptions(EVALUATED.get(recipe.system, ()), root=setup.root, lfw_cache=runs / "lfw")
    last = runs / recipe.name / "checkpoint.safetensors"
    evaluated = {"figures.json": (last, options)}
    if recipe.optim.keep_epochs > 0:
        evaluated["figures-ensemble.json"] = (runs / recipe.name, options)
    if recipe.system in TTA_STEPS:
        evaluated["figures-tta.json"] = (last, replace(options, only=("ferplus",), tta=TTA_STEPS[recipe.system]))
    if recipe.system in QUANTISED:
        evaluated["figures-int8.json"] = (manifest, replace(options, precision="int8"))
    for name, (weights, asked) in evaluated.items():
        figures = release / name

        def run(weights: Path = weights, figures: Path = figures, asked: EvaluateOptions = asked) -> None:
            evaluate(str(weights), data, "test", figures, None, asked)

        yield Stage(f"evaluation on the test split, into {figures}", 0, figures.exists, run)


def requirements(recipe: Recipe) -> list[Recipe]:
    """The recipes whose runs this one builds on, each after its own requirements."""
    found: dict[str, Recipe] = {}
    learner = recipe.omni.learner if recipe.omni.mined or recipe.omni.distilled else ""
    teachers = [name for name in recipe.distill.teachers if not name.startswith(PUBLISHED)]
    for name in (recipe.model.initial, *teachers, *recipe.emoxnet.runs, learner):
        if name and name not in found:
            earlier = load_recipe(name.replace("-", "_"))
            found |= {r.name: r for r in (*requirements(earlier), earlier) if r.name not in found}
    return list(found.values())


def _fit_stage(
    recipe: Recipe, setup: Setup, folder: Path | None = None, title: str | None = None, faces: int | None = None
) -> Stage:
    """The training of a recipe.

    Args:
        folder: of the run; None is that of the recipe's name.
        title: None is the recipe's name.
        faces: in an epoch; None is as many as FER-2013 has.
    """
    place = setup.runs / recipe.name if folder is None else folder
    faces = (0 if setup.data is None else len(setup.data.images)) if faces is None else faces
    views = PATCHES if recipe.system == "ed2l-paper" else 1 + recipe.distill.unlabeled / recipe.optim.batch_size
    work = recipe.optim.epochs * faces * views * recipe.model.resolution**2 / 1e6

    def run() -> None:
        resume = (place / "checkpoint.safetensors").exists()
        method = build_method(recipe, setup.root, setup.runs, setup.data)
        fit(method, RunOptions(place, setup.device, setup.workers, resume))

    return Stage(f"fit {recipe.name}" if title is None else title, work, lambda: _finished(place), run)


def _finished(folder: Path) -> bool:
    """Whether a run has come to its last step, or to an early stop; its log says at which epoch it is."""
    log, file = folder / "log.jsonl", folder / "checkpoint.safetensors"
    if not (log.exists() and file.exists()):
        return False
    _, state = checkpoint.read(file)
    last, optim = json.loads(log.read_text(encoding="utf-8").splitlines()[-1]), state["recipe"]["optim"]
    stopped = 0 < optim.get("stop_after", 0) <= state.get("plateau", {}).get("stale", 0)
    return bool(last["step"] == state["step"] and (stopped or last["epoch"] >= optim["epochs"]))


def _quantised(name: str, manifest: Path) -> bool:
    return manifest.exists() and "int8" in export.read_manifest(manifest)["weights"][name]["files"]


def _export(recipe: Recipe, data: FerPlus, runs: Path, release: Path) -> None:
    """Files and a manifest of their own, so that `fevertools.Analyzer(<release>/weights_manifest.json)` serves them."""
    release.mkdir(parents=True, exist_ok=True)
    manifest = release / "weights_manifest.json"
    partial = manifest.with_suffix(".partial")
    partial.write_text(json.dumps({"manifest_version": 1, "default": {"encoder": recipe.name}, "weights": {}}))
    export.export(runs / recipe.name / "checkpoint.safetensors", recipe.name, data, release, partial)
    os.replace(partial, manifest)
