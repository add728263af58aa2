"""Direct preference optimisation: make the better of two answers more probable, relative to a reference.

The reference is the model that training starts from. Its log-probabilities of all answers are computed once,
before the first step, and kept on the disk: training then needs one model in memory. Chapter 7 derives the
loss (Rafailov et al., 2023, "Direct Preference Optimization", equation 7).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from minimind_edu.data.pairs import PairRows, tokenize_pairs
from minimind_edu.data.records import Records, train_val_split
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.reference import sequence_logprobs, set_cached_reference, without_dropout
from minimind_edu.stages.setup import (
    StageConfig,
    StageData,
    StageResult,
    check_before_work,
    fit_stage,
    load_model,
    notes_on,
    progress_callback,
    read_records,
    save_result,
)
from minimind_edu.tokenizer import Tokenizer
from minimind_edu.training import Batch
from minimind_edu.training.precision import resolve_device, resolve_precision

LOSS_TYPES = ("sigmoid", "ipo", "hinge")


@dataclass
class DPOConfig(StageConfig):
    """Settings of direct preference optimisation; ``from_weight`` names the model to start from, which is
    also the reference. Dropout is off, so that both are compared as they are.

    Args:
        beta: how strongly the model is held to the reference: a small one lets it go further.
        loss_type: sigmoid (DPO); ipo (log-probabilities a token, and a margin to reach rather than to
            grow); hinge (no pull on a pair beyond a margin of 1 / beta).
        label_smoothing: share of the pairs taken to be the wrong way round, from 0 to below 0.5; for the
            sigmoid loss.
        sft_weight: how much of the supervised loss on the chosen answers (nats a token) is added; 0 is plain
            DPO, which cannot reach answers that the model finds far too improbable. The embedded world's are.
    """

    out_dir: str = "out/dpo"
    from_weight: str = "out/sft"
    beta: float = 0.1
    loss_type: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    label_smoothing: float = 0.0
    sft_weight: float = 10.0
    epochs: int = 2
    batch_size: int = 8
    learning_rate: float = 3e-4
    min_lr_ratio: float = 0.0

    def validate(self) -> None:
        """Raise ValueError, naming the setting and the remedy, if a setting makes no sense."""
        super().validate()
        _check_settings(self.beta, self.loss_type, self.label_smoothing)
        if not 0 <= self.sft_weight < float("inf"):
            raise ValueError(f"sft_weight must be 0 or more, not {self.sft_weight}")
        if self.label_smoothing and self.loss_type != "sigmoid":
            raise ValueError(f"label_smoothing belongs to the sigmoid loss; {self.loss_type} has none")


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float = 0.1,
    loss_type: str = "sigmoid",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The loss of each pair, (B,), from log-probabilities (nats) of whole answers, each (B,).

    With h = (policy - reference) of the chosen answer minus the same of the rejected one:

    - ``sigmoid``: -ln sigma(beta h) (Rafailov et al., 2023). With label smoothing e it is
      -(1 - e) ln sigma(beta h) - e ln sigma(-beta h), "conservative DPO" (Mitchell, 2023).
    - ``ipo``: (h - 1 / (2 beta))^2 (Azar et al., 2023, equation 17). Its authors divide the log-probabilities
      of an answer by the answer's number of tokens, and so does trl: give it such means, as `PreferenceLoss`
      does.
    - ``hinge``: max(0, 1 - beta h) (Zhao et al., 2023, SLiC-HF).

    Label smoothing changes the sigmoid loss only, as in trl.

    Raises:
        ValueError: an unknown ``loss_type``, ``beta`` of 0 or less, ``label_smoothing`` outside [0, 0.5), or
            log-probabilities of different shapes.
    """
    _check_settings(beta, loss_type, label_smoothing)
    given = (policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    if len({tensor.shape for tensor in given}) > 1:
        raise ValueError(f"log-probabilities of different shapes: {[tuple(t.shape) for t in given]}")
    advantage = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
    if loss_type == "ipo":
        return (advantage - 1 / (2 * beta)) ** 2
    if loss_type == "hinge":
        return torch.relu(1 - beta * advantage)
    # logsigmoid, not log(sigmoid): far on the wrong side the sigmoid is 0 and its logarithm infinite.
    right, wrong = F.logsigmoid(beta * advantage), F.logsigmoid(-beta * advantage)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def _check_settings(beta: float, loss_type: str, label_smoothing: float) -> None:
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"unknown loss_type {loss_type!r}: use {', '.join(LOSS_TYPES)}")
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta must be a positive number, not {beta}")
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be from 0 to below 0.5, not {label_smoothing}")


@dataclass(frozen=True)
class PreferenceLoss:
    """`dpo_loss` of a batch of pairs, for the training loop.

    The loop weighs batches by ``numbers["tokens"]``. Here the mean is over pairs, so that is their number,
    and what the log calls tokens are pairs. A pair with an answer that has no label counts for nothing.

    Attributes:
        beta, loss_type, label_smoothing: see `dpo_loss`.
        sft_weight: adds this times the mean negative log-probability of a chosen answer's tokens (nats), the
            mean taken within each answer (Pang et al., 2024, "Iterative Reasoning Preference Optimization").
    """

    beta: float = 0.1
    loss_type: str = "sigmoid"
    label_smoothing: float = 0.0
    sft_weight: float = 0.0

    def __call__(self, model: MiniMind, batch: Batch) -> tuple[Tensor, Mapping[str, object]]:
        """The mean loss, and numbers about the pairs, each a mean over them.

        Args:
            batch: rows of `PairRows` with their ``reference_logprobs``.

        Returns:
            The loss, and: ``preference_loss``, its part from `dpo_loss` (ln 2 before the first step);
            ``margin``, the difference of both sides' rewards, where the reward of an answer is
            beta (ln policy - ln reference); ``accuracy``, the share of pairs with a margin above 0;
            ``chosen_logp`` and ``rejected_logp`` (nats an answer), ``chosen_reward`` and
            ``rejected_reward``.
        """
        with without_dropout(model):
            scored = sequence_logprobs(model, batch["input_ids"].flatten(0, 1), batch["labels"].flatten(0, 1))
        policy, tokens = scored.total.view(-1, 2), scored.tokens.view(-1, 2)
        reference = batch["reference_logprobs"]
        usable = (tokens > 0).all(dim=1)
        policy, reference, tokens = policy[usable], reference[usable], tokens[usable]
        unit = tokens if self.loss_type == "ipo" else 1
        losses = dpo_loss(
            *(policy / unit).unbind(1),
            *(reference / unit).unbind(1),
            self.beta,
            self.loss_type,
            self.label_smoothing,
        )
        imitation = -policy[:, 0] / tokens[:, 0]  # mean over the tokens of each chosen answer
        pairs = int(usable.sum())
        loss = (losses + self.sft_weight * imitation).sum() / max(pairs, 1)
        rewards = self.beta * (policy - reference).detach()
        margins = rewards[:, 0] - rewards[:, 1]
        means = {
            "preference_loss": losses.detach(),
            "margin": margins,
            "accuracy": (margins > 0).float(),
            "chosen_logp": policy[:, 0].detach(),
            "rejected_logp": policy[:, 1].detach(),
            "chosen_reward": rewards[:, 0],
            "rejected_reward": rewards[:, 1],
        }
        numbers: dict[str, object] = {name: value.sum() / max(pairs, 1) for name, value in means.items()}
        numbers["tokens"] = pairs
        if model.config.use_moe:
            numbers["aux_loss"] = scored.aux_loss
            if model.training:
                loss = loss + scored.aux_loss
        return loss, numbers


def dpo(
    config: DPOConfig,
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> StageResult:
    """Train a model on preference pairs.

    Raises:
        ValueError: a setting makes no sense, or ``from_weight`` holds no model.
        DataError, CheckpointError, NonFiniteLossError, Interrupted: as they say.
    """
    check_before_work(config)
    records = read_records(config, "dpo", "dpo.jsonl", progress)
    model, tokenizer = load_model(config.from_weight)
    data = preference_rows(config, records, model, tokenizer, progress)
    loss = PreferenceLoss(config.beta, config.loss_type, config.label_smoothing, config.sft_weight)
    result, notes = fit_stage(config, data, model, loss, progress, on_log)
    return save_result(config, model, tokenizer, result, notes)


def preference_rows(
    config: DPOConfig, records: Records, model: MiniMind, tokenizer: Tokenizer, show: bool
) -> StageData:
    """Hold pairs back for validation, tokenize all, and give each what the model now says about it.

    Raises:
        DataError: too few records, records that are no pairs, or none within ``max_seq_len``.
    """
    device = resolve_device(config.device)
    precision = resolve_precision(config.dtype, device)
    cache_dir = config.cache_dir or None
    model.to(device)
    notes, rows = notes_on(records), []
    for part in train_val_split(records, config.val_fraction, config.seed):
        with progress_callback("tokenizing", show) as report:
            pairs = tokenize_pairs(part, tokenizer, cache_dir, config.on_bad_record, report)
        rows.append(PairRows(pairs, config.max_seq_len, config.seed))
        with progress_callback("reference", show) as report:
            set_cached_reference(model, rows[-1], config.batch_size, device, precision, cache_dir, report)
    notes += _notes_on_pairs(rows, config.max_seq_len)
    identity = (
        f"{rows[0].pairs.identity[:16]} in rows of max_seq_len {config.max_seq_len}, {config.loss_type} loss "
        f"with beta {config.beta}, label smoothing {config.label_smoothing}, sft weight {config.sft_weight}"
    )
    return StageData(rows[0], rows[1], identity, tuple(notes))


def _notes_on_pairs(parts: Sequence[PairRows], max_seq_len: int) -> list[str]:
    """What the user should know about the pairs, training and validation together."""
    faults = [fault for rows in parts for fault in rows.pairs.faults]
    counts = {
        "have no prompt in common and were left out": sum(rows.pairs.dropped for rows in parts),
        "go on with different questions after their first answers": sum(r.pairs.diverging for r in parts),
        f"are longer than {max_seq_len} tokens and were cut": sum(rows.truncated for rows in parts),
        f"do not differ within {max_seq_len} tokens and were left out": sum(rows.dropped for rows in parts),
    }
    notes = [f"{count} pairs {what}" for what, count in counts.items() if count]
    return [*notes, f"the first that was none: {faults[0]}"] if faults else notes
