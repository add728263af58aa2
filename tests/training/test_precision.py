"""The number format for each kind of hardware, most of which this machine does not have."""

import pytest
import torch

from minimind_edu.training.precision import cpu_has_fast_bfloat16, resolve_device, resolve_precision

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that there is a GPU of some compute capability that claims to know bfloat16."""

    def install(capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)

    return install


@pytest.mark.parametrize(
    ("card", "capability", "dtype", "scaled"),
    [
        ("GTX 1080", (6, 1), torch.float32, False),
        ("V100", (7, 0), torch.float16, True),
        ("GTX 1650", (7, 5), torch.float16, True),
        ("A100", (8, 0), torch.bfloat16, False),
        ("RTX 3090, A40", (8, 6), torch.bfloat16, False),
        ("RTX 4090", (8, 9), torch.bfloat16, False),
        ("H100", (9, 0), torch.bfloat16, False),
        ("RTX 5060", (12, 0), torch.bfloat16, False),
    ],
)
def test_auto_on_gpus(gpu, card, capability, dtype, scaled):
    gpu(capability)
    found = resolve_precision("auto", CUDA)
    assert (found.dtype, found.use_scaler) == (dtype, scaled), card
    assert str(dtype).removeprefix("torch.") in found.reason


@pytest.mark.parametrize("capability", [(6, 1), (7, 0), (7, 5)])
def test_bfloat16_is_refused_where_it_is_emulated(gpu, capability):
    gpu(capability)
    with pytest.raises(ValueError, match="bfloat16 needs compute capability 8.0.*use float16"):
        resolve_precision("bfloat16", CUDA)


@pytest.mark.parametrize("capability", [(6, 1), (7, 5), (9, 0)])
def test_what_is_asked_for_is_done_on_gpus(gpu, capability):
    gpu(capability)
    assert resolve_precision("float32", CUDA).dtype == torch.float32
    half = resolve_precision("float16", CUDA)
    assert half.dtype == torch.float16 and half.use_scaler


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"amx_bf16": False, "avx512_bf16": True}, True),
        ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True, "amx_tile": True}, False),
        ({"architecture": "arm64"}, False),
        ({}, False),
    ],
)
def test_auto_on_cpus(monkeypatch, capabilities, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert cpu_has_fast_bfloat16() is fast
    found = resolve_precision("auto", CPU)
    assert found.dtype == (torch.bfloat16 if fast else torch.float32) and not found.use_scaler


def test_auto_on_cpus_of_a_torch_that_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_precision("auto", CPU).dtype == torch.float32


def test_what_is_asked_for_is_done_on_cpus():
    assert resolve_precision("float32", CPU).dtype == torch.float32
    assert resolve_precision("bfloat16", CPU).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="float16 trains on a GPU only; on cpu use float32 or bfloat16"):
        resolve_precision("float16", CPU)


def test_apple():
    assert resolve_precision("auto", torch.device("mps")).dtype == torch.float32
    with pytest.raises(ValueError, match="on mps"):
        resolve_precision("float16", torch.device("mps"))


@pytest.mark.parametrize("dtype", ["", "fp16", "bf16", "float64", "torch.float32", "AUTO"])
@pytest.mark.parametrize("device", [CPU, CUDA])
def test_unknown_types(gpu, device, dtype):
    gpu((8, 0))
    with pytest.raises(ValueError, match="unknown dtype"):
        resolve_precision(dtype, device)


def test_autocast_is_on_for_small_formats_only():
    left, right = torch.ones(2, 2), torch.ones(2, 2)
    with resolve_precision("bfloat16", CPU).autocast(CPU):
        assert (left @ right).dtype == torch.bfloat16
    with resolve_precision("float32", CPU).autocast(CPU):
        assert (left @ right).dtype == torch.float32


# --- devices ---


@pytest.fixture
def machine(monkeypatch):
    """Pretend that there are so many GPUs of NVIDIA's, and perhaps one of Apple's."""

    def install(gpus, apple=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)

    return install


@pytest.mark.parametrize(
    ("gpus", "apple", "asked", "found"),
    [
        (0, False, "auto", "cpu"), (2, False, "auto", "cuda"), (0, True, "auto", "mps"),
        (0, False, "cpu", "cpu"), (1, False, "cpu", "cpu"), (1, False, "cuda", "cuda"),
        (2, False, "cuda:1", "cuda:1"), (0, True, "mps", "mps"),
    ],
)  # fmt: skip
def test_devices_that_are_there(machine, gpus, apple, asked, found):
    machine(gpus, apple)
    assert str(resolve_device(asked)) == found


@pytest.mark.parametrize(
    ("gpus", "asked"), [(0, "cuda"), (1, "cuda:1"), (0, "cuda:0"), (0, "mps"), (2, "cuda:7")]
)
def test_devices_that_are_not_there(machine, gpus, asked):
    machine(gpus)
    with pytest.raises(ValueError, match=f"device '{asked}' is not on this machine"):
        resolve_device(asked)


@pytest.mark.parametrize("asked", ["", "gpu", "cuda:x", "cuda:-1", "CPU", "cpu:", "tpu", "0", "cuda 0"])
def test_devices_that_do_not_exist(machine, asked):
    machine(1)
    with pytest.raises(ValueError, match="device"):
        resolve_device(asked)


@pytest.mark.parametrize("asked", ["meta", "xpu", "cpu:1"])
def test_devices_that_the_course_does_not_train_on(machine, asked):
    machine(1)
    with pytest.raises(ValueError, match="not on this machine"):
        resolve_device(asked)
