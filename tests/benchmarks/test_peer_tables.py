"""Tables of the comparisons with peers: every figure is that of its file, and what could not run is told."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import embedding, end_to_end, peer_accuracy, weight
from fevertools.labels import EMOTIONS_7, FER2013

MACHINE = {"processor": "P", "cores": 2}


def write(folder: Path, name: str, result: dict) -> None:
    (folder / f"{name}.json").write_text(json.dumps(result))


def body(table: str) -> list[list[str]]:
    """Cells of the rows under the header; as many everywhere."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in cells}) == 1
    return cells[2:]


def speeds(contestant: str, batch: int, speed: float, times: dict) -> dict:
    crops = {"median": speed, "min": speed - 10, "max": speed + 10}
    return {
        "threads": 1, "contestant": contestant, "way": "W", "batch": batch, "crops_per_second": crops,
        "p50_ms": 1.25, "p95_ms": 2.0, "times_as_long_as": times,
    }  # fmt: skip


def test_embedding_row() -> None:
    found = embedding.row("x", "W", 8, [[2.0, 4.0, 4.0], [1.0, 2.0, 9.0]])
    assert found["crops_per_second"] == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert found["calls"] == 6
    assert embedding.calls(0.05, 8) == 3
    assert embedding.calls(9.0, 64) == 1
    assert embedding.calls(9.0, 1) == embedding.LATENCIES
    assert embedding.calls(1e-9, 8) == embedding.MOST_CALLS


def test_embedding_table_shows_a_faster_peer(tmp_path: Path) -> None:
    slower = {"float32": {"median": 0.25, "min": 0.2, "max": 0.3}}
    rows = [speeds("float32", batch, 500, {}) for batch in embedding.BATCHES]
    rows += [speeds("fer", batch, 2000 + batch, slower) for batch in embedding.BATCHES]
    result = {"machine": MACHINE, "threads": [1, 2], "rounds": 5, "rows": rows, "missing": {"int8": "no such graph"}}
    write(tmp_path, "embedding", result)
    table = embedding.table(tmp_path)
    ours, fer = body(table)
    assert ours == ["1", "fevertools", "1.2", "2.0", "500", "500", "490 to 510", "", ""]
    assert fer[4:] == ["2,008", "2,064", "2,054 to 2,074", "0.25 (0.2 to 0.3)", ""]
    assert 'Not measured: fevertools, `precision="int8"` (no such graph).' in table


def test_overlaps_are_intersection_over_union() -> None:
    boxes = end_to_end.overlaps([[0, 0, 2, 2], [10, 10, 12, 12]], [[1, 0, 3, 2], [0, 0, 2, 1]])
    np.testing.assert_allclose(boxes, [[1 / 3, 1 / 2], [0, 0]])
    assert end_to_end.overlaps([], [[0, 0, 1, 1]]).shape == (0, 1)


def test_a_box_matches_one_face_only() -> None:
    near = [[0, 0, 10, 10], [0, 1, 10, 11]]
    assert end_to_end.matched(near, near) == 2
    assert end_to_end.matched(near[:1], near) == 1  # one wide box does not count for two faces
    assert end_to_end.matched(near, near[:1]) == 1
    assert end_to_end.matched([[0, 0, 10, 2]], [[0, 0, 10, 10]]) == 0
    assert end_to_end.matched([], near) == end_to_end.matched(near, []) == 0


def test_end_to_end_row_and_table(tmp_path: Path) -> None:
    row = end_to_end.row({"a": [[0.1], [0.2]], "b": [[0.3], [0.2]]}, 2_000_000)
    assert row["passes"] == pytest.approx([0.4, 0.4])
    assert row["images_per_second"]["median"] == 5.0
    assert row["photos_ms"] == {"a": 150.0, "b": 250.0}
    del row["passes"]
    ours = {**row, "faces": {"a": 1, "b": 3}, "faces_of_reference": {"a": 1, "b": 2}, "times_as_long_as": {}}
    against = {"exact": {"median": 3.04, "min": 2.9, "max": 3.2}}
    peer = {**row, "faces": {"a": 1, "b": 2}, "faces_of_reference": {"a": 1, "b": 2}, "times_as_long_as": against}
    result = {
        "machine": MACHINE, "threads": 2, "rounds": 2, "photos": ["a", "b"], "missing": {"fer": "gone"},
        "contestants": {"exact": ours, "facenet": peer},
    }  # fmt: skip
    write(tmp_path, "end_to_end", result)
    table = end_to_end.table(tmp_path)
    assert body(table)[0] == ["fevertools", "5.0", "200", "285", "2", "4", "3 of 3", "", ""]
    assert body(table)[1][5:] == ["3", "3 of 3", "3.0 (2.9 to 3.2)", ""]
    assert "Not measured: `fer`: Haar cascade, 7 probabilities (gone)." in table


def test_weight_table(tmp_path: Path) -> None:
    size = {"version": "1", "packages": 3, "download_bytes": 2_000_000, "installed_bytes": 5_000_000, "left_out": []}
    result = {
        "machine": MACHINE, "rounds": 3, "bare_python": 0.01, "missing": {"deepface imports": "ImportError"},
        "seconds": {"fevertools": {"imports": {"median": 0.2}, "photo": {"median": 0.4}}},
        "sizes": {
            "fevertools": {**size, "wheel_bytes": 8_500_000}, "fer": {**size, "left_out": ["torch", "triton"]},
            "rmn": {**size, "installed_bytes": None},
        },
    }  # fmt: skip
    write(tmp_path, "weight", result)
    table = weight.table(tmp_path)
    rows = {row[0]: row[1:] for row in body(table)}
    assert rows["fevertools"] == ["1", "3", "2", "5", "0.20", "", "0.40"]
    assert rows["fer"][:4] == ["1", "3", "2", "over 5"]
    assert rows["rmn"][:4] == ["1", "3", "2", ""]
    assert rows["facenet-pytorch"] == [""] * 7
    told = ("wheel of fevertools itself has 8.5 MB", "without 2 packages of PyTorch", "`rmn`: not installed",
            "deepface imports: not measured (ImportError)")  # fmt: skip
    assert all(words in table for words in told)


def test_processes_that_end_badly_are_told(tmp_path: Path) -> None:
    made = {
        "a imports": [sys.executable, "-c", "pass"],
        "b imports": [sys.executable, "-c", "import no_such_module"],
        "c imports": [str(tmp_path / "bin" / "python"), "-c", "pass"],
    }
    runs, missing = weight.working(made, str(tmp_path))
    assert list(runs) == ["a imports"]
    assert missing["b imports"] == "ModuleNotFoundError: No module named 'no_such_module'"
    assert "benchmarks.setup_peers" in missing["c imports"]


@pytest.mark.parametrize(
    "words",
    [FER2013, ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral"),
     ("anger", "disgust", "fear", "happy", "neutral", "sadness", "surprised")],
)  # fmt: skip
def test_words_of_peers_have_each_an_emotion(words) -> None:
    assert sorted(map(peer_accuracy.emotion, words)) == sorted(EMOTIONS_7)


def test_unknown_word_is_an_error() -> None:
    with pytest.raises(KeyError):
        peer_accuracy.emotion("contempt")


def test_columns_are_put_in_our_order() -> None:
    words = ("Neutral", "Angry", "Sad", "Happy", "Fear", "surprised", "Disgust")
    own = peer_accuracy.ordered(np.arange(7)[None], words, EMOTIONS_7)
    assert own.tolist() == [[0, 3, 5, 2, 1, 6, 4]]
    assert peer_accuracy.ordered(np.arange(7)[None], words, FER2013).tolist() == [[1, 6, 4, 3, 2, 5, 0]]


def figures(fer2013: float, ferplus7: float) -> dict:
    def protocol(accuracy: float) -> dict:
        return {
            "all": {"accuracy": accuracy, "mean_recall": accuracy - 10},
            "without earlier twins": {"accuracy": accuracy - 1, "mean_recall": 0.0},
        }

    return {"bytes": 1_500_000, "fer2013": protocol(fer2013), "ferplus7": protocol(ferplus7)}


def test_accuracy_table_marks_who_has_seen_the_test(tmp_path: Path) -> None:
    name = json.loads((peer_accuracy.ROOT / "weights_manifest.json").read_text())["default"]["encoder"]
    ours = figures(71, 85)
    own = {"probe": {"fer2013": ours["fer2013"]}, "PrivateTest": {"single": {"ferplus7": ours["ferplus7"]}}}
    write(tmp_path, f"accuracy-{name}", own)
    networks = {"fer": figures(65.78, 63.5), "facemood": figures(89, 60)}
    networks = {key: {**value, "crops_per_second": 1610} for key, value in networks.items()}
    missing = {"rmn": "no weights", "deepface": "no weights", "facex": "gone"}
    write(
        tmp_path, "peer_accuracy", {"machine": MACHINE, "threads": 2, "networks": networks, "missing": missing}
    )  # fmt: skip
    table = peer_accuracy.table(tmp_path)
    first, fer, mood = body(table)
    assert first[0] == "fevertools"
    assert first[2:] == ["", "71.00", "70.00", "85.00", "84.00", "75.00"]
    assert fer == ["`fer`, its default (TFLite)", "1.5", "1,610", "65.78", "64.78", "63.50", "62.50", "53.50"]
    assert mood[0] == "`facemood`, has seen the test faces"
    assert "`facemood` must have" in table
    assert "Not measured: `rmn`, `deepface` (no weights). Not measured: `facex` (gone)." in table
    cell = speeds("float32", 64, 985.4, {})
    write(tmp_path, "embedding", {"rows": [{**cell, "threads": 2}, {**cell, "threads": 1}]})
    assert body(peer_accuracy.table(tmp_path))[0][2] == "985"
