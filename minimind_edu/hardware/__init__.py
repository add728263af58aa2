"""What training needs of a machine, and what a machine gives: memory, time, cards, measurements (chapter 10)."""

from minimind_edu.hardware.workload import STAGES, Workload

__all__ = ["STAGES", "Workload"]
