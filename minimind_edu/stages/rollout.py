"""Rollouts: a model answers each prompt several times, and the answers become a batch to train on.

Every log-probability here belongs to the distribution that tokens are drawn from, that is after temperature,
top-k and top-p. The ratio of a policy to the one that sampled is then 1 until the weights change; against
another distribution it would be wrong from the start (chapter 9).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minimind_edu.generation import Completion, Sampling, complete
from minimind_edu.model.transformer import MiniMind
from minimind_edu.sampling import sampling_probabilities
from minimind_edu.stages.reference import without_dropout
from minimind_edu.training import Batch


@dataclass(frozen=True)
class Sample:
    """One answer to one prompt.

    Attributes:
        prompt: its token ids.
        tokens: the answer's token ids, the stop token included.
        logprobs: log-probability (nats) of each under the distribution that it was drawn from.
        finish_reason: "stop", or "length" where the answer was cut.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str


def sample_groups(
    model: MiniMind,
    prompts: Sequence[Sequence[int]],
    group_size: int,
    sampling: Sampling,
    eos_token_id: int,
    max_new_tokens: int,
    seed: int,
) -> list[list[Sample]]:
    """Let a model answer every prompt ``group_size`` times, all in one batch.

    Each prompt is read once for its whole group, and rows that have finished leave the batch.

    Args:
        prompts: P lists of token ids, of any lengths.
        sampling: temperature above 0; a repetition penalty cannot be followed by `action_logprobs`.

    Returns:
        P groups of samples, in the order of the prompts.

    Raises:
        ValueError: a group size below 1, greedy sampling or a repetition penalty; or as `complete`.
    """
    if group_size < 1:
        raise ValueError(f"group_size must be 1 or more, not {group_size}")
    check_sampling(sampling)
    rows = [list(prompt) for prompt in prompts for _ in range(group_size)]
    written = complete(
        model,
        rows,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        eos_token_id=eos_token_id,
        seed=seed,
    )
    samples = [_sample(prompt, one) for prompt, one in zip(rows, written, strict=True)]
    return [samples[start : start + group_size] for start in range(0, len(samples), group_size)]


def _sample(prompt: list[int], one: Completion) -> Sample:
    return Sample(tuple(prompt), tuple(one.tokens), tuple(one.logprobs), one.finish_reason)


def check_sampling(sampling: Sampling) -> None:
    """Raise ValueError unless log-probabilities under this sampling can be computed and trained."""
    if sampling.temperature == 0:
        raise ValueError("rollouts need a temperature above 0: greedy answers of a group are all the same")
    if sampling.repetition_penalty != 1:
        raise ValueError("rollouts cannot have a repetition penalty: log-probabilities would depend on it")


def as_batch(samples: Sequence[Sample], device: torch.device | str = "cpu", width: int = 0) -> Batch:
    """Samples as tensors, padded on the right.

    Padding there needs no mask and no positions of its own: attention looks back, so no token sees it.

    Args:
        width: least number of columns; default as many as the longest sample needs.

    Returns:
        ``input_ids`` (B, T) int64; ``attention_mask`` (B, T) int64, 0 on padding (experts count tokens);
        ``action_mask`` (B, T - 1) bool, true at t if token t + 1 belongs to the answer; ``old_logprobs``
        (B, T - 1) float32, aligned with it and 0 elsewhere.
    """
    width = max([width, 2, *(len(one.prompt) + len(one.tokens) for one in samples)])
    shape = (len(samples), width)
    ids, attention = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    actions = torch.zeros(len(samples), width - 1, dtype=torch.bool)
    old = torch.zeros(len(samples), width - 1)
    for row, one in enumerate(samples):
        start, end = len(one.prompt), len(one.prompt) + len(one.tokens)
        ids[row, :end] = torch.tensor([*one.prompt, *one.tokens])
        attention[row, :end] = 1
        actions[row, start - 1 : end - 1] = True
        old[row, start - 1 : end - 1] = torch.tensor(one.logprobs)
    batch = {"input_ids": ids, "attention_mask": attention, "action_mask": actions, "old_logprobs": old}
    return {name: tensor.to(device) for name, tensor in batch.items()}


@dataclass(frozen=True)
class Scores:
    """What a model says about the actions of a batch.

    Attributes:
        logprobs: (B, T - 1) float32, log-probability (nats) of each action; 0 where there is none.
        entropy: (B, T - 1), entropy (nats) of the distribution it was drawn from, without gradients.
        aux_loss: the experts' balance loss, a scalar.
    """

    logprobs: Tensor
    entropy: Tensor
    aux_loss: Tensor


def action_logprobs(model: MiniMind, batch: Batch, sampling: Sampling) -> Scores:
    """Log-probabilities of a batch's actions under the distribution that `sampling` draws from.

    The output head is applied where there is an action only. Dropout is off, as it was when the answers were
    sampled. A token that was drawn stays possible: an update may push it out of the top k, and its
    probability would fall to 0 at once, from where no gradient leads back.

    Args:
        batch: see `as_batch`.
    """
    check_sampling(sampling)
    actions = batch["action_mask"]
    mask = batch["attention_mask"] if model.config.use_moe else None
    with without_dropout(model):
        hidden, aux_loss = model.hidden_states(batch["input_ids"], attention_mask=mask)
        logits = model.head(hidden[:, :-1][actions]).float()
    chosen = batch["input_ids"][:, 1:][actions]
    found = _log_distribution(logits, chosen, sampling)
    picked = found.gather(1, chosen[:, None])[:, 0]
    with torch.no_grad():
        entropy = -(found.exp() * found.clamp(min=torch.finfo(found.dtype).min)).sum(dim=-1)
    empty = picked.new_zeros(actions.shape)
    return Scores(empty.masked_scatter(actions, picked), empty.masked_scatter(actions, entropy), aux_loss)


def _log_distribution(logits: Tensor, chosen: Tensor, sampling: Sampling) -> Tensor:
    """(N, V) log-probabilities after temperature, top-k and top-p, minus infinity for what they cut off."""
    if sampling.top_k or sampling.top_p < 1:
        with torch.no_grad():
            cut = sampling_probabilities(logits, sampling.temperature, sampling.top_k, sampling.top_p) == 0
            cut.scatter_(1, chosen[:, None], False)
        logits = logits.masked_fill(cut, float("-inf"))
    return (logits / sampling.temperature).log_softmax(dim=-1)
