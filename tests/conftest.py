"""Fixtures that every test may use, and the guard that keeps tests off the network."""

import ipaddress
import os
import socket
from pathlib import Path

import pytest

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


class NetworkUsedError(AssertionError):
    """A test tried to reach another machine."""


def is_this_machine(address: object) -> bool:
    """Whether a socket address is a local file or on the loopback interface."""
    if not isinstance(address, tuple):  # a Unix socket
        return True
    host = address[0]
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name that would have to be looked up
        return False


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection to another machine."""
    connect = socket.socket.connect

    def guarded_connect(self: socket.socket, address: object) -> None:
        if not is_this_machine(address):
            raise NetworkUsedError(f"a test tried to connect to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what tests cache out of the user's folder."""
    os.environ["MINIMIND_EDU_CACHE"] = str(tmp_path_factory.mktemp("cache"))
