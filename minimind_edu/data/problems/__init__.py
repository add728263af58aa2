"""Verifiable problems of the small world: any number, of any difficulty, with written-out solutions."""

from minimind_edu.data.problems.problem import Problem, is_held_out
from minimind_edu.data.problems.stream import KINDS, problems

__all__ = ["KINDS", "Problem", "is_held_out", "problems"]
