"""Rollouts as training data: rows that are written by the model while it is trained.

The loop asks for one row after another, as it does in every stage. When it asks for the first row of a step,
the model, as it is then, answers the next prompts; so reinforcement learning needs no loop of its own.
"""

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minimind_edu.generation import Sampling
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.policy import Variant, equal_groups, group_advantages
from minimind_edu.stages.rollout import Sample, action_logprobs, as_batch, sample_groups
from minimind_edu.stages.verify import Reward, follows_format, verify
from minimind_edu.tokenizer import Tokenizer
from minimind_edu.tokenizer.thinking import prompt_ids, whole_answer
from minimind_edu.training import Batch
from minimind_edu.training.precision import Precision


@dataclass(frozen=True)
class Prompt:
    """A problem as the model gets it: question, token ids, ground truth, and which record it was."""

    question: str
    tokens: tuple[int, ...]
    gt: str
    record: int


@dataclass(frozen=True)
class Group:
    """All answers to one prompt, as `on_rollout` gets them.

    Attributes:
        texts: what the model wrote, the block of thoughts that the prompt began included.
        rewards, advantages: one of each for every text.
        right: whether the exact verifier accepts the text, whatever the reward says.
        tokens: how many tokens the model wrote.
        is_cut: whether the answer reached the limit of tokens before its end.
    """

    question: str
    gt: str
    texts: tuple[str, ...]
    rewards: tuple[float, ...]
    advantages: tuple[float, ...]
    right: tuple[bool, ...]
    tokens: tuple[int, ...]
    is_cut: tuple[bool, ...]


def read_prompts(
    records: Sequence[dict[str, Any]], tokenizer: Tokenizer, thinking: bool | None, longest: int
) -> tuple[list[Prompt], int]:
    """The prompts of records (``conversations`` with a last user message, and ``gt``).

    Args:
        thinking: the switch of `prompt_ids`.
        longest: most tokens of a prompt.

    Returns:
        The prompts, and how many were too long and left out.

    Raises:
        ValueError: no prompt is short enough.
    """
    prompts, skipped = [], 0
    for number, record in enumerate(records):
        messages = list(record["conversations"])
        while messages and messages[-1]["role"] != "user":  # an empty answer, which is to be written
            messages.pop()
        tokens = prompt_ids(tokenizer, messages, thinking)
        if len(tokens) > longest:
            skipped += 1
        else:
            prompts.append(Prompt(messages[-1]["content"], tuple(tokens), str(record["gt"]), number))
    if not prompts:
        raise ValueError(
            f"none of {skipped} prompts has at most {longest} tokens: "
            "raise --max_seq_len or lower --max_new_tokens"
        )
    return prompts, skipped


class RolloutRows:
    """The answers of the model that is being trained, row by row; see `training.TrainingData`.

    A rollout is ``prompts_per_step * group_size`` rows, sorted by length so that few are padded by much. An
    epoch goes through all prompts in a new order; prompts of its beginning fill up its last rollout.

    Args:
        reference: a frozen model to measure the KL to, or None.
        updates: how often each rollout is trained on, before the next is sampled.
        rows_per_batch: rows that the loop takes together, which get the same width.
        on_rollout: called with (optimizer steps taken, groups) after every rollout.
    """

    def __init__(
        self,
        model: MiniMind,
        tokenizer: Tokenizer,
        prompts: Sequence[Prompt],
        reward: Reward,
        sampling: Sampling,
        variant: Variant,
        *,
        prompts_per_step: int,
        group_size: int,
        max_new_tokens: int,
        rows_per_batch: int,
        updates: int,
        seed: int,
        precision: Precision,
        reference: MiniMind | None = None,
        on_rollout: Callable[[int, list[Group]], None] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.prompts, self.reward = model, tokenizer, prompts, reward
        self.sampling, self.variant, self.reference, self.precision = sampling, variant, reference, precision
        self.prompts_per_step, self.group_size = prompts_per_step, group_size
        self.max_new_tokens, self.rows_per_batch, self.updates = max_new_tokens, rows_per_batch, updates
        self.seed, self.on_rollout = seed, on_rollout
        self.rollouts = -(-len(prompts) // prompts_per_step)  # in an epoch
        self.rows_per_rollout = prompts_per_step * group_size
        self.epoch, self.order = 0, list(range(len(prompts)))
        self.current: tuple[int, int] | None = None  # epoch and number of the rollout that is held
        self.rows: list[Batch] = []
        self.ended = 0.0  # when the last rollout was complete

    def __len__(self) -> int:
        return self.rollouts * self.updates * self.rows_per_rollout

    def set_epoch(self, epoch: int) -> None:
        """Shuffle the prompts for this epoch."""
        self.epoch = epoch
        random.Random(f"{self.seed}/{epoch}").shuffle(order := list(range(len(self.prompts))))
        self.order = order

    def record_ids(self, row: int) -> list[int]:
        """The record whose prompt was answered; known for rows of the rollout that is held."""
        return [int(self.rows[row % self.rows_per_rollout]["record"])]

    def __getitem__(self, row: int) -> Batch:
        number = row // (self.rows_per_rollout * self.updates)
        if self.current != (self.epoch, number):
            self.rows = self._roll(number)
            self.current = (self.epoch, number)
        return self.rows[row % self.rows_per_rollout]

    def _roll(self, number: int) -> list[Batch]:
        """Sample, reward, and make rows of rollout ``number`` of this epoch."""
        started = time.perf_counter()
        update_seconds = started - self.ended if self.current else float("nan")
        first = number * self.prompts_per_step
        places = [self.order[(first + i) % len(self.order)] for i in range(self.prompts_per_step)]
        prompts = [self.prompts[place] for place in places]
        device = next(self.model.parameters()).device
        seed = random.Random(f"{self.seed}/{self.epoch}/{number}").getrandbits(31)
        # On a CPU small steps are faster in float32, and the answers' log-probabilities more exact.
        with contextlib.nullcontext() if device.type == "cpu" else self.precision.autocast(device):
            groups = sample_groups(
                self.model,
                [prompt.tokens for prompt in prompts],
                self.group_size,
                self.sampling,
                self.tokenizer.eos_token_id,
                self.max_new_tokens,
                seed,
            )
        sampled = time.perf_counter()
        judged = [self._judge(prompt, group) for prompt, group in zip(prompts, groups, strict=True)]
        advantages = group_advantages(torch.tensor([one.rewards for one in judged]), self.variant.scale)
        ended = time.perf_counter()
        statistics = _statistics(judged, ended - sampled, sampled - started, update_seconds)
        rows = self._rows(prompts, groups, judged, advantages, statistics)
        if self.on_rollout:
            step = (self.epoch * self.rollouts + number) * self.updates
            shown = [
                Group(**{**vars(one), "advantages": tuple(values)})
                for one, values in zip(judged, advantages.tolist(), strict=True)
            ]
            self.on_rollout(step, shown)
        self.ended = time.perf_counter()
        return rows

    def _judge(self, prompt: Prompt, samples: list[Sample]) -> Group:
        """The texts of a group with their rewards; advantages come later."""
        texts = [whole_answer(self.tokenizer, prompt.tokens, one.tokens) for one in samples]
        return Group(
            question=prompt.question,
            gt=prompt.gt,
            texts=tuple(texts),
            rewards=tuple(float(self.reward(text, prompt.gt)) for text in texts),
            advantages=(),
            right=tuple(verify(text, prompt.gt) for text in texts),
            tokens=tuple(len(one.tokens) for one in samples),
            is_cut=tuple(one.finish_reason == "length" for one in samples),
        )

    def _rows(
        self,
        prompts: list[Prompt],
        groups: list[list[Sample]],
        judged: list[Group],
        advantages: Tensor,
        statistics: dict[str, float],
    ) -> list[Batch]:
        """One row for each sample, with all that the loss needs."""
        dead = equal_groups(torch.tensor([one.rewards for one in judged])).tolist()
        # Where all groups are equal nothing is left out: their advantages are 0, and the step is logged.
        dropped = [self.variant.drop_equal_groups and one and not all(dead) for one in dead]
        flat = [
            (sample, float(advantages[place, i]), dropped[place], prompts[place].record)
            for place, group in enumerate(groups)
            for i, sample in enumerate(group)
        ]
        flat.sort(key=lambda item: (item[2], len(item[0].prompt) + len(item[0].tokens)))
        shared = torch.tensor(list(statistics.values()))
        rows: list[Batch] = []
        for start in range(0, len(flat), self.rows_per_batch):
            part = flat[start : start + self.rows_per_batch]
            batch = as_batch([sample for sample, *_ in part])
            batch["advantage"] = torch.tensor([advantage for _, advantage, *_ in part])
            batch["action_mask"] &= ~torch.tensor([is_dropped for *_, is_dropped, _ in part])[:, None]
            batch["record"] = torch.tensor([record for *_, record in part])
            batch["statistics"] = shared.expand(len(part), -1)
            if self.reference is not None:
                batch["ref_logprobs"] = self._reference_logprobs(batch)
            rows += [{name: tensor[i] for name, tensor in batch.items()} for i in range(len(part))]
        return rows

    @torch.no_grad()
    def _reference_logprobs(self, batch: Batch) -> Tensor:
        device = next(self.reference.parameters()).device
        on_device = {name: tensor.to(device) for name, tensor in batch.items()}
        with self.precision.autocast(device):
            return action_logprobs(self.reference, on_device, self.sampling).logprobs.cpu()


STATISTICS = (
    "reward",
    "accuracy",
    "format_share",
    "answer_tokens",
    "cut_share",
    "dead_groups",
    "rollout_seconds",
    "reward_seconds",
    "update_seconds",
)
"""What the column ``statistics`` of a row holds, the same in every row of a rollout: means over its answers,
the share of groups with equal rewards, and seconds. ``update_seconds`` is what the updates on the rollout
before took, NaN at first."""


def _statistics(groups: list[Group], reward: float, rollout: float, update: float) -> dict[str, float]:
    texts = [text for group in groups for text in group.texts]
    dead = [len(set(group.rewards)) == 1 for group in groups]

    def mean(name: str) -> float:
        return sum(sum(getattr(group, name)) for group in groups) / len(texts)

    values = (
        mean("rewards"),
        mean("right"),
        sum(follows_format(text) for text in texts) / len(texts),
        mean("tokens"),
        mean("is_cut"),
        sum(dead) / len(dead),
        rollout,
        reward,
        update,
    )
    return dict(zip(STATISTICS, values, strict=True))
