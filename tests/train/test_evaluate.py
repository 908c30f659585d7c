"""The evaluation from predictor to files, with predictors whose figures are known."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fevertools.errors import DataError, OptionError
from fevertools.labels import EMOTIONS
from fevertools.manifest import load_manifest
from fevertools.train import models
from fevertools.train.__main__ import main
from fevertools.train.datasets.cropped import Crops
from fevertools.train.datasets.ferplus import FerPlus, Split, read_ferplus, select
from fevertools.train.evaluate import image_sets, networks, triplet
from fevertools.train.evaluate.closeness import closeness
from fevertools.train.evaluate.command import PARTS, EvaluateOptions, evaluate, summary
from fevertools.train.evaluate.image_sets import Encoded, LfwFaces, split_rows
from fevertools.train.evaluate.networks import STARTS, Outputs, load_network
from fevertools.train.evaluate.protocols import evaluate_ferplus
from fevertools.train.export import load_student, update_manifest
from tests._tiny import HEAD, reference
from tests.train.conftest import made_images
from tests.train.test_starts import face_api_forward, write_face_api


def oracle(data: FerPlus, split: Split) -> Encoded:
    """Knows the votes of every image, but takes mirrored ones for strangers and calls them all contempt."""
    chosen = select(data, "ferplus8", split)
    known = {data.images[row].tobytes(): target for row, target in zip(chosen.rows, chosen.target, strict=True)}
    contempt = np.eye(8, dtype=np.float32)[7]

    def predict(crops: np.ndarray) -> Outputs:
        targets = np.stack([known.get(crop.tobytes(), contempt) for crop in crops])
        return Outputs(np.zeros((len(crops), 4), np.float32), np.log(targets + 1e-6))

    return Encoded(predict, lambda: data.images[split_rows(data, split)])


@pytest.fixture
def data(made_data: Path) -> FerPlus:
    data = read_ferplus(made_data)
    # The patterns but for the noise are their own mirror images; with a mark they are not.
    data.images[:, :4, :4] = 255
    data.images[:, :4, -4:] = 0
    return data


def test_oracle_scores_full_marks(data: FerPlus) -> None:
    figures = evaluate_ferplus(oracle(data, "train"), data, "train")["single"]
    assert {p: f["all"]["accuracy"] for p, f in figures.items()} == dict.fromkeys(figures, 100.0)
    assert figures["ferplus8"]["all"]["n"] == 159
    assert figures["ferplus7"]["all"]["n"] == 158
    assert figures["ferplus8"]["all"]["kl"] == pytest.approx(0, abs=1e-3)
    assert figures["ferplus8"]["all"]["ece"] < 0.01
    assert figures["ferplus8"]["recall"]["contempt"] == 100.0
    assert figures["ferplus8"]["f1"] == figures["ferplus8"]["recall"]
    assert "fear" not in figures["ferplus8"]["recall"]  # the made data has none
    assert "fer2013" not in figures  # no such head
    assert np.trace(figures["ferplus8"]["confusion"]) == 159


def test_mirror_averaging_uses_the_mirror(data: FerPlus) -> None:
    """log p + log contempt: the two labels tie, and the true one comes first, except in the row that is contempt."""
    single, flip = (evaluate_ferplus(oracle(data, "train"), data, "train")[view] for view in ("single", "flip"))
    assert flip["ferplus8"]["all"]["cross_entropy"] > single["ferplus8"]["all"]["cross_entropy"] + 0.5


def test_rows_without_twins_are_counted_apart(made_data: Path) -> None:
    data = read_ferplus(made_data)
    figures = evaluate_ferplus(oracle(data, "test"), data, "test")["single"]["ferplus8"]
    assert (figures["all"]["n"], figures["without earlier twins"]["n"]) == (40, 39)


def test_the_head_for_fer2013_is_scored_on_its_own_labels(data: FerPlus) -> None:
    """On all rows, those that no FER+ protocol keeps too. The head knows the label but in the first ten rows."""
    label = data.label[data.split == 1].copy()
    label[:10] = 6
    outputs = Outputs(np.zeros((40, 4), np.float32), np.zeros((40, 8), np.float32), np.eye(7, dtype=np.float32)[label])
    figures = evaluate_ferplus(Encoded(lambda _: outputs, lambda: data.images[:40]), data, "validation")
    assert figures["single"]["fer2013"]["all"]["n"] == 40
    assert figures["flip"]["fer2013"]["all"]["accuracy"] == 75


def test_images_are_encoded_once_and_only_when_needed() -> None:
    shown: list[np.ndarray] = []

    def predict(crops: np.ndarray) -> Outputs:
        shown.append(crops)
        return Outputs(crops.reshape(len(crops), -1).astype(np.float32))

    images = np.arange(2 * 4, dtype=np.uint8).reshape(2, 2, 2)
    encoded = Encoded(predict, lambda: images)
    assert not shown
    for _ in range(2):
        np.testing.assert_array_equal(encoded.single.embedding, [[0, 1, 2, 3], [4, 5, 6, 7]])
        np.testing.assert_array_equal(encoded.flip.embedding, [[0.5, 0.5, 2.5, 2.5], [4.5, 4.5, 6.5, 6.5]])
    assert len(shown) == 2
    assert shown[0].shape == (2, 2, 2, 1)
    assert encoded.flip.logits is None


@pytest.fixture(scope="module")
def checkpoint(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step of a network with every head."""
    folder = tmp_path_factory.mktemp("run")
    options = ["--data", str(made_data), "--workers", "0", "--max-steps", "1", "--output", str(folder)]
    small = ("model.start=random", "model.resolution=48", "optim.batch_size=16", "losses.fer2013=1", "losses.triplet=1")
    assert main(["fit", "ferplus_mobilenet", *options, *(word for item in small for word in ("--set", item))]) == 0
    return folder / "checkpoint.safetensors"


@pytest.fixture
def lfw(tmp_path: Path, made_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with made-up FER-2013 and LFW; faces were found in all pictures but the first."""
    monkeypatch.setattr(triplet, "COUNT", 30)
    with np.load(made_data / "fer2013.npz") as arrays:
        changed = dict(arrays)
    rng = np.random.default_rng(5)
    changed["ferplus_votes"][:, :8] = [rng.multinomial(10, p) for p in rng.dirichlet(np.full(8, 0.4), 240)]
    np.savez(tmp_path / "fer2013.npz", **changed)
    lines = ["file,emotion,annotators,conflict,smile"]
    for person in range(30):
        folder = tmp_path / "lfw" / "lfw-deepfunneled" / f"P_{person:02}"
        folder.mkdir(parents=True)
        for number in (1, 2):
            (folder / f"P_{person:02}_{number:04}.jpg").touch()
            lines.append(f"P_{person:02}/P_{person:02}_{number:04}.jpg,{EMOTIONS[(person + number) % 5]},1,0,")
    (tmp_path / "lfw" / "lfw_expression_labels.csv").write_text("\n".join(lines))
    (tmp_path / "lfw" / "pairs.txt").write_text("1\t2\nP_00\t1\t2\nP_03\t1\t2\nP_01\t1\tP_02\t2\nP_04\t2\tP_05\t1\n")
    crops = Crops(made_images(60, seed=9)[0][1:], np.arange(1, 60), 1)
    monkeypatch.setattr(image_sets, "crop_lfw", lambda *_: crops)
    return tmp_path


def test_faces_of_lfw_keep_their_labels_people_and_pairs(lfw: Path) -> None:
    """Row 0 is the second picture of the first person: the first has no face, and its pair is gone."""
    faces = LfwFaces(lfw, lfw)
    rows, label, person = faces.labelled()
    assert rows.tolist() == list(range(59))
    assert label[:4].tolist() == [2, 2, 3, 3]
    assert person[:4].tolist() == [0, 1, 1, 2]
    pairs, same = faces.pairs()
    assert pairs.tolist() == [[5, 6], [1, 4], [8, 9]]
    assert same.tolist() == [True, False, False]


def test_command_on_a_checkpoint(lfw: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Every part, in one command, and the test split is not looked at."""
    output = tmp_path / "figures.json"
    assert main(["evaluate", str(checkpoint), "--data", str(lfw), "--output", str(output)]) == 0
    figures = json.loads(output.read_text())
    assert set(figures["versions"]) >= {"torch", "scikit-learn", "onnxruntime"}
    assert list(figures["PublicTest"]["flip"]) == ["ferplus8", "ferplus8-majority", "ferplus7", "fer2013"]
    assert figures["PublicTest"]["flip"]["fer2013"]["all"]["n"] == 40
    assert figures["probe"]["options"] == {"c": 10000.0, "standardise": True, "balanced": False, "mirror": False}
    assert figures["probe"]["fer2013"]["all"]["n"] == 40
    assert figures["triplets"]["split"] == "PublicTest"
    assert figures["triplets"]["head"]["n"] == sum(row["n"] for row in figures["agreement"]) == 30
    assert figures["transfer"]["missing_faces"] == 1
    assert figures["transfer"]["zero_shot"]["unrestricted"]["n"] == figures["transfer"]["probe"]["C=1"]["n"] == 59
    assert figures["leakage"]["n"] == 3
    assert not any("skipped" in part for part in figures.values())
    assert "PrivateTest" not in output.read_text()


def test_a_part_without_its_data_is_skipped_aloud(
    made_data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "figures.json"
    arguments = ["evaluate", str(checkpoint), "--data", str(made_data), "--output", str(output)]
    assert main([*arguments, "--only", "leakage,probe", "--probe", "balanced=true"]) == 0
    figures = json.loads(output.read_text())
    assert "no LFW in" in figures["leakage"]["skipped"]
    assert "leakage: skipped: no LFW in" in capsys.readouterr().err
    assert figures["probe"]["options"]["balanced"]
    assert set(figures) == {"weights", "command", "machine", "versions", "leakage", "probe"}
    assert figures["command"].endswith("--split validation --only leakage,probe --probe balanced=true")


def test_an_unknown_part_is_told_at_once(made_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "none.safetensors", "--data", str(made_data), "--only", "probes"]) == 2
    assert f"no part named 'probes'; known: {', '.join(PARTS)}" in capsys.readouterr().err


@pytest.fixture
def tiny(triplet_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The manifest of the tiny student with a triplet head, in place of the package's own."""
    monkeypatch.setattr(networks, "find", lambda name, kind: load_manifest(triplet_weights).entry(name, kind))
    return triplet_weights


def test_the_manifest_gets_headlines_of_what_was_measured(lfw: Path, tiny: Path, tmp_path: Path) -> None:
    """A second run adds to what the first one said of the same split."""
    manifest = tmp_path / tiny.name
    manifest.write_text(tiny.read_text())
    for parts in ("ferplus", "probe,triplets,leakage,transfer"):
        assert main(["evaluate", "tiny", "--data", str(lfw), "--manifest", str(manifest), "--only", parts]) == 0
    metrics = load_manifest(manifest).entry("tiny", "encoder").metrics  # read strictly: numbers and texts alone
    assert metrics["ferplus8"]["accuracy"] == 0.125  # what stood there
    assert set(metrics["PublicTest"]) == {"single", "flip", "probe", "triplets"}
    assert set(metrics["PublicTest"]["single"]["ferplus7"]) == {"all", "without earlier twins", "recall"}
    assert set(metrics["PublicTest"]["triplets"]["accuracy"]) == {"embedding", "head"}
    assert set(metrics["LFW"]["transfer"]["mean_recall"]) == {
        "zero-shot restricted", "zero-shot unrestricted", "probe C=10000", "probe C=1"
    }  # fmt: skip
    assert metrics["LFW"]["leakage"]["n"] == 3


def test_int8_figures_stand_apart(int8_weights: Path, made_data: Path, tmp_path: Path) -> None:
    """Here the embeddings of the int8 graph are twice the others."""
    manifest, output = tmp_path / int8_weights.name, tmp_path / "figures.json"
    for file in int8_weights.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    data, parts = read_ferplus(made_data), ("ferplus", "fidelity")
    result = evaluate(str(manifest), data, "test", output, None, EvaluateOptions(parts, precision="int8"))
    assert result == json.loads(output.read_text())
    assert result["weights"] == f"{manifest}, int8"
    assert result["command"].endswith("--split test --only ferplus,fidelity --precision int8")
    same = {"cosine_mean": 1, "cosine_percentile_1": 1, "cosine_min": 1, "same_label": 100}
    assert result["fidelity"] == {"split": "PrivateTest", **same}
    assert summary(result)["PrivateTest"]["fidelity"] == same
    plain = evaluate(str(manifest), data, "test", None, None, EvaluateOptions(parts))
    ours, theirs = (r["PrivateTest"]["single"]["ferplus8"]["all"] for r in (result, plain))
    assert ours["accuracy"] == theirs["accuracy"]
    assert ours["kl"] != theirs["kl"]
    assert "--precision int8" in plain["fidelity"]["skipped"]


def test_the_manifest_tells_int8_from_float32(
    int8_weights: Path, made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "find", lambda name, kind: load_manifest(int8_weights).entry(name, kind))
    manifest = tmp_path / "manifest.json"
    manifest.write_text(int8_weights.read_text())
    common = ["evaluate", "tiny", "--data", str(made_data), "--manifest", str(manifest), "--only", "ferplus"]
    assert main(common) == 0
    before = load_manifest(manifest).named("tiny").metrics
    assert main([*common, "--precision", "int8"]) == 0
    after = load_manifest(manifest).named("tiny").metrics
    assert set(after) == {*before, "int8"}
    assert all(after[name] == before[name] for name in before)
    assert set(after["int8"]["PublicTest"]) == {"single", "flip"}


def test_int8_of_what_has_none_is_refused(tiny: Path, made_data: Path, tmp_path: Path) -> None:
    data = read_ferplus(made_data)
    for weights in ("tiny", "start:faceres", "x.safetensors", f"{tmp_path}/"):
        with pytest.raises(OptionError, match="no int8 graph"):
            load_network(weights, data, "int8")


def test_closeness_closed_forms() -> None:
    angle = np.linspace(0, np.pi / 2, 101)
    exact = np.tile(np.float32([3, 0]), (101, 1))
    turned = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    found = closeness(turned, exact)
    assert found["cosine_min"] == pytest.approx(0, abs=1e-5)
    assert found["cosine_percentile_1"] == pytest.approx(np.cos(angle[99]), abs=1e-5)
    assert found["cosine_mean"] == pytest.approx(np.cos(angle).mean(), abs=1e-5)


def test_shipped_weights_are_served_as_users_get_them(tiny: Path, made_data: Path) -> None:
    data = read_ferplus(made_data)
    outputs = load_network("tiny", data)(data.images[:, :, :, None])
    embedding, logits = reference(data.images[:, :, :, None])
    np.testing.assert_allclose(outputs.embedding, embedding, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(outputs.logits, logits, rtol=1e-3, atol=1e-3)  # type: ignore[arg-type]
    np.testing.assert_allclose(outputs.triplet, embedding @ HEAD[:, :-1].T + HEAD[:, -1], rtol=1e-3, atol=1e-3)  # type: ignore[arg-type]


def test_a_start_is_measured_by_its_features(made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the same network written out on RGB, on crops resized by torch."""
    tensors = write_face_api(tmp_path)
    monkeypatch.setenv("FEVERTOOLS_STARTS", str(tmp_path))
    data = read_ferplus(made_data)
    outputs = load_network("start:face-api", data)(data.images[:3, :, :, None])
    frames = torch.from_numpy(data.images[:3, None]).float()
    resized = F.interpolate(frames, (150, 150), mode="bicubic", align_corners=False)
    expected = face_api_forward(tensors, resized.expand(-1, 3, -1, -1))
    np.testing.assert_allclose(outputs.embedding, expected, rtol=1e-2, atol=1e-3)
    assert outputs[1:] == (None,) * 4


def test_a_start_has_no_class_head_and_says_so(
    made_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(STARTS, "face-api", dataclasses.replace(STARTS["face-api"], start="random"))
    result = evaluate(
        "start:face-api", read_ferplus(made_data), "validation", None, None, EvaluateOptions(("ferplus",))
    )
    assert result["ferplus"] == {"skipped": "these weights have no class logits"}
    assert json.loads(capsys.readouterr().out) == {}


def test_every_start_can_be_named(made_data: Path) -> None:
    assert set(STARTS) == set(models.STARTS)
    with pytest.raises(DataError, match="known: start:faceres, start:faceres-deep, start:face-api"):
        load_network("start:facenet", read_ferplus(made_data))


def test_checkpoints_give_every_head(checkpoint: Path, made_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "BATCH_SIZE", 100)  # three batches, the last one shorter
    data = read_ferplus(made_data)
    outputs = load_network(str(checkpoint), data)(data.images[:, :, :, None])
    student, _ = load_student(checkpoint)
    with torch.no_grad():
        expected = student(torch.from_numpy(data.images[:, :, :, None]))
    assert outputs.triplet is not None
    assert outputs.triplet.shape == (240, 32)
    for name in expected._fields[:4]:
        np.testing.assert_allclose(getattr(outputs, name), getattr(expected, name), rtol=1e-3, atol=1e-4)


def test_a_missing_checkpoint_is_an_error(made_data: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "no.safetensors")
    assert main(["export", missing, "--name", "x", "--data", str(made_data)]) == 2
    assert main(["evaluate", missing, "--data", str(made_data)]) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read the manifest"),
        ("{", "cannot read"),
        ("[]", "not a weights"),
        ('{"weights": {}}', "no entry"),
    ],
)
def test_a_manifest_that_cannot_be_filled_is_told_at_once(
    made_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    file = tmp_path / "manifest.json"
    if text is not None:
        file.write_text(text)
    # No such checkpoint either: the manifest is looked at before any work.
    arguments = ["evaluate", "none.safetensors", "--data", str(made_data), "--manifest", str(file)]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_update_manifest_leaves_the_others(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({"manifest_version": 1, "default": {}, "weights": {"a": {"kind": "x"}}}))
    update_manifest(file, "b", {"kind": "y"})
    assert json.loads(file.read_text())["weights"] == {"a": {"kind": "x"}, "b": {"kind": "y"}}
