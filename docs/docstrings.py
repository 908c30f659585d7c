"""griffe: what docstrings of this project have that mkdocstrings would not show."""

import re
from typing import Any

import griffe


class Habits(griffe.Extension):
    """`Example:` is a section of doctests, and the comment beside a field of a dataclass is its documentation."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
        elif obj.is_attribute and obj.parent is not None and obj.parent.is_class:
            _, _, comment = obj.source.partition("  # ")
            if comment:
                obj.docstring = griffe.Docstring(comment, parent=obj)
