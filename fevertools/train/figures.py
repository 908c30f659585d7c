"""Pictures of results: a confusion matrix, and what a training costs. Made from the files that runs leave."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fevertools.errors import DataError, MissingExtraError
from fevertools.labels import EMOTIONS, EMOTIONS_7, FER2013

CLASSES = {"fer2013": FER2013, "ferplus7": EMOTIONS_7, "ferplus8": EMOTIONS, "ferplus8-majority": EMOTIONS}
"""Protocol of an evaluation -> the order of its confusion matrix."""


def pyplot() -> Any:
    """matplotlib's pyplot, drawing into files only.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise MissingExtraError("drawing needs matplotlib: pip install matplotlib") from error
    return plt


def save(figure: Any, output: Path) -> None:
    """Write a figure and forget it; the suffix of the file says of what kind it is."""
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    pyplot().close(figure)


def read_confusion(path: Path, protocol: str) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """A confusion matrix (C, C) and its C classes.

    Args:
        path: JSON that `evaluate` wrote, or `folds.json`.
        protocol: of an evaluation, one of `CLASSES`; folds have one of their own.

    Raises:
        DataError: not such a file, or without that protocol.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if "folds" in result:
            return np.array(result["confusion"], np.int64), tuple(result["classes"])
        split = next(name for name in ("PrivateTest", "PublicTest") if name in result)
        return np.array(result[split]["single"][protocol]["confusion"], np.int64), CLASSES[protocol]
    except (OSError, ValueError, KeyError, StopIteration) as error:
        known = ", ".join(CLASSES)
        raise DataError(f"{path} has no confusion matrix of {protocol!r}: {error!r}; protocols: {known}") from error


def draw_confusion(matrix: npt.NDArray[np.int64], classes: tuple[str, ...], output: Path) -> npt.NDArray[np.float64]:
    """Draw a confusion matrix in percent of each label.

    Args:
        matrix: (C, C) counts, rows are labels, columns predictions.
        classes: C names.
        output: picture file.

    Returns:
        what was drawn: (C, C) percent; a label without faces has a row of zeros.
    """
    plt = pyplot()
    percent = np.asarray(100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1))
    figure, axis = plt.subplots(figsize=(6.4, 5.6), layout="constrained")
    axis.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(percent):
        color = "white" if value > 50 else "black"
        axis.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)
    places = range(len(classes))
    axis.set_xticks(places, classes, rotation=40, ha="right")
    axis.set_yticks(places, classes)
    axis.set(xlabel="predicted", ylabel="label; percent of each row")
    save(figure, output)
    return percent


def read_curve(run: Path) -> dict[str, npt.NDArray[np.float64]]:
    """What a run logged: "loss" (N, 2) of step and training loss, "accuracy" (M, 2) of step and percent on validation.

    Raises:
        DataError: no log in the folder.
    """
    path = run / "log.jsonl"
    if not path.is_file():
        raise DataError(f"no {path}: name folders of runs")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    loss = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    accuracy = [(line["step"], line["validation"]["accuracy"]) for line in lines if "validation" in line]
    return {
        "loss": np.array(loss, np.float64).reshape(-1, 2),
        "accuracy": np.array(accuracy, np.float64).reshape(-1, 2),
    }


def draw_cost(runs: dict[str, Path], output: Path) -> dict[str, dict[str, npt.NDArray[np.float64]]]:
    """Draw training loss and validation accuracy over the steps of several runs: what an addition to the data costs.

    Args:
        runs: title -> folder of a run; runs of one batch size have steps of one cost.
        output: picture file.

    Returns:
        title -> its curves, see `read_curve`.
    """
    plt, curves = pyplot(), {title: read_curve(run) for title, run in runs.items()}
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axis, name, words in zip(axes, ("loss", "accuracy"), ("training loss", "validation accuracy, %"), strict=True):
        for title, curve in curves.items():
            steps, values = curve[name].T
            last = f": {int(steps[-1]):,} steps" if len(steps) else ""
            axis.plot(steps, values, label=title + last, marker="o" if name == "accuracy" else None, markersize=3)
        axis.set(xlabel="steps", ylabel=words)
        axis.grid(alpha=0.3)
    axes[1].legend()
    save(figure, output)
    return curves
