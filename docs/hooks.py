"""MkDocs: makes pages of the notebooks in docs/notebooks, and runs them at each build.

A notebook is a Python file with `# %%` cells (jupytext's percent format). Cells with the tag `data` need the data
folder (FEVERTOOLS_DATA, else ../shared/data) and leave their result in the dictionary `figures`. Where it is absent,
they are shown and not run, and `figures` comes from benchmarks/results/notebook-NAME.json, which
`python -m benchmarks.notebooks` writes. Where it is there, figures that differ from that file are a warning.
"""

import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat.v4 import new_code_cell, new_markdown_cell
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 0.01
"""Most by which a figure may differ from its results file: kernels add in another order on another processor."""

_ABSENT = (
    "> The data was not there when this page was built, so the cells above were not run. What follows is drawn from "
    "`{}`, which the same cells wrote."
)
_SHARP = '%config InlineBackend.figure_formats = ["retina"]'
_FOREIGN = re.compile(
    r'<(?:script|img|iframe|source)\b[^>]*\ssrc="(?:https?:)?//[^>]*>'
    r'|<link\b[^>]*\srel="(?:stylesheet|preconnect|preload|icon)"[^>]*\shref="(?:https?:)?//[^>]*>'
)
_log = logging.getLogger("mkdocs.hooks.notebooks")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page, its plots and the notebook itself for each notebook."""
    root = Path(os.environ.get("FEVERTOOLS_DATA", ROOT.parent / "shared" / "data"))
    for path in sorted(Path(config.docs_dir, "notebooks").glob("*.py")):
        for name, content in pages(path, root.is_dir()).items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point links to a notebook, which is a Python file in the repository, to its page."""
    return re.sub(r"\(notebooks/(\w+)\.py\)", r"(notebooks/\1.md)", markdown)


def on_post_page(output: str, *, page: Page, **_: object) -> str:
    """Warn of whatever a browser would fetch from another host."""
    for match in _FOREIGN.finditer(output):
        _log.warning("%s would fetch from another host: %s", page.url, match[0])
    return output


def pages(path: Path, has_data: bool) -> dict[str, str | bytes]:
    """Run one notebook.

    Args:
        path: the Python file.
        has_data: run the cells that need the data folder.

    Returns:
        Name -> content of NAME.md, NAME.ipynb and a PNG file for each plot.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    notebook = jupytext.read(path)
    results = ROOT / "benchmarks" / "results" / f"notebook-{path.stem}.json"
    needing = [place for place, cell in enumerate(notebook.cells) if "data" in cell.metadata.get("tags", ())]
    if needing and has_data:
        notebook.cells.insert(needing[-1] + 1, _hidden("import json; print(json.dumps(figures, default=float))"))
    elif needing:
        for place in needing:
            notebook.cells[place].metadata["tags"] = ["data", "skip-execution"]
        load = f"import json, pathlib; figures = json.loads(pathlib.Path({str(results)!r}).read_text())['figures']"
        note = new_markdown_cell(_ABSENT.format(results.relative_to(ROOT)))
        notebook.cells[needing[-1] + 1 : needing[-1] + 1] = [note, _hidden(load)]
    notebook.cells.insert(0, _hidden(_SHARP))
    _execute(notebook)
    if needing and has_data:
        _compare(json.loads(notebook.cells[needing[-1] + 2].outputs[0].text), results)
    notebook.cells = [cell for cell in notebook.cells if "hidden" not in cell.metadata.get("tags", ())]
    return _exported(notebook, path.stem)


def _execute(notebook: Any) -> None:
    """In a kernel of its own, whose folder is the top of the repository."""
    with tempfile.TemporaryDirectory() as folder:
        # Sockets in a folder of ours: everybody on the machine could listen to TCP.
        channel = {"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}}
        where = {"metadata": {"path": str(ROOT)}}
        NotebookClient(notebook, kernel_name="python3", timeout=600, resources=where, config=Config(channel)).execute()


def _hidden(source: str) -> Any:
    return new_code_cell(source, metadata={"tags": ["hidden"]})


def _compare(figures: Mapping[str, Any], results: Path) -> None:
    """Warn of a results file that says something else; lists, such as places on a map, may differ."""
    known = json.loads(results.read_text("utf-8"))["figures"] if results.is_file() else {}
    for name, value in figures.items():
        if isinstance(value, int | float) and abs(value - known.get(name, float("inf"))) > TOLERANCE:
            _log.warning(
                "%s: %s is %s, but %s has %s; run python -m benchmarks.notebooks",
                results.stem, name, value, results.name, known.get(name),
            )  # fmt: skip


def _exported(notebook: Any, name: str) -> dict[str, str | bytes]:
    body, resources = MarkdownExporter().from_notebook_node(
        notebook, resources={"unique_key": name, "output_files_dir": ""}
    )

    def described(match: re.Match[str]) -> str:
        cell = notebook.cells[int(match["cell"])]
        return f"![{cell.metadata.get('alt', '')}]({match['file']})"

    body = re.sub(rf"!\[png\]\((?P<file>{name}_(?P<cell>\d+)_\d+\.png)\)", described, body)
    source = f"\n\n[This page as a notebook]({name}.ipynb)\n"
    return {f"{name}.md": body + source, f"{name}.ipynb": nbformat.writes(notebook), **resources["outputs"]}
