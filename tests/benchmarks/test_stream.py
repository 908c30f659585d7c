"""The figures of `benchmarks.stream`: overlap and differences by hand, and a table from the results file alone."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import _draft, stream


def found(box, landmarks, embedding, label):
    face = SimpleNamespace(box=np.float32(box), landmarks=np.full((5, 2), landmarks, np.float32))
    expression = SimpleNamespace(label=label)
    return SimpleNamespace(face=face, embedding=np.float32(embedding), expression=expression)


def image(*faces):
    return SimpleNamespace(faces=faces)


def test_overlap_is_intersection_over_union():
    assert _draft.overlap(np.array([0, 0, 10, 10]), np.array([5, 0, 15, 10])) == pytest.approx(1 / 3)
    assert _draft.overlap(np.array([0, 0, 10, 10]), np.array([0, 0, 10, 10])) == 1
    assert _draft.overlap(np.array([0, 0, 10, 10]), np.array([20, 0, 30, 10])) == 0


def test_differences_are_of_the_large_faces():
    exact = [
        image(found([0, 0, 100, 100], 50, [1, 0], "fear"), found([0, 0, 40, 40], 20, [1, 0], "fear")),
        image(found([0, 0, 200, 200], 90, [0, 2], "anger")),
        image(found([0, 0, 200, 200], 90, [0, 2], "anger")),
        image(found([0, 0, 200, 200], 90, [0, 2], "anger")),
    ]
    drafted = [
        image(found([0, 0, 100, 90], 52, [3, 4], "fear"), found([0, 0, 40, 40], 20, [1, 0], "fear")),
        image(found([0, 0, 200, 200], 94, [0, 1], "disgust")),
        image(found([300, 0, 500, 200], 94, [0, 1], "anger")),  # another face
        image(),
    ]
    assert _draft.difference(exact, drafted, 96) == {
        "faces": 4,
        "found": 2,
        "same_label": 1,
        "cosine_median": 0.8,
        "cosine_min": 0.6,
        "landmarks_percent_of_width": 2.0,
    }


def row(what, way, images, threads, digest="a"):
    return {
        "what": what, "way": way, "images": images, "threads": threads, "faces": 2 * images, "seconds": 4.0,
        "images_per_second": images / 4, "cores_busy": 1.9, "outside_percent": 6.4, "peak_mib": 150, "digest": digest,
    }  # fmt: skip


def test_streams_of_the_same_images_must_agree():
    rows = [row("crops", "stream", 100, 1), row("crops", "stream", 100, 2), row("crops", "stream", 10, 2, "b")]
    assert stream.same_bits(rows)
    assert stream.same_bits([*rows, row("crops", "command", 100, 2, None)])
    assert not stream.same_bits([*rows, row("crops", "stream", 100, 4, "c")])


def test_the_plan_has_a_tenth_for_the_memory():
    assert list(stream.plan(10_000, 2000, 2))[:5] == [
        ("crops", "calls", 2000, 2),
        ("crops", "stream", 10_000, 1),
        ("crops", "stream", 10_000, 2),
        ("crops", "stream", 1000, 2),
        ("crops", "command", 10_000, 2),
    ]


def test_the_table_is_made_of_the_file(tmp_path):
    result = {
        "machine": {"processor": "Abacus", "cores": 2},
        "cores_busy_with_other_processes": 0.04,
        "same_bits": True,
        "rows": [row("crops", "stream", 10_000, 2), row("photos", "command", 2000, 2)],
        "draft": [
            {
                "set": "photos, 12 MP",
                "min_face_size": 96,
                "exact": {"median_ms": 300.0},
                "draft": {"median_ms": 100.0},
                "ratio": 3.0,
                "faces": 40,
                "found": 39,
                "same_label": 38,
                "cosine_median": 0.9977,
                "cosine_min": 0.9354,
            }
        ],
    }
    (tmp_path / "stream.json").write_text(json.dumps(result))
    text = stream.table(tmp_path)
    assert "| 10,000 crops | `stream` | 2 | 2500 | 5000 | 1.90 | 6 | 150 |" in text
    assert "| 2,000 photos | `fevertools embed`, CSV | 2 | 500 | 1000 | 1.90 | 6 | 150 |" in text
    assert "| photos, 12 MP | 96 | 300.0 | 100.0 | 3.00 | 39 of 40 | 38 | 0.998 | 0.935 |" in text
    assert "gave the same bits with any number of threads" in text


@pytest.mark.data
def test_a_run_is_a_process_with_its_figures(tmp_path, data_root):
    stream.write_sources(tmp_path, 20, data_root / "photos")
    rows = [stream.measure(stream.Run("crops", "stream", 20, threads, str(tmp_path))) for threads in (1, 2)]
    assert stream.same_bits(rows)
    for row in rows:
        assert row["faces"] == 20
        assert row["images_per_second"] > 1
        assert 0 < row["outside_percent"] < 100
