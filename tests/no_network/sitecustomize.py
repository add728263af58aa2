"""Put this folder on PYTHONPATH, and Python connects to this machine only."""

import ipaddress
import socket

_connect = socket.socket.connect


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


def _guarded_connect(self: socket.socket, address: object) -> None:
    if not is_this_machine(address):
        raise PermissionError(f"a chapter tried to connect to {address}: chapters run offline")
    _connect(self, address)


socket.socket.connect = _guarded_connect
