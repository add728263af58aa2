"""Least squares for times: costs that are never negative, errors that are relative.

A time is a sum of amounts of work, each times its own cost: no cost can be below 0. An error of 10 ms matters
in a step of 50 ms and not in one of 5 s, so every row is divided by its time first. And one row that another
program disturbed should not spoil the rest: beyond ten per cent, an error counts by its size and no longer by
its square (Huber, 1964).
"""

import numpy as np

HUBER = 0.1  # relative error from which on a row counts less
ROUNDS = 6


def nonnegative(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The x >= 0 (N,) for which ``matrix`` (M, N) times x is closest to ``target`` (M,), in squares.

    Lawson and Hanson, "Solving Least Squares Problems" (1974), chapter 23: columns enter one at a time, the
    one that would help most first, and those that turn negative leave.
    """
    count = matrix.shape[1]
    found, active = np.zeros(count), np.zeros(count, dtype=bool)
    refused = np.zeros(count, dtype=bool)  # would enter and turn negative at once, by rounding
    tolerance = 1e-10 * max(1.0, float(np.abs(matrix.T @ target).max(initial=0.0)))
    for _ in range(10 * count):
        gain = matrix.T @ (target - matrix @ found)
        gain[active | refused] = -np.inf
        enters = int(np.argmax(gain)) if count else -1
        if enters < 0 or gain[enters] <= tolerance:
            break
        active[enters] = True
        solved = _solve(matrix, target, active)
        if solved[enters] <= 0:
            active[enters], refused[enters] = False, True
            continue
        while solved[active].min() <= 0:  # go as far towards the solution as all stay positive
            low = active & (solved <= 0)
            step = (found[low] / (found[low] - solved[low])).min()
            found = found + step * (solved - found)
            active &= found > 1e-14 * max(found.max(), 1e-300)
            found[~active] = 0.0
            solved = _solve(matrix, target, active)
        found, refused = solved, np.zeros(count, dtype=bool)
    return found


def _solve(matrix: np.ndarray, target: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Ordinary least squares in the active columns, 0 in the others."""
    solved = np.zeros(matrix.shape[1])
    solved[active] = np.linalg.lstsq(matrix[:, active], target, rcond=None)[0]
    return solved


def fit_costs(amounts: np.ndarray, seconds: np.ndarray, least: np.ndarray | None = None) -> np.ndarray:
    """Costs (N,) for which ``amounts`` (M, N) times costs come closest to ``seconds`` (M,), relatively.

    Args:
        least: costs (N,) that cannot be undercut, such as one FLOP at the peak; default 0.
    """
    least = np.zeros(amounts.shape[1]) if least is None else least
    largest = amounts.max(axis=0)
    scale = np.where(largest > 0, largest, 1.0)  # numbers of like size, for the solver's sake
    relative = amounts / scale / seconds[:, None]
    goal = 1 - (amounts @ least) / seconds
    weights = np.ones(len(seconds))
    for _ in range(ROUNDS):
        root = np.sqrt(weights)
        above = nonnegative(relative * root[:, None], goal * root)
        error = np.abs(relative @ above - goal)
        weights = np.minimum(1.0, HUBER / np.maximum(error, 1e-12))
    return above / scale + least


def left_out(amounts: np.ndarray, seconds: np.ndarray, least: np.ndarray | None = None) -> np.ndarray:
    """Measured over predicted (M,), each row predicted by costs that were fitted on all others."""
    found = np.ones(len(seconds))
    for row in range(len(seconds)):
        others = np.arange(len(seconds)) != row
        predicted = float(amounts[row] @ fit_costs(amounts[others], seconds[others], least))
        found[row] = seconds[row] / predicted if predicted > 0 else np.inf
    return found
