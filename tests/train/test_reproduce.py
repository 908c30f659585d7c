"""The plan of `reproduce`: its order, that it goes on where it stopped, and that what it leaves can be served."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import fevertools
from fevertools.train import reproduce as module
from fevertools.train.datasets.ferplus import FerPlus, read_ferplus
from fevertools.train.recipe import Recipe, load_recipe

SMALL = {
    "model.start": "random", "model.resolution": "48", "optim.batch_size": "16", "optim.precision": "32-true",
    "optim.warmup_epochs": "0", "optim.epochs": "1", "distill.views": "1", "distill.unlabeled": "4",
    # The fourth needs frames of 112 pixels.
    "distill.teachers": '["deepfever-s-teacher-256", "deepfever-s-teacher-128", "deepfever-s-teacher-vgg"]',
}  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real recipes, made small, and unlabeled faces without LFW."""
    faces = np.random.default_rng(0).integers(0, 256, (12, 48, 48)).astype(np.uint8)

    def load(name: str) -> Recipe:
        overrides = {k: v for k, v in SMALL.items() if not k.startswith("distill") or name == "deepfever_s"}
        return load_recipe(name, overrides)

    monkeypatch.setattr(module, "load_recipe", load)
    monkeypatch.setattr(module, "unlabeled_faces", lambda recipe, root, runs: faces)
    monkeypatch.setattr("fevertools.train.methods.distill.unlabeled_faces", lambda recipe, root, runs: faces)


def test_requirements_come_in_order() -> None:
    names = [r.name for r in module.requirements(load_recipe("deepfever_s"))]
    teachers = [f"deepfever-s-teacher-{name}" for name in ("256", "128", "vgg", "resnet")]
    assert names == teachers
    assert module.requirements(load_recipe("ferplus_mobilenet")) == []


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_every_stage_once(
    made_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data: FerPlus = read_ferplus(made_data)
    evaluated = []

    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        module.reproduce("deepfever-s", data, made_data, tmp_path, "cpu", 0)
    assert capsys.readouterr().out.count("== ") == 10  # four fits, three teachers' outputs, export, int8, evaluation
    monkeypatch.setattr(module, "evaluate", lambda *arguments: evaluated.append(arguments))
    module.reproduce("deepfever-s", data, made_data, tmp_path, "cpu", 0)
    out = capsys.readouterr().out
    assert out.count(": done") == 9
    assert out.count("== ") == 2
    assert [(arguments[2], arguments[5].precision) for arguments in evaluated] == [
        ("test", "float32"),
        ("test", "int8"),
    ]
    manifest = tmp_path / "deepfever-s" / "release" / "weights_manifest.json"
    assert evaluated[1][0] == str(manifest)
    with fevertools.Analyzer(manifest, precision="int8", device="cpu") as analyzer:
        assert analyzer.embed(data.images[0], cropped=True).shape == (1, 256)
    with fevertools.Analyzer(manifest, device="cpu") as analyzer:
        a, b = (analyzer.embed(image, cropped=True)[0] for image in data.images[:2])
        assert a.shape == (256,)
        assert -1 <= analyzer.similarity(a, b, metric="triplet") <= 1
        assert "LFW" in {d["name"] for d in analyzer.entry.data}


def test_a_run_is_finished_only_at_its_last_step(tmp_path: Path, made_data: Path) -> None:
    from fevertools.train.loop import RunOptions, fit
    from fevertools.train.methods.classify import Classify

    recipe = load_recipe("ferplus_mobilenet", {k: v for k, v in SMALL.items() if not k.startswith("distill")})
    recipe = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, batch_size=64))
    method = Classify(recipe, read_ferplus(made_data))
    assert not module._finished(tmp_path / "run")
    fit(method, RunOptions(tmp_path / "run", "cpu", workers=0, max_steps=1))
    assert not module._finished(tmp_path / "run")
    fit(method, RunOptions(tmp_path / "run", "cpu", workers=0, resume=True))
    assert module._finished(tmp_path / "run")
