"""An OpenAPI document as one page of HTML, without scripts, and without a network."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any, Final

HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
"""With these a browser holds the page to what it promises."""

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 code { font-size: 1.1rem; } table { border-collapse: collapse; } td { padding: .1rem 1rem .1rem 0; }
td { vertical-align: top; } pre { overflow: auto; padding: .5rem; border: 1px solid #8884; }
section { border-top: 1px solid #8884; }
"""


def render(description: dict[str, Any], example: str) -> str:
    """The page.

    Args:
        description: an OpenAPI 3.1 document.
        example: a command to begin with.
    """
    info = description["info"]
    operations = "".join(
        _operation(path, method, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        f'<section id="{escape(name)}"><h2>{escape(name)}</h2>'
        f"<pre>{escape(json.dumps(schema, indent=2))}</pre></section>"
        for name, schema in description["components"]["schemas"].items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f'<p>{escape(info["description"])} For programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"<pre>{escape(example)}</pre>{operations}<h1>Schemas</h1>{schemas}</body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    body = operation.get("requestBody", {})
    tables: dict[str, list[tuple[str, ...]]] = {
        "Query": [
            (escape(f"{given['name']}="), escape(given["description"]), escape(json.dumps(given["schema"])))
            for given in operation.get("parameters", ())
        ],
        "Body": [(escape(kind), _schema(media)) for kind, media in body.get("content", {}).items()],
        "Answers": [
            (code, escape(answer["description"]), *map(_schema, answer["content"].values()))
            for code, answer in operation["responses"].items()
        ],
    }
    return (
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])} "
        f"{escape(body.get('description', ''))}</p>"
        + "".join(_table(title, rows) for title, rows in tables.items() if rows)
        + "</section>"
    )


def _table(title: str, rows: Sequence[Sequence[str]]) -> str:
    lines = "".join(f"<tr><td>{'</td><td>'.join(cells)}</td></tr>" for cells in rows)
    return f"<h3>{title}</h3><table>{lines}</table>"


def _schema(media: dict[str, Any]) -> str:
    """A link to a schema that has a name, or the schema itself, as HTML."""
    schema = media.get("schema", {})
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    return f"<code>{escape(json.dumps(schema))}</code>" if schema else ""
