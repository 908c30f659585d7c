"""Sessions: device names, the check that the asked provider is really used, and what a bad model file says."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_inference_collection

from fevertools import session
from fevertools.errors import DeviceUnavailableError, OptionError, WeightsIntegrityError, WeightsUnavailableError
from fevertools.session import available_devices, make_session, runs_on_cpu

MODEL = Path(session.__file__).parent / "bundled" / "mtcnn_rnet.onnx"


def test_cpu_is_always_available_and_first() -> None:
    assert available_devices()[0] == "cpu"


@pytest.mark.parametrize("model", [MODEL, MODEL.read_bytes()], ids=["path", "bytes"])
def test_a_session_runs_from_a_path_and_from_bytes(model: Path | bytes) -> None:
    made = make_session(model, device="cpu", threads=1)
    (faces,) = made.run(None, {"crops": np.zeros((2, 3, 24, 24), np.float32)})
    assert faces.shape == (2, 5)
    assert made.get_providers() == ["CPUExecutionProvider"]


def test_options_reach_onnx_runtime() -> None:
    options = make_session(MODEL, device="cpu", threads=3).get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 1
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni amx_int8 avx512f\n", ("avx512_vnni", "amx_int8")),
        ("flags\t\t: fpu avx2 avx512f\n", ()),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\n", ("asimddp",)),
        ("processor\t: 0\nhart\t\t: 1\n", None),
        (None, None),
    ],
    ids=["vnni", "avx2", "arm", "riscv", "no such file"],
)
def test_int8_instructions_are_read_from_the_flags(
    text: str | None, found: tuple[str, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where there are none, ONNX Runtime is told to be exact all the same."""
    monkeypatch.setattr(session, "_CPU_FACTS", tmp_path / "cpuinfo")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert session.int8_instructions() == found
    options = session._session_options(1)
    if found == ():
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError, match="x64quantprecision"):
            options.get_session_config_entry("session.x64quantprecision")


def test_auto_is_the_cpu_where_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert make_session(MODEL).get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("device", "mend"), [("cuda", "fevertools-gpu"), ("directml", "onnxruntime-directml"), ("openvino", "openvino")]
)
def test_a_device_that_is_not_built_in_says_what_to_install(
    device: str, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceUnavailableError, match=mend):
        make_session(MODEL, device=device)


@pytest.fixture
def cuda_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """ONNX Runtime as it is with a CUDA build on a machine without a GPU: it goes on with the CPU, and says nothing."""
    asked: list[Any] = []
    make = onnxruntime.InferenceSession

    def fall_back(
        model: object, options: object, providers: list[tuple[str, dict[str, str]]], enable_fallback: bool
    ) -> object:
        assert enable_fallback
        asked.extend(providers)
        return make(model, options, providers=["CPUExecutionProvider"])

    built = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built)
    monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)
    return asked


def test_a_silent_fall_back_is_an_error_when_the_device_was_asked_for(cuda_that_does_not_start: list[Any]) -> None:
    with pytest.raises(DeviceUnavailableError, match="did not start"):
        make_session(MODEL, device="cuda")
    assert [name for name, _ in cuda_that_does_not_start] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert cuda_that_does_not_start[0][1] == {"cudnn_conv_algo_search": "HEURISTIC"}
    with pytest.raises(DeviceUnavailableError, match="did not start"):
        make_session(MODEL, providers=["CUDAExecutionProvider"])


def test_auto_prefers_cuda_and_bears_a_silent_fall_back(cuda_that_does_not_start: list[Any]) -> None:
    assert make_session(MODEL).get_providers() == ["CPUExecutionProvider"]
    assert cuda_that_does_not_start[0][0] == "CUDAExecutionProvider"


def test_what_the_cpu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs_on_cpu("cpu")
    assert runs_on_cpu("cuda", ["CPUExecutionProvider"])
    built = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    for found, on_cpu in ((built[1:], True), (built, False)):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda found=found: found)
        assert runs_on_cpu() is on_cpu
    assert not runs_on_cpu("cuda")
    assert not runs_on_cpu(providers=built)
    with pytest.raises(OptionError, match="'abacus'"):
        runs_on_cpu("abacus")


@pytest.mark.skipif(
    "enable_fallback" not in inspect.signature(onnxruntime_inference_collection.Session.__init__).parameters,
    reason="this ONNX Runtime always tries twice, and says so",
)
def test_a_model_that_cannot_be_loaded_leaves_stdout_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """It may be where a user's rows go."""
    broken = MODEL.read_bytes().replace(b"Conv", b"C\xfe\xff\xfe")
    with pytest.raises(WeightsIntegrityError, match="cannot load the model"):
        make_session(broken)
    assert capfd.readouterr().out == ""


def test_providers_are_taken_in_place_of_the_device() -> None:
    assert make_session(MODEL, device="cuda", providers=["CPUExecutionProvider"]).get_providers() == [
        "CPUExecutionProvider"
    ]
    with pytest.raises(DeviceUnavailableError, match="NoSuchExecutionProvider"):
        make_session(MODEL, providers=["NoSuchExecutionProvider"])


@pytest.mark.parametrize(
    "options",
    [{"device": "gpu"}, {"threads": 0}, {"threads": True}, {"threads": 1.5}, {"providers": []}, {"providers": "CPU"}],
    ids=str,
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        make_session(MODEL, **options)


def test_bad_model_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match="nowhere"):
        make_session(tmp_path / "nowhere.onnx", device="cpu")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(MODEL.read_bytes()[:1000])
    for model in (broken, b"", b"not a model", MODEL.read_bytes()[:1000]):
        with pytest.raises(WeightsIntegrityError):
            make_session(model, device="cpu")
