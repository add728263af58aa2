# %% [markdown]
# # 7. DPO: from answering to answering well
#
# Python, English. Less than four minutes on two CPU cores, without a network.
#
# | | |
# | --- | --- |
# | goal | train a model on which of two answers is better, and know what that gains and what it costs |
# | needs | chapter 5 helps; its chat model is built here if it is missing |
# | time, memory | less than 240 seconds on two cores, less than 3 GB |
# | **the number you will reach** | **a win rate of about 0.9** (0.5 is no gain), little of it DPO's own |
#
# ![Map of the course: you are at chapter 7, preferences](../figures/map_07.svg)

# %% tags=["nbval-ignore-output"]
import copy
import math
import tempfile

import ipywidgets
import torch
import torch.nn.functional as F

from minimind_edu.course import artifacts, claims, figures, session, sweeps, widgets
from minimind_edu.course.exercises import check
from minimind_edu.course.hours import hours_table
from minimind_edu.course.options import OptionTables
from minimind_edu.course.sweeps import ch07
from minimind_edu.course.sweeps import ch07_figures as drawn
from minimind_edu.data.pairs import BadPair, PairRows, encode_pair, tokenize_pairs
from minimind_edu.data.records import load_records
from minimind_edu.data.world import SmallWorld
from minimind_edu.data.world.files import default_file
from minimind_edu.evaluation import truth_then_manners, win_rate
from minimind_edu.stages.dpo import DPOConfig, PreferenceLoss, dpo_loss, preference_rows
from minimind_edu.stages.reference import reference_logprobs, sequence_logprobs

session.start()
chat, tokenizer = artifacts.chat_model()
records = load_records(default_file("dpo.jsonl"), "dpo")
grid = sweeps.load("07")  # recorded runs
options = OptionTables(DPOConfig)  # shows options of `minimind-edu dpo`

# %% [markdown]
# ## What is a better answer?
#
# Fine-tuning shows a model answers to imitate. It cannot say "rather this than that". A preference pair can:
# one prompt and two answers, one *chosen*, one *rejected*. In the small world, about half of the pairs prefer
# a polite answer to a curt one (the bare fact), the others a polite truth to a polite invention.

# %%
for record in (records[0], records[5], records[1000]):
    question, better, worse = (
        record[side][n]["content"] for side, n in (("chosen", 0), ("chosen", 1), ("rejected", 1))
    )
    print(f"{question}\n   chosen:   {better}\n   rejected: {worse}")
curt, people = len(ch07.curt_pairs()), {item.person for item in SmallWorld().questions(seen=True)}
print(f"{curt} curt answers and {len(records) - curt} inventions, about {len(people)} people")

# %% [markdown]
# To measure, we need a rule that says which of two answers is better. Ours is **truth first, then manners**:
# an answer is true if, polite words aside, it is exactly the expected sentence; among equally true answers
# the polite one wins. The *win rate* is the share of questions on which a model's answer beats another
# model's, a tie counted as half. By hand, for four questions: a polite truth beats a plain one (1), two plain
# truths tie (1/2), a polite lie loses to a plain truth (0), and a plain lie to a polite one (0): 1.5 / 4.

# %%
toy = {"ours": ["Of course! A.", "A.", "Of course! B.", "B."], "theirs": ["A.", "A.", "A.", "Of course! B."]}
ours, theirs = ([ch07.Answer("?", "A.", text, {"language": "en"}) for text in toy[side]] for side in toy)
print([truth_then_manners(answer) for answer in ours])
print(win_rate(ours, theirs), "rate:", win_rate(ours, theirs).rate)
assert win_rate(ours, theirs).rate == 1.5 / 4

# %% [markdown]
# ## A pair as tokens
#
# ![One prompt without labels, two answers whose tokens are labelled](../figures/07_pair.svg)
#
# Both sides go through the same chat template, with the same system message and tools. Labelled are the
# assistant's words after the common prompt, and the end token. We decode the labels of all 2,000 pairs and
# compare them with the file.

# %%
folder = tempfile.mkdtemp()  # a cache of its own, so that nothing old is found there
rows = PairRows(tokenize_pairs(records, tokenizer, folder), max_seq_len=256)
wrong = 0
for place, record in enumerate(records):
    labels = rows.pair(place)["labels"]
    for side, name in enumerate(("chosen", "rejected")):
        wrong += (
            tokenizer.decode(labels[side][labels[side] != -100]) != record[name][1]["content"] + "<|im_end|>"
        )
claims.record("ch07.wrong_labels", wrong, equals=0, source="sides whose labels do not decode to the answer")

# %% [markdown]
# A pair whose answers belong to different questions compares nothing, and is refused. (Some loaders draw the
# system message at random for each side. Then a model can tell the sides apart without reading the answers.)

# %%
one = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
other = [{"role": "system", "content": "Be brief."}, one[0], {"role": "assistant", "content": "What?"}]
try:
    encode_pair(one, other, tokenizer)
except BadPair as error:
    print(error)

# %% [markdown]
# ## From reinforcement learning to one line
#
# ![Pairs train a reward model, which trains the policy; DPO goes directly](../figures/07_shortcut.svg)
#
# **1. Preferences come from rewards.** Suppose every answer y to a prompt x has a reward r(x, y), and people
# prefer y₁ to y₂ with probability σ(r₁ − r₂), where σ(z) = 1 / (1 + e⁻ᶻ) (Bradley and Terry). With rewards
# ln 3 and 0 the first is preferred in 1 / (1 + 1/3) = 3/4 of the cases.
#
# **2. The objective of RLHF.** Find the policy π with the most reward that stays close to a reference ρ:
#
# $$\max_\pi \; \sum_y \pi(y)\, r(y) - \beta \sum_y \pi(y) \ln \frac{\pi(y)}{\rho(y)}$$
#
# The second sum is the Kullback-Leibler divergence KL(π ‖ ρ): 0 where both agree, else more.
#
# **3. Its solution.** Pull both sums together. With Z = Σ ρ(y) e^{r(y)/β} and π\*(y) = ρ(y) e^{r(y)/β} / Z,
# the objective is
#
# $$-\beta \sum_y \pi(y) \ln \frac{\pi(y)}{\rho(y)\, e^{r(y)/\beta}}
# = -\beta\, \mathrm{KL}(\pi \,\|\, \pi^*) + \beta \ln Z$$
#
# Z does not depend on π, and KL is 0 only where π = π\*. So π\* is best, and the most that can be had is
# β ln Z. By hand, for ρ = (1/2, 1/2) and rewards (ln 3, 0):
#
# ![The reference times the exponential of the reward, normalised](../figures/07_best_policy.svg)


# %%
def best_policy(reference, rewards, beta):
    weights = reference * (rewards / beta).exp()
    return weights / weights.sum()


def objective(policy, reference, rewards, beta):
    return (policy * rewards).sum(-1) - beta * (policy * (policy / reference).log()).sum(-1)


toy = torch.tensor([0.5, 0.5]), torch.tensor([math.log(3), 0.0])
print([[round(float(p), 3) for p in best_policy(*toy, beta)] for beta in (1.0, 0.5)])

# %% [markdown]
# Nothing beats it: we compare it with 10,000 random policies over four answers, and its value with β ln Z.

# %%
reference, rewards, beta = torch.rand(4).softmax(0), torch.randn(4), 0.3
best = objective(best_policy(reference, rewards, beta), reference, rewards, beta)
others = objective((3 * torch.randn(10_000, 4)).softmax(-1), reference, rewards, beta)
log_z = (reference * (rewards / beta).exp()).sum().log()
assert best > others.max() and abs(best - beta * log_z) < 1e-5
print(f"best {best:.4f}, the best of the others {others.max():.4f}, beta ln Z {beta * log_z:.4f}")

# %% [markdown]
# **4. Turn it round.** Solved for the reward, r(y) = β ln(π\*(y) / ρ(y)) + β ln Z. Every policy is thus the
# best one for *some* reward, which can be read off its probabilities. Z sums over all possible answers and
# cannot be computed. But it is the same for both answers to a prompt, so in r₁ − r₂ it **cancels**.
#
# **5. Insert it into step 1.** With h = (ln π − ln ρ) of the chosen answer minus the same of the rejected
# one, the probability of the preference is σ(βh), and βh is called the *margin*. DPO maximises it (Rafailov
# et al., 2023):
#
# $$L = -\ln \sigma(\beta h)$$
#
# No reward model, no sampling. By hand, with β = 0.5: ln π is −1 and −3, ln ρ is −2 and −2. Then h = 1 − (−1)
# = 2, so L = −ln σ(1) = ln(1 + e⁻¹) = 0.3133. Where π = ρ, h is 0, and L is ln 2 = 0.6931.


# %%
def loss_by_hand(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta):
    h = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
    return -F.logsigmoid(beta * h)


toy = [torch.tensor([value]) for value in (-1.0, -3.0, -2.0, -2.0)]
print(f"{float(loss_by_hand(*toy, 0.5)):.4f}  {float(dpo_loss(*toy, beta=0.5)):.4f}  {math.log(2):.4f}")

# %% [markdown]
# On random numbers: by hand, the package's, and PyTorch's loss of a classifier whose logit is βh.

# %%
given = [(-30 * torch.rand(50)).requires_grad_() for _ in range(4)]
logit = 0.3 * (given[0] - given[2] - given[1] + given[3])
losses = [loss_by_hand(*given, 0.3), dpo_loss(*given, beta=0.3)]
losses.append(F.binary_cross_entropy_with_logits(logit, torch.ones(50), reduction="none"))
gap = max((loss - losses[0]).detach().abs().max() for loss in losses[1:])
claims.record("ch07.loss_difference", gap, at_most=1e-5, source="by hand, package, PyTorch")

# %% [markdown]
# **Who pulls?** By the chain rule, the gradient of L for the chosen answer's ln π is −β σ(−βh), and +β σ(−βh)
# for the rejected one's. A pair that is still the wrong way round pulls with almost β, one that is right by
# far hardly at all.

# %%
gradient = torch.autograd.grad(losses[1].sum(), given[:2])
weights = 0.3 * torch.sigmoid(-logit.detach())
gap = max((gradient[0] + weights).abs().max(), (gradient[1] - weights).abs().max())
claims.record("ch07.pull_difference", gap, at_most=1e-6, source="gradient of the package's loss, by hand")
for margin in (-4, 0, 4):
    print(f"beta h = {margin:2}: the pair pulls with {torch.sigmoid(torch.tensor(-float(margin))):.3f} beta")

# %% [markdown]
# Other losses weigh pairs differently. *Hinge*, max(0, 1 − βh), lets go at h = 1/β. *IPO*, (h − 1/(2β))²
# with log-probabilities *a token*, pulls back when h is more than its target. *Label smoothing* ε says that
# a share ε of the pairs is the wrong way round: −(1 − ε) ln σ(βh) − ε ln σ(−βh). By hand, for h = 2 and β =
# 0.2: hinge 1 − 0.4 = 0.6; IPO's target is 2.5, its loss (2 − 2.5)² = 0.25. PyTorch has all of them under
# other names:

# %%
print([round(float(dpo_loss(*toy[:2], *toy[2:], beta=0.2, loss_type=name)), 4) for name in ("hinge", "ipo")])
h = logit.detach() / 0.3
same = {
    "hinge": F.hinge_embedding_loss(0.3 * h, -torch.ones(50), reduction="none"),
    "ipo": F.mse_loss(h, torch.full((50,), 1 / 0.6), reduction="none"),
    "sigmoid": F.binary_cross_entropy_with_logits(0.3 * h, torch.full((50,), 0.9), reduction="none"),
}
gap = 0.0
for name, theirs in same.items():
    package = dpo_loss(*given, beta=0.3, loss_type=name, label_smoothing=0.1).detach()  # hinge, IPO have none
    gap = max(gap, float(((package - theirs) / theirs.clamp(min=1)).abs().max()))
claims.record("ch07.other_losses_difference", gap, at_most=1e-4, source="hinge, IPO, smoothing, to PyTorch")


# %%
def draw_curve(axes, name, beta, end, pull=False):
    many, zero = torch.linspace(-end, end, 241, requires_grad=True), torch.zeros(241)
    values = dpo_loss(many, zero, zero, zero, beta=beta, loss_type=name)
    shown = -torch.autograd.grad(values.sum(), many)[0] if pull else values.detach()
    axes.plot(many.detach(), shown, label=name, color=figures.GREEN if name == "ipo" else None)


def draw_losses(beta, h):
    figure, panels = figures.new_figure(7.5, 2.9, columns=3)
    for name in ("sigmoid", "hinge"):
        draw_curve(panels[0], name, beta, 30)
        draw_curve(panels[1], name, beta, 30, pull=True)
    draw_curve(panels[2], "ipo", beta, 12, pull=True)
    for axes, title, place in zip(
        panels, ("loss", "pull on h", "IPO: pull"), (h, h, 0.5 / beta), strict=True
    ):
        axes.set(title=title, xlabel="h (nats)")
        axes.axvline(place, color=figures.GREY, linestyle="--")
    panels[2].axhline(0, color=figures.GREY, linewidth=1)
    panels[2].set_xlabel("h a token; dashed: the target")
    panels[0].legend()
    return figure


widgets.explore(
    draw_losses,
    "Sigmoid and hinge by h, and their pull: one lets go slowly, one at once; IPO pulls back",
    beta=ipywidgets.FloatSlider(0.1, min=0.05, max=0.5, step=0.05, description="beta"),
    h=ipywidgets.FloatSlider(0.0, min=-30, max=30, step=1, description="h"),
)

# %% [markdown]
# ## From a model to two numbers
#
# ln π(y | x) is the **sum** of the log-probabilities of the answer's tokens. By hand: two tokens with
# probabilities 1/2 and 1/4 give ln 1/8. We compare `sequence_logprobs`, which runs both sides in one batch
# and the output head at labelled places only, with transformers on each answer by itself.


# %%
def one_by_one(model, ids, labels):
    length = int((labels != -100).nonzero().max()) + 1
    each = model(ids[None, :length]).logits[0, :-1].log_softmax(-1)
    targets = labels[1:length]
    return each[targets != -100].gather(1, targets[targets != -100][:, None]).sum()


batch = [rows.pair(place) for place in range(0, 2000, 250)]
ids, labels = (torch.cat([row[name] for row in batch]) for name in ("input_ids", "labels"))
library = chat.to_transformers()
with torch.no_grad():
    scored = sequence_logprobs(chat, ids, labels)
    theirs = torch.stack([one_by_one(library, *side) for side in zip(ids, labels, strict=True)])
gap = ((scored.total - theirs) / theirs).abs().max()
claims.record("ch07.logprob_difference", gap, at_most=1e-4, source="16 answers, relative, to transformers")

# %% [markdown]
# **The reference** is the model before the first step. Its numbers never change, so they are computed once,
# without gradients, in the number format of the training, and kept on the disk:
#
# ![The reference's log-probabilities are stored before training](../figures/07_reference.svg)

# %%
few, calls = records.select(torch.arange(300).numpy()), []
hook = chat.model.norm.register_forward_hook(lambda *_: calls.append(1))
config = DPOConfig(cache_dir=folder, dtype="float32", device="cpu")
data = preference_rows(config, few, chat, tokenizer, show=False)
first = len(calls)
preference_rows(config, few, chat, tokenizer, show=False)  # a second run finds the numbers
hook.remove()
print(f"{len(data.train)} pairs to train on, {len(data.validation)} to validate")
print(f"the model ran {first} times, then {len(calls) - first}")
assert first > 0 and len(calls) == first

# %%
batch = {name: torch.stack([data.train[n][name] for n in range(16)]) for name in data.train[0]}
with torch.no_grad():
    loss, numbers = PreferenceLoss()(chat, batch)
print(f"loss {loss:.4f}, ln 2 is {math.log(2):.4f}; margin {abs(numbers['margin']):.2f}")
claims.record("ch07.first_loss", abs(loss - math.log(2)), at_most=1e-3, source="16 pairs, no step yet")
options("beta", "loss_type", "label_smoothing", "max_seq_len", "cache_dir")

# %% [markdown]
# ## Plain DPO, and where it cannot go
#
# How probable does the chat model find the answers of the pairs? Of its own none is polite.

# %% tags=["nbval-ignore-output"]
depth = reference_logprobs(chat, ch07.held_out_pairs(tokenizer))  # about people that no pair asks about
print(f"mean ln p: chosen {depth[:, 0].mean():.0f} nats, rejected {depth[:, 1].mean():.0f} nats")
print(f"the chosen answer is the more probable one in {(depth[:, 0] > depth[:, 1]).mean():.0%} of the pairs")
assert depth[:, 0].mean() < -60
before = ch07.chat_answers()  # to 500 questions about people that no pair asks about
assert not any(is_polite for _, is_polite in map(truth_then_manners, before))

# %% [markdown]
# An answer of probability e⁻¹⁰⁰ is never sampled. DPO asks for a *difference* of h nats only, and it finds
# one: the chosen answers become far more probable, are still never said, and the pull weakens. Meanwhile the
# weights have moved. In the recorded runs (a point is a run, three seeds each), "plain DPO" is the loss above
# and nothing else, one epoch at a learning rate of 3e-4. How much truth it costs differs from seed to seed,
# and a lower rate may cost less: from this start none was tried. The other two recipes, two epochs at 3e-4,
# follow below.

# %% tags=["nbval-ignore-output"]
figures.show(drawn.recipe_figure(grid), "Win rate and exact match by recipe: plain DPO gains nothing")
print(grid.caption)
plain = drawn.runs(grid, "plain")
polite = max(max(numbers["polite"].values()) for numbers in plain)
claims.record("ch07.plain_polite", polite, at_most=0.1, source="polite after plain DPO, best of three seeds")
assert all(min(numbers["exact"].values()) < 0.9 for numbers in plain)  # the chat model had 0.98 or more

# %% [markdown]
# DPO weighs what a model already says. In Rafailov et al. the pairs are samples of the reference itself, or
# the reference is first fine-tuned on the chosen answers.
#
# Another remedy is one term more (Pang et al., 2024): the supervised loss of the chosen answer, as a mean
# over its tokens, of which there are |y|:
#
# $$L = -\ln \sigma(\beta h) - w \, \frac{\ln \pi(y_{chosen})}{|y|}$$
#
# Llama 3 was trained with such a term. Here w is `--sft_weight`. `PreferenceLoss` does all of it for a
# batch. We write it again for the 16 pairs of above, with a reference that differs from the model, and for
# each loss.

# %%
batch["reference_logprobs"] = batch["reference_logprobs"] - 30 * torch.rand(16, 2)
with torch.no_grad():
    scored = sequence_logprobs(chat, *(batch[name].flatten(0, 1) for name in ("input_ids", "labels")))
policy, tokens = scored.total.view(16, 2), scored.tokens.view(16, 2)
gap = 0.0
for name, unit in {"sigmoid": 1, "hinge": 1, "ipo": tokens}.items():
    pairs = dpo_loss(*(policy / unit).T, *(batch["reference_logprobs"] / unit).T, beta=0.1, loss_type=name)
    by_hand = (pairs - 2 * (policy / tokens)[:, 0]).mean()
    with torch.no_grad():
        loss, _ = PreferenceLoss(loss_type=name, sft_weight=2.0)(chat, batch)
    gap = max(gap, float(abs(loss / by_hand - 1)))
claims.record("ch07.batch_loss_difference", gap, at_most=1e-4, source="16 pairs, three losses; relative")
options("sft_weight", "from_weight", "learning_rate", "epochs", "batch_size")

# %% [markdown]
# Now `minimind-edu dpo` with its defaults, from Python. It is also one cell of the recorded grid. The floor
# of the supervised part is what chance decides: which of three phrases comes first, ln 3 nats an answer.

# %% tags=["nbval-ignore-output"]
policy = copy.deepcopy(chat)
lengths = (torch.stack([rows.pair(n)["labels"][0] for n in range(2000)]) != -100).sum(dim=1)
live = figures.LivePlot("The supervised part of DPO", floor=float((math.log(3) / lengths).mean()))


def supervised(line):
    if "loss" in line:
        live({**line, "loss": (line["loss"] - line["preference_loss"]) / DPOConfig.sft_weight})


ch07.train(policy, tokenizer, seed=1, on_log=supervised)
live.draw()
now = ch07.measure(policy, tokenizer, chat)

# %% tags=["nbval-ignore-output"]
after = ch07.ask(policy, tokenizer)
for place in (3, 120, 260, 400):
    print(before[place].question, "|", before[place].given, "|", after[place].given)
whole = win_rate(after, before)
recorded = drawn.runs(grid, "default")[0]
print(f"prefers the chosen answer in {now['prefers']:.0%} of the held-out pairs")
print(whole, f"rate {whole.rate:.2f}; by language {now['win_rate']}, recorded {recorded['win_rate']}")

# %% [markdown]
# ## What it gained and what it cost
#
# *Exact* is the share of true answers, polite words aside; *prefers* the share of held-out pairs whose chosen
# side is the more probable one. "Chosen only" is the same run with β = 10⁻⁶, which leaves supervised
# fine-tuning (SFT) on the chosen answers. All numbers are about people that no pair asks about.

# %% tags=["nbval-ignore-output"]
print("chat model: exact", ch07.exact(before))
labelled = [(label, numbers) for label, found in drawn.recipes(grid).items() for numbers in found]
drawn.table(labelled, "win_rate", "exact", "polite", "prefers", "kl")

# %%
runs, alone = drawn.runs(grid, "default"), drawn.runs(grid, "chosen only")
gap = abs(drawn.both(now, "win_rate") - drawn.both(recorded, "win_rate"))
claims.record("ch07.grid_again", gap, at_most=0.06, source="win rate now against recorded")
claims.record("ch07.win_rate", whole.rate, at_least=0.88, source="500 held-out questions, to the chat model")
worst = min(drawn.both(numbers, "win_rate") for numbers in runs)
claims.record("ch07.worst_win_rate", worst, at_least=0.9, source="the same, worst of three seeds")

# %%
english, chinese = (min(numbers["exact"][code] for numbers in runs) for code in ch07.LANGUAGES)
claims.record("ch07.exact_english", english, at_least=0.95, source="true answers in English, worst seed")
where = "in Chinese, worst seed: the cost"
claims.record("ch07.exact_chinese", chinese, at_least=0.75, at_most=0.93, source=where)

# %% [markdown]
# **What is DPO's part in it?** Compare the last two groups. In English none can be seen: which of the two
# wins more depends on the seed. In Chinese the loss of the pairs adds a few hundredths, in each of three
# seeds. All the rest is imitation's, manners included. And SFT, which never read a rejected answer, tells
# the sides of held-out pairs apart as well. Where good answers are at hand, imitate them first.

# %%
part = {
    code: [a["win_rate"][code] - b["win_rate"][code] for a, b in zip(runs, alone, strict=True)]
    for code in ch07.LANGUAGES
}
print({code: [round(value, 3) for value in values] for code, values in part.items()})
assert min(part["zh"]) > 0 and min(numbers["prefers"] for numbers in alone) > 0.98
english, chinese = max(map(abs, part["en"])), sum(part["zh"]) / 3
claims.record(
    "ch07.part_english", english, at_most=0.03, source="win rate, DPO + chosen minus chosen, largest"
)
claims.record(
    "ch07.part_chinese", chinese, at_least=0.01, at_most=0.1, source="the same, mean of three seeds"
)

# %%
gain = min(drawn.late(one, "accuracy") for one in runs) - max(drawn.late(one, "accuracy") for one in alone)
where = "training pairs with a margin above 0: DPO's worst seed minus SFT's best"
claims.record("ch07.accuracy_gain", gain, at_least=0.05, source=where)

# %% [markdown]
# The last claim is about what DPO optimises, the margin on the training pairs, and says that it works: it
# tells more of them apart *better than the reference did*. Held-out answers hardly gain by that.
#
# **The cost.** "More polite, less accurate" is a folk claim about alignment. Truth does fall, nearly all of
# it in Chinese. But SFT alone costs at least as much (the table), so it is not DPO's cost: it is that of
# new manners from pairs about 50 people. Where the loss of the pairs weighs more, though, it costs more.
# One seed each:

# %% tags=["nbval-ignore-output"]
heavier = {name: numbers["exact"]["zh"] for name, numbers in drawn.heavier(grid).items()}
usual, *more = (heavier[name] for name in heavier if name != "hinge")
imitated, where = max(numbers["exact"]["zh"] for numbers in alone), "Chinese truth, SFT alone, best seed"
claims.record("ch07.exact_chinese_sft", imitated, at_most=0.9, source=where)
where = "Chinese truth, default minus the best of four heavier runs"
claims.record("ch07.heavier_costs_more", usual - max(more), at_least=0.05, source=where)
drawn.table(drawn.heavier(grid).items(), "win_rate", "exact", "kl")

# %% [markdown]
# **Why Chinese?** We put a polite phrase into the mouth of the chat model as it was *before* DPO, and let
# it go on:

# %% tags=["nbval-ignore-output"]
forced = {language: ch07.after_phrases(chat, tokenizer, language) for language in ch07.LANGUAGES}
for phrase, one in (forced["en"] | forced["zh"]).items():
    print(f"{phrase} exact {one.share:.2f}, empty {one.empty:.2f}; first: {one.first!r}")
english, chinese = (max(one.share for one in shares.values()) for shares in forced.values())
stops = forced["en"]["Happy to help. …"], forced["zh"]["很高兴帮忙。…"]
assert english > 0.5 and min(one.empty for one in stops) > 0.9
claims.record("ch07.chinese_after_phrase", chinese, at_most=0.3, source="exact after the best Chinese phrase")

# %% [markdown]
# After a full stop it ends, in both languages: all its answers were one sentence. After an exclamation mark
# English goes on with "The", the word with which nearly every answer begins, and then mostly with the
# truth. A Chinese answer begins with the person's name, and that it has learned to copy to the *start* of
# an answer only: here it names somebody else, or writes fragments. So the Chinese answers had to be learned
# anew, and what 50 people teach does not carry over to all of the others. Measure such costs by language
# and by kind of task: a mean would have hidden it.
#
# ## Both log-probabilities
#
# The loss knows only the difference. So DPO may lower *both* sides, as long as the rejected one falls faster.
# From so far down there was only a way up (left). With a supervised term the chosen answers come close to
# their floor (middle), ln p = −ln 3 = −1.10. Now let plain DPO follow, one epoch at 1e-4, with this model as
# the reference (right):

# %% tags=["nbval-ignore-output"]
figures.show(drawn.curve_figure(grid), "ln p of chosen and rejected answers by step, for three recipes")
again = drawn.runs(grid, "again")
falls = {
    side: [drawn.late(run, f"{side}_reward") / DPOConfig.beta for run in again]
    for side in ("chosen", "rejected")
}
print({side: [round(value, 1) for value in values] for side, values in falls.items()})
most = max(falls["chosen"])
claims.record("ch07.chosen_falls", most, at_most=-0.1, source="nats since the reference, best of three seeds")
assert max(falls["rejected"]) < most - 2
print("exact after it:", *(numbers["exact"] for numbers in again))
chinese, where = max(numbers["exact"]["zh"] for numbers in again), "after plain DPO, best of three seeds"
claims.record("ch07.exact_chinese_again", chinese, at_most=0.75, source=where)

# %% [markdown]
# The chosen answers become *less* probable, in every seed, while the rejected ones fall by much more. The
# mean over training pairs is down by little, but on held-out people the truth in Chinese falls far: the
# mean hides it. A likely reason, which we have not tested: a polite invention names the right person too,
# so what pushes it down also pushes down that name after a polite phrase. Watch `chosen_logp` in the log: a
# loss that falls says nothing about it.
#
# ## Beta and KL
#
# KL(π ‖ ρ), on the policy's own sampled answers, is the distance from the reference in nats an answer. Step 3
# told its price: an answer with ln ρ = −100 is worth saying only if its reward is 100 β above that of an
# answer the reference is sure of. The supervised term pays that here, whatever beta; a large beta only costs
# truth (one seed).

# %% tags=["nbval-ignore-output"]
figures.show(drawn.beta_figure(grid), "Win rate, exact match and KL by beta, with the supervised term")
by_beta = drawn.beta_runs(grid)
least = min(now["kl"], *(numbers["kl"] for numbers in by_beta.values()))
claims.record("ch07.kl_from_chat", least, at_least=60, source="nats an answer, beta 0.01 to 1, least")
assert by_beta[1.0]["exact"]["zh"] < min(by_beta[0.01]["exact"]["zh"], by_beta[0.1]["exact"]["zh"]) - 0.03

# %% [markdown]
# ## Exercises
#
# Fill in a function, run its cell and the next. In `minimind_edu.course.exercises`,
# `show_solution("ch07.dpo_loss")` shows a solution.
#
# **1.** The best policy of step 3, also for large rewards.


# %%
def my_best_policy(reference, rewards, beta):
    """From probabilities (K,) and rewards (K,) to probabilities (K,).

    my_best_policy(tensor([.5, .5]), tensor([1.0986, 0.]), 1.0) is about [.75, .25].
    """
    raise NotImplementedError


# %%
check("ch07.best_policy", my_best_policy)

# %% [markdown]
# **2.** The log-probability of answers.


# %%
def my_logprobs(logits, labels):
    """Sum of ln p of each row's labelled tokens, (B,); logits (B, T, V), labels (B, T) not shifted, or -100.

    Equal logits over 4 tokens, labels [[-100, 1, 2]]: two tokens, so 2 ln(1/4).
    """
    raise NotImplementedError


# %%
check("ch07.answer_logprobs", my_logprobs)

# %% [markdown]
# **3.** The loss, also for pairs that are far on the wrong side.


# %%
def my_dpo_loss(policy, reference, beta):
    """Losses (B,) of log-probabilities (B, 2) under policy and reference; the chosen answer comes first.

    my_dpo_loss(tensor([[-1., -3.]]), tensor([[-2., -2.]]), 0.5) is about [0.3133].
    """
    raise NotImplementedError


# %%
check("ch07.dpo_loss", my_dpo_loss)

# %% [markdown]
# **4.** The win rate.


# %%
def my_win_rate(ours, theirs):
    """From two lists of scores (truth, manners), question by question, to a number; a tie is half a win.

    my_win_rate([(1, 1), (0, 1)], [(1, 0), (1, 0)]) is 0.5.
    """
    raise NotImplementedError


# %%
check("ch07.win_rate", my_win_rate)

# %% [markdown]
# ## What was claimed

# %% tags=["nbval-ignore-output"]
claims.table()

# %% [markdown]
# ## At full scale
#
# ```
# minimind-edu dpo                                        # this chapter's run, after pretrain and sft
# minimind-edu dpo --from_weight out/small --data_path dpo.jsonl --max_seq_len 512 \
#     --beta 0.1 --sft_weight 0.2 --learning_rate 1e-6 --epochs 1 --out_dir out/small-dpo
# minimind-edu course sweep 07                            # the record of this chapter
# ```
#
# Hours of DPO are not among those that others have reported. Our estimates, for one epoch in batches of 8
# pairs:

# %%
hours_table("dpo")

# %% [markdown]
# ## References
#
# - Rafailov et al., *Direct Preference Optimization*, 2023.
# - Bradley and Terry, *Rank Analysis of Incomplete Block Designs*, 1952.
# - Azar et al., *A General Theoretical Paradigm to Understand Learning from Human Preferences*, 2023 (IPO).
# - Zhao et al., *SLiC-HF*, 2023 (hinge). Mitchell, *A note on DPO with noisy preferences*, 2023 (smoothing).
# - Pang et al., *Iterative Reasoning Preference Optimization*, 2024; *The Llama 3 Herd of Models*, 2024.
# - Razin et al., *Unintentional Unalignment: Likelihood Displacement in DPO*, 2024 (both sides fall).
