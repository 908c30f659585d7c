"""The report: what it selects, where it places faces, what the page holds, and the command."""

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fevertools import EMOTIONS, Analyzer
from fevertools._report import layout
from fevertools._report.faces import UNCERTAIN, Highlights, gather, highlight, select
from fevertools._report.page import render, script_json
from fevertools._report.pictures import HEIGHT, data_uri, pictures
from fevertools.cli import main
from fevertools.errors import MissingExtraError, OptionError, UnreadableImageError
from fevertools.report import MOST, NEIGHBOURS, results_of, write_report, write_results
from fevertools.types import Expression, Face, FaceResult, ImageResult
from tests._tiny import DIMENSION, LANDMARKS
from tests.cli.conftest import save_crop

pytest.importorskip("sklearn", reason="needs the extra `report`")

HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>&amp;\u2028"


def face(embedding, label, probability=0.9, size=48):
    """A face with so much probability for a label, and the rest even on the others."""
    rest = (1 - probability) / (len(EMOTIONS) - 1)
    probabilities = {name: probability if name == label else rest for name in EMOTIONS}
    entropy = -sum(value * np.log(value) for value in probabilities.values())
    landmarks = np.array(LANDMARKS, np.float32) * size
    box = np.array([0, 0, size, size], np.float32)
    return FaceResult(
        Face(box, 1.0, landmarks), np.asarray(embedding, np.float32), Expression(label, probabilities, entropy)
    )


def run_of(*faces):
    results = [ImageResult(f"{number}.png", (one,)) for number, one in enumerate(faces)]
    return gather(results, len(faces[0].embedding), len(EMOTIONS))


def cosine(vectors, one):
    return vectors @ one / np.linalg.norm(vectors, axis=1) / np.linalg.norm(one)


class Page(HTMLParser):
    """Elements of a page, and the text of its script and style elements."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.policy = [], {}, ""
        self._open = None
        self.feed(text)
        self.facts = json.loads(self.texts["application/json"])

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self._open = attributes.get("type", tag) if tag in ("script", "style", "title") else None
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]

    def handle_data(self, data):
        if self._open:
            self.texts[self._open] = self.texts.get(self._open, "") + data

    def handle_endtag(self, tag):
        self._open = None


def page_of(path):
    return Page(path.read_text("utf-8"))


# ------------------------------------------------------------------------------------------------------------ selection


def test_gather_takes_a_run_apart():
    one, two = face([1, 0], "anger"), face([0, 1], "fear")
    results = [
        ImageResult("a.png", (one, two)),
        ImageResult("b\udcff.png", ()),
        ImageResult("c.png", (), UnreadableImageError("torn")),
        ImageResult(np.zeros((4, 4), np.uint8), (two,)),
    ]
    run = gather(results, 2, len(EMOTIONS))
    assert (run.images, len(run)) == (4, 3)
    assert (run.faceless, run.failed) == (["b\\udcff.png"], [("c.png", "torn")])
    assert run.names == ["a.png", "#3"]
    assert (run.image.tolist(), run.number.tolist()) == ([0, 0, 1], [0, 1, 0])
    assert [EMOTIONS[label] for label in run.label] == ["anger", "fear", "fear"]
    np.testing.assert_array_equal(run.embeddings, [[1, 0], [0, 1], [0, 1]])
    empty = gather([], 2, len(EMOTIONS))
    assert (len(empty), empty.embeddings.shape, empty.label.shape) == (0, (0, 2), (0,))


def test_typical_is_near_the_mean_of_the_label_and_uncertain_is_of_large_entropy():
    angles = np.radians([0, 10, 50, -40, 90, 91, 92])  # the mean direction of the first four is 5 degrees
    labels = ["anger"] * 4 + ["fear"] * 3
    sure = [0.9, 0.8, 0.99, 0.7, 0.6, 0.95, 0.5]
    run = run_of(*(face([np.cos(a), np.sin(a)], label, p) for a, label, p in zip(angles, labels, sure, strict=True)))
    found = highlight(run, len(EMOTIONS), cosine)
    anger, fear = EMOTIONS.index("anger"), EMOTIONS.index("fear")
    assert set(found.most[anger].tolist()) == {0, 1}
    assert found.least[anger].tolist() in ([2, 3], [3, 2])
    assert found.most[fear].tolist()[0] == 5
    assert found.least[fear].tolist() in ([4], [6])
    assert not set(found.most[fear]) & set(found.least[fear])
    assert found.most[0].tolist() == found.least[0].tolist() == []
    assert found.uncertain.tolist() == [6, 4, 3, 1, 0, 5, 2]


def test_selection_keeps_highlights_and_draws_the_others():
    rng = np.random.default_rng(0)
    most, least, uncertain = [np.array([7, 500])], [np.array([999])], rng.permutation(1000)[:UNCERTAIN]
    highlights = Highlights(most, least, uncertain)
    np.testing.assert_array_equal(select(highlights, 300, 300, 0), np.arange(300))
    rows = select(highlights, 1000, 200, 0)
    assert len(set(rows.tolist())) == len(rows) == 200
    assert (np.diff(rows) > 0).all()
    assert {7, 500, 999, *uncertain} <= set(rows.tolist())
    np.testing.assert_array_equal(rows, select(highlights, 1000, 200, 0))
    assert set(rows.tolist()) != set(select(highlights, 1000, 200, 1).tolist())
    # Where there is no room for all of them, the first ones have half of the page.
    small = [set(select(highlights, 1000, 8, seed).tolist()) for seed in range(5)]
    assert set.intersection(*small) == {int(uncertain[0]), 7, 999, int(uncertain[1])}
    assert {len(rows) for rows in small} == {8}
    # Drawn evenly: halves of the run are drawn alike.
    drawn = np.concatenate([select(highlights, 1000, 100, seed) for seed in range(30)])
    assert abs((drawn < 500).mean() - 0.5) < 0.06


def test_highlights_of_a_selection_are_positions_in_it():
    rows = np.array([2, 5, 7, 9])
    kept = Highlights([np.array([7, 3, 2])], [np.array([9])], np.array([1, 5, 9])).keep(rows)
    assert (kept.most[0].tolist(), kept.least[0].tolist(), kept.uncertain.tolist()) == ([2, 0], [3], [1, 3])


# ------------------------------------------------------------------------------------------------------------------ map


@pytest.mark.parametrize("count", [0, 1, 2, 3, layout.FEW - 1, layout.FEW, 40])
def test_any_number_of_faces_is_placed(count):
    vectors = np.random.default_rng(count).normal(size=(count, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places, height = layout.place((vectors @ vectors.T).astype(np.float32), 0)
    assert (places.shape, places.dtype) == ((count, 2), np.float32)
    assert np.isfinite(places).all()
    assert ((places >= 0) & (places <= (layout.WIDTH, height))).all()
    assert layout.LEAST_HEIGHT <= height <= layout.WIDTH
    if count > 1:
        assert np.ptp(places[:, 0]) == pytest.approx(layout.WIDTH, rel=1e-4)


def test_few_faces_keep_their_distances():
    angles = np.radians([0, 30, 80, 200])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    places, _ = layout.place((vectors @ vectors.T).astype(np.float32), 0)

    def distances(points):
        return np.linalg.norm(points[:, None] - points[None], axis=2)[np.triu_indices(4, 1)]

    ratio = distances(places) / distances(vectors)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)


def test_faces_that_are_all_alike_lie_on_one_place():
    for count in (5, 30):
        places, _ = layout.place(np.ones((count, count), np.float32), 0)
        np.testing.assert_allclose(places, places[:1].repeat(count, axis=0), atol=1)


def test_the_map_keeps_groups_together_and_a_seed_gives_it_again():
    rng = np.random.default_rng(1)
    vectors = np.repeat(np.eye(8)[:3], 20, axis=0) + 0.25 * rng.normal(size=(60, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = (vectors @ vectors.T).astype(np.float32)
    places, height = layout.place(alike, 3)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(60)
    assert (distances.argmin(axis=1) // 20 == np.arange(60) // 20).mean() > 0.95
    again, same = layout.place(alike, 3)
    np.testing.assert_array_equal(places, again)
    assert height == same


def test_without_scikit_learn_it_says_what_to_install(monkeypatch, tmp_path):
    for name in ("sklearn", "sklearn.decomposition", "sklearn.manifold"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"fevertools\[report\]"):
        write_report([], tmp_path / "r.html")


def test_importing_it_is_light():
    code = "import sys, fevertools.report; print('sklearn' in sys.modules, 'pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# ------------------------------------------------------------------------------------------------------------- pictures


def opened(uri):
    assert uri.startswith("data:image/webp;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_pictures_are_small_colour_crops(tmp_path):
    picture = np.zeros((96, 96, 3), np.uint8)
    picture[:, :48], picture[:, 48:] = (220, 30, 30), (30, 30, 220)  # red to the left, blue to the right
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(picture[:, ::-1]).save(tmp_path / "b.png")
    one = face([1, 0], "anger", size=96)
    results = [ImageResult(source, (one,)) for source in (tmp_path / "a.png", tmp_path / "b.png", picture[..., ::-1])]
    run = gather([*results, ImageResult(tmp_path / "gone.png", (one, one))], 2, len(EMOTIONS))
    with Analyzer() as analyzer:
        found = pictures(run, np.array([0, 1, 2, 3, 4]), analyzer.entry.geometry, "bgr")
    assert found[3:] == [None, None]
    first, second, third = (np.asarray(opened(uri).convert("RGB")).astype(int) for uri in found[:3])
    assert first.shape == (HEIGHT, HEIGHT, 3)
    assert first[32, 8, 0] > 180 > 80 > first[32, 8, 2]
    assert second[32, 8, 2] > 180 > 80 > second[32, 8, 0]
    np.testing.assert_array_equal(third, first)  # `color` is that of arrays
    assert len(found[0]) < 2000


def test_a_noisy_picture_is_bounded():
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, HEIGHT, 3)).astype(np.uint8)
    assert len(data_uri(noise)) < 8000


# ----------------------------------------------------------------------------------------------------------------- page


def test_json_cannot_leave_its_element():
    value = {HOSTILE: [HOSTILE, "\ud800", "é", None, 0.5]}
    text = script_json(value)
    assert not set(text) & set("<>&\u2028\u2029")
    assert text.isascii()
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="JSON"):
        script_json(float("nan"))


def test_page_allows_its_own_script_and_style_and_no_network(tmp_path, tiny_weights):
    with Analyzer(tiny_weights) as analyzer:
        results = [ImageResult(f"{HOSTILE}.png", (face(np.ones(DIMENSION), "anger"),))]
        write_results(results, tmp_path / "r.html", analyzer=analyzer, title=HOSTILE)
    page = page_of(tmp_path / "r.html")
    assert [kind for tag, kind in ((tag, a.get("type")) for tag, a in page.tags) if tag == "script"] == [
        "application/json",
        "module",
    ]
    assert not [tag for tag, _ in page.tags if tag in ("img", "iframe", "object", "form")]
    assert [a for tag, a in page.tags if tag == "link"] == [{"rel": "icon", "href": "data:,"}]
    assert page.texts["title"] == HOSTILE
    for kind, text in (("script", page.texts["module"]), ("style", page.texts["style"])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in page.policy
    assert page.policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in page.policy
    urls = set(re.findall(r"\b\w+://[^\s\"']+", (tmp_path / "r.html").read_text("utf-8")))
    assert urls == {"http://www.w3.org/2000/svg"}  # the name of a namespace
    assert not re.search(r"\son\w+=|innerHTML|document\.write|eval\(", page.texts["module"])


def test_each_label_has_a_shape_and_a_colour_of_its_own():
    page = Page(render({}, "t"))
    shapes = re.search(r"const SHAPES = \[(.*?)\];", page.texts["module"], re.DOTALL).group(1)
    assert len(set(re.findall(r'"(M[^"]+)"', shapes))) == len(EMOTIONS)
    colours = re.findall(r"--l\d: (#\w{6});", page.texts["style"])
    assert len(set(colours)) == len(EMOTIONS)


# --------------------------------------------------------------------------------------------------------------- report


@pytest.fixture
def crops(tmp_path):
    return [save_crop(tmp_path / "crops" / f"{seed:02}.png", seed) for seed in range(30)]


def test_report_tells_what_the_analyzer_finds(crops, tmp_path, triplet_weights):
    (tmp_path / "crops" / "broken.png").write_bytes(b"junk")
    paths = [*crops, tmp_path / "crops" / "broken.png", tmp_path / "missing.png"]
    with Analyzer(triplet_weights, device="cpu") as analyzer:
        written = write_report(paths, tmp_path / "r.html", analyzer=analyzer, cropped=True)
        results = list(analyzer.stream(crops, cropped=True))
        vectors = np.stack([result.faces[0].embedding for result in results])
        alike = analyzer.similarity(vectors, vectors)
        sha256 = analyzer.entry.files["onnx"].sha256
    assert (written.images, written.faces, written.shown, written.faceless, written.failed) == (32, 30, 30, 0, 2)
    assert written.size == (tmp_path / "r.html").stat().st_size
    assert not list(tmp_path.glob(".*"))
    facts = page_of(tmp_path / "r.html").facts
    assert [facts["sources"][one["image"]] for one in facts["faces"]] == [str(path) for path in crops]
    assert [name for name, _ in facts["failed"]["names"]] == [str(path) for path in paths[-2:]]
    for position, (one, result) in enumerate(zip(facts["faces"], results, strict=True)):
        expression = result.faces[0].expression
        assert EMOTIONS[one["label"]] == expression.label
        assert one["probabilities"] == pytest.approx([*expression.probabilities.values()], abs=6e-4)
        assert one["entropy"] == pytest.approx(expression.entropy, abs=6e-4)
        others = np.delete(np.arange(30), position)
        expected = others[np.argsort(-alike[position, others], kind="stable")][:NEIGHBOURS]
        assert [number for number, _ in one["near"]] == expected.tolist()
        assert [value for _, value in one["near"]] == pytest.approx(alike[position, expected], abs=6e-4)
        crop = np.asarray(Image.open(crops[position]).resize((HEIGHT, HEIGHT))).astype(int)
        shown = np.asarray(opened(one["picture"]).convert("L")).astype(int)
        assert np.abs(crop - shown).mean() < 16
    entropy = [facts["faces"][number]["entropy"] for number in facts["uncertain"]]
    assert entropy == sorted(entropy, reverse=True)
    assert sum(counted["faces"] for counted in facts["counts"]) == 30
    assert sum(counted["mean"] for counted in facts["counts"]) == pytest.approx(1, abs=1e-3)
    about = dict(facts["about"])
    assert about["Weights"] == "tiny, version 1"
    assert about["SHA-256 of the weights"] == sha256
    assert about["Similarity"].startswith("metric triplet")
    assert float(about["Size of this page"].split(" MB")[0]) == pytest.approx(written.size / 1e6, abs=0.051)


def test_limit_bounds_the_page_and_not_the_counts(crops, tmp_path, tiny_weights):
    with Analyzer(tiny_weights, device="cpu") as analyzer:
        written = write_report(crops, tmp_path / "r.html", analyzer=analyzer, cropped=True, limit=7, seed=5)
    facts = page_of(tmp_path / "r.html").facts
    assert (written.faces, written.shown, len(facts["faces"])) == (30, 7, 7)
    assert sum(counted["faces"] for counted in facts["counts"]) == 30
    assert all(0 <= number < 7 for one in facts["faces"] for number, _ in one["near"])
    assert all(0 <= number < 7 for listed in (*facts["most"], *facts["least"], facts["uncertain"]) for number in listed)
    assert "7 of them" in dict(facts["about"])["Faces on this page"]


def test_nothing_and_one_face(crops, tmp_path, tiny_weights):
    with Analyzer(tiny_weights, device="cpu") as analyzer:
        for paths in ([], crops[:1]):
            written = write_report(paths, tmp_path / "r.html", analyzer=analyzer, cropped=True)
            facts = page_of(tmp_path / "r.html").facts
            assert written.faces == len(facts["faces"]) == len(paths)
    assert facts["faces"][0]["near"] == []


def test_the_same_seed_gives_the_same_page(crops, tmp_path, tiny_weights):
    texts = []
    with Analyzer(tiny_weights, device="cpu", threads=1) as analyzer:
        for name in ("a.html", "b.html"):
            write_report(crops, tmp_path / name, analyzer=analyzer, cropped=True)
            facts = page_of(tmp_path / name).facts
            del facts["about"]
            texts.append(facts)
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"limit": 0}, "limit"), ({"limit": MOST + 1}, "limit"), ({"seed": -1}, "seed"), ({"seed": 1.5}, "seed")],
)
def test_options_are_checked_before_any_work(tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        write_report(iter(lambda: pytest.fail("images were asked for"), None), tmp_path / "r.html", **options)


def test_outputs_are_checked_before_any_work(tmp_path):
    with pytest.raises(OptionError, match="no folder"):
        write_report([], tmp_path / "no" / "r.html")
    with pytest.raises(OptionError, match="is a folder"):
        write_report([], tmp_path)


# ---------------------------------------------------------------------------------------------------------------- table


def test_a_table_gives_the_page_of_its_images(crops, tmp_path, tiny_weights):
    tables = pytest.importorskip("fevertools.tables")
    pytest.importorskip("pyarrow")
    results = [
        ImageResult(str(crops[0]), (face(np.arange(DIMENSION), "anger"), face(np.ones(DIMENSION), "fear", 0.5))),
        ImageResult(str(crops[0]), (face(np.arange(DIMENSION) - 3, "anger"),)),  # the same image once more
        ImageResult("empty.png", ()),
        ImageResult("torn.png", (), UnreadableImageError("torn")),
        ImageResult(str(crops[1]), (face(-np.ones(DIMENSION), "surprise"),)),
    ]
    with Analyzer(tiny_weights) as analyzer:
        tables.write_parquet(tables.to_table(results, analyzer.entry, keep_empty=True), tmp_path / "t.parquet")
        again = list(results_of(tables.read_parquet(tmp_path / "t.parquet"), analyzer))
        assert [result.source for result in again] == [result.source for result in results]
        assert [str(result.error) for result in again] == ["None", "None", "None", "torn", "None"]
        pages = []
        for name, given in (("a.html", results), ("b.html", again)):
            write_results(given, tmp_path / name, analyzer=analyzer)
            facts = page_of(tmp_path / name).facts
            del facts["about"]
            pages.append(facts)
        assert pages[0] == pages[1]
        assert pages[0]["faces"][1]["number"] == 1
        table = tables.read_parquet(tmp_path / "t.parquet")
        with pytest.raises(OptionError, match="no label, probabilities"):
            results_of(table.drop_columns(["label", "probabilities"]), analyzer)
    with Analyzer() as other, pytest.raises(OptionError, match="weights"):
        results_of(table, other)


# -------------------------------------------------------------------------------------------------------------- command


@pytest.fixture
def command(crops, tmp_path, monkeypatch, tiny_weights):
    monkeypatch.chdir(tmp_path)

    def command(*words, cropped=("--cropped",)):
        return main(["report", *words, "--weights", str(tiny_weights), "--device", "cpu", "--threads", "1", *cropped])

    return command


def test_command(command, tmp_path, capsys):
    assert command("crops", "-o", "r.html", "--limit", "20", "--title", "Mine \udcff") == 0
    assert "r.html: 30 images, 30 faces, 20 of them on the page" in capsys.readouterr().err
    assert page_of(tmp_path / "r.html").texts["title"] == "Mine \\udcff"
    before = (tmp_path / "r.html").read_bytes()
    assert command("crops/0*.png", "-o", "r.html") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "r.html").read_bytes() == before
    assert command("crops/0*.png", "-o", "r.html", "--overwrite", "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert len(page_of(tmp_path / "r.html").facts["faces"]) == 10


def test_command_goes_on_after_broken_files(command, tmp_path, capsys):
    (tmp_path / "crops" / "00.png").write_bytes(b"junk")
    assert command("crops", "nothing*.png", "-o", "r.html") == 1
    told = capsys.readouterr().err
    assert "00.png" in told
    assert "nothing*.png" in told
    assert "29 faces" in told
    assert page_of(tmp_path / "r.html").facts["failed"]["count"] == 1


def test_command_refuses(command, tmp_path, capsys):
    for words, message in (
        (("nothing*.png", "-o", "r.html"), "no image found"),
        (("crops", "-o", "no/r.html"), "no folder"),
        (("crops", "-o", "r.html", "--limit", "5001"), "limit"),
        (("crops", "faces.parquet", "-o", "r.html"), "mixed"),
    ):
        assert command(*words) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "r.html").exists()


def test_command_takes_tables(command, tmp_path, capsys, tiny_weights, crops):
    tables = pytest.importorskip("fevertools.tables")
    pytest.importorskip("pyarrow")
    with Analyzer(tiny_weights, device="cpu") as analyzer:
        table = analyzer.to_frame(crops, backend="arrow", cropped=True)
    tables.write_parquet(table, tmp_path / "t.parquet")
    assert command("t.parquet", "-o", "r.html", cropped=()) == 0
    assert len(page_of(tmp_path / "r.html").facts["faces"]) == 30
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    assert command("junk.parquet", "-o", "s.html") == 2
    assert "not a Parquet table" in capsys.readouterr().err
    assert main(["embed", "crops", "--cropped", "--weights", str(tiny_weights), "-o", "e.parquet", "-q"]) == 0
    assert command("e.parquet", "-o", "s.html") == 2
    assert "no label" in capsys.readouterr().err
