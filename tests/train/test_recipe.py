from pathlib import Path

import pytest

from fevertools.errors import DataError
from fevertools.train.recipe import load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_reads(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name.replace("-", "_") == name
    assert recipe.description


def test_overrides_keep_their_types() -> None:
    recipe = load_recipe(
        "ferplus_mobilenet", {"optim.epochs": "3", "optim.learning_rate": "1", "model.start": "random"}
    )
    assert (recipe.optim.epochs, recipe.optim.learning_rate, recipe.model.start) == (3, 1.0, "random")
    assert isinstance(recipe.optim.learning_rate, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing key 'name'"),
        ("name = 3", "name must be str"),
        ("nam = 'x'", "unknown key 'nam'"),
        ("[optim]\nepoch = 3", "unknown key 'epoch'"),
        ("[optim]\nepochs = 2.5", "epochs must be int"),
        ("[optim]\nepochs = true", "epochs must be int"),
        ("optim = 3", "optim must be a table"),
        ("scale = 'huge'", "must be one of 'open', 'paper'"),
        ("name = ", "not valid TOML"),
    ],
)
def test_strictness(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "r.toml"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        load_recipe(str(file))


@pytest.mark.parametrize("key", ["name.x", "optim.epochs.x"])
def test_override_of_what_is_no_table(key: str) -> None:
    with pytest.raises(DataError, match="is not a table"):
        load_recipe("ferplus_mobilenet", {key: "1"})


def test_unknown_names() -> None:
    with pytest.raises(DataError, match="ferplus_mobilenet"):
        load_recipe("nothing_like_this")
    with pytest.raises(DataError, match="no recipe file"):
        load_recipe("nothing.toml")
