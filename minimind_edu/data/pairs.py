"""Preference pairs as rows: two answers to one prompt, rendered alike, with only the answers labelled.

The prompt is what both sides have in common: the messages before the first that differs. That message must be
the assistant's on both sides, since answers to different questions cannot be compared. In a longer dialogue
the sides may go apart after it, questions included; the assistant's words from there on are what is labelled.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minimind_edu.data.cache import Progress, cached_folder
from minimind_edu.data.errors import FAULTS_SHOWN, DataError, Fault, faults_error
from minimind_edu.data.packing import IGNORE_INDEX
from minimind_edu.data.records import Records, chat_of
from minimind_edu.data.tokenized import Part, TokenizedDocuments, write_documents
from minimind_edu.tokenizer.chat import ChatEncoding

FORMAT_VERSION = 2
REPORT_EVERY = 500  # pairs between two calls of `progress`


class BadPair(ValueError):
    """Two conversations that are not two answers to one prompt."""


@dataclass(frozen=True)
class TokenizedPairs:
    """Pairs as token ids.

    Attributes:
        documents: the sides: document 2i is the chosen side of pair i, document 2i + 1 the rejected one;
            supervised are the tokens of the answers.
        identity: names the content and the tokenizer, for caches built from it.
        dropped: how many records were no pairs and left out; `faults`: the first ten of them.
        diverging: pairs of dialogues whose later user messages differ too.
    """

    documents: TokenizedDocuments
    identity: str
    dropped: int = 0
    faults: tuple[Fault, ...] = ()
    diverging: int = 0

    def __len__(self) -> int:
        return len(self.documents) // 2


def tokenize_pairs(
    records: Records,
    tokenizer: Any,
    cache_dir: str | Path | None = None,
    on_bad_record: str = "stop",
    progress: Progress | None = None,
) -> TokenizedPairs:
    """Encode pairs into the cache, or find them there. Memory stays bounded, whatever the file's size.

    Args:
        records: of kind "dpo".
        tokenizer: has `encode_chat`, the special ids, `vocab_size` and `fingerprint`.
        on_bad_record: "stop" raises where two sides do not share their prompt; "skip" counts them.
        progress: called with (records done, records in all).

    Raises:
        DataError: a record is no pair, or none is left; names the first ten by their place, from 0.
        ValueError: not records of pairs.
    """
    if records.kind != "dpo":
        raise ValueError(f"these are {records.kind} records: preference pairs are of kind dpo")
    parts = (str(FORMAT_VERSION), "pairs", records.fingerprint, tokenizer.fingerprint)
    identity = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def build(folder: Path) -> dict:
        facts: dict[str, Any] = {"dropped": 0, "faults": [], "diverging": 0}
        sides = _encode(records, tokenizer, facts, progress or (lambda done, total: None))
        counts = write_documents(folder, sides, tokenizer.vocab_size, supervised=True)
        return {**facts, **counts}

    folder, facts = cached_folder(cache_dir, f"pairs-{identity}", build)
    faults = [Fault("record", number, what) for number, what in facts["faults"]]
    if facts["dropped"] and on_bad_record == "stop":
        summary = f"{facts['dropped']} records are no pairs (--on_bad_record skip leaves them out)"
        raise faults_error(summary, faults, facts["dropped"])
    if not facts["documents"]:
        raise faults_error("there is no usable pair", faults, facts["dropped"])
    documents = TokenizedDocuments.open(folder, tokenizer.pad_token_id)
    return TokenizedPairs(documents, identity, facts["dropped"], tuple(faults), facts["diverging"])


def _encode(records: Records, tokenizer: Any, facts: dict[str, Any], progress: Progress) -> Iterator[Part]:
    """Both sides of every good pair, one after the other; what is left out is counted in `facts`."""
    for place, record in enumerate(records):
        try:
            sides, diverges = encode_pair(record["chosen"], record["rejected"], tokenizer)
        except BadPair as error:
            facts["dropped"] += 1
            if len(facts["faults"]) < FAULTS_SHOWN:
                facts["faults"].append((records.number(place), str(error)))
        else:
            facts["diverging"] += diverges
            for side in sides:
                yield side.input_ids, side.assistant_mask, records.number(place), True
        if (place + 1) % REPORT_EVERY == 0 or place + 1 == len(records):
            progress(place + 1, len(records))


def encode_pair(
    chosen: list[dict[str, Any]], rejected: list[dict[str, Any]], tokenizer: Any
) -> tuple[tuple[ChatEncoding, ChatEncoding], bool]:
    """Token ids of both sides, with masks of their answers; and whether later user messages differ too.

    Both sides go through the same template with the same system message and tools (they belong to the
    prompt), and nothing about the rendering is drawn at random: what differs is what was said.

    Raises:
        BadPair: the sides do not share a prompt, or are not rendered alike.
    """
    chats = [chat_of(side) for side in (chosen, rejected)]
    shared = _shared_messages(chosen, rejected)
    answers_before = sum(message["role"] == "assistant" for message in chosen[:shared])
    sides, starts = [], []
    for messages, tools in chats:
        side = tokenizer.encode_chat(messages, tools=tools)
        start = _start_of_answer(side.assistant_mask, answers_before)
        mask = [bit and place >= start for place, bit in enumerate(side.assistant_mask)]
        sides.append(ChatEncoding(side.input_ids, mask))
        starts.append(start)
    # A token may reach over the end of the header into the answer, hence the shorter of both.
    prompt = min(starts)
    if sides[0].input_ids[:prompt] != sides[1].input_ids[:prompt]:
        raise BadPair("the chat template renders the common prompt differently on the two sides")
    asked = [[m for m in side[shared:] if m["role"] != "assistant"] for side in (chosen, rejected)]
    return (sides[0], sides[1]), asked[0] != asked[1]


def _shared_messages(chosen: list[dict[str, Any]], rejected: list[dict[str, Any]]) -> int:
    """How many messages the sides have in common before their answers go apart."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    following = [side[shared]["role"] if shared < len(side) else None for side in (chosen, rejected)]
    if following == ["assistant", "assistant"] and shared > 0:
        return shared
    if None in following:
        raise BadPair("one side is the beginning of the other, so that no answer differs")
    who = f"a {following[0]} message" if following[0] == following[1] else " and ".join(map(str, following))
    raise BadPair(
        f"chosen and rejected differ first in message {shared + 1} ({who}): they have no prompt in common"
    )


def _start_of_answer(mask: list[bool], answers_before: int) -> int:
    """Place of the first token of an assistant turn, after `answers_before` earlier ones."""
    begins = [place for place, bit in enumerate(mask) if bit and not (place and mask[place - 1])]
    if len(begins) <= answers_before:
        raise BadPair("the chat template does not write every assistant turn")
    return begins[answers_before]


class PairRows(torch.utils.data.Dataset):
    """Pairs as a map-style dataset for the training loop.

    `rows[row]` is a dictionary of tensors, the chosen side before the rejected one; T is the longest side:

    - `input_ids` (2, T) int64: tokens, then the pad token.
    - `labels` (2, T) int64: the ids of the answers' tokens, -100 elsewhere (the model shifts them).
    - `reference_logprobs` (2,) float32, once `set_reference` was called.

    A side of more than `max_seq_len` tokens is cut at its end. A pair is left out where nothing of an answer
    is left on a side, or nothing that tells the two apart.

    Attributes:
        index: (N,) numbers of the pairs that are kept, among the tokenized ones.
        truncated: pairs with a side that was cut; `dropped`: pairs left out for their length.
        epoch: the epoch whose order the rows have now.

    Raises:
        DataError: no pair is left.
        ValueError: `max_seq_len` below 2.
    """

    def __init__(self, pairs: TokenizedPairs, max_seq_len: int, seed: int = 0) -> None:
        if max_seq_len < 2:
            raise ValueError(f"max_seq_len is {max_seq_len}: an answer and what it answers need two tokens")
        self.pairs, self.max_seq_len, self.seed = pairs, max_seq_len, seed
        lengths = pairs.documents.lengths.reshape(-1, 2)
        firsts = np.asarray(pairs.documents.first_targets).reshape(-1, 2)
        kept = ((firsts > 0) & (firsts < max_seq_len)).all(axis=1)
        is_cut = (lengths > max_seq_len).any(axis=1)
        for number in np.flatnonzero(kept & is_cut):
            one, other = (self._side(2 * number + side)[0] for side in (0, 1))
            kept[number] = not np.array_equal(one, other)
        self.index = np.flatnonzero(kept)
        if len(self.index) == 0:
            raise DataError(f"none of {len(pairs)} pairs has answers that differ within {max_seq_len} tokens")
        self.truncated, self.dropped = int((kept & is_cut).sum()), int((~kept).sum())
        self.lengths = np.minimum(lengths[self.index], max_seq_len)  # (N, 2)
        self._reference: np.ndarray | None = None
        self.set_epoch(0)

    def set_reference(self, logprobs: np.ndarray) -> None:
        """Give every pair the log-probabilities (N, 2) of its sides under the reference, by `index`."""
        if logprobs.shape != (len(self), 2):
            raise ValueError(f"log-probabilities must have shape {(len(self), 2)}, not {logprobs.shape}")
        self._reference = np.asarray(logprobs, np.float32)

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of an epoch: the same seed and epoch give the same one on any machine."""
        self.epoch = epoch
        self._order = np.random.default_rng([self.seed, epoch + 1]).permutation(len(self))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return self.pair(self._place(row))

    def pair(self, place: int) -> dict[str, torch.Tensor]:
        """Pair number `place`, counted without regard to the epoch's order."""
        length = int(self.lengths.max())
        input_ids = np.full((2, length), self.pairs.documents.pad_token_id, np.int64)
        labels = np.full((2, length), IGNORE_INDEX, np.int64)
        for side in (0, 1):
            ids, mask = self._side(2 * int(self.index[place]) + side)
            input_ids[side, : len(ids)] = ids
            labels[side, : len(ids)][mask == 1] = ids[mask == 1]
        row = {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)}
        if self._reference is not None:
            row["reference_logprobs"] = torch.from_numpy(self._reference[place])
        return row

    def record_ids(self, row: int) -> list[int]:
        """The number of the record in a row, to name the text behind a bad batch."""
        return [int(self.pairs.documents.record_numbers[2 * self.index[self._place(row)]])]

    def _place(self, row: int) -> int:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return int(self._order[row])

    def _side(self, document: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask of a side, cut to `max_seq_len`."""
        ids, mask = self.pairs.documents[document]
        return ids[: self.max_seq_len], mask[: self.max_seq_len]
