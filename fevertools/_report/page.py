"""Facts -> one HTML page that holds its style, its script and its pictures, and may load nothing."""

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from importlib import resources
from string import Template
from typing import Any, Final

_SCRIPTS: Final = ("parts.js", "panel.js", "map.js", "sections.js", "start.js")
"""One module in this order."""

_POLICY: Final = (
    "default-src 'none'; img-src data:; script-src '{script}'; style-src '{style}'; base-uri 'none'; form-action 'none'"
)
"""No network at all, and no script or style but those whose hashes these are."""


def render(facts: Mapping[str, Any], title: str) -> str:
    """The page.

    Args:
        facts: what the script shows, in plain JSON values.
        title: of the page.

    Returns:
        HTML. Whatever the facts hold, none of it is read as markup or script.
    """
    style = _asset("page.css")
    script = "\n".join(map(_asset, _SCRIPTS))
    return Template(_asset("page.html")).substitute(
        policy=_POLICY.format(script=_digest(script), style=_digest(style)),
        title=escape(title),
        style=style,
        data=script_json(facts),
        script=script,
    )


def script_json(value: object) -> str:
    """JSON that may stand in a script element: no character of it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _asset(name: str) -> str:
    return resources.files("fevertools._report").joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    """What a policy calls an inline element: the hash of the text between its tags."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"
