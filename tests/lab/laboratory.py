"""A JupyterLab of its own for the tests, and what a browser in it is asked to do.

The server works on a copy, has settings of its own, and is told not to use any network; the user's JupyterLab
and the committed notebooks stay as they are.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_SECONDS = 60
# With every cell in the page at once, pictures of all of it can be taken.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/apputils-extension/themes": {"theme": "JupyterLab Light", "adaptive-theme": False},
}
# Narrower than the notebook on a laptop of 1366 pixels with the file browser beside it.
WIDTH, HEIGHT = 1_080, 1_400

CACHE_VARIABLE = "MINIMIND_EDU_CACHE"
# Read before the tests get a cache of their own: chapters find the models that `make test` has built.
USERS_CACHE = {CACHE_VARIABLE: os.environ[CACHE_VARIABLE]} if CACHE_VARIABLE in os.environ else {}


@dataclass(frozen=True)
class Lab:
    """A running server.

    Attributes:
        root: the folder that it serves.
        url: where it is, with a slash at the end.
        token: what opens it.
    """

    root: Path
    url: str
    token: str


def chromium_path() -> str | None:
    """Where Chromium is: the system's, or the one that Playwright installed; None where there is none."""
    if found := next(filter(None, map(shutil.which, BROWSERS)), None):
        return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if os.path.exists(own) else None


def copy_of_the_course(folder: Path) -> Path:
    """The notebooks and the pictures they show, laid out as in the repository."""
    (folder / "chapters").mkdir(parents=True)
    for notebook in sorted((ROOT / "chapters").glob("*.ipynb")):
        shutil.copy(notebook, folder / "chapters")
    shutil.copytree(ROOT / "figures", folder / "figures", ignore=shutil.ignore_patterns("*.py", ".*"))
    return folder


@contextmanager
def running_lab(root: Path, own: Path) -> Iterator[Lab]:
    """A JupyterLab that serves `root` and keeps whatever it writes in the folder `own`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lab = Lab(root, f"http://127.0.0.1:{port}/", secrets.token_hex(16))
    for name, settings in SETTINGS.items():
        path = own / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != CACHE_VARIABLE}
    folders = {
        "JUPYTERLAB_SETTINGS_DIR": own / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": own / "workspaces",
        "JUPYTER_CONFIG_DIR": own / "config",
        "JUPYTER_DATA_DIR": own / "data",
        "JUPYTER_RUNTIME_DIR": own / "runtime",
        "IPYTHONDIR": own / "ipython",
        "PYTHONPATH": ROOT / "tests" / "no_network",  # for the server and for kernels
    }
    words = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", "--allow-root"]
    words += [f"--ServerApp.root_dir={root}", f"--IdentityProvider.token={lab.token}"]
    words += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    words += ["--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (own / "server.log").open("wb") as log:
        server = subprocess.Popen(
            words,
            env=environment | USERS_CACHE | {name: str(path) for name, path in folders.items()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(server, lab, own / "server.log")
        yield lab
    finally:
        server.terminate()  # it ends its kernels, too
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(server: subprocess.Popen, lab: Lab, log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            direct.open(f"{lab.url}api/status?token={lab.token}", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8', errors='replace')}")
