"""Ten folds of a posed set: every fold's training, and what all of them say together."""

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from fevertools.train import checkpoint
from fevertools.train.datasets.posed import FOLDS
from fevertools.train.evaluate.metrics import confusion
from fevertools.train.methods.ed2l_paper import make_network, mean_logits, posed_split
from fevertools.train.recipe import Recipe, from_table


def of_fold(recipe: Recipe, fold: int) -> Recipe:
    """The recipe of one fold."""
    return dataclasses.replace(recipe, posed=dataclasses.replace(recipe.posed, fold=fold))


def folder_of_folds(recipe: Recipe, runs: Path) -> Path:
    """Where the runs `fold-0` to `fold-9` and `folds.json` lie."""
    return runs / recipe.name / recipe.posed.dataset


def folder_of_fold(recipe: Recipe, runs: Path) -> Path:
    """Where the run of one fold lies."""
    return folder_of_folds(recipe, runs) / f"fold-{recipe.posed.fold}"


def write_figures(recipe: Recipe, root: Path, runs: Path) -> dict[str, Any]:
    """Judge every fold by its own last network, and write `folds.json`.

    Args:
        recipe: system "ed2l-paper" with a posed set; all its folds have been run.
        root: data folder.
        runs: folder of the runs.

    Returns:
        what the file holds: {"dataset", "initial", "classes", "folds": [{"n", "accuracy"}], "accuracy": mean over the
        folds, percent, "deviation": standard deviation over them, "accuracy of all faces", "confusion": rows of counts
        over all folds, labels by predictions}.

    Raises:
        DataError: a fold has not been run.
    """
    each, total = [], np.zeros((0, 0), np.int64)
    classes: tuple[str, ...] = ()
    for fold in range(FOLDS):
        matrix, classes = _judge(of_fold(recipe, fold), root, runs)
        total = matrix if total.size == 0 else total + matrix
        each.append({"n": int(matrix.sum()), "accuracy": round(100 * float(matrix.trace() / matrix.sum()), 2)})
    accuracies = [figures["accuracy"] for figures in each]
    result = {
        "dataset": recipe.posed.dataset,
        "initial": recipe.model.initial,
        "classes": classes,
        "folds": each,
        "accuracy": round(statistics.mean(accuracies), 2),
        "deviation": round(statistics.stdev(accuracies), 2),
        "accuracy of all faces": round(100 * float(total.trace() / total.sum()), 2),
        "confusion": total.tolist(),
    }
    path = folder_of_folds(recipe, runs) / "folds.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in result.items() if name not in ("folds", "confusion")}))
    return result


def _judge(recipe: Recipe, root: Path, runs: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Confusion matrix of one fold's people, (C, C) of counts, and the C classes."""
    path = folder_of_fold(recipe, runs) / "checkpoint.safetensors"
    tensors, state = checkpoint.read(path)
    split = posed_split(recipe, root, runs)
    network = make_network(from_table(Recipe, state["recipe"], str(path)))
    checkpoint.load_weights(network, tensors, "average.", path)
    target = np.eye(len(split.classes), dtype=np.float32)[split.judged.label.numpy()]
    return confusion(mean_logits(network, split.judged), target), split.classes
