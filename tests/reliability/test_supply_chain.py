"""The lock file of CI has what pyproject.toml asks for, and nothing that would hinder another machine."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("packaging")

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def requirements(path):
    lines = (ROOT / ".ci" / path).read_text("ascii").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def locked():
    """Name -> version."""
    found = {item.name: next(iter(item.specifier)).version for item in requirements("lock.txt")}
    assert list(found) == sorted(found)
    assert all(name == canonicalize_name(name) for name in found)
    return found


def test_every_line_of_the_lock_is_an_exact_version():
    for item in requirements("lock.txt"):
        (specifier,) = item.specifier
        assert (specifier.operator, item.url, item.extras) == ("==", None, set())
        assert "*" not in specifier.version


def test_what_the_project_asks_for_is_locked_to_a_version_that_it_allows(project, locked):
    extras = project["project"]["optional-dependencies"]
    asked = [project["project"]["dependencies"], *extras.values(), project["build-system"]["requires"]]
    asked = [Requirement(line) for part in asked for line in part] + requirements("tools.txt")
    for item in asked:
        name = canonicalize_name(item.name)
        if name in ("fevertools", "torch", "torchvision"):
            continue
        assert name in locked, f"{name} is not in the lock; run python .ci/lock.py"
        assert item.specifier.contains(locked[name], prereleases=True), f"{item} but {locked[name]} is locked"


def test_torch_has_its_home_in_the_constraints(locked):
    assert not {"torch", "torchvision"} & set(locked)
    pinned = {(item.name, str(item.marker)) for item in requirements("constraints.txt")}
    assert len(pinned) == 4  # two packages, two platforms


def test_cuda_packages_are_for_the_platform_whose_torch_has_them():
    cuda = [item for item in requirements("lock.txt") if re.match(r"nvidia-|cuda-|triton", item.name)]
    assert len(cuda) > 10
    for item in cuda:
        assert item.marker is not None
        assert not item.marker.evaluate({"platform_machine": "aarch64"})
        assert item.marker.evaluate({"platform_machine": "x86_64"})


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_installed_beside_the_lock_is_named(monkeypatch, tmp_path):
    lock = load_script("lock")
    monkeypatch.setattr(lock, "LOCK", tmp_path / "lock.txt")
    lock.write({"pytest": "0.1", "triton": "3", "numpy": "1", "torch": "9"})
    assert (tmp_path / "lock.txt").read_text("ascii").splitlines()[1:] == [
        "numpy==1",
        "pytest==0.1",
        'triton==3; platform_machine == "x86_64"',
    ]
    assert f"pytest=={pytest.__version__}" in lock.strangers()
    lock.write({"pytest": pytest.__version__})
    assert f"pytest=={pytest.__version__}" not in lock.strangers()


@pytest.mark.parametrize(
    ("answers", "code", "word"),
    [
        ([[]], 0, "SKIPPED"),  # nobody answers
        ([[{"name": "pillow", "skip_reason": "not found"}]], 0, "SKIPPED"),  # an index without such a service
        ([[{"name": "pillow", "version": "9", "vulns": [{"id": "A-1"}]}], [{"name": "x", "version": "1", "vulns": []}]],
         0, "1 packages asked for, 0 unknown, 0 vulnerabilities"),
        ([[{"name": "pillow", "version": "9", "vulns": [{"id": "A-1"}]}],
          [{"name": "x", "version": "1", "vulns": [{"id": "A-2"}]}]], 1, "x 1: A-2: NOT EXPLAINED"),
        ([[{"name": "pillow", "version": "9", "vulns": [{"id": "A-1"}]}],
          [{"name": "x", "version": "1", "vulns": [{"id": "A-3"}]}]], 0, "x 1: A-3: never called"),
        ([[{"name": "pillow", "version": "9", "vulns": [{"id": "A-1"}]}], []], 0, "SKIPPED"),  # gone meanwhile
    ],
)  # fmt: skip
def test_an_audit_is_clean_explained_or_skipped(answers, code, word, monkeypatch, capsys):
    audit = load_script("audit")
    replies = {False: answers[0], True: answers[-1]}  # to the question for one package, and to that for all
    monkeypatch.setattr(audit, "audit", lambda service, *files: replies[len(files) > 1])
    monkeypatch.setattr(audit, "EXPLAINED", {"A-3": "never called"})
    assert audit.main() == code
    assert word in capsys.readouterr().out
