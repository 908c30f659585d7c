"""What the type checkers read also runs."""

from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("skops", reason="needs the extra `sklearn`")
pytest.importorskip("starlette", reason="needs the extra `serve`")

from tests.typing import user, user_of_tables


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    data = pytest.importorskip("skimage.data")
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(data.astronaut()[:300, 80:380]).save(path)
    return Path(path)


def test_everything_public_that_is_typed_runs(photo, tmp_path):
    user.functions(photo)
    user.sessions([photo])
    user.pictures(photo)
    user.kept(tmp_path)
    user.probes([photo], tmp_path)
    user.doors([photo], tmp_path)


def test_tables_run(photo, tmp_path):
    pytest.importorskip("polars")
    user_of_tables.files([photo], tmp_path)
