"""The benchmark: it runs, compares within rounds, and gives all contestants the same work."""

import pytest
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.data.packing import IGNORE_INDEX, PackedDataset, PaddedDataset, collate
from minimind_edu.data.tokenized import TokenizedDocuments
from minimind_edu.hardware import speed
from minimind_edu.hardware.speed import OURS, BenchConfig, BenchResult, Contestant, bench, transformers_loss
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import causal_lm_loss

TINY = {"preset": "qwen3-tiny", "batch_size": 2, "max_seq_len": 64, "steps": 1, "rounds": 2, "device": "cpu"}


def tiny_model(**changes) -> MiniMind:
    torch.manual_seed(3)
    sizes = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2}
    return MiniMind(ModelConfig(**sizes | {"num_attention_heads": 4, "num_key_value_heads": 2} | changes))


def some_documents(lengths) -> TokenizedDocuments:
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(1, 61, (length,), generator=generator).tolist() for length in lengths]
    return TokenizedDocuments.from_lists(ids, pad_token_id=0)


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("kind", ["packed", "packed and padded", "padded", "one document a row"])
def test_transformers_computes_our_loss(kind, qk_norm):
    documents = some_documents([5, 17, 9, 30, 12, 3, 22, 8, 31, 2])
    rows = {
        "packed": lambda: PackedDataset(documents, 32),
        "packed and padded": lambda: PackedDataset(documents, 40, fill=False),
        "padded": lambda: PaddedDataset(documents, 32),
        "one document a row": lambda: PaddedDataset(some_documents([32, 32, 32]), 32),
    }[kind]()
    batch = collate([rows[n] for n in range(len(rows))], trim_padding=kind == "padded")
    assert (int(batch["document_ids"].max()) > 0) == kind.startswith("packed")
    model = tiny_model(qk_norm=qk_norm).eval()
    with torch.no_grad():
        ours, numbers = causal_lm_loss(model, batch)
        theirs, their_numbers = transformers_loss(model.to_transformers().eval(), batch)
    assert float(theirs) == pytest.approx(float(ours), abs=1e-5)
    assert their_numbers["tokens"] == numbers["tokens"] == int((batch["labels"] != IGNORE_INDEX).sum())


def test_a_mask_that_lets_documents_see_each_other_would_be_noticed():
    """The test above can fail: without the document mask, the loss is another one."""
    rows = PackedDataset(some_documents([15, 17, 16, 16]), 32)
    batch = collate([rows[0], rows[1]])
    model = tiny_model().eval()
    with torch.no_grad():
        right, _ = causal_lm_loss(model, batch)
        wrong, _ = causal_lm_loss(model, batch | {"document_ids": torch.zeros_like(batch["document_ids"])})
    assert abs(float(right) - float(wrong)) > 1e-4


def test_the_ratio_is_the_median_of_ratios_within_rounds():
    """A machine that slows down in the middle must not change the ratio."""
    ours, same, padded = (
        Contestant(OURS, True, "auto"),
        Contestant("transformers", True, "auto"),
        Contestant("transformers", False, "float32"),
    )
    speeds = {ours: [100.0, 10.0, 60.0], same: [50.0, 5.0, 20.0], padded: [10.0, 5.0, 60.0]}
    result = BenchResult(BenchConfig(), speeds)
    assert result.ratio(ours) == 1
    assert result.ratio(same) == 2  # of 2, 2, 3
    assert result.ratio(padded) == 2  # of 10, 2, 1
    lines = result.summary().splitlines()
    assert len(lines) == 4 and "tokens/s" in lines[0]
    assert lines[1].split() == ["minimind_edu,", "packed,", "auto", "60", "1.00x"]
    assert lines[3].split() == ["transformers,", "padded,", "float32", "10", "2.00x"]


def test_bench_measures_each_contestant_in_each_round():
    lines = []
    result = bench(BenchConfig(**TINY, vs="transformers"), report=lines.append)
    assert [contestant.name for contestant in result.speeds] == [
        "minimind_edu, packed, auto",
        "transformers, packed, auto",
        "transformers, padded, auto",
        "transformers, padded, float32",
    ]
    assert all(len(speeds) == 2 and min(speeds) > 0 for speeds in result.speeds.values())
    assert [line.split(":")[0] for line in lines] == ["round 1 of 2", "round 2 of 2"]


def test_batches_of_all_contestants_hold_about_the_same_tokens(tmp_path):
    config, labelled = BenchConfig(**TINY | {"batch_size": 16, "max_seq_len": 128}), {}
    for packed in (True, False):
        _, batches = speed._prepare(Contestant(OURS, packed, "float32"), config, str(tmp_path))
        few = [next(batches)[1] for _ in range(10)]
        labelled[packed] = sum(int((batch["labels"] != IGNORE_INDEX).sum()) for batch in few)
        assert packed == all(int(batch["document_ids"].max()) > 0 for batch in few)
        if packed:
            assert all(int((batch["document_ids"] < 0).sum()) == 0 for batch in few)
    assert labelled[False] == pytest.approx(labelled[True], rel=0.15)


def test_a_batch_larger_than_the_data_is_filled_by_going_round(tmp_path):
    config = BenchConfig(**TINY | {"batch_size": 3000, "max_seq_len": 512})
    _, batches = speed._prepare(Contestant(OURS, True, "float32"), config, str(tmp_path))
    numbers, batch = next(batches)
    assert len(numbers) == len(batch["input_ids"]) == 3000 > len(set(numbers))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "gpt-5"}, "no preset is called 'gpt-5'"),
        ({"steps": 0}, "steps must be 1 or more"),
        ({"rounds": 0}, "rounds must be 1 or more"),
        ({"batch_size": -1}, "batch_size must be 1 or more"),
    ],
)
def test_senseless_settings_are_refused_before_a_process_starts(changes, message, monkeypatch):
    monkeypatch.setattr(speed, "_Worker", lambda *_: pytest.fail("a process was started"))
    with pytest.raises(ValueError, match=message):
        bench(BenchConfig(**TINY | changes))


def test_a_failure_in_a_worker_is_told():
    with pytest.raises(ValueError, match=r"minimind_edu, packed, auto: ValueError: max_seq_len is 1"):
        bench(BenchConfig(**TINY | {"max_seq_len": 1}))


def test_a_worker_that_dies_is_told():
    worker = speed._Worker(Contestant(OURS, True, "float32"), BenchConfig(**TINY))
    worker.process.kill()
    with pytest.raises(ValueError, match="ended early"):
        worker.receive()


def test_transformers_missing_is_told(monkeypatch):
    def missing():
        raise ImportError("no module named transformers")

    model = tiny_model()
    monkeypatch.setattr(model, "to_transformers", missing)
    with pytest.raises(ValueError, match=r"transformers is not installed: pip install"):
        speed._to_transformers(model)
