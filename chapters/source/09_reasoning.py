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
# | **the number you will reach** | **0.85 or more** of sampled answers right, from less than half |
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
from minimind_edu.course.options import OptionTables
from minimind_edu.course.sweeps import ch09, ch09_figures
from minimind_edu.data.problems import problems
from minimind_edu.sampling import Sampling
from minimind_edu.stages.grpo import GRPOConfig
from minimind_edu.stages.policy import VARIANTS, group_advantages, policy_loss
from minimind_edu.stages.reasoning import TagPositions, weighted_lm_loss
from minimind_edu.stages.rollout import action_logprobs, as_batch, sample_groups
from minimind_edu.stages.solving import accuracy, mean_pass_at_k, pass_at_k
from minimind_edu.stages.verify import loose_verify, verify
from minimind_edu.tokenizer.thinking import prompt_ids

session.start()
start, tokenizer = ch09.start_model(progress=True)
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
# nothing: one answer block, alone or after one block of thoughts, white space around them, and no other tag
# anywhere. Numbers are compared as text; expressions are read by a parser of three operators, never run.
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
# Every token gets the same few layers of computation. The first digit of a sum needs all carries; answered
# at once, a four-layer model has one pass to find them. Written out, each step is a small one.
#
# ![A sum answered at once, and in three lines that each need only the last](../figures/09_trace.svg)
#
# The same base model, trained on three-digit sums both ways, with a quarter more steps of as many tokens for
# direct answers. Recorded runs, three seeds, greedy answers to held-out sums:

# %% tags=["nbval-ignore-output"]
figures.show(ch09_figures.think_figure(grid), "Accuracy with and without thinking, three seeds")
print(grid.caption)
first, direct = (ch09_figures.runs(grid, "reason", thinking=thinking) for thinking in (True, False))
for name, found in (("thinking first", first), ("at once", direct)):
    print(f"{name}: accuracy {[one['accuracy'] for one in found]}, tokens {found[0]['tokens']} an answer")

# %%
worst, best = min(one["accuracy"] for one in first), max(one["accuracy"] for one in direct)
assert min(one["format"] for one in first) > 0.98
assert min(one["steps"] for one in direct) > 1.25 * max(one["steps"] for one in first)
claims.record("ch09.thinking", worst, at_least=0.9, source="held-out three-digit sums, worst of three seeds")
claims.record("ch09.direct", best, at_most=0.3, source="the same answered at once, best of three seeds")

# %% [markdown]
# The price is printed too: many more tokens an answer.
#
# ## The cold start, and four tags among many tokens
#
# Teaching the layout by examples first is R1's *cold start*. The four tags are few among the tokens of an
# answer, yet without them it is worth nothing. MiniMind lets the loss at the tags count ten times. Weighted
# by *token*, as there, ordinary text made of the same tokens counts ten times too. So the package finds tags
# by their *place* in the answer.

# %%
record = next(problems("sums", 1, 2, languages=("en",))).record()["conversations"]
record[0]["content"] = "Is 5 < 6 > 4? <answer>5</answer>? " + record[0]["content"]
encoded = tokenizer.encode_chat(record)
found, _ = TagPositions(tokenizer)(encoded.input_ids, encoded.assistant_mask)
tags = [token for token, is_tag in zip(encoded.input_ids, found, strict=True) if is_tag]
print([tokenizer.decode([token]) for token in tags])
assert tokenizer.decode(tags) == "<think></think><answer></answer>"
by_token = sum(token in tags for token in encoded.input_ids)
print(f"{len(tags)} tokens of tags by place; a rule by token would take {by_token}")
claims.record("ch09.tags_by_place", by_token - len(tags), at_least=4, source="tokens a rule by token adds")

# %% [markdown]
# The mean is divided by the sum of the weights. By hand: losses 1, 2, 3 with weights 10, 1, 1 give
# (10 + 2 + 3) / 12 = 1.25. On a batch: the package, and PyTorch's loss token by token.


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
# would it write each of them, shown a right text up to there? The grid has four weights. One of its runs is
# made again here.

# %% tags=["nbval-ignore-output"]
again = ch09.weigh_tags(weight=10, seed=1, progress=True)
recorded = ch09_figures.runs(grid, "tags", weight=10, seed=1)[0]
for name, run in (("now", again), ("recorded", recorded)):
    print(f"{name:9}", dict(list(zip(run["steps"], run["tags"], strict=True))[7:14]))
figures.show(ch09_figures.tag_figure(grid), "Tags known, and loss of all tokens, by step and tag weight")
print("in the layout at the end, by weight:", ch09.layout_by_weight(grid))

# %%
gain, cost = ch09.tag_gain(grid), ch09.tag_cost(grid)
claims.record(
    "ch09.tags_known_gain", gain, at_least=0.05, source="weight 10 - 1, mean share, least of 3 seeds"
)
claims.record("ch09.tag_weight_cost", cost, at_least=1.1, source="loss, weight 10 / 1, least of three seeds")
now, then = (ch09_figures.mean(one["tags"]) for one in (again, recorded))
claims.record("ch09.grid_again", abs(now - then), at_most=0.2, source="mean share, now against recorded")

# %% [markdown]
# So it does what it says: with weight 10 the tags are known some steps earlier. And it has a price: all other
# tokens are learned later. Answers that the model writes *by itself* need both, and after the last step of
# these runs they are laid out right no more often, rather less. Given more steps, weight 1 is enough: the
# thinking runs above had it, and nearly all of their answers are laid out right. With a fluent model and few
# steps the weight may pay; here it does not, and the other cold starts of this chapter use 1.
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
    assert torch.allclose(mean, exact) and exact[1] == 3 / 16

# %% [markdown]
# **3. The group.** What is usual for *this* question? PPO trains a second model to tell. GRPO asks the policy
# for G answers and takes their mean. Divided by their standard deviation, easy and hard questions weigh
# alike. By hand: rewards (1, 0, 0, 1) have mean 1/2 and deviation √(1/3) = 0.577, so advantages ±0.866. If
# all are right or all wrong, every advantage is 0: the group is *dead*.
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
# **4. Several steps on the same answers.** After one step, the policy is no longer the one that sampled. Each
# token is reweighted by the ratio ρ = π / π_old, and PPO's clip takes the pull away where ρ has already gone
# far the right way. By hand, with a range of 0.2: ρ = 2 counts as 1.2 if A = 1; if A = −1 it counts in full.
#
# ![Pull on a token by its ratio: clipped losses let go, CISPO bounds the weight](../figures/09_clip.svg)
#
# **5. The leash.** KL(π ‖ reference) may be added, by the estimate k3 = eᵈ − d − 1 of each token, where
# d = ln p_ref − ln p. By hand, d = ln 2 gives 2 − 0.693 − 1 = 0.307.


# %%
def my_loss(new, old, reference, advantages, mask, variant, beta):
    """Token by token, in plain Python."""
    total, weight = 0.0, 0.0
    for row, advantage in enumerate(advantages.tolist()):
        count = int(mask[row].sum())
        for place in range(count):
            n, o, r = (float(one[row, place]) for one in (new, old, reference))
            ratio = math.exp(n - o)
            bounded = min(max(ratio, 1 - variant.eps_low), 1 + variant.eps_high)
            loss = -min(ratio * advantage, bounded * advantage)
            if variant.surrogate == "cispo":
                loss = -bounded * advantage * n
            loss += beta * (math.exp(r - n) - (r - n) - 1)
            share = {"sequence": 1 / count, "token": 1.0, "constant": 1.0}[variant.aggregation]
            total, weight = total + share * loss, weight + share
    return total / (len(mask) * mask.shape[1] if variant.aggregation == "constant" else weight)


one = torch.full((1, 1), math.log(2)), torch.zeros(1, 1), torch.zeros(1, 1)
for advantage in (1.0, -1.0):
    loss = my_loss(*one, torch.tensor([advantage]), torch.ones(1, 1), VARIANTS["grpo"], 0.0)
    print(f"A = {advantage:2}: loss {loss:.1f}")

# %% [markdown]
# On random numbers: this loop against the package, for GRPO and three relatives. (The package's own tests
# compare value and gradient with trl as well.)

# %%
old = -2 * torch.rand(12, 9, dtype=torch.float64)
new, reference = (old + 0.4 * torch.randn(12, 9, dtype=torch.float64) for _ in range(2))
mask = torch.arange(9) < torch.randint(1, 10, (12, 1))
advantages, gaps = my_advantages(torch.rand(3, 4, dtype=torch.float64)).flatten(), []
for name, variant in VARIANTS.items():
    for beta in (0.0, 0.1):
        ours = my_loss(new, old, reference, advantages, mask, variant, beta)
        given = {"variant": name, "ref_logprobs": reference, "beta": beta}
        package, _ = policy_loss(new, old, advantages, mask, **given)
        gaps.append(abs(ours - float(package)) / abs(ours))
    print(f"{name:8}", variant)
claims.record("ch09.loss_difference", max(gaps), at_most=1e-5, source="relative, four losses, two betas")

# %% [markdown]
# **Which distribution was sampled from?** With a temperature, top-k or top-p it is not the model's own. A
# ratio against the plain softmax is wrong before the first step; a common fault. Right after sampling, every
# ratio must be 1.

# %%
asked = [prompt_ids(tokenizer, problem.record()["conversations"][:1]) for problem in ch09.held_out(4)]
drawn = Sampling(temperature=1.3, top_k=20, top_p=0.9)
groups = sample_groups(start, asked, 4, drawn, tokenizer.eos_token_id, ch09.LONGEST, seed=1)
batch = as_batch([sample for group in groups for sample in group])
with torch.no_grad():
    ratios = {
        name: (action_logprobs(start, batch, sampling).logprobs - batch["old_logprobs"])[batch["action_mask"]]
        for name, sampling in (("right", drawn), ("wrong", Sampling(temperature=1.0)))
    }
furthest = {name: float((ratio.exp() - 1).abs().max()) for name, ratio in ratios.items()}
claims.record("ch09.ratio", furthest["right"], at_most=1e-3, source="largest distance of a ratio from 1")
claims.record("ch09.ratio_wrong", furthest["wrong"], at_least=0.05, source="to the plain softmax")
options("temperature", "top_k", "top_p", "group_size", "prompts_per_step", "updates_per_rollout", "beta")

# %% [markdown]
# ## A start that can be improved
#
# Learning from rewards needs answers that are sometimes right. MiniMind's authors found that models this
# small get almost nothing from it, since the reward is nearly always zero. So the start is made for the
# purpose: a cold start in which many records think rightly, and then get one digit of the answer wrong. The
# model can add, and has learned to be careless. *Greedy* answers, and answers *sampled* at temperature 1, to
# held-out sums:

# %% tags=["nbval-ignore-output"]
before = ch09.by_digits(start, tokenizer)
for digits, found in before.items():
    sampled, greedy = found["sampled"], found["greedy"]
    print(f"{digits} digits: sampled {accuracy(sampled)[()]:.2f}, greedy {accuracy(greedy)[()]:.2f}")
mixed = next(one for one in before[3]["sampled"] if 0 < sum(one.right) < ch09.SAMPLES)
print(mixed.problem.question)
for text, right in zip(mixed.texts, mixed.right, strict=True):
    print("right" if right else "wrong", ch09_figures.last(text))

# %% [markdown]
# *pass@k* is the chance that one of k samples is right. Of n samples, c right, the unbiased estimate is
# 1 − C(n − c, k) / C(n, k) (Chen et al., 2021). By hand, n = 4, c = 2, k = 2: 1 − 1/6 = 5/6. It will tell
# whether reinforcement learning teaches something new, or makes what is there happen at once.

# %%
draws = [sorted(pair) for pair in torch.combinations(torch.arange(4), 2).tolist()]
assert math.isclose(sum(0 in pair or 1 in pair for pair in draws) / len(draws), pass_at_k(4, 2, 2))
rate = accuracy(before[3]["sampled"])[()]
claims.record("ch09.start", rate, at_least=0.3, at_most=0.6, source="sampled accuracy before GRPO")

# %% [markdown]
# ## GRPO, live
#
# `minimind-edu grpo` from Python. There is no second training loop: when the loop asks for the first row of a
# step, the model writes the answers, the verifier judges them, and they become rows like any others.

# %% tags=["nbval-ignore-output"]
policy, lines, rollouts = copy.deepcopy(start), [], {}
live = ch09_figures.LiveCurves("GRPO on three-digit sums")


def log(line):
    lines.append(line)
    live(line)


result = ch09.train(policy, tokenizer, seed=1, on_log=log, on_rollout=rollouts.__setitem__, progress=True)
live.draw()

# %% tags=["nbval-ignore-output"]
parts = {
    name: sum(line.get(f"{name}_seconds", 0) for line in lines) for name in ("rollout", "reward", "update")
}
whole = sum(parts.values())
print(f"{result.step} steps in {result.seconds:.0f} s:", {k: f"{v / whole:.1%}" for k, v in parts.items()})
claims.record("ch09.reward_share", parts["reward"] / whole, at_most=0.05, source="share of time, verifier")

# %% [markdown]
# Step through the groups: early ones are mixed, later ones mostly right, and a dead group pulls nowhere.


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
after = ch09.by_digits(policy, tokenizer)
for digits in after:
    rates = [accuracy(found[digits]["sampled"])[()] for found in (before, after)]
    print(f"{digits} digits: sampled {rates[0]:.2f} -> {rates[1]:.2f}")
for k in ch09.KS:
    rates = [mean_pass_at_k(found[3]["sampled"], k) for found in (before, after)]
    print(f"pass@{k}: {rates[0]:.2f} -> {rates[1]:.2f}")
rise = accuracy(after[3]["sampled"])[()]
claims.record("ch09.live_run", rise, at_least=0.8, source="sampled accuracy after the run above")
claims.record("ch09.live_gain", rise - rate, at_least=0.3, source="the same minus the start's")

# %% [markdown]
# ## Did it teach, or sharpen?
#
# Three seeds, recorded. Note what rises and what does not:

# %% tags=["nbval-ignore-output"]
found = ch09_figures.runs(grid, "grpo")
figures.show(
    ch09_figures.curves_figure(found), "Reward, length, entropy, KL and dead groups by step, three seeds"
)
pairs = [[run[when]["pass"] for run in found] for when in ("before", "after")]
figures.show(ch09_figures.pass_figure(*pairs, ch09.KS), "pass@k by k before and after GRPO, three seeds")

# %%
worst = min(run["after"]["accuracy"] for run in found)
assert max(run["before"]["accuracy"] for run in found) <= 0.5
claims.record("ch09.greedy_before", found[0]["before"]["greedy"], at_least=0.9, source="greedy, before GRPO")
claims.record("ch09.grpo_accuracy", worst, at_least=0.85, source="sampled, held out, worst of three seeds")
once = min(run["after"]["pass"][0] - run["before"]["pass"][0] for run in found)
ever = max(run["after"]["pass"][-1] - run["before"]["pass"][-1] for run in found)
claims.record("ch09.pass_at_1_gain", once, at_least=0.35, source="after minus before, least of three seeds")
claims.record("ch09.pass_at_8_gain", ever, at_most=0.1, source="the same for pass@8, most of three seeds")

# %% [markdown]
# pass@1 rises by far more than pass@8, and greedy answers were right from the start. What the model
# could do once in a while it now does every time: here GRPO **sharpens**. Sums of two digits, which it was
# not asked, gain too; four digits, which the start cannot add, gain nothing (above). Entropy falls. Groups
# that are all right are dead: the signal ends where the task does.
#
# ## The variants
#
# Each is a few settings of one loss. *Dr. GRPO* does not divide by the deviation, and no longer lets a token
# of a long answer count less. *DAPO* averages over tokens, has more room upwards, and drops dead groups.
# *CISPO* bounds a token's weight instead of letting go. With one update per rollout every ratio is 1, so
# nothing is clipped; these runs make four updates. What each changed here, one seed each:

# %% tags=["nbval-ignore-output"]
ends = [run["after"]["accuracy"] for run in ch09_figures.runs(grid, "variant")]
claims.record("ch09.variants_differ", max(ends) - min(ends), at_most=0.08, source="sampled accuracy, of four")
ch09_figures.variant_table(grid)

# %% [markdown]
# They hardly differ here, and it can be said why. AdamW divides out what scales the whole gradient. All
# answers have nearly the same length, so it matters little how tokens are averaged. And ratios stay so close
# to 1 that less than one token in a hundred is clipped. The variants were made for answers of very different
# lengths, and for many updates on each rollout.
#
# ## When the verifier can be fooled
#
# For this experiment the start gets more examples. Two in five of them answer rightly and then add a second,
# wrong number. Then GRPO with either verifier as the reward, everything else alike:

# %% tags=["nbval-ignore-output"]
figures.show(ch09_figures.fool_figure(grid), "Right, and wrong but rewarded answers by step, both verifiers")
fooled, cured = (ch09_figures.runs(grid, "fool", check=check)[0] for check in ("loose", "exact"))
for name, run in (("loose", fooled), ("exact", cured)):
    ends = [ch09_figures.mean(part) for part in (run["curves"]["reward"][:3], run["curves"]["reward"][-3:])]
    rates = [run[when]["accuracy"] for when in ("before", "after")]
    print(f"{name}: reward {ends[0]:.2f} -> {ends[1]:.2f}, right {rates[0]:.2f} -> {rates[1]:.2f}")
print("rewarded by the loose one (right: the second):", fooled["examples"][:5])

# %%
cheats = ch09_figures.mean(fooled["cheats"][-5:])
gains = [run["after"]["accuracy"] - run["before"]["accuracy"] for run in (fooled, cured)]
claims.record("ch09.hacked", cheats, at_least=0.4, source="wrong, but rewarded by the loose verifier")
claims.record("ch09.hacked_gain", gains[0], at_most=0.1, source="accuracy gained with the loose verifier")
claims.record("ch09.cured_gain", gains[1], at_least=0.4, source="accuracy gained with the exact verifier")

# %% [markdown]
# The loose reward rises as it should, and right answers do not. Nor is it the trick that the examples showed:
# the model found its own, more digits glued to the right number. A rising reward says nothing until samples
# are read. With the exact verifier, from the same start, what rises is what was meant.
#
# ## When the start is too weak
#
# The start model never saw sums of four digits. GRPO on those, against the runs on three digits and the cured
# run, by how often the start was right:

# %% tags=["nbval-ignore-output"]
figures.show(ch09_figures.weak_figure(grid), "Gain of GRPO by the success rate before it")
weak = ch09_figures.runs(grid, "weak", digits=4)[0]
dead = ch09_figures.mean(weak["curves"]["dead_groups"])
print(f"four digits: {weak['before']['accuracy']:.3f} -> {weak['after']['accuracy']:.3f}, dead {dead:.2f}")
gain = weak["after"]["accuracy"] - weak["before"]["accuracy"]
claims.record("ch09.too_weak", gain, at_most=0.05, source="gain on four-digit sums, started near 0")

# %% [markdown]
# Where no answer of a group is right, all rewards are equal, and nothing is learned: MiniMind's authors are
# right. The remedy is not another loss but a task within reach: a better cold start, or easier problems.
#
# ## One model, with a switch
#
# Some questions need no thoughts. Chat templates of Qwen3 and MiniMind-3 have a switch: the prompt begins the
# answer with an open block of thoughts, or with an empty one. A model follows it if its training had both
# kinds. We go on from the trained policy for a few steps, half of the records thinking, half not.

# %% tags=["nbval-ignore-output"]
both = copy.deepcopy(policy)
half = [one.record(n % 2 == 0) for n, one in enumerate(problems("sums", 2_000, (1, 3)))]
ch09.cold_start(both, tokenizer, half, progress=True, tag_weight=1, max_steps=60, learning_rate=3e-3)
switched = {on: ch09.greedy(both, tokenizer, thinking=on) for on in (True, False)}
for on, numbers in switched.items():
    print(f"thinking {'on' if on else 'off'}: {numbers}")

# %%
claims.record("ch09.switch_on", switched[True]["accuracy"], at_least=0.8, source="three-digit sums, thinking")
claims.record(
    "ch09.switch_off", switched[False]["accuracy"], at_most=0.3, source="the same, answered at once"
)
saved = 1 - switched[False]["tokens"] / switched[True]["tokens"]
claims.record("ch09.switch_saves", saved, at_least=0.7, source="share of tokens saved by thinking off")

# %% [markdown]
# Off, it saves most of the tokens, and on these sums it costs the answer. `minimind-edu generate --thinking
# on|off` sets it. The other road to such a model is a bigger teacher's traces (chapter 8's black-box
# distillation); our traces are written by a program, so there was nothing bigger to ask, and the chapter does
# not measure it.
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
# minimind-edu grpo --from_weight out/small-reason --data_path rlvr.jsonl --out_dir out/small-grpo
# minimind-edu reason --data_path gsm8k_train.jsonl      # real problems; so does grpo
# minimind-edu data problems --kind countdown --difficulty 3,4 --form rlvr
# minimind-edu course sweep 09                            # the record of this chapter
# ```
#
# On GSM8K the commands run end to end; no accuracy is to be expected of a model of a million parameters.
# MiniMind-3's author gives about 1.1 hours on one RTX 3090 for its RLAIF stage on 24 MB (63.9M parameters),
# as an estimate, for MiniMind's own code.
#
# ## References
#
# - Guo et al., *DeepSeek-R1*, 2025. Shao et al., *DeepSeekMath*, 2024 (GRPO).
# - Williams, *Simple Statistical Gradient-Following Algorithms*, 1992. Schulman et al., *PPO*, 2017.
# - Schulman, *Approximating KL Divergence*, 2020 (k3).
# - Liu et al., *Understanding R1-Zero-Like Training*, 2025 (Dr. GRPO). Yu et al., *DAPO*, 2025. MiniMax,
#   *MiniMax-M1*, 2025 (CISPO).
# - Chen et al., *Evaluating Large Language Models Trained on Code*, 2021 (pass@k).
# - Yue et al., *Does RL Really Incentivize Reasoning…?*, 2025 (teach or sharpen).
# - Lee et al., *Teaching Arithmetic to Small Transformers*, 2023. Yang et al., *Qwen3*, 2025 (the switch).
