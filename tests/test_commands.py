"""The table of commands: every row leads somewhere, and nothing is imported before it is needed."""

import dataclasses
import subprocess
import sys

import pytest

from minimind_edu.commands import COMMANDS, data, measuring, talking, training

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
        name for module in (data, measuring, talking, training) for name in vars(module) if name[:4] == "run_"
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
