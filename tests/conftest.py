"""Fixtures that every test may use, and the guard that keeps tests off the network."""

import os
import socket
from pathlib import Path

import pytest
from no_network.guard import NetworkUsedError, guarded

SHARED = Path(__file__).resolve().parents[2] / "shared"

# For libraries that ask before they connect, in subprocesses too.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"


@pytest.fixture
def shared() -> Path:
    """The folder of third-party samples; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("third-party samples (../shared) are not on this machine")
    return SHARED


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection to another machine."""
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name), NetworkUsedError))


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what tests cache out of the user's folder."""
    os.environ["MINIMIND_EDU_CACHE"] = str(tmp_path_factory.mktemp("cache"))
