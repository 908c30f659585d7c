"""The OpenAPI document: true of what the server does, by schemathesis, and shown without a network."""

import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("schemathesis", reason="needs the extra `dev`")
pytest.importorskip("starlette", reason="needs the extra `serve`")

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from starlette.testclient import TestClient

from fevertools.labels import EMOTIONS
from fevertools.serve import Settings, create_app
from fevertools.serve.openapi import ANSWERS, PICTURES

FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP", "image/gif": "GIF", "image/bmp": "BMP",
           "image/tiff": "TIFF"}  # fmt: skip


def encoded(kind, value):
    file = io.BytesIO()
    Image.fromarray(np.full((48, 48, 3), value, np.uint8)).save(file, FORMATS[kind])
    return file.getvalue()


@pytest.fixture(scope="module")
def app(triplet_weights):
    made = create_app(Settings(weights=triplet_weights, device="cpu", threads=1, max_faces=8))
    yield made
    made.state.service.close()


@pytest.fixture(scope="module")
def client(app):
    return TestClient(app)


@pytest.fixture(scope="module")
def api(app):
    # Any bytes are a string of format binary, but pictures are few among them.
    for kind in FORMATS:
        schemathesis.openapi.media_type(kind, st.integers(0, 255).map(lambda value, kind=kind: encoded(kind, value)))
    schemathesis.openapi.media_type("application/octet-stream", st.just(encoded("image/png", 7)))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


OPERATIONS = (
    *(("POST", f"/v1/{name}") for name in (*ANSWERS, "similarity")),
    *(("GET", path) for path in ("/health", "/health/live", "/health/ready", "/metrics", "/openapi.json", "/")),
)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        (method, path, mode.value)
        for method, path in OPERATIONS
        for mode in GenerationMode
        if method == "POST" or mode is GenerationMode.POSITIVE  # nothing can be wrong where nothing is asked
    ],
)
def test_the_server_does_what_its_document_says(api, method, path, mode):
    operation = api[path][method]

    @given(operation.as_strategy(generation_mode=GenerationMode(mode)))
    @settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def holds(case):
        case.call_and_validate()

    holds()


def test_the_document_is_openapi_3_1_and_names_every_path(app, client):
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {route.path for route in app.routes}
    for path, methods in document["paths"].items():
        assert {method.upper() for method in methods} == {
            method for route in app.routes if route.path == path for method in route.methods - {"HEAD"}
        }
    refusals = {"408", "413", "415", "422", "429", "500", "503"}
    assert all(
        set(operation["post"]["responses"]) == {"200", *refusals}
        for path, operation in document["paths"].items()
        if path.startswith("/v1")
    )
    schemas = document["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references == set(schemas)
    face = schemas["Analyze"]["properties"]["faces"]["items"]["properties"]
    assert face["probabilities"]["required"] == face["label"]["enum"] == list(EMOTIONS)
    assert face["embedding"]["minItems"] == face["embedding"]["maxItems"] == 16
    assert list(FORMATS) == list(PICTURES)


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links, self.ids, self.open = set(), [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("href", "src", "action", "data")]
        self.ids |= {value for name, value in attrs if name == "id"}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_no_network_and_no_scripts(client):
    answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    page = Page()
    page.feed(answer.text)
    assert page.open == []
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert {link for link in page.links if not link.startswith("#")} == {"openapi.json"}
    assert {link[1:] for link in page.links if link.startswith("#")} == page.ids
    assert "@import" not in answer.text
    assert "url(" not in answer.text
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in answer.text
