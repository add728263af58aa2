"""Generation: greedy or sampled, in batches of prompts of any lengths, with a key/value cache.

`generate` returns prompts and continuations, `complete` the continuations with their log-probabilities (for
reinforcement learning), and `stream` yields the tokens of one continuation as they come.

A row's result does not depend on the rows beside it: prompts are padded on the left, the padding is masked,
every row draws from a random stream of its own, and a row that has finished leaves the batch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import torch
from torch import Tensor

from minimind_edu.model.attention import KVCache
from minimind_edu.model.decoding import DecodingStep, SharedPrompts, can_rearrange
from minimind_edu.model.transformer import MiniMind
from minimind_edu.sampling import (
    Sampling,
    draw_tokens,
    penalise_repetition,
    sampling_probabilities,
    uniform_draws,
)

__all__ = [
    "Completion",
    "Sampling",
    "complete",
    "generate",
    "penalise_repetition",
    "sampling_probabilities",
    "stream",
]

LARGEST_REARRANGED = 30_000_000  # parameters


@dataclass
class Completion:
    """What a model wrote after one prompt.

    Attributes:
        tokens: the new token ids, the stop token included.
        logprobs: log-probability (nats) of each under the distribution that it was drawn from, that is after
            temperature, top-k, top-p and repetition penalty; 0 where decoding is greedy.
        finish_reason: "stop" (a stop token) or "length" (max_new_tokens, or no position left).
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = "length"


@overload
def generate(model: MiniMind, prompts: Tensor, **options: object) -> Tensor: ...
@overload
def generate(model: MiniMind, prompts: Sequence[Sequence[int]], **options: object) -> list[list[int]]: ...


def generate(
    model: MiniMind,
    prompts: Tensor | Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    attention_mask: Tensor | None = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
) -> Tensor | list[list[int]]:
    """Continue the prompts.

    Args:
        model: used in evaluation mode; its mode is restored.
        prompts: a tensor (B, T), or a list of prompts of any lengths.
        max_new_tokens: most tokens to add to a prompt. A row also ends at `max_position_embeddings` tokens.
        temperature, top_k, top_p, repetition_penalty: see `Sampling`; the default is greedy.
        eos_token_id: token or tokens that end a row; the token itself is kept.
        pad_token_id: fills finished rows of a tensor; default the lowest stop token, or 0.
        attention_mask: (B, T) for a tensor of prompts with padding: 1 for tokens, 0 for padding.
        seed, generator: where randomness comes from; default PyTorch's global generator.
        use_cache: keep keys and values; without, every step reads the whole text again (same result).

    Returns:
        For a tensor: (B, T + N), prompts and continuations, padded on the right. For a list: a list of
        prompt + continuation, without padding.

    Raises:
        ValueError: no prompt, an empty one, one without room for a new token, or an option out of range.
    """
    rows = _prompt_rows(prompts, attention_mask)
    sampling = Sampling(temperature, top_k, top_p, repetition_penalty)
    completions = complete(
        model,
        rows,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        eos_token_id=eos_token_id,
        seed=seed,
        generator=generator,
        use_cache=use_cache,
    )
    if not isinstance(prompts, Tensor):
        return [row + completion.tokens for row, completion in zip(rows, completions, strict=True)]
    if pad_token_id is None:
        pad_token_id = min(_stop_tokens(eos_token_id), default=0)
    longest = max(len(completion.tokens) for completion in completions)
    new = [c.tokens + [pad_token_id] * (longest - len(c.tokens)) for c in completions]
    return torch.cat((prompts, torch.tensor(new, dtype=prompts.dtype, device=prompts.device)), dim=1)


def complete(
    model: MiniMind,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 128,
    sampling: Sampling | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
) -> list[Completion]:
    """One `Completion` per prompt; arguments and errors as in `generate`."""
    rows = _prompt_rows(prompts, None)
    batch = _Batch(
        model, rows, max_new_tokens, sampling or Sampling(), eos_token_id, seed, generator, use_cache
    )
    was_training = model.training
    model.eval()
    try:
        while batch.active:
            batch.step()
    finally:
        model.train(was_training)
    return batch.completions


def stream(
    model: MiniMind,
    prompt: Sequence[int],
    *,
    max_new_tokens: int = 128,
    sampling: Sampling | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Yield the tokens that continue one prompt, each as soon as it is known; options as in `generate`."""
    rows = _prompt_rows([prompt], None)
    batch = _Batch(model, rows, max_new_tokens, sampling or Sampling(), eos_token_id, seed, generator, True)
    was_training = model.training
    model.eval()
    try:
        while batch.active:
            batch.step()
            yield batch.completions[0].tokens[-1]
    finally:
        model.train(was_training)


class _Batch:
    """The state of a batch that is being continued: one `step` adds a token to every active row."""

    def __init__(
        self,
        model: MiniMind,
        rows: list[list[int]],
        max_new_tokens: int,
        sampling: Sampling,
        eos_token_id: int | Sequence[int] | None,
        seed: int | None,
        generator: torch.Generator | None,
        use_cache: bool,
    ) -> None:
        if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens!r} must be a whole number, 1 or more")
        self.model, self.sampling, self.use_cache = model, sampling, use_cache
        self.device = model.model.embed_tokens.weight.device
        self.stop_tokens = _stop_tokens(eos_token_id)
        self.limits = [_room(model, row, max_new_tokens) for row in rows]
        self.completions = [Completion() for _ in rows]
        self.active = list(range(len(rows)))
        self.draws = uniform_draws(sampling, len(rows), max(self.limits), seed, generator)
        self.step_count = 0
        self.cache: KVCache | None = None
        self.decoding_step: DecodingStep | None = None
        self.shared: SharedPrompts | None = None
        self.rows = rows
        self.tokens, self.mask = _pad_left(rows, self.device)
        self.seen = self._tokens_seen(rows)

    def _tokens_seen(self, rows: list[list[int]]) -> Tensor | None:
        """(B, V) bool: which tokens each row has used, kept only if there is a penalty on them."""
        if self.sampling.repetition_penalty == 1:
            return None
        seen = torch.zeros(len(rows), self.model.config.vocab_size, dtype=torch.bool, device=self.device)
        for index, row in enumerate(rows):
            seen[index, torch.tensor(row, device=self.device)] = True
        return seen

    @torch.inference_mode()
    def step(self) -> None:
        """Choose the next token of every active row, record it, and let finished rows go."""
        probabilities = self._next_probabilities()
        chosen = self._choose(probabilities)
        logprobs = probabilities.gather(1, chosen[:, None]).log()[:, 0].tolist()
        finished = []
        for index, (row, token) in enumerate(zip(self.active, chosen.tolist(), strict=True)):
            completion = self.completions[row]
            completion.tokens.append(token)
            completion.logprobs.append(logprobs[index])
            if token in self.stop_tokens:
                completion.finish_reason = "stop"
            if token in self.stop_tokens or len(completion.tokens) == self.limits[row]:
                finished.append(index)
        self.step_count += 1
        self._append(chosen)
        if finished:
            self._drop(finished)

    def _next_probabilities(self) -> Tensor:
        """(rows, V): the distribution of each active row's next token."""
        if not self.use_cache:
            hidden = self.model.hidden_states(self.tokens, attention_mask=self.mask)[0][:, -1]
        elif self.cache is None:
            hidden = self._read_prompts()
        elif self.decoding_step is not None:
            hidden = self.decoding_step(self.tokens[:, 0], self.cache, self.shared)
        else:
            hidden = self.model.hidden_states(self.tokens, cache=self.cache)[0][:, -1]
        logits = self.model.head(hidden).float()
        if not math.isfinite(float(logits.sum())):  # a sum is cheaper than a look at each
            raise ValueError("the model's logits are not finite (NaN or infinity); its weights are damaged")
        s = self.sampling
        if self.seen is not None:
            logits = penalise_repetition(logits, self.seen, s.repetition_penalty)
        return sampling_probabilities(logits, s.temperature, s.top_k, s.top_p)

    def _read_prompts(self) -> Tensor:
        """Fill the cache and return what the head reads at the end of each prompt, (rows, C).

        A prompt that several rows have, as the samples of one group do, is read once.
        """
        places: dict[tuple[int, ...], int] = {}
        sources = [places.setdefault(tuple(row), len(places)) for row in self.rows]
        tokens, mask = _pad_left([list(row) for row in places], self.device)
        columns, new = tokens.shape[1], max(self.limits)
        is_shared = len(places) < len(sources)
        self.cache = self._empty_cache(len(places), columns if is_shared else columns + new)
        hidden = self.model.hidden_states(tokens, attention_mask=mask, cache=self.cache)[0][:, -1]
        # Large models are slow by their arithmetic; a second copy of their weights would gain nothing.
        if self.model.num_parameters() <= LARGEST_REARRANGED and can_rearrange(self.model):
            self.decoding_step = DecodingStep(self.model)
        if not is_shared:
            return hidden
        rows = torch.tensor(sources, device=self.device)
        if self.decoding_step is None or 2 * len(places) > len(sources):
            self.cache.keep_rows(rows, columns + new)
        else:
            self.shared, self.cache = SharedPrompts(self.cache, sources), self._empty_cache(len(rows), new)
            self.cache.position = self.shared.prompts.position[rows]
        return hidden[rows]

    def _empty_cache(self, rows: int, columns: int) -> KVCache:
        return KVCache(self.model.config, rows, columns, self.device, self.model.compute_dtype())

    def _choose(self, probabilities: Tensor) -> Tensor:
        """(rows,) tokens: each row's own random number, looked up in its cumulative distribution."""
        if self.draws is None:
            return probabilities.argmax(dim=-1)
        # On the CPU: Apple's GPUs have no float64.
        draw = self.draws[self.active, self.step_count]
        return draw_tokens(probabilities.cpu(), draw).to(self.device)

    def _append(self, chosen: Tensor) -> None:
        if self.seen is not None:
            self.seen.scatter_(1, chosen[:, None], True)
        if self.use_cache:
            self.tokens, self.mask = chosen[:, None], None
        else:
            self.tokens = torch.cat((self.tokens, chosen[:, None]), dim=1)
            if self.mask is not None:
                self.mask = torch.cat((self.mask, torch.ones_like(chosen[:, None])), dim=1)

    def _drop(self, finished: list[int]) -> None:
        """Take finished rows out of everything that has a row per prompt."""
        if self.cache is not None:
            kept = self.cache.drop_rows(finished)
            if self.shared is not None and kept:
                self.shared.keep_rows(kept)
        else:
            kept = [index for index in range(len(self.active)) if index not in set(finished)]
        self.active = [self.active[index] for index in kept]
        rows = torch.tensor(kept, dtype=torch.int64, device=self.device)
        self.tokens = self.tokens[rows]
        self.mask = None if self.mask is None else self.mask[rows]
        self.seen = None if self.seen is None else self.seen[rows]


def _prompt_rows(prompts: Tensor | Sequence[Sequence[int]], attention_mask: Tensor | None) -> list[list[int]]:
    """The prompts as lists of ids without padding."""
    if isinstance(prompts, Tensor):
        if prompts.dim() != 2:
            raise ValueError(f"a tensor of prompts must have shape (B, T), not {tuple(prompts.shape)}")
        if attention_mask is not None and attention_mask.shape != prompts.shape:
            raise ValueError(f"attention_mask must have shape {tuple(prompts.shape)}")
        mask = torch.ones_like(prompts) if attention_mask is None else attention_mask
        rows = [row[keep.bool()].tolist() for row, keep in zip(prompts, mask, strict=True)]
    else:
        if any(isinstance(prompt, int | str) for prompt in prompts):
            raise ValueError("prompts must be a list of prompts, each a list of token ids")
        rows = [[int(token) for token in prompt] for prompt in prompts]
    if not rows:
        raise ValueError("there is no prompt to continue")
    if any(not row for row in rows):
        raise ValueError(f"prompt {[not row for row in rows].index(True)} is empty; give at least one token")
    return rows


def _pad_left(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Tokens (B, T) and their mask (B, T), None if all prompts are equally long."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=device)
    if all(len(row) == longest for row in rows):
        return tokens, None
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return tokens, mask


def _room(model: MiniMind, row: list[int], max_new_tokens: int) -> int:
    """How many tokens this row may get; an error if none, or if the model cannot read it."""
    vocabulary, limit = model.config.vocab_size, model.config.max_position_embeddings
    if not 0 <= min(row) <= max(row) < vocabulary:
        raise ValueError(
            f"a prompt has ids from {min(row)} to {max(row)}, but the vocabulary has {vocabulary}; "
            "use the tokenizer that the model was made for"
        )
    if len(row) >= limit:
        raise ValueError(
            f"a prompt of {len(row)} tokens leaves no room within max_position_embeddings={limit}; shorten it"
        )
    return min(max_new_tokens, limit - len(row))


def _stop_tokens(eos_token_id: int | Sequence[int] | None) -> frozenset[int]:
    if eos_token_id is None:
        return frozenset()
    return frozenset([eos_token_id] if isinstance(eos_token_id, int) else eos_token_id)
