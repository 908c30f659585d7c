"""The server in this process: answers are those of an Analyzer, and whatever strangers send is refused in words."""

import asyncio
import io
import json
import random
import struct
import sys
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("httpx2", reason="starlette's test client needs it")

from starlette.testclient import TestClient

from fevertools import Analyzer, errors
from fevertools.serve import Settings, create_app
from fevertools.serve.engine import Halves
from fevertools.tables import identity
from tests._tiny import DIMENSION, reference, reference_similarity
from tests.reliability.mutations import mutate_bytes
from tests.reliability.pictures import encoded

JPEG = {"content-type": "image/jpeg"}
CROPS = np.random.default_rng(4).integers(0, 256, (12, 48, 48)).astype(np.uint8)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


PNGS = [png(crop) for crop in CROPS]


@pytest.fixture(scope="module")
def photo():
    data = pytest.importorskip("skimage.data")
    return png(data.astronaut())


@pytest.fixture
def client_of(triplet_weights):
    """Settings -> a client of a server with the tiny weights."""
    made = []

    def make(**settings):
        app = create_app(Settings(**{"weights": triplet_weights, "threads": 1, "device": "cpu", **settings}))
        made.append(app)
        return TestClient(app, raise_server_exceptions=False)

    yield make
    for app in made:
        app.state.service.close()


def test_the_precision_is_the_servers(client_of, int8_weights):
    for precision, factor in (("float32", 1), ("int8", 2)):
        with client_of(weights=int8_weights, precision=precision) as client:
            answer = client.post("/v1/embed?cropped=true", content=PNGS[0], headers={"content-type": "image/png"})
        expected = factor * reference(CROPS[:1, :, :, None])[0][0]
        np.testing.assert_allclose(answer.json()["faces"][0]["embedding"], expected, atol=1e-5)


@pytest.fixture
def client(client_of):
    with client_of() as made:
        yield made


def post(client, path, content=PNGS[0], headers=JPEG, **options):
    return client.post(path, content=content, headers=headers, **options)


# ------------------------------------------------------------------------------------------------------------- answers


def test_answers_are_those_of_an_analyzer(client, triplet_weights, photo):
    with Analyzer(triplet_weights, device="cpu", threads=1) as analyzer:
        (expected,) = analyzer.analyze(photo).to_dict()["faces"]
        weights = identity(analyzer.entry)
    answer = post(client, "/v1/analyze", photo).json()
    assert answer["weights"] == weights
    (face,) = answer["faces"]
    assert face == expected
    for name, keys in (
        ("embed", {"embedding"}),
        ("classify", {"label", "probabilities", "entropy"}),
        ("detect", set()),
    ):
        (found,) = post(client, f"/v1/{name}", photo).json()["faces"]
        assert found == {key: face[key] for key in ({"box", "score", "landmarks"} | keys)}


@pytest.mark.parametrize("headers", [JPEG, {"content-type": "application/octet-stream"}, {"content-type": ""}])
def test_a_crop_in_a_plain_body(client, headers):
    (face,) = post(client, "/v1/embed?cropped=true", headers=headers).json()["faces"]
    np.testing.assert_allclose(face["embedding"], reference(CROPS[:1, ..., None])[0][0], atol=1e-5)
    assert face["box"] == [0, 0, 48, 48]


def test_a_form_stays_in_memory(client, monkeypatch):
    def rollover(self):
        raise AssertionError("a picture would go to a file")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rollover)
    noise = png(np.random.default_rng(0).integers(0, 256, (1000, 1000, 3)).astype(np.uint8))
    assert len(noise) > 2_500_000
    plain = post(client, "/v1/embed?cropped=true", noise).json()
    assert client.post("/v1/embed?cropped=true", files={"picture": ("a.png", noise)}).json() == plain


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"files": {"a": ("a.png", PNGS[0]), "b": ("b.png", PNGS[1])}}, "Too many files"),
        ({"files": {"a": ("a.png", PNGS[0])}, "data": {"more": "words"}}, "Too many fields"),
        ({"content": b"--x--", "headers": {"content-type": "multipart/form-data; boundary=x"}}, "holds no file"),
        ({"content": b"", "headers": {"content-type": "multipart/form-data; boundary=x"}}, "holds no file"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "Missing boundary"),
        ({"content": b"y" * 99, "headers": {"content-type": "multipart/form-data; boundary=x"}}, "cannot be read"),
    ],
)
def test_forms_that_are_none(client, sent, message):
    answer = client.post("/v1/detect", **sent)
    assert answer.status_code == 422
    assert message in answer.json()["error"]


def test_flip(client):
    crop = CROPS[:1, ..., None]
    (face,) = post(client, "/v1/embed?cropped=true&flip=true").json()["faces"]
    expected = (reference(crop)[0] + reference(crop[:, :, ::-1])[0])[0] / 2
    np.testing.assert_allclose(face["embedding"], expected, atol=1e-5)


def test_only_the_largest_faces(client_of, photo):
    pixels = np.asarray(Image.open(io.BytesIO(photo)))[:220]
    small = np.asarray(Image.fromarray(pixels).resize((384, 165)))
    both = np.full((220, 512 + 384, 3), 255, np.uint8)
    both[:, :512], both[:165, 512:] = pixels, small
    with client_of(max_faces=8) as client:
        faces = post(client, "/v1/embed", png(both)).json()["faces"]
        assert len(faces) == 2
        assert faces[0]["box"][2] < 512 < faces[1]["box"][0]
        for name in ("embed", "detect"):
            (largest,) = post(client, f"/v1/{name}?max_faces=1", png(both)).json()["faces"]
            assert largest["box"] == faces[0]["box"]
        assert post(client, "/v1/embed?max_faces=9", png(both)).status_code == 422
    with client_of(max_faces=1) as client:
        assert len(post(client, "/v1/embed", png(both)).json()["faces"]) == 1


def test_no_face_is_no_error(client):
    blank = png(np.zeros((90, 120, 3), np.uint8))
    for name in ("detect", "embed", "classify", "analyze"):
        answer = post(client, f"/v1/{name}", blank)
        assert (answer.status_code, answer.json()["faces"]) == (200, [])


def test_similarity(client):
    a, b = reference(CROPS[:2, ..., None])[0].tolist()
    answer = client.post("/v1/similarity", json={"a": a, "b": b}).json()
    assert answer == {"similarity": pytest.approx(reference_similarity(a, b), abs=1e-6), "metric": "triplet"}
    cosine = np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
    answer = client.post("/v1/similarity", json={"a": a, "b": b, "metric": "cosine"}).json()
    assert answer == {"similarity": pytest.approx(cosine, abs=1e-6), "metric": "cosine"}
    whole = [1] * DIMENSION
    assert client.post("/v1/similarity", json={"a": whole, "b": whole}).json()["similarity"] == pytest.approx(1)


VECTOR = [0.5] * DIMENSION


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[" * 500_000,
        b'{"a": 1' + b"0" * 5000 + b"}",
        json.dumps([VECTOR, VECTOR]).encode(),
        json.dumps({"a": VECTOR}).encode(),
        json.dumps({"a": VECTOR, "b": VECTOR, "c": VECTOR}).encode(),
        json.dumps({"a": VECTOR, "b": VECTOR[1:]}).encode(),
        json.dumps({"a": VECTOR, "b": [VECTOR]}).encode(),
        json.dumps({"a": VECTOR, "b": "0.5" * DIMENSION}).encode(),
        json.dumps({"a": VECTOR, "b": [*VECTOR[1:], True]}).encode(),
        json.dumps({"a": VECTOR, "b": [*VECTOR[1:], None]}).encode(),
        json.dumps({"a": VECTOR, "b": [*VECTOR[1:], 10**400]}).encode(),
        json.dumps({"a": VECTOR, "b": [*VECTOR[1:], float("nan")]}).encode(),
        json.dumps({"a": VECTOR, "b": [*VECTOR[1:], 7]}).replace("7]", "1e999]").encode(),
        json.dumps({"a": VECTOR, "b": VECTOR, "metric": "dot"}).encode(),
        json.dumps({"a": VECTOR, "b": VECTOR, "metric": None}).encode(),
        json.dumps({"a": VECTOR, "b": VECTOR, "metric": ["cosine"]}).encode(),
    ],
)
def test_vectors_that_are_none(client, body):
    answer = client.post("/v1/similarity", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert set(answer.json()) == {"error"}


def test_json_has_a_limit_of_its_own(client):
    huge = b'{"a": [' + b"1, " * 400_000 + b'1], "b": []}'
    assert client.post("/v1/similarity", content=huge).status_code == 413


# ------------------------------------------------------------------------------------------------------ what is refused


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


BOMB = (
    b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", errors.UnreadableImageError),
        (b"<svg/>", errors.UnreadableImageError),
        (PNGS[0][:-40], errors.UnreadableImageError),
        (BOMB, errors.ImageTooLargeError),
    ],
)
def test_a_bad_picture_is_told_as_by_an_analyzer(client, content, error):
    with pytest.raises(error) as raised:
        Analyzer(max_pixels=Settings().max_pixels).detect(content)
    for path in ("/v1/detect", "/v1/embed", "/v1/classify?cropped=true"):
        answer = post(client, path, content)
        assert (answer.status_code, answer.json()) == (422, {"error": str(raised.value)})


def test_mutated_pictures_get_an_answer_that_tells_nothing_of_the_server(client):
    rng = random.Random(11)
    pictures = encoded()
    statuses = set()
    for _ in range(150):
        answer = post(client, "/v1/classify?cropped=true", mutate_bytes(rng.choice(pictures), pictures, rng))
        statuses.add(answer.status_code)
        assert answer.status_code in (200, 422)
        assert not any(word in answer.text for word in ("Traceback", "site-packages", " 0x", "/home", "/tmp", ".py"))
    assert statuses == {200, 422}


@pytest.mark.parametrize(
    "query",
    ["cropped=1", "cropped=", "flip=yes", "cropped=true&cropped=true", "max_faces=0", "max_faces=65", "max_faces=1.5",
     "max_faces=-1", "max_faces=\u0661", "max_faces=" + "9" * 5000, "weights=other", "=true"],
)  # fmt: skip
def test_a_query_is_read_strictly(client, query):
    answer = post(client, f"/v1/embed?{query}")
    assert answer.status_code == 422
    assert len(answer.text) < 300


def test_what_a_path_does_not_know_is_refused(client):
    assert post(client, "/v1/detect?cropped=true").status_code == 422
    assert client.post("/v1/similarity?flip=true", json={"a": VECTOR, "b": VECTOR}).status_code == 422
    assert client.get("/v1/nothing").status_code == 404
    refused = client.get("/v1/embed")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("kind", ["text/html", "application/x-www-form-urlencoded", "application/json", "video/mp4"])
def test_other_types_are_refused_unread(client, kind):
    answer = post(client, "/v1/embed", headers={"content-type": kind})
    assert answer.status_code == 415
    assert kind in answer.json()["error"]
    assert client.post("/v1/similarity", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


def exchange(app, messages, path="/v1/embed", query=b"cropped=true", headers=()):
    """(status, body, number of messages that were taken) of one request to an ASGI application."""
    given, sent = iter(messages), []
    taken = 0

    async def receive():
        nonlocal taken
        taken += 1
        message = next(given, None)
        if message is None:
            await asyncio.Event().wait()
        return message

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": query,
        "headers": [(b"content-type", b"image/png"), *headers], "root_path": "", "http_version": "1.1",
        "scheme": "http",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]), taken


def body(data, more=False):
    return {"type": "http.request", "body": data, "more_body": more}


def test_a_body_that_says_it_is_too_large_is_not_read(client_of):
    app = client_of(max_bytes=1000).app
    for length in (b"1001", b"9" * 30, b"-1", b"many"):
        status, text, taken = exchange(app, [], headers=[(b"content-length", length)])
        assert (status, taken) == (413, 0)
        assert b"1000 bytes" in text


def test_a_body_that_turns_out_too_large_is_read_no_further(client_of):
    app = client_of(max_bytes=1000).app
    status, _, taken = exchange(app, (body(b"x" * 100, more=True) for _ in range(10**6)))
    assert (status, taken) == (413, 11)
    assert exchange(app, [body(b"x" * 500, more=True), body(b"x" * 500)])[0] == 422  # read, and no picture


def test_a_slow_body_ends(client_of):
    app = client_of(body_timeout=0.2).app
    start = time.monotonic()
    status, text, _ = exchange(app, [body(b"x", more=True)])
    assert (status, b"0.2 s" in text) == (408, True)
    assert 0.2 <= time.monotonic() - start < 2


@pytest.mark.parametrize("messages", [[], [body(PNGS[0])]])
def test_a_client_that_leaves_is_not_waited_for(client_of, messages, slow):
    app = client_of().app
    status, text, _ = exchange(app, [*messages, {"type": "http.disconnect"}])
    assert (status, text) == (499, b"")


# --------------------------------------------------------------------------------------------------- time and the queue


@pytest.fixture
def slow(monkeypatch):
    """Preparing a picture waits for this event."""
    event = threading.Event()
    prepare = Halves.prepare
    monkeypatch.setattr(Halves, "prepare", lambda *a, **k: event.wait(20) and prepare(*a, **k))
    yield event
    event.set()


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def places(client):
    (line,) = (line for line in client.get("/metrics").text.splitlines() if line.startswith("fevertools_queue "))
    return float(line.split()[1])


def test_no_answer_in_time(client_of, slow, monkeypatch):
    begun = []
    prepare = Halves.prepare
    monkeypatch.setattr(Halves, "prepare", lambda *a, **k: begun.append(1) or prepare(*a, **k))
    with client_of(timeout=0.2, queue=1) as client:
        for _ in range(4):  # more than there are threads: the place of what was given up is free at once
            answer = post(client, "/v1/embed?cropped=true")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "0.2 s" in answer.json()["error"]
        slow.set()
        until(lambda: post(client, "/v1/embed?cropped=true").status_code == 200)
        assert len(begun) == 3  # two threads were busy, and what was given up before it began is not done


def test_a_full_queue_says_come_again(client_of, slow):
    with client_of(queue=3) as client, ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(post, client, "/v1/embed?cropped=true", content) for content in PNGS[:3]]
        until(lambda: places(client) == 3)
        refused = post(client, "/v1/embed?cropped=true")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "3 places" in refused.json()["error"]
        assert [client.get(f"/health{path}").status_code for path in ("", "/live", "/ready")] == [503, 200, 503]
        assert client.get("/health/ready").json() == {"status": "busy"}
        slow.set()
        found = [future.result().json()["faces"][0]["embedding"] for future in waiting]
        np.testing.assert_allclose(found, reference(CROPS[:3, ..., None])[0], atol=1e-5)
        assert places(client) == 0
        assert client.get("/health/ready").json() == {"status": "ready"}


def test_a_place_is_taken_before_the_body_is_read(client_of, slow):
    with client_of(queue=1) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, client, "/v1/embed?cropped=true")
        until(lambda: places(client) == 1)
        status, _, taken = exchange(client.app, [body(PNGS[0])])
        assert (status, taken) == (429, 0)
        slow.set()
        assert waiting.result().status_code == 200


@pytest.mark.parametrize(("batch", "runs"), [(8, [1, 8, 3]), (1, [1] * 12), (64, [1, 11])])
def test_requests_share_runs_of_the_encoder(client_of, monkeypatch, batch, runs):
    done, first = [], threading.Event()
    finish = Halves.finish

    def gated(self, window):
        done.append(len(window))
        if len(done) == 1:
            first.wait(20)  # so that the others gather
        return finish(self, window)

    monkeypatch.setattr(Halves, "finish", gated)
    arrived = []
    prepare = Halves.prepare
    monkeypatch.setattr(Halves, "prepare", lambda *a, **k: arrived.append(1) or prepare(*a, **k))
    with client_of(batch=batch) as client, ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(post, client, "/v1/embed?cropped=true", PNGS[0])]
        until(lambda: done)
        waiting += [pool.submit(post, client, "/v1/embed?cropped=true", content) for content in PNGS[1:]]
        until(lambda: len(arrived) == 12)
        time.sleep(0.2)  # from the last picture prepared to the last in the queue
        first.set()
        found = [future.result().json()["faces"][0]["embedding"] for future in waiting]
        text = client.get("/metrics").text
    np.testing.assert_allclose(found, reference(CROPS[..., None])[0], atol=1e-5)  # each its own
    assert done == runs
    assert f"fevertools_batch_faces_count {float(len(runs))}" in text
    assert "fevertools_batch_faces_sum 12.0" in text


def test_what_fails_inside_is_not_told(client_of, monkeypatch):
    def fail(self, window):
        raise errors.WeightsIntegrityError("the file /secret/place.onnx is broken")

    monkeypatch.setattr(Halves, "finish", fail)
    client = client_of()
    for _ in range(2):  # and the thread lives on
        answer = post(client, "/v1/embed?cropped=true")
        assert answer.status_code == 500
        assert answer.json() == {"error": "the server failed; its log says why"}


# ----------------------------------------------------------------------------------------------------- health, metrics


def test_health_says_what_is_served(client, triplet_weights):
    answer = client.get("/health").json()
    assert answer["weights"] == identity(Analyzer(triplet_weights).entry)
    assert answer["status"] == "ready"


def test_metrics_count_by_path_and_status(client):
    post(client, "/v1/embed?cropped=true")
    post(client, "/v1/embed?cropped=true", b"broken")
    for number in range(3):
        client.get(f"/made-up/{number}")
    text = client.get("/metrics").text
    assert 'fevertools_requests_total{path="/v1/embed",status="200"} 1.0' in text
    assert 'fevertools_requests_total{path="/v1/embed",status="422"} 1.0' in text
    assert 'fevertools_requests_total{path="other",status="404"} 3.0' in text
    assert 'fevertools_request_seconds_count{path="/v1/embed"} 2.0' in text
    assert "made-up" not in text
    assert "fevertools_queue 0.0" in text


def test_nothing_is_written(client, caplog):
    written, watched = [], True

    def hook(event, arguments):
        if watched and event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            written.append(arguments[0])

    sys.addaudithook(hook)
    client.post("/v1/embed?cropped=true", files={"picture": ("my-face.png", PNGS[0])})
    post(client, "/v1/embed", b"broken")
    watched = False
    assert written == []
    assert not any("fevertools" in record.name for record in caplog.records)


# ------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "setting",
    [{"queue": 0}, {"batch": 1.5}, {"max_bytes": True}, {"max_faces": -1}, {"timeout": 0}, {"timeout": float("inf")},
     {"timeout": float("nan")}, {"body_timeout": "5"}, {"max_pixels": None}],
)  # fmt: skip
def test_settings_are_checked(setting):
    with pytest.raises(errors.OptionError, match=next(iter(setting))):
        Settings(**setting)


def test_unknown_weights_are_told_before_anything_is_served():
    with pytest.raises(errors.UnknownWeightsError, match="nothing"):
        create_app(Settings(weights="nothing"))
