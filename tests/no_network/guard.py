"""What keeps tests and chapters off the network: only connections to this machine are let through."""

import ipaddress
from collections.abc import Callable


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


def guarded(connect: Callable, error: type[Exception]) -> Callable:
    """`socket.connect` or `socket.connect_ex`, raising `error` for the address of another machine."""

    def connect_to_this_machine(self: object, address: object) -> object:
        if not is_this_machine(address):
            raise error(f"tried to connect to {address}, but everything here runs offline")
        return connect(self, address)

    return connect_to_this_machine
