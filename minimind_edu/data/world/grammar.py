"""A probabilistic grammar small enough to read: draw a text, know its probability, parse it back.

A grammar is a tree of four kinds of node. Drawing walks the tree once and multiplies the probabilities of
the choices it makes; parsing tries every choice and reports every way in which a text could have been drawn.
Where there is exactly one such derivation, the probability of the derivation *is* the probability of the
text, and the mean of its negative logarithm is the entropy that no model can get below.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pick:
    """One of ``options``, drawn with equal probability.

    ``options`` needs only a length and indexing, so a world of 100,000 people can offer its people without
    holding them in memory.
    """

    options: Sequence["Node"]


@dataclass(frozen=True)
class Weighted:
    """One of ``options``, drawn with probabilities proportional to ``weights``."""

    options: tuple["Node", ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Sequential:
    """All ``parts``, in order."""

    parts: tuple["Node", ...]


@dataclass(frozen=True)
class Shuffled:
    """All ``parts``, in a random order (each of the n! orders is equally likely), joined by ``joiner``."""

    parts: tuple["Node", ...]
    joiner: str = ""


Node = str | Pick | Weighted | Sequential | Shuffled


def pattern(template: str, **slots: Node) -> Sequential:
    """Turn ``"{name} lives in {home}."`` and the nodes for its slots into a node.

    Raises:
        KeyError: a slot of the template was not given.
    """
    parts: list[Node] = []
    for number, piece in enumerate(template.replace("}", "{").split("{")):
        if number % 2:
            parts.append(slots[piece])
        elif piece:
            parts.append(piece)
    return Sequential(tuple(parts))


def draw(node: Node, rng: random.Random) -> tuple[str, float]:
    """Draw a text from ``node``.

    Only ``rng.random()`` is used: Python promises the same numbers for it in every version.

    Returns:
        The text and the natural logarithm of the probability of the choices made.
    """
    match node:
        case str():
            return node, 0.0
        case Pick(options):
            text, logp = draw(options[int(rng.random() * len(options))], rng)
            return text, logp - math.log(len(options))
        case Weighted(options, weights):
            target, chosen = rng.random() * sum(weights), 0
            while target >= weights[chosen] and chosen < len(options) - 1:
                target -= weights[chosen]
                chosen += 1
            text, logp = draw(options[chosen], rng)
            return text, logp + math.log(weights[chosen] / sum(weights))
        case Sequential(parts):
            drawn = [draw(part, rng) for part in parts]
            return "".join(text for text, _ in drawn), sum(logp for _, logp in drawn)
        case Shuffled(parts, joiner):
            left, texts, logp = list(parts), [], 0.0
            while left:
                logp -= math.log(len(left))
                text, part_logp = draw(left.pop(int(rng.random() * len(left))), rng)
                texts.append(text)
                logp += part_logp
            return joiner.join(texts), logp
    raise TypeError(f"not a grammar node: {node!r}")


def derivations(node: Node, text: str) -> list[float]:
    """Every way to draw exactly ``text`` from ``node``: the log-probability (nats) of each derivation."""
    return [logp for end, logp in _parse(node, text, 0) if end == len(text)]


def _parse(node: Node, text: str, start: int) -> Iterator[tuple[int, float]]:
    """Yield (end, log-probability) for every derivation of ``text[start:end]`` from ``node``."""
    match node:
        case str():
            if text.startswith(node, start):
                yield start + len(node), 0.0
        case Pick(options):
            for index in range(len(options)):
                for end, logp in _parse(options[index], text, start):
                    yield end, logp - math.log(len(options))
        case Weighted(options, weights):
            for option, weight in zip(options, weights, strict=True):
                for end, logp in _parse(option, text, start):
                    yield end, logp + math.log(weight / sum(weights))
        case Sequential(parts):
            yield from _parse_in_order(parts, text, start)
        case Shuffled(parts, joiner):
            yield from _parse_shuffled(parts, joiner, text, start)


def _parse_in_order(parts: tuple[Node, ...], text: str, start: int) -> Iterator[tuple[int, float]]:
    if not parts:
        yield start, 0.0
        return
    for middle, logp in _parse(parts[0], text, start):
        for end, rest_logp in _parse_in_order(parts[1:], text, middle):
            yield end, logp + rest_logp


def _parse_shuffled(
    parts: tuple[Node, ...], joiner: str, text: str, start: int
) -> Iterator[tuple[int, float]]:
    if not parts:
        yield start, 0.0
    for index, part in enumerate(parts):
        left = parts[:index] + parts[index + 1 :]
        for middle, logp in _parse(part, text, start):
            logp -= math.log(len(parts))
            if not left:
                yield middle, logp
            elif text.startswith(joiner, middle):
                for end, rest_logp in _parse_shuffled(left, joiner, text, middle + len(joiner)):
                    yield end, logp + rest_logp
