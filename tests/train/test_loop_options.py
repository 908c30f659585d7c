"""What the loop can do beyond one device and AdamW, on a line fitted to points: every number can be checked."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fevertools.errors import DataError, MissingExtraError
from fevertools.train import checkpoint, loop
from fevertools.train.loop import RunOptions, fit, make_optimizer, schedule, share
from fevertools.train.losses import Losses
from fevertools.train.recipe import OptimOptions, Recipe

OPTIM = OptimOptions(
    optimizer="sgd", schedule="constant", learning_rate=0.1, weight_decay=0.0, batch_size=4, epochs=2,
    warmup_epochs=0.0, ema_decay=0.0, gradient_clip=0.0, precision="32-true",
)  # fmt: skip


class Line:
    """Least squares on 24 points: no batch norm, no dropout, so that how a step is cut into batches cannot matter."""

    def __init__(self, optim: OptimOptions = OPTIM) -> None:
        self.recipe = Recipe("line", "classifier", "open", "made up", optim=optim)
        generator = torch.Generator().manual_seed(0)
        self.points = TensorDataset(torch.randn(24, 3, generator=generator), torch.randn(24, 1, generator=generator))
        torch.manual_seed(1)
        self.network = nn.Linear(3, 1)

    @property
    def steps_per_epoch(self) -> int:
        return 24 // self.recipe.optim.batch_size

    def batches(self, epoch: int, start: int, workers: int) -> DataLoader[Any]:
        order = np.random.default_rng(epoch).permutation(24).reshape(self.steps_per_epoch, -1)
        keys = order[start:].tolist()
        return DataLoader(self.points, batch_sampler=keys, num_workers=workers, generator=torch.Generator())

    def losses(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Losses:
        loss = (network(batch[0]) - batch[1]).square().mean()
        return Losses(loss, {"squared": loss})

    def validate(self, network: Any) -> dict[str, float]:
        x, y = self.points.tensors
        return {"cross_entropy": float((network(x) - y).square().mean().detach())}


def optim(**changes: Any) -> OptimOptions:
    return dataclasses.replace(OPTIM, **changes)


def run(method: Line, output: Path, **options: Any) -> dict[str, Tensor]:
    fit(method, RunOptions(output, "cpu", workers=0, log_every=1, **options))
    return checkpoint.read(output / "checkpoint.safetensors")[0]


def test_sgd_is_nesterovs_by_hand() -> None:
    """Two steps: v = 0.9 v + g, x -= lr (g + 0.9 v)."""
    network = nn.Linear(1, 1, bias=False)
    optimizer = make_optimizer(network, optim(learning_rate=0.5))
    nn.init.constant_(network.weight, 1.0)
    x, v = 1.0, 0.0
    for _ in range(2):
        network.weight.grad = 0.2 * network.weight.detach()
        g = 0.2 * x
        v = 0.9 * v + g
        x -= 0.5 * (g + 0.9 * v)
        optimizer.step()
        assert network.weight.item() == pytest.approx(x)


def test_constant_schedule() -> None:
    assert [schedule(s, 100, 10, "constant") for s in (0, 4, 9, 10, 55, 99)] == pytest.approx([0.1, 0.5, 1, 1, 1, 1])


def test_accumulated_batches_are_one_large_one(tmp_path: Path) -> None:
    whole = run(Line(optim(batch_size=8)), tmp_path / "whole")
    parts = run(Line(optim(batch_size=4, accumulate=2)), tmp_path / "parts")
    for name in ("network.weight", "network.bias"):
        torch.testing.assert_close(parts[name], whole[name])
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert max(steps) == 6  # 2 epochs of 24 / 8
    broken = tmp_path / "broken"
    run(Line(optim(batch_size=4, accumulate=2)), broken, max_steps=4)
    for name, tensor in run(Line(optim(batch_size=4, accumulate=2)), broken, resume=True).items():
        torch.testing.assert_close(tensor, parts[name], rtol=0, atol=0)


def test_the_ragged_end_of_an_epoch_is_dropped(tmp_path: Path) -> None:
    run(Line(optim(batch_size=4, accumulate=4)), tmp_path)  # 6 batches: one step of four an epoch
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["step"] == 2
    with pytest.raises(DataError, match="6 batches"):
        run(Line(optim(accumulate=7)), tmp_path / "none")


def test_clipping(tmp_path: Path) -> None:
    """A step of plain SGD without momentum's history is at most lr x 1.9 x the greatest norm."""
    start = Line().network.weight.detach().clone()
    clipped = run(Line(optim(gradient_clip=1e-3)), tmp_path / "clipped", max_steps=1)
    free = run(Line(), tmp_path / "free", max_steps=1)
    assert 0 < (clipped["network.weight"] - start).norm() <= 0.1 * 1.9 * 1e-3 + 1e-7
    assert (free["network.weight"] - start).norm() > 1e-2


def test_a_run_from_before_a_field_existed_goes_on(tmp_path: Path) -> None:
    whole = run(Line(), tmp_path / "whole")
    run(Line(), tmp_path / "old", max_steps=5)
    path = tmp_path / "old" / "checkpoint.safetensors"
    tensors, state = checkpoint.read(path)
    for name in ("sources", "distill"):
        del state["recipe"][name]
    del state["recipe"]["optim"]["accumulate"]
    save_file(tensors, path, metadata={"fevertools": json.dumps(state)})
    for name, tensor in run(Line(), tmp_path / "old", resume=True).items():
        torch.testing.assert_close(tensor, whole[name], rtol=0, atol=0)
    del state["recipe"]["optim"]["schedule"]  # its default is another than this run's
    save_file(tensors, path, metadata={"fevertools": json.dumps(state)})
    with pytest.raises(DataError, match="another recipe"):
        run(Line(), tmp_path / "old", resume=True)


def test_processes_take_turns() -> None:
    loader = Line().batches(0, 0, 0)
    whole = [x for x, _ in loader]
    parts = [[x for x, _ in share(loader, SimpleNamespace(world_size=2, global_rank=r))] for r in (0, 1)]  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(whole[0::2], parts[0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(whole[1::2], parts[1], strict=True))


def test_batches_that_cannot_be_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "Fabric", lambda **_: SimpleNamespace(world_size=2, launch=lambda: None))
    with pytest.raises(DataError, match=r"optim\.accumulate=2"):
        fit(Line(), RunOptions(tmp_path))


SCRIPT = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, {root!r})
from fevertools.train.loop import RunOptions, fit
from tests.train.test_loop_options import Line, optim
options = RunOptions(Path(sys.argv[1]), "cpu", workers=0, log_every=1, devices=2, resume="--resume" in sys.argv,
                     max_steps=int(sys.argv[2]))
fit(Line(optim(batch_size=4, accumulate=2)), options)
assert not torch.distributed.is_initialized()  # else its threads outlive the interpreter now and then, which aborts
"""


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    """Started by torchrun, stopped and resumed: the weights of one process that takes all batches; only one writes."""
    script, output = tmp_path / "script.py", tmp_path / "two"
    script.write_text(SCRIPT.format(root=str(Path(__file__).parents[2])))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    for extra in (("4",), ("100", "--resume")):
        command = [*torchrun, str(output), *extra]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    one = run(Line(optim(batch_size=4, accumulate=2)), tmp_path / "one")
    two, state = checkpoint.read(output / "checkpoint.safetensors")
    assert state["step"] == 6
    for name in ("network.weight", "network.bias", "average.weight", "optimizer.0.momentum_buffer"):
        torch.testing.assert_close(two[name], one[name])
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4, 5, 6]


def test_tensorboard_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_arguments: object, **_options: object) -> None:
        raise ModuleNotFoundError("Neither `tensorboard` nor `tensorboardX` is available")

    monkeypatch.setattr(loop, "TensorBoardLogger", absent)
    with pytest.raises(MissingExtraError, match="pip install tensorboard"):
        fit(Line(), RunOptions(tmp_path, "cpu", workers=0, tensorboard=True))


def test_tensorboard_gets_the_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="not installed")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    run(Line(), tmp_path, tensorboard=True)
    events = accumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [(line["step"], pytest.approx(line["loss"], rel=1e-5)) for line in log if "loss" in line]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == losses
    assert "validation/cross_entropy" in events.Tags()["scalars"]
