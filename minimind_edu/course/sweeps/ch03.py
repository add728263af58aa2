"""Chapter 3: experts against dense models, routers alive and dead, and the weight of the balance loss.

Every run trains a small model on the same 614,400 tokens of the world and measures its held-out loss, and
which experts its tokens went to.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import default_collate

from minimind_edu.config import ModelConfig
from minimind_edu.course import artifacts
from minimind_edu.course.experiments import train_on_world, world_rows
from minimind_edu.model.transformer import MiniMind
from minimind_edu.tokenizer import Tokenizer

STEPS, ROWS, LENGTH = 300, 16, 128  # a step is 16 rows of 128 tokens
DENSE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
TOP1 = {"use_moe": True, "num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 64}
TOP2 = {"use_moe": True, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SHARED = TOP2 | {"num_experts": 7, "num_experts_per_tok": 1, "num_shared_experts": 1}

# A token passes 64 feed-forward units in every model but the last, which has the experts' 256 for each token.
MODELS: dict[str, dict[str, Any]] = {
    "dense, active": {"intermediate_size": 64},
    "4 experts, top-1": TOP1,
    "8 experts, top-2": TOP2,
    "7 experts, top-1, 1 shared": SHARED,
    "dead router": TOP1 | {"norm_topk_prob": True},
    "dense, total": {"intermediate_size": 256},
}
CLASSES = ("English, lower case", "English, capitalised", "Chinese", "digits", "marks and ends")
SEEDS = (1, 2, 3)
DEFAULT = ModelConfig.router_aux_loss_coef
COEFS = (0.0, DEFAULT, 1e-2, 1e-1, 1.0)

LIVE, DEAD = "4 experts, top-1", "dead router"
GRID = [
    ("dense, active", 0.0),
    (LIVE, DEFAULT),
    ("8 experts, top-2", DEFAULT),
    ("dense, total", 0.0),
    (DEAD, 0.0),
    (LIVE, 0.0),
    (LIVE, 1e-1),
    ("7 experts, top-1, 1 shared", DEFAULT),
]
CELLS = [{"model": model, "coef": coef, "seed": seed} for model, coef in GRID for seed in SEEDS]
CELLS += [{"model": LIVE, "coef": coef, "seed": 1} for coef in (1e-2, 1.0)]


def run_cell(model: str, coef: float, seed: int) -> dict[str, Any]:
    """Train one model of the grid and measure it; see `measure`."""
    return train(model, coef, seed)[1]


def train(
    model: str,
    coef: float,
    seed: int,
    steps: int = STEPS,
    progress: bool = False,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> tuple[MiniMind, dict[str, Any]]:
    """As `run_cell`, but it returns the trained model too, and can show how the training goes."""
    tokenizer = artifacts.tokenizer(progress=progress)
    trained = build(model, coef, seed, tokenizer)
    run = train_on_world(
        trained, tokenizer, steps, LENGTH, progress, on_log, batch_size=ROWS, seed=seed
    )  # fmt: skip
    numbers = {
        "loss": run.held_out.loss,
        "floor": run.held_out.floor,
        "ratio": run.held_out.ratio,
        "total": trained.num_parameters(),
        "active": trained.num_parameters(active=True),
        "step_seconds": run.fit.seconds / steps,
    }
    return trained, numbers | measure(trained, tokenizer)


def build(model: str, coef: float, seed: int, tokenizer: Tokenizer) -> MiniMind:
    """A model of the grid with random weights."""
    torch.manual_seed(seed)
    shape = DENSE | MODELS[model] | {"router_aux_loss_coef": coef}
    return MiniMind(ModelConfig(vocab_size=tokenizer.vocab_size, **shape))


def measure(model: MiniMind, tokenizer: Tokenizer) -> dict[str, Any]:
    """Where the tokens of 64 rows go: counts by layer, class and expert, and two numbers made of them.

    `busiest` is the load of a layer's busiest expert over the mean load (1 is balance), `bits` the mutual
    information of class and expert; both are means over the layers. Nothing for a dense model.
    """
    if not model.config.use_moe:
        return {}
    load = expert_load(model, tokenizer)
    return {"load": load.long().tolist(), "busiest": busiest(load), "bits": class_bits(load)}


@torch.no_grad()
def expert_load(model: MiniMind, tokenizer: Tokenizer, rows: int = 64) -> Tensor:
    """How many tokens of each class chose each expert: (layers, classes, experts)."""
    data = world_rows(tokenizer, LENGTH)
    batch = default_collate([data[row] for row in range(rows)])
    ids, documents = (
        batch[name].to(model.model.embed_tokens.weight.device) for name in ("input_ids", "document_ids")
    )
    logits: list[Tensor] = []
    gates = [block.mlp.gate for block in model.model.layers]
    hooks = [gate.register_forward_hook(lambda _, __, output: logits.append(output)) for gate in gates]
    model.eval().hidden_states(ids, document_ids=documents)
    for hook in hooks:
        hook.remove()
    classes = F.one_hot(token_classes(tokenizer)[ids.cpu().flatten()], len(CLASSES)).double()
    load = []
    for layer in logits:
        chosen = layer.topk(model.config.num_experts_per_tok, dim=-1).indices.cpu()
        load.append(classes.T @ F.one_hot(chosen, layer.shape[-1]).sum(dim=1).double())
    return torch.stack(load)


def busiest(load: Tensor) -> float:
    """The busiest expert's load over the mean load, averaged over the layers."""
    per_expert = load.sum(dim=1)
    return float((per_expert.amax(dim=-1) / per_expert.mean(dim=-1)).mean())


def class_bits(load: Tensor) -> float:
    """Mutual information of token class and expert in bits, averaged over the layers."""
    joint = load / load.sum(dim=(1, 2), keepdim=True)
    independent = joint.sum(dim=1, keepdim=True) * joint.sum(dim=2, keepdim=True)
    return float(
        torch.xlogy(joint, joint / independent.clamp(min=1e-30)).nan_to_num().sum()
        / (len(load) * math.log(2))
    )


def token_classes(tokenizer: Tokenizer) -> Tensor:
    """The class of every token id (V,): a place in `CLASSES`. Parts of a Chinese character count too."""
    return torch.tensor([_class_of(tokenizer.decode([token])) for token in range(tokenizer.vocab_size)])


def _class_of(text: str) -> int:
    letters = text.strip()
    if any("\u4e00" <= letter <= "\u9fff" or letter == "\ufffd" for letter in letters):
        return CLASSES.index("Chinese")
    if letters.isdigit():
        return CLASSES.index("digits")
    if letters[:1].isalpha():
        return CLASSES.index("English, capitalised" if letters[0].isupper() else "English, lower case")
    return CLASSES.index("marks and ends")
