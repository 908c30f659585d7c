"""The stages that `reproduce` has for every system, in their order, and what each of them is given."""

from pathlib import Path

import pytest

from fevertools.errors import DataError
from fevertools.train import omni_stages, reproduce
from fevertools.train.datasets.ferplus import FerPlus, read_ferplus
from fevertools.train.distil_dataset import DistilOptions
from fevertools.train.evaluate.command import PARTS, EvaluateOptions
from fevertools.train.recipe import load_recipe, recipe_names
from fevertools.train.reproduce import EVALUATED, plan
from fevertools.train.stages import Setup, Stage, run_stages


@pytest.fixture
def data(made_data: Path) -> FerPlus:
    return read_ferplus(made_data)


def titles(name: str, setup: Setup) -> list[str]:
    """Titles without the places of files."""
    return [stage.title.partition(", into")[0] for stage in plan(load_recipe(name), setup)]


TUNED = [
    f"fit emoxnet-{name}-{stage}" for name in ("vgg16", "densenet121", "seresnet34") for stage in ("open", "tuned")
]
MEMBERS = [*TUNED, "fit emoxnet-seresnext50-open"]
SAID = "outputs of published:deepfever-s for 38 views"  # once: all members share them
MEASURED = "evaluation on the test split"
PLANS = {
    "deepfever_s": [*(f"fit deepfever-s-teacher-{t}" for t in ("256", "128", "vgg", "resnet")),
                    *(f"outputs of deepfever-s-teacher-{t}" for t in ("256", "128", "vgg", "resnet")),
                    "fit deepfever-s", "export", "int8 graph", MEASURED, MEASURED],
    "omni_open": ["fit omni-open", "export", MEASURED],
    "omni_vas_open": ["fit omni-open", "mine", "fit omni-vas-open", "export", MEASURED],
    "omni_das_open": ["fit omni-open", "mine", "distil", "fit omni-das-open", "export", MEASURED],
    "emoxnet_open": [SAID, *MEMBERS, "fit emoxnet-open", MEASURED, MEASURED],
    "emoxnet_lite": [SAID, *MEMBERS, "fit emoxnet-open", "outputs of emoxnet-open for", "fit emoxnet-lite", "export",
                     MEASURED, MEASURED],
    "densenet_bc_center_open": ["fit densenet-bc-center-open", MEASURED, MEASURED],
    "densenet_bc_soft_open": ["outputs of published:deepfever-s for 10 views", "fit densenet-bc-soft-open", MEASURED,
                              MEASURED],
    "densenet_bc_soft_long_open": ["outputs of published:deepfever-s for 32 views", "fit densenet-bc-soft-long-open",
                                   MEASURED, MEASURED],
    "densenet_bc_soft_cycles_open": ["outputs of published:deepfever-s for 32 views",
                                     "fit densenet-bc-soft-cycles-open", MEASURED, MEASURED],
    "ed2l_open": ["fit ed2l-open", MEASURED],
    "ed2l": ["fit ed2l"],
    "omni_resnet34_das": ["fit omni-resnet34", "mine", "distil", "fit omni-resnet34-das",
                          "evaluation on the test split and on other sets"],
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_stages_in_order(name: str, data: FerPlus, tmp_path: Path) -> None:
    found = titles(name, Setup(data, tmp_path, tmp_path))
    assert len(found) == len(PLANS[name])
    assert all(title.startswith(start) for title, start in zip(found, PLANS[name], strict=True))


@pytest.mark.parametrize("name", [name for name in recipe_names() if not load_recipe(name).posed.dataset])
def test_every_recipe_has_a_plan(name: str, data: FerPlus, tmp_path: Path) -> None:
    found = titles(name, Setup(data, tmp_path, tmp_path))
    assert f"fit {load_recipe(name).name}" in found
    assert len(found) == len(set(found)) or found[-1] == found[-2] == MEASURED


def test_parts_of_the_evaluation_are_known() -> None:
    assert all(part in PARTS for parts in EVALUATED.values() for part in parts)


def test_what_is_measured_and_how(data: FerPlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, EvaluateOptions]] = []
    monkeypatch.setattr(
        reproduce, "evaluate", lambda w, d, split, figures, m, options: asked.append((w, figures.name, options))
    )
    for name in ("emoxnet_open", "densenet_bc_center_open"):
        for stage in plan(load_recipe(name), Setup(data, tmp_path, tmp_path)):
            if stage.title.startswith(MEASURED):
                stage.run()
    checkpoints = [
        str(tmp_path / run / "checkpoint.safetensors") for run in ("emoxnet-open", "densenet-bc-center-open")
    ]
    assert [(w, name, options.only, options.tta) for w, name, options in asked] == [
        (checkpoints[0], "figures.json", ("ferplus",), 1),
        (checkpoints[0], "figures-tta.json", ("ferplus",), 10),
        (checkpoints[1], "figures.json", ("ferplus", "public", "spread"), 1),
        (str(tmp_path / "densenet-bc-center-open"), "figures-ensemble.json", ("ferplus", "public", "spread"), 1),
    ]


def test_mining_and_distilling_are_given_what_the_recipe_says(
    data: FerPlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[object, ...]] = []
    monkeypatch.setattr(omni_stages, "mine_pool", lambda *arguments: called.append(arguments))
    monkeypatch.setattr(omni_stages, "distil_pool", lambda *arguments: called.append(arguments) or {})
    monkeypatch.setattr(omni_stages.omni, "backbone_as_it_begins", lambda *arguments: "backbone")
    recipe = load_recipe("omni_das_open", {"omni.margin": "0.3", "omni.iterations": "7"})
    stages = list(plan(recipe, Setup(data, tmp_path / "data", tmp_path)))
    for stage in stages[1:3]:
        assert not stage.done()
        stage.run()
    learner, mined = str(tmp_path / "omni-open" / "checkpoint.safetensors"), tmp_path / "omni" / "mined.parquet"
    distilled = tmp_path / "omni" / "distilled.safetensors"
    assert called[0] == (learner, data, tmp_path / "data", tmp_path, 0.3, mined, None)
    options = DistilOptions(iterations=7, seed=recipe.seed)
    place = data, tmp_path / "data", tmp_path
    assert called[1] == (mined, "backbone", *place, options, distilled, "validation", "cpu")
    mined.parent.mkdir()
    mined.touch()
    assert stages[1].done()
    assert not stages[2].done()


def test_without_fer2013_a_recipe_that_needs_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no FER-2013"):
        list(plan(load_recipe("ed2l_open"), Setup(None, tmp_path, tmp_path)))


def test_stages_that_are_done_are_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []
    stages = [
        Stage("first", 1, lambda: True, lambda: ran.append("first")),
        Stage("second", 1, lambda: "second" in ran, lambda: ran.append("second")),
        Stage("third", 1, lambda: False, lambda: ran.append("third")),
    ]
    run_stages(stages)
    assert ran == ["second", "third"]
    out = capsys.readouterr().out.splitlines()
    assert out[:3] == ["1/3 first: done", "2/3 second", "3/3 third"]
    assert out[3] == "== 2/3 second"
    assert out[4].startswith("== 3/3 third, about 0.0 hours left")
