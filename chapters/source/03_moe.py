# %% [markdown]
# # 3. Mixture of experts
#
# Python, English. Less than five minutes on two CPU cores, without a network.
#
# | | |
# | --- | --- |
# | goal | route tokens to experts, keep the experts busy, and know what experts buy and what they do not |
# | needs | the feed-forward layer of chapter 2; PyTorch's autograd |
# | time, memory | less than 300 seconds on two cores, less than 2 GB |
# | **the number you will reach** | **half** of what 4 times the feed-forward parameters gain, or more |
#
# ![Map of the course: you are at chapter 3, experts](../figures/map_03.svg)

# %%
import time
import warnings

import ipywidgets
import torch
import torch.nn.functional as F

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.course import artifacts, claims, figures, session, sweeps, widgets
from minimind_edu.course.exercises import check
from minimind_edu.course.sweeps import ch03
from minimind_edu.generation import generate
from minimind_edu.model.moe import MoEFeedForward
from minimind_edu.stages.pretrain import causal_lm_loss

session.start()
torch.set_printoptions(precision=3, sci_mode=False)
record = sweeps.load("03")
print(record.caption)

# %% [markdown]
# ## More parameters, the same work
#
# In a dense model every token passes every matrix of every layer. So more parameters always cost more work. A
# mixture of experts parts the two: a layer has several feed-forward networks, the *experts*, and a small
# *router* sends each token to the `k` of them that suit it best. The other experts rest. (Shazeer et al.,
# 2017)
#
# ![Bars of feed-forward widths: experts store 256 units, one token uses 64](../figures/03_sizes.svg)
#
# MiniMind-3's mixture on paper. Hidden size 768, 8 layers, heads of 96 (8 for queries, 4 for keys, 4 for
# values), 4 experts of width 2,432, of which a token visits one:

# %%
embedding, norms = 6400 * 768, 2 * 768 + 2 * 96
attention = 768 * 96 * (8 + 4 + 4 + 8)  # queries, keys, values, output
expert, router = 3 * 768 * 2432, 4 * 768
total = embedding + 8 * (attention + norms + router + 4 * expert) + 768
active = embedding + 8 * (attention + norms + router + 1 * expert) + 768
print(f"total {total:,}, active {active:,}")

# %% [markdown]
# The package counts the same. On PyTorch's `meta` device a model has shapes but no numbers, so it costs no
# memory.

# %%
for name in ("minimind-3", "minimind-3-moe", "minimind2-moe"):
    with torch.device("meta"):
        model = MiniMind(ModelConfig.preset(name))
    counts = model.num_parameters(), model.num_parameters(active=True)
    print(f"{name:15s} total {counts[0] / 1e6:8.3f}M, active {counts[1] / 1e6:7.3f}M")
    if name == "minimind-3-moe":
        claims.record("ch03.minimind3_moe_total", counts[0], equals=total, source="model against paper")
        claims.record("ch03.minimind3_moe_active", counts[1], equals=active, source="model against paper")
claims.record("ch03.minimind2_moe_millions", round(counts[0] / 1e6, 3), equals=145.030, source="published")
claims.record(
    "ch03.minimind2_moe_active", round(counts[1] / 1e6, 3), equals=91.946, source="millions, shared too"
)

# %% [markdown]
# A token in minimind-3-moe meets about as many parameters as one in the dense minimind-3, but the model holds
# three times as many.
#
# ## A router by hand
#
# Four tokens, each one number: 7, 14, 21, 28. Three experts that multiply by 1, 10 and 100. The router gives
# a score (logit) for each expert. We choose logarithms of whole numbers, so that the softmax is a row of
# eighths.
#
# ![The first token goes to experts 0 and 1, weights 4/7 and 3/7; expert 2 rests](../figures/03_router.svg)

# %%
x = torch.tensor([[7.0], [14.0], [21.0], [28.0]])
experts = [lambda x: x, lambda x: 10 * x, lambda x: 100 * x]
logits = torch.tensor([[4.0, 3, 1], [1, 2, 5], [2, 5, 1], [3, 1, 4]]).log()
probabilities = logits.softmax(dim=-1)
print(probabilities * 8)

# %% [markdown]
# Each token keeps its `k = 2` most probable experts. Their probabilities are divided by their sum, 7/8 for
# all four tokens, so that the weights of a token sum to 1. The output is the weighted sum: for the first
# token 4/7 · 7 + 3/7 · 70 = 4 + 30 = **34**.

# %%
k = 2
weights, chosen = probabilities.topk(k, dim=-1)
weights = weights / weights.sum(dim=-1, keepdim=True)
print(chosen)
print(weights * 7)

# %% [markdown]
# The plain way runs every expert on every token and multiplies by a weight of 0 where the expert was not
# chosen. Right, but it saves no work.

# %%
table = torch.zeros(4, 3).scatter(1, chosen, weights)  # (tokens, experts)
every = torch.stack([expert(x) for expert in experts], dim=1)  # (tokens, experts, 1)
reference = (table[:, :, None] * every).sum(dim=1)
print(reference.flatten())

# %% [markdown]
# To save it, each expert *gathers* its own tokens and adds its answers to their rows. `index_add` adds whole
# rows and also counts an index that occurs twice. `scatter_add` does the same with an index for every single
# number.

# %%
by_rows, by_numbers = torch.zeros(4, 1), torch.zeros(4, 1)
for number, expert in enumerate(experts):
    token, place = (chosen == number).nonzero(as_tuple=True)
    answer = expert(x[token]) * weights[token, place, None]
    by_rows.index_add_(0, token, answer)
    by_numbers.scatter_add_(0, token[:, None].expand_as(answer), answer)
    print(f"expert {number} ran on tokens {token.tolist()}")
assert torch.allclose(by_rows, reference) and torch.allclose(by_numbers, reference)

# %% [markdown]
# ## Dispatch by sorting
#
# Searching for each expert's tokens goes over all choices once per expert. One sort does it for all: write
# down the (token, expert) pairs, sort them by expert, and cut the list into one block for each.
#
# ![Eight token-expert pairs, sorted by expert into blocks of 3, 3 and 2 rows](../figures/03_dispatch.svg)

# %%
order = chosen.flatten().argsort(stable=True)  # pair numbers; pair p belongs to token p // k
print("experts, sorted:", chosen.flatten()[order].tolist())
print("their tokens:   ", (order // k).tolist())
print("rows an expert: ", chosen.flatten().bincount(minlength=3).tolist())

# %% [markdown]
# That is the whole layer. (`shared` has its section below.)


# %%
def moe(x, gate, experts, k, normalise=True, shared=()):
    """Tokens (N, C) to (N, C): route, sort by expert, run each expert once, add up."""
    weights, chosen = gate(x).softmax(dim=-1).topk(k, dim=-1)
    if normalise:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    order = chosen.flatten().argsort(stable=True)
    token = order // k
    blocks = x[token].split(chosen.flatten().bincount(minlength=len(experts)).tolist())
    answers = torch.cat([expert(block) for expert, block in zip(experts, blocks, strict=True)])
    answers = answers * weights.flatten()[order, None]
    return torch.zeros_like(x).index_add(0, token, answers) + sum(expert(x) for expert in shared)


print(moe(x, lambda x: logits, experts, k=2).flatten())

# %% [markdown]
# Now with real experts: the package's layer with six SwiGLU experts, and the same layer inside a Qwen3-MoE of
# the `transformers` library, on the same random tokens.

# %%
config = ModelConfig(
    hidden_size=32, num_hidden_layers=1, use_moe=True, num_experts=6, moe_intermediate_size=16
)
model = MiniMind(config)
layer = model.model.layers[0].mlp
torch.nn.init.normal_(layer.gate.weight, std=0.5)
theirs = model.to_transformers().model.layers[0].mlp

tokens = torch.randn(1, 50, 32, requires_grad=True)
outputs = [
    moe(tokens[0], layer.gate, layer.experts, k=2)[None],
    layer(tokens)[0],
    theirs(tokens),
]
scale = float(outputs[2].detach().abs().max())
worst = max(float((output - outputs[2]).detach().abs().max()) for output in outputs[:2]) / scale
claims.record("ch03.layer_difference", worst, at_most=1e-4, source="notebook, package and transformers")
print("the three layers agree:", worst < 1e-4)

# %% [markdown]
# The gradients must agree too, those of the tokens and of the router: a layer can be right forwards and teach
# nothing.

# %%
direction = torch.randn_like(tokens)
gates = [layer.gate.weight, layer.gate.weight, theirs.gate.weight]
gradients = [
    torch.autograd.grad((output * direction).sum(), [tokens, gate])
    for output, gate in zip(outputs, gates, strict=True)
]
worst = max(
    float((a - b).abs().max() / b.abs().max())
    for ours in gradients[:2]
    for a, b in zip(ours, gradients[2], strict=True)
)
claims.record("ch03.gradient_difference", worst, at_most=1e-4, source="tokens and router, all three layers")
print("their gradients agree:", worst < 1e-4)

# %% [markdown]
# And the work? Hooks count the rows that the package's experts see. With 50 tokens and 2 of 6 experts it
# should be 100, not 300.

# %%
rows = []
for expert in layer.experts:
    expert.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
layer(tokens)
print(f"{len(rows)} calls, {sum(rows)} rows")
claims.record("ch03.work_share", sum(rows) / (6 * 50), equals=2 / 6, source="rows that experts saw")

# %% [markdown]
# ### Shared experts
#
# Some knowledge serves every token: grammar, say. If experts have it, each must learn it anew. DeepSeekMoE
# sets some experts aside that every token visits, with weight 1 and without a router. The output is a plain
# sum.

# %%
both = MoEFeedForward(config.replace(num_shared_experts=2, num_experts_per_tok=1))
ours = moe(tokens[0], both.gate, both.experts, k=1, normalise=False, shared=both.shared_experts)
worst = float((both(tokens)[0][0] - ours).detach().abs().max() / ours.detach().abs().max())
claims.record("ch03.shared_difference", worst, at_most=1e-4, source="package against the plain sum")
print("two shared experts are a plain sum:", worst < 1e-4)

# %% [markdown]
# ## Balance
#
# Nothing so far keeps the router from sending everything to one expert. The habit feeds itself: an expert
# that is chosen is trained, gets better, and is chosen more. Idle experts are wasted memory, and where each
# expert has a device of its own, all wait for the busiest. (The Switch Transformer gives experts a capacity
# and drops the tokens above it. MiniMind drops none, and neither do we.) The remedy is a second loss. For N
# tokens and E experts let $f_e$ be the number of tokens that chose expert $e$, divided by N, and $P_e$ its
# mean probability:
#
# $$L = E \sum_e f_e P_e$$
#
# - **Gradient.** A count does not change with a small change of the router, so $f_e$ is a constant, and
#   $\partial L / \partial P_e = E f_e$. Probability has a price: the load of the expert it goes to. Training
#   moves it from the busy to the idle.
# - **Size.** In balance $f_e = k/E$ and $P_e = 1/E$, hence $L = k$. If choices follow probabilities, $f_e = k
#   P_e$, then $L = kE \sum_e P_e^2 \ge k\,(\sum_e P_e)^2 = k$ by Cauchy and Schwarz, with equality only in
#   balance. With everything on one expert, $k = 1$ gives $L = E$.


# %%
def balance(probabilities, chosen, sequences=1):
    """E * sum of f_e * P_e, within each sequence, then the mean over the sequences."""
    experts = probabilities.shape[-1]
    picked = F.one_hot(chosen, experts).sum(dim=1).float()
    f = picked.view(sequences, -1, experts).mean(dim=1)
    p = probabilities.view(sequences, -1, experts).mean(dim=1)
    return experts * (f * p).sum(dim=-1).mean()


print(f"our four tokens: {balance(probabilities, chosen):.4f}")
print(f"in balance:      {balance(torch.full((4, 2), 0.5), torch.tensor([[0], [1], [0], [1]])):.4f}")

# %% [markdown]
# By hand for our tokens: each expert was chosen by 3, 3 and 2 of 4 tokens, and the mean probabilities are
# 10/32, 11/32 and 11/32. So L = 3 · (3·10 + 3·11 + 2·11) / (4·32) = 255/128, a hair under k = 2.
#
# Under? The bound needs choices that follow probabilities. Let three tokens lean a little towards expert 0
# (0.51 against 0.49) and one strongly towards expert 1 (0.01 against 0.99). Then f = (3/4, 1/4), P = (0.385,
# 0.615) and L = 0.885 < 1. The loss is a guide, not a measure of balance.

# %%
leaning = torch.tensor([[0.51, 0.49]] * 3 + [[0.01, 0.99]])
below = float(balance(leaning, leaning.topk(1).indices))
claims.record("ch03.balance_below_k", below, at_least=0.884, at_most=0.886, source="four tokens, by hand")
print(f"{below:.3f}")

# %% [markdown]
# ### Two forms
#
# MiniMind-3 takes this loss over the whole **batch** (as in the Switch Transformer). MiniMind2 takes it
# within each **sequence**, divides by k, and averages over the sequences (as in DeepSeek-V2), so balance is
# worth 1. The difference shows where each sequence has a favourite of its own, as a Chinese and an English
# text may:

# %%
favourites = torch.tensor([0] * 8 + [1] * 8)  # two sequences of eight tokens
sure = F.one_hot(favourites, 2).float()
batch_form = balance(sure, favourites[:, None])
sequence_form = balance(sure, favourites[:, None], sequences=2)
print(f"batch form {batch_form:.1f}, sequence form {sequence_form:.1f}")

# %% [markdown]
# Over the batch the load is even: 1, nothing to correct. Within each sequence it could not be worse: 2. The
# batch form lets experts specialise by text; the sequence form charges for it. (We train with the batch form
# only.) The plot goes from balance to
# collapse, for four experts and top-1, with choices that follow probabilities.

# %%
share = torch.linspace(0.25, 1, 50)  # of the favourite expert of a sequence
loads = torch.stack([share, *[(1 - share) / 3] * 3])  # (experts, 50)
one_favourite = 4 * (loads**2).sum(dim=0)
own_favourites = 4 * (loads.mean(dim=0).expand(4, -1) ** 2).sum(dim=0)  # each in turn: 1/4 for every expert
figure, axes = figures.new_figure(7.5, 3.2)
axes.plot(share, one_favourite, color=figures.BLUE, label="batch form, all sequences favour the same expert")
axes.plot(share, one_favourite, "--", color=figures.ORANGE, label="sequence form, in both cases")
axes.plot(share, own_favourites, color=figures.GREEN, label="batch form, four sequences favour one each")
axes.set(xlabel="share of a sequence's favourite expert", ylabel="balance loss (top-1)")
axes.legend()
figures.show(figure, "Balance losses by the favourite's share: from 1 to 4, but 1 for the batch form where "
             "each sequence has its own favourite")  # fmt: skip

# %% [markdown]
# The package's layer returns its balance loss, times its coefficient, beside its output; a model adds up its
# layers', and training adds that to the language-model loss. Both forms must equal ours. Padding must not
# count: here the five sequences have 10, 6, 3, 9 and 1 tokens.

# %%
batch, lengths, worst = tokens.view(5, 10, 32), (10, 6, 3, 9, 1), 0.0
is_token = torch.arange(10) < torch.tensor(lengths)[:, None]
for per_sequence in (False, True):
    other = MoEFeedForward(config.replace(seq_aux=per_sequence, router_aux_loss_coef=0.1))
    torch.nn.init.normal_(other.gate.weight, std=0.5)
    rows = [batch[i, :n] for i, n in enumerate(lengths)] if per_sequence else [batch[is_token]]
    p = [other.gate(row).softmax(dim=-1) for row in rows]
    ours = sum(balance(one, one.topk(2).indices) for one in p) / len(p) / (2 if per_sequence else 1)
    worst = max(worst, float((0.1 * ours - other(batch, is_token)[1]).detach().abs()))
claims.record("ch03.balance_difference", worst, at_most=1e-5, source="both forms, with and without padding")
print("both forms agree with the package:", worst < 1e-5)
whole, layers = MiniMind(config.replace(num_hidden_layers=2, router_aux_loss_coef=0.1)).train(), []
for block in whole.model.layers:
    block.mlp.register_forward_hook(lambda _, __, result: layers.append(float(result[1].detach())))
ids = torch.randint(0, 200, (3, 9))
loss, parts = causal_lm_loss(whole, {"input_ids": ids, "labels": ids, "document_ids": torch.zeros_like(ids)})
added = float((loss - parts["cross_entropy"]).detach())
claims.record(
    "ch03.training_adds_all_layers", abs(added - sum(layers)), at_most=1e-5, source="causal_lm_loss"
)

# %% [markdown]
# The gradient that we derived, carried through the softmax, is $\partial L/\partial z_{te} = \frac{E}{N}\,
# p_{te}\,(f_e - \sum_j p_{tj} f_j)$ for the logit $z_{te}$ of token $t$: positive, so trained downwards,
# where expert $e$ is busier than what token $t$ expects.

# %%
other = MoEFeedForward(config.replace(router_aux_loss_coef=1.0))
torch.nn.init.normal_(other.gate.weight, std=0.5)
p = other.gate(tokens[0]).softmax(dim=-1).detach()
f = F.one_hot(p.topk(2).indices, 6).sum(dim=1).float().mean(dim=0)
by_formula = (6 / 50 * p * (f - (p @ f)[:, None])).T @ tokens[0].detach()
(by_autograd,) = torch.autograd.grad(other(tokens)[1], [other.gate.weight])
worst = float((by_formula - by_autograd).abs().max() / by_autograd.abs().max())
claims.record("ch03.balance_gradient_difference", worst, at_most=1e-3, source="formula against autograd")
print("the formula is autograd's gradient:", worst < 1e-3)

# %% [markdown]
# ## The dead router
#
# MiniMind-3's mixture is published with one expert a token *and* normalised weights. The one weight is
# divided by itself. It is always 1, whatever the router says.
#
# ![Normalised, w over w is 1 and no gradient reaches the router; else it does](../figures/03_dead_router.svg)
#
# So the language-model loss sends the router no gradient. Only the balance loss still trains it: to be even,
# not to be right. We measure the largest entry of it, without any
# balance loss.


# %%
def router_gradient(k, normalise):
    torch.manual_seed(0)
    shape = {"num_experts_per_tok": k, "norm_topk_prob": normalise, "use_moe": True}
    model = MiniMind(ModelConfig(vocab_size=200, hidden_size=64, **shape))
    ids = torch.randint(0, 200, (4, 64))
    model(ids, labels=ids).loss.backward()
    return max(float(block.mlp.gate.weight.grad.abs().max()) for block in model.model.layers)


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    dead = router_gradient(1, normalise=True)
print("the model warns:", next(w.message for w in caught if "norm_topk_prob" in str(w.message)))

# %% [markdown]
# Two cures. Leave the weight as it is: then an expert that helps wants more weight. Or visit two experts:
# then weights compete although they sum to 1.

# %%
unnormalised, two = router_gradient(1, normalise=False), router_gradient(2, normalise=True)
claims.record("ch03.dead_router_gradient", dead, at_most=1e-7, source="top-1, normalised")
claims.record("ch03.live_router_gradient", unnormalised, at_least=1e-4, source="top-1, not normalised")
claims.record("ch03.top2_router_gradient", two, at_least=1e-4, source="top-2, normalised")
print("more than 1,000 times larger:", min(unnormalised, two) > 1000 * dead)

# %% [markdown]
# What is left of the dead gradient is rounding. The package's default is the form that learns; the other
# remains for published weights.
#
# What does it cost? The recorded runs train four experts of width 64, both ways, with the balance loss off.
# "Bits" is the mutual information between a token's class (English in lower case, capitalised, Chinese,
# digits, punctuation) and its expert, on training text: 0 where class says nothing about expert, at most 2
# for four experts. (A random matrix still tells some classes apart.)

# %%
print(f"{'':4}{'loss / floor':>20}{'bits':>22}\n{'seed':4}{'dead':>12}{'live':>8}{'dead':>14}{'live':>8}")
gaps, factors, excess = [], [], []
for seed in ch03.SEEDS:
    dead = record.find(model="dead router", seed=seed)
    live = record.find(model="4 experts, top-1", coef=0.0, seed=seed)
    gaps.append(dead["ratio"] - live["ratio"])
    factors.append(live["bits"] / dead["bits"])
    excess.append(dead["ratio"] - record.find(model="dense, active", seed=seed)["ratio"])
    print(f"{seed:4}{dead['ratio']:12.3f}{live['ratio']:8.3f}{dead['bits']:14.2f}{live['bits']:8.2f}")
claims.record("ch03.dead_router_costs", min(gaps), at_least=0.04, source="loss/floor, least of three seeds")
claims.record(
    "ch03.live_router_bits", min(factors), at_least=2, source="live over dead, least of three seeds"
)
claims.record("ch03.dead_worse_than_dense", min(excess), at_least=0, source="loss/floor, dense of equal work")

# %% [markdown]
# In every seed the dead router ends above even one dense network of width 64, which does the same work with a
# quarter of these feed-forward parameters. Our reading: a random matrix that no loss improves deals the
# tokens out, so each expert must learn nearly everything, from about a quarter of the text.
#
# ## Experts against dense models
#
# All with hidden size 64 and 2 layers, on the same 614,400 tokens of the small world. "Dense, active" does
# the work of the experts that a token visits. "Dense, total" has all the parameters and does all the work. We
# train one cell of the grid now. First what it writes untrained:

# %% tags=["nbval-ignore-output"]
tokenizer = artifacts.tokenizer()
trained = ch03.build("4 experts, top-1", ch03.DEFAULT, 2, tokenizer)
prompts = ["The pet of Roger Marshwood is a", "吕建兰是一名"]
ids = [tokenizer.encode(prompt) for prompt in prompts]


def write(model):
    for row in generate(model, ids, max_new_tokens=30, eos_token_id=tokenizer.eos_token_id):
        print(tokenizer.decode(row, skip_special_tokens=True))


write(trained.eval())

# %% tags=["nbval-ignore-output"]
live_plot = figures.LivePlot("4 experts, top-1", record.cells[0][1]["floor"])
trained, numbers = ch03.train("4 experts, top-1", ch03.DEFAULT, seed=2, on_log=live_plot)
print(f"held-out loss / floor: {numbers['ratio']:.2f}")
write(trained)

# %% [markdown]
# The dense model of the same work, another cell of the grid, and the record of both:

# %% tags=["nbval-ignore-output"]
dense = sweeps.run_cell("03", model="dense, active", coef=0.0, seed=2)
recorded = [record.find(model="4 experts, top-1", coef=ch03.DEFAULT, seed=2)]
recorded.append(record.find(model="dense, active", seed=2))
agreement = max(abs(a["ratio"] / b["ratio"] - 1) for a, b in zip([numbers, dense], recorded, strict=True))
print(f"loss/floor: experts {numbers['ratio']:.3f}, dense {dense['ratio']:.3f}, off by {agreement:.1%}")
claims.record("ch03.live_agrees", agreement, at_most=0.04, source="two live cells against the record")
claims.record(
    "ch03.live_gain", dense["ratio"] - numbers["ratio"], at_least=0, source="loss/floor, two live runs"
)

# %% [markdown]
# The whole grid, three seeds of the initial weights each, and their means as strokes:

# %%
names = [name for name in ch03.MODELS if name != "dead router"]
ratios = {}
figure, axes = figures.new_figure(7.5, 3.2)
for place, name in enumerate(names):
    coef = ch03.DEFAULT if "experts" in name else 0.0
    runs = [numbers for _, numbers in record.select(model=name, coef=coef)]
    ratios[name] = torch.tensor([run["ratio"] for run in runs])
    sizes = f"total {runs[0]['total']:,}, active {runs[0]['active']:,}"
    print(f"{name:27s} {sizes}: {ratios[name].mean():.3f}")
    axes.plot(ratios[name], [place] * 3, "o", color=figures.ORANGE if "experts" in name else figures.BLUE)
    axes.plot(ratios[name].mean(), place, "|", color=figures.INK, markersize=20)
axes.axvline(1, color=figures.GREEN, linestyle="--", label="floor")
axes.set(yticks=range(len(names)), yticklabels=names, xlabel="held-out loss / floor")
axes.invert_yaxis()
axes.legend()
figures.show(figure, "Loss over floor of five models: three seeds each, and their means")

# %% [markdown]
# Both mixtures without a shared expert beat the dense model of the same work in every seed. Against the dense
# model of the same size three seeds do not decide: in the mean it leads, but in two of the seeds a mixture
# beats it.

# %%
small, large = ratios["dense, active"], ratios["dense, total"]
mixtures = torch.stack([ratios["4 experts, top-1"], ratios["8 experts, top-2"]])
assert (mixtures < small).all()
gain = (small.mean() - mixtures.mean(dim=1)).min()
closed = (small.mean() - mixtures.mean(dim=1)) / (small.mean() - large.mean())
claims.record("ch03.gain_at_equal_work", gain, at_least=0.02, source="loss/floor, mean of three seeds")
claims.record("ch03.gap_closed", closed.min(), at_least=0.5, source="means of three seeds")
assert closed.max() < 1 and int((mixtures.amin(dim=0) < large).sum()) == 2
print("share of the gap between the dense models that is closed:", [f"{one:.1f}" for one in closed.tolist()])

# %% [markdown]
# One shared expert that takes half of the active width does not help here (its routed weight is not
# normalised either): in the mean it is the last of the mixtures. But in seed 3 it is the first. With one
# seed, such a comparison is a coin toss.

# %%
shared = ratios["7 experts, top-1, 1 shared"].mean()
lag = shared - mixtures.mean(dim=1).max()
claims.record("ch03.shared_lags", lag, at_least=0, source="loss/floor, means of three seeds")
third = {name: round(float(ratios[name][2]), 3) for name in names if "experts" in name}
print("seed 3:", third)
assert min(third, key=third.get) == "7 experts, top-1, 1 shared"

# %% [markdown]
# Memory and time are the price. All experts must lie in memory, and several small matrix products can cost
# more than one large one of the same work. How much more depends on the machine; we let the two models take
# turns.

# %% tags=["nbval-ignore-output"]
small_model = ch03.build("dense, active", 0.0, 1, tokenizer)
seconds = {trained: [], small_model: []}
ids = torch.randint(0, tokenizer.vocab_size, (16, 128))
for _ in range(10):
    for one, times in seconds.items():
        one.to("cpu").train()
        started = time.perf_counter()
        one(ids, labels=ids).loss.backward()
        times.append(time.perf_counter() - started)
moe_time, dense_time = (sorted(times)[5] for times in seconds.values())
print(f"forward and backward: {moe_time / dense_time:.1f} times as long as the dense model")

# %% [markdown]
# ## The weight of the balance loss
#
# Four experts, top-1, seed 1, five coefficients, then the busiest for 0 and 0.1 in all three seeds. "Busiest"
# is the load of a layer's busiest expert over the mean load: 1 is balance, 4 is collapse.

# %%
print(" coef   busiest   bits   loss/floor")
for coef in ch03.COEFS:
    run = record.find(model="4 experts, top-1", coef=coef, seed=1)
    print(f"{coef:5g} {run['busiest']:9.2f} {run['bits']:6.2f} {run['ratio']:12.3f}")

top1 = [cell for cell in record.cells if cell[0]["model"] == "4 experts, top-1"]
busy = {c: [run["busiest"] for one, run in top1 if one["coef"] == c] for c in (0.0, 0.1)}
print({coef: [f"{one:.2f}" for one in values] for coef, values in busy.items()})
claims.record("ch03.busiest_without", min(busy[0.0]), at_least=1.5, source="coefficient 0, three seeds")
claims.record("ch03.busiest_with", max(busy[0.1]), at_most=1.25, source="coefficient 0.1, three seeds")
find = record.find
lower = [
    find(model="4 experts, top-1", coef=0.0, seed=seed)["ratio"]
    - find(model="4 experts, top-1", coef=0.1, seed=seed)["ratio"]
    for seed in ch03.SEEDS
]
claims.record(
    "ch03.balance_lowers_loss", min(lower), at_least=0, source="coefficient 0 minus 0.1, three seeds"
)
excess = (
    find(model="4 experts, top-1", coef=1.0, seed=1)["ratio"] - find(model="dense, active", seed=1)["ratio"]
)
claims.record("ch03.too_much_balance", excess, at_least=0.02, source="coefficient 1 over dense, loss/floor")

# %% [markdown]
# A coefficient of 0.1 evens out the load, and the loss is lower than with 0 in all three seeds. (Without it,
# none of our small runs collapses.) With 1 the balance loss drowns the language model's: the load is nearly
# even, but the bits are mostly gone, and a small dense model does better.
#
# Which tokens does an expert get? Move the weight: experts even out, and yet each keeps a taste of its own.
# Every token class counts as a share of the layer's tokens; the dashed line is balance.


# %%
def draw(weight, layer):
    load = torch.tensor(record.find(model="4 experts, top-1", coef=weight, seed=1)["load"])[layer - 1]
    load = load / load.sum()
    figure, axes = figures.new_figure(7.5, 3.2)
    bottom = torch.zeros(4)
    for name, shares in zip(ch03.CLASSES, load, strict=True):
        axes.bar(range(4), shares, bottom=bottom, label=name)
        bottom = bottom + shares
    axes.axhline(0.25, color=figures.INK, linestyle="--")
    axes.set(xticks=range(4), xlabel="expert", ylabel="share of tokens", ylim=(0, 1))
    axes.set_title(f"balance weight {weight:g}, layer {layer}")
    axes.legend(fontsize=8)
    return figure


weight = ipywidgets.SelectionSlider(options=ch03.COEFS, value=0.0, description="weight")
layer_slider = ipywidgets.IntSlider(1, 1, 2, description="layer")
widgets.explore(draw, "Share of tokens by expert, stacked by token class", weight=weight, layer=layer_slider)

# %% [markdown]
# ## Exercises
#
# `check` tries your function on random inputs. `show_solution("ch03.combine")`, imported from the same place,
# shows ours.


# %%
def top_k_weights(logits, k, normalise):
    """Router logits (N, E) to weights (N, E), a tensor, 0 where an expert is not visited.

    Logits [[ln 4, ln 3, ln 1]] with k=2 give [[1/2, 3/8, 0]], normalised [[4/7, 3/7, 0]].
    """
    raise NotImplementedError


# %%
check("ch03.top_k_weights", top_k_weights)


# %%
def combine(outputs, weights, token, num_tokens):
    """Add outputs (M, C), each times its weight (M,), to the row of its token (M,): (num_tokens, C).

    Outputs [[7.], [70.], [5.]], weights [4/7, 3/7, 1.], tokens [0, 0, 2] of 3 give [[34.], [0.], [5.]].
    """
    raise NotImplementedError


# %%
check("ch03.combine", combine)


# %%
def aux_loss(probabilities, chosen, is_token):
    """MiniMind-3's balance loss, without its coefficient: E * sum of f_e * P_e over the real tokens.

    probabilities (N, E), chosen (N, k), is_token (N,). The text's four leaning tokens give 0.885.
    """
    raise NotImplementedError


# %%
check("ch03.aux_loss", aux_loss)


# %%
def active_parameters(hidden, width, experts, top_k, shared):
    """Parameters of one layer of SwiGLU experts that a token meets, router and shared experts too.

    Hidden size 8, width 4, 4 experts, top-1, none shared: 32 + 96 = 128.
    """
    raise NotImplementedError


# %%
check("ch03.active_parameters", active_parameters)

# %% [markdown]
# ## Claims

# %% tags=["nbval-ignore-output"]
claims.table()

# %% [markdown]
# ## The same at full scale
#
# ```
# minimind-edu pretrain --use_moe 1                        # edu-moe, on the small world
# minimind-edu pretrain --preset minimind2-moe --vocab_size 6400 --max_seq_len 340 --epochs 1 \
#     --data_path pretrain.jsonl --optimizer adamw --learning_rate 5e-4 --out_dir out/moe2
# minimind-edu pretrain --preset minimind-3-moe --vocab_size 6400 --max_seq_len 340 --epochs 1 \
#     --data_path pretrain.jsonl --optimizer adamw --learning_rate 5e-4 --out_dir out/moe3
# ```
#
# In `edu-moe` a token visits two of four experts, each half as wide as the feed-forward of `edu`: the same
# work, twice the feed-forward parameters. MiniMind's author reports for minimind-3-moe on one RTX 3090 an
# estimated 1.69 hours for an epoch of pretraining (1,270,238 rows padded to 340 tokens), against 1.21 hours
# for the dense minimind-3.
#
# ## References
#
# - Shazeer et al., 2017, Outrageously large neural networks,
#   [arXiv:1701.06538](https://arxiv.org/abs/1701.06538)
# - Fedus, Zoph and Shazeer, 2021, Switch Transformers, [arXiv:2101.03961](https://arxiv.org/abs/2101.03961)
# - Dai et al., 2024, DeepSeekMoE, [arXiv:2401.06066](https://arxiv.org/abs/2401.06066)
# - DeepSeek-AI, 2024, DeepSeek-V2, [arXiv:2405.04434](https://arxiv.org/abs/2405.04434)
# - Qwen team, 2025, Qwen3 technical report, [arXiv:2505.09388](https://arxiv.org/abs/2505.09388)
# - Gong, MiniMind, [github.com/jingyaogong/minimind](https://github.com/jingyaogong/minimind)
