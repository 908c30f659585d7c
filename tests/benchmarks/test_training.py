"""What is timed is the loop itself, beside the same network without it."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import training
from fevertools.train.methods import build_method
from fevertools.train.recipe import load_recipe
from tests.train.conftest import made_data  # noqa: F401 - a fixture

SMALL = {"model.start": "random", "optim.batch_size": "8", "optim.precision": "32-true"}


def test_speeds_of_a_small_network(made_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(training, "WARM", 1)
    method = build_method(load_recipe("ed2l_baseline_open", SMALL), made_data, Path("runs"))
    before = {name: tensor.clone() for name, tensor in method.network.state_dict().items()}
    passes, step = training.bare_speeds(method)
    assert passes(1) > 0
    assert step(1) > 0
    # The bare network is a copy: the loop that is timed after it begins where the recipe begins.
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.network.state_dict().items())
    assert training.loop_speed(method)(2) > 0
    assert not all(torch.equal(tensor, before[name]) for name, tensor in method.network.state_dict().items())


def test_table(tmp_path: Path) -> None:
    found = {
        "images_per_second": {"forward and backward": 200.0, "step": 190.0, "loop": 180.5},
        "data_path_share": 0.05,
        "share_beside_forward_and_backward": 0.0975,
    }
    result = {"recipes": {"r": found}, "machine": {"processor": "C"}, "threads": 2, "rounds": 3, "steps": 20}
    (tmp_path / "training.json").write_text(json.dumps(result))
    assert "| r | 200 | 190 | 180 | 5.0 | 9.8 |" in training.table(tmp_path)
