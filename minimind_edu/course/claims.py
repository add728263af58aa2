"""Claims: what a chapter says, as numbers with bounds that are checked where they are said.

    claims.record("ch04.loss_over_floor", ratio, at_most=1.10, source="this notebook, section 4")

asserts the bound and remembers the number; `claims.table()` ends a chapter with all of them. The builder of
the notebooks keeps them in `records/`, from which the README's table is made.
"""

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import Markdown

RECORDS_VARIABLE = "MINIMIND_EDU_CLAIMS_FILE"  # where the builder of the notebooks wants the claims


@dataclass(frozen=True)
class Claim:
    """A number that was measured, with the bounds that it kept.

    Attributes:
        name: `chNN.what_was_measured`.
        value: the number; its unit, if any, belongs into the name or the source.
        at_least, at_most: the bounds, each None where there is none.
        source: what was measured, and where.
    """

    name: str
    value: float
    at_least: float | None
    at_most: float | None
    source: str

    @property
    def bound(self) -> str:
        """The bounds in words."""
        if self.at_least is not None and self.at_least == self.at_most:
            return f"exactly {_short(self.at_least)}"
        parts = (("at least", self.at_least), ("at most", self.at_most))
        return ", ".join(f"{word} {_short(limit)}" for word, limit in parts if limit is not None)


_claims: dict[str, Claim] = {}


def record(
    name: str,
    value: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    equals: float | None = None,
    source: str,
) -> None:
    """Check a number against its bounds and remember it.

    Args:
        name: `chNN.what_was_measured`; a second claim of this name replaces the first (a cell may run twice).
        value: a number, a tensor with one element, or True and False as 1 and 0.
        at_least, at_most: bounds, at least one of them, or
        equals: the one value that is right.
        source: what was measured, and where.

    Raises:
        AssertionError: the number breaks a bound, or is not finite.
        ValueError: no bound, or a name that is not of the form `chNN.name`.
    """
    chapter, dot, rest = name.partition(".")
    if not (re.fullmatch(r"ch\d\d", chapter) and dot and rest):
        raise ValueError(f"a claim's name is like 'ch04.loss_over_floor', not {name!r}")
    if equals is not None:
        at_least = at_most = equals
    if at_least is None and at_most is None:
        raise ValueError(f"{name}: a claim needs at_least, at_most or equals: without one it cannot fail")
    claim = Claim(name, float(value), _number(at_least), _number(at_most), source)
    too_low = claim.at_least is not None and claim.value < claim.at_least
    too_high = claim.at_most is not None and claim.value > claim.at_most
    if not math.isfinite(claim.value) or too_low or too_high:
        raise AssertionError(f"{name} is {_short(claim.value)}, but should be {claim.bound} ({source})")
    _claims[name] = claim


def recorded() -> list[Claim]:
    """All claims so far, in the order in which they were first made."""
    return list(_claims.values())


def table() -> "Markdown":
    """The claims as a table, to end a chapter with.

    Raises:
        ValueError: nothing was claimed.
    """
    from IPython.display import Markdown  # only notebooks need it

    if not _claims:
        raise ValueError("there are no claims yet: run the cells above first")
    if target := os.environ.get(RECORDS_VARIABLE):
        text = json.dumps([asdict(claim) for claim in recorded()], indent=1, ensure_ascii=False)
        Path(target).write_text(text + "\n", encoding="utf-8")
    return Markdown(as_markdown(recorded()))


def as_markdown(claims: Sequence[Claim]) -> str:
    """A Markdown table with a row for each claim."""
    lines = ["| claim | measured | bound | source |", "| --- | --- | --- | --- |"]
    lines += [f"| `{c.name}` | {_short(c.value)} | {c.bound} | {c.source} |" for c in claims]
    return "\n".join(lines)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _short(value: float) -> str:
    """A number for people: whole ones in full, others with four digits."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e12 else f"{value:.4g}"
