"""The long experiments of chapter 9: the grid, and which function runs which cell of it."""

from functools import partial
from typing import Any

from minimind_edu.course.sweeps.ch09_kinds import LEVELS, learn_from_teacher, learn_kind
from minimind_edu.course.sweeps.ch09_rl import SHARES, fool, reinforce, sparse, weak
from minimind_edu.course.sweeps.ch09_start import SEEDS, TAG_WEIGHTS, THINK, learn_layout, think, weigh_tags

BETA = 1e-3  # so small that it only measures the KL
VARIANTS = ("grpo", "dr_grpo", "dapo", "cispo")

CELLS = [
    *({"experiment": "reason", "thinking": thinking, "seed": seed} for seed in SEEDS for thinking in THINK),
    *({"experiment": "tags", "weight": weight, "seed": seed} for seed in SEEDS for weight in TAG_WEIGHTS
      if seed == 1 or weight in (1, 10)),
    *({"experiment": "layout", "weight": weight, "seed": seed} for seed in SEEDS for weight in (1, 10)),
    *({"experiment": "grpo", "seed": seed} for seed in SEEDS),
    *({"experiment": "variant", "variant": variant, "seed": 1} for variant in VARIANTS),
    *({"experiment": "fool", "check": check, "seed": 1} for check in ("loose", "exact")),
    *({"experiment": "sparse", "guessed": share, "seed": 1} for share in SHARES),
    {"experiment": "weak", "digits": 4, "seed": 1},
    *({"experiment": "kind", "kind": kind, "thinking": True, "seed": 1} for kind in LEVELS),
    *({"experiment": "taught", "seed": seed} for seed in SEEDS),
]  # fmt: skip


def run_cell(experiment: str, seed: int, **settings: Any) -> dict[str, object]:
    """Train one model and measure it; what comes out depends on the experiment (see its function)."""
    run = {
        "reason": think,
        "tags": weigh_tags,
        "layout": learn_layout,
        "grpo": partial(reinforce, beta=BETA),
        "variant": partial(reinforce, updates_per_rollout=4, max_steps=24),
        "fool": fool,
        "sparse": sparse,
        "weak": weak,
        "kind": learn_kind,
        "taught": learn_from_teacher,
    }
    return run[experiment](seed=seed, **settings)
