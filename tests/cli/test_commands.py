"""Commands as a user gives them: exit codes, detection, drawing, similarity, weights, doctor."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fevertools import errors
from fevertools.cli import EXIT_CODES, _doctor, _parser, main
from fevertools.cli._writers import TEXTS, WRITERS
from fevertools.manifest import PRECISIONS
from fevertools.similarity import METRICS
from tests.cli.conftest import ROOT, json_rows, process, save_crop, start

COMMANDS = ("detect", "embed", "classify", "video", "report", "similarity", "probe", "serve", "weights", "doctor")


# -------------------------------------------------------------------------------------------------------- the parser


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_exit_codes(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert len(re.findall(rf"fevertools {command}", text.split("examples:")[1])) >= 2
    for code, meaning in EXIT_CODES.items():
        assert f" {code} {meaning}" in re.sub(r"\s+", " ", text)


def test_version(capsys):
    import fevertools

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fevertools {fevertools.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["detect"],
        ["frobnicate"],
        ["embed", "x.jpg", "--threads", "0"],
        ["detect", "x", "--largest", "--max-faces", "2"],
    ],
)
def test_usage_errors(arguments, capsys):
    assert main(arguments) == 2
    assert "usage:" in capsys.readouterr().err


def test_every_format_has_a_writer():
    assert set(_parser.FORMATS) == set(WRITERS)
    assert set(TEXTS) <= set(WRITERS)


def test_every_metric_can_be_asked_for():
    assert set(_parser.METRICS) == set(METRICS)


def test_help_needs_no_network_library():
    """The package's own __init__ is left out: this is about what the command line adds."""
    code = (
        "import sys, types\n"
        "package = types.ModuleType('fevertools')\n"
        f"package.__path__ = [{str(ROOT / 'fevertools')!r}]\n"
        "sys.modules['fevertools'] = package\n"
        "from fevertools.cli import main\n"
        "assert main(['embed', '--help']) == 0\n"
        "heavy = {'numpy', 'cv2', 'onnxruntime', 'PIL', 'fevertools.pipeline'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert run.returncode == 0, run.stderr


# ------------------------------------------------------------------------------------------------------ a process each


def test_as_a_process_with_a_name_that_is_not_ascii(crops, cropped):
    pytest.importorskip("onnx")
    run = process("embed", "crops/gruß 顔.png", "--format", "jsonl", *cropped)
    assert run.returncode == 0, run.stderr
    assert json_rows(run.stdout.decode("utf-8"))[0]["source"] == "crops/gruß 顔.png"
    assert run.stderr.decode("utf-8").count("\n") == 1  # only the summary: no progress line off a terminal


@pytest.mark.skipif(os.name == "nt", reason="pipes close otherwise on Windows")
def test_a_closed_pipe_ends_quietly(tmp_path, cropped):
    for seed in range(40):
        save_crop(tmp_path / "many" / f"{seed:02}.png", seed)
    reader, writer = os.pipe()
    os.close(reader)  # the reader has gone before the first row
    with os.fdopen(writer, "wb") as pipe, start("embed", tmp_path / "many", *cropped, stdout=pipe) as running:
        _, told = running.communicate(timeout=120)
    assert (running.returncode, told) == (141, b"")


# -------------------------------------------------------------------------------------------------------------- detect


def test_detect_finds_the_face(astronaut, capsys):
    assert main(["detect", str(astronaut), "--format", "jsonl", "--min-face-size", "60"]) == 0
    (row,) = json_rows(capsys.readouterr().out)
    x1, y1, x2, y2 = row["box"]
    assert 170 < x1 < 195 < 250 < x2 < 280
    assert 50 < y1 < 75 < 160 < y2 < 190
    assert row["score"] > 0.99
    assert row["landmarks"][0] == pytest.approx([204, 101], abs=5)  # the left eye in the picture
    assert row["weights"].startswith("mtcnn@")


def test_a_picture_without_a_face_is_no_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (120, 90), (90, 120, 150)).save("plain.png")
    assert main(["detect", "plain.png", "-o", "x.npz"]) == 0
    assert "1 images, 0 faces, 1 images without a face, 0 errors" in capsys.readouterr().err
    with np.load("x.npz", allow_pickle=False) as arrays:
        assert arrays["box"].shape == (0, 4)
        assert arrays["landmarks"].shape == (0, 5, 2)
        assert arrays["source"].shape == (0,)


def test_detect_skips_or_stops_at_broken_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    Image.new("RGB", (60, 60)).save("plain.png")
    assert main(["detect", "bad.jpg", "plain.png"]) == 1
    assert "2 images, 0 faces, 1 images without a face, 1 errors" in capsys.readouterr().err
    assert main(["detect", "bad.jpg", "plain.png", "--on-error", "raise"]) == 1
    assert "images," not in capsys.readouterr().err


def test_draw_changes_the_picture_at_the_box_only(astronaut, tmp_path, capsys):
    target = tmp_path / "drawn.png"
    command = ["detect", str(astronaut), "--draw", str(target), "--format", "jsonl", "--min-face-size", "60"]
    assert main(command) == 0
    x1, y1, x2, y2 = (round(value) for value in json_rows(capsys.readouterr().out)[0]["box"])
    before, after = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (astronaut, target))
    changed = np.abs(before - after).max(2) > 0
    for line in (changed[y1, x1:x2], changed[y2, x1:x2], changed[y1:y2, x1], changed[y1:y2, x2]):
        assert line.mean() > 0.9
    outside = changed.copy()
    outside[y1 - 40 : y2 + 10, x1 - 10 : x2 + 60] = False
    assert not outside.any()
    assert main(command) == 2  # it is there now
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite", "-q"]) == 0


def test_draw_into_a_folder_keeps_names(astronaut, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    picture = Image.open(astronaut).resize((120, 120))
    for name in ("in/a.jpg", "in/below/b.png", "more/a.jpg", "in/c.gif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(name)
    assert main(["detect", "in", "more", "--draw", "out"]) == 0
    drawn = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert drawn == {"a.jpg", "below/b.png", "a-2.jpg", "c.gif.png"}
    assert main(["detect", "in", "--draw", "in", "--overwrite"]) == 2
    assert "replace the input" in capsys.readouterr().err


@pytest.mark.parametrize(("draw", "word"), [("x.txt", ".png"), ("x", ".png")])
def test_draw_refuses_what_it_cannot_write(astronaut, tmp_path, monkeypatch, capsys, draw, word):
    monkeypatch.chdir(tmp_path)
    assert main(["detect", str(astronaut), "--draw", draw]) == 2
    assert word in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------- similarity


def test_similarity_is_the_cosine(crops, cropped, tiny_weights, capsys):
    pytest.importorskip("onnx")
    from tests._tiny import reference

    assert main(["similarity", "crops/a.png", "crops/b.png", *cropped]) == 0
    pictures = np.stack([np.asarray(Image.open(f"crops/{name}.png")) for name in "ab"])[..., None]
    a, b = reference(pictures)[0]
    assert float(capsys.readouterr().out) == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    assert main(["similarity", "crops/a.png", "crops/a.png", *cropped]) == 0
    assert float(capsys.readouterr().out) == pytest.approx(1, abs=1e-6)


def test_similarity_takes_a_metric(crops, tiny_weights, triplet_weights, capsys):
    pytest.importorskip("onnx")
    from tests._tiny import reference, reference_similarity

    pictures = np.stack([np.asarray(Image.open(f"crops/{name}.png")) for name in "ab"])[..., None]
    a, b = reference(pictures)[0]
    triplet, cosine = reference_similarity(a, b), a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    command = ["similarity", "crops/a.png", "crops/b.png", "--cropped", "--weights"]
    for options, expected in (([], triplet), (["--metric", "triplet"], triplet), (["--metric", "cosine"], cosine)):
        assert main([*command, str(triplet_weights), *options]) == 0
        assert float(capsys.readouterr().out) == pytest.approx(expected, abs=1e-5)
    assert main([*command, str(tiny_weights), "--metric", "triplet"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "tiny has no triplet head" in captured.err
    assert main([*command, str(tiny_weights), "--metric", "dot"]) == 2
    assert "usage:" in capsys.readouterr().err


def test_similarity_without_a_face_says_so(astronaut, tmp_path, tiny_weights, capsys):
    Image.new("RGB", (64, 64), (200, 200, 200)).save(tmp_path / "plain.png")
    options = ["--weights", str(tiny_weights), "--min-face-size", "60"]
    assert main(["similarity", str(astronaut), str(tmp_path / "plain.png"), *options]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no face in" in captured.err
    assert "plain.png" in captured.err


def test_detected_faces_are_embedded(astronaut, tiny_weights, capsys):
    assert main(["classify", str(astronaut), "--weights", str(tiny_weights), "--format", "jsonl", "--largest"]) == 0
    (row,) = json_rows(capsys.readouterr().out)
    assert 170 < row["box"][0] < 195
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)


# ------------------------------------------------------------------------------------------------------------- weights


def test_weights(capsys):
    assert main(["weights", "list"]) == 0
    assert "mtcnn (default)" in capsys.readouterr().out
    assert main(["weights", "verify", "mtcnn"]) == 0
    assert capsys.readouterr().out == "mtcnn: ok\n"
    assert main(["weights", "path", "mtcnn"]) == 0
    paths = capsys.readouterr().out.split("\n")[:-1]
    assert len(paths) == 3
    assert all(os.path.isfile(path) for path in paths)
    assert main(["weights", "pull", "mtcnn"]) == 0
    assert capsys.readouterr().out.split("\n")[:-1] == paths


@pytest.mark.parametrize("action", ["verify", "pull", "path"])
def test_unknown_weights(action, capsys):
    assert main(["weights", action, "nosuch"]) == 2
    assert "nosuch" in capsys.readouterr().err


def test_unknown_weights_of_a_command(capsys):
    assert main(["embed", "x.jpg", "--weights", "nosuch"]) == 2
    assert "nosuch" in capsys.readouterr().err


@pytest.mark.parametrize("broken", [errors.WeightsIntegrityError, errors.WeightsUnavailableError])
def test_broken_weights_fail_the_check(monkeypatch, capsys, broken):
    from fevertools.cli import _weights

    def resolve(*_, **__):
        raise broken("another SHA-256")

    monkeypatch.setattr(_weights, "resolve", resolve)
    assert main(["weights", "verify"]) == 1
    assert "mtcnn: BROKEN: another SHA-256" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- doctor


@pytest.fixture
def whole(monkeypatch, tiny_weights):
    """An installation whose default encoder is the tiny student."""
    from fevertools import manifest, pipeline

    own, tiny = manifest.load_manifest(), manifest.load_manifest(tiny_weights)
    both = manifest.Manifest({**own.default, **tiny.default}, {**own.weights, **tiny.weights})
    for module in (manifest, pipeline):
        monkeypatch.setattr(module, "load_manifest", lambda path=None: both)
    monkeypatch.setattr(_doctor, "_rivalry", list)


def test_doctor_finds_a_whole_installation_well(whole, capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert report["problems"] == []
    assert report["numpy"] == np.__version__
    assert "CPUExecutionProvider" in report["providers"]
    assert "cpu" in report["devices"]
    assert report["encoder"] == "tiny 1, verified"
    assert report["encoding_test"]["next_ms"] > 0
    assert main(["doctor"]) == 0
    assert "all well" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("found", "words"),
    [(("avx512_vnni", "amx_int8"), "fast: AVX-512 VNNI, AMX"), ((), "hardly faster"), (None, "perhaps fast")],
)
def test_doctor_tells_whether_int8_is_fast_here(found, words, whole, monkeypatch, capsys):
    monkeypatch.setattr("fevertools.session.int8_instructions", lambda: found)
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["int8"].startswith(words)


def test_precisions_are_those_of_the_manifest():
    assert tuple(PRECISIONS) == _parser.PRECISIONS


def test_doctor_tells_two_runtimes(whole, monkeypatch, capsys):
    monkeypatch.undo()
    version = _doctor.metadata.version
    monkeypatch.setattr(
        _doctor.metadata, "version", lambda name: "1.20.0" if name == "onnxruntime-gpu" else version(name)
    )
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert any("pip uninstall -y onnxruntime onnxruntime-gpu" in problem for problem in report["problems"])


def test_doctor_goes_on_after_a_failure(whole, monkeypatch, capsys):
    from fevertools import weights

    def resolve(*_, **__):
        raise errors.WeightsIntegrityError("another SHA-256")

    monkeypatch.setattr(weights, "resolve", resolve)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "PROBLEM: encoder: another SHA-256" in text
    assert "PROBLEM: detector: another SHA-256" in text
    assert "detection_test" in text


def test_doctor_as_a_process_gives_json():
    run = process("doctor", "--json")
    report = json.loads(run.stdout)
    assert run.returncode == (0 if report["ok"] else 1)
