"""The first cell of a chapter: the same conditions for every reader."""

import os
import random
import warnings

import matplotlib
import numpy as np
import torch

from minimind_edu.course.figures import STYLE
from minimind_edu.training.precision import resolve_device


def start(seed: int = 42) -> torch.device:
    """Seed every random generator, keep libraries off the network, set the look of figures, choose a device.

    Returns:
        The GPU if there is one, else the CPU. Chapters are written for two CPU cores.
    """
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    matplotlib.rcParams.update(STYLE)  # for legends and other things that cells add to figures
    # Progress bars and copies of arrays warn about things that no reader of a chapter can change.
    warnings.filterwarnings("ignore", message=".*IProgress not found.*")
    device = resolve_device("auto")
    # Apple's GPU has no float64, which some checks need; models this small are as fast on its CPU.
    return torch.device("cpu") if device.type == "mps" else device
