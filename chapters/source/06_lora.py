# %% [markdown]
# # 6. LoRA: adapting with a few percent of the weights
#
# Python, English. Less than four minutes on two CPU cores, without a network.
#
# | | |
# | --- | --- |
# | goal | teach a finished model something new through two thin matrices a layer, and know what that saves |
# | needs | the chat model of chapter 5, which is built here if it is missing |
# | time, memory | less than 240 seconds on two cores, less than 2 GB |
# | **the number you will reach** | as many new answers with **1/11 of the optimizer memory** |
#
# ![Map of the course: you are at chapter 6, LoRA](../figures/map_06.svg)

# %% tags=["nbval-ignore-output"]
import copy
import json
import tempfile
from pathlib import Path

import ipywidgets
import torch
import torch.nn.functional as F
from torch import nn

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.course import artifacts, claims, figures, session, sweeps, widgets
from minimind_edu.course.exercises import check
from minimind_edu.course.hours import hours_table
from minimind_edu.course.sweeps import ch06
from minimind_edu.data.world.files import default_file
from minimind_edu.evaluation import reply
from minimind_edu.stages import lora
from minimind_edu.training import TrainConfig
from minimind_edu.training.optim import OptimizerSet

session.start()
folder = Path(tempfile.mkdtemp())
chat, tokenizer = artifacts.chat_model()
grid = sweeps.load("06")

# %% [markdown]
# ## An update of low rank
#
# Fine-tuning changes a matrix W by some ΔW of the same size. Hu et al. (2021) guessed that ΔW needs little
# room: write it as a product B A of two thin matrices, freeze W, and train only these. The output becomes
# $W x + \frac{\alpha}{r} B A x$, where the rank r is the number of rows of A.
#
# ![W is frozen; beside it x goes through A to r numbers and through B to the output](../figures/06_layer.svg)
#
# By hand: let W be the identity of size 2, A = (1 2), B = (3 0) as a column, α = 2, rank 1. For x = (1, 1),
# A x = 3, B A x = (9, 0), times 2/1 is (18, 0), so the output is (1, 1) + (18, 0) = (19, 1).


# %%
class MyLoRALinear(nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), alpha / rank
        self.A = nn.Parameter(torch.empty(rank, linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)

    def forward(self, x):
        return self.linear(x) + x @ self.A.T @ self.B.T * self.scale


toy = MyLoRALinear(nn.Linear(2, 2, bias=False), rank=1, alpha=2)
toy.linear.weight.data = torch.eye(2)
toy.A.data, toy.B.data = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [0.0]])
print(toy(torch.tensor([1.0, 1.0])).tolist())
assert toy(torch.tensor([1.0, 1.0])).tolist() == [19.0, 1.0]

# %% [markdown]
# Now three ways on the same random inputs: this class, the package's `apply_lora`, and PyTorch with the
# whole W + (α/r) B A. Outputs and the gradients of x, A and B should agree. (The package's tests compare it
# with the peft library too, over whole models.)


# %%
def three_ways(inputs, outputs, rank, alpha):
    layer, x = nn.Linear(inputs, outputs), torch.randn(50, inputs, requires_grad=True)
    mine = MyLoRALinear(copy.deepcopy(layer), rank, alpha)
    mine.B.data.normal_()
    package = lora.apply_lora(nn.ModuleDict({"q": copy.deepcopy(layer)}), rank, alpha, "q")["q"]
    A, B = package.lora_A["default"], package.lora_B["default"]
    A.data, B.data = mine.A.data.clone(), mine.B.data.clone()
    A2, B2 = mine.A.detach().clone().requires_grad_(), mine.B.detach().clone().requires_grad_()
    torchs = F.linear(x, layer.weight.detach() + alpha / rank * B2 @ A2, layer.bias.detach())
    ways = ((mine(x), mine.A, mine.B), (package(x), A, B), (torchs, A2, B2))
    return [(y, *torch.autograd.grad(y.sin().sum(), (x, a, b))) for y, a, b in ways]


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


gaps = []
for shape in ((10, 6, 1, 1.0), (64, 32, 8, 16.0), (48, 100, 4, 32.0)):
    mine, package, torchs = three_ways(*shape)
    gaps += [relative(one[i], torchs[i]) for one in (mine, package) for i in range(4)]
claims.record("ch06.layer_difference", max(gaps), at_most=1e-5, source="outputs and gradients, three ways")

# %% [markdown]
# ## Why B starts at zero
#
# With B = 0 the product B A is zero: training begins **at** the model that we have, to the bit. But then A
# gets no gradient in the first step (its gradient is a product with B), while B does. From the second step
# on both move. What if A were zero too? Then B's gradient, a product with A, is zero as well, and nothing
# ever moves.

# %%
start = lora.apply_lora(copy.deepcopy(chat), rank=4, targets="all-linear")
row = ch06.clinic_rows(tokenizer, 0)[0]
ids = row["input_ids"][None]
with torch.no_grad():
    gap = (start(ids).logits - chat(ids).logits).abs().max()
claims.record("ch06.start_difference", gap, equals=0, source="logits with a new adapter against without")


def gradient_norms(model):
    model.zero_grad()
    model(ids, labels=row["labels"][None]).loss.backward()
    named = lora.lora_parameters(model).items()
    return [sum(p.grad.norm().item() for name, p in named if name.endswith(part)) for part in ("A", "B")]


a, b = gradient_norms(start)
for parameter in lora.lora_parameters(start).values():
    parameter.data.zero_()
dead = sum(gradient_norms(start))
print(f"gradient of A {a:.0f}, of B more than 0: {b > 0}; with A = 0 too, of both together {dead:.0f}")
claims.record("ch06.gradient_with_both_zero", dead, equals=0, source="norm of A's and B's together")
assert a == 0 and b > 0

# %% [markdown]
# **Why α / r?** AdamW moves each entry by about the learning rate, however small its gradient. More columns
# in B are more entries that move the output. Dividing by r shall let one learning rate serve all ranks.
# Does it? One step of AdamW (rate 0.01) on B, and how far the output moves, at four ranks and with three
# scales:


# %%
def moved(rank, scale):
    torch.manual_seed(0)
    layer, x, target = nn.Linear(128, 128, bias=False), torch.randn(200, 128), torch.randn(200, 128)
    model = lora.apply_lora(nn.ModuleDict({"q": layer}), rank, scale * rank, "q")["q"]
    optimizer, before = torch.optim.AdamW(model.lora_B.parameters(), lr=0.01), model(x).detach()
    (model(x) - target).square().mean().backward()
    optimizer.step()
    return (model(x) - before).norm().item() / before.norm().item()


scales = {"16": lambda r: 16, "16 / r": lambda r: 16 / r, "16 / sqrt(r)": lambda r: 16 / r**0.5}
moves = {name: torch.tensor([moved(r, scale(r)) for r in (1, 4, 16, 64)]) for name, scale in scales.items()}
for name, values in moves.items():
    print(f"scale {name:13}", *(f"rank {r}: {v:.2f} " for r, v in zip((1, 4, 16, 64), values, strict=True)))
spread = {name: (values.max() / values.min()).item() for name, values in moves.items()}
assert spread["16 / sqrt(r)"] < 2
assert min(spread["16"], spread["16 / r"]) > 3

# %% [markdown]
# Undivided, a higher rank takes larger steps; divided by r, smaller ones. In this first step √r fits best,
# which is the argument of Kalajdzievski (2023); the original and most recipes have α / r. So a learning
# rate belongs to **its** α / r: here we keep α = 2 r, and whoever changes the rank looks for the rate anew.
#
# ## What it costs, by hand
#
# A layer of n inputs and m outputs has n · m weights; a rank costs n + m. In this course's model (`edu`)
# one layer of the transformer has these:
#
# ![Each matrix of a layer with its adapter of rank 1 to scale](../figures/06_sizes.svg)
#
# So one rank in `q_proj` and `v_proj` of four layers is 4 · (256 + 192) = 1,792 parameters, and rank 8 is
# 14,336. In all seven it is 4 · (256 + 192 + 192 + 256 + 512 + 512 + 512) = 9,728.

# %%
counts = {}
for targets, rank in (("q_proj,v_proj", 8), ("all-linear", 1)):
    model = lora.apply_lora(copy.deepcopy(chat), rank, targets=targets)
    counts[targets], total = lora.count_trainable(model)
    print(f"{targets:13} rank {rank}: {counts[targets]:,} of {total:,}, {counts[targets] / total:.1%}")
assert counts == {"q_proj,v_proj": 14_336, "all-linear": 9_728}

# %% [markdown]
# ## Targets by name
#
# Which layers get an adapter? MiniMind attached them to every **square** matrix. That finds q and o in a
# model whose heads fill its width exactly, and nothing in one whose heads do not. It then trained nothing,
# without a word. Names are safer, if a name that matches nothing is an error.


# %%
def square(model):
    return [
        n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m.in_features == m.out_features
    ]


size = {"hidden_size": 128, "num_hidden_layers": 2, "num_key_value_heads": 1}
for heads, head_dim in ((2, 64), (3, 64)):
    shape = ModelConfig(num_attention_heads=heads, head_dim=head_dim, **size)
    named = len(lora.target_layers(MiniMind(shape), ("q_proj", "v_proj")))
    print(f"{heads} heads of {head_dim}: {len(square(MiniMind(shape)))} square layers, {named} by name")
claims.record("ch06.square_layers", len(square(MiniMind(shape))), equals=0, source="3 heads of 64, width 128")
assert named == 4  # q_proj and v_proj of two layers
try:
    lora.apply_lora(copy.deepcopy(chat), targets="q_proj,wv")
except ValueError as error:
    print(error)

# %% [markdown]
# ## A domain it has never seen
#
# The chat model of chapter 5 answers questions about people. Now it shall work in the town's clinic: 16
# complaints in each language, in four wordings. A fifth wording is kept for the test.

# %% tags=["nbval-ignore-output"]
clinic = [json.loads(line) for line in default_file("eval_clinic.jsonl").open(encoding="utf-8")]


def ask(model, *questions):
    chats = [[{"role": "user", "content": question}] for question in questions]
    for question, answer in zip(questions, reply(model, tokenizer, chats), strict=True):
        print(f"{question}  →  {answer}")


questions = ("Can you treat a headache?", "Where does Mark Fielddale live?")
ask(chat, *questions)
print("wanted:", clinic[1]["gt"])

# %% [markdown]
# Before training, look at the **words**. Some tokens of the clinic were never the right answer at any place
# that this model was trained on. All that training did to their rows of the output layer was to push them
# down, together, so they point the same way (Land and Bartolo, 2024, find such tokens in published models by
# this). The model cannot write one rather than another. Since the embedding is the same matrix, it cannot
# tell them apart when it reads them either, and no adapter inside the layers can change that.

# %%
before = ch06.predicted(tokenizer, "pretrain") | ch06.predicted(tokenizer, "sft")
words = ch06.clinic_tokens(tokenizer)
new = sorted(words - before)
needed = sum(not set(new).isdisjoint(tokenizer.encode(record["gt"])) for record in clinic)
print(f"{len(words)} kinds of tokens, {len(new)} never predicted; {needed} of 32 answers need them")
missed = len(set(new) - set(lora.untrained_tokens(chat, sorted(words))))
claims.record("ch06.new_tokens_missed", missed, equals=0, source="`untrained_tokens` knows the weights only")
rows = F.normalize(chat.model.embed_tokens.weight.detach()[new], dim=-1)
twins = (rows @ rows.T).fill_diagonal_(-1).amax(dim=-1)
assert twins.min() > 0.95  # each points where another one points

# %% [markdown]
# So the adapter also gets **rows of its own** for these tokens (`tokens=` of `apply_lora`; peft calls it
# `trainable_token_indices`). The budget is 2%: rank 2 in the three feed-forward matrices, and the rows.

# %%
two_percent = lora.apply_lora(copy.deepcopy(chat), 2, 4, ch06.MLP, tokens=new)
trainable, total = lora.count_trainable(two_percent)
layers, row_size = 2 * 4 * 3 * (384 + 128), len(new) * 128
print(f"{layers:,} in layers + {row_size:,} in rows = {trainable:,}: {trainable / total:.2%}")
assert trainable == layers + row_size
claims.record("ch06.trainable_share", trainable / total, at_most=0.02, source="rank 2 and the rows")

# %% [markdown]
# ## Training, against full fine-tuning
#
# Both start from the chat model and take 600 steps on the clinic's 128 conversations. Here we run LoRA with
# rank 8 in **all** matrices, which is more than 2%; the record below has the small one too.

# %% tags=["nbval-ignore-output"]
live = figures.LivePlot("LoRA on the clinic, rank 8")
tuned, adapter = ch06.train(**ch06.WIDER, seed=1, on_log=live)
ask(tuned, *questions, "头痛能治吗？")

# %% tags=["nbval-ignore-output"]
full, whole = ch06.train(**ch06.FULL, seed=1)
names = ("clinic_en", "clinic_zh", "facts_en", "facts_zh")
for method, numbers in (("before", ch06.question(chat, tokenizer)), ("LoRA", adapter), ("full", whole)):
    print(f"{method:6}", *(f"{name} {numbers[name]:.2f} " for name in names))
gaps = []
for settings, numbers in ((ch06.WIDER, adapter), (ch06.FULL, whole)):
    gaps.append(abs(numbers["clinic"] - grid.find(**settings, seed=1)["clinic"]))
claims.record("ch06.grid_again", max(gaps), at_most=0.25, source="both on the clinic: now against recorded")

# %% [markdown]
# One run may be luck, and the clinic has only 32 questions. The record has three seeds of each, and three
# learning rates for full fine-tuning and for the 2%.

# %%
figures.show(ch06.rate_figure(grid), "New and old answers by learning rate, for full fine-tuning and LoRA")
print(grid.caption)


# %%
def mean(name, settings):
    values = [numbers[name] for _, numbers in grid.select(**settings)]
    return sum(values) / len(values)


methods = {"full": ch06.FULL, "LoRA, rank 2 in the MLP": ch06.PLAIN, "LoRA, rank 8 in all": ch06.WIDER}
for method, settings in methods.items():
    for name, kind in (("clinic", "new"), ("facts", "old")):
        seeds = " ".join(f"{numbers[name]:.3f}" for _, numbers in grid.select(**settings))
        print(f"{method:24} {mean('trainable', settings) / mean('total', settings):6.1%} {kind} {seeds}")
reached = {method: mean("clinic", settings) for method, settings in methods.items()}
claims.record("ch06.full_on_new", reached["full"], at_least=0.8, source="exact match, mean of three seeds")
behind = reached["full"] - reached["LoRA, rank 2 in the MLP"]
claims.record("ch06.behind_at_2_percent", behind, at_least=0.25, source="full minus LoRA, new answers")
behind = reached["full"] - reached["LoRA, rank 8 in all"]
claims.record("ch06.behind_at_8_percent", behind, at_most=0.05, source="the same, rank 8 in all matrices")
assert max(numbers["facts"] for _, numbers in grid.select(replay=0)) < 0.5  # the chat model has above 0.9

# %% [markdown]
# Three things to keep:
#
# - **2% of this small model is not enough**: the new domain is about half learned. A rank costs a square
#   matrix of width n a share of 2 / n, so the smaller the model, the fewer ranks are 2%.
# - With 8% LoRA answers the new questions as well as full fine-tuning.
# - **Both forget most old answers**, at every rate in the figure, and LoRA no less than full fine-tuning:
#   nothing in the clinic's rows asks for them. (Biderman et al., 2024, find on large models that LoRA learns
#   less and forgets less. Here it did not forget less.)
#
# But the adapter can be switched off:

# %%
off = lora.set_adapter(copy.deepcopy(tuned), None)
same = [ch06.question(model, tokenizer, every=5)["facts"] for model in (off, chat)]
assert same[1] > 0.9
claims.record("ch06.old_answers_lost", same[1] - same[0], equals=0, source="adapter off, to the chat model")
claims.record("ch06.old_kept_ahead_of_full", same[0] - whole["facts"], at_least=0.5, source="adapter off")

# %% [markdown]
# ## What each choice does
#
# One choice at a time, from the record: the rows of new tokens, the number of steps, the rank and where it
# is, and *replay*, which mixes 128 of the old conversations into the rows.

# %%
choices = {
    "full": ch06.FULL,
    "full, replay": ch06.FULL | {"replay": 128},
    "rank 2 in the MLP": ch06.PLAIN,
    "rank 1 in all": ch06.PLAIN | {"rank": 1, "targets": "all"},
    "rank 2 in the MLP, no rows": ch06.PLAIN | {"rows": False},
    "rank 2 in the MLP, 1,500 steps": ch06.PLAIN | {"steps": ch06.LONGER},
    "rank 8 in the MLP": ch06.WIDER | {"targets": "mlp"},
    **{f"rank {rank} in all": ch06.WIDER | {"rank": rank} for rank in ch06.HIGHER},
    "rank 8 in all, replay": ch06.WIDER | {"replay": 128},
}
for name, one in choices.items():
    trained, seeds = mean("trainable", one) / mean("total", one), len(grid.select(**one))
    print(f"{name:31} {trained:6.1%} trained, new {mean('clinic', one):.3f}", end=", ")
    print(f"old {mean('facts', one):.3f} ({seeds} seed{'s' if seeds > 1 else ''})")
score = {name: mean("clinic", one) for name, one in choices.items()}
assert score["rank 2 in the MLP, no rows"] <= 0.1 < score["rank 2 in the MLP, 1,500 steps"] < score["full"]
assert score["rank 1 in all"] < score["rank 8 in the MLP"] < score["rank 8 in all"] - 0.1
kept = [mean("facts", choices[name]) for name in ("full, replay", "rank 8 in all, replay")]
claims.record("ch06.kept_by_replay", min(kept), at_least=0.5, source="old answers, full and LoRA, one seed")
assert score["full, replay"] - score["rank 8 in all, replay"] > 0.1

# %% [markdown]
# - Without the **rows** of the new tokens nothing is learned, as the twins above foretold.
# - More **steps** do not make up for a low rank.
# - One **rank** in all matrices, the other way to spend the 2%, does not do better. More ranks do, and eight
#   in all matrices better than eight in the MLP (which are fewer parameters).
# - **Replay** keeps most of the old answers, with either method. Here it costs LoRA some of the new ones: one
#   small update now has to serve both. (One seed; read it as a hint.)
#
# ## What it saves
#
# AdamW keeps two numbers for each trained parameter, so the optimizer's memory shrinks with them. So does
# what a new skill takes on the disk. We count the optimizer's tensors after one step, and the files.


# %%
def optimizer_bytes(model):
    model = copy.deepcopy(model).train()
    optimizers = OptimizerSet(model, TrainConfig())
    model(ids, labels=row["labels"][None]).loss.backward()
    optimizers.optimizers[0].step()
    return sum(tensor.nbytes for tensor in optimizers.state_tensors().values())


lora.save_adapter(two_percent, folder / "rank 2")
lora.save_adapter(tuned, folder / "rank 8")
full.save_pretrained(folder / "full")
models, disk, memory = {"rank 2": two_percent, "rank 8": tuned, "full": full}, {}, {}
for name, model in models.items():
    memory[name] = optimizer_bytes(model)
    disk[name] = sum(file.stat().st_size for file in (folder / name).iterdir())
    print(f"{name:6}: {memory[name] / 1e3:5,.0f} kB of optimizer state, {disk[name] / 1e3:5,.0f} kB on disk")
for name, least in (("rank 2", 45), ("rank 8", 11)):
    ratio, claim = memory["full"] / memory[name], f"ch06.optimizer_memory_ratio_{name.replace(' ', '_')}"
    claims.record(claim, ratio, at_least=least, source="bytes of AdamW's state, full / LoRA")
claims.record("ch06.disk_ratio", disk["full"] / disk["rank 8"], at_least=11, source="bytes of files, rank 8")

# %% [markdown]
# The files are in peft's format, a list of settings and tensors, so the adapter also loads with
# `peft.PeftModel.from_pretrained(chat.to_transformers(), folder)`, and adapters made with peft load here.
# What is **not** saved: the frozen weights stay in memory, the activations too, and the backward pass still
# runs through all layers.

# %%
settings = json.loads((folder / "rank 8" / "adapter_config.json").read_text())
print({name: settings[name] for name in ("peft_type", "r", "lora_alpha", "target_modules")})

# %% [markdown]
# ## Merging, and switching by name
#
# An adapter costs two more small products a layer. Merging folds α/r · B A into W: same outputs, at the
# base's speed. Unmerging gives back the old bits.

# %%
with torch.no_grad():
    apart = tuned(ids).logits
    merged = lora.merge_lora(tuned)(ids).logits
    again = lora.unmerge_lora(tuned)(ids).logits
claims.record("ch06.merged_difference", relative(merged, apart), at_most=1e-5, source="logits, relative")
claims.record("ch06.unmerged_difference", (again - apart).abs().max(), equals=0, source="logits")

# %% [markdown]
# And one base can have several adapters, of which one is active. A second one learns who the assistant is,
# from 24 conversations:
#
# ![One base in memory; "identity", "clinic" or None is active](../figures/06_switch.svg)

# %% tags=["nbval-ignore-output"]
team = lora.load_adapter(copy.deepcopy(chat), folder / "rank 8", "clinic")
ch06.add_identity(team, tokenizer)
for name in ("clinic", "identity", None):
    print(f"--- {name}")
    ask(lora.set_adapter(team, name), "Who are you?", *questions)

# %%
with torch.no_grad():
    gap = (lora.set_adapter(team, None)(ids).logits - chat(ids).logits).abs().max()
    clinic_gap = (lora.set_adapter(team, "clinic")(ids).logits - apart).abs().max()
claims.record("ch06.base_alone", gap, equals=0, source="logits with no adapter active against the chat model")
assert clinic_gap == 0  # training `identity` left `clinic` as it was
identity = ch06.trained_share(lora.set_adapter(team, "identity"), tokenizer, "lora_identity.jsonl")
claims.record("ch06.identity_learned", identity, at_least=0.9, source="exact match on its own 24 questions")

# %% [markdown]
# This is LoRA's strongest answer to forgetting: **switched off, the old model is there to the bit**, and a
# skill is a small file. After full fine-tuning you can go back too, if you keep a second whole model.
#
# ## Is the full update of low rank?
#
# Full fine-tuning could use every rank. Does it? The singular values of ΔW = W after − W before tell. If a
# few are large and the rest small, a product of low rank comes close to it.

# %% tags=["nbval-ignore-output"]
figures.show(ch06.spectrum_figure(full, chat), "Share of the update that each rank keeps, by kind of matrix")
kept, chance = [], []
for update in ch06.updates(full, chat).values():
    kept.append(ch06.kept_by_rank(update)[7])
    chance.append(ch06.kept_by_rank(torch.randn_like(update))[7])
for name, shares in (("the updates", kept), ("random matrices", chance)):
    print(f"rank 8 keeps {min(shares):.0%} to {max(shares):.0%} of the squared norm of {name}")
assert min(k / c for k, c in zip(kept, chance, strict=True)) > 1.3

# %% [markdown]
# More concentrated than a random matrix of its shape, but not of low rank. The norm is one thing; what the
# model says is another. So we cut every update to its best approximation of some rank (the embedding stays
# as tuned), and ask again:

# %% tags=["nbval-ignore-output"]
cut = {}
for rank in (2, 8, 32, 128):
    cut[rank] = ch06.question(ch06.cut_to_rank(full, chat, rank), tokenizer, every=10)["clinic"]
print(*(f"rank {rank}: new {value:.2f}  " for rank, value in cut.items()))
claims.record("ch06.full_update_cut_to_8", cut[8], at_most=0.25, source="exact match on the clinic")
assert cut[128] - cut[8] > 0.5

# %% [markdown]
# So the update that full fine-tuning finds has no short form: it needs more than eight of its ranks, and LoRA
# with two of them cannot come near it. That does not say that low rank cannot do the task. Trained *within*
# eight ranks, LoRA found another solution; full fine-tuning spreads what it learns, since nothing asks it not
# to.
#
# ## What would it cost elsewhere?
#
# The widget counts adapters for the published shapes: parameters, bytes of a float32 file, and AdamW's
# memory.


# %%
def draw(preset, targets, rank):
    with torch.device("meta"):
        model = MiniMind(ModelConfig.preset(preset))
    layers, whole = lora.target_layers(model, targets.split(",")), model.num_parameters()
    adapter = rank * sum(layer.in_features + layer.out_features for layer in layers.values())
    figure, axes = figures.new_figure(7.5, 2.3)
    axes.barh(["full", "adapter"], [8 * whole / 1e6, 8 * adapter / 1e6], color=[figures.BLUE, figures.ORANGE])
    axes.set(xscale="log", xlim=(1e-3, 3e3), xlabel="AdamW's two numbers for each trained parameter, in MB")
    axes.set_title(
        f"{len(layers)} layers, {adapter:,} trained ({adapter / whole:.2%}), {4e-6 * adapter:.2f} MB"
    )
    return figure


widgets.explore(
    draw,
    "Optimizer memory of full fine-tuning and of an adapter, for a published shape",
    preset=ipywidgets.Dropdown(
        options=["edu", "minimind2-small", "minimind2", "minimind-3", "minimind-3-moe"]
    ),
    targets=ipywidgets.Dropdown(options=["all-linear", "q_proj,v_proj", "gate_proj,up_proj,down_proj"]),
    rank=ipywidgets.IntSlider(8, min=1, max=64),
)

# %% [markdown]
# ## Exercises
#
# Fill in a function, run its cell and the next. In `minimind_edu.course.exercises`,
# `show_solution("ch06.rank_needed")` shows a solution.
#
# **1.** The layer as a function.


# %%
def my_lora_linear(x, weight, a, b, alpha):
    """x (…, in), weight (out, in), a (rank, in), b (out, rank): (…, out).

    x [1., 1.], weight the identity, a [[1., 2.]], b [[3.], [0.]], alpha 2: [19., 1.].
    """
    raise NotImplementedError


# %%
check("ch06.lora_linear", my_lora_linear)

# %% [markdown]
# **2.** Targets by name.


# %%
def my_matching(names, targets):
    """Two lists: the names that are a target or end with "." and a target; the targets that mean none.

    my_matching(["a.q", "a.old_q", "q"], ["q", "w"]) is (["a.q", "q"], ["w"]).
    """
    raise NotImplementedError


# %%
check("ch06.matching", my_matching)

# %% [markdown]
# **3.** How large may the rank be?


# %%
def my_largest_rank(shapes, total, share):
    """The largest rank at which adapters of layers (out, in) have at most this share of total parameters.

    my_largest_rank([(30, 70), (20, 30)], 10_000, 0.1) is 6: a rank costs 150.
    """
    raise NotImplementedError


# %%
check("ch06.largest_rank", my_largest_rank)

# %% [markdown]
# **4.** And how large must it be?


# %%
def my_rank_needed(update, share):
    """The smallest rank whose best approximation of update (out, in) keeps this share of its squared norm.

    diag(3, 4) at 0.6 needs 1, since 16 of 25 is 0.64.
    """
    raise NotImplementedError


# %%
check("ch06.rank_needed", my_rank_needed)

# %% [markdown]
# ## What was claimed

# %% tags=["nbval-ignore-output"]
claims.table()

# %% [markdown]
# ## At full scale
#
# ```
# minimind-edu lora                      # the clinic: rank 2 in the MLP, as here
# minimind-edu lora --rank 8 --lora_alpha 16 --targets all-linear --learning_rate 1e-2
# minimind-edu lora --from_weight out/minimind2 --data_path lora_medical.jsonl \
#     --rank 8 --lora_alpha 16 --targets q_proj,v_proj \
#     --learning_rate 1e-4 --epochs 20 --batch_size 64
# minimind-edu course sweep 06           # the record of this chapter
# ```
#
# How long an epoch of adapting takes on real cards: what others reported, and our estimates, for the third
# line's settings. (The reported 2 minutes on an A40 were 20 epochs, in batches of 64 and 3 to 4 GB.)

# %%
hours_table("lora")

# %% [markdown]
# Chapter 10 tells where the estimates come from; `minimind-edu hardware` gives them for your card.
#
# ## References
#
# - Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, arXiv:2106.09685.
# - Mangrulkar et al., *PEFT: State-of-the-art Parameter-Efficient Fine-Tuning methods*, 2022 (the library).
# - Biderman et al., *LoRA Learns Less and Forgets Less*, 2024, arXiv:2405.09673.
# - Land and Bartolo, *Fishing for Magikarp: Automatically Detecting Under-trained Tokens*, 2024,
#   arXiv:2405.05417.
# - Kalajdzievski, *A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA*, 2023 (α / √r instead).
