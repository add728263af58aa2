"""Tests and chapters reach this machine only."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from no_network.guard import NetworkUsedError, is_this_machine

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = ("192.0.2.1", 80)  # an address that belongs to nobody
METHODS = pytest.mark.parametrize("method", ["connect", "connect_ex"])


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("127.0.0.1", 80), True), (("127.8.9.1", 80), True), (("::1", 80, 0, 0), True),
        (("localhost", 80), True), ("/tmp/socket", True),
        (ELSEWHERE, False), (("10.0.0.1", 80), False), (("example.org", 443), False),
    ],
)  # fmt: skip
def test_this_machine_is_told_from_others(address, expected):
    assert is_this_machine(address) is expected


@METHODS
def test_tests_cannot_connect(method):
    with pytest.raises(NetworkUsedError, match=r"192\.0\.2\.1"), socket.socket() as one:
        getattr(one, method)(ELSEWHERE)


def test_tests_can_connect_to_this_machine():
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())


def environment_of_chapters() -> dict[str, str]:
    """What kernels get while nbval runs the chapters: the environment that their `conftest.py` leaves."""
    code = "import os, runpy, json; runpy.run_path('conftest.py'); print(json.dumps(dict(os.environ)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "chapters", capture_output=True, text=True, check=True
    )

    return json.loads(done.stdout)


@METHODS
def test_kernels_of_chapters_cannot_connect(method):
    code = f"import socket; socket.socket().{method}({ELSEWHERE})"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment_of_chapters(), capture_output=True, text=True
    )
    assert done.returncode == 1 and "PermissionError: tried to connect to ('192.0.2.1', 80)" in done.stderr


def test_a_kernel_started_with_that_environment_cannot_connect():
    code = f"import socket\nsocket.socket().connect({ELSEWHERE})"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client = NotebookClient(notebook, kernel_name="python3", timeout=60)
    with pytest.raises(CellExecutionError, match="PermissionError"):
        client.execute(env=environment_of_chapters())


def test_the_guard_of_kernels_keeps_an_older_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    paths = environment_of_chapters()["PYTHONPATH"].split(os.pathsep)
    assert paths == [str(ROOT / "tests" / "no_network"), "somewhere"]
