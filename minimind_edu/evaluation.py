"""How good a model is: its loss against the floor, and whether its answers are right."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minimind_edu.data.packing import PackedDataset
from minimind_edu.data.records import load_records
from minimind_edu.data.rows import raw_records
from minimind_edu.data.tokenized import tokenize
from minimind_edu.data.world.world import LANGUAGES
from minimind_edu.generation import complete
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.tokenizer import Tokenizer
from minimind_edu.training import evaluate_loss

LONGEST_ANSWER = 64  # tokens


@dataclass(frozen=True)
class Perplexity:
    """The loss on a file of text.

    Attributes:
        loss: mean negative log-likelihood in nats a token, end-of-document tokens included.
        tokens: how many tokens it is a mean over.
        floor: the lowest mean any model can reach, where the file tells its documents' probabilities.
    """

    loss: float
    tokens: int
    floor: float | None

    @property
    def perplexity(self) -> float:
        """exp(loss): as if choosing evenly among so many tokens."""
        return math.exp(self.loss)

    @property
    def ratio(self) -> float | None:
        """loss / floor; 1 is perfect."""
        return None if self.floor is None else self.loss / self.floor


def perplexity(
    model: MiniMind,
    tokenizer: Tokenizer,
    path: str | Path,
    max_seq_len: int = 512,
    batch_size: int = 16,
    cache_dir: str | Path | None = None,
) -> Perplexity:
    """Loss of ``model`` on a pretraining file, every document with its own beginning in view.

    The floor: a text has one tokenization, so its token sequence is exactly as probable as the text, and the
    mean of ``-log_probability`` over the documents divided by their tokens is what a model that equals the
    generator would score on them. (A document longer than ``max_seq_len`` is read in parts.)

    Raises:
        DataError: the file has faults.
    """
    records = load_records(path, "pretrain", cache_dir=cache_dir)
    documents = tokenize(records, tokenizer, "pretrain", cache_dir)
    rows = PackedDataset(documents, max_seq_len, fill=False)
    # Every token but each document's first (the start token) is predicted once.
    tokens = documents.num_tokens - len(documents)
    log_probabilities = [] if records.is_stream else _column(path, "log_probability")
    floor = -sum(log_probabilities) / tokens if len(log_probabilities) == len(records) else None
    return Perplexity(evaluate_loss(model, causal_lm_loss, rows, batch_size), tokens, floor)


@dataclass(frozen=True)
class Answer:
    """One question of an evaluation file with what the model said."""

    question: str
    expected: str
    given: str
    record: dict[str, object]

    @property
    def is_right(self) -> bool:
        """Exact match, up to white space around the answer."""
        return self.given.strip() == self.expected.strip()


def answer_questions(
    model: MiniMind,
    tokenizer: Tokenizer,
    path: str | Path,
    batch_size: int = 128,
    keep: Callable[[dict[str, object]], bool] = lambda record: True,
    progress: Callable[[int, int], None] = lambda done, total: None,
    cache_dir: str | Path | None = None,
) -> list[Answer]:
    """Greedy answers to the questions of a file (``conversations`` that end with the user, and ``gt``).

    Args:
        keep: asks only the records for which it is true.

    Raises:
        DataError: the file has faults.
        ValueError: no record is left to ask, or a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
    load_records(path, "rlvr", cache_dir=cache_dir)  # checks it; the extra columns are read below
    records = [record for record in raw_records(path) if keep(record)]
    if not records:
        raise ValueError(f"{path}: no question is left to ask")
    answers = []
    for start in range(0, len(records), batch_size):
        batch = records[start : start + batch_size]
        replies = reply(model, tokenizer, [_asked(record) for record in batch])
        for record, given in zip(batch, replies, strict=True):
            answers.append(Answer(_asked(record)[-1]["content"], str(record["gt"]), given, record))
        progress(len(answers), len(records))
    return answers


def exact_match(answers: Sequence[Answer], *columns: str) -> dict[tuple[object, ...], float]:
    """Share of right answers for every combination of values in ``columns``; all together without any.

    Raises:
        KeyError: a record has no such column.
    """
    groups: dict[tuple[object, ...], list[bool]] = {}
    for answer in answers:
        groups.setdefault(tuple(answer.record[column] for column in columns), []).append(answer.is_right)
    return {group: sum(right) / len(right) for group, right in groups.items()}


@dataclass(frozen=True)
class WinRate:
    """How often one model's answers are better than another's to the same questions."""

    wins: int
    ties: int
    losses: int

    @property
    def rate(self) -> float:
        """Share of questions won, a tie counted as half: 0.5 for a model against itself."""
        return (self.wins + self.ties / 2) / (self.wins + self.ties + self.losses)


def win_rate(
    ours: Sequence[Answer],
    theirs: Sequence[Answer],
    rule: Callable[[Answer], tuple[float, ...]] | None = None,
) -> WinRate:
    """Compare two models' answers question by question.

    Args:
        rule: gives an answer a score; tuples are compared from the front, so that what comes first counts
            first. Default `truth_then_manners`.

    Raises:
        ValueError: no answers, or answers to different questions.
    """
    rule = rule or truth_then_manners
    if not ours or [answer.question for answer in ours] != [answer.question for answer in theirs]:
        raise ValueError("a win rate needs two models' answers to the same questions, and at least one")
    scores = [(rule(one), rule(other)) for one, other in zip(ours, theirs, strict=True)]
    wins = sum(one > other for one, other in scores)
    ties = sum(one == other for one, other in scores)
    return WinRate(wins, ties, len(scores) - wins - ties)


def truth_then_manners(answer: Answer) -> tuple[bool, bool]:
    """The small world's rule for the better answer: first whether it is true, then whether it is polite.

    True is an answer that, without polite words around it, is exactly the expected one. A polite invention
    thus loses against a curt truth. The question's record must have a ``language``.
    """
    said, is_polite = without_manners(answer.given, str(answer.record["language"]))
    return said == answer.expected.strip(), is_polite


def without_manners(text: str, language: str) -> tuple[str, bool]:
    """A text without one of the language's polite phrases around it, and whether it had one.

    >>> without_manners("Of course! The sky is blue.", "en")
    ('The sky is blue.', True)
    """
    text = text.strip()
    for frame in LANGUAGES[language].polite:
        before, after = frame.split("{answer}")
        if text.startswith(before) and text.endswith(after) and len(text) > len(before) + len(after):
            return text[len(before) : len(text) - len(after)].strip(), True
    return text, False


def reply(
    model: MiniMind, tokenizer: Tokenizer, chats: Sequence[list[dict]], max_new_tokens: int = LONGEST_ANSWER
) -> list[str]:
    """Greedy replies to several conversations at once."""
    prompts = [tokenizer.encode_chat(chat, add_generation_prompt=True).input_ids for chat in chats]
    completions = complete(model, prompts, max_new_tokens=max_new_tokens, eos_token_id=tokenizer.eos_token_id)
    return [tokenizer.decode(one.tokens, skip_special_tokens=True) for one in completions]


def _asked(record: dict) -> list[dict]:
    """The conversation up to its last user message."""
    messages = record["conversations"]
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages


def _column(path: str | Path, name: str) -> list[float]:
    return [record[name] for record in raw_records(path) if name in record]
