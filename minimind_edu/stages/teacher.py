"""What a teacher knows, on disk: its likeliest next tokens for every token of the data.

Running the teacher in every step costs a forward pass of the larger model, again in every epoch. Its
distributions do not change, so they can be computed once. Whole ones are large (a vocabulary of 6,400 takes
12.8 kB a token in 16 bits); the k likeliest tokens hold nearly all of the probability, and what is left is
lumped into one number. Chapter 8 measures what that loses.

Rows are packed anew in every epoch, so the arrays follow the tokens of the documents, not the rows.
"""

import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minimind_edu.data.cache import Progress, cached_folder
from minimind_edu.data.packing import IGNORE_INDEX, PackedDataset, RowDataset, collate
from minimind_edu.data.tokenized import TokenizedDocuments
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.setup import model_digest
from minimind_edu.training.precision import Precision

FORMAT_VERSION = 1


def top_k_log_probabilities(logits: Tensor, k: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The k likeliest tokens, and what is left over.

    Args:
        logits: (N, V).
        k: at most V.
        temperature: divides the logits.

    Returns:
        ids: (N, k) int64, the likeliest first; log-probabilities (N, k + 1) float32, the last of them the
        logarithm of what all other tokens have together (minus infinity where there is none).
    """
    log_probs = (logits.float() / temperature).log_softmax(dim=-1)
    values, ids = log_probs.topk(k, dim=-1)
    others = log_probs.scatter(-1, ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return ids, torch.cat((values, others), dim=-1)


class TeacherTopK:
    """A teacher's top-k distributions, read through memory maps.

    Entry i is what the teacher expects after token i of `TokenizedDocuments.tokens`. Entries are set where
    the next token of the document is labelled; the others are 0 and mean nothing.

    Args:
        folder: where `teacher_top_k` wrote the arrays.
        seconds: what it took the teacher, whenever that was.

    Attributes:
        ids: (tokens, k) unsigned integers, the likeliest token first.
        log_probs: (tokens, k + 1) float16, the last of each the logarithm of the rest.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.ids = np.load(folder / "ids.npy", mmap_mode="r", allow_pickle=False)
        self.log_probs = np.load(folder / "log_probs.npy", mmap_mode="r", allow_pickle=False)

    def __reduce__(self) -> tuple:
        # A copy in a data-loader process maps the files itself.
        return TeacherTopK, (self.folder, self.seconds)

    @property
    def k(self) -> int:
        """How many tokens each entry names."""
        return self.ids.shape[1]

    @property
    def num_bytes(self) -> int:
        """Size of the arrays."""
        return self.ids.nbytes + self.log_probs.nbytes


def teacher_top_k(
    teacher: MiniMind,
    docs: TokenizedDocuments,
    identity: str,
    max_seq_len: int,
    k: int,
    temperature: float,
    device: torch.device,
    precision: Precision,
    batch_size: int = 16,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> TeacherTopK:
    """Run the teacher over all documents once, or find what it said in the cache.

    Args:
        teacher: in evaluation mode and on ``device``.
        identity: names the documents with their tokenizer and ``max_seq_len``.
        max_seq_len: a longer document is read in the pieces that `PackedDataset` trains on.
        k: how many tokens to keep; the vocabulary is the most.
        temperature: that of the loss.
        precision: that of training, so that the teacher says the same as it would there.
        progress: called with (rows done, rows in all).

    Raises:
        DataError: the cache cannot be written.
    """
    k = min(k, teacher.config.vocab_size)
    settings = (FORMAT_VERSION, max_seq_len, k, float(temperature), precision.dtype)
    parts = (model_digest(teacher), identity, *map(repr, settings))
    key = "teacher-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def build(folder: Path) -> dict:
        started = time.perf_counter()
        id_type = "<u2" if teacher.config.vocab_size <= 2**16 else "<u4"
        arrays = [
            np.lib.format.open_memmap(folder / name, "w+", dtype, (docs.num_tokens, width))
            for name, dtype, width in (("ids.npy", id_type, k), ("log_probs.npy", "<f2", k + 1))
        ]
        rows = PackedDataset(docs, max_seq_len, fill=False)  # every labelled token exactly once
        for start in range(0, len(rows), batch_size):
            numbers = range(start, min(start + batch_size, len(rows)))
            batch = collate([rows[row] for row in numbers])
            labelled = batch["labels"][:, 1:] != IGNORE_INDEX
            found = _ask(teacher, batch, labelled, k, temperature, device, precision)
            places = np.stack([token_places(rows, row) for row in numbers])[:, :-1][labelled.numpy()]
            for array, values in zip(arrays, found, strict=True):
                array[places] = values
            if progress:
                progress(numbers.stop, len(rows))
        for array in arrays:
            array.flush()
        return {"seconds": time.perf_counter() - started}

    folder, facts = cached_folder(cache_dir, key, build)
    return TeacherTopK(folder, facts["seconds"])


@torch.inference_mode()
def _ask(
    teacher: MiniMind,
    batch: dict[str, Tensor],
    labelled: Tensor,
    k: int,
    temperature: float,
    device: torch.device,
    precision: Precision,
) -> tuple[np.ndarray, np.ndarray]:
    """The top-k distributions at the positions where ``labelled`` (B, T - 1) is true."""
    with precision.autocast(device):
        hidden, _ = teacher.hidden_states(
            batch["input_ids"].to(device), document_ids=batch["document_ids"].to(device)
        )
        logits = teacher.head(hidden[:, :-1][labelled.to(device)])
    ids, log_probs = top_k_log_probabilities(logits, k, temperature)
    return ids.cpu().numpy(), log_probs.cpu().numpy()


def token_places(rows: RowDataset, row: int) -> np.ndarray:
    """(max_seq_len,) where each token of a row stands in `TokenizedDocuments.tokens`; -1 for padding."""
    places, end = np.full(rows.max_seq_len, -1, dtype=np.int64), 0
    for piece in rows._pieces_of(row):
        source = rows.docs.offsets[rows._rows.document[piece]] + rows._rows.start[piece]
        begin, end = end, end + int(rows._rows.length[piece])
        places[begin:end] = np.arange(source, source + end - begin)
    return places


class TaughtRows(PackedDataset):
    """Packed rows that bring the teacher's distributions along.

    A row has, besides what `PackedDataset` gives, `teacher_ids` (T, k) int32 and `teacher_log_probs`
    (T, k + 1) float16: at position t what the teacher expects at t + 1.
    """

    def __init__(
        self, docs: TokenizedDocuments, known: TeacherTopK, max_seq_len: int, seed: int = 0, fill: bool = True
    ) -> None:
        self.known = known
        super().__init__(docs, max_seq_len, seed, fill)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        places = token_places(self, row)
        is_token = places >= 0
        ids = np.zeros((self.max_seq_len, self.known.k), dtype=np.int32)
        log_probs = np.zeros((self.max_seq_len, self.known.k + 1), dtype=np.float16)
        ids[is_token] = self.known.ids[places[is_token]]
        log_probs[is_token] = self.known.log_probs[places[is_token]]
        taught = {"teacher_ids": torch.from_numpy(ids), "teacher_log_probs": torch.from_numpy(log_probs)}
        return {**super().__getitem__(row), **taught}
