"""Small data, and settings of a small model, for tests of commands."""

import json

TINY = [
    "--hidden_size=16", "--num_hidden_layers=1", "--max_seq_len=32", "--vocab_size=300", "--batch_size=4",
    "--max_steps=2", "--device=cpu", "--dtype=float32",
]  # fmt: skip
PLACES = ("cat in the tree", "cat in the house", "bird in the tree", "bird in the house")
SENTENCES = [f"the {place} has {n} friends. 猫在家。" for n in range(8) for place in PLACES]
U, A = {"role": "user", "content": "who is it?"}, {"role": "assistant", "content": "the cat."}


def write_lines(path, records):
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")
    return path
