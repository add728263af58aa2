"""How often each pair turns within the trained length, and which of them YaRN slows down."""

import math
from pathlib import Path

import torch

from minimind_edu.config import ModelConfig, RopeScaling
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, RED, new_figure, save_figure
from minimind_edu.model.rope import rope_frequencies

LENGTH, FACTOR, FAST, SLOW = 64, 8, 1, 0.25  # as in the chapter

plain = ModelConfig.preset("edu", rope_theta=300.0, max_position_embeddings=LENGTH * FACTOR)
scaled = plain.replace(rope_scaling=RopeScaling(FACTOR, LENGTH, FAST, SLOW))
turns = [LENGTH * rope_frequencies(config) / (2 * math.pi) for config in (plain, scaled)]
share = turns[1] / turns[0]
figure, axes = new_figure(7.5, 3.0)
pairs = torch.arange(len(share))
axes.plot(pairs, turns[0], "o-", color=BLUE, markersize=4, label="plain")
axes.plot(pairs, turns[1], "o-", color=RED, markersize=4, label=f"YaRN, factor {FACTOR}")
axes.axhline(FAST, color=GREY, linestyle="--", linewidth=1)
axes.axhline(SLOW, color=GREY, linestyle=":", linewidth=1)
kept, slowed = int((share > 0.999).sum()), int((share < 1 / FACTOR + 0.001).sum())
bands = (
    (0, kept, GREEN, "left alone"),
    (kept, 32 - slowed, ORANGE, "ramp"),
    (32 - slowed, 32, RED, f"slowed by {FACTOR}"),
)
for begin, end, colour, name in bands:
    axes.axvspan(begin - 0.5, end - 0.5, color=colour, alpha=0.1, linewidth=0)
    axes.text((begin + end - 1) / 2, 22, name, ha="center", va="center", fontsize=9)
axes.text(31.4, FAST * 1.12, "one turn", ha="right", va="bottom", fontsize=8)
axes.text(-0.4, SLOW * 1.12, "a quarter", ha="left", va="bottom", fontsize=8)
axes.set(
    yscale="log",
    xlabel="number of the pair",
    ylabel=f"turns within {LENGTH} tokens",
    xlim=(-0.5, 31.5),
    ylim=(0.002, 40),
)
axes.set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
axes.minorticks_off()
axes.legend(loc="lower left")
save_figure(figure, Path(__file__).with_suffix(".svg"))
