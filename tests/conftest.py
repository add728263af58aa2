"""Fixtures that every test may use."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """The folder of third-party samples; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("third-party samples (../shared) are not on this machine")
    return SHARED
