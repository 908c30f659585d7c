"""The one place where ONNX Runtime is imported and its sessions are made."""

import ctypes
import functools
import os
import re
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from fevertools._onnx import leans_on_other_files, opsets
from fevertools.errors import DeviceUnavailableError, OptionError, WeightsIntegrityError, WeightsUnavailableError
from fevertools.options import MOST_THREADS, choice, whole

if TYPE_CHECKING:
    import onnxruntime

OPSETS: Final = range(7, 22)
"""Versions of ONNX's operators that every ONNX Runtime reads from 1.18 on, the oldest that the package asks for."""

INT8_INSTRUCTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "avx512_vnni": "AVX-512 VNNI",
        "avx_vnni": "AVX-VNNI",
        "amx_int8": "AMX",
        "asimddp": "dot products of ARM",
        "i8mm": "8-bit matrix products of ARM",
    }
)
"""Flag in /proc/cpuinfo -> instructions that multiply 8-bit numbers fast, and sum the products without saturation."""

_CPU_FACTS = Path("/proc/cpuinfo")
_REFUSALS = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
_CPU = "CPUExecutionProvider"
_ERRORS_ONLY = 3


@dataclass(frozen=True, slots=True)
class _Device:
    provider: str
    install: str  # what to do when the provider is missing
    options: Mapping[str, str] = field(default_factory=dict)


_DEVICES: Mapping[str, _Device] = {
    "cpu": _Device(_CPU, "reinstall onnxruntime"),
    "cuda": _Device(
        "CUDAExecutionProvider",
        "install the fevertools-gpu distribution (it needs onnxruntime-gpu in place of onnxruntime, never beside it), "
        "and an NVIDIA driver with the CUDA and cuDNN libraries that this onnxruntime-gpu release names",
        # The default, EXHAUSTIVE, times every cuDNN algorithm again for each new image size.
        {"cudnn_conv_algo_search": "HEURISTIC"},
    ),
    "tensorrt": _Device("TensorrtExecutionProvider", "install onnxruntime-gpu in place of onnxruntime, and TensorRT"),
    "coreml": _Device("CoreMLExecutionProvider", "use the macOS wheel of onnxruntime"),
    "directml": _Device("DmlExecutionProvider", "install onnxruntime-directml in place of onnxruntime (Windows)"),
    "openvino": _Device("OpenVINOExecutionProvider", "install onnxruntime-openvino in place of onnxruntime"),
    "migraphx": _Device("MIGraphXExecutionProvider", "install onnxruntime-migraphx in place of onnxruntime (AMD ROCm)"),
    "qnn": _Device("QNNExecutionProvider", "install onnxruntime-qnn in place of onnxruntime"),
}


def runtime() -> Any:
    """The module `onnxruntime`, imported at the first use, with its telemetry off.

    Official builds of 1.29 and later report to their maker over the network and keep an identifier in the home folder,
    and a forked child waits for ever, when it ends, for the threads that do this. They read ORT_DISABLE_TELEMETRY when
    they are imported; a value that is set already is left as it is.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def available_devices() -> tuple[str, ...]:
    """Names of the devices whose execution provider is in the installed ONNX Runtime, "cpu" first.

    Being listed means that the build knows the device, not that its driver works; `make_session` finds that out.
    """
    built = runtime().get_available_providers()
    return tuple(name for name, device in _DEVICES.items() if device.provider in built)


def make_session(
    model: Path | bytes,
    *,
    device: str = "auto",
    threads: int | None = None,
    providers: Sequence[str] | None = None,
) -> "onnxruntime.InferenceSession":
    """Load an ONNX model.

    Args:
        model: an ONNX file, or its bytes.
        device: "auto" (CUDA where the installed ONNX Runtime has it, else CPU), "cpu", "cuda", "tensorrt", "coreml",
            "directml", "openvino", "migraphx" or "qnn". Operators that a device lacks run on the CPU.
        threads: CPU threads inside one operator, 1 to 1024; None leaves the choice to ONNX Runtime (all cores).
        providers: names of ONNX Runtime execution providers, best first, in place of `device`.

    Raises:
        OptionError: an unknown device, a thread count below 1, or no providers.
        DeviceUnavailableError: the installed ONNX Runtime does not have the device or provider, or it does not start.
        WeightsUnavailableError: there is no such file.
        WeightsIntegrityError: ONNX Runtime cannot load the model, it is not for OPSETS, or it leans on other files,
            whose bytes nobody has verified.
    """
    asked = _asked_providers(device, providers)
    # Every device but the CPU may lack an operator.
    chosen = asked if _CPU in asked else {**asked, _CPU: {}}
    session = _load(model, _session_options(threads), list(chosen.items()))
    idle = [name for name in asked if name not in session.get_providers()]
    # ONNX Runtime goes on with the CPU when a provider fails to start. That is what "auto" wants, and nobody else.
    if idle and (providers is not None or device != "auto"):
        raise DeviceUnavailableError(f"{idle[0]} did not start on this machine; {_mend(idle[0])}, or ask for the CPU")
    return session


def _asked_providers(device: str, providers: Sequence[str] | None) -> dict[str, Mapping[str, str]]:
    """Execution providers and their options, in order of preference."""
    built = runtime().get_available_providers()
    options = {known.provider: known.options for known in _DEVICES.values()}
    if providers is not None:
        names = list(providers) if isinstance(providers, Sequence) and not isinstance(providers, str) else []
        if not names or not all(isinstance(name, str) for name in names):
            raise OptionError("providers must be a sequence of at least one execution provider name, or None")
    elif choice(device, "device", ("auto", *_DEVICES)) == "auto":
        names = [_DEVICES["cuda" if _DEVICES["cuda"].provider in built else "cpu"].provider]
    else:
        names = [_DEVICES[device].provider]
    for name in names:
        if name not in built:
            raise DeviceUnavailableError(f"the installed ONNX Runtime has no {name}; to get it, {_mend(name)}")
    return {name: options.get(name, {}) for name in names}


def int8_instructions() -> tuple[str, ...] | None:
    """Which of INT8_INSTRUCTIONS this machine's CPU has, without which int8 is hardly faster than float32.

    Returns:
        keys of INT8_INSTRUCTIONS; None where the system does not tell, as macOS and Windows.
    """
    try:
        text = _CPU_FACTS.read_text("utf-8", "replace")
    except OSError:
        return None
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)  # x86, ARM
    return None if flags is None else tuple(name for name in INT8_INSTRUCTIONS if name in flags[1].split())


def runs_on_cpu(device: str = "auto", providers: Sequence[str] | None = None) -> bool:
    """Whether `make_session` would leave the work to the CPU. Arguments and errors are its own."""
    return next(iter(_asked_providers(device, providers))) == _CPU


def _mend(provider: str) -> str:
    return next(
        (known.install for known in _DEVICES.values() if known.provider == provider),
        "install an ONNX Runtime build that has it",
    )


def _session_options(threads: int | None) -> "onnxruntime.SessionOptions":
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = whole(threads, "threads", 1, MOST_THREADS)
    # A memory plan is kept for every new input shape, and photos come in endless shapes.
    options.enable_mem_pattern = False
    # Threads that spin between two operators take the cores from the other sessions and from NumPy in this process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if int8_instructions() == ():
        # Without them int8 products are summed in 16 bits on x86, which saturate; this takes slower exact kernels.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _load(
    model: Path | bytes, options: "onnxruntime.SessionOptions", providers: list[tuple[str, Mapping[str, str]]]
) -> "onnxruntime.InferenceSession":
    name = f"{len(model)} bytes" if isinstance(model, bytes) else str(model)
    try:
        _check(model if isinstance(model, bytes) else model.read_bytes(), name)
    except OSError as error:
        raise WeightsUnavailableError(
            f"cannot read the model file {name}: {error.strerror}; reinstall fevertools, or pass the path of a file"
        ) from error
    source = model if isinstance(model, bytes) else str(model)
    onnxruntime = runtime()
    # With a fallback ONNX Runtime loads once more what it could not load, and says so on stdout, among a user's rows.
    fallback = len(providers) > 1
    try:
        session = onnxruntime.InferenceSession(
            source, options, providers=[(name, dict(o)) for name, o in providers], enable_fallback=fallback
        )
    except refusals() as error:
        raise WeightsIntegrityError(f"ONNX Runtime cannot load the model ({name}): {error}") from error
    _watch_forks()
    _made.add(session)
    return session


def refusals() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a model that it cannot load or run."""
    known = runtime().capi.onnxruntime_pybind11_state
    # UnicodeDecodeError: a broken name, which ONNX Runtime puts in its own message.
    return (UnicodeDecodeError, *(getattr(known, kind) for kind in _REFUSALS))


_made: "weakref.WeakSet[onnxruntime.InferenceSession]" = weakref.WeakSet()


@functools.cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=_keep_inherited)


def _keep_inherited() -> None:
    """Give each session one reference too many: its destructor would wait for threads that only the parent has."""
    for session in _made:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


def _check(model: bytes, name: str) -> None:
    """Refuse what ONNX Runtime might load on one machine and not on the next, or load more than was verified."""
    try:
        version, whole = opsets(model).get(""), not leans_on_other_files(model)
    except ValueError as error:
        raise WeightsIntegrityError(f"this is not an ONNX model ({name}): {error}; fetch or export it again") from error
    if version not in OPSETS:
        raise WeightsIntegrityError(
            f"the model ({name}) is for version {version} of ONNX's operators; export it for one of {OPSETS[0]} to "
            f"{OPSETS[-1]}"
        )
    if not whole:
        raise WeightsIntegrityError(
            f"the model ({name}) has tensors in other files, which nobody verifies; export it as one file"
        )
