"""Files written, and then loaded or drawn from."""

import json
import os

import pytest

from minimind_edu.data.records import load_records
from minimind_edu.data.sampling import SampleConfig, sample


@pytest.fixture
def load(tmp_path):
    """Write text, bytes or objects (a line each in a .jsonl, else as one array) to a file and load it."""

    def write_and_load(content, kind="pretrain", name="data.jsonl", **options):
        if isinstance(content, list):
            lines = [json.dumps(item, ensure_ascii=False) for item in content]
            content = "\n".join([*lines, ""]) if name.endswith("l") else "[\n" + ",\n".join(lines) + "\n]\n"
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_records(path, kind, cache_dir=tmp_path / "cache", **options)

    return write_and_load


@pytest.fixture
def draw(tmp_path):
    """Write a file, draw from it; returns the report and the lines written."""

    def write_and_draw(content, name="data.jsonl", **options):
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(line + "\n" for line in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        out = tmp_path / f"out{path.suffix}"
        report = sample(SampleConfig(str(path), str(out), **{"overwrite": 1, **options}))
        written = out.read_bytes()
        assert len(written) == report.total.bytes_written
        assert written.count(b"\n") == report.total.lines_written and written.endswith(b"\n")
        assert not [left for left in os.listdir(tmp_path) if left.startswith(".")]  # nothing is left behind
        return report, [line + "\n" for line in written.decode().split("\n")[:-1]]

    return write_and_draw
