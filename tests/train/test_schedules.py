"""The step schedule and the optimisers of the papers: by the loop, in a real run."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from fevertools.train.__main__ import main
from fevertools.train.loop import make_optimizer, schedule
from fevertools.train.recipe import OptimOptions
from tests.train.conftest import fit_by_command

SMALL = {
    "model.start": "random", "model.resolution": "48", "optim.batch_size": "64", "optim.precision": "32-true",
    "optim.warmup_epochs": "0", "optim.epochs": "5", "optim.schedule": "step", "optim.step_epochs": "2",
    "optim.learning_rate": "0.001",
}  # fmt: skip


def test_divided_by_ten_after_every_period() -> None:
    factors = [schedule(step, 30, 0, "step", 10) for step in (0, 9, 10, 19, 20, 29)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert schedule(1, 30, 4, "step", 10) == 0.5  # after the warm-up
    assert schedule(15, 30, 0, "constant", 10) == 1


def test_a_cosine_that_begins_anew() -> None:
    """SGDR, Eq. 5, with cycles of 30 and 60 steps; the first, with its warm-up, is that of a run of 30."""
    factors = [schedule(step, 90, 10, floor=0.2, restarts=[30]) for step in range(90)]
    assert factors[:30] == [schedule(step, 30, 10, floor=0.2) for step in range(30)]
    assert [factors[step] for step in (30, 60)] == pytest.approx([1, 0.6])
    assert factors[30:] == sorted(factors[30:], reverse=True)
    assert factors[89] == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("options", [("[5]", "cosine"), ("[0]", "cosine"), ("[3, 2]", "cosine"), ("[2]", "step")])
def test_restarts_that_do_not_fit(
    made_data: Path, tmp_path: Path, options: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    restarts, kind = options
    values = {**SMALL, "optim.schedule": kind, "optim.restarts": restarts}
    command = ["fit", "omni_open", "--data", str(made_data), "--output", str(tmp_path / "run"), "--workers", "0"]
    assert main([*command, *(word for item in values.items() for word in ("--set", "=".join(item)))]) == 2
    assert "optim.restarts" in capsys.readouterr().err


def test_epochs_of_a_run(made_data: Path, tmp_path: Path) -> None:
    run = fit_by_command("omni_open", made_data, tmp_path / "run", SMALL, "--log-every", "1")
    rates = [
        line["learning_rate"]
        for line in map(json.loads, (run / "log.jsonl").read_text().splitlines())
        if "learning_rate" in line
    ]
    assert rates == pytest.approx([1e-3] * 4 + [1e-4] * 4 + [1e-5] * 2)  # two steps an epoch


def test_decay_of_adam_is_part_of_the_gradient() -> None:
    """One step of Adam without a gradient of the loss: a sign-like step against the weight, whatever its size."""
    layer = nn.Linear(1, 1, bias=False)
    options = OptimOptions(optimizer="adam", learning_rate=1e-4, weight_decay=5e-4)
    for start, expected in ((4.0, 4 - 1e-4), (-2.0, -2 + 1e-4)):
        nn.init.constant_(layer.weight, start)
        optimizer = make_optimizer(layer, options)
        assert type(optimizer) is torch.optim.Adam
        (group,) = optimizer.param_groups
        assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)
        layer.weight.grad = torch.zeros_like(layer.weight)
        optimizer.step()
        assert layer.weight.item() == pytest.approx(expected, abs=1e-6)
    nn.init.constant_(layer.weight, 4.0)
    optimizer = make_optimizer(layer, OptimOptions(learning_rate=1e-4, weight_decay=5e-4))
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    assert layer.weight.item() == pytest.approx(4 * (1 - 5e-8), abs=1e-6)  # AdamW's is not
