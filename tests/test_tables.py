"""The figures in README and docs are those of the results files."""

import json
import shutil

from benchmarks import __main__ as tables
from benchmarks.__main__ import PAGES, ROOT, TABLES, main


def test_tables_are_up_to_date() -> None:
    assert main(["tables", "--check"]) == 0


def test_every_table_is_shown() -> None:
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    for name in TABLES:
        assert f"<!-- begin {name} -->" in text


def test_cards_are_those_of_the_manifest(tmp_path, monkeypatch) -> None:
    for page in (*PAGES, "weights_manifest.json"):
        (tmp_path / page).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    assert main(["tables", "--check"]) == 1
    assert main(["tables"]) == 0
    assert main(["tables", "--check"]) == 0
    manifest = json.loads((tmp_path / "weights_manifest.json").read_text())
    default = manifest["default"]["encoder"]
    manifest["weights"][default]["metrics"]["new"] = {"accuracy": 12.34}
    (tmp_path / "weights_manifest.json").write_text(json.dumps(manifest))
    assert main(["tables", "--check"]) == 1
    assert main(["tables"]) == 0
    assert "| 12.34 |" in (tmp_path / "docs" / "cards" / f"{default}.md").read_text()


def test_agreement_is_that_of_the_default_weights(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)

    def write(files: dict, result: dict) -> str:
        manifest = {"default": {"encoder": "mine"}, "weights": {"mine": {"files": files}, "other": {"files": {}}}}
        (tmp_path / "weights_manifest.json").write_text(json.dumps(manifest))
        (tmp_path / "accuracy-mine.json").write_text(json.dumps(result))
        return tables.agreement()

    assert "`mine`, have no triplet head" in write({"onnx": {}}, {})
    assert "`mine`, have a triplet head" in write({"onnx": {}, "triplet": {}}, {})
    rows = [{"difference": 0.1, "share": 0.625, "n": 12345}, {"difference": 0.5, "share": 1.0, "n": 7}]
    for files, metric in (({"onnx": {}}, "cosine"), ({"onnx": {}, "triplet": {}}, "triplet")):
        lines = write(files, {"agreement": rows}).splitlines()
        assert lines[2:4] == ["| 0.10 | 62.5 | 12,345 |", "| 0.50 | 100.0 | 7 |"]
        assert lines[-1] == f"The default weights, `mine`, metric `{metric}`, PublicTest."
