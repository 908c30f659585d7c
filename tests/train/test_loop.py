"""Short real trainings on made-up data: the loss falls, and a resumed run ends where an undisturbed one does."""

import json
from pathlib import Path

import pytest
import torch

from fevertools.errors import DataError
from fevertools.train import checkpoint
from fevertools.train.__main__ import main
from fevertools.train.loop import schedule, update_average
from fevertools.train.recipe import load_recipe, recipe_names

ON_LABELS = ("classifier", "deepfever-teacher")  # trained on FER+ alone; the others have tests of their own
SMALL = [
    "--set", "model.start=random", "--set", "model.resolution=48", "--set", "optim.batch_size=16",
    "--set", "optim.precision=32-true", "--set", "optim.warmup_epochs=0", "--set", "optim.mixup=0.2",
    "--set", "model.initial=",
]  # fmt: skip


def fit(made_data: Path, output: Path, *extra: str, recipe: str = "ferplus_mobilenet") -> None:
    arguments = [
        "fit",
        recipe,
        "--data",
        str(made_data),
        "--output",
        str(output),
        "--workers",
        "0",
        "--log-every",
        "4",
        *SMALL,
        *extra,
    ]
    assert main(arguments) == 0


def log_of(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("recipe", [n for n in recipe_names() if load_recipe(n).system in ON_LABELS])
def test_every_recipe_learns(made_data: Path, tmp_path: Path, recipe: str) -> None:
    """Four patterns that are told apart at a glance; a constant guess has a cross-entropy of ln 4 = 1.39 at best."""
    learn = ["optim.epochs=12", "optim.ema_decay=0.8", "optim.mixup=0.0", "model.dropout=0.0", "augment.erase=0.0"]
    if recipe.endswith("resnet"):
        learn.append("model.resolution=112")  # its least
    fit(made_data, tmp_path / "run", *(part for option in learn for part in ("--set", option)), recipe=recipe)
    log = log_of(tmp_path / "run")
    losses = [line["loss"] for line in log if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]
    assert log[-1]["validation"]["accuracy"] > 70  # type: ignore[index]


def test_resumed_run_equals_undisturbed_one(made_data: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fit(made_data, whole, "--set", "optim.epochs=2")
    fit(made_data, broken, "--set", "optim.epochs=2", "--max-steps", "7")  # in the middle of an epoch
    fit(made_data, broken, "--set", "optim.epochs=2", "--resume")
    first, second = (checkpoint.read(folder / "checkpoint.safetensors") for folder in (whole, broken))
    assert first[1]["step"] == second[1]["step"] == 18
    for name, tensor in first[0].items():
        torch.testing.assert_close(tensor, second[0][name], rtol=0, atol=0, msg=name)
    steps = [line["step"] for line in log_of(broken)]
    assert steps == sorted(steps)


def test_refusals(made_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    arguments = ["fit", "ferplus_mobilenet", "--data", str(made_data), "--output", str(run), "--workers", "0", *SMALL]
    assert main([*arguments, "--resume"]) == 2
    assert "to resume" in capsys.readouterr().err
    fit(made_data, run, "--max-steps", "1")
    assert main(arguments) == 2
    assert "--resume to go on" in capsys.readouterr().err
    assert main([*arguments, "--resume", "--set", "seed=99"]) == 2
    assert "another recipe" in capsys.readouterr().err
    assert main([*arguments[:-2], "--set", "data.protocol=ferplus7", "--output", str(tmp_path / "o")]) == 2
    assert "ferplus7" in capsys.readouterr().err


def test_checkpoint_refuses_other_files(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"\x80\x04junk")
    with pytest.raises(DataError, match="not a checkpoint"):
        checkpoint.read(file)


def test_schedule() -> None:
    assert [schedule(s, 100, 10) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert schedule(10, 100, 10) == pytest.approx(1)
    assert schedule(55, 100, 10) == pytest.approx(0.5)
    assert schedule(100, 100, 10) == pytest.approx(0)
    assert [schedule(s, 100, 10, floor=0.2) for s in (10, 55, 100)] == pytest.approx([1.0, 0.6, 0.2])


def test_moving_average() -> None:
    network, average = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    with torch.no_grad():
        network.weight.fill_(3)
    network.running_mean.fill_(1.0)  # type: ignore[union-attr]
    network.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    update_average(average, network, 0.75)
    assert average.weight.tolist() == [1.5, 1.5]
    assert average.running_mean.tolist() == [0.25, 0.25]  # type: ignore[union-attr]
    assert average.num_batches_tracked.item() == 7  # type: ignore[union-attr]
