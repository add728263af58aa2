"""More exercises of chapter 6: which layers a target means, and how large an adapter may be."""

from collections.abc import Callable

import torch

from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    """A random integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


# ------------------------------------------------------------------------------------------------- matching


def matching(names: list[str], targets: list[str]) -> tuple[list[str], list[str]]:
    """The names that targets mean, in their order, and the targets that mean none, in theirs.

    A target means a name that is the target, or that ends with "." and the target.
    """

    def means(target: str, name: str) -> bool:
        return name == target or name.endswith("." + target)

    found = [name for name in names if any(means(target, name) for target in targets)]
    return found, [target for target in targets if not any(means(target, name) for name in names)]


def _names(generator: torch.Generator) -> list[str]:
    """Layers as in a transformer, and some that only look like a target."""
    names = []
    for layer in range(_integer(generator, 2, 3)):
        parts = ("attn.q", "attn.v", "attn.qv", "mlp.up", "mlp.gate.q2", "mlp.q.scale")
        names += [f"layers.{layer}.{part}" for part in parts]
    return [*names, "head", "q", "extra.v", "old_q"]


def _target_cases(generator: torch.Generator) -> list[tuple]:
    targets = (
        ["q"],
        ["v", "q"],
        ["up"],
        ["head", "w_q"],
        ["attn.v"],
        ["1.attn.q", "none", "up"],
        ["q", "attn.q"],
    )
    cases = [(_names(generator), list(one)) for one in targets]
    return [*cases, (["a.q", "b.q"], ["q"]), (["q", "v"], ["v"]), (["a.q"], ["w_q", "c_attn"])]


def _by(condition: Callable[[str, str], bool]) -> Callable:
    """As `matching`, with another idea of what a target means."""

    def attempt(names: list[str], targets: list[str]) -> tuple[list[str], list[str]]:
        found = [name for name in names if any(condition(name, target) for target in targets)]
        return found, [target for target in targets if not any(condition(name, target) for name in names)]

    return attempt


def _in_order_of_targets(names: list[str], targets: list[str]) -> tuple[list[str], list[str]]:
    found = [name for target in targets for name in matching(names, [target])[0]]
    return list(dict.fromkeys(found)), matching(names, targets)[1]


def _twice(names: list[str], targets: list[str]) -> tuple[list[str], list[str]]:
    found = [name for name in names for target in targets if matching([name], [target])[0]]
    return found, matching(names, targets)[1]


def _last_only(names: list[str], targets: list[str]) -> tuple[list[str], list[str]]:
    return _by(lambda name, target: name.split(".")[-1] == target)(names, targets)


def _silent(names: list[str], targets: list[str]) -> tuple[list[str], list[str]]:
    return matching(names, targets)[0], []


def _all_or_nothing(names: list[str], targets: list[str]) -> tuple[list[str], list[str]]:
    found = matching(names, targets)[0]
    return found, [] if found else targets


def _the_names_left(names: list[str], targets: list[str]) -> tuple[list[str], list[str]]:
    found = matching(names, targets)[0]
    return found, [name for name in names if name not in found]


def _swapped(names: list[str], targets: list[str]) -> tuple[list[str], list[str]]:
    found, unmatched = matching(names, targets)
    return unmatched, found


def _are_two_lists(attempt: Callable, generator: torch.Generator) -> bool:
    first, second = attempt(["q"], ["q"])
    return isinstance(first, list) and isinstance(second, list)


def _finds_a_plain_one(attempt: Callable, generator: torch.Generator) -> bool:
    return list(attempt(["a.q", "a.v"], ["q"])[0]) == ["a.q"]


def _reports_the_unmatched(attempt: Callable, generator: torch.Generator) -> bool:
    return list(attempt(["a.q"], ["q", "w_q"])[1]) == ["w_q"]


MATCHING = Exercise(
    "ch06.matching",
    matching,
    _target_cases,
    (
        Mistake(
            'the name only has to contain the target here: "old_q" and "attn.qv" contain "q" too',
            _by(lambda name, target: target in name),
        ),
        Mistake(
            'a name may end with the letters of a target and be another: "old_q" is not "q"; the "." matters',
            _by(lambda name, target: name.endswith(target)),
        ),
        Mistake(
            'a layer at the top has no "." before its name: the name may also be the target itself',
            _by(lambda name, target: name.endswith("." + target)),
        ),
        Mistake(
            "the name is compared as a whole; its end is enough", _by(lambda name, target: name == target)
        ),
        Mistake(
            "the target has to be the end of the name; here it may stand in the middle",
            _by(lambda name, target: f".{target}." in f".{name}."),
        ),
        Mistake(
            'only the last part of the name is compared, but a target may have several, as "attn.v"',
            _last_only,
        ),
        Mistake("the order should be that of the names, not that of the targets", _in_order_of_targets),
        Mistake("a name that two targets mean should be listed once", _twice),
        Mistake("the targets that mean nothing are missing: they are the second list", _silent),
        Mistake(
            "one target that matches does not make up for another that does not: look at each",
            _all_or_nothing,
        ),
        Mistake("the second list is of targets; here it is of the names that are left", _the_names_left),
        Mistake("the two lists are the wrong way round: the names come first", _swapped),
    ),
    properties=(
        Property("the result should be two lists", _are_two_lists),
        Property('of "a.q" and "a.v" the target "q" means the first', _finds_a_plain_one),
        Property(
            'with only "a.q" there, the targets "q" and "w_q" leave "w_q" unmatched', _reports_the_unmatched
        ),
    ),
)


# --------------------------------------------------------------------------------------------- largest_rank


def largest_rank(shapes: list[tuple[int, int]], total: int, share: float) -> int:
    """The largest rank at which adapters of these (out, in) layers have at most this share of total.

    Args:
        total: parameters of the whole model, without adapters.
    """
    per_rank = sum(outputs + inputs for outputs, inputs in shapes)
    return int(share * total // per_rank)


def _shape_cases(generator: torch.Generator) -> list[tuple]:
    cases = [([(128, 128), (64, 128)] * 4, 1_044_096, 0.02), ([(3, 40)] * 2, 100_000, 0.5)]
    for layers in (1, 2, 3, 5):
        shapes = [
            (_integer(generator, 10, 60), _integer(generator, 70, 200))
            for _ in range(_integer(generator, 2, 4))
        ] * layers
        per_rank = sum(map(sum, shapes))
        # Between two ranks, so that rounding up and down differ, and rounding to the nearest is either.
        wanted = _integer(generator, 5, 20) + (0.3 if layers % 2 else 0.7)
        total = 40_000 * layers
        cases.append((shapes, total, wanted * per_rank / total))
    return cases


def _with_sizes(size: Callable[[int, int], int]) -> Callable:
    def attempt(shapes: list[tuple[int, int]], total: int, share: float) -> int:
        return int(share * total // sum(size(*shape) for shape in shapes))

    return attempt


def _one_layer(shapes: list[tuple[int, int]], total: int, share: float) -> int:
    return largest_rank(shapes[:1], total, share)


def _each_shape_once(shapes: list[tuple[int, int]], total: int, share: float) -> int:
    return largest_rank(list(set(shapes)), total, share)


def _rounded(shapes: list[tuple[int, int]], total: int, share: float) -> int:
    return round(share * total / sum(map(sum, shapes)))


def _rounded_up(shapes: list[tuple[int, int]], total: int, share: float) -> int:
    return largest_rank(shapes, total, share) + 1


def _percent(shapes: list[tuple[int, int]], total: int, share: float) -> int:
    return largest_rank(shapes, total, share / 100)


def _is_an_int(attempt: Callable, generator: torch.Generator) -> bool:
    return isinstance(attempt([(3, 4)], 1000, 0.1), int)


def _keeps_the_limit(attempt: Callable, generator: torch.Generator) -> bool:
    shapes = [(30, 50), (20, 40)]
    return all(attempt(shapes, total, 0.1) * 140 <= 0.1 * total for total in (5_000, 20_300, 99_999))


def _uses_the_limit(attempt: Callable, generator: torch.Generator) -> bool:
    shapes = [(30, 50), (20, 40)]
    return all((attempt(shapes, total, 0.1) + 1) * 140 > 0.1 * total for total in (5_000, 20_300, 99_999))


LARGEST_RANK = Exercise(
    "ch06.largest_rank",
    largest_rank,
    _shape_cases,
    (
        Mistake(
            "an adapter has not outputs times inputs parameters: that is the layer itself",
            _with_sizes(lambda outputs, inputs: outputs * inputs),
        ),
        Mistake("A is counted, B is not", _with_sizes(lambda outputs, inputs: inputs)),
        Mistake("B is counted, A is not", _with_sizes(lambda outputs, inputs: outputs)),
        Mistake("only the first layer is counted", _one_layer),
        Mistake("layers of the same shape have adapters of their own", _each_shape_once),
        Mistake("rounded up, the adapters are larger than allowed", _rounded_up),
        Mistake("rounded to the nearest whole number, the adapters may be larger than allowed", _rounded),
        Mistake("the share is a fraction, not a percentage", _percent),
    ),
    properties=(
        Property("a rank is a whole number (int)", _is_an_int),
        Property("the adapters should not be larger than the share of the total", _keeps_the_limit),
        Property("one rank more would still be within the share", _uses_the_limit),
    ),
)

EXERCISES = (MATCHING, LARGEST_RANK)
