"""The interface in words: an OpenAPI document."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from fevertools.labels import EMOTIONS, LANDMARKS
from fevertools.manifest import WeightsEntry
from fevertools.serve.settings import Settings

Schema: TypeAlias = dict[str, Any]

ANSWERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "detect": ("box", "score", "landmarks"),
        "embed": ("box", "score", "landmarks", "embedding"),
        "classify": ("box", "score", "landmarks", "label", "probabilities", "entropy"),
        "analyze": ("box", "score", "landmarks", "embedding", "label", "probabilities", "entropy"),
    }
)
"""What is asked of a picture -> what is told of each face: keys of `FaceResult.to_dict`."""

QUERIES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {name: ("max_faces",) if name == "detect" else ("cropped", "flip", "max_faces") for name in ANSWERS}
)
"""What is asked of a picture -> names in its query."""

PICTURES: Final = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff")

_FLAG: Final[Schema] = {"type": "boolean", "default": False}
_SUMMARIES: Final = MappingProxyType(
    {
        "detect": "Find faces: box, score and five landmarks of each.",
        "embed": "One expression embedding per face.",
        "classify": "Label, probabilities of eight emotions and entropy of each face.",
        "analyze": "Embedding and emotions of each face at once.",
    }
)
_REFUSALS: Final = MappingProxyType(
    {
        "408": "The body took too long.",
        "413": "The body has too many bytes.",
        "415": "The body is of another type.",
        "422": "The picture, the vectors or the query cannot be used; `error` says why.",
        "429": "As many requests as the queue takes are here already; try again after `Retry-After` seconds.",
        "500": "The server failed.",
        "503": "There was no answer in time; try again after `Retry-After` seconds.",
    }
)


def describe(settings: Settings, entry: WeightsEntry, version: str) -> Schema:
    """The OpenAPI 3.1 document of a server with these settings and weights."""
    pictures = {f"/v1/{name}": {"post": _picture(name, settings)} for name in ANSWERS}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fevertools",
            "version": version,
            "description": "Expression embeddings of faces. How a face looks to people, not what a person feels; "
            "not for decisions about people, and not for telling who they are. No picture is stored.",
        },
        "paths": {
            **pictures,
            "/v1/similarity": {"post": _similarity()},
            "/health": {"get": _state("Version, weights and whether requests are taken now.", "Health")},
            "/health/live": {"get": _state("Whether the server runs.", "State", busy=False)},
            "/health/ready": {"get": _state("Whether requests are taken now.", "State")},
            "/metrics": {"get": _text("Counters and times, for Prometheus.", "text/plain")},
            "/openapi.json": {"get": _text("This document.", "application/json")},
            "/": {"get": _text("This document as a page.", "text/html")},
        },
        "components": {"schemas": _schemas(entry)},
    }


def _picture(name: str, settings: Settings) -> Schema:
    raw: Schema = {"schema": {"type": "string", "format": "binary"}}
    form: Schema = {
        "schema": {
            "type": "object",
            "properties": {"image": {"type": "string", "format": "binary"}},
            "required": ["image"],
            "additionalProperties": False,
        },
        "encoding": {"image": {"contentType": ", ".join(PICTURES)}},
    }
    types = dict.fromkeys((*PICTURES, "application/octet-stream"), raw)
    return {
        "operationId": name,
        "summary": _SUMMARIES[name],
        "parameters": [_parameter(query, settings) for query in QUERIES[name]],
        "requestBody": {
            "required": True,
            "description": f"One picture, of {settings.max_bytes} bytes and {settings.max_pixels} pixels at the most.",
            "content": {**types, "multipart/form-data": form},
        },
        "responses": {"200": _json("The faces, largest first.", name.title()), **_refusals()},
    }


def _parameter(name: str, settings: Settings) -> Schema:
    most = settings.max_faces
    texts: Mapping[str, tuple[str, Schema]] = {
        "cropped": ("The picture is one face, framed as the weights expect; detect nothing.", _FLAG),
        "flip": ("Average with the mirror image; twice the work.", _FLAG),
        "max_faces": (
            "Only so many of the largest faces.",
            {"type": "integer", "minimum": 1, "maximum": most, "default": most},
        ),
    }
    text, schema = texts[name]
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _similarity() -> Schema:
    return {
        "operationId": "similarity",
        "summary": "How alike two expressions look: 1 is the same, 0 unrelated, -1 the opposite.",
        "requestBody": {"required": True, "content": _content("Vectors")},
        "responses": {"200": _json("Their similarity.", "Similarity"), **_refusals()},
    }


def _state(text: str, schema: str, *, busy: bool = True) -> Schema:
    full = {"503": _json("The queue is full.", schema)} if busy else {}
    return {"summary": text, "responses": {"200": _json(text, schema), **full}}


def _text(text: str, kind: str) -> Schema:
    return {"summary": text, "responses": {"200": {"description": text, "content": {kind: {}}}}}


def _refusals() -> Schema:
    return {code: _json(text, "Error") for code, text in _REFUSALS.items()}


def _json(text: str, schema: str) -> Schema:
    return {"description": text, "content": _content(schema)}


def _content(schema: str) -> Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


# ------------------------------------------------------------------------------------------------------------- schemas


def _schemas(entry: WeightsEntry) -> Schema:
    word: Schema = {"type": "string"}
    vector = _numbers(entry.dimension, "An embedding that these weights made.")
    probability: Schema = {"type": "number", "minimum": 0, "maximum": 1}
    weights = _object({"name": word, "version": word, "sha256": word})
    of_a_face = {
        "box": _numbers(4, "x1, y1, x2, y2 in pixels of the upright picture."),
        "score": probability,
        "landmarks": {
            "type": "array",
            "description": f"x, y in pixels: {', '.join(LANDMARKS)}.",
            "items": _numbers(2, "x, y"),
            "minItems": len(LANDMARKS),
            "maxItems": len(LANDMARKS),
        },
        "embedding": vector,
        "label": {"enum": list(EMOTIONS)},
        "probabilities": _object(dict.fromkeys(EMOTIONS, probability)),
        "entropy": {"type": "number", "minimum": 0, "description": "nats"},
    }
    answers = {
        name.title(): _object(
            {"faces": {"type": "array", "items": _object({key: of_a_face[key] for key in keys})}}
            | ({} if name == "detect" else {"weights": weights})
        )
        for name, keys in ANSWERS.items()
    }
    metric: Schema = {"enum": ["triplet", "cosine"]}
    return {
        **answers,
        "Vectors": {**_object({"a": vector, "b": vector, "metric": metric}), "required": ["a", "b"]},
        "Similarity": _object({"similarity": {"type": "number", "minimum": -1, "maximum": 1}, "metric": metric}),
        "State": _object({"status": {"enum": ["live", "ready", "busy"]}}),
        "Health": _object({"status": {"enum": ["ready", "busy"]}, "version": word, "weights": weights}),
        "Error": _object({"error": {"type": "string", "description": "What is wrong, and what to do."}}),
    }


def _object(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _numbers(count: int, text: str) -> Schema:
    return {
        "type": "array",
        "description": text,
        "items": {"type": "number"},
        "minItems": count,
        "maxItems": count,
    }
