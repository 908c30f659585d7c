"""What the API page shows of docstrings."""

import pytest

pytest.importorskip("griffe", reason="needs the extra `docs`")

import griffe

from tests.docs._load import DOCS, load


@pytest.fixture(scope="module")
def package():
    extensions = griffe.load_extensions(load("docstrings").Habits)
    return griffe.load("fevertools", search_paths=[DOCS.parent], extensions=extensions, submodules=True)


def test_the_comment_beside_a_field_is_its_documentation(package):
    assert package["types.Face.box"].docstring.value.startswith("(4,) x1, y1, x2, y2")
    assert package["manifest.WeightsFile.size"].docstring.value == "bytes"
    assert package["types.Float32"].docstring is None


def test_an_example_is_a_section_of_doctests(package):
    kinds = [section.kind.value for section in package["embed"].docstring.parse("google")]
    assert kinds[-1] == "examples"


def test_every_public_name_is_on_the_page(package):
    import fevertools

    page = (DOCS / "api.md").read_text("utf-8")
    whole = ("fevertools.types", "fevertools.errors", "fevertools.labels")  # all that is in these
    assert all(f"::: {module}\n" in page for module in whole)
    for name in set(fevertools.__all__) - {"errors", "__version__", "similarity"}:
        home = getattr(getattr(fevertools, name), "__module__", "fevertools.labels")
        assert home in whole or f"::: fevertools.{name}\n" in page, name
    assert "::: fevertools.similarity.similarity\n" in page
