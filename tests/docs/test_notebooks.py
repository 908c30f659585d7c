"""The notebooks of the documentation, as far as they go without the data folder; the build of the site runs all."""

import json
import logging
import struct

import pytest

pytest.importorskip("jupytext", reason="needs the extra `docs`")

from nbclient.exceptions import CellExecutionError

from benchmarks.notebooks import NOTEBOOKS
from tests.docs._load import DOCS, load

hooks = load("hooks")
ALL = sorted(path.stem for path in (DOCS / "notebooks").glob("*.py"))


@pytest.fixture(scope="module", params=ALL)
def made(request):
    return request.param, hooks.pages(DOCS / "notebooks" / f"{request.param}.py", has_data=False)


def test_each_is_a_page_with_plots_that_are_described(made):
    name, files = made
    plots = {file for file in files if file.endswith(".png")}
    assert files.keys() == {f"{name}.md", f"{name}.ipynb", *plots}
    assert plots
    for plot in plots:
        width, height = struct.unpack(">II", files[plot][16:24])
        assert min(width, height) > 200
        assert f"]({plot})" in files[f"{name}.md"]
    assert "![](" not in files[f"{name}.md"]


def test_those_that_need_data_say_what_they_are_drawn_from(made):
    name, files = made
    told = f"benchmarks/results/notebook-{name}.json" in files[f"{name}.md"]
    assert told == (name in NOTEBOOKS)
    cells = json.loads(files[f"{name}.ipynb"])["cells"]
    assert not any("hidden" in cell["metadata"].get("tags", ()) for cell in cells)


def test_nothing_of_this_machine_is_in_a_page(made):
    name, files = made
    for text in (files[f"{name}.md"], files[f"{name}.ipynb"]):
        assert str(DOCS.parent) not in text


def write(tmp_path, *cells):
    path = tmp_path / "made_up.py"
    path.write_text("\n\n".join(cells), "utf-8")
    return path


def test_a_notebook_that_fails_stops_the_build(tmp_path):
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        hooks.pages(write(tmp_path, "# %%\n1 / 0"), has_data=False)


def test_figures_that_differ_from_their_file_are_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    kept = {"same": 0.5, "near": 0.501, "far": 0.7, "map": [1, 2]}
    (results / "notebook-made_up.json").write_text(json.dumps({"figures": kept}), "utf-8")
    source = '# %% tags=["data"]\nfigures = {"same": 0.5, "near": 0.5, "far": 0.5, "new": 1, "map": [3, 4]}'
    with caplog.at_level(logging.WARNING):
        files = hooks.pages(write(tmp_path, source, "# %%\nprint(figures['far'])"), has_data=True)
    assert [record.args[1] for record in caplog.records] == ["far", "new"]
    assert "    0.5" in files["made_up.md"]
    assert "    0.7" in hooks.pages(tmp_path / "made_up.py", has_data=False)["made_up.md"]


def test_links_to_notebooks_lead_to_their_pages():
    text = "[a](notebooks/smile_probe.py) and [b](../docs/hooks.py)"
    assert hooks.on_page_markdown(text) == "[a](notebooks/smile_probe.md) and [b](../docs/hooks.py)"


@pytest.mark.parametrize(
    ("html", "foreign"),
    [
        ('<script src="https://cdn.example/x.js"></script>', True),
        ('<img alt="" src="//example/x.png">', True),
        ('<link rel="stylesheet" href="https://fonts.example/css">', True),
        ('<a href="https://example">a link</a><script src="assets/x.js"></script>', False),
        ('<link rel="canonical" href="https://example">', False),
    ],
)
def test_what_a_page_would_fetch_from_elsewhere_is_a_warning(html, foreign, caplog):
    class Page:
        url = "here/"

    assert hooks.on_post_page(html, page=Page()) == html
    assert bool(caplog.records) == foreign
