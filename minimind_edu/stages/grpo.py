"""Reinforcement learning with verifiable rewards: GRPO and its variants (chapter 9).

A step: the model answers some prompts several times each, every answer gets a reward, and answers better than
their group's mean become more probable, worse ones less (`stages.policy`). Answers are batches like any other
(`stages.rollout_rows`), so the one training loop does the rest.
"""

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from minimind_edu.generation import Sampling
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.policy import (
    Variant,
    adjusted,
    find_variant,
    group_advantages,
    grpo_loss,
    policy_loss,
)
from minimind_edu.stages.rollout import action_logprobs, check_sampling
from minimind_edu.stages.rollout_rows import STATISTICS, Group, RolloutRows, read_prompts
from minimind_edu.stages.setup import (
    StageConfig,
    StageResult,
    check_before_work,
    load_model,
    model_digest,
    notes_on,
    read_records,
    save_result,
)
from minimind_edu.stages.verify import Reward, rewards
from minimind_edu.tokenizer import Tokenizer
from minimind_edu.training import Batch, FitResult, TrainConfig, fit
from minimind_edu.training.precision import resolve_device, resolve_precision

__all__ = ["GRPOConfig", "Group", "PolicyLoss", "group_advantages", "grpo", "grpo_loss", "train_grpo"]

THINKING = {"default": None, "on": True, "off": False}


@dataclass
class GRPOConfig(StageConfig):
    """Settings of reinforcement learning; ``from_weight`` names the model to start from, which must solve
    some of the problems already. Dropout is off. ``batch_size`` is what one forward pass of an update holds.
    With ``dtype`` float32 the first ratio is 1 up to 1e-4; updates in bfloat16 are faster and round more.

    Args:
        prompts_per_step: problems whose answers make one step.
        group_size: answers to each problem.
        updates_per_rollout: optimizer steps on the same answers; from the second on, the model is no longer
            the one that wrote them, and the ratios matter.
        variant: which loss; see `stages.policy.VARIANTS`.
        eps_low: how far below 1 ratios count; default the variant's own.
        eps_high: how far above 1 ratios count; default the variant's own.
        drop_equal_groups: leave out groups whose rewards are all equal; default the variant's own.
        beta: weight of the KL to the model at the start; 0 needs no second model.
        temperature: divides the logits when answers are sampled; all ratios are of the sampled distribution.
        top_k: sample from the k likeliest tokens; 0 from all.
        top_p: sample from the fewest tokens whose probabilities reach p; 1 from all.
        max_new_tokens: longer answers are cut, and then wrong.
        format_weight: reward of an answer laid out right.
        answer_weight: reward of a right answer.
        thinking: begin answers with an open block of thoughts (on), an empty one (off), or as the chat
            template does.
        max_seq_len: most tokens of a prompt and its answer; longer prompts are left out.
    """

    out_dir: str = "out/grpo"
    from_weight: str = "out/reason"
    prompts_per_step: int = 16
    group_size: int = 8
    updates_per_rollout: int = 1
    variant: Literal["grpo", "dr_grpo", "dapo", "cispo"] = "grpo"
    eps_low: float | None = None
    eps_high: float | None = None
    drop_equal_groups: bool | None = None
    beta: float = 0.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 192
    format_weight: float = 0.2
    answer_weight: float = 1.0
    thinking: Literal["default", "on", "off"] = "default"
    max_seq_len: int = 512
    batch_size: int = 32
    learning_rate: float = 1e-4
    warmup_iters: int = 0
    lr_schedule: Literal["cosine", "wsd", "constant"] = "constant"
    weight_decay: float = 0.0
    max_steps: int = 100
    log_interval: int = 1
    save_interval: int = 50

    def validate(self) -> None:
        """Raise ValueError, naming the setting and the remedy, if a setting makes no sense."""
        super().validate()
        for name, least in {"prompts_per_step": 1, "group_size": 2, "updates_per_rollout": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        if not 1 <= self.max_new_tokens < self.max_seq_len:
            raise ValueError(
                f"max_new_tokens must be 1 or more and below max_seq_len ({self.max_seq_len}), "
                f"not {self.max_new_tokens}"
            )
        for name in ("beta", "format_weight", "answer_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.thinking not in THINKING:
            raise ValueError(f"unknown thinking {self.thinking!r}: use {', '.join(THINKING)}")
        if self.accumulation_steps != 1 or self.num_workers != 0:
            raise ValueError(
                "a step takes all answers of its prompts, which the model writes itself: leave "
                "accumulation_steps at 1 and num_workers at 0"
            )
        check_sampling(self.sampling())
        self.loss_variant()

    def sampling(self) -> Sampling:
        """How answers are sampled."""
        return Sampling(self.temperature, self.top_k, self.top_p)

    def loss_variant(self) -> Variant:
        """The variant with what this run changes of it."""
        return adjusted(
            find_variant(self.variant),
            eps_low=self.eps_low,
            eps_high=self.eps_high,
            drop_equal_groups=self.drop_equal_groups,
        )

    def rows_per_pass(self) -> int:
        """Answers in one forward pass: ``batch_size``, or less so that a step is a whole number of them."""
        rows = self.prompts_per_step * self.group_size
        return max(size for size in range(1, self.batch_size + 1) if rows % size == 0)


@dataclass(frozen=True)
class PolicyLoss:
    """`policy_loss` of a batch of rollout rows, for the training loop.

    The loop weighs batches by ``numbers["tokens"]``: the answers' tokens where the variant's mean is over
    tokens, else the number of answers. Answers of groups that were dropped count for nothing.

    Attributes:
        length: what the "constant" aggregation divides by.
    """

    variant: Variant
    sampling: Sampling
    beta: float
    length: int

    def __call__(self, model: MiniMind, batch: Batch) -> tuple[Tensor, Mapping[str, object]]:
        """The loss, and numbers: those of `policy_loss` and the rollout's statistics."""
        used = batch["action_mask"].any(dim=1)
        if not bool(used.any()):
            return torch.zeros((), device=used.device), {"tokens": 0}
        shared = dict(zip(STATISTICS, batch["statistics"][0].tolist(), strict=True))
        batch = {name: tensor[used] for name, tensor in batch.items()}
        scores = action_logprobs(model, batch, self.sampling)
        loss, means = policy_loss(
            scores.logprobs,
            batch["old_logprobs"],
            batch["advantage"],
            batch["action_mask"],
            variant=self.variant,
            ref_logprobs=batch.get("ref_logprobs"),
            beta=self.beta,
            length=self.length,
            entropy=scores.entropy,
        )
        by_token = self.variant.aggregation == "token"
        numbers: dict[str, object] = {
            name: value for name, value in shared.items() if value == value
        }  # no NaN
        numbers |= means
        numbers["tokens"] = int(batch["action_mask"].sum()) if by_token else int(used.sum())
        if model.config.use_moe:
            numbers["aux_loss"] = scores.aux_loss
            loss = loss + scores.aux_loss
        return loss, numbers


def train_grpo(
    model: MiniMind,
    tokenizer: Tokenizer,
    problems: Sequence[dict[str, Any]],
    config: GRPOConfig,
    reward: Reward | None = None,
    on_log: Callable[[dict[str, float]], None] | None = None,
    on_rollout: Callable[[int, list[Group]], None] | None = None,
    progress: bool = False,
    identity: str = "",
) -> FitResult:
    """Train a model in place. ``config.out_dir`` gets the log and checkpoints.

    Args:
        problems: records with ``conversations``, whose last user message is the question, and ``gt``.
        reward: a number from (all that the model wrote, gt); default `verify.rewards` with the config's
            weights.
        on_log: gets every line of the log: ``loss``, the statistics of `rollout_rows.STATISTICS`, ``ratio``,
            ``clip_share``, ``entropy`` (nats), and ``kl`` with a beta.
        on_rollout: gets the number of steps taken, and all groups, after every rollout.
        identity: names the problems and the reward; a run is only continued with the same.

    Returns:
        See `fit`; its warnings tell of prompts that were left out.

    Raises:
        ValueError: a setting makes no sense, no prompt is short enough, or a reward is not finite.
        RunExistsError, CheckpointError, NonFiniteLossError, Interrupted: see `fit`.
    """
    config.validate()
    device = resolve_device(config.device)
    model.to(device)
    model.gradient_checkpointing = bool(config.gradient_checkpointing)
    longest = min(config.max_seq_len, model.config.max_position_embeddings) - config.max_new_tokens
    prompts, skipped = read_prompts(problems, tokenizer, THINKING[config.thinking], longest)
    reference = copy.deepcopy(model).eval().requires_grad_(False) if config.beta else None
    variant, size = config.loss_variant(), config.rows_per_pass()
    rows = RolloutRows(
        model,
        tokenizer,
        prompts,
        reward or rewards(config.format_weight, config.answer_weight),
        config.sampling(),
        variant,
        prompts_per_step=config.prompts_per_step,
        group_size=config.group_size,
        max_new_tokens=config.max_new_tokens,
        rows_per_batch=size,
        updates=config.updates_per_rollout,
        seed=config.seed,
        precision=resolve_precision(config.dtype, device),
        reference=reference,
        on_rollout=on_rollout,
    )
    steps = config.prompts_per_step * config.group_size // size
    result = fit(
        model,
        PolicyLoss(variant, config.sampling(), config.beta, config.max_new_tokens),
        rows,
        _loop_config(config, batch_size=size, accumulation_steps=steps),
        data_identity=f"{identity or _digest(prompts)}, {_settings(config)}, from {model_digest(model)[:16]}",
        progress=progress,
        on_log=on_log,
    )
    if not skipped:
        return result
    note = f"{skipped} prompts have more than {longest} tokens and were left out"
    return dataclasses.replace(result, warnings=(*result.warnings, note))


def _loop_config(config: GRPOConfig, **changes: int) -> TrainConfig:
    """What the loop is to know; how a step is cut into batches is decided here and not by the user."""
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    return TrainConfig(**{name: getattr(config, name) for name in names} | changes)


def _digest(prompts: Sequence[Any]) -> str:
    return hashlib.sha256(repr([(prompt.tokens, prompt.gt) for prompt in prompts]).encode()).hexdigest()[:16]


def _settings(config: GRPOConfig) -> str:
    """What decides the weights besides the settings of the loop."""
    own = GRPOConfig.__annotations__.keys() - StageConfig.__dataclass_fields__.keys()
    names = sorted(own | {"max_seq_len"})
    return ", ".join(f"{name} {getattr(config, name)}" for name in names)


def grpo(
    config: GRPOConfig,
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> StageResult:
    """Train a model on problems whose answers can be verified.

    Raises:
        ValueError: a setting makes no sense, or ``from_weight`` holds no model.
        DataError, CheckpointError, NonFiniteLossError, Interrupted: as they say.
    """
    check_before_work(config)
    records = read_records(config, "rlvr", "rlvr.jsonl", progress)
    model, tokenizer = load_model(config.from_weight)
    identity = f"{records.fingerprint[:16]} tokenized by {tokenizer.fingerprint[:16]}"
    result = train_grpo(
        model, tokenizer, records, config, on_log=on_log, progress=progress, identity=identity
    )
    return save_result(config, model, tokenizer, result, (*notes_on(records), *result.warnings))
