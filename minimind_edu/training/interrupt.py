"""Ctrl-C that waits for the end of the step."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM: the state after the last whole step was saved."""


@contextlib.contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop after the step; the second acts at once."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield requested
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.getsignal(kind) for kind in kinds}

    def request_stop(number: int, frame: object) -> None:
        requested.set()
        for kind, handler in before.items():
            signal.signal(kind, handler)

    for kind in kinds:
        signal.signal(kind, request_stop)
    try:
        yield requested
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
