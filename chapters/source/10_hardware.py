# %% [markdown]
# # 10. Hardware: will it fit, and how long will it take?
#
# Python, English. Less than two minutes on two CPU cores, without a network and without a GPU.
#
# | | |
# | --- | --- |
# | goal | answer both questions before you rent a card, and know how far to trust the answer |
# | needs | nothing; chapters 2 and 4 help |
# | time, memory | less than 120 seconds on two cores, less than 3 GB |
# | **the number you will reach** | predicted **memory within 15%**, time within 25% (nine times in ten) |
#
# ![Map of the course: you are at chapter 10, hardware](../figures/map_10.svg)

# %% tags=["nbval-ignore-output"]
import statistics
from unittest.mock import patch

import ipywidgets
import torch
from torch.utils.flop_counter import FlopCounterMode

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.course import claims, figures, session, sweeps, widgets
from minimind_edu.course.exercises import check
from minimind_edu.course.hours import hours_table
from minimind_edu.course.sweeps import ch10, ch10_figures, ch10_times
from minimind_edu.hardware import Workload, measure
from minimind_edu.hardware.advice import advice
from minimind_edu.hardware.cards import CARDS, GIB, THE_FOUR, find_card
from minimind_edu.hardware.checks import verdicts
from minimind_edu.hardware.estimate import estimate, workload
from minimind_edu.hardware.flops import flops
from minimind_edu.hardware.memory import activations_by_layer, memory
from minimind_edu.hardware.parallel import bytes_kept, bytes_sent, speedup, train_parallel
from minimind_edu.hardware.peak import measure_memory
from minimind_edu.hardware.reported import known_runs, runs
from minimind_edu.hardware.shares import fit_shares
from minimind_edu.hardware.timing import predict
from minimind_edu.model.moe import FeedForward
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.training import TrainConfig
from minimind_edu.training.optim import OptimizerSet
from minimind_edu.training.precision import resolve_precision

session.start()
grid = sweeps.load("10")

# %% [markdown]
# ## One layer, by hand
#
# A matrix of 3 × 4 numbers times one of 4 × 2 takes 3 · 4 · 2 = 24 multiplications, each with an addition:
# 48 floating-point operations, **FLOPs**. Nearly all operations of a transformer are in such products
# (norms and the like have few, and are not counted). A toy layer:
#
# ![The products of a toy layer: 504 multiply-adds, 1,008 FLOPs](../figures/10_layer.svg)


# %%
def layer_flops(config, rows, tokens):
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    weights = config.hidden_size * (2 * queries + 2 * keys)
    if config.use_moe:
        experts = config.num_experts_per_tok + config.num_shared_experts
        weights += config.hidden_size * (3 * experts * config.moe_intermediate_size + config.num_experts)
    else:
        weights += 3 * config.hidden_size * config.intermediate_size
    return 2 * rows * (tokens * weights + 2 * tokens**2 * queries)


toy = ModelConfig(hidden_size=4, num_attention_heads=2, num_key_value_heads=1, intermediate_size=8)
print(layer_flops(toy, rows=1, tokens=3), "FLOPs")
assert layer_flops(toy, rows=1, tokens=3) == 1008

# %% [markdown]
# Training goes through each product **three times**: once forward, and once backward for the gradient of
# each of its two factors. Add the output head, at every position that has a target. Now all presets of the
# course, dense and with experts (cut to two layers): by hand, by the package, and as PyTorch counts them
# while our training loss really runs.


# %%
def step_flops(config, rows, tokens):
    head = 2 * rows * (tokens - 1) * config.hidden_size * config.vocab_size
    return 3 * (config.num_hidden_layers * layer_flops(config, rows, tokens) + head)


def counted_flops(config, rows, tokens):
    ids = torch.randint(0, config.vocab_size, (rows, tokens))
    batch = {"input_ids": ids, "labels": ids, "document_ids": torch.zeros_like(ids)}
    with FlopCounterMode(display=False) as counter:
        causal_lm_loss(MiniMind(config).eval(), batch)[0].backward()
    return counter.get_total_flops()


gaps = []
for preset in ModelConfig.presets().values():
    two = preset.replace(num_hidden_layers=2)
    true = counted_flops(two, rows=2, tokens=16)
    package = flops(Workload(two, batch_size=2, seq_len=16)).total
    gaps += [abs(mine - true) / true for mine in (package, step_flops(two, rows=2, tokens=16))]
print(f"{len(gaps) // 2} presets, largest relative difference {max(gaps):.4f}")
claims.record("ch10.flops_difference", max(gaps), at_most=0.001, source="hand and package against PyTorch")

# %% [markdown]
# **The rule of thumb** is 6 N D: N parameters, D tokens, two FLOPs for each weight and token, three times.
# How good is it? The exact count divided by 6 N D, by length of the rows:


# %%
def parameters(config):
    with torch.device("meta"):  # shapes only, no memory
        return MiniMind(config).num_parameters()


def over_6nd(name, tokens):
    config = ModelConfig.preset(name)
    return flops(Workload(config, batch_size=1, seq_len=tokens)).total / (6 * parameters(config) * tokens)


# %%
lengths, over = (128, 512, 2048, 8192), {}
print(f"{'tokens in a row':16}", *(f"{tokens:6}" for tokens in lengths))
for name in ("edu", "minimind2-small", "minimind2", "miniqwen", "minimind-3-moe"):
    over[name] = {tokens: over_6nd(name, tokens) for tokens in lengths}
    print(f"{name:16}", *(f"{value:6.2f}" for value in over[name].values()))
claims.record("ch10.over_6nd_long_rows", over["edu"][2048], at_least=3, source="`edu`, rows of 2,048")
assert 1 < over["minimind2"][512] < 1.2
assert over["miniqwen"][128] < 0.8 and over["minimind-3-moe"][128] < 0.4

# %% [markdown]
# Good for a dense model with a tied head in rows of some hundred tokens. Wrong for long rows, since
# attention's products belong to no parameter and grow with the square of the length, the sooner the
# narrower the model; wrong where the embedding is a matrix of its own (it is looked up, not multiplied);
# and wrong for experts that a token does not visit.
#
# ## The roofline
#
# A product must also be fetched. Its **intensity** is FLOPs for each byte that it moves. By hand, in
# float32: adding two vectors is one FLOP for 12 bytes (two read, one written), 1/12. Multiplying two n × n
# matrices is 2n³ FLOPs for 3 · 4n² bytes, n/6. A machine with peak P and bandwidth W does at most min(P, W
# · intensity) FLOPs a second: the *roofline* of Williams et al. (2009). This machine's own, measured:

# %% tags=["nbval-ignore-output"]
roof = measure.machine_peak()
points = {f"{n} × {n}": ch10_figures.product_point(n) for n in (16, 64, 256, 1024)}
points["addition"] = ch10_figures.addition_point()
bandwidth = roof["bandwidth"]
peak = max(roof["float32"], *(reached for _, reached in points.values()))  # the best that was seen
print(f"GFLOP/s: {peak / 1e9:.0f} in float32, {roof['bfloat16'] / 1e9:.0f} in bfloat16")
print(f"{bandwidth / 1e9:.0f} GB/s; the roof bends at {peak / bandwidth:.1f} FLOPs a byte")

# %% [markdown]
# Products of several sizes, an addition, and a whole **training step**, which mixes products, large and
# small, with elementwise work (norms, SwiGLU, softmax, the optimizer). Its FLOPs and bytes are the
# package's counts.

# %% tags=["nbval-ignore-output"]
step = Workload(ModelConfig.preset("edu"), batch_size=4)
points["training step"] = ch10_figures.step_point(step)
figures.show(
    ch10_figures.roof_figure(peak, bandwidth, points), "Measured speeds under this machine's roofline"
)

# %% tags=["nbval-ignore-output"]
speed = {name: flops_a_second for name, (_, flops_a_second) in points.items()}
shares = {name: f"{value / peak:.1%}" for name, value in speed.items()}
print("share of the peak:", shares)
assert speed["1024 × 1024"] > 5 * speed["addition"]
claims.record(
    "ch10.step_share_of_peak",
    speed["training step"] / peak,
    at_least=0.02,
    at_most=1,
    source="`edu`, float32",
)

# %% [markdown]
# The addition waits for memory: no faster arithmetic would help it. The large product is limited by
# arithmetic. Small products reach neither limit, since every call costs something too. So one number,
# "peak", says little about training: **the share that a step reaches depends on its shapes**.
#
# ## Where the memory goes
#
# ![Weights and moments stay; activations grow and shrink; logits add a spike](../figures/10_step.svg)
#
# **A trained parameter takes 16 bytes**: weight and gradient 4 each, AdamW's two moments 8 (all float32;
# only products are in 16 bits). We take a step and count the tensors that there are:


# %%
def batch_of(config, rows, tokens):
    ids = torch.randint(0, config.vocab_size, (rows, tokens))
    return {"input_ids": ids, "labels": ids, "document_ids": torch.zeros_like(ids)}


# %%
edu = ModelConfig.preset("edu")
model = MiniMind(edu)
optimizers = OptimizerSet(model, TrainConfig(optimizer="adamw"))
causal_lm_loss(model, batch_of(edu, 4, 64))[0].backward()
optimizers.optimizers[0].step()

# %%
held = [tensor for weight in model.parameters() for tensor in (weight, weight.grad)]
held += [tensor for name, tensor in optimizers.state_tensors().items() if "exp_avg" in name]
each = sum(tensor.nbytes for tensor in held) / model.num_parameters()
print(f"{each:.2f} bytes a parameter")
claims.record("ch10.bytes_a_parameter", each, equals=16, source="tensors after a step of `edu`")

# %% [markdown]
# **Activations** are what the forward pass keeps for the backward pass: a product keeps its inputs, because
# the gradient of each factor needs the other. By hand, the toy layer's SwiGLU, down(silu(gate x) · up x),
# for 3 tokens: x (3 · 4 numbers), gate x, its silu, up x, and their product (3 · 8 each). That is 12 + 4 ·
# 24 = 108 numbers, 432 bytes. PyTorch shows what it keeps through hooks:


# %%
def kept_bytes(model, run):
    own = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # views of one storage count once
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in kept.values())


swiglu = FeedForward(hidden_size=4, intermediate_size=8)
print(kept_bytes(swiglu, lambda: swiglu(torch.randn(3, 4))), "bytes")
assert kept_bytes(swiglu, lambda: swiglu(torch.randn(3, 4))) == 432

# %% [markdown]
# Now whole models with their loss, against the package's arithmetic, which lists every kept tensor by name:
# dense and with experts, short and longer rows, with checkpointing and without.

# %%
gaps = []
for name, rows, tokens in (("edu", 4, 64), ("edu-moe", 4, 64), ("qwen3-tiny", 2, 128), ("edu", 1, 200)):
    for again in (False, True):
        model = MiniMind(ModelConfig.preset(name)).train()
        model.gradient_checkpointing, batch = again, batch_of(model.config, rows, tokens)
        counted = kept_bytes(model, lambda model=model, batch=batch: causal_lm_loss(model, batch))
        work = Workload(model.config, batch_size=rows, seq_len=tokens, gradient_checkpointing=again)
        gaps.append(abs(sum(activations_by_layer(work).values()) / counted - 1))
claims.record("ch10.kept_difference", max(gaps), at_most=0.005, source="package against hooks, relative")

# %% [markdown]
# **The logits surprise.** By hand, for `minimind2-small` and 32 rows of 512 tokens: 32 · 512 · 6,400
# numbers of 4 bytes are 419 MB. When the backward pass begins there are three such tensors: the
# log-probabilities, their gradient, and that of the logits. All 25.83M parameters with gradients and
# moments are 16 · 25.83M = 413 MB: a third of that. (A vocabulary of 150,000 would make the logits 23 times
# as much.)

# %%
small = Workload(ModelConfig.preset("minimind2-small"), batch_size=32, seq_len=512)
parts = memory(small).parts
print(*(f"{name} {parts[name] / 1e6:,.0f} MB" for name in ("weights", "optimizer", "logits")), sep=", ")
over = parts["logits"] / (16 * parameters(small.config))
claims.record("ch10.logits_over_model", over, at_least=2.5, source="logits / 16 bytes a parameter")

# %% [markdown]
# **What grows with what?** Weights and moments do not care about the batch; activations and logits grow
# with its tokens. Attention's scores grow with the square of the length, until, beyond 256 tokens in
# float32 on a CPU, a fused kernel takes over that keeps none: the bend on the right. (With one row the peak
# falls to the end of the backward pass, when all gradients are there. *Framework* is Python and PyTorch
# before the model, *allocator* the holes between tensors.)

# %%
work = small.replace(batch_size=8, seq_len=256)
figure = ch10_figures.stack_figure(work, (1, 2, 4, 8, 16, 24), (64, 128, 192, 256, 264, 384, 512))
figures.show(figure, "Memory of a step of minimind2-small by batch and by length: activations dominate soon")

# %% [markdown]
# **What saves?** *Checkpointing* keeps each block's input only and runs the block again in the backward
# pass: a third more work at most. *LoRA* (chapter 6) spares gradients and moments of frozen weights, but
# the activations stay. *DPO* reads two rows for each pair; *distillation* has a teacher and its logits;
# *GRPO* writes answers with a cache.


# %%
def needs(**changes):
    work = small.replace(batch_size=8, seq_len=256, labelled=None, **changes)
    return memory(work, framework=0).total


plain = needs()
for stage in ("pretrain", "sft", "lora", "dpo", "distill", "grpo"):
    both = [needs(stage=stage, gradient_checkpointing=again) / plain for again in (False, True)]
    print(f"{stage:9} {both[0]:.1f} times pretraining's memory, {both[1]:.1f} checkpointed")
saved = needs(gradient_checkpointing=True) / plain
again = flops(small.replace(gradient_checkpointing=True)).total / flops(small).total
claims.record("ch10.checkpointed_memory", saved, at_most=0.6, source="memory with checkpointing / without")
assert 1.2 < again < 4 / 3
assert needs(stage="lora") > 0.6 * needs(stage="sft") and needs(stage="dpo") > 1.5 * needs(stage="sft")

# %% [markdown]
# **Is it true?** A fresh process takes three steps of the real loop, and the operating system tells the
# most memory that it ever had. Two cases now, then 24 from the record. Checkpointed steps leave other holes
# between their tensors in every run, so each of those three is measured in three processes, and the bound
# is wider:

# %% tags=["nbval-ignore-output"]
errors = []
for settings in (ch10.PLAIN, ch10.PLAIN | {"stage": "dpo", "batch_size": 8}):
    work = ch10.workload(**settings)
    measured, expected = measure_memory(work).peak, memory(work).total
    errors.append(abs(expected / measured - 1))
    print(f"measured {measured / 1e6:,.0f} MB, predicted {expected / 1e6:,.0f} MB")
claims.record("ch10.memory_error_now", max(errors), at_most=0.15, source="predicted / measured, two cases")

# %%
pairs = ch10.pairs(grid)
figure = ch10_figures.agreement_figure(pairs, 0.15, "MB")
figures.show(figure, "Predicted over measured peak memory of 24 workloads, close to equality")
print(grid.caption)
worst = {kind: max(abs(b / a - 1) for a, b in found) for kind, found in pairs.items()}
print(*(f"{kind}: at most {error:.1%} off" for kind, error in worst.items()), sep="\n")
holes = worst.pop("checkpointed")
claims.record("ch10.memory_error", max(worst.values()), at_most=0.15, source="worst of 21 recorded workloads")
claims.record("ch10.memory_error_checkpointed", holes, at_most=0.25, source="worst of 9 recorded processes")

# %% [markdown]
# ## How long?
#
# Time is a sum: each kind of work times what a unit of it costs. The costs follow from measured steps. By
# hand, with two kinds: a step of 4 GFLOP and 1 GB takes 3 s, one of 2 GFLOP and 3 GB takes 4 s. So 4 a + b
# = 3 and 2 a + 3 b = 4: a GFLOP costs 0.5 s and a GB 1 s.

# %%
work, seconds = torch.tensor([[4.0, 1.0], [2.0, 3.0]]), torch.tensor([3.0, 4.0])
print(*(f"{value:.2f} s" for value in torch.linalg.solve(work, seconds)))

# %% [markdown]
# The package knows more kinds: FLOPs by number format, bytes of operands, of elementwise work, of
# softmaxes, of the update, calls of kernels. From some more measured steps than kinds it finds the costs,
# none of them negative, with the least relative error (`fit_speed`). Then it predicts steps that it has not
# seen:

# %%
machine = ch10_times.held_out()
print(machine.text)
figure = ch10_figures.agreement_figure(machine.pairs, 0.25, "s")
figures.show(figure, "Predicted over measured seconds of steps that the costs were not fitted on")
print(f"median error {statistics.median(machine.errors):.1%}; {machine.covered:.0%} within the stated range")
within = sum(error <= 0.25 for error in machine.errors) / len(machine.errors)
claims.record("ch10.times_within_25_percent", within, at_least=0.9, source="share of held-out steps")

# %% [markdown]
# Your machine has other costs (`minimind-edu bench` finds them in a minute), but how much longer a long
# step takes than a short one should be about the same. Of the held-out steps of pretraining in float32 that
# took less than a second, the shortest and the longest, now:

# %% tags=["nbval-ignore-output"]
now, expected = ch10_times.ratio_now(machine)
print(f"measured now: {now:.1f} times longer, predicted from the record: {expected:.1f}")
claims.record(
    "ch10.ratio_now", now / expected, at_least=0.4, at_most=2.5, source="measured / predicted ratio"
)

# %% [markdown]
# ## Cards and number formats
#
# ![Bits of float32, TF32, bfloat16 and float16](../figures/10_formats.svg)
#
# Half the bytes are half the traffic, and on tensor cores many times the FLOPs. What a card can do depends
# on its *compute capability*: bfloat16 and TF32 from 8.0 on; tensor cores from 7.0 on, but the GTX 1650
# (7.5) has none. PyTorch's `is_bf16_supported()` may say yes where bfloat16 is emulated, so training asks
# for the capability. Below 8.0 it takes float16, with a loss scaler (chapter 4 says why). From data sheets,
# dense products with sums in float32:

# %%
for name in THE_FOUR:
    card = find_card(name)
    major, minor = card.capability
    rate = card.peak[card.auto_dtype]
    print(f"{name:16} {major:2}.{minor} {card.auto_dtype:9} {rate / 1e12:3.0f} TFLOP/s", end=" ")
    print(
        f"{card.bandwidth / 1e9:4.0f} GB/s {card.usable / GIB:5.1f} GB, bends at {rate / card.bandwidth:.0f}"
    )


def training_chooses(card):
    with patch("torch.cuda.get_device_capability", return_value=card.capability):
        return str(resolve_precision("auto", torch.device("cuda")).dtype).removeprefix("torch.")


wrong = sum(card.auto_dtype != training_chooses(card) for card in CARDS)
claims.record(
    "ch10.formats_unlike_training", wrong, equals=0, source=f"{len(CARDS)} cards: table against training"
)

# %% [markdown]
# ## Reported, estimated, measured
#
# Three kinds of numbers, never mixed. *Reported*: others' times for their own code, often with holes.
# *Measured*: by us; so far on a CPU only. *Estimated*: FLOPs and bytes over the rates of a card's data
# sheet, times the share of the peak that reported runs reached. To see how far such an estimate can be
# trusted, each run is predicted **from the others**:

# %%
ratios = {}
for run in runs():
    shares = fit_shares([other for other in runs() if other.row is not run.row])
    hours = predict(run.work, shares.speed(run.peak, run.bandwidth, run.card)).mid * run.steps / 3600
    ratios[run.row.name] = hours * 3600 / run.seconds
    print(f"{run.row.name:55} reported {run.seconds / 3600:5.2f} h, estimated {hours:5.2f} h")
known = [max(ratios[run.row.name], 1 / ratios[run.row.name]) for run in known_runs()]
claims.record(
    "ch10.factor_off_reported", max(known), at_most=2, source="RTX 3090, rows whose tokens are known"
)

# %% [markdown]
# Within a factor of two where the tokens are known. The A40's rows took more than twice the estimate:
# either their tokens are not what the file's size suggests, or that machine waited for something. An RTX
# 5060, with a quarter of its peak, is reported to need about as long for an epoch (18 hours; 48 / 3 = 16).
# Reported rows are no measurements. And the two that "do not run"?

# %%
too_small, too_large = verdicts()
print(too_small, too_large, sep="\n")
assert (too_small.explains, too_large.explains) == (None, True) and too_large.yet

# %% [markdown]
# So for the GTX 1650 the numbers do not decide: some shapes of that size fit and some do not, and bfloat16,
# MiniMind's default, is missing there too. For 380M parameters memory is reason enough; but by the same
# arithmetic the row that *does* run on that card should not: one of the two leaves something out.
#
# **What to change where it does not fit**, the least harmful first: smaller batches with accumulation give
# the same gradients; checkpointing costs time; 16 bits round; shorter rows cut texts; LoRA trains little.

# %%
card = find_card("GTX 1650")
for way in advice(workload("minimind2", "pretrain", card, 32, 512), card):
    print(f"{way.change} ({way.harm})\n    {way.command}")

# %% [markdown]
# One row for each card, model and file: what was reported, and what we estimate for one epoch in batches of
# 32 rows with AdamW, or with the first change that makes it fit. The training chapters end with their own.

# %%
hours_table("pretrain")

# %% [markdown]
# ## Two cards, or a hundred
#
# *Data parallel*: every card has the whole model and rows of its own; after the backward pass the gradients
# are added up. A **ring** does that without a centre. The gradient is cut into as many chunks as there are
# cards, and in each step every card sends one chunk to its neighbour: n − 1 steps add up, n − 1 pass the
# sums on.
#
# ![Three cards, three chunks: after four steps each has all three sums](../figures/10_ring.svg)


# %%
def ring(cards):
    n, sent = len(cards), 0
    for step in range(2 * (n - 1)):
        passing = [(card, (card - step) % n, cards[card][(card - step) % n]) for card in range(n)]
        for card, chunk, value in passing:
            neighbour = cards[(card + 1) % n]
            neighbour[chunk] = neighbour[chunk] + value if step < n - 1 else value
            sent += 1
    return cards, sent


cards, sent = ring([[1, 2, 3], [10, 20, 30], [100, 200, 300]])
print(cards, f"{sent} chunks sent")
assert cards == [[111, 222, 333]] * 3

# %% [markdown]
# By hand: three cards in four steps send 12 chunks of a third of the gradient, so each card sends 4/3 of
# it, in general 2 (n − 1) / n. That stays below twice the gradient, however many cards there are.
# *Sharding* (ZeRO) also divides what each card keeps of the 16 bytes: from stage 1 on the moments, 2 the
# gradients, 3 the weights too, which then have to be fetched for both passes, so that a card sends half as
# much again.

# %%
gaps = []
for n in (2, 5, 8):
    values = torch.randn(n, n, 10)
    cards, sent = ring([list(card) for card in values.clone()])
    wrong = max((torch.stack(card) - values.sum(dim=0)).abs().max().item() for card in cards)
    gaps += [wrong, abs(sent / n * 10 * 4 / bytes_sent(n * 10, n) - 1)]
claims.record(
    "ch10.ring_difference", max(gaps), at_most=1e-5, source="sums against torch, bytes against package"
)
millions = parameters(ModelConfig.preset("minimind2")) / 1e6
for n in (1, 2, 8, 100):
    numbers = [
        f"{bytes_sent(millions, n, stage):4.0f} / {bytes_kept(millions, n, stage):5.0f}" for stage in range(4)
    ]
    print(f"{n:3} cards, MB sent / kept by each, stages 0 to 3: ", *numbers, sep="  ")

# %% [markdown]
# Whether the sending matters depends on how long a step takes: at 10 GB/s the 824 MB of a hundred cards are
# 0.08 seconds. Two processes of one thread each, here and now, over gloo, and one process with all rows:

# %% tags=["nbval-ignore-output"]
part = Workload(edu, batch_size=8, seq_len=128)
two = train_parallel(part, workers=2)
one = train_parallel(part.replace(batch_size=16), workers=1)
print(f"{speedup(one, two):.2f} times faster, {two.exchange_seconds:.3f} s a step for the exchange")
gap = (one.weights - two.weights).abs().max() / one.weights.abs().max()
claims.record(
    "ch10.two_workers_difference", gap, at_most=1e-4, source="weights against one process, all rows"
)
assert two.bytes == 4 * parameters(edu)


# %% [markdown]
# ## Try it
#
# One epoch of pretraining on MiniMind's `pretrain_mini` (1,270,238 rows) with AdamW, on a card of your
# choice. Hours and yuan are estimates with their range.


# %%
def draw(card, preset, rows_in_a_batch, tokens_in_a_row, yuan_per_hour):
    settings = {"batch_size": rows_in_a_batch, "seq_len": tokens_in_a_row, "price_per_hour": yuan_per_hour}
    return ch10_figures.fit_figure(estimate(preset, card=card, rows=1_270_238, **settings))


widgets.explore(
    draw,
    "Memory of a step by part beside what the card has, with hours and yuan of an epoch",
    card=ipywidgets.Dropdown(options=list(THE_FOUR), value="GeForce RTX 3090"),
    preset=ipywidgets.Dropdown(
        options=["minimind2-small", "minimind-3", "minimind2", "minimind2-272m", "minimind-3-moe"]
    ),
    rows_in_a_batch=ipywidgets.IntSlider(32, min=1, max=128),
    tokens_in_a_row=ipywidgets.IntSlider(340, min=64, max=2048),
    yuan_per_hour=ipywidgets.FloatSlider(1.3, min=0, max=20, step=0.1),
)

# %% [markdown]
# ## What waits for a measurement
#
# No number of this chapter was measured on a GPU. Waiting are: the time of our own steps on any card, and
# so the share of the peak that our code reaches; the peak memory there, with and without checkpointing, and
# under the limits of smaller cards; what PyTorch takes on a card before the first tensor (0.5 GB is
# assumed, others saw 0.3 to 0.8). `minimind-edu bench` on your card measures these, prints rows to
# contribute, and corrects the estimates. The whole table, with a column that says measured, reported or
# estimated, is `records/hardware.csv`.
#
# ## Exercises
#
# Fill in a function, run its cell and the next. In `minimind_edu.course.exercises`,
# `show_solution("ch10.attainable")` shows a solution.
#
# **1.** FLOPs of a layer, from plain numbers.


# %%
def my_layer_flops(rows, tokens, hidden, heads, kv_heads, head_dim, intermediate):
    """FLOPs of a dense layer's forward pass. my_layer_flops(1, 3, 4, 2, 1, 2, 8) is 1,008."""
    raise NotImplementedError


# %%
check("ch10.layer_flops", my_layer_flops)

# %% [markdown]
# **2.** The roofline.


# %%
def my_attainable(flops, moved, peak, bandwidth):
    """FLOPs a second that the roof allows. my_attainable(100.0, 50.0, 10.0, 3.0) is 6."""
    raise NotImplementedError


# %%
check("ch10.attainable", my_attainable)

# %% [markdown]
# **3.** How many rows fit, if the model has so many parameters, some of them trained, and a row takes so
# many bytes?


# %%
def my_largest_batch(memory, parameters, trained, row):
    """Whole rows that fit, 0 if the model alone does not. my_largest_batch(1_000, 40, 10, 100) is 7."""
    raise NotImplementedError


# %%
check("ch10.largest_batch", my_largest_batch)

# %% [markdown]
# **4.** What each card of a ring sends, chunks filled up to whole values.


# %%
def my_ring_bytes(values, cards):
    """Bytes that each card sends for float32 values. my_ring_bytes(10, 4) is 72: six chunks of three."""
    raise NotImplementedError


# %%
check("ch10.ring_bytes", my_ring_bytes)

# %% [markdown]
# ## What was claimed

# %% tags=["nbval-ignore-output"]
claims.table()

# %% [markdown]
# ## On your machine
#
# ```
# minimind-edu hardware --preset minimind2 --card "RTX 3090" --stage pretrain --rows 1270238
# minimind-edu hardware --preset edu --card auto      # this machine
# minimind-edu bench                                  # measures for a minute, corrects the estimates
# minimind-edu course sweep 10                        # the record of this chapter
# ```
#
# For MiniMind's own code its author gives 1.21 hours for `minimind-3` and 1.69 for `minimind-3-moe` on one
# RTX 3090, for one epoch of that file, as estimates.
#
# ## References
#
# - Williams, Waterman and Patterson, *Roofline*, 2009.
# - Kaplan et al., *Scaling Laws for Neural Language Models*, 2020 (6 N D).
# - Chen et al., *Training Deep Nets with Sublinear Memory Cost*, 2016 (checkpointing).
# - Rajbhandari et al., *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models*, 2020.
# - Patarasuk and Yuan, *Bandwidth optimal all-reduce algorithms for clusters of workstations*, 2009 (the
#   ring).
# - Korthikanti et al., *Reducing Activation Recomputation in Large Transformer Models*, 2022.
# - Micikevicius et al., *Mixed Precision Training*, 2018.
