"""What a fork takes along: nothing after an import, a clear refusal after use, and children that end."""

import os
import subprocess
import sys
import textwrap

import pytest

from tests.cli.conftest import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def forked(before, child):
    """Run code, fork, run code in the child, end it in the way of Python. What the child prints; it has 60 seconds."""
    code = (
        "import os, sys, threading, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"  # Python 3.12 tells of forks beside threads
        "import numpy as np, fevertools as ft\n"
        "from fevertools import Analyzer, FevertoolsError\n"
        "crop = np.zeros((48, 48), np.uint8)\n"
        f"{textwrap.dedent(before)}\n"
        "sys.stdout.flush()\n"
        "if os.fork() == 0:\n"
        f"{textwrap.indent(textwrap.dedent(child), '    ')}\n"
        "    sys.exit(7)\n"
        "print('parent saw', os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    *lines, last = done.stdout.splitlines()
    assert last == "parent saw 7"
    return lines


USE = "print(analyzer.embed(crop, cropped=True).shape, len(analyzer.detect(np.zeros((99, 99), np.uint8))))"


def test_fork_after_import():
    assert forked("", f"analyzer = Analyzer()\n{USE}") == ["(1, 256) 0"]


def test_fork_after_an_analyzer_was_made_and_not_used():
    assert forked("analyzer = Analyzer()", USE) == ["(1, 256) 0"]


@pytest.mark.parametrize("threads", [1, 2, None])
@pytest.mark.parametrize("used", ["embed(crop, cropped=True)", "detect(np.zeros((99, 99), np.uint8))"])
def test_fork_after_use_is_refused_in_the_child(threads, used):
    """Each use raises, at once; a new Analyzer works; and the child ends, also after it drops what it inherited."""
    child = f"""
    stream = lambda crop: analyzer.stream([crop])
    for use in (analyzer.detect, analyzer.embed, analyzer.classify, analyzer.analyze, stream):
        try:
            use(crop)
        except FevertoolsError as error:
            print(error)
    analyzer.close()
    with Analyzer(threads={threads}) as analyzer:
        {USE}
    """
    lines = forked(f"analyzer = Analyzer(threads={threads})\nanalyzer.{used}", child)
    assert len(lines) == 6
    assert len(set(lines[:5])) == 1
    assert "before a fork" in lines[0]
    assert "make a new one in the child" in lines[0]
    assert lines[5] == "(1, 256) 0"


def test_fork_in_the_middle_of_a_stream():
    before = "analyzer = Analyzer()\nstream = analyzer.stream([crop] * 50, cropped=True)\nnext(stream)"
    child = """
    try:
        next(stream)
    except FevertoolsError as error:
        print(error)
    """
    (line,) = forked(before, child)
    assert "before a fork" in line


def test_the_functions_of_the_package_load_anew_in_a_child():
    """More children than Analyzers are shared, so that inherited ones are given up."""
    use = "print(ft.embed(crop, cropped=True).shape, len(ft.detect(np.zeros((99, 99), np.uint8))))"
    sizes = "for size in (20, 30, 40, 50, 60, 70): ft.detect(np.zeros((99, 99), np.uint8), min_face_size=size)"
    assert forked(f"{use}\n{sizes}", f"{use}\n{sizes}\n{use}") == ["(1, 256) 0"] * 3


def test_fork_while_another_thread_loads_the_networks():
    before = """
    from fevertools import pipeline
    loading, go_on = threading.Event(), threading.Event()
    resolve = pipeline.resolve
    def slow(*arguments, **options):
        loading.set()
        go_on.wait(20)
        return resolve(*arguments, **options)
    pipeline.resolve = slow
    analyzer = Analyzer()
    thread = threading.Thread(target=analyzer.embed, args=(crop,), kwargs={"cropped": True}, daemon=True)
    thread.start()
    loading.wait()
    """
    child = """
    try:
        analyzer.embed(crop, cropped=True)
    except FevertoolsError as error:
        print(error)
    """
    (line,) = forked(before, child)
    assert "before a fork" in line
