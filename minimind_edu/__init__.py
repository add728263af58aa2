"""From bytes to a small reasoning chat model: the package that the course explains."""

import os
from typing import TYPE_CHECKING, Any

# PyTorch's threads wait for each other hundreds of times in a training step, and a waiting thread spins. On
# two cores of which another program wants one, that makes training several times slower. A short spin, then
# sleep, was 1.5 times faster there and 3% slower on idle cores. GNU OpenMP reads this when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

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
