# %% [markdown]
# # 4. Pretraining: from random to fluent
#
# Python, English. Less than five minutes on two CPU cores, without a network.
#
# | | |
# | --- | --- |
# | goal | train a model from random weights, and know what each part of the training does |
# | needs | chapters 1 and 2 help; the tokenizer of chapter 1 is built here if it is missing |
# | time, memory | less than 300 seconds on two cores, less than 3 GB |
# | **the number you will reach** | **loss / floor of 1.12 or less** in 300 steps, where 1 is perfect |
#
# ![Map of the course: you are at chapter 4, pretraining](../figures/map_04.svg)

# %% tags=["nbval-ignore-output"]
import contextlib
import copy
import json
import math
import tempfile
import time
from pathlib import Path

import ipywidgets
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from IPython.display import display
from torch import nn

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.course import artifacts, claims, experiments, figures, session, sweeps, widgets
from minimind_edu.course.exercises import check
from minimind_edu.course.hours import hours_table
from minimind_edu.course.options import OptionTables
from minimind_edu.course.sweeps import ch04
from minimind_edu.data.packing import PackedDataset, PaddedDataset, best_fit, collate
from minimind_edu.data.tokenized import TokenizedDocuments
from minimind_edu.data.world import SmallWorld
from minimind_edu.data.world.files import default_file
from minimind_edu.evaluation import perplexity
from minimind_edu.generation import Sampling, complete, sampling_probabilities
from minimind_edu.model.transformer import next_token_loss
from minimind_edu.stages.pretrain import PretrainConfig, causal_lm_loss, pretrain
from minimind_edu.training import TrainConfig, fit, optim, read_metrics
from minimind_edu.training.loop import CHECKPOINTS, Run

session.start()
folder = Path(tempfile.mkdtemp())
tokenizer = artifacts.tokenizer()
rows = experiments.world_rows(tokenizer)  # 30,000 documents of the small world
held_out_file = default_file("eval_pretrain.jsonl")
options = OptionTables(PretrainConfig)  # shows options of `minimind-edu pretrain`

# %% [markdown]
# ## One number to minimise
#
# A language model gives, at each position, a probability to every possible next token. Its loss there is
# $-\ln p$ of the token that really came next. The loss of a batch is the mean over all positions that have a
# target, in nats.
#
# ![Each token is the target of the position before it; the last has none](../figures/04_next_token.svg)
#
# The toy text has three tokens, 2, 0 and 3, from a vocabulary of four. At its first position the model gives
# token 0 a probability of 1/2; at its second it gives token 3 a probability of 1/4. So the loss is (ln 2 + ln
# 4) / 2 = 1.5 ln 2 = 1.0397. The third position has no target. The label −100 means "do not score".


# %%
def loss_by_hand(logits, labels):
    losses = []
    for row, ids in zip(logits, labels, strict=True):
        for position in range(len(ids) - 1):
            if (target := ids[position + 1]) != -100:
                probabilities = row[position].exp() / row[position].exp().sum()
                losses.append(-probabilities[target].log())
    return torch.stack(losses).mean()


toy = torch.tensor([[[1 / 2, 1 / 4, 1 / 8, 1 / 8], [1 / 4] * 4, [1 / 8, 1 / 8, 1 / 4, 1 / 2]]]).log()
labels = torch.tensor([[2, 0, 3]])
print(f"{loss_by_hand(toy, labels):.4f}  {next_token_loss(toy, labels):.4f}")
assert abs(loss_by_hand(toy, labels) - 1.5 * math.log(2)) < 1e-6

# %% [markdown]
# The same on a small random model, five times: by hand, by the package's `next_token_loss`, by the loss that
# `pretrain` uses (it applies the output head only where there is a label), by PyTorch, and by transformers.

# %%
shape = ModelConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, max_position_embeddings=64)
small = MiniMind(shape).eval()
ids = torch.randint(0, 50, (3, 20))
labels = ids.masked_fill(torch.rand(3, 20) < 0.3, -100)
with torch.no_grad():
    logits = small(ids).logits
    batch = {"input_ids": ids, "labels": labels, "document_ids": torch.zeros_like(ids)}
    losses = [loss_by_hand(logits, labels), next_token_loss(logits, labels), causal_lm_loss(small, batch)[0]]
    losses.append(F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()))
    losses.append(small.to_transformers()(ids, labels=labels).loss)
claims.record("ch04.loss_difference", max(losses) - min(losses), at_most=1e-5, source="the loss, five ways")

# %% [markdown]
# **Before the first step** all tokens are about equally likely, so the loss should be close to ln(vocabulary
# size). A loss that starts much higher tells of a fault, such as weights that are too large.

# %%
config, gaps = ModelConfig.preset("edu", vocab_size=tokenizer.vocab_size), []
for seed in range(3):
    torch.manual_seed(seed)
    untrained = MiniMind(config)
    gaps.append(abs(causal_lm_loss(untrained, collate([rows[0], rows[1]]))[0].item() - math.log(2000)))
claims.record("ch04.step0_loss_minus_ln_vocab", max(gaps), at_most=0.15, source="`edu`, worst of three seeds")

# %% [markdown]
# ## The floor, and a ladder to it
#
# How low can the loss go? For text from the web nobody knows. Here we made the data: the small world tells
# the probability of every document that it writes. A model that equals the generator has the loss
# Σ(−ln p) / tokens, and on average no model does better. This is the entropy of the data, **the floor**.

# %%
held_out = [json.loads(line) for line in held_out_file.open(encoding="utf-8")]
tokens = sum(len(tokenizer.encode(document["text"])) + 1 for document in held_out)  # + 1: the end token
floor = -sum(document["log_probability"] for document in held_out) / tokens
print(f"{held_out[0]['text']} {-held_out[0]['log_probability']:.2f} nats\nfloor: {floor:.3f} nats a token")
gap = abs(perplexity(untrained, tokenizer, held_out_file).floor - floor)
claims.record("ch04.floor_difference", gap, at_most=1e-9, source="by hand against `evaluation.perplexity`")

# %% [markdown]
# Between the two ends stand models that only count. The unigram model knows how often each token occurs. The
# bigram model knows how often it follows the token before it (mixed with a tenth of the unigram model, for
# pairs never seen). Both count in the training documents and are scored on the held-out ones.


# %%
def pairs_of(stream):
    is_target = stream[1:] != tokenizer.bos_token_id
    return stream[:-1][is_target], stream[1:][is_target]


before, after = pairs_of(np.asarray(rows.docs.tokens, dtype=np.int64))
counts = np.bincount(before * 2000 + after, minlength=2000 * 2000).reshape(2000, 2000)
unigram = (counts.sum(axis=0) + 1) / (counts.sum() + 2000)
seen = counts.sum(axis=1, keepdims=True)
bigram = np.where(seen > 0, 0.9 * counts / np.maximum(seen, 1) + 0.1 * unigram, unigram)

ids = [[tokenizer.bos_token_id, *tokenizer.encode(d["text"]), tokenizer.eos_token_id] for d in held_out]
before, after = pairs_of(np.concatenate(ids))
ladder = {"uniform": math.log(2000), "unigram": -np.log(unigram[after]).mean()}
ladder |= {"bigram": -np.log(bigram[before, after]).mean(), "floor": floor}
print(*(f"{name:8} {value:.2f} nats a token" for name, value in ladder.items()), sep="\n")

# %% [markdown]
# Each step down is something learned: first which tokens are common, then which follow which. Most of what
# lies between the bigram and the floor needs more context than one token.
#
# ## Rows: packing against padding
#
# A batch is a rectangle; documents are not. *Padding* gives each document a row of its own and fills the rest
# with nothing. *Packing* lays several documents in a row: again and again it takes the longest one that still
# fits (`best_fit`). For rows of 8, by hand:
#
# ![Six documents fill 23 of 48 places padded and 23 of 24 packed](../figures/04_packing.svg)

# %%
lengths = [5, 4, 3, 3, 6, 2]
print([[lengths[item] for item in row] for row in best_fit(lengths, capacity=8)])
assert best_fit(lengths, capacity=8) == [[4, 5], [0, 3], [1, 2]]

# %% [markdown]
# Now the world's documents, in rows of 256 tokens. What a packed row has left is filled with the beginning of
# another document, so no place is padding; the repeated share is counted as waste too.

# %%
padded, waste = PaddedDataset(rows.docs, 256), {}
for name, data in (("padded", padded), ("packed", rows)):
    waste[name] = data.padding_share + data.fill_share
    print(f"{name}: {len(data):6,} rows, {waste[name]:.1%} of the places wasted")
claims.record("ch04.padded_waste", waste["padded"], at_least=0.8, source="one document a row of 256")
claims.record("ch04.packed_waste", waste["packed"], at_most=0.03, source="packed rows of 256")
options("data_path", "max_seq_len", "batch_size", "val_fraction", "on_bad_record", "cache_dir", "num_workers")

# %% [markdown]
# The machine works on places; the model learns from tokens. We time forward and backward over 16 rows of each
# kind in turn, and count labelled tokens a second.


# %% tags=["nbval-ignore-output"]
def tokens_per_second(data, begin):
    batch = collate([data[row] for row in range(begin, begin + 16)])
    started = time.perf_counter()
    loss, numbers = causal_lm_loss(untrained, batch)
    loss.backward()
    return numbers["tokens"] / (time.perf_counter() - started)


speeds = torch.tensor([[tokens_per_second(data, 16 * turn) for data in (padded, rows)] for turn in range(5)])
slow, fast = speeds[1:].median(dim=0).values.tolist()
print(f"{slow:,.0f} tokens a second padded, {fast:,.0f} packed")
claims.record("ch04.packing_speed_up", fast / slow, at_least=2, source="tokens a second, packed over padded")

# %% [markdown]
# Does a document notice its neighbours in the row? Attention is masked by `document_ids`, and RoPE sees only
# distances, so it should not. We compare the second document of a row with the same document alone, and then
# leave the mask out.

# %%
row = collate([rows[0]])
place, alike = row["document_ids"][0] == 1, "logits of a packed document against the same alone"
with torch.no_grad():
    alone = untrained(row["input_ids"][:, place]).logits[0]
    masked = untrained(row["input_ids"], document_ids=row["document_ids"]).logits[0, place]
    unmasked = untrained(row["input_ids"]).logits[0, place]
claims.record("ch04.packed_difference", (masked - alone).abs().max(), at_most=1e-4, source=alike)
claims.record("ch04.unmasked_difference", (unmasked - alone).abs().max(), at_least=0.1, source="without mask")

# %% [markdown]
# ## One step: AdamW and Muon
#
# **AdamW** keeps two running means for each weight: m of the gradient, v of its square. It divides m by √v.
# Both start at 0 and are corrected for that. By hand, with learning rate 0.1 and no decay: after a first
# gradient of 4 the corrected m is 4 and √v is 4, so the weight 1 becomes 1 − 0.1 · 4/4 = 0.9. A gradient of
# 400 gives 0.9 too: the learning rate alone decides how far a first step goes.


# %%
def adamw(weight, gradients, rate, decay, betas=(0.9, 0.95), eps=1e-8):
    m = v = 0.0
    for step, gradient in enumerate(gradients, start=1):
        m = betas[0] * m + (1 - betas[0]) * gradient
        v = betas[1] * v + (1 - betas[1]) * gradient**2
        m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
        weight = weight * (1 - rate * decay) - rate * m_hat / (v_hat**0.5 + eps)
    return weight


print([round(adamw(1.0, [gradient], rate=0.1, decay=0.0), 6) for gradient in (4.0, 400.0)])


# %%
def stepped(make_optimizers, gradients):
    layer = nn.Linear(32, 64, bias=False)
    layer.weight.data = begin.clone()
    optimizers = make_optimizers(layer)
    for gradient in gradients:
        layer.weight.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    return layer.weight.detach()


def package(name):
    settings = TrainConfig(optimizer=name, learning_rate=0.01, weight_decay=0.1)
    return lambda layer: optim.OptimizerSet(layer, settings).optimizers


def library(layer):
    return [torch.optim.AdamW(layer.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)]


begin, gradients = torch.randn(64, 32), torch.randn(5, 64, 32)
ours = adamw(begin, gradients, rate=0.01, decay=0.1)
gap = max((ours - stepped(one, gradients)).abs().max() for one in (package("adamw"), library))
claims.record("ch04.adamw_difference", gap, at_most=1e-5, source="five steps: by hand, package, PyTorch")

# %% [markdown]
# **Muon** looks at a whole matrix. The momentum of a gradient often has a few large singular values and many
# small ones. Muon pushes all of them towards 1, so that rare directions move about as far as common ones.
# Five rounds of a polynomial in the matrix do it, without a singular value decomposition. The toy matrix
# diag(3, 1), divided by its norm √10, has the singular values 0.95 and 0.32.


# %%
def orthogonalise(matrix):
    a, b, c = 3.4445, -4.7750, 2.0315  # Jordan et al., 2024
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


toy = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
print([[f"{v:.2f}" for v in torch.linalg.svdvals(m)] for m in (toy / toy.norm(), orthogonalise(toy))])
values = torch.linalg.svdvals(orthogonalise(gradients[0]))
claims.record(
    "ch04.muon_least_value", values.min(), at_least=0.5, source="singular values of a random update"
)
claims.record("ch04.muon_largest_value", values.max(), at_most=1.5, source="the same")
change = stepped(package("muon"), gradients[:1]) - begin * (1 - 0.01 * 0.1)
gap = (change / (-0.01 * 0.2 * math.sqrt(64)) - orthogonalise(gradients[0])).norm() / values.norm()
claims.record(
    "ch04.muon_difference", gap, at_most=0.05, source="one step against the package (bfloat16 inside)"
)

# %% [markdown]
# The factor 0.2 · √(longer side) gives the update the usual size of AdamW's, so that learning rates carry
# over. Only the matrices inside the layers get Muon. The embedding, whose rows stand for single tokens, and
# the vectors stay with AdamW; they have no weight decay either.

# %%
for name, members in optim.parameter_groups(untrained).items():
    print(f"{name:6} {len(members):2} tensors, {sum(p.numel() for _, p in members):7,} parameters")
options("optimizer", "learning_rate", "weight_decay")

# %% [markdown]
# **Which learning rate?** Too low wastes the steps; too high overshoots. The record holds runs of 150 steps
# of the `edu` shape, on the same tokens: each optimizer at four rates, the best rate with three seeds of the
# initial weights.


# %% tags=["nbval-ignore-output"]
def ratios(**settings):
    return [numbers["ratio"] for _, numbers in grid.select(**settings)]


grid = sweeps.load("04")
figures.show(ch04.rate_figure(grid), "Loss over floor by learning rate: Muon gets lower than AdamW")
print(grid.caption)
adam, muon = (ratios(optimizer=name, learning_rate=ch04.BEST_RATE[name]) for name in ("adamw", "muon"))
print(f"loss / floor, three seeds each: AdamW {adam}, Muon {muon}")
claims.record(
    "ch04.muon_gain", min(adam) - max(muon), at_least=0.5, source="AdamW's best seed minus Muon's worst"
)

# %% [markdown]
# **When?** At the start every step changes the next gradient a lot, and the optimizer's running means know
# little, so the rate starts low (*warm-up*). At the end, small steps settle what large steps keep shaking
# (*decay*). Half a cosine has to know the last step from the start. WSD (warm-up, stable, decay) trains on at
# its peak and decays once you decide to stop.
#
# ![Cosine, WSD and constant learning rates after a warm-up of 20 steps](../figures/04_schedules.svg)


# %%
def cosine(step, total, warmup, peak, last):
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    done = (step - warmup) / (total - warmup)
    return last + (peak - last) * (1 + math.cos(math.pi * done)) / 2


plan = TrainConfig(learning_rate=0.01, warmup_iters=20, min_lr_ratio=0.1)
gap = max(abs(cosine(s, 300, 20, 0.01, 0.001) - optim.learning_rate_at(s, 300, plan)) for s in range(300))
claims.record("ch04.cosine_difference", gap, at_most=1e-12, source="by hand against `learning_rate_at`")

# %%
wsd, constant = (ratios(experiment="schedule", lr_schedule=name) for name in ("wsd", "constant"))
print(f"loss / floor: cosine {muon}, WSD {wsd}, constant {constant}")
gain = min(constant) - max(muon + wsd)
claims.record("ch04.decay_gain", gain, at_least=0.05, source="best run without decay minus worst with it")
options("lr_schedule", "warmup_iters", "min_lr_ratio", "epochs", "max_steps")

# %% [markdown]
# ## Inside the step: window, clipping, precision
#
# A step may be a *window* of several batches whose gradients are added up, where the big batch does not fit
# into memory. Batches differ in labelled tokens, so the mean of their means is not the mean over all tokens:
#
# ![Losses 1, 1, 1 and 5: weighed by tokens the mean is 2, as a mean of means 3](../figures/04_window.svg)
#
# The package's loop must give the gradient of the big batch, so we compare its `take_step` as well, by the
# norm.


# %%
def batch_of(ids, labels):
    return {"input_ids": ids, "labels": labels, "document_ids": torch.zeros_like(ids)}


def gradient(batch):
    small.zero_grad()
    causal_lm_loss(small, batch)[0].backward()
    return torch.cat([parameter.grad.flatten() for parameter in small.parameters()])


def norm_of(*window):
    settings = TrainConfig(out_dir=str(folder / "norm"), dtype="float32", device="cpu")
    run = Run(copy.deepcopy(small), causal_lm_loss, rows, settings, None, "")
    return run.take_step([([0], batch) for batch in window], learning_rate=1e-3)["grad_norm"]


ids = torch.randint(0, 50, (3, 20))
long = batch_of(ids[:2], ids[:2])  # two rows with 19 targets each
short = batch_of(ids[2:], ids[2:].masked_fill(torch.arange(20) > 4, -100))  # one row with 4 targets
big = {name: torch.cat([long[name], short[name]]) for name in long}
wanted, a, b = gradient(big), gradient(long), gradient(short)
weighed, naive = (38 * a + 4 * b) / 42, (a + b) / 2
gaps = [float((one - wanted).norm() / wanted.norm()) for one in (weighed, naive)]
gaps.append(abs(norm_of(long, short) / norm_of(big) - 1))
claims.record("ch04.window_difference", gaps[0], at_most=1e-4, source="weighed by tokens, to the big batch")
claims.record("ch04.loop_window_difference", gaps[2], at_most=1e-4, source="`take_step`, to the big batch")
claims.record(
    "ch04.mean_of_means_difference", gaps[1], at_least=0.2, source="mean of means, to the big batch"
)

# %% [markdown]
# A classic fault is to drop the last, incomplete window of an epoch. Seven batches in windows of three must
# be three steps, and every label must count: seven rows of ten tokens have 7 · 9 = 63.

# %%
seven = PackedDataset(TokenizedDocuments.from_lists([list(range(10))] * 7), 10)
settings = TrainConfig(out_dir=str(folder / "seven"), batch_size=1, accumulation_steps=3, device="cpu")
outcome = fit(copy.deepcopy(small), causal_lm_loss, seven, settings, progress=False)
print(outcome.step, "steps on", outcome.tokens, "labelled tokens")
claims.record(
    "ch04.tokens_of_seven_batches", outcome.tokens, equals=63, source="an epoch in windows of three"
)

# %% [markdown]
# **Clipping.** A rare batch can have a huge gradient. Where the norm exceeds the limit, the gradient is
# scaled down to it; its direction stays. By hand: (3, 4) has norm 5, so with limit 1 it becomes (0.6, 0.8).
#
# **Precision.** bfloat16 takes half the bytes and, where the hardware has it, multiplies faster. It keeps 8
# significant bits, so 1 + 1/512 is 1 again: a weight kept in it would not feel small steps. So weights stay
# in float32, and only the matrix products run in bfloat16 (*autocast*). float16 has more bits but ends at
# 6e-8; smaller gradients vanish, so the loss is scaled up first. `auto` takes bfloat16 where the hardware has
# it (RTX 3090, A40, some CPUs), float16 on GPUs like the GTX 1650, and float32 elsewhere.

# %%
weight = nn.Parameter(torch.zeros(2))
weight.grad = torch.tensor([3.0, 4.0])
norm = nn.utils.clip_grad_norm_([weight], max_norm=1.0)
print(f"norm {norm:.1f}, clipped to", [round(float(value), 3) for value in weight.grad])
sums = [sum([torch.tensor(1 / 512, dtype=kind)] * 512, 1) for kind in (torch.float32, torch.bfloat16)]
print(f"1 + 512 times 1/512: {float(sums[0])} in float32, {float(sums[1])} in bfloat16")
claims.record("ch04.bfloat16_sum", sums[1], equals=1, source="1/512 added to 1, 512 times")
options("accumulation_steps", "grad_clip", "dtype", "device", "gradient_checkpointing")

# %% [markdown]
# ## Train
#
# Now `pretrain`, from Python, with its own defaults except for the number of steps: 300 steps of 16 rows are
# a little less than one epoch, so nearly every document is new. The options below the plot decide the model
# and the run.

# %% tags=["nbval-ignore-output"]
tokenizer.save(folder / "tokenizer")
run = {"out_dir": str(folder / "run"), "tokenizer_path": str(folder / "tokenizer"), "max_steps": 300}
live = figures.LivePlot("Pretraining on the small world", floor)
result = pretrain(PretrainConfig(**run, save_interval=0), on_log=live)
names = "preset hidden_size num_hidden_layers num_attention_heads num_key_value_heads use_moe dropout "
options(*(names + "tokenizer_path vocab_size from_weight seed out_dir").split())

# %% [markdown]
# What did it learn? Its loss against the ladder, and what it writes, beside the model that was never trained:


# %% tags=["nbval-ignore-output"]
def write(model, count, temperature=1.0):
    prompts, stop = [[tokenizer.bos_token_id]] * count, {"max_new_tokens": 100, "seed": 1}
    stop["eos_token_id"] = tokenizer.eos_token_id
    done = complete(model, prompts, sampling=Sampling(temperature), **stop)
    return [tokenizer.decode(one.tokens, skip_special_tokens=True) for one in done]


model = result.model.cpu()
print("untrained:", write(untrained, 1)[0][:150], "\ntrained:", *write(model, 3), "", sep="\n")
ratio = perplexity(model, tokenizer, held_out_file).ratio
claims.record("ch04.loss_over_floor", ratio, at_most=1.12, source="held-out documents, after 300 steps")
curve = [line for line in read_metrics(folder / "run" / "metrics.jsonl") if "loss" in line]
for name in ("unigram", "bigram"):
    print(f"better than the {name} from step", next(m["step"] for m in curve if m["loss"] < ladder[name]))
print(f"loss / floor {ratio:.3f}; {result.fit.precision}")

# %% [markdown]
# Read a curve **against its floor**. A loss of 0.6 means nothing by itself; how far it is above the floor
# says what is left to learn. The curve passes the counting models early and spends most of its steps on the
# last few tenths of a nat. A loss far *below* the floor on held-out text would be no triumph but a leak. (The
# point in the plot is the loss on the 600 documents that `--val_fraction` keeps. Their entropy is a little
# higher than that of the 1,000 held-out documents, which the line shows.)
#
# **What it knows.** We ask for facts by completion: "*name* lives in" must go on with the right town,
# greedily, and so on for four facts in five wordings each.

# %%
world = SmallWorld()
people = [world.person(index) for index in range(20)]
knows = [ch04.recalled(one, tokenizer, world, people) for one in (untrained, model)]
claims.record("ch04.recall_untrained", knows[0], at_most=0.02, source="facts of 20 people, before")
claims.record("ch04.recall_trained", knows[1], at_least=0.9, source="the same after 300 steps")

# %% [markdown]
# ## Checkpoints
#
# Runs stop: a full disk, a pulled plug. A checkpoint must hold everything that decides the next step:
# weights, the optimizers' memory, the place in the data, the random states. The test is strict: a run that
# was stopped and continued must end with **the same bits** as one that was not. To make it harder there is
# dropout, which draws random numbers; the run dies after step 7, with checkpoints of steps 3 and 6; and then
# the newer one is damaged.


# %%
def small_run(name, on_log=None, **changes):
    torch.manual_seed(1)
    model = MiniMind(shape.replace(vocab_size=2000, dropout=0.1, max_position_embeddings=256))
    steps = {"max_steps": 9, "save_interval": 3, "log_interval": 1, "batch_size": 2}
    settings = TrainConfig(out_dir=str(folder / name), optimizer="muon", device="cpu", **steps, **changes)
    return model, fit(model, causal_lm_loss, rows, settings, progress=False, on_log=on_log)


def pull_the_plug(line):
    if line["step"] == 7:
        raise KeyboardInterrupt


with contextlib.suppress(KeyboardInterrupt):
    small_run("stopped", pull_the_plug)
newest = folder / "stopped" / CHECKPOINTS / "step-00000006" / "model.safetensors"
newest.write_bytes(newest.read_bytes()[:-1] + b"!")
(continued, outcome), (unstopped, _) = small_run("stopped", from_resume=1), small_run("unstopped")
print(*outcome.warnings)
same = all(map(torch.equal, continued.parameters(), unstopped.parameters()))
claims.record("ch04.resumed_is_unstopped", same, equals=1, source="all weights, bit for bit")
names = "save_interval keep_checkpoints from_resume overwrite log_interval eval_interval logger use_wandb"
display(options(*names.split()))
assert options.left == []  # every option of the command was explained

# %% [markdown]
# ## How often must a fact be seen?
#
# The record's models read biographies of 150 people for one epoch. Thirty people have 1 biography, thirty
# have 4, and so on up to 256; each has wordings and an order of its own. Then every fact is asked for. A fact
# has ten values, so guessing gives about a tenth.

# %% tags=["nbval-ignore-output"]
figures.show(ch04.exposure_figure(grid), "Facts recalled by number of biographies: from near chance to all")
recall = torch.tensor([numbers["recall"] for _, numbers in grid.select(experiment="exposure")])
claims.record("ch04.recall_seen_once", recall[:, 0].max(), at_most=0.35, source="best of three seeds")
claims.record("ch04.recall_seen_256_times", recall[:, -1].min(), at_least=0.95, source="worst of three seeds")

# %% [markdown]
# All these people stand in one file, and their sentences are alike. Yet the model knows those it met often
# and makes up facts about those it met once. Fluency is no evidence of knowledge.
#
# ## Size and tokens
#
# Four widths, each trained for 50, 100 and 200 steps of about 4,000 tokens:

# %% tags=["nbval-ignore-output"]
figures.show(ch04.size_figure(grid), "Excess loss by tokens for four sizes: more of either gives less")
excess = torch.tensor([ratios(experiment="size", hidden_size=width) for width in ch04.WIDTHS]) - 1
by_tokens, by_width = (excess[:, :-1] / excess[:, 1:]).min(), (excess[:-1] / excess[1:]).min()
claims.record("ch04.gain_by_tokens", by_tokens, at_least=2, source="excess over the floor, least ratio")
claims.record("ch04.gain_by_width", by_width, at_least=1.05, source="the same from one width to the next")

# %% [markdown]
# At every width, twice the tokens leave less than half of the excess; and a bigger model learns more from the
# same tokens. Each has its price in time. For web text such curves are extrapolated (*scaling laws*), though
# there the floor is itself a guess. One cell of the grid again, now:

# %% tags=["nbval-ignore-output"]
cell = {"experiment": "size", "hidden_size": 64, "steps": 50}
now, recorded = sweeps.run_cell("04", **cell)["ratio"], grid.find(**cell)["ratio"]
print(f"loss / floor {now:.3f}, recorded {recorded:.3f}")
claims.record("ch04.grid_again", now / recorded, at_least=0.97, at_most=1.03, source="now over recorded")

# %% [markdown]
# ## Sampling
#
# A model gives a distribution; how to draw from it is your choice. *Temperature* T divides the logits, so
# probabilities become p^(1/T), normalised. *Top-k* keeps the k likeliest tokens. *Top-p* keeps the fewest
# likeliest tokens whose probabilities reach p. By hand, for (1/2, 1/4, 1/8, 1/8): T = 0.5 squares them, which
# gives (16, 4, 1, 1) / 22. Top-2 keeps the first two, (2/3, 1/3), and so does top-p 0.7.


# %%
def with_transformers(logits, temperature, top_k, top_p):
    logits = transformers.TemperatureLogitsWarper(temperature)(None, logits)
    logits = transformers.TopKLogitsWarper(top_k)(None, logits)
    return transformers.TopPLogitsWarper(top_p)(None, logits).softmax(dim=-1)


toy, many = torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 8]).log(), 3 * torch.randn(50, 200)
for setting in ({"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.7}):
    print(setting, [f"{value:.3f}" for value in sampling_probabilities(toy, **setting)])
tries = ((0.7, 50, 0.9), (1.0, 5, 0.5), (1.5, 100, 0.95))
gap = max((sampling_probabilities(many, *t) - with_transformers(many, *t)).abs().max() for t in tries)
claims.record("ch04.sampling_difference", gap, at_most=1e-6, source="against transformers, random logits")

# %% [markdown]
# **What does temperature cost?** The world's grammar can parse: a text either is a document of this world,
# with true facts, or it is not. So we can count.

# %% tags=["nbval-ignore-output"]
texts = {temperature: write(model, 48, temperature) for temperature in (0.5, 1.0, 1.5)}
valid = {t: sum(bool(world.derivations(text)) for text in texts[t]) / 48 for t in texts}
print(*(f"temperature {t}: {valid[t]:.0%} true documents; {texts[t][0][:80]}" for t in texts), sep="\n")
claims.record("ch04.true_at_0.5", valid[0.5], at_least=0.6, source="48 samples, documents of the world")
claims.record("ch04.lost_at_1.5", valid[0.5] - valid[1.5], at_least=0.4, source="share at 0.5 minus at 1.5")

# %% [markdown]
# A low temperature stays on safe ground. A high one lets single tokens go astray, and one is enough to spoil
# a document. Try it on the model's own distributions: a fact that it knows is one tall bar, a choice that the
# world leaves open is many low ones.


# %%
def draw(prompt, temperature, top_k, top_p):
    with torch.no_grad():
        logits = model(torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(prompt)]])).logits[0, -1]
    chances = sampling_probabilities(logits, temperature, top_k, top_p)
    likeliest = logits.argsort(descending=True)[:12].tolist()
    names = [f"{place}. {ascii(tokenizer.decode([i]))[1:-1]}" for place, i in enumerate(likeliest, start=1)]
    figure, axes = figures.new_figure(7.5, 3.2)
    axes.bar(range(12), chances[likeliest])
    axes.set_xticks(range(12), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set(title=f"{prompt} …   {int((chances > 0).sum())} tokens can be drawn", ylim=(0, 1))
    return figure


prompts = ("Lily Ironside", "Lily Ironside lives in", "It was a", "7 plus 2 is", "The pet of")
widgets.explore(
    draw,
    "Probabilities of the twelve likeliest next tokens after a prompt",
    prompt=ipywidgets.Dropdown(options=prompts, description="prompt"),
    temperature=ipywidgets.FloatSlider(1.0, min=0.25, max=3, step=0.25, description="temperature"),
    top_k=ipywidgets.IntSlider(0, min=0, max=20, description="top-k"),
    top_p=ipywidgets.FloatSlider(1.0, min=0.05, max=1, step=0.05, description="top-p"),
)

# %% [markdown]
# ## Exercises
#
# Fill in a function, run its cell and the next. In `minimind_edu.course.exercises`,
# `show_solution("ch04.wsd")` shows a solution.
#
# **1.** The loss of a batch, without loops over positions.


# %%
def my_loss(logits, labels):
    """Mean -ln p of the next token, of logits (B, T, V) and labels (B, T): not shifted, -100 ignored.

    Three positions of equal logits over three tokens, labels [[0, 1, -100]]: one target, loss ln 3.
    """
    raise NotImplementedError


# %%
check("ch04.next_token_loss", my_loss)

# %% [markdown]
# **2.** The WSD schedule. The warm-up is that of `cosine`; the decay takes the last `total // 5` steps.


# %%
def my_wsd(step, total, warmup, peak, last):
    """Learning rate of a step (from 0): the line falls from peak to what `last` would be at step == total.

    my_wsd(90, 100, 4, 1.0, 0.0) is 0.5.
    """
    raise NotImplementedError


# %%
check("ch04.wsd", my_wsd)

# %% [markdown]
# **3.** The gradient of a window, from each batch's gradient (of the mean over its tokens) and number of
# tokens. A batch without tokens has a gradient of NaN.


# %%
def my_window(gradients, tokens):
    """From lists of tensors of one shape and of ints, the gradient of the mean over all tokens.

    my_window([tensor([1.]), tensor([5.])], [3, 1]) is tensor([2.]).
    """
    raise NotImplementedError


# %%
check("ch04.window_gradient", my_window)

# %% [markdown]
# **4.** Top-p.


# %%
def my_top_p(probabilities, p):
    """Of probabilities (V,) keep the fewest likeliest that reach p; (V,), with sum 1.

    my_top_p(tensor([.2, .5, .3]), 0.7) is [0, .625, .375].
    """
    raise NotImplementedError


# %%
check("ch04.top_p", my_top_p)

# %% [markdown]
# ## What was claimed

# %% tags=["nbval-ignore-output"]
claims.table()

# %% [markdown]
# ## At full scale
#
# The same loop with bigger settings:
#
# ```
# minimind-edu pretrain                                   # this chapter's model, four epochs
# minimind-edu pretrain --preset minimind2-small --data_path pretrain_hq.jsonl \
#     --vocab_size 6400 --max_seq_len 512 --batch_size 32 --accumulation_steps 8 \
#     --optimizer adamw --learning_rate 5e-4 --epochs 1 --out_dir out/small
# minimind-edu course sweep 04                            # the record of this chapter
# ```
#
# How long that takes on real cards: what others reported, and our estimates, in rows of their own.

# %%
hours_table("pretrain")

# %% [markdown]
# `minimind-edu hardware` says it for your card and settings, `minimind-edu bench` measures yours, and chapter
# 10 tells how.
#
# ## References
#
# - Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, 2019 (AdamW).
# - Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024.
# - Hu et al., *MiniCPM*, 2024 (WSD). Micikevicius et al., *Mixed Precision Training*, 2018.
# - Ding et al., *Fewer Truncations Improve Language Modeling*, 2024 (best-fit packing).
# - Allen-Zhu and Li, *Physics of Language Models*, parts 3.1 and 3.3 (knowledge and exposure).
# - Kaplan et al., *Scaling Laws for Neural Language Models*, 2020; Hoffmann et al., *Training
#   Compute-Optimal Large Language Models*, 2022.
# - Holtzman et al., *The Curious Case of Neural Text Degeneration*, 2020 (top-p).
