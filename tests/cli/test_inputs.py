import os

import pytest

from fevertools.cli._inputs import Input, expand
from tests.cli.conftest import ORDER


def paths(*arguments):
    problems = []
    return [image.path for image in expand(arguments, problems.append)], problems


def test_folder_is_sorted_recursive_and_without_hidden_files(crops):
    assert paths("crops") == (ORDER, [])


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("crops/*.png", [ORDER[0], ORDER[1], ORDER[4]]),
        ("crops/**/*.bmp", [ORDER[3]]),
        ("crops/[ab].png", ORDER[:2]),
        ("crops/*.txt", ["crops/notes.txt"]),
        ("crops/*", ORDER),  # a matched folder is searched; what is no image is left out
    ],
)
def test_pattern(crops, pattern, expected):
    assert paths(pattern) == ([os.path.normpath(path) for path in expected], [])


def test_a_file_that_looks_like_a_pattern_is_itself(crops):
    (crops / "a.png").rename(crops / "x[1].png")
    assert paths("crops/x[1].png") == (["crops/x[1].png"], [])


def test_what_is_named_twice_comes_once(crops):
    assert paths("crops/b.png", "crops", "crops/*.png")[0] == [ORDER[1], ORDER[0], *ORDER[2:]]


def test_stdin_lists_paths_literally(crops, feed):
    feed(b"crops/b.png\r\n\ncrops/below\nno*such.png\n")
    assert paths("-") == (["crops/b.png", *ORDER[2:4], "no*such.png"], [])


@pytest.mark.skipif(os.name == "nt", reason="Windows file names are text")
def test_stdin_takes_names_that_are_not_utf8(feed):
    feed(b"\xff.png\n")
    assert os.fsencode(paths("-")[0][0]) == b"\xff.png"


def test_inputs_without_images_are_told(crops):
    (crops / "empty").mkdir()
    found, problems = paths("crops/empty", "crops/*.gif", "crops/a.png")
    assert found == ["crops/a.png"]
    assert len(problems) == 2
    assert "crops/empty" in problems[0]
    assert "crops/*.gif" in problems[1]


def test_a_missing_file_is_passed_on(crops):
    assert paths("missing.jpg") == (["missing.jpg"], [])


def test_names_are_those_below_the_folder(crops):
    found = list(expand(["crops/below", "crops/a.png"], pytest.fail))
    assert found == [
        Input("crops/below/c.PNG", "c.PNG"),
        Input("crops/below/d.bmp", "d.bmp"),
        Input("crops/a.png", "a.png"),
    ]


def test_links_that_loop_end(crops):
    try:
        (crops / "below" / "loop").symlink_to(crops, target_is_directory=True)
        (crops / "gone.png").symlink_to(crops / "nothing.png")
    except OSError:
        pytest.skip("no symbolic links here")
    assert paths("crops")[0] == [*ORDER[:4], os.path.join("crops", "gone.png"), ORDER[4]]


def test_folders_are_listed_only_when_reached(crops, monkeypatch):
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    images = expand(["crops", "crops/below"], pytest.fail)
    assert next(images).path == ORDER[0]
    assert listed == ["crops"]
