"""A small random model, preference pairs as rows and batches, and one answer scored the plainest way."""

import torch

from minimind_edu.config import ModelConfig
from minimind_edu.data.pairs import PairRows, tokenize_pairs
from minimind_edu.data.records import Records
from minimind_edu.model.transformer import MiniMind

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}


def make_model(tokenizer, **changes):
    torch.manual_seed(3)
    model = MiniMind(ModelConfig(**(SHAPE | {"vocab_size": tokenizer.vocab_size} | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)  # less uniform than a fresh model
    return model


def make_rows(pairs, tokenizer, folder, **options):
    found = tokenize_pairs(Records.from_list(pairs, "dpo"), tokenizer, folder)
    return PairRows(found, **({"max_seq_len": 128} | options))


def batch_of(rows, places):
    made = [rows.pair(place) for place in places]
    return {name: torch.stack([row[name] for row in made]) for name in made[0]}


def one_answer(model, ids, labels):
    """Sum of the labelled tokens' log-probabilities, one sequence at a time and the plainest way."""
    length = int((labels != -100).nonzero().max()) + 1
    logits = model(ids[None, :length]).logits[0].float().log_softmax(-1)
    return sum(logits[t - 1, labels[t]] for t in range(1, length) if labels[t] != -100)
