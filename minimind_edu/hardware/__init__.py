"""What training needs of a machine, and what machines give: memory, time, cards, measurements."""

from minimind_edu.hardware.advice import advice
from minimind_edu.hardware.cards import CARDS, Card, find_card
from minimind_edu.hardware.estimate import Estimate, estimate, largest_batch
from minimind_edu.hardware.workload import STAGES, Workload

__all__ = [
    "CARDS",
    "STAGES",
    "Card",
    "Estimate",
    "Workload",
    "advice",
    "estimate",
    "find_card",
    "largest_batch",
]
