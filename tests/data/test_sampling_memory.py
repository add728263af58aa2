"""Samples of files: in how little memory, and how they tell how far they are."""

import json
import random
import subprocess
import sys
import tracemalloc

import pytest

from minimind_edu.data.sampling import SampleConfig, sample

WITHOUT_TORCH = """
import sys
from minimind_edu.data.sampling import SampleConfig, sample
sample(SampleConfig(out_path=sys.argv[1], count=50, stratify="language", near_duplicates=0.8))
heavy = {"torch", "datasets", "pandas", "pyarrow", "transformers", "matplotlib", "huggingface_hub"}
sys.stdout.write(repr(heavy & set(sys.modules)))
"""


def test_neither_torch_nor_datasets_is_loaded(tmp_path):
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "out.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "set()"
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 50  # of the embedded world


def write_texts(path, megabytes, indent=None):
    """A file of texts in two scripts: JSONL, or an array where the name is that of one."""
    is_array, size, number = path.suffix == ".json", 0, 0
    words = "some words and 一些汉字 again and again. " * 50
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 10**6:
            text = f"{number} {random.Random(number).random()} {words[: [60, 400, 1_000, 1_900][number % 4]]}"
            before = (",\n" if number else "[") if is_array else ""
            item = json.dumps({"text": text, "more": [1, {"a": 2}]}, indent=indent)
            size += file.write(before + item + ("" if is_array else "\n"))
            number += 1
        file.write("]" if is_array else "")


@pytest.mark.parametrize(
    ("name", "indent", "options"),
    [
        ("a.jsonl", None, {}),
        ("a.jsonl", None, {"stratify": "language"}),
        ("a.jsonl", None, {"near_duplicates": 0.8}),
        ("a.jsonl", None, {"stratify": "length", "shares": "equal"}),
        ("a.json", None, {}),
        ("a.json", 2, {"stratify": "length", "shares": "equal"}),
    ],
    ids=str,
)
def test_memory_does_not_grow_with_the_file(tmp_path, name, indent, options):
    peaks, path = [], tmp_path / name
    for megabytes in (2, 8):
        write_texts(path, megabytes, indent)
        config = SampleConfig(str(path), str(tmp_path / f"out-{name}"), target_mb=0.2, overwrite=1, **options)
        tracemalloc.start()
        sample(config)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + 50_000  # of 6,000,000 bytes more


def test_progress_reaches_the_end_of_each_pass(tmp_path):
    path, seen = tmp_path / "data.txt", []
    path.write_text("line\n" * 25_000)
    sample(SampleConfig(str(path), str(tmp_path / "out.txt"), count=10), lambda *done: seen.append(done))
    assert seen == [(50_000, 125_000), (100_000, 125_000), (125_000, 125_000)] * 2
