"""Tables of the open runs: every figure is that of its file, and a file that is not there leaves a dash."""

import json
from pathlib import Path

import pytest

from benchmarks import systems

TABLES = (systems.emoxnet, systems.emoxnet_f1, systems.densenet, systems.omni, systems.ed2l)


def write(folder: Path, name: str, result: dict) -> None:
    (folder / f"{name}.json").write_text(json.dumps(result))


def ferplus7(accuracy: float, f1: float) -> dict:
    by_class = dict.fromkeys(systems.PAPER_F1, f1)
    return {"PrivateTest": {"single": {"ferplus7": {"all": {"accuracy": accuracy, "mean_f1": f1}, "f1": by_class}}}}


@pytest.mark.parametrize("table", TABLES)
def test_nothing_measured_is_dashes(table, tmp_path: Path) -> None:
    lines = table(tmp_path).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) >= 4
    assert all("| -" in row for row in rows[2:])
    assert {row.count("|") for row in rows} == {rows[0].count("|")}  # as many cells everywhere


def test_emoxnet(tmp_path: Path) -> None:
    write(tmp_path, "system-emoxnet-vgg16", ferplus7(81.5, 61.25))
    write(tmp_path, "system-emoxnet-vgg16-tta", ferplus7(82.25, 62))
    write(tmp_path, "system-emoxnet-vgg16-votes", ferplus7(80.5, 60))
    write(tmp_path, "accuracy-emoxnetlite", ferplus7(84, 66))
    rows = systems.emoxnet(tmp_path).splitlines()
    assert rows[2] == "| VGG-16 | 81.50 | 82.25 | 61.25 | 62.00 | 80.50 | 79.68 | 77.38 |"
    assert rows[6] == "| EmoXNet, the four together | - | - | - | - | - | 85.07 | 86.25 |"
    assert rows[7] == "| EmoXNetLite | 84.00 | - | 66.00 | - | - | 82.07 | 81.78 |"
    assert rows[-1] == "Speed: not measured yet."
    assert "| happiness | - | 93 | 66 | 92 |" in systems.emoxnet_f1(tmp_path)
    speed = {
        "images_per_second": {"EmoXNet, torch": 2.5, "EmoXNetLite, torch": 25, "EmoXNet, ONNX": 4,
                              "EmoXNetLite, ONNX": 80},
        "ratio": {"torch": 10.0, "onnx": 20.0}, "machine": {"processor": "P"}, "threads": 2, "batch": 16, "rounds": 5,
    }  # fmt: skip
    write(tmp_path, "speed-emoxnet", speed)
    told = systems.emoxnet(tmp_path).splitlines()[-1]
    assert "20 times as fast as EmoXNet in ONNX Runtime (80 and 4.0 faces/s) and 10 times in PyTorch" in told


def test_densenet(tmp_path: Path) -> None:
    def result(public: float, private: float) -> dict:
        split = {
            name: {
                view: {"fer2013": {"all": {"accuracy": value + gain}}} for view, gain in (("single", 0), ("flip", 0.5))
            }
            for name, value in (("PublicTest", public), ("PrivateTest", private))
        }
        return {**split, "spread": {"split": "PrivateTest", "intra": 3.0, "inter": 4.0, "ratio": 0.75}}

    write(tmp_path, "system-densenet-bc", result(68, 69.125))
    alone = {"PrivateTest": result(0, 70)["PrivateTest"]}
    write(tmp_path, "system-densenet-bc-ensemble", alone)
    row = systems.densenet(tmp_path).splitlines()[2]
    assert row == "| DenseNet-BC | 68.00 / 69.12 | - / 70.00 | - / 70.50 | 0.75 | 69.5 / 70.7 | 69.8 / 71.0 |"


def test_omni_over_seeds(tmp_path: Path) -> None:
    for seed, accuracy in ((61, 80.0), (62, 82.0), (63, 84.0)):
        cross = {"restricted": {"mean_recall": accuracy / 2, "accuracy": accuracy + 1}}
        inner = {"PrivateTest": {"single": {"ferplus8": {"all": {"accuracy": accuracy}}}}}
        write(tmp_path, f"system-omni-vas-{seed}", {**inner, "cross": cross})
    write(tmp_path, "system-omni-das-61", {"PrivateTest": {"single": {"ferplus8": {"all": {"accuracy": 81}}}}})
    alone = {"split": "PublicTest", "images": 8, "accuracy": [40, 42], "mean_recall": [30, 32], "chance": 36.5}
    write(tmp_path, "system-omni-distilled", alone)
    rows = systems.omni(tmp_path).splitlines()
    assert rows[3].startswith("| mined faces (VAS) | 82.00 ± 2.00 | 41.00 ± 1.00 | 83.00 ± 2.00 | 85.84 / 85.84 |")
    assert rows[4].startswith(
        "| distilled images (DAS) | 81.00 (1 run) | - | - | 86.55 / 85.24 | 73.27 / 71.20 | 63.34"
    )
    assert (
        "2 fresh classifiers, each taught by the 8 distilled images alone, have a mean recall of 31.00 ± 1.41%"
        in rows[-1]
    )
    assert "chance has 12.50%, and are right about 41.00 ± 1.41%" in rows[-1]
    assert "36.50%" in rows[-1]


def test_ed2l(tmp_path: Path) -> None:
    def probes(expression: float, identity: float) -> dict:
        return {"expression": expression, "identity": {"accuracy": identity, "chance": 5.5}}

    accuracy = {"PrivateTest": {"single": {"fer2013": {"all": {"accuracy": 66}}}}}
    for seed in (41, 42, 43):
        features = {"distilled": probes(70, 10), "dispelled": probes(40, 30)}
        write(tmp_path, f"system-ed2l-gradient-{seed}", {**accuracy, "disentangle": features})
        write(tmp_path, f"system-ed2l-baseline-{seed}", {**accuracy, "disentangle": {"distilled": probes(68, 20)}})
    rows = systems.ed2l(tmp_path).splitlines()
    assert rows[2].startswith("| baseline, no dispelling branch | 66.00 ± 0.00 | 68.00 ± 0.00 / - | 20.00 ± 0.00 / - |")
    both = "70.00 ± 0.00 / 40.00 ± 0.00 | 10.00 ± 0.00 / 30.00 ± 0.00"
    assert rows[3].endswith(f"in the paper | 66.00 ± 0.00 | {both} | 97.86 / 80.38 / 88.67 / 87.71 |")
    assert rows[4] == "| ED2L, its dispeller solved for in every step | - | - / - | - / - | - |"
    assert rows[-1] == "Always naming the most frequent person is right about 5.50%."
    write(tmp_path, "system-ed2l-gradient-41", {**accuracy, "disentangle": {"skipped": "no LFW"}})
    assert "70.00 ± 0.00 (2 runs)" in systems.ed2l(tmp_path)


def test_curves(tmp_path: Path) -> None:
    """Eight epochs of ten steps, a minute each, resumed after the fourth on a machine half as fast."""
    lines = []
    for epoch in range(1, 9):
        step, pace = 10 * epoch, 0.1 if epoch <= 4 else 0.2
        lines.append({"step": step, "minutes_left": pace * (80 - step)})
        loss = {"cross_entropy": abs(epoch - 7), "accuracy": 50 + epoch, "mean_recall": 40}
        lines.append({"step": step, "epoch": float(epoch), "validation": loss})
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "run-system-ed2l-open.jsonl").write_text(text)
    rows = systems.curves(tmp_path).splitlines()[2:]
    assert [row.split(" | ")[2] for row in rows] == ["2", "4", "6", "7", "8"]
    assert rows[1] == "| ed2l-open | fer2013 | 4 | 54.00 | 40.00 | 3.0000 | 4 |"
    assert rows[3] == "| ed2l-open (best) | fer2013 | 7 | 57.00 | 40.00 | 0.0000 | 10 |"
    assert rows[4].endswith("| 12 |")


def test_minutes_of_a_run_that_was_made_longer() -> None:
    """Four steps of a minute each, as the run of four said, then four of two minutes."""
    lines = [{"step": step, "minutes_left": 4.0 - step} for step in range(1, 5)]
    lines += [{"step": step, "minutes_left": 2.0 * (8 - step)} for step in range(5, 9)]
    assert [systems.minutes(lines, step) for step in (2, 4, 6, 8)] == [2, 4, 8, 12]
    assert systems.minutes(lines[:6], 6) > 4  # one that has not ended yet


def test_no_curves(tmp_path: Path) -> None:
    assert systems.curves(tmp_path) == "Nothing has been measured yet."


def test_densenet201(tmp_path: Path) -> None:
    assert systems.densenet201(tmp_path) == "Nothing has been measured yet."
    terms = dict.fromkeys(("triplet", "votes", "rkd_distance", "rkd_angle"), 0.5)
    lines = [{"step": step, "loss": 300 - step, "minutes_left": 90, **terms} for step in range(10, 111, 10)]
    lines.append({"step": 110, "validation": {}})
    (tmp_path / "steps-deepfever-densenet201-open.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = systems.densenet201(tmp_path).splitlines()
    assert rows[2:4] == [
        "| 1 to 50 | 270.000 | 0.500 | 0.500 | 0.500 | 0.500 |",
        "| 51 to 100 | 220.000 | 0.500 | 0.500 | 0.500 | 0.500 |",
    ]
    assert rows[-1] == "After 110 steps the run says that 1.5 hours are left, on one core."
