"""A workload says what a step consists of, and refuses what makes no sense."""

import pytest

from minimind_edu.config import ModelConfig
from minimind_edu.hardware import STAGES, Workload

EDU = ModelConfig.preset("edu")


def test_rows_and_tokens_of_each_stage():
    steps = {stage: Workload(EDU, stage, batch_size=4, seq_len=100) for stage in STAGES}
    assert {stage: work.rows for stage, work in steps.items()} == dict.fromkeys(STAGES, 4) | {"dpo": 8}
    assert steps["dpo"].tokens == 800 and steps["pretrain"].scored == 400
    assert steps["sft"].scored < 400
    assert steps["lora"].rank == 2 and "gate_proj" in steps["lora"].targets and steps["sft"].targets == ()
    assert steps["distill"].teacher == EDU and steps["sft"].teacher is None
    assert (steps["grpo"].new_tokens, steps["grpo"].rollout_rows) == (50, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "rlhf"}, "unknown stage 'rlhf'"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"seq_len": -5}, "seq_len must be 1 or more"),
        ({"labelled": 1.5}, "labelled is a share"),
        ({"rank": 4}, "rank belongs to the stage lora"),
        ({"stage": "grpo", "new_tokens": 256}, "new_tokens must be below seq_len"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Workload(EDU, **changes)


def test_a_copy_keeps_what_is_not_changed():
    work = Workload(EDU, "lora", batch_size=4, rank=8)
    assert work.replace(batch_size=2) == Workload(EDU, "lora", batch_size=2, rank=8)
