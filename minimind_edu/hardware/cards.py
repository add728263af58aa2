"""Graphics cards: what their vendors say they can do, and what of their memory a program gets.

A card's peak is worked out from its number of multiprocessors (SMs) and its boost clock, because vendors
often print only the largest number there is: with sparse matrices, or with sums kept in float16. Training
uses dense matrices and sums in float32, for which GeForce cards since Turing run at half of that rate.
"""

import ctypes
import os
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from minimind_edu.training.precision import cpu_has_fast_bfloat16

GIB = 2**30
DTYPES = ("float32", "float16", "bfloat16")

# FLOPs that one SM does in a clock cycle, two for each multiply-add: (float32 on CUDA cores; float16 and
# bfloat16 with float32 sums). The white papers' totals follow from these (`tests/hardware/test_cards.py`).
# Turing without tensor cores has none for which sums are in float32: see the note of the GTX 1650.
PER_SM = {
    "turing-gtx": (128, 256),
    "turing-geforce": (128, 512),
    "turing": (128, 1024),
    "volta": (128, 1024),
    "ampere-geforce": (256, 512),
    "ampere-ga102": (256, 1024),
    "ampere-ga100": (128, 2048),
    "ada-geforce": (256, 512),
    "ada": (256, 1024),
    "hopper": (256, 4096),
    "blackwell-geforce": (256, 512),
}
TURING_PAPER = "NVIDIA Turing GPU Architecture, white paper (2018)"
GA102_PAPER = (
    "NVIDIA Ampere GA102 GPU Architecture, white paper (2021), appendix A; "
    "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf"
)
ADA_PAPER = (
    "NVIDIA Ada GPU Architecture, white paper (2022), appendix A; "
    "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"
)
BLACKWELL_PAPER = (
    "NVIDIA RTX Blackwell GPU Architecture, white paper (2025), appendix A; "
    "https://images.nvidia.com/aem-dam/Solutions/geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf"
)
GEFORCE = (
    "NVIDIA, Compare GeForce Graphics Cards; https://www.nvidia.com/en-us/geforce/graphics-cards/compare/"
)
LAPTOPS = "NVIDIA, Compare GeForce laptops; https://www.nvidia.com/en-us/geforce/laptops/compare/"
DERIVED = "tensor rate from SMs x 512 FLOPs x boost clock, the ratio of the white paper's other cards"


def in_words(amount: float) -> str:
    """Bytes: ``5.1 GB`` (of 2^30 bytes, as drivers count them) or ``312 MB``."""
    return f"{amount / GIB:.1f} GB" if amount >= GIB else f"{amount / 2**20:.0f} MB"


@dataclass(frozen=True)
class Price:
    """What an hour of a card cost somewhere: yuan, who said so, and when."""

    yuan: float
    source: str
    date: str


@dataclass(frozen=True)
class Card:
    """A machine that trains: a graphics card, or a CPU.

    Attributes:
        name: as its vendor writes it.
        memory: bytes, as sold.
        capability: CUDA compute capability; None for a CPU.
        peak: FLOP/s of dense matrix products by dtype, sums in float32; without what it cannot do. Empty
            where it is unknown, as for CPUs: they are measured (`minimind-edu bench`).
        bandwidth: of the memory, bytes a second; 0 where it is unknown.
        sources: where the numbers come from.
        inline_ecc: error correction keeps a sixteenth of the memory (GDDR6 cards for servers).
        display: whether it usually drives a screen, which also takes memory.
        measured_capacity: what the driver says a program may have, where this is the reader's own card.
        note: what one should know.
        price: an hour's price, or None where no source is at hand.
    """

    name: str
    memory: int
    capability: tuple[int, int] | None
    peak: dict[str, float] = field(default_factory=dict)
    bandwidth: float = 0.0
    sources: tuple[str, ...] = ()
    inline_ecc: bool = False
    display: bool = False
    measured_capacity: int = 0
    note: str = ""
    price: Price | None = None

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return "cpu" if self.capability is None else "cuda"

    @property
    def capacity(self) -> int:
        """Bytes that the driver offers: PyTorch calls them the total capacity when it runs out of memory."""
        if self.measured_capacity or self.device == "cpu":
            return self.measured_capacity or self.memory
        after_ecc = self.memory * 15 / 16 if self.inline_ecc else self.memory
        return int(after_ecc * (1 - DRIVER_SHARE) - DRIVER_BYTES)

    @property
    def usable(self) -> int:
        """Bytes for one program: the capacity, less what a screen needs where there is one."""
        return self.capacity - (DISPLAY_BYTES if self.display else 0)

    @property
    def auto_dtype(self) -> str:
        """What ``--dtype auto`` chooses there; the same rules as ``training.precision``."""
        if self.capability is None:
            return "bfloat16" if cpu_has_fast_bfloat16() else "float32"
        if self.capability >= (8, 0):
            return "bfloat16"
        return "float16" if self.capability >= (7, 0) else "float32"

    def check_dtype(self, dtype: str) -> str:
        """The dtype that training uses for a setting; ``auto`` is resolved.

        Raises:
            ValueError: unknown, or this card cannot train in it.
        """
        if dtype == "auto":
            return self.auto_dtype
        if dtype not in DTYPES:
            raise ValueError(f"unknown dtype {dtype!r}: use auto, {', '.join(DTYPES)}")
        if dtype == "bfloat16" and self.capability is not None and self.capability < (8, 0):
            raise ValueError(f"{self.name} has no bfloat16 (compute capability 8.0 has): use float16")
        if dtype == "float16" and self.capability is None:
            raise ValueError("float16 trains on a GPU only; on cpu use float32 or bfloat16")
        return dtype


# What drivers keep for themselves, from capacities that PyTorch's messages report (`CAPACITIES`): a line
# through them, which the tests hold to 1.5% of every one.
DRIVER_BYTES, DRIVER_SHARE = int(0.17 * GIB), 0.007
# A desktop with a browser or two; assumed, not measured. A server's card has none.
DISPLAY_BYTES = int(0.5 * GIB)

# (GiB sold, inline ECC, GiB of "total capacity", thread that quotes it)
CAPACITIES = (
    (4, False, 3.81, "GTX 1650; https://github.com/ultralytics/yolov5/issues/285"),
    (4, False, 3.82, "GTX 1650; https://github.com/NVlabs/PoseCNN-PyTorch/issues/20"),
    (6, False, 5.81, "GTX 1660 Ti; https://github.com/zhou13/lcnn/issues/23"),
    (6, False, 5.79, "RTX 2060; https://github.com/facebookresearch/meshrcnn/issues/92"),
    (24, False, 23.64, "RTX 4090; https://github.com/ali-vilab/VGen/issues/104"),
    (24, False, 23.65, "RTX 4090; https://github.com/MotrixLab/AiOS/issues/29"),
    (48, True, 44.43, "RTX 6000 Ada; https://github.com/DINGYANB/MTVCrafter/issues/21"),
)


def _card(
    name: str, gib: float, capability: tuple[int, int], family: str, sms: int, ghz: float, bandwidth: float,
    *sources: str, **more: object,
) -> Card:  # fmt: skip
    """A row of the table; ``bandwidth`` in GB/s."""
    plain, half = (sms * flops * ghz * 1e9 for flops in PER_SM[family])
    peak = {"float32": plain, "float16": half} | ({"bfloat16": half} if capability >= (8, 0) else {})
    display = name.startswith("GeForce")
    return Card(name, int(gib * GIB), capability, peak, bandwidth * 1e9, sources, display=display, **more)


_GTX = (
    "no tensor cores, no bfloat16; float16 at twice the rate of float32 with sums in float16, so sums in "
    "float32 may get no more than the rate of float32"
)
_RENTAL = Price(1.3, "MiniMind's README: an RTX 3090 for rent, about 1.3 yuan an hour", "2025")
_SECOND = "the clock depends on the power that a laptop's maker allows; the highest is taken"

CARDS: tuple[Card, ...] = (
    _card(
        "GeForce GTX 1650", 4, (7, 5), "turing-gtx", 14, 1.665, 128, TURING_PAPER,
        "NVIDIA, GeForce GTX 1650; https://www.nvidia.com/en-us/geforce/graphics-cards/gtx-1650/",
        note=f"{_GTX}; with GDDR5, and 192 GB/s where it has GDDR6",
    ),
    _card(
        "GeForce GTX 1650 Laptop", 4, (7, 5), "turing-gtx", 16, 1.56, 128, TURING_PAPER, LAPTOPS,
        note=f"{_GTX}; versions with 14 SMs or GDDR6 exist",
    ),
    _card("GeForce RTX 2080 Ti", 11, (7, 5), "turing-geforce", 68, 1.545, 616, f"{TURING_PAPER}, table 1"),
    _card("GeForce RTX 3060", 12, (8, 6), "ampere-geforce", 28, 1.777, 360, GEFORCE, DERIVED),
    _card("GeForce RTX 3090", 24, (8, 6), "ampere-geforce", 82, 1.695, 936, GA102_PAPER, price=_RENTAL),
    _card("GeForce RTX 4060", 8, (8, 9), "ada-geforce", 24, 2.46, 272, GEFORCE, DERIVED),
    _card("GeForce RTX 4070", 12, (8, 9), "ada-geforce", 46, 2.475, 504, GEFORCE, DERIVED),
    _card("GeForce RTX 4090", 24, (8, 9), "ada-geforce", 128, 2.52, 1008, ADA_PAPER),
    _card("GeForce RTX 5060", 8, (12, 0), "blackwell-geforce", 30, 2.497, 448, GEFORCE, DERIVED),
    _card(
        "GeForce RTX 5060 Laptop", 8, (12, 0), "blackwell-geforce", 26, 2.497, 384, LAPTOPS, DERIVED,
        note=_SECOND,
    ),
    _card("GeForce RTX 5090", 32, (12, 0), "blackwell-geforce", 170, 2.407, 1792, BLACKWELL_PAPER),
    _card(
        "A40", 48, (8, 6), "ampere-ga102", 84, 1.74, 696, "NVIDIA A40, data sheet (2021); "
        "https://images.nvidia.com/content/Solutions/data-center/a40/nvidia-a40-datasheet.pdf",
        inline_ecc=True, note="48 GB, of which error correction leaves 45",
    ),
    _card(
        "T4", 16, (7, 5), "turing", 40, 1.59, 320, "NVIDIA T4, data sheet (2019); "
        "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/tesla-t4/t4-tensor-core-datasheet-951643.pdf",
        inline_ecc=True,
    ),
    _card("L4", 24, (8, 9), "ada", 58, 2.04, 300, "NVIDIA L4; https://www.nvidia.com/en-us/data-center/l4/",
          inline_ecc=True),
    _card(
        "V100", 16, (7, 0), "volta", 80, 1.53, 900, "NVIDIA V100, data sheet (2020), SXM2; "
        "https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf",
        note="a version with 32 GB exists",
    ),
    *(
        _card(
            f"A100 {gib} GB", gib, (8, 0), "ampere-ga100", 108, 1.41, bandwidth,
            "NVIDIA A100, data sheet (2021), SXM; https://www.nvidia.com/content/dam/en-zz/Solutions/"
            "Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf",
        )
        for gib, bandwidth in ((40, 1555), (80, 2039))
    ),
    _card(
        "H100", 80, (9, 0), "hopper", 132, 1.83, 3350,
        "NVIDIA H100, SXM; https://www.nvidia.com/en-us/data-center/h100/",
    ),
)  # fmt: skip
THE_FOUR = ("GeForce GTX 1650", "A40", "GeForce RTX 5060", "GeForce RTX 3090")


def find_card(name: str) -> Card:
    """The card of a name written somehow: ``3090``, ``rtx3090``, ``NVIDIA GeForce RTX 3090``, ``a100-80``.

    ``auto`` is this machine, and ``cpu`` its CPU.

    Raises:
        ValueError: no card is called so, or several are; the message names those there are.
    """
    if name.strip().lower() in ("auto", "cpu"):
        return this_machine() if name.strip().lower() == "auto" else this_cpu()
    wanted = _words(name)
    found = [card for card in CARDS if wanted & _words(card.name) and wanted <= _all_words(card)]
    exact = [card for card in found if wanted >= _words(card.name)]
    # "1650" means the desktop card, of which the laptop's name has a word more.
    shortest = [card for card in found if len(_words(card.name)) == min(len(_words(c.name)) for c in found)]
    for choice in (exact, shortest):
        if len(choice) == 1:
            return choice[0]
    if found:
        raise ValueError(f"{name!r} may be {' or '.join(card.name for card in found)}: write more of it")
    raise ValueError(f"unknown card {name!r}: use auto, cpu, {', '.join(card.name for card in CARDS)}")


def _words(name: str) -> set[str]:
    """What tells one card from another in its name: ``RTX3090`` -> {3090}; ``A100-80GB`` -> {a100, 80}."""
    text = re.sub(r"(?<=[a-z])(?=\d{4})|(?<=\d)(?=ti\b|gb\b|g\b)", " ", name.lower())
    said = {"nvidia", "geforce", "rtx", "gtx", "tesla", "gb", "g", "gpu", "sxm", "sxm2", "sxm4", "sxm5"}
    return {word for word in re.split(r"[^a-z0-9]+", text) if word} - said - {"pcie", "hbm2", "hbm3"}


def _all_words(card: Card) -> set[str]:
    """The words of a card's name, and its memory, which drivers add to some names."""
    return _words(card.name) | {str(card.memory // GIB)}


def this_machine() -> Card:
    """The reader's own: the first graphics card that CUDA offers, or the CPU. Apple's GPUs have no model."""
    return _this_gpu() if torch.cuda.is_available() else this_cpu()


def _this_gpu() -> Card:
    properties = torch.cuda.get_device_properties(0)
    capability, total = (properties.major, properties.minor), int(properties.total_memory)
    try:  # the driver tells the memory, so a version with another one is as good
        known = find_card(re.sub(r"[ -]\d+ ?GB", "", properties.name))
    except ValueError:
        return Card(properties.name, total, capability, measured_capacity=total,
                    sources=("torch.cuda.get_device_properties",))  # fmt: skip
    values = {**vars(known), "name": properties.name, "capability": capability, "measured_capacity": total}
    return Card(**values)


def this_cpu() -> Card:
    """This machine's CPU; its memory is what the machine (or the container it runs in) has."""
    return Card(cpu_name(), machine_memory(), None, sources=("the operating system",))


def cpu_name() -> str:
    """The processor's name, as the operating system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "CPU"


def machine_memory() -> int:
    """Bytes of main memory, or a container's limit where that is lower; 0 where nothing tells."""
    known = [amount for amount in (_installed_memory(), _container_limit()) if amount]
    return min(known, default=0)


def _installed_memory() -> int:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    kilobytes = ctypes.c_ulonglong()
    windows = getattr(ctypes, "windll", None)
    if windows and windows.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes)):
        return kilobytes.value * 1024
    return 0


def _container_limit() -> int:
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # "max" is no limit
        return 0
