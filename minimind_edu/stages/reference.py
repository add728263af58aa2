"""What a model says about whole answers: their log-probabilities, and how far another model is from it.

Stages that compare a model with a frozen reference need the reference's numbers for the same texts again and
again. They are computed once, without gradients, and kept on the disk.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind_edu.data.cache import Progress, cached_folder
from minimind_edu.data.packing import IGNORE_INDEX
from minimind_edu.data.pairs import PairRows
from minimind_edu.generation import Sampling, complete
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.setup import model_digest
from minimind_edu.training.precision import Precision, resolve_precision

REFERENCE_VERSION = 1  # raise it when the same model and data should give other numbers


class SequenceLogprobs(NamedTuple):
    """What a model says about N sequences.

    Attributes:
        total: (N,) float32, log-probability (nats) of all labelled tokens of each sequence together.
        tokens: (N,) how many labelled tokens each has.
        aux_loss: the experts' balance loss, a scalar.
    """

    total: Tensor
    tokens: Tensor
    aux_loss: Tensor


def sequence_logprobs(model: MiniMind, input_ids: Tensor, labels: Tensor) -> SequenceLogprobs:
    """Log-probabilities of the labelled tokens, summed over each sequence.

    The output head is applied to labelled positions only. What comes after the last label of all sequences is
    cut off, and padding on the right is not masked: attention looks back, so nothing labelled ever sees it.

    Args:
        input_ids, labels: (N, T); labels are not shifted, -100 where a token is not to be scored.
    """
    is_label = labels != IGNORE_INDEX
    last = int(is_label.any(dim=0).nonzero().max()) if bool(is_label.any()) else 0
    input_ids, labels = input_ids[:, : last + 1], labels[:, : last + 1]
    # Experts count every token that they are given, so there padding has to be marked.
    is_used = is_label.flip(1).cumsum(1).flip(1)[:, : last + 1] > 0
    mask = is_used.long() if model.config.use_moe else None
    hidden, aux_loss = model.hidden_states(input_ids, attention_mask=mask)
    targets = labels[:, 1:]
    labelled = targets != IGNORE_INDEX
    logits = model.head(hidden[:, :-1][labelled]).float()
    scores = -F.cross_entropy(logits, targets[labelled], reduction="none")
    table = scores.new_zeros(targets.shape).masked_scatter(labelled, scores)
    return SequenceLogprobs(table.sum(dim=1), labelled.sum(dim=1), aux_loss)


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """The model as it is in evaluation, gradients included; its mode comes back after."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def reference_logprobs(
    model: MiniMind,
    rows: PairRows,
    batch_size: int = 32,
    device: torch.device | None = None,
    precision: Precision | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """(N, 2) float32: log-probability of every pair's chosen and rejected answer, without gradients.

    Pairs of similar length share a batch, so that little is padding.

    Args:
        device, precision: where and in which number format; default the model's device and float32. For
            training they must be the training's, or the first loss is not ln 2.
        progress: called with (pairs done, pairs in all).
    """
    device = device or next(model.parameters()).device
    precision = precision or resolve_precision("float32", device)
    order = np.argsort(rows.lengths.max(axis=1), kind="stable")
    found = np.empty((len(rows), 2), np.float32)
    with without_dropout(model), torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            places = order[start : start + batch_size]
            batch = [rows.pair(int(place)) for place in places]
            ids, labels = (
                torch.cat([row[name] for row in batch]).to(device) for name in ("input_ids", "labels")
            )
            with precision.autocast(device):
                scored = sequence_logprobs(model, ids, labels)
            found[places] = scored.total.view(-1, 2).cpu().numpy()
            if progress:
                progress(start + len(places), len(rows))
    return found


def set_cached_reference(
    model: MiniMind,
    rows: PairRows,
    batch_size: int,
    device: torch.device,
    precision: Precision,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Give rows the log-probabilities of their answers under a model: from the cache, or computed into it.

    They are found again only for the same weights, shape, pairs, tokenizer, length and number format.
    """
    parts = (
        str(REFERENCE_VERSION),
        model_digest(model),
        rows.pairs.identity,
        str(rows.max_seq_len),
        f"{precision.dtype} on {device.type}",
    )
    key = "reference-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def build(folder: Path) -> dict:
        found = reference_logprobs(model, rows, batch_size, device, precision, progress)
        np.save(folder / "logprobs.npy", found, allow_pickle=False)
        return {"pairs": len(found)}

    folder, _ = cached_folder(cache_dir, key, build)
    rows.set_reference(np.load(folder / "logprobs.npy", allow_pickle=False))


def mean_kl(
    policy: MiniMind,
    reference: MiniMind,
    prompts: Sequence[Sequence[int]],
    eos_token_id: int,
    max_new_tokens: int = 64,
    seed: int = 0,
) -> float:
    """KL(policy || reference) in nats an answer: how far a model has gone from its reference.

    The policy answers each prompt once, sampled at temperature 1. At every token of its answers the whole
    distributions are compared, which varies less than the log-probabilities of the tokens drawn. Float32.

    Raises:
        ValueError: see `generation.complete`.
    """
    written = complete(
        policy, prompts, max_new_tokens=max_new_tokens, sampling=Sampling(1.0), eos_token_id=eos_token_id,
        seed=seed,
    )  # fmt: skip
    total = 0.0
    with without_dropout(policy), without_dropout(reference), torch.inference_mode():
        for prompt, answer in zip(prompts, written, strict=True):
            ids = torch.tensor([[*prompt, *answer.tokens]], device=next(policy.parameters()).device)
            ours, theirs = (
                model.head(model.hidden_states(ids)[0][0, len(prompt) - 1 : -1]).float().log_softmax(-1)
                for model in (policy, reference)
            )
            total += float((ours.exp() * (ours - theirs)).sum())
    return total / len(prompts)
