# %% [markdown]
# # 9. Reasoning: thinking first, and learning from a verifier
#
# Python, English. Less than ten minutes on two CPU cores, without a network.
#
# | | |
# | --- | --- |
# | goal | teach a small model to think before it answers, and let it improve by its rewards |
# | needs | chapter 4 helps; models that are missing are built here |
# | time, memory | less than 600 seconds on two cores, less than 4 GB |
# | **the number you will reach** | **0.85 or more** of sampled answers right, from about half |
#
# ![Map of the course: you are at chapter 9, reasoning](../figures/map_09.svg)

# %% tags=["nbval-ignore-output"]
import copy
import math
import random
import re

import ipywidgets
import torch
import torch.nn.functional as F

from minimind_edu.course import artifacts, claims, figures, session, sweeps, widgets
from minimind_edu.course.exercises import check
from minimind_edu.course.hours import hours_table
from minimind_edu.course.options import OptionTables
from minimind_edu.course.sweeps import ch09_figures, ch09_rl, ch09_start
from minimind_edu.data.problems import problems
from minimind_edu.sampling import Sampling
from minimind_edu.stages.grpo import GRPOConfig
from minimind_edu.stages.policy import VARIANTS, group_advantages, policy_loss
from minimind_edu.stages.reasoning import TagPositions, weighted_lm_loss
from minimind_edu.stages.rollout import action_logprobs, as_batch, sample_groups
from minimind_edu.stages.solving import accuracy, mean_pass_at_k, pass_at_k, solve
from minimind_edu.stages.verify import extract_answer, loose_verify, verify
from minimind_edu.tokenizer.thinking import prompt_ids

session.start()
start, tokenizer = ch09_start.start_model(progress=True)
base = artifacts.base_model()[0]
grid = sweeps.load("09")  # recorded runs
options = OptionTables(GRPOConfig)  # shows options of `minimind-edu grpo`

# %% [markdown]
# ## Answers that can be checked
#
# Where an answer can be checked by a program, a model can learn from its own attempts. The small world has
# such problems at any difficulty: sums, differences, word problems, and number puzzles. Each comes with
# thoughts written out, in the layout of DeepSeek-R1.

# %%
for kind, level in (("sums", 2), ("countdown", 3)):
    one = next(problems(kind, 1, level, languages=("en",), split="held-out"))
    print(one.question, one.response(), f"(verified against: {one.gt})", "", sep="\n")

# %% [markdown]
# A model trained on a check finds whatever the check lets through. So ours guesses nothing and repairs
# nothing: one answer block, alone or after one block of thoughts, white space around them, and no other
# think or answer tag. Numbers are compared as text; expressions are read by a parser of three operators,
# never run.
#
# ![The blocks of an answer, and seven places where a wrong text hides one](../figures/09_layout.svg)

# %%
TAG = re.compile(r"<\s*/?\s*(?:think|answer)\s*/?\s*>", re.IGNORECASE)
SPACE = " \t\r\n"
LAYOUT = re.compile(rf"[{SPACE}]*(?:<think>(.*?)</think>[{SPACE}]*)?<answer>(.*?)</answer>[{SPACE}]*", re.S)


def my_verify(text, expected):
    found = LAYOUT.fullmatch(text)
    if found is None or TAG.search(f"{found[1]} {found[2]}"):
        return False
    return found[2].strip(SPACE) == expected


good = "<think>\n3 + 43\n</think>\n<answer>\n46\n</answer>"
print(my_verify(good, "46"), my_verify(good, "47"))

# %% [markdown]
# Now we attack it. `loose_verify` is the check that people write first: the right number occurs in the text.

# %%
ATTACKS = {
    "in the thoughts": good.replace("46", "12").replace("43", "46"),
    "a block in the thoughts": "<think>\n<answer>46</answer>\n</think>\n<answer>\n12\n</answer>",
    "two answers": good + "\n<answer>\n12\n</answer>",
    "two numbers": good.replace("46", "46 12"),
    "text after": good + " or 12",
    "text before": "It is 12. " + good,
    "a longer number": good.replace("46", "1460"),
    "a leading zero": good.replace("46", "046"),
    "a fraction": good.replace("46", "46.0"),
    "digits of another script": good.replace("46", "４６"),
    "tags in capitals": good.upper(),
    "a hidden second tag": good.replace("3 + 43", "< Answer >12"),
    "a calculation": good.replace("46", "3 + 43"),
    "10,000 characters": good.replace("46", "46" * 5_000),
}
passed = [name for name, text in ATTACKS.items() if verify(text, "46") or my_verify(text, "46")]
fooled = [name for name, text in ATTACKS.items() if loose_verify(text, "46")]
claims.record("ch09.smuggled_answers", len(passed), equals=0, source="of 14 attacks, notebook and package")
claims.record("ch09.loose_smuggled", len(fooled), at_least=11, source="the same by loose_verify")
print(f"the exact verifiers pass {len(passed)} of {len(ATTACKS)}, the loose one {len(fooled)}")

# %% [markdown]
# Both exact verifiers against each other, on 50,000 random arrangements of tags and numbers:

# %%
PIECES = ("<think>", "</think>", "<answer>", "</answer>", "<Answer>", "46", "12", "\n", "x", " ")
PIECES += ("<think>\nx\n</think>\n", "<answer>\n46\n</answer>", "\u3000")
rng = random.Random(0)
texts = ["".join(rng.choices(PIECES, k=rng.randint(1, 5))) for _ in range(50_000)]
verdicts = [(my_verify(text, "46"), verify(text, "46")) for text in texts]
wrong = sum(ours != theirs for ours, theirs in verdicts)
assert sum(ours for ours, _ in verdicts) > 300
claims.record("ch09.verifiers_disagree", wrong, equals=0, source="notebook and package, 50,000 texts")

# %% [markdown]
# ## Why think?
#
# Every token gets the same few layers of computation. The first digit of a sum needs all digits and carries;
# answered at once, all must happen in one pass. Written out, each step is a small one.
#
# ![A sum answered at once, and in three lines that each need only the last](../figures/09_trace.svg)
#
# The same base model, trained on three-digit sums both ways, for direct answers a quarter longer (fewer
# tokens of their rows are learned from: see below). Recorded, three seeds; *greedy* answers (always the
# likeliest token) to *held-out* sums, which no training asks for:

# %% tags=["nbval-ignore-output"]
figures.show(ch09_figures.think_figure(grid), "Accuracy with and without thinking, three seeds")
print(grid.caption)
first, direct = (ch09_figures.runs(grid, "reason", thinking=thinking) for thinking in (True, False))
for name, found in (("thinking first", first), ("at once", direct)):
    print(f"{name}: accuracy {[one['accuracy'] for one in found]}, tokens an answer {found[0]['tokens']},")
    print(f"  learned from {found[0]['labelled']:,} tokens")
worst, best = min(one["accuracy"] for one in first), max(one["accuracy"] for one in direct)
assert min(one["format"] for one in first) > 0.98
assert min(one["steps"] for one in direct) > 1.25 * max(one["steps"] for one in first)
claims.record("ch09.thinking", worst, at_least=0.9, source="held-out three-digit sums, worst of three seeds")
claims.record("ch09.direct", best, at_most=0.3, source="the same answered at once, best of three seeds")

# %% [markdown]
# The price is printed too: many more tokens an answer. Other kinds, a model for each, one seed (300 steps,
# thinking first; greedy, held out):

# %%
rates = [rate for run in ch09_figures.runs(grid, "kind") for rate in run["accuracy"].values()]
claims.record("ch09.kinds", max(rates), at_least=0.8, source="best of the kinds below")
ch09_figures.kinds_table(grid)

# %% [markdown]
# Where each line follows from the last, it can be learned; borrows take more steps than these. Countdown's
# traces do not say how the right chain is found: nearly nothing is learned.
#
# ## The cold start, and four tags among many tokens
#
# Teaching the layout by examples is R1's *cold start*. The four tags are few among an answer's tokens, yet
# without them it is worth nothing. MiniMind sets the loss's weight to 10 at the tags, found by
# *token*: other text of the same tokens gets it too, even a user's (planted here), which had weight 0 and is
# now learned. The package finds tags by their *place* in the answer.

# %%
record = next(problems("sums", 1, 2, languages=("en",))).record()["conversations"]
record[0]["content"] = "Is 5 < 6 > 4? <answer>5</answer>? " + record[0]["content"]
encoded = tokenizer.encode_chat(record)
found = TagPositions(tokenizer)(encoded.input_ids, encoded.assistant_mask)
tags = [token for token, is_tag in zip(encoded.input_ids, found, strict=True) if is_tag]
print([tokenizer.decode([token]) for token in tags])
assert tokenizer.decode(tags) == "<think></think><answer></answer>"
by_token = sum(token in tags for token in encoded.input_ids)
print(f"{len(tags)} tokens of tags by place, of {sum(encoded.assistant_mask)} in the answer;")
print(f"a rule by token would take {by_token} of the whole conversation")
claims.record("ch09.tags_by_place", by_token - len(tags), at_least=4, source="tokens a rule by token adds")

# %% [markdown]
# The mean is divided by the sum of the weights (in MiniMind by the number of tokens). By hand: losses 1, 2, 3
# with weights 10, 1, 1 give (10 + 2 + 3) / 12 = 1.25. On a batch: the package, and PyTorch's loss by token.


# %%
def weighted_mean(losses, weights):
    return (losses * weights).sum() / weights.sum()


print(float(weighted_mean(torch.tensor([1.0, 2, 3]), torch.tensor([10.0, 1, 1]))))
ids = torch.randint(0, tokenizer.vocab_size, (3, 20))
labels = ids.masked_fill(torch.rand(3, 20) < 0.4, -100)
weights = torch.where(torch.rand(3, 20) < 0.2, 10.0, 1.0)
batch = {"input_ids": ids, "labels": labels, "weights": weights, "document_ids": torch.zeros_like(ids)}
with torch.no_grad():
    package = weighted_lm_loss(base.train(), batch)[0]
    logits, targets = base(ids).logits[:, :-1], labels[:, 1:]
each = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-100, reduction="none")
by_hand = weighted_mean(each, weights[:, 1:] * (targets != -100))
gap = abs(package - by_hand) / by_hand
claims.record("ch09.weighted_loss", gap, at_most=1e-5, source="relative, package against PyTorch")

# %% [markdown]
# Does it help? Early in a cold start from the base model we ask: does the model *know* the tags, that is,
# would it write each of them, shown a right text up to there? One run of the grid is made again here.

# %% tags=["nbval-ignore-output"]
again = ch09_start.weigh_tags(weight=10, seed=1, progress=True)
recorded = ch09_figures.runs(grid, "tags", weight=10, seed=1)[0]
for name, run in (("now", again), ("recorded", recorded)):
    print(f"{name:9}", run["tags"][7:13])
figures.show(ch09_figures.tag_figure(grid), "Tags known, and loss of all tokens, by step and tag weight")
print("in the layout at the end, by weight:", layout := ch09_start.layout_by_weight(grid))

# %%
gain, cost = ch09_start.tag_gain(grid), ch09_start.tag_cost(grid)
claims.record("ch09.tags_known_gain", gain, at_least=0.05, source="mean share, weight 10 - 1, least of 3")
claims.record("ch09.tag_weight_cost", cost, at_least=1.1, source="loss, weight 10 / 1, least of three seeds")
assert max(layout[10]) < min(layout[1])
now, then = (ch09_figures.mean(one["tags"]) for one in (again, recorded))
claims.record("ch09.grid_again", abs(now - then), at_most=0.2, source="mean share, now against recorded")

# %% [markdown]
# With weight 10 the tags are known some steps earlier, and all other tokens later. Answers that the model
# writes *by itself* need both: at the end of these runs they are in the layout less often. It pays where the
# rest is known: a model that was taught the thoughts of two-digit sums without a tag now gets tagged ones
# (AdamW, as MiniMind, and small batches), three seeds:

# %% tags=["nbval-ignore-output"]
figures.show(ch09_figures.layout_figure(grid), "Answers in the layout by step for weights 1 and 10")
greedy, sampled = (ch09_figures.layout_gain(grid, name) for name in ("greedy", "sampled"))
claims.record(
    "ch09.layout_greedy", greedy, at_least=0.2, source="weight 10 - 1, mean share, least of 3 seeds"
)
claims.record("ch09.layout_sampled", sampled, at_least=0.05, source="the same for sampled answers")

# %% [markdown]
# The other cold starts of this chapter use 1: with more steps, nearly all answers are laid out right.
#
# ## From a reward to a gradient
#
# **1. The aim.** A policy π answers a question with y; the answer earns the reward r(y). We want the mean
# reward J = Σ π(y) r(y) to rise. As ∇π = π ∇ln π, its gradient is
#
# $$\nabla J = \sum_y \pi(y)\, r(y)\, \nabla \ln \pi(y)$$
#
# a mean over answers that the model itself samples: **make each sampled answer likelier in proportion to its
# reward.** By hand: two answers with π = (3/4, 1/4) and rewards (0, 1) have J = 1/4, and for the second logit
# the gradient is 1/4 · (1 − 1/4) = 3/16.
#
# **2. The baseline.** Σ π ∇ln π = ∇Σ π = 0, so r may become r − b with any b that does not depend on y. The
# mean stays, the noise can shrink. With b = J, only answers *better than usual* become likelier.

# %%
logits = torch.tensor([3.0, 1.0]).log().requires_grad_()
rewards = torch.tensor([0.0, 1.0])
policy = logits.softmax(0)
exact = torch.autograd.grad((policy * rewards).sum(), logits, retain_graph=True)[0]
scores = torch.stack([torch.autograd.grad(p.log(), logits, retain_graph=True)[0] for p in policy])
for baseline in (0.0, 0.25):
    samples = (rewards - baseline)[:, None] * scores  # the estimate from each of the two answers
    mean = (policy[:, None] * samples).sum(0).detach()
    noise = (policy[:, None] * (samples - mean) ** 2).sum().detach()
    print(f"b = {baseline}: mean {[round(float(m), 4) for m in mean]}, variance {noise:.4f}")
    assert torch.allclose(mean, exact) and math.isclose(exact[1], 3 / 16, rel_tol=1e-5)

# %% [markdown]
# **3. The group.** What is usual for *this* question? PPO trains a second model to tell. GRPO asks the policy
# for G answers and takes their mean. That has y's own reward in it, which only scales the gradient, by
# (G − 1)/G. Divided by their standard deviation, easy and hard questions weigh alike, which changes the aim.
# By hand: rewards (1, 0, 0, 1) have mean 1/2 and deviation √(1/3) = 0.577 (with G − 1 below), so advantages
# ±0.866. If all rewards are equal, every advantage is 0: the group is *dead*.
#
# ![One question, four answers, their rewards, their advantages, one loss](../figures/09_loop.svg)


# %%
def my_advantages(rewards, scale=True):
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, keepdim=True) + 1e-4) if scale else centred


toy = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1]])
print([[f"{value:.3f}" for value in row] for row in my_advantages(toy).tolist()])
many = torch.rand(50, 8)
gap = max((my_advantages(many, one) - group_advantages(many, one)).abs().max() for one in (True, False))
claims.record("ch09.advantages", gap, at_most=1e-5, source="notebook and package, 50 groups of 8")

# %% [markdown]
# **4. Several steps on the same answers.** After one step, the policy is no longer π_old, the one that
# sampled. Each token is reweighted by the ratio ρ = π / π_old, and PPO's clip takes the pull away where ρ has
# already gone far the right way: the loss is −min(ρA, clip(ρ)A). By hand, with a range of 0.2: ρ = 2 counts
# as 1.2 if A = 1; if A = −1 it counts in full.
#
# ![Pull on a token by its ratio: clipped losses let go, CISPO bounds the weight](../figures/09_clip.svg)
#
# **5. The leash.** β times the KL divergence to the *reference*, the model at the start, may be added, so
# that the policy stays near it; each token's estimate is k3 = eᵈ − d − 1, where d = ln p_ref − ln p. By
# hand, d = ln 2 gives 2 − 0.693 − 1 = 0.307.
#
# **6. Relatives.** *Dr. GRPO* does not divide by the deviation, and no longer lets a token of a long answer
# count less: the sum over tokens is divided by a fixed length. *DAPO* takes a mean over all tokens, has more
# room upwards, and drops dead groups (its authors sample others instead). *CISPO* lets no token go: it bounds
# ρ as a mere weight, −ρ̄ A ln π.


# %%
def my_loss(new, old, reference, advantages, mask, variant, beta):
    """Token by token."""
    total, weight = 0.0, 0.0
    for row, advantage in enumerate(advantages):
        count = int(mask[row].sum())
        for n, o, r in zip(new[row, :count], old[row, :count], reference[row, :count], strict=True):
            ratio = (n - o).exp()
            bounded = ratio.clamp(1 - variant.eps_low, 1 + variant.eps_high)
            loss = -torch.minimum(ratio * advantage, bounded * advantage)
            if variant.surrogate == "cispo":
                loss = -bounded.detach() * advantage * n
            loss = loss + beta * ((r - n).exp() - (r - n) - 1)
            share = {"sequence": 1 / count, "token": 1.0, "constant": 1.0}[variant.aggregation]
            total, weight = total + share * loss, weight + share
    return total / (len(mask) * mask.shape[1] if variant.aggregation == "constant" else weight)


one = torch.full((1, 1), math.log(2)), torch.zeros(1, 1), torch.zeros(1, 1)
for advantage in (1.0, -1.0):
    loss = my_loss(*one, torch.tensor([advantage]), torch.ones(1, 1), VARIANTS["grpo"], 0.0)
    print(f"A = {advantage:2}: loss {loss:.1f}")

# %% [markdown]
# On random numbers: this loop against the package, for all four, value and gradient. (The package's own tests
# compare both with trl as well.)

# %%
old = -2 * torch.rand(12, 9, dtype=torch.float64)
reference, new = (old + 0.4 * torch.randn(12, 9, dtype=torch.float64) for _ in range(2))
new.requires_grad_()
mask = torch.arange(9) < torch.randint(1, 10, (12, 1))
advantages, gaps = my_advantages(torch.rand(3, 4, dtype=torch.float64)).flatten(), []
for name, variant in VARIANTS.items():
    for beta in (0.0, 0.1):
        ours = my_loss(new, old, reference, advantages, mask, variant, beta)
        given = {"variant": name, "ref_logprobs": reference, "beta": beta}
        package, _ = policy_loss(new, old, advantages, mask, **given)
        pulls = [torch.autograd.grad(loss, new)[0] for loss in (ours, package)]
        gaps += [abs(1 - (package / ours).item()), float((pulls[0] - pulls[1]).norm() / pulls[0].norm())]
published = {"grpo": (True, 0.2), "dr_grpo": (False, 0.2), "dapo": (True, 0.28)}
assert all((VARIANTS[name].scale, VARIANTS[name].eps_high) == pair for name, pair in published.items())
claims.record("ch09.loss_difference", max(gaps), at_most=1e-5, source="relative, value and gradient")

# %% [markdown]
# **Which distribution was sampled from?** With a temperature, top-k or top-p it is not the model's own. A
# ratio against the plain softmax is wrong before the first step; a common fault. Right after sampling, every
# ratio must be 1.

# %%
asked = [prompt_ids(tokenizer, problem.record()["conversations"][:1]) for problem in ch09_start.held_out(4)]
drawn = Sampling(temperature=1.3, top_k=20, top_p=0.9)
groups = sample_groups(start, asked, 4, drawn, tokenizer.eos_token_id, ch09_start.LONGEST, seed=1)
batch = as_batch([sample for group in groups for sample in group])
with torch.no_grad():
    ratios = {
        name: (action_logprobs(start, batch, sampling).logprobs - batch["old_logprobs"])[batch["action_mask"]]
        for name, sampling in (("right", drawn), ("wrong", Sampling(temperature=1.0)))
    }
furthest = {name: float((ratio.exp() - 1).abs().max()) for name, ratio in ratios.items()}
claims.record("ch09.ratio", furthest["right"], at_most=1e-3, source="largest distance of a ratio from 1")
claims.record("ch09.ratio_wrong", furthest["wrong"], at_least=0.05, source="to the plain softmax")
options("group_size", "prompts_per_step", "updates_per_rollout", "beta", "answer_weight", "format_weight")

# %% [markdown]
# ## A start that can be improved
#
# Learning from rewards needs answers that are sometimes right. MiniMind's authors found that too small
# models (theirs are at least 25 times this one) get almost nothing from it. So the start is made for the
# purpose: a cold start in which 60% of the records think rightly, and then get one digit of the answer wrong,
# each another. The model can add, and has learned to be careless. Greedy answers, and answers *sampled* at
# temperature 1, to held-out sums:

# %% tags=["nbval-ignore-output"]
before = ch09_rl.by_digits(start, tokenizer)
for digits, found in before.items():
    sampled, greedy = found["sampled"], found["greedy"]
    print(f"{digits} digits: sampled {accuracy(sampled)[()]:.2f}, greedy {accuracy(greedy)[()]:.2f}")
cool = solve(start, tokenizer, ch09_start.held_out(48), 8, Sampling(0.5), max_new_tokens=ch09_start.LONGEST)
print(f"3 digits, temperature 0.5: sampled {accuracy(cool)[()]:.2f}")
mixed = next(one for one in before[3]["sampled"] if 0 < sum(one.right) < ch09_rl.SAMPLES)
print(mixed.problem.question)
for text, right in zip(mixed.texts, mixed.right, strict=True):
    print("right" if right else "wrong", ch09_figures.last(text))

# %% [markdown]
# *pass@k* is the chance that one of k samples is right. Of n samples, c right, the unbiased estimate is
# 1 − C(n − c, k) / C(n, k) (Chen et al., 2021). By hand, n = 4, c = 2, k = 2: 1 − 1/6 = 5/6.

# %%
draws = [sorted(pair) for pair in torch.combinations(torch.arange(4), 2).tolist()]
assert math.isclose(sum(0 in pair or 1 in pair for pair in draws) / len(draws), pass_at_k(4, 2, 2))
rate = accuracy(before[3]["sampled"])[()]
claims.record("ch09.start", rate, at_least=0.3, at_most=0.55, source="sampled accuracy before GRPO")
claims.record("ch09.cooler", accuracy(cool)[()], at_least=0.85, source="the same at temperature 0.5")

# %% [markdown]
# ## GRPO, live
#
# `minimind-edu grpo` from Python. The reward is 1 for a right answer, and 0.2 for the layout of R1. There is
# no second training loop: when the loop asks for the first row of a step, the model writes the answers (a
# *rollout*), the verifier judges them, and they become rows like any others.

# %% tags=["nbval-ignore-output"]
policy, lines, rollouts = copy.deepcopy(start), [], {}
live = ch09_figures.LiveCurves("GRPO on three-digit sums")


def log(line):
    lines.append(line)
    live(line)


result = ch09_rl.train(policy, tokenizer, seed=1, on_log=log, on_rollout=rollouts.__setitem__, progress=True)
live.draw()

# %% tags=["nbval-ignore-output"]
parts = {
    name: sum(line.get(f"{name}_seconds", 0) for line in lines) for name in ("rollout", "reward", "update")
}
whole = sum(parts.values())
print(f"{result.step} steps in {result.seconds:.0f} s:", {k: f"{v / whole:.1%}" for k, v in parts.items()})
claims.record("ch09.reward_share", parts["reward"] / whole, at_most=0.05, source="share of time, verifier")

# %% [markdown]
# Step through the groups; a dead one pulls nowhere.


# %% tags=["nbval-ignore-output"]
def draw_group(step, group):
    step = min(rollouts, key=lambda known: abs(known - step))
    return ch09_figures.group_html(step, rollouts[step][group])


widgets.explore(
    draw_group,
    "The answers of one group with rewards and advantages, at any step of the run above",
    step=ipywidgets.IntSlider(0, min=0, max=max(rollouts), description="step"),
    group=ipywidgets.IntSlider(0, min=0, max=len(rollouts[0]) - 1, description="group"),
)

# %% tags=["nbval-ignore-output"]
after = ch09_rl.by_digits(policy, tokenizer)
for digits in after:
    rates = [accuracy(found[digits]["sampled"])[()] for found in (before, after)]
    print(f"{digits} digits: sampled {rates[0]:.2f} -> {rates[1]:.2f}")
for k in ch09_rl.KS:
    rates = [mean_pass_at_k(found[3]["sampled"], k) for found in (before, after)]
    print(f"pass@{k}: {rates[0]:.2f} -> {rates[1]:.2f}")
rise = accuracy(after[3]["sampled"])[()]
claims.record("ch09.live_run", rise, at_least=0.85, source="sampled accuracy after the run above")
claims.record("ch09.live_gain", rise - rate, at_least=0.3, source="the same minus the start's")

# %% [markdown]
# ## Did it teach, or sharpen?
#
# Three seeds, recorded (before GRPO, all are the same model):

# %% tags=["nbval-ignore-output"]
found = ch09_figures.runs(grid, "grpo")
figures.show(
    ch09_figures.curves_figure(found), "Reward, length, entropy, KL and dead groups by step, three seeds"
)
pairs = [[run[when]["pass"] for run in found] for when in ("before", "after")]
figures.show(ch09_figures.pass_figure(*pairs, ch09_rl.KS), "pass@k by k before and after GRPO, three seeds")
assert all(run["curves"]["entropy"][-1] < run["curves"]["entropy"][0] / 2 for run in found)
worst = min(run["after"]["accuracy"] for run in found)
claims.record("ch09.grpo_accuracy", worst, at_least=0.85, source="sampled, held out, worst of three seeds")
at_8, greedy = found[0]["before"]["pass"][-1], found[0]["before"]["greedy"]
claims.record("ch09.pass_8_before", at_8, at_least=0.95, source="pass@8 before GRPO")
claims.record("ch09.greedy_before", greedy, at_least=0.9, source="greedy, before GRPO")

# %% [markdown]
# pass@1 doubles; pass@8 and greedy answers could not rise, they were right before. What the model did once in
# a while it now does every time, as it would at temperature 0.5 without any training: GRPO **sharpens** here;
# by the making of this start, nothing else could be seen. Sums of two digits, which it was not asked, gain
# too; four digits gain nothing (above). Entropy falls. Groups of equal rewards are dead: the signal ends
# where the task does.
#
# ## The variants
#
# With one update per rollout every ratio is 1 but for rounding (updates in bfloat16, answers in float32: a
# few are far off). So these runs make four updates on each of six rollouts, one seed each:

# %%
runs = ch09_figures.runs(grid, "variant")
ends = [run["after"]["accuracy"] for run in runs]
clipped = max(max(run["curves"]["clip_share"]) for run in runs)
claims.record("ch09.variants_differ", max(ends) - min(ends), at_most=0.08, source="sampled accuracy, of all")
claims.record("ch09.clipped", clipped, at_most=0.01, source="share of tokens, most of any step")
ch09_figures.variant_table(grid)

# %% [markdown]
# They hardly differ: too few tokens are clipped, answers have nearly the same length, and six rollouts are
# too few to rank the rest. The variants were made for answers of very different lengths and many updates.
#
# ## When the verifier can be fooled
#
# Here the start gets more examples: of five, two answer rightly and then add a second, wrong number, two have
# a wrong digit. Then GRPO with either verifier as the reward, everything else alike, one seed
# each:

# %% tags=["nbval-ignore-output"]
figures.show(ch09_figures.fool_figure(grid), "Right, and wrong but rewarded answers by step, both verifiers")
for name in ("loose", "exact"):
    for run in ch09_figures.runs(grid, "fool", check=name):
        pairs = [[run[when][kind] for when in ("before", "after")] for kind in ("accuracy", "greedy")]
        sampled, greedy = (f"{before:.2f} -> {after:.2f}" for before, after in pairs)
        print(f"{name}: right when sampled {sampled}, greedy {greedy}")
examples = ch09_figures.runs(grid, "fool", check="loose")[0]["examples"]
print("rewarded by the loose one (right: the second):", examples[:5])
fooled, cured = (ch09_figures.runs(grid, "fool", check=check) for check in ("loose", "exact"))
cheats = min(ch09_figures.mean(run["cheats"][-5:]) for run in fooled)
lost = max(run["after"]["greedy"] - run["before"]["greedy"] for run in fooled)
gain = min(run["after"]["accuracy"] - run["before"]["accuracy"] for run in cured)
claims.record("ch09.hacked", cheats, at_least=0.4, source="wrong, but rewarded by the loose verifier, least")
claims.record("ch09.hacked_greedy", lost, at_most=-0.2, source="greedy, gained by the loose verifier, most")
claims.record("ch09.cured_gain", gain, at_least=0.4, source="accuracy gained by the exact verifier, least")

# %% [markdown]
# The loose reward rises; right answers hardly do, and greedy ones get much worse. The samples show a trick
# that no example taught: more digits glued to the right number. A rising reward says nothing until samples
# are read. With the exact verifier, what rises is what was meant.
#
# ## When the start is too weak
#
# Other starts: the start model after more examples, a share of them with a *guessed* answer; the cured one;
# and the start on sums of four digits, which it never saw. 25 steps from each (15 on four digits):

# %% tags=["nbval-ignore-output"]
figures.show(ch09_figures.sparse_figure(grid), "Gain of GRPO by the success rate before it")
points, weak = (ch09_figures.gains(grid, name) for name in ("sparse", "weak"))
print("before, gain:", [(round(before, 3), round(gain, 2)) for before, gain in (*weak, *points)])
claims.record("ch09.too_weak", max(weak[-1][1], points[0][1]), at_most=0.05, source="gain, started near 0")
least = min(gain for before, gain in points if 0.05 < before < 0.8)
claims.record("ch09.within_reach", least, at_least=0.1, source="gain of starts of 0.05 to 0.8, least")

# %% [markdown]
# Where no answer of a group is right, only the layout is left to learn. From a start of a few percent much is
# gained, in between most, and near 1 little is left. The remedy is a task within reach: a better cold start,
# or easier problems. (Where pass@8 had room, it rose too; greedy answers were right there already.)
#
# ## One model, with a switch
#
# Thoughts cost tokens. Chat templates have a switch: the prompt begins the answer with an open
# block of thoughts (MiniMind-3), or with an empty one (Qwen3 too). A model follows it if its training had
# both kinds. We go on from the trained policy for a few steps, half of the records thinking, half not.

# %% tags=["nbval-ignore-output"]
both = copy.deepcopy(policy)
half = [one.record(n % 2 == 0) for n, one in enumerate(problems("sums", 2_000, (1, 3)))]
ch09_start.cold_start(both, tokenizer, half, progress=True, tag_weight=1, max_steps=60, learning_rate=3e-3)
switched = {}
for on in (True, False):
    found = solve(both, tokenizer, ch09_start.held_out(200), thinking=on, max_new_tokens=ch09_start.LONGEST)
    answers = [extract_answer(one.texts[0]) for one in found]
    tokens = sum(one.tokens[0] for one in found) / len(found)
    switched[on] = accuracy(found)[()], 1 - answers.count(None) / len(answers), tokens
    print(f"thinking {'on' if on else 'off'}: right {switched[on][0]:.2f}, with an answer block", end=" ")
    print(f"{switched[on][1]:.2f}, {tokens:.0f} tokens")

# %%
(right, _, many), (wrong, blocks, few) = switched[True], switched[False]
claims.record("ch09.switch_on", right, at_least=0.8, source="three-digit sums, thinking")
claims.record("ch09.switch_off", wrong, at_most=0.3, source="the same, answered at once")
claims.record("ch09.switch_layout", blocks, at_least=0.9, source="of those, with an answer block")
claims.record("ch09.switch_saves", 1 - few / many, at_least=0.7, source="tokens saved by thinking off")

# %% [markdown]
# Off, the model answers at once, in few tokens, and on these sums that costs the right answer.
# `minimind-edu generate --thinking on|off` sets it.
#
# ## Learning from a bigger teacher
#
# The other road to a cold start is a teacher's traces (R1's distilled models; chapter 8's black box). A model
# three times as big, trained on our traces from random weights, answers new problems by sampling; those
# answers that the verifier accepts are all that the base model gets, in as many steps as above:

# %%
taught = ch09_figures.runs(grid, "taught")
one = taught[0]
print(f"parameters {one['teacher_parameters']:,}, {one['parameters']:,}; teacher, greedy: {one['teacher']}")
print(f"kept {one['kept']:.2f} of {one['asked']:,}; students: {[run['accuracy'] for run in taught]}")
worst = min(run["accuracy"] for run in taught)
claims.record("ch09.taught", worst, at_least=0.9, source="students of a teacher, worst of three seeds")

# %% [markdown]
# They are as good as those that learned from the program's traces, and nobody wrote a thought for them:
# questions and a check of the answers were enough.
#
# ## Exercises
#
# Fill in a function, run its cell and the next. In `minimind_edu.course.exercises`,
# `show_solution("ch09.k3")` shows a solution.
#
# **1.** The answer of a text, or None.


# %%
def my_extract_answer(text):
    """What the answer block holds, stripped. None if that is empty, if more than white space is around the
    block (alone or after one <think>…</think>), or a tag inside of it or of the thoughts.
    "<answer> 46 </answer>" gives "46"; "<answer>46</answer>." gives None.
    """
    raise NotImplementedError


# %%
check("ch09.extract_answer", my_extract_answer)

# %% [markdown]
# **2.** Advantages.


# %%
def my_group_advantages(rewards, scale):
    """From rewards (P, G) to advantages (P, G): minus the group's mean; with scale, / (deviation + 1e-4).

    [[1., 0., 0., 1.]] without scale gives [[0.5, -0.5, -0.5, 0.5]].
    """
    raise NotImplementedError


# %%
check("ch09.group_advantages", my_group_advantages)

# %% [markdown]
# **3.** The estimate of KL.


# %%
def my_k3(logprobs, reference):
    """k3 of each token, both (B, T) in nats. logprobs 0 and reference ln 2 give 2 - ln 2 - 1 = 0.307."""
    raise NotImplementedError


# %%
check("ch09.k3", my_k3)

# %% [markdown]
# **4.** The clipped loss of GRPO.


# %%
def my_clipped_loss(logprobs, old, advantages, mask, eps):
    """A scalar, of (B, T), (B, T), (B,), (B, T) with 1 on tokens: mean over each answer, then over answers.

    One token with ratio 2 and advantage 1 gives -1.2 for eps 0.2.
    """
    raise NotImplementedError


# %%
check("ch09.clipped_loss", my_clipped_loss)

# %% [markdown]
# ## What was claimed

# %% tags=["nbval-ignore-output"]
claims.table()

# %% [markdown]
# ## At full scale
#
# ```
# minimind-edu reason --from_weight out/small-sft --data_path reason.jsonl --max_seq_len 1024 \
#     --tag_weight 10 --optimizer adamw --learning_rate 1e-5 --out_dir out/small-reason
# minimind-edu grpo --from_weight out/small-reason --data_path rlvr.jsonl --learning_rate 1e-6 \
#     --max_new_tokens 768 --beta 0.02 --out_dir out/small-grpo
# minimind-edu reason --data_path gsm8k_train.jsonl
# minimind-edu data problems --kind countdown --difficulty 3,4 --form rlvr
# minimind-edu course sweep 09                            # the record of this chapter
# ```
#
# On GSM8K both commands run end to end; no accuracy is to be expected of a model of a million parameters.
# Hours of GRPO on real cards; reported is what MiniMind-3's author estimates for his own code (RLAIF):

# %%
hours_table("grpo")

# %% [markdown]
# ## References
#
# - Guo et al., *DeepSeek-R1*, 2025. Shao et al., *DeepSeekMath*, 2024 (GRPO).
# - Williams, *Simple Statistical Gradient-Following Algorithms for
#   Connectionist Reinforcement Learning*, 1992. Schulman et al., *PPO*, 2017.
# - Schulman, *Approximating KL Divergence*, 2020 (k3).
# - Liu et al., *Understanding R1-Zero-Like Training*, 2025 (Dr. GRPO). Yu et al., *DAPO*, 2025. MiniMax,
#   *MiniMax-M1*, 2025 (CISPO).
# - Chen et al., *Evaluating Large Language Models Trained on Code*, 2021 (pass@k).
# - Yue et al., *Does Reinforcement Learning Really Incentivize Reasoning Capacity in LLMs Beyond the Base
#   Model?*, 2025 (teach or sharpen).
# - Lee et al., *Teaching Arithmetic to Small Transformers*, 2023. Yang et al., *Qwen3*, 2025 (the switch).
