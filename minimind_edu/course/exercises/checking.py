"""How an answer to an exercise is judged, and how the likely mistake in a wrong one is found.

A wrong answer is diagnosed in this order: what it raised or returned; the known mistakes, each a function,
of which one may give the same wrong results as the reader's; properties that every right answer has; and
last the plainest difference: shape, not-a-number, a constant factor, or the first value that differs.
"""

import copy
import math
import numbers
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

NOT_ATTEMPTED, PASSED = "not attempted", "passed"


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people give, and the hint that helps.

    Attributes:
        hint: one sentence that names the mistake, without giving the code away.
        function: the wrong answer.
    """

    hint: str
    function: Callable


@dataclass(frozen=True)
class Property:
    """Something true of every right answer, for wrong answers that nobody foresaw.

    Attributes:
        hint: one sentence for an answer that lacks it.
        holds: called with (the answer, random generator); True where the answer has it. One that raises
            counts as not holding.
        always: look at it also where all results are right, as they are without a gradient, for example.
    """

    hint: str
    holds: Callable[[Callable, torch.Generator], bool]
    always: bool = False


@dataclass(frozen=True)
class Exercise:
    """An exercise whose answer is a function.

    Attributes:
        name: `chNN.name`.
        solution: the reference.
        cases: from a random generator to the argument tuples that answers are tried on; enough of them, and
            varied enough, that no mistake passes.
        mistakes: what people get wrong, the most telling first.
        properties: true of every right answer, the most basic first.
        tolerance: largest difference, relative to the size of the right values, that counts as equal.
    """

    name: str
    solution: Callable
    cases: Callable[[torch.Generator], Sequence[tuple]]
    mistakes: tuple[Mistake, ...]
    properties: tuple[Property, ...] = ()
    tolerance: float = 1e-4


def examine(exercise: Exercise, attempt: Callable, seed: int | None = None) -> str:
    """`not attempted`, `passed`, or a hint.

    Args:
        seed: of the random inputs; None draws a new one.
    """
    if not callable(attempt):
        return f"hint: give check the function itself, not {_describe(attempt)}"
    generator = torch.Generator().manual_seed(secrets.randbits(31) if seed is None else seed)
    with torch.random.fork_rng(devices=[]):  # a check changes nothing of what the chapter draws after it
        return _examine(exercise, attempt, generator)


def _examine(exercise: Exercise, attempt: Callable, generator: torch.Generator) -> str:
    cases = exercise.cases(generator)
    none_is_a_result = any(exercise.solution(*copy.deepcopy(arguments)) is None for arguments in cases)
    wrong: list[tuple[tuple, Any, Any]] = []  # (arguments, right, given)
    for arguments in cases:
        right = exercise.solution(*copy.deepcopy(arguments))
        try:
            given = attempt(*(own := copy.deepcopy(arguments)))
        except NotImplementedError:
            return NOT_ATTEMPTED
        except Exception as error:
            return f"hint: {type(error).__name__} on {_call(arguments)}: {error}"
        if given is None and right is not None and not none_is_a_result:
            return "hint: the function returned None; is its last line a return?"
        if isinstance(right, Tensor) and isinstance(given, list | tuple) and _tensor(given) is None:
            return f"hint: the result should be a tensor, not a {type(given).__name__}"
        if _same(right, given, exercise.tolerance) and not _same(own, arguments, 0.0):
            return "hint: the values are right, but the function changed its arguments; work on a copy"
        if not _same(right, given, exercise.tolerance):
            wrong.append((arguments, right, given))
    if not wrong:
        lacking = _lacking([one for one in exercise.properties if one.always], attempt, generator)
        return f"hint: {lacking}" if lacking else PASSED
    return f"hint: {_diagnosis(exercise, attempt, cases, generator) or _plain_difference(*wrong[0])}"


def _diagnosis(
    exercise: Exercise, attempt: Callable, cases: Sequence[tuple], generator: torch.Generator
) -> str | None:
    """The hint of the first known mistake with the same results, or of the first property that is missing."""
    given = [_result(attempt, arguments) for arguments in cases]
    for mistake in exercise.mistakes:
        made = [_result(mistake.function, arguments) for arguments in cases]
        if all(_same(ours, theirs, exercise.tolerance) for ours, theirs in zip(made, given, strict=True)):
            return mistake.hint
    return _lacking(exercise.properties, attempt, generator)


def _lacking(properties: Sequence[Property], attempt: Callable, generator: torch.Generator) -> str | None:
    """The hint of the first property that an answer lacks."""
    for property in properties:
        try:
            holds = bool(property.holds(attempt, generator))
        except Exception:
            holds = False
        if not holds:
            return property.hint
    return None


def _result(function: Callable, arguments: tuple) -> Any:
    """What a function returns on a copy of its arguments; an exception's name where it raises."""
    try:
        return function(*copy.deepcopy(arguments))
    except Exception as error:
        return type(error).__name__


def _plain_difference(arguments: tuple, right: Any, given: Any) -> str:
    call = _call(arguments)
    ours, theirs = _tensor(right), _tensor(given)
    if ours is None or theirs is None:
        return f"{call} should be {_describe(right)}, not {_describe(given)}"
    if ours.shape != theirs.shape:
        return f"{call} should have shape {tuple(ours.shape)}, not {tuple(theirs.shape)}"
    if not bool(torch.isfinite(theirs).all()) and bool(torch.isfinite(ours).all()):
        return f"{call} has values that are not finite (NaN or infinity)"
    if ours.numel() > 1 and bool((theirs != 0).all()) and bool((ours != 0).all()):
        factors = theirs / ours
        if _close(factors, factors.flatten()[0].expand_as(factors), 1e-3):
            return f"every value is {float(factors.flatten()[0]):.4g} times the right one, on {call}"
    place = int((ours - theirs).abs().nan_to_num(math.inf).flatten().argmax())
    position = tuple(int(i) for i in np.unravel_index(place, tuple(ours.shape))) if ours.dim() else ()
    where = f"at {list(position)} of " if position else ""
    return f"{where}{call}: expected {float(ours[position]):.5g}, got {float(theirs[position]):.5g}"


def _same(right: Any, given: Any, tolerance: float) -> bool:
    """Whether two results are equal: in shape and values for numbers and tensors, else item by item."""
    if isinstance(right, str | bytes) or isinstance(given, str | bytes):
        return type(right) is type(given) and right == given
    if isinstance(right, Mapping):
        return (
            isinstance(given, Mapping)
            and right.keys() == given.keys()
            and all(_same(value, given[key], tolerance) for key, value in right.items())
        )
    if isinstance(right, numbers.Integral) and isinstance(given, numbers.Integral):
        return int(right) == int(given)  # also where float64 would round them
    ours, theirs = _tensor(right), _tensor(given)
    if ours is not None and theirs is not None:
        # Counts and token ids are right or wrong, however large they are.
        return ours.shape == theirs.shape and _close(theirs, ours, 0.0 if _is_whole(right) else tolerance)
    if isinstance(right, Sequence) and isinstance(given, Sequence):
        return len(right) == len(given) and all(
            _same(a, b, tolerance) for a, b in zip(right, given, strict=True)
        )
    if type(right) is not type(given):
        return False
    if type(right).__eq__ is object.__eq__ and hasattr(right, "__dict__"):
        # Its copies are never equal to it; what they hold may be.
        return right is given or _same(vars(right), vars(given), tolerance)
    return bool(right == given)


def _close(given: Tensor, right: Tensor, tolerance: float) -> bool:
    if right.numel() == 0:
        return True
    finite = right[torch.isfinite(right)]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(given, right, rtol=0.0, atol=tolerance * max(scale, 1e-3), equal_nan=True)


def _tensor(value: Any) -> Tensor | None:
    """A number, tensor, array, or flat list of numbers as float64; None for anything else."""
    if isinstance(value, Tensor):
        plain = value.detach().resolve_conj().cpu()
        return (torch.view_as_real(plain) if plain.is_complex() else plain).double()
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        return torch.as_tensor(np.asarray(value, dtype=np.float64))
    if isinstance(value, numbers.Real):
        return torch.tensor(float(value), dtype=torch.float64)
    if isinstance(value, list | tuple) and value and all(isinstance(v, numbers.Real) for v in value):
        return torch.tensor([float(v) for v in value], dtype=torch.float64)
    return None


def _is_whole(value: Any) -> bool:
    """Whether a right result is made of integers or truth values."""
    if isinstance(value, Tensor):
        return not value.is_floating_point()
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "biu"
    return all(
        isinstance(v, numbers.Integral) for v in (value if isinstance(value, list | tuple) else [value])
    )


def _call(arguments: tuple) -> str:
    return f"f({', '.join(map(_describe, arguments))})"


def _describe(value: Any) -> str:
    """A value in few words."""
    if isinstance(value, Tensor) and value.numel() > 6:
        return f"tensor of shape {tuple(value.shape)}"
    if isinstance(value, Tensor):
        return str(value.tolist())
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
