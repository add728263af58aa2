"""The table of commands: every row leads somewhere, and nothing is imported before it is needed."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from minimind_edu.commands import COMMANDS, data, loading, measuring, sampling, talking, training

HEAVY = ("torch", "datasets", "pandas", "transformers", "matplotlib")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_options_and_a_function(name):
    command = COMMANDS[name]
    assert dataclasses.is_dataclass(command.config) and callable(command.run)
    fields = {field.name for field in dataclasses.fields(command.config)}
    assert not command.positional or command.positional in fields
    assert command.help and command.help[0].islower() and not command.help.endswith(".")


def test_functions_are_named_after_their_commands():
    for name, command in COMMANDS.items():
        if command.module.startswith("minimind_edu.commands."):
            assert command.run_name == "run_" + name.replace(" ", "_")


def test_no_function_is_left_out_of_the_table():
    defined = {
        name
        for module in (data, measuring, sampling, talking, training)
        for name in vars(module)
        if name[:4] == "run_"
    }
    assert defined <= {command.run_name for command in COMMANDS.values()}


@pytest.mark.parametrize("words", ["--help", "data --help"])
def test_help_alone_imports_nothing_heavy(words):
    code = (
        "import sys\nfrom minimind_edu.cli import main\n"
        f"try:\n    main({words.split()!r})\nexcept SystemExit:\n    pass\n"
        f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "loaded: []" in done.stdout, done.stdout[-300:]


def test_a_sample_is_drawn_without_torch(tmp_path):
    words = ["data", "sample", "--count", "3", "--out_path", str(tmp_path / "sample.jsonl")]
    code = (
        f"import sys\nfrom minimind_edu.cli import main\nassert main({words!r}) == 0\n"
        f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "loaded: []" in done.stdout, done.stdout[-300:]


@pytest.mark.parametrize(
    ("path", "name"), [("out/clinic/adapter", "clinic"), ("out/clinic", "clinic"), ("adapter", None)]
)
def test_adapters_are_called_after_their_runs(path, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert loading.adapter_name(Path(path)) == (name or tmp_path.name)
