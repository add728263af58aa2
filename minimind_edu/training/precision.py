"""Which number format to train in, on which device, and why."""

import contextlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """A decision with its reason.

    Attributes:
        dtype: the type of matrix products under autocast; float32 means no autocast.
        use_scaler: whether gradients need loss scaling (float16 only: its smallest number is 6e-8).
        reason: one sentence for the log.
    """

    dtype: torch.dtype
    use_scaler: bool
    reason: str

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        """The context to run a forward pass in. Weights stay in float32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)


def resolve_device(device: str = "auto") -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` into a device that is present.

    Raises:
        ValueError: the device is unknown or not on this machine.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}: use auto, cpu, cuda, cuda:1 or mps") from None
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (found.index or 0) >= present.get(found.type, 0):
        raise ValueError(f"device {device!r} is not on this machine: use auto or cpu")
    return found


def cpu_has_fast_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 matrix products (AMX, or AVX-512 BF16).

    With them bfloat16 trained the `edu` shape about twice as fast as float32 (`minimind-edu bench --dtype`
    measures it); a CPU without them converts back and forth and is slower.
    """
    has = getattr(torch.cpu, "get_capabilities", dict)()  # older releases cannot tell
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))


def resolve_precision(dtype: str, device: torch.device) -> Precision:
    """Choose the number format for training.

    ``auto``: bfloat16 where the hardware has it, float16 with a loss scaler on GPUs that do not (Turing, such
    as the GTX 1650, and Volta), float32 elsewhere. A GPU's compute capability is asked rather than
    ``torch.cuda.is_bf16_supported()``, which also says yes where bfloat16 is emulated.

    Raises:
        ValueError: the type is unknown, or the device cannot train in it.
    """
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    match dtype, device.type:
        case "auto", "cuda" if capability >= (8, 0):
            return Precision(torch.bfloat16, False, f"bfloat16: compute capability {capability} has it")
        case "auto", "cuda" if capability >= (7, 0):
            return Precision(torch.float16, True, f"float16: compute capability {capability} lacks bfloat16")
        case "auto", "cpu" if cpu_has_fast_bfloat16():
            return Precision(torch.bfloat16, False, "bfloat16: this CPU has instructions for it")
        case "auto", _:
            return Precision(
                torch.float32, False, f"float32: nothing smaller is faster on this {device.type}"
            )
        case "float32", _:
            return Precision(torch.float32, False, "float32: as asked")
        case "bfloat16", "cuda" if capability < (8, 0):
            raise ValueError(f"bfloat16 needs compute capability 8.0; this GPU has {capability}: use float16")
        case "bfloat16", _:
            return Precision(torch.bfloat16, False, "bfloat16: as asked")
        case "float16", "cuda":
            return Precision(torch.float16, True, "float16 with a loss scaler: as asked")
        case "float16", _:
            raise ValueError(f"float16 trains on a GPU only; on {device.type} use float32 or bfloat16")
    raise ValueError(f"unknown dtype {dtype!r}: use auto, float32, bfloat16 or float16")
