"""The one place where ONNX Runtime sessions are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from fevertools.errors import DeviceUnavailableError, OptionError, WeightsIntegrityError, WeightsUnavailableError

_LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
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


def available_devices() -> tuple[str, ...]:
    """Names of the devices whose execution provider is in the installed ONNX Runtime, "cpu" first.

    Being listed means that the build knows the device, not that its driver works; `make_session` finds that out.
    """
    built = onnxruntime.get_available_providers()
    return tuple(name for name, device in _DEVICES.items() if device.provider in built)


def make_session(
    model: Path | bytes,
    *,
    device: str = "auto",
    threads: int | None = None,
    providers: Sequence[str] | None = None,
) -> onnxruntime.InferenceSession:
    """Load an ONNX model.

    Args:
        model: an ONNX file, or its bytes.
        device: "auto" (CUDA where the installed ONNX Runtime has it, else CPU), "cpu", "cuda", "tensorrt", "coreml",
            "directml", "openvino", "migraphx" or "qnn". Operators that a device lacks run on the CPU.
        threads: CPU threads inside one operator, at least 1; None leaves the choice to ONNX Runtime (all cores).
        providers: names of ONNX Runtime execution providers, best first, in place of `device`.

    Raises:
        OptionError: an unknown device, a thread count below 1, or no providers.
        DeviceUnavailableError: the installed ONNX Runtime does not have the device or provider, or it does not start.
        WeightsUnavailableError: there is no such file.
        WeightsIntegrityError: ONNX Runtime cannot load the model.
    """
    asked = _asked_providers(device, providers)
    # Every device but the CPU may lack an operator.
    chosen = asked if _CPU in asked else {**asked, _CPU: {}}
    session = _load(model, _session_options(threads), list(chosen.items()))
    idle = [name for name in asked if name not in session.get_providers()]
    # ONNX Runtime goes on with the CPU when a provider fails to start. That is what "auto" wants, and nobody else.
    if idle and (device != "auto" or providers is not None):
        raise DeviceUnavailableError(f"{idle[0]} did not start on this machine; {_mend(idle[0])}, or ask for the CPU")
    return session


def _asked_providers(device: str, providers: Sequence[str] | None) -> dict[str, Mapping[str, str]]:
    """Execution providers and their options, in order of preference."""
    built = onnxruntime.get_available_providers()
    options = {known.provider: known.options for known in _DEVICES.values()}
    if providers is not None:
        if isinstance(providers, str) or not providers:
            raise OptionError("providers must be a sequence of at least one execution provider name, or None")
        names = list(providers)
    elif device == "auto":
        names = [_DEVICES["cuda" if _DEVICES["cuda"].provider in built else "cpu"].provider]
    elif device in _DEVICES:
        names = [_DEVICES[device].provider]
    else:
        raise OptionError(f"no device named {device!r}; known: auto, {', '.join(_DEVICES)}")
    for name in names:
        if name not in built:
            raise DeviceUnavailableError(f"the installed ONNX Runtime has no {name}; to get it, {_mend(name)}")
    return {name: options.get(name, {}) for name in names}


def _mend(provider: str) -> str:
    return next(
        (known.install for known in _DEVICES.values() if known.provider == provider),
        "install an ONNX Runtime build that has it",
    )


def _session_options(threads: int | None) -> onnxruntime.SessionOptions:
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise OptionError(f"threads must be an integer of at least 1, or None; got {threads!r}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    # A memory plan is kept for every new input shape, and photos come in endless shapes.
    options.enable_mem_pattern = False
    # Threads that spin between two operators take the cores from the other sessions and from NumPy in this process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _load(
    model: Path | bytes, options: onnxruntime.SessionOptions, providers: list[tuple[str, Mapping[str, str]]]
) -> onnxruntime.InferenceSession:
    if isinstance(model, Path) and not model.is_file():
        raise WeightsUnavailableError(f"no model file at {model}; reinstall fevertools, or pass the path of a file")
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=[(name, dict(o)) for name, o in providers])
    except _LOAD_ERRORS as error:
        name = f"{len(model)} bytes" if isinstance(model, bytes) else str(model)
        raise WeightsIntegrityError(f"ONNX Runtime cannot load the model ({name}): {error}") from error
