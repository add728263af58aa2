"""The command ``minimind-edu``. Its options are the fields of the dataclasses that Python callers use."""

import dataclasses
import os
import re
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence

from jsonargparse import ArgumentError, ArgumentParser

from minimind_edu.commands import COMMANDS, Command
from minimind_edu.data.errors import DataError

PROGRAM = "minimind-edu"
FAILED, INTERRUPTED = 2, 130  # exit codes; 130 is what a shell reports after Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Every failure is a short message on standard error and exit code 2; ``--debug`` adds the traceback.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):  # a terminal without Chinese should not end a tour
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        # Imports torch for most commands, which takes seconds: Ctrl-C is to be reported there too.
        name, config = parse(words, COMMANDS)
        COMMANDS[name].run(config)
    except KeyboardInterrupt as stop:  # training says that it saved its state (`training.Interrupted`)
        saved = f"{stop}. To go on: {PROGRAM} {_resume_command(words)}"
        _complain(saved if str(stop) else "interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        _complain(_message(error))
        return FAILED
    return 0


def parse(words: list[str], commands: Mapping[str, Command]) -> tuple[str, object]:
    """The command's name and its settings.

    Args:
        commands: by name; a name of two words is a command in a group.

    Raises:
        ArgumentError: unknown command or option, or a value of the wrong type.
    """
    parser = ArgumentParser(prog=PROGRAM, exit_on_error=False, allow_abbrev=False)
    groups = {"": parser.add_subcommands(required=True, dest="command")}
    for name, command in commands.items():
        group, _, last = name.rpartition(" ")
        if group not in groups:
            parent = ArgumentParser(exit_on_error=False, allow_abbrev=False)
            groups[""].add_subcommand(group, parent, help=f"{group} commands")
            groups[group] = parent.add_subcommands(required=True, dest="action")
        # Only the command that is asked for is imported.
        options = _options(command) if words[: len(name.split())] == name.split() else ArgumentParser()
        groups[group].add_subcommand(last, options, help=command.help)
    found = parser.parse_args(words)
    name, settings = found.command, found[found.command]
    if "action" in settings:
        name, settings = f"{name} {settings.action}", settings[settings.action]
    return name, commands[name].config(**vars(settings))


def _options(command: Command) -> ArgumentParser:
    """A parser with one option for each field of the command's dataclass; a truth value is a flag without a
    value."""
    config, positional = command.config, command.positional
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    flags = [field.name for field in dataclasses.fields(config) if field.type is bool]
    parser.add_class_arguments(config, as_group=False, skip={*flags, positional} - {""})
    if positional:
        default = next(f.default for f in dataclasses.fields(config) if f.name == positional)
        is_optional = default is not dataclasses.MISSING
        arity = {"nargs": "?", "default": default} if is_optional else {}
        parser.add_argument(positional, type=str, help=_explanation(config, positional), **arity)
    for flag in flags:
        parser.add_argument(f"--{flag}", action="store_true", help=_explanation(config, flag))
    return parser


def _explanation(config: type, field: str) -> str:
    """What the docstring of a dataclass, or of one it extends, says about a field."""
    texts = (re.search(rf"^ +{field}: (.*)", parent.__doc__ or "", re.M) for parent in config.__mro__)
    return next((text[1] for text in texts if text), "")


def _message(error: Exception) -> str:
    """What went wrong, for someone who has not read the code."""
    text = str(error).strip()
    match error:
        case DataError():  # one line for each fault
            return text
        case ArgumentError():
            text = re.sub(r"Expected an? <class '(\w+)'>", r"expected \1", " ".join(text.split()))
            return f"{text.replace('Expected a typing.Literal', 'expected one of ')} (see {PROGRAM} --help)"
        case OSError() if error.strerror:
            return f"{error.filename or 'file system'}: {error.strerror.lower()}"
        case OSError() | ValueError() | RuntimeError() if text:
            return text.splitlines()[0]
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'} (--debug shows where)"


def _resume_command(words: list[str]) -> str:
    kept, skip = [], False
    for word in words:
        if not skip and not word.startswith(("--from_resume", "--overwrite")):
            kept.append(word)
        skip = word in ("--from_resume", "--overwrite")
    return shlex.join([*kept, "--from_resume", "1"])


def _complain(message: str) -> None:
    print(f"{PROGRAM}: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
