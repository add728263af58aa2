"""From bytes to a small reasoning chat model: the package that the course explains."""

import os
from typing import TYPE_CHECKING, Any

# PyTorch's threads wait for each other hundreds of times in a training step. By default a waiting thread
# spins, and where another program needs the core that makes training several times slower; a passive one
# sleeps. OpenMP reads this once, when torch is loaded, so it has to be set before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from minimind_edu.config import ModelConfig
    from minimind_edu.model.transformer import MiniMind

__all__ = ["MiniMind", "ModelConfig"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import minimind_edu` alone does not load torch (about two seconds)."""
    if name == "ModelConfig":
        from minimind_edu.config import ModelConfig

        return ModelConfig
    if name == "MiniMind":
        from minimind_edu.model.transformer import MiniMind

        return MiniMind
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
