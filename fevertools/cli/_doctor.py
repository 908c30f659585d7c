"""fevertools doctor: is this installation whole?"""

import argparse
import importlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import Any, Final

from fevertools.cli._parser import FAILED, FINE
from fevertools.errors import FevertoolsError

_MODULES: Final = ("fevertools", "numpy", "onnxruntime", "cv2", "PIL", "huggingface_hub")
_RIVALS: Final = (
    (
        "onnxruntime",
        ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-migraphx",
         "onnxruntime-rocm", "onnxruntime-qnn"),
        "then install one again: pip install --force-reinstall onnxruntime, or onnxruntime-gpu for NVIDIA",
    ),
    (
        "cv2",
        ("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
        "then install one again: pip install --force-reinstall opencv-python-headless",
    ),
)  # fmt: skip
"""Module, distributions that all install it and so overwrite each other, and the mend."""


@dataclass(slots=True)
class _Report:
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def check(self, name: str, look: Callable[[], Any]) -> None:
        """Keep what `look` finds. Its failure is a problem, and no reason not to look further."""
        try:
            self.facts[name] = look()
        except (FevertoolsError, ImportError, OSError) as error:
            self.facts[name] = None
            self.problems.append(f"{name}: {error}")


def doctor(options: argparse.Namespace) -> int:
    """`fevertools doctor`."""
    report = _Report()
    report.facts["python"] = f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    for module in _MODULES:
        report.check(module, partial(_version, module))
    report.facts["packages"] = {module: _installed(names) for module, names, _ in _RIVALS}
    report.problems.extend(_rivalry())
    report.check("providers", _providers)
    report.check("devices", _devices)
    report.check("int8", _int8)
    report.check("cache", _cache)
    report.check("detector", lambda: _weights("detector"))
    report.check("encoder", lambda: _weights("encoder"))
    report.check("detection_test", _detection_test)
    report.check("encoding_test", _encoding_test)
    if options.json:
        print(json.dumps({"ok": not report.problems, "problems": report.problems, **report.facts}, indent=2))
    else:
        _print(report)
    return FAILED if report.problems else FINE


def _print(report: _Report) -> None:
    width = max(map(len, report.facts))
    for name, fact in report.facts.items():
        print(f"{name:<{width}}  {_text(fact)}")
    for problem in report.problems:
        print(f"PROBLEM: {problem}")
    print("all well" if not report.problems else f"{len(report.problems)} to mend")


def _text(fact: Any) -> str:
    if fact is None:
        return "BROKEN, see below"
    if isinstance(fact, dict):
        return ", ".join(f"{name}: {_text(value)}" for name, value in fact.items())
    return ", ".join(map(str, fact)) or "none" if isinstance(fact, list | tuple) else str(fact)


def _version(module: str) -> str:
    if module == "onnxruntime":
        from fevertools.session import runtime

        return str(runtime().__version__)
    return str(getattr(importlib.import_module(module), "__version__", "unknown"))


def _installed(names: tuple[str, ...]) -> list[str]:
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def _rivalry() -> list[str]:
    problems = []
    for module, names, mend in _RIVALS:
        found = _installed(names)
        if len(found) > 1:
            remove = " ".join(name.split()[0] for name in found)
            problems.append(
                f"{module}: {' and '.join(found)} are both installed, and each overwrites files of the other: "
                f"pip uninstall -y {remove}, {mend}"
            )
    return problems


def _providers() -> list[str]:
    from fevertools.session import runtime

    return list(runtime().get_available_providers())


def _devices() -> list[str]:
    from fevertools.session import available_devices

    return list(available_devices())


def _int8() -> str:
    """Whether this CPU is fast at `--precision int8`."""
    from fevertools.session import INT8_INSTRUCTIONS, int8_instructions

    found = int8_instructions()
    if found is None:
        return "perhaps fast: this system does not tell which instructions its CPU has"
    words = ", ".join(INT8_INSTRUCTIONS[name] for name in found)
    return f"fast: {words}" if found else f"hardly faster than float32: none of {', '.join(INT8_INSTRUCTIONS.values())}"


def _cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def _weights(kind: str) -> str:
    from fevertools.manifest import load_manifest
    from fevertools.weights import resolve

    entry = load_manifest().entry(None, kind)
    resolve(entry, local_files_only=True)
    return f"{entry.name} {entry.version}, verified"


def _detection_test() -> dict[str, float]:
    """Milliseconds, on 160 x 160 pixels."""
    import numpy as np

    from fevertools.pipeline import Analyzer

    picture = np.full((160, 160, 3), 128, np.uint8)
    with Analyzer() as analyzer:
        return _timed(lambda: analyzer.detect(picture))


def _encoding_test() -> dict[str, float]:
    """Milliseconds, for one synthetic crop: a ramp of grey.

    Raises:
        WeightsError: the weights are missing or broken, or give another answer the second time.
    """
    import numpy as np

    from fevertools.errors import WeightsIntegrityError
    from fevertools.pipeline import Analyzer

    ramp = np.add.outer(np.arange(128), np.arange(128)).astype(np.uint8)
    vectors = []
    with Analyzer() as analyzer:
        times = _timed(lambda: vectors.append(analyzer.embed(ramp, cropped=True)))
        if vectors[0].shape != (1, analyzer.entry.dimension) or not np.allclose(vectors[0], vectors[-1], atol=1e-5):
            raise WeightsIntegrityError("the encoder gives one crop two embeddings; try --device cpu")
    return times


def _timed(call: Callable[[], object]) -> dict[str, float]:
    times = []
    for _ in range(4):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    # The first call loads the network.
    return {"first_ms": round(times[0], 1), "next_ms": round(min(times[1:]), 2)}
