"""From bytes to a small reasoning chat model: the package that the course explains."""

from typing import TYPE_CHECKING, Any

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
