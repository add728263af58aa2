"""Exercises: a stub in the notebook, `check` in the next cell, the solution when the reader wants it.

    check("ch02.rope", rope)         # prints: not attempted, passed, or a hint
    show_solution("ch02.rope")

Every exercise is a function. Its module (`ch01.py`, …) holds the solution, the inputs to try, and the
mistakes that people make, each with its hint.
"""

import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Callable

from minimind_edu.course.exercises.checking import Exercise, examine

__all__ = ["check", "exercise", "names", "show_solution"]


def names() -> list[str]:
    """The names of all exercises, such as `ch02.rope`."""
    return list(_all())


def exercise(name: str) -> Exercise:
    """The exercise of this name.

    Raises:
        ValueError: there is none; the message lists those of the chapter, or all.
    """
    found = _all()
    if name not in found:
        chapter = [other for other in found if other.split(".")[0] == name.split(".")[0]]
        raise ValueError(f"no exercise is called {name!r}; there are: {', '.join(chapter or found)}")
    return found[name]


def check(name: str, attempt: Callable) -> None:
    """Try a reader's function on random inputs and print how it did.

    Prints `not attempted`, `passed`, or a hint that names the likely mistake.

    Raises:
        ValueError: no exercise has this name.
    """
    print(f"{name}: {examine(exercise(name), attempt)}")


def show_solution(name: str) -> None:
    """Print the source of an exercise's solution.

    Raises:
        ValueError: no exercise has this name.
    """
    print(textwrap.dedent(inspect.getsource(exercise(name).solution)).rstrip())


def _all() -> dict[str, Exercise]:
    """Every exercise by name, from the modules beside this one."""
    found: dict[str, Exercise] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        if module[:2] == "ch" and module[2:].isdigit():  # ch01, not checking
            exercises = importlib.import_module(f"{__name__}.{module}").EXERCISES
            found |= {one.name: one for one in exercises}
    return found
