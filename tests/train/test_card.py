"""Model cards: every fact of the entry is in the card, and parts of `metrics` that nobody foresaw are too."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `train`")

from huggingface_hub import RepoCard

from fevertools.errors import ManifestError
from fevertools.labels import LANDMARKS
from fevertools.manifest import load_manifest, parse_manifest
from fevertools.train.card import GLOSSARY, LIMITS, MISUSES, model_card
from tests._tiny import manifest_value

FILE = {"path": "tiny.onnx", "size": 1234567, "sha256": "0" * 64}
HEAD_FILE = {"path": "tiny-triplet.npy", "size": 2304, "sha256": "1" * 64}


def card(repo_id=None, **changes):
    value = manifest_value(FILE, HEAD_FILE)
    value["weights"]["tiny"] |= changes
    return model_card(parse_manifest(value, Path()).named("tiny"), repo_id)


def rows(text):
    """The rows of all tables, as tuples of cells."""
    lines = (line for line in text.splitlines() if line.startswith("| "))
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def numbers(value):
    """Every number in nested metrics."""
    return [n for item in value.values() for n in (numbers(item) if hasattr(item, "values") else [item])]


def test_the_metadata_is_the_hubs():
    metadata = RepoCard(card()).data.to_dict()
    assert metadata["license"] == "apache-2.0"
    assert metadata["library_name"] == "fevertools"
    assert "onnx" in metadata["tags"]
    other = RepoCard(card(licence="Own: terms")).data.to_dict()
    assert (other["license"], other["license_name"]) == ("other", "Own: terms")


def test_what_the_entry_says_is_in_the_card():
    text = card(
        data=[{"name": "Faces", "terms": "research only", "url": "https://example.org/faces", "use": "triplets"}]
    )
    for fact in ("# tiny", "Tiny student for tests", "uint8 (N, 48, 48, 1)", "`embedding` float32 (N, 16)", "random",
                 "`triplet` float32 (N, 32)", "normalisation: in the graph", "`tiny`"):  # fmt: skip
        assert fact in text
    assert ("[Faces](https://example.org/faces)", "research only", "triplets") in rows(text)
    assert ("onnx", "`tiny.onnx`", "1,234,567", f"`{'0' * 64}`") in rows(text)
    assert ("triplet", "`tiny-triplet.npy`", "2,304", f"`{'1' * 64}`") in rows(text)
    assert (LANDMARKS[0], "0.319", "0.395", "15.3", "19.0") in rows(text)


def test_limits_and_misuses_are_always_told():
    text = card(metrics={})
    assert LIMITS in text
    assert MISUSES in text
    assert "Nothing has been measured yet." in text
    for word in ("gender", "skin tone", "culture", "not what the person feels"):
        assert word in LIMITS
    for word in ("hiring", "education", "Article 5(1)(f)", "policing", "Diagnosis"):
        assert word in MISUSES


@pytest.mark.parametrize("name", [n for n, e in load_manifest().weights.items() if e.kind == "encoder"])
def test_every_figure_of_what_ships_is_in_its_card(name):
    entry = load_manifest().named(name)
    cells = [cell for row in rows(model_card(entry)) for cell in row]
    for number in numbers(entry.metrics):
        assert (f"{number:,}" if isinstance(number, int) else f"{number:.6g}") in cells


def test_parts_nobody_foresaw_become_tables():
    metrics = {
        "temperature": 0.5,
        "LFW": {
            "leakage": {"n": 6000, "auc": 0.6251},
            "transfer": {"mean_recall": {"probe": 41.5}, "options": {"c": 10000.0, "note": "a|b <i>"}},
        },
        "New": {"accuracy": 12.25},
    }
    text = card(metrics=metrics)
    found = rows(text)
    assert ("temperature", "0.5") in found
    assert ("leakage", "6,000", "0.6251") in found
    assert ("transfer, mean_recall", "41.5") in found
    assert ("transfer, options", "10000", "a\\|b &lt;i>") in [tuple(row) for row in found]
    assert ("12.25",) in found
    assert "### New" in text
    assert "- **leakage**:" in text
    assert "- **ferplus8**:" not in text


def test_rows_share_a_table_where_their_figures_do():
    recall = {"neutral": 90.0, "happiness": 95.0}
    text = card(metrics={"Test": {"b": recall | {"contempt": 5.0}, "a": recall, "n": {"accuracy": 1}}})
    table = "|  | neutral | happiness | contempt |\n|---|---|---|---|\n| b | 90 | 95 | 5 |\n| a | 90 | 95 |  |\n"
    assert table in text
    assert "|  | accuracy |\n|---|---|\n| n | 1 |" in text


def test_the_use_names_where_the_weights_are():
    commit = "0123456789abcdef0123456789abcdef01234567"
    hub = {"repo_id": "example/faces", "revision": commit}
    assert re.findall(r"ft\.Analyzer\((.*)\)", card()) == ['"tiny"']
    assert re.findall(r"ft\.Analyzer\((.*)\)", card(hub=hub)) == ['"tiny"', f'"example/faces@{commit}:tiny"']
    # The commit that a card is part of cannot be in it.
    assert re.findall(r"ft\.Analyzer\((.*)\)", card("example/other", hub=hub)) == ['"example/other@COMMIT:tiny"']


def test_detectors_have_no_card():
    with pytest.raises(ManifestError, match="only encoders have cards"):
        model_card(load_manifest().entry(None, "detector"))


def test_the_glossary_explains_what_evaluation_writes():
    names = {"accuracy", "mean_recall", "mean_f1", "ece", "cross_entropy", "kl", "n", "single", "flip"}
    assert names <= GLOSSARY.keys()
    assert json.dumps(dict(GLOSSARY)).isascii()
