"""Formats, journal and resume, on crops and a tiny student: no detector, no default weights."""

import csv
import io
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx")

from fevertools import EMOTIONS, errors
from fevertools.cli import _writers, main
from fevertools.pipeline import Analyzer
from tests._tiny import DIMENSION, reference
from tests.cli.conftest import ORDER, json_rows, save_crop, start


def expected_outputs(names=ORDER):
    """Embeddings and probabilities of the crops, without ONNX and without the command line."""
    pictures = np.stack([np.asarray(Image.open(name)) for name in names])[..., None]
    embeddings, logits = reference(pictures)
    exponentials = np.exp(logits)
    return embeddings, exponentials / exponentials.sum(1, keepdims=True)


def digest(weights):
    return json.loads(Path(weights).read_text())["weights"]["tiny"]["files"]["onnx"]["sha256"]


def test_jsonl_of_classify(crops, cropped, tiny_weights, capsys):
    assert main(["classify", "crops", "--format", "jsonl", *cropped]) == 0
    rows = json_rows(capsys.readouterr().out)
    assert [row["source"] for row in rows] == ORDER
    for row, probabilities in zip(rows, expected_outputs()[1], strict=True):
        assert list(row["probabilities"]) == list(EMOTIONS)
        assert np.allclose(list(row["probabilities"].values()), probabilities, atol=1e-5)
        assert row["label"] == EMOTIONS[probabilities.argmax()]
        assert row["entropy"] == pytest.approx(-(probabilities * np.log(probabilities)).sum(), abs=1e-4)
        assert row["face"] == 0
        assert row["box"] == [0, 0, 48, 48]
        assert np.shape(row["landmarks"]) == (5, 2)
        assert row["weights"] == f"tiny@1 sha256:{digest(tiny_weights)}"


def test_csv_of_embed_on_stdout_gives_the_same_float32(crops, cropped, tiny_weights, capsys):
    assert main(["embed", "crops", *cropped]) == 0
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert [row["source"] for row in rows] == ORDER
    found = np.array([[row[f"e{i}"] for i in range(DIMENSION)] for row in rows], np.float32)
    with Analyzer(str(tiny_weights), device="cpu") as analyzer:
        exact = np.stack([result.faces[0].embedding for result in analyzer.stream(ORDER, cropped=True)])
    assert np.array_equal(found, exact)
    assert np.allclose(found, expected_outputs()[0], atol=1e-5)
    assert [float(rows[0][name]) for name in ("x1", "y1", "x2", "y2", "score")] == [0, 0, 48, 48, 1]
    assert float(rows[0]["left_eye_x"]) == pytest.approx(0.319 * 48, abs=1e-4)
    assert "5 images, 5 faces, 0 images without a face, 0 errors" in captured.err


def test_the_precision_changes_the_numbers_and_what_resume_compares(crops, int8_weights):
    options = ["--cropped", "--weights", str(int8_weights), "--device", "cpu"]
    for precision, factor in (("float32", 1), ("int8", 2)):
        assert main(["embed", "crops", "--precision", precision, "-o", f"{precision}.npz", *options]) == 0
        arrays = np.load(f"{precision}.npz", allow_pickle=False)
        assert np.allclose(arrays["embedding"], factor * expected_outputs()[0], atol=1e-5)
        assert json.loads(str(arrays["metadata"]))["options"]["precision"] == precision


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [row["source"] for row in rows], [[float(row[f"e{i}"]) for i in range(DIMENSION)] for row in rows]


def read_jsonl(path):
    rows = json_rows(path.read_text("utf-8"))
    return [row["source"] for row in rows], [row["embedding"] for row in rows]


def read_npz(path):
    arrays = np.load(path, allow_pickle=False)
    assert json.loads(str(arrays["metadata"]))["weights"]["name"] == "tiny"
    assert arrays["box"].shape == (5, 4)
    assert arrays["landmarks"].shape == (5, 5, 2)
    assert arrays["embedding"].dtype == np.float32
    assert arrays["face"].tolist() == [0] * 5
    return arrays["source"].tolist(), arrays["embedding"]


def read_parquet(path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(path)
    metadata = json.loads(table.schema.metadata[b"fevertools"])
    assert metadata["weights"]["version"] == "1"
    assert len(metadata["weights"]["sha256"]) == 64
    assert table.schema.field("embedding").type.list_size == DIMENSION
    assert table.schema.field("landmarks").type.list_size == 10
    return table["source"].to_pylist(), table["embedding"].to_pylist()


@pytest.mark.parametrize(
    ("name", "read"),
    [("x.csv", read_csv), ("x.jsonl", read_jsonl), ("x.npz", read_npz), ("x.parquet", read_parquet)],
)
def test_files_hold_the_same_numbers(crops, cropped, tmp_path, name, read):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    assert main(["embed", "crops", "-o", name, *cropped]) == 0
    sources, embeddings = read(tmp_path / name)
    assert sources == ORDER
    assert np.allclose(embeddings, expected_outputs()[0], atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops", name]


@pytest.mark.parametrize("name", ["x.npz", "x.parquet"])
def test_classify_in_arrays(crops, cropped, tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    assert main(["classify", "crops", "-o", name, *cropped]) == 0
    if name == "x.npz":
        table = dict(np.load(tmp_path / name, allow_pickle=False))
    else:
        table = read_parquet_columns(tmp_path / name)
    assert np.allclose(table["probabilities"], expected_outputs()[1], atol=1e-5)
    assert list(table["label"]) == [EMOTIONS[row.argmax()] for row in expected_outputs()[1]]


def read_parquet_columns(path):
    import pyarrow.parquet

    return {name: column.to_pylist() for name, column in zip(*_columns(pyarrow.parquet.read_table(path)), strict=True)}


def _columns(table):
    return table.column_names, table.columns


def test_many_rows_are_written_in_parts(crops, cropped, tmp_path, monkeypatch):
    monkeypatch.setattr(_writers, "_CHUNK", 2)
    assert main(["embed", "crops", "-o", "x.npz", *cropped]) == 0
    assert read_npz(tmp_path / "x.npz")[0] == ORDER
    pytest.importorskip("pyarrow")
    assert main(["embed", "crops", "-o", "x.parquet", *cropped]) == 0
    assert read_parquet(tmp_path / "x.parquet")[0] == ORDER


def test_parquet_without_pyarrow_says_what_to_install(crops, cropped, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["embed", "crops", "-o", "x.parquet", *cropped]) == 2
    assert 'pip install "fevertools[parquet]"' in capsys.readouterr().err
    assert not (tmp_path / "x.parquet.partial").exists()
    with pytest.raises(errors.MissingExtraError):
        _writers.import_parquet()


# ------------------------------------------------------------------------------------------------- what is in the way


def test_an_existing_output_is_replaced_only_on_demand(crops, cropped, tmp_path, capsys):
    (tmp_path / "x.csv").write_text("precious")
    assert main(["embed", "crops", "-o", "x.csv", *cropped]) == 2
    assert (tmp_path / "x.csv").read_text() == "precious"
    assert "--overwrite" in capsys.readouterr().err
    assert main(["embed", "crops", "-o", "x.csv", "--overwrite", *cropped]) == 0
    assert read_csv(tmp_path / "x.csv")[0] == ORDER


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["-o", "x.xyz"], "suffixes"),
        (["-o", "no/such/x.csv"], "folder"),
        (["-o", "crops", "--format", "csv", "--overwrite"], "not a file"),
        (["--format", "npz"], "-o"),
        (["--resume"], "-o"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_unusable_options(crops, cropped, tmp_path, capsys, options, word):
    assert main(["embed", "crops", *cropped, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert word in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops"]


def test_format_beats_the_suffix(crops, cropped, tmp_path):
    assert main(["embed", "crops", "-o", "x.txt", "--format", "jsonl", *cropped]) == 0
    assert read_jsonl(tmp_path / "x.txt")[0] == ORDER


# ------------------------------------------------------------------------------------------------------ broken inputs


@pytest.fixture
def broken(crops):
    (crops / "b.png").write_bytes((crops / "a.png").read_bytes()[:40])
    return crops


def test_broken_files_are_skipped_and_told(broken, cropped, tmp_path, capsys):
    assert main(["embed", "crops", "missing.jpg", "-o", "x.jsonl", *cropped]) == 1
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "crops/b.png" in line.replace("\\", "/")]
    assert [line for line in told if "missing.jpg" in line]
    assert told[-1] == "fevertools: 6 images, 4 faces, 0 images without a face, 2 errors"
    assert read_jsonl(tmp_path / "x.jsonl")[0] == [ORDER[0], *ORDER[2:]]


def test_the_first_broken_file_stops_the_run(broken, cropped, tmp_path, capsys):
    assert main(["embed", "crops", "-o", "x.jsonl", "--on-error", "raise", *cropped]) == 1
    assert "b.png" in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl").exists()
    journal = json_rows((tmp_path / "x.jsonl.partial").read_text("ascii"))
    assert [record["source"] for record in journal[1:]] == ORDER[:1]
    save_crop(broken / "b.png", 1)  # mended
    assert main(["embed", "crops", "-o", "x.jsonl", "--on-error", "raise", "--resume", *cropped]) == 0
    assert read_jsonl(tmp_path / "x.jsonl")[0] == ORDER


def test_quiet_tells_only_errors(broken, cropped, capsys):
    assert main(["embed", "crops", "-q", *cropped]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "b.png" in line


def test_no_image_at_all_is_unusable(crops, cropped, tmp_path, capsys):
    (crops / "empty").mkdir()
    assert main(["embed", "crops/empty", "crops/*.gif", "-o", "x.csv", *cropped]) == 2
    assert "no image found" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops"]


def test_a_pattern_without_a_match_counts_as_an_error(crops, cropped, capsys):
    assert main(["embed", "crops/*.gif", "crops/a.png", *cropped]) == 1
    assert "1 images, 1 faces, 0 images without a face, 1 errors" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------- resume


def killed(journal, lines):
    """What a kill in the middle of a write leaves: so many whole lines, and half of the next."""
    whole = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(whole[:lines]) + whole[lines][: len(whole[lines]) // 2])


class Killed(BaseException):
    pass


@pytest.fixture
def pairs(cropped):
    """Options that let two faces share a run of the encoder."""
    return [*cropped, "--batch-size", "2"]


@pytest.fixture
def undisturbed(broken, pairs, tmp_path):
    """The rows of a whole run, one image of which is broken, and its journal."""
    assert main(["embed", "crops", "-o", "whole.jsonl", *pairs]) == 1
    assert main(["embed", "crops", "-o", "x.jsonl", *pairs]) == 1
    journal = tmp_path / "x.jsonl.partial"
    (tmp_path / "x.jsonl").unlink()

    def fail(*_):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fevertools.cli._output.os.replace", fail)
        with pytest.raises(Killed):
            main(["embed", "crops", "-o", "x.jsonl", *pairs])
    assert len(journal.read_bytes().splitlines()) == 6
    return tmp_path / "whole.jsonl", journal


# The second image is broken, so that the first three share a run.
@pytest.mark.parametrize(("lines", "kept"), [(0, 0), (1, 0), (3, 0), (4, 3), (5, 3)])
def test_resume_ends_with_the_bytes_of_an_undisturbed_run(
    undisturbed, pairs, tmp_path, capsys, monkeypatch, lines, kept
):
    whole, journal = undisturbed
    killed(journal, lines)
    seen = []
    stream = Analyzer.stream

    def spy(self, images, **options):
        return stream(self, (seen.append(image) or image for image in images), **options)

    monkeypatch.setattr(Analyzer, "stream", spy)
    capsys.readouterr()
    assert main(["embed", "crops", "-o", "x.jsonl", "--resume", *pairs]) == 1
    assert seen == ORDER[kept:]
    assert (tmp_path / "x.jsonl").read_bytes() == whole.read_bytes()
    assert "5 images, 4 faces, 0 images without a face, 1 errors" in capsys.readouterr().err
    assert not journal.exists()


def test_resume_after_everything_was_done_only_converts(undisturbed, pairs, tmp_path, monkeypatch):
    whole, _ = undisturbed
    monkeypatch.setattr(Analyzer, "_finish", lambda *_: pytest.fail("nothing is left to analyze"))
    assert main(["embed", "crops", "-o", "x.jsonl", "--resume", *pairs]) == 1
    assert (tmp_path / "x.jsonl").read_bytes() == whole.read_bytes()


def test_resume_leaves_out_images_that_are_no_longer_asked_for(undisturbed, cropped, tmp_path):
    assert main(["embed", "crops/below", "-o", "x.jsonl", "--resume", *cropped]) == 0
    assert read_jsonl(tmp_path / "x.jsonl")[0] == ORDER[2:4]


def test_a_journal_in_the_way_is_kept(undisturbed, cropped, capsys):
    _, journal = undisturbed
    before = journal.read_bytes()
    assert main(["embed", "crops", "-o", "x.jsonl", *cropped]) == 2
    assert "--resume" in capsys.readouterr().err
    assert journal.read_bytes() == before


@pytest.mark.parametrize("change", [["--flip"], ["other weights"], ["classify"]])
def test_a_journal_of_another_run_is_refused(undisturbed, cropped, tmp_path, capsys, change):
    _, journal = undisturbed
    before = journal.read_bytes()
    command, options = "embed", list(cropped)
    if change == ["classify"]:
        command = "classify"
    elif change == ["--flip"]:
        options += change
    else:
        manifest = json.loads(Path(cropped[2]).read_text())
        manifest["weights"]["tiny"]["version"] = "2"
        (tmp_path / "w").mkdir()
        (tmp_path / "w" / "tiny.onnx").write_bytes(Path(cropped[2]).with_name("tiny.onnx").read_bytes())
        (tmp_path / "w" / "m.json").write_text(json.dumps(manifest))
        options[2] = str(tmp_path / "w" / "m.json")
    assert main([command, "crops", "-o", "x.jsonl", "--resume", *options]) == 2
    message = capsys.readouterr().err
    assert "was made with" in message
    assert {"--flip": '"flip": false', "classify": "command", "other weights": '"version": "1"'}[change[0]] in message
    assert journal.read_bytes() == before


def test_overwrite_starts_anew(undisturbed, cropped, tmp_path):
    assert main(["embed", "crops/a.png", "-o", "x.jsonl", "--overwrite", *cropped]) == 0
    assert read_jsonl(tmp_path / "x.jsonl")[0] == ORDER[:1]


def test_interruption_leaves_a_usable_journal(crops, cropped, tmp_path, monkeypatch, capsys):
    from fevertools.cli import _output

    write, count = _output.JournalSink.write, []

    def interrupted(self, record):
        if len(count) == 2:
            raise KeyboardInterrupt
        count.append(record)
        write(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(_output.JournalSink, "write", interrupted)
        assert main(["embed", "crops", "-o", "x.jsonl", *cropped]) == 130
    assert "--resume" in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl").exists()
    assert main(["embed", "crops", "-o", "x.jsonl", "--resume", *cropped]) == 0
    assert read_jsonl(tmp_path / "x.jsonl")[0] == ORDER


def test_resume_without_a_journal_is_a_first_run(crops, cropped, tmp_path):
    assert main(["embed", "crops", "-o", "x.jsonl", "--resume", *cropped]) == 0
    assert read_jsonl(tmp_path / "x.jsonl")[0] == ORDER


def test_a_failed_conversion_leaves_the_old_output_and_the_journal(crops, cropped, tmp_path, monkeypatch, capsys):
    (tmp_path / "x.csv").write_text("old")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(_writers.CsvText, "line", full)
    assert main(["embed", "crops", "-o", "x.csv", "--overwrite", *cropped]) == 2
    assert "No space left" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops", "x.csv", "x.csv.partial"]
    assert (tmp_path / "x.csv").read_text() == "old"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_process_that_is_stopped_can_be_resumed(tmp_path, cropped, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for seed in range(60):
        save_crop(tmp_path / "many" / f"{seed:02}.png", seed)
    assert main(["embed", "many", "-o", "whole.csv", *cropped]) == 0
    with start("embed", "-", "-o", "x.csv", *cropped) as process:
        # So many that some are surely done, and no end of the list: it waits for more.
        process.stdin.write("".join(f"many/{seed:02}.png\n" for seed in range(50)).encode())
        process.stdin.flush()
        journal = tmp_path / "x.csv.partial"
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 17) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(getattr(signal, name))
        assert process.wait(60) == {"SIGKILL": -9, "SIGINT": 130}[name]
    assert main(["embed", "many", "-o", "x.csv", "--resume", *cropped]) == 0
    assert read_csv(tmp_path / "x.csv")[0] == read_csv(tmp_path / "whole.csv")[0]
    assert np.allclose(read_csv(tmp_path / "x.csv")[1], read_csv(tmp_path / "whole.csv")[1], atol=1e-6)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data + b"\0" * 9999, lambda data: data + b"{" * 9999]
)
def test_resume_drops_what_is_not_a_whole_line(undisturbed, cropped, tmp_path, damage):
    whole, journal = undisturbed
    journal.write_bytes(damage(journal.read_bytes()))
    save_crop(tmp_path / "crops" / "z.png", 7)  # something is left to do
    assert main(["embed", "crops", "-o", "x.jsonl", "--resume", *cropped]) == 1
    found = read_jsonl(tmp_path / "x.jsonl")
    assert found[0] == [*read_jsonl(whole)[0], os.path.join("crops", "z.png")]
    assert np.allclose(found[1][:-1], read_jsonl(whole)[1], atol=1e-6)
