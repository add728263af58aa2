"""Published data sets: files of the Hugging Face hub."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from minimind_edu.data.errors import DataError
from minimind_edu.data.records import load_records


class HubStandIn(BaseHTTPRequestHandler):
    """Answers for one file as the Hugging Face hub does."""

    body = b'{"text": "from afar"}\n'

    def do_HEAD(self):
        self.do_GET(send_body=False)

    def do_GET(self, send_body=True):
        found = self.path.split("?")[0] == "/datasets/owner/name/resolve/main/folder/data.jsonl"
        self.send_response(200 if found else 404)
        self.send_header("ETag", '"0123456789"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.body) if found else 0))
        self.end_headers()
        if found and send_body:
            self.wfile.write(self.body)

    def log_message(self, *args):
        pass


LOAD_PUBLISHED = """
import sys
from minimind_edu.data.errors import DataError
from minimind_edu.data.records import load_records
try:
    loaded = load_records(sys.argv[1], "pretrain", cache_dir=sys.argv[2])
    sys.stdout.write(repr(list(loaded)))
except DataError as error:
    sys.stdout.write("DataError " + str(error))
"""


def load_published(url, tmp_path, endpoint):
    # In a process of its own, because the library reads its settings when it is imported.
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "hub"),
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_OFFLINE": "0",
    }
    command = [sys.executable, "-c", LOAD_PUBLISHED, url, str(tmp_path / "cache")]
    done = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_published_files_are_downloaded(tmp_path):
    server = HTTPServer(("127.0.0.1", 0), HubStandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        url = "hf://owner/name/folder/data.jsonl"
        assert load_published(url, tmp_path, endpoint) == "[{'text': 'from afar'}]"
        missing = load_published("hf://owner/name/none.jsonl", tmp_path, endpoint)
    finally:
        server.shutdown()
        server.server_close()
    assert (
        missing.startswith("DataError hf://owner/name/none.jsonl:1: cannot be downloaded")
        and "\n" not in missing
    )


def test_incomplete_names_of_published_files(tmp_path):
    for url in ("hf://owner/name", "hf://", "hf://owner//file.jsonl"):
        with pytest.raises(DataError, match="expected hf://owner/name/file"):
            load_records(url, "pretrain", cache_dir=tmp_path)
