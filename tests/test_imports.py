"""What importing costs, and which module may import which."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fevertools"

# Each module imports from lower levels only, never from its own.
LEVELS = (
    {"errors", "labels"},
    {"types", "options", "_onnx"},
    {"image", "align", "preprocess", "session", "similarity", "streaming", "manifest", "_mtcnn", "_canvas"},
    {"hub", "tables", "drawing", "_report", "_draft"},
    {"weights"},
    {"detector", "encoder"},
    {"pipeline"},
    {"__init__"},
    {"cli", "sklearn", "video", "report", "ray", "serve"},
    {"__main__"},
)
LEVEL = {module: level for level, modules in enumerate(LEVELS) for module in modules}


def fresh(code):
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent, timeout=60
    )
    return json.loads(run.stdout)


def test_import_does_no_work():
    found = fresh(
        "import json, os, sys, threading\n"
        "import numpy, onnxruntime, cv2\n"  # OpenCV prepends to LD_LIBRARY_PATH
        "before = dict(os.environ)\n"
        "import fevertools\n"
        "print(json.dumps({'modules': sorted({name.split('.')[0] for name in sys.modules}),\n"
        "                  'threads': threading.active_count(),\n"
        "                  'environment': dict(os.environ) == before}))"
    )
    heavy = {"torch", "torchvision", "huggingface_hub", "facenet_pytorch", "sklearn", "pyarrow", "onnx", "rich"}
    assert not heavy & set(found["modules"])
    assert found["threads"] == 1
    assert found["environment"]


def test_import_makes_no_session_and_reads_no_weights():
    opened = fresh(
        "import json, sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "import fevertools\n"
        "print(json.dumps([path for path in opened if path.endswith(('.onnx', '.json'))]))"
    )
    assert opened == []


def test_import_is_quick():
    code = (
        "import json, time\n"
        "import numpy, onnxruntime, cv2\n"
        "start = time.perf_counter()\n"
        "import fevertools\n"
        "print(json.dumps(time.perf_counter() - start))"
    )
    # The best of several, for the machine may be busy.
    assert min(fresh(code) for _ in range(4)) < 0.3


def module_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """(line, module below fevertools) of every import of ours, also inside functions. "" is the package itself."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "fevertools":
                below = parts[1] if len(parts) > 1 else ""
                known = below in LEVEL or below == "train"
                yield node.lineno, below if known else "__init__"


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if module_of(path) not in ("train", "cli")],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_inference_imports_downward_only(path):
    own = module_of(path)
    assert own in LEVEL, f"{own} has no level: add it to LEVELS"
    for line, module in imports_of(path):
        inside = module == own and len(path.relative_to(PACKAGE).parts) > 1  # modules of one sub-package
        assert inside or LEVEL.get(module, 99) < LEVEL[own], f"{path.name}:{line} imports {module}"


def test_nothing_outside_of_train_imports_it():
    for path in SOURCES:
        if module_of(path) != "train":
            assert "train" not in {module for _, module in imports_of(path)}, path


def test_only_the_package_and_its_doors_import_the_pipeline():
    doors = LEVELS[-2] | {"__init__", "train"}
    users = {module_of(path) for path in SOURCES if "pipeline" in {module for _, module in imports_of(path)}}
    assert users <= doors


def test_the_ground_floor_needs_no_package_of_ours():
    for name in ("errors", "labels"):
        assert list(imports_of(PACKAGE / f"{name}.py")) == []


def test_training_without_its_extra_says_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None; import fevertools.train.__main__ as m; sys.exit(m.main(['fit', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "fevertools[train]" in done.stderr
    assert "Traceback" not in done.stderr
