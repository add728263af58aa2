"""Reinforcement learning end to end on tiny models: rewards rise, runs resume, files and logs are right."""

import copy
import dataclasses
import json
import math
import threading

import pytest
import torch

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.stages import grpo as grpo_module
from minimind_edu.stages import rollout_rows
from minimind_edu.stages.grpo import GRPOConfig, PolicyLoss, group_advantages, grpo, grpo_loss, train_grpo
from minimind_edu.stages.policy import VARIANTS, Variant
from minimind_edu.stages.rollout import Sample
from minimind_edu.stages.rollout_rows import STATISTICS, RolloutRows, read_prompts
from minimind_edu.stages.setup import load_model, save_model
from minimind_edu.tokenizer import train_fast
from minimind_edu.training import CheckpointError, Interrupted, NonFiniteLossError, loop, read_metrics

WORDS = ["one and two make three", "four and five make nine", "what makes six and seven? thirteen!"]
PROBLEMS = [
    {
        "conversations": [
            {"role": "user", "content": f"what makes {a}?"},
            {"role": "assistant", "content": ""},
        ],
        "gt": str(a),
    }
    for a in range(10)
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_fast(WORDS * 50, 320, split_digits=True)


def make_model(tokenizer, seed=0, **changes):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(seed)
    return MiniMind(
        ModelConfig(vocab_size=tokenizer.vocab_size, **(sizes | {"num_key_value_heads": 1} | changes))
    )


def starts_small(text, gt):
    """A task of one token: begin with a lower-case letter. At the start about one token in five does."""
    return float(text[:1].islower())


def settings(tmp_path, **changes):
    fast = {
        "prompts_per_step": 4, "group_size": 8, "batch_size": 16, "max_new_tokens": 2, "max_seq_len": 60,
        "max_steps": 25, "learning_rate": 1e-2, "save_interval": 0, "device": "cpu",
        "overwrite": 1, "dtype": "float32",
    }  # fmt: skip
    return GRPOConfig(out_dir=str(tmp_path / "run"), **(fast | changes))


def train(tokenizer, tmp_path, seed=0, reward=starts_small, on_rollout=None, model=None, **changes):
    """The lines of the log of a short run, and the model."""
    model = model or make_model(tokenizer, seed)
    lines = []
    config = settings(tmp_path, seed=seed, **changes)
    train_grpo(model, tokenizer, PROBLEMS, config, reward, lines.append, on_rollout)
    return lines, model


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_reward_rises_with_every_variant(variant, seed, tokenizer, tmp_path):
    lines, _ = train(tokenizer, tmp_path, seed, variant=variant, max_steps=45)
    first, last = (sum(line["reward"] for line in part) / 5 for part in (lines[:5], lines[-5:]))
    assert first < 0.6 and last > 0.85


@pytest.mark.parametrize(
    "options", [{"updates_per_rollout": 3}, {"beta": 0.01}, {"top_k": 50, "top_p": 0.95}]
)
def test_the_reward_rises_with_other_options(options, tokenizer, tmp_path):
    lines, _ = train(tokenizer, tmp_path, **options, max_steps=60)
    assert sum(line["reward"] for line in lines[-5:]) / 5 > 0.85


def test_the_log(tokenizer, tmp_path):
    lines, _ = train(tokenizer, tmp_path, max_steps=3, beta=0.1)
    assert [line["step"] for line in lines] == [1, 2, 3]
    wanted = set(STATISTICS) | {"loss", "ratio", "clip_share", "kl", "entropy", "grad_norm"}
    assert wanted - set(lines[0]) == {"update_seconds"} and wanted <= set(lines[1])
    assert lines[0]["ratio"] == pytest.approx(1, abs=1e-4) and lines[0]["clip_share"] == 0
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-5) and lines[2]["kl"] > 1e-5
    assert lines[0]["entropy"] == pytest.approx(math.log(tokenizer.vocab_size), abs=0.2)
    assert 0 < lines[0]["dead_groups"] < 1 or lines[0]["reward"] > 0
    assert lines[0]["answer_tokens"] == pytest.approx(2, abs=0.2) and lines[0]["accuracy"] == 0
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert len(list(read_metrics(tmp_path / "run" / "metrics.jsonl"))) == 3


def test_bfloat16_adds_rounding_to_the_ratio_and_no_more(tokenizer, tmp_path):
    lines, _ = train(tokenizer, tmp_path, max_steps=2, dtype="bfloat16")
    assert 0 < abs(lines[0]["ratio"] - 1) < 0.01 and lines[0]["clip_share"] == 0


def test_later_updates_on_the_same_rollout_leave_the_ratio_of_one(tokenizer, tmp_path):
    steps = []
    lines, _ = train(
        tokenizer, tmp_path, updates_per_rollout=2, max_steps=4, on_rollout=lambda step, _: steps.append(step)
    )
    ratios = [abs(line["ratio"] - 1) for line in lines]
    assert ratios[0] < 1e-4 and ratios[2] < 1e-4 and ratios[1] > 1e-3 and ratios[3] > 1e-3
    assert steps == [0, 2]
    assert lines[0]["reward"] == lines[1]["reward"]


def test_one_step_is_the_gradient_of_one_big_batch(tokenizer, tmp_path):
    """However the answers of a step are cut into batches, and whatever the aggregation."""
    for variant in VARIANTS:
        results = []
        for size in (32, 8):
            options = {"variant": variant, "max_steps": 1, "max_new_tokens": 12, "batch_size": size}
            lines, model = train(tokenizer, tmp_path, **options)
            results.append((lines[0]["loss"], lines[0]["grad_norm"], lines[0]["reward"]))
        assert results[0] == pytest.approx(results[1], rel=1e-4, abs=1e-6)


def test_groups_for_the_widget(tokenizer, tmp_path):
    seen = []
    lines, _ = train(tokenizer, tmp_path, max_steps=2, on_rollout=lambda step, groups: seen.append(groups))
    assert [len(groups) for groups in seen] == [4, 4]
    for groups, line in zip(seen, lines, strict=True):
        rewards = torch.tensor([group.rewards for group in groups])
        assert rewards.mean().item() == pytest.approx(line["reward"])
        assert torch.tensor([group.advantages for group in groups]).tolist() == [
            pytest.approx(row) for row in group_advantages(rewards).tolist()
        ]
        for group in groups:
            assert group.question == f"what makes {group.gt}?" and len(group.texts) == 8
            assert group.rewards == tuple(starts_small(text, group.gt) for text in group.texts)
    assert {group.gt for groups in seen for group in groups} <= {str(number) for number in range(10)}


def rows_of(tokenizer, reward, variant, **changes):
    model = changes.pop("model", None) or make_model(tokenizer)
    prompts, _ = read_prompts(PROBLEMS, tokenizer, None, 100)
    config = GRPOConfig()
    options = {
        "prompts_per_step": 4, "group_size": 4, "max_new_tokens": 6, "rows_per_batch": 4, "updates": 1,
        "seed": 0, "precision": grpo_module.resolve_precision("float32", torch.device("cpu")),
    }  # fmt: skip
    return RolloutRows(model, tokenizer, prompts, reward, config.sampling(), variant, **(options | changes))


def test_dropped_groups_count_for_nothing(tokenizer):
    """Two prompts get equal rewards; the loss is that of the other two alone, whatever is beside them."""
    alive = ("1", "3", "5", "7", "9")

    def reward(text, gt):
        return float(len(text)) if gt in alive else 1.0

    for name in VARIANTS:
        variant = dataclasses.replace(VARIANTS[name], drop_equal_groups=True)
        rows = rows_of(tokenizer, reward, variant)
        rows.set_epoch(0)
        batch = collate_all(rows)
        kept = batch["action_mask"].any(dim=1)
        gts = [PROBLEMS[int(record)]["gt"] for record in batch["record"]]
        assert kept.tolist() == [gt in alive for gt in gts] and 0 < int(kept.sum()) < 16
        loss = PolicyLoss(variant, GRPOConfig().sampling(), 0.0, 6)
        both, numbers = loss(rows.model, batch)
        alone, _ = loss(rows.model, {key: tensor[kept] for key, tensor in batch.items()})
        assert torch.equal(both, alone)
        expected = int(batch["action_mask"].sum()) if variant.aggregation == "token" else int(kept.sum())
        assert numbers["tokens"] == expected


def collate_all(rows):
    """All rows of the first rollout, padded to one width."""
    items = [rows[place] for place in range(rows.rows_per_rollout)]
    wide = {"input_ids", "attention_mask", "action_mask", "old_logprobs", "ref_logprobs"} & set(items[0])
    width = max(len(item["input_ids"]) for item in items)
    for item in items:
        short = width - len(item["input_ids"])
        item |= {name: torch.nn.functional.pad(item[name], (0, short)) for name in wide}
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_rewards_that_are_all_equal_leave_the_model_as_it_is(variant, tokenizer, tmp_path):
    start = make_model(tokenizer)
    lines, model = train(
        tokenizer, tmp_path, reward=lambda text, gt: 0.1, variant=variant, max_steps=3,
        model=copy.deepcopy(start),
    )  # fmt: skip
    assert [line["dead_groups"] for line in lines] == [1.0] * 3  # and the steps are logged
    for one, other in zip(model.parameters(), start.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_epoch_asks_every_prompt_in_a_new_order(tokenizer):
    rows = rows_of(tokenizer, starts_small, Variant())
    assert len(rows) == 3 * 16  # ten prompts, four at a time: two are asked again
    orders = []
    for epoch in (0, 1):
        rows.set_epoch(epoch)
        asked = [int(rows[place]["record"]) for place in range(len(rows))]
        assert set(asked) == set(range(10))
        orders.append(list(rows.order))
        assert rows.record_ids(len(rows) - 1) == [asked[-1]]
    assert orders[0] != orders[1]


def test_the_seed_decides(tokenizer, tmp_path):
    runs = [
        train(tokenizer, tmp_path, seed, max_steps=2, model=make_model(tokenizer))[1] for seed in (1, 1, 2)
    ]
    weights = [model.lm_head if model.lm_head else model.model.embed_tokens.weight for model in runs]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_experts_and_dropout(tokenizer, tmp_path):
    model = make_model(tokenizer, use_moe=True, moe_intermediate_size=24, dropout=0.3)
    lines, _ = train(tokenizer, tmp_path, model=model, max_steps=2)
    assert lines[0]["aux_loss"] > 0 and lines[0]["ratio"] == pytest.approx(1, abs=1e-4)


def test_a_reward_that_is_not_finite_is_an_error(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="rewards must be finite"):
        train(tokenizer, tmp_path, reward=lambda text, gt: math.nan, max_steps=1)


def test_damaged_weights_are_named_and_not_trained_on(tokenizer, tmp_path, monkeypatch):
    def broken(*args, **options):
        loss, numbers = policy_loss(*args, **options)
        return loss * math.nan, numbers

    policy_loss = grpo_module.policy_loss
    monkeypatch.setattr(grpo_module, "policy_loss", broken)
    with pytest.raises(NonFiniteLossError, match="step 1; the batch holds records"):
        train(tokenizer, tmp_path, max_steps=1)


# -- the stage ---------------------------------------------------------------------------------------------


@pytest.fixture
def start(tokenizer, tmp_path):
    save_model(make_model(tokenizer), tokenizer, tmp_path / "start")
    with open(tmp_path / "problems.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(problem) + "\n" for problem in PROBLEMS)
    return {
        "from_weight": str(tmp_path / "start"), "data_path": str(tmp_path / "problems.jsonl"),
        "cache_dir": str(tmp_path / "cache"), "max_steps": 4, "max_new_tokens": 8,
    }  # fmt: skip


def stage(tmp_path, start, **changes):
    lines = []
    result = grpo(settings(tmp_path, **(start | {"overwrite": 0} | changes)), False, lines.append)
    return result, lines


def test_the_stage_writes_a_model_and_a_log(start, tmp_path):
    result, lines = stage(tmp_path, start)
    assert result.fit.step == 4 and len(lines) == 4 and result.notes == ()
    again, _ = load_model(tmp_path / "run")
    for name, tensor in result.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert [line["reward"] for line in lines] == [0.0] * 4  # random text is no answer in the right layout


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(start, tmp_path, monkeypatch):
    rewarded = {"reward": starts_small}
    monkeypatch.setattr(grpo_module, "rewards", lambda *weights: rewarded["reward"])
    options = start | {"beta": 0.05, "variant": "dapo"}
    whole, whole_lines = stage(tmp_path / "a", options)
    event = threading.Event()

    def stop_after_two(line):
        if line["step"] == 2:
            event.set()

    class Requests:
        __enter__ = staticmethod(lambda: event)
        __exit__ = staticmethod(lambda *error: None)

    config = settings(tmp_path / "b", **(options | {"overwrite": 0}))
    monkeypatch.setattr(loop, "stop_requests", Requests)
    with pytest.raises(Interrupted, match="after step 2 of 4; the state is saved"):
        grpo(config, False, stop_after_two)
    event.clear()
    rest, lines = stage(tmp_path / "b", options, from_resume=1)
    assert [line["step"] for line in lines] == [3, 4]
    assert [line["reward"] for line in lines] == [line["reward"] for line in whole_lines[2:]]
    assert [line["kl"] for line in lines] == [line["kl"] for line in whole_lines[2:]]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(rest.model.state_dict()[name], tensor)
    with pytest.raises(CheckpointError, match="data"):
        stage(tmp_path / "b", options | {"beta": 0.06}, from_resume=1)


def test_prompts_that_are_too_long_are_left_out_and_named(start, tmp_path):
    long = {"conversations": [{"role": "user", "content": "what makes " * 40}], "gt": "1"}
    with open(start["data_path"], "a", encoding="utf-8") as file:
        file.write(json.dumps(long) + "\n")
    result, _ = stage(tmp_path, start, max_steps=1)
    assert result.notes == ("1 prompts have more than 52 tokens and were left out",)
    with pytest.raises(ValueError, match="none of 11 prompts has at most 2 tokens"):
        stage(tmp_path / "c", start, max_seq_len=10)


def test_the_default_rewards_are_the_verifiers(start, tokenizer, tmp_path, monkeypatch):
    """A stand-in for sampling writes right, wrong and shapeless answers."""
    layout = "<think>\nso\n</think>\n<answer>\n{}\n</answer>"

    def written(model, prompts, group_size, *rest):
        groups = []
        for prompt in prompts:
            number = next(c for c in tokenizer.decode(prompt) if c.isdigit())
            texts = [layout.format(number), layout.format(int(number) + 1), number, "no"]
            ids = [tokenizer.encode(text, special=True) + [tokenizer.eos_token_id] for text in texts]
            groups.append([Sample(tuple(prompt), tuple(one), (-1.0,) * len(one), "stop") for one in ids])
        return groups

    monkeypatch.setattr(rollout_rows, "sample_groups", written)
    _, lines = stage(
        tmp_path, start, group_size=4, max_steps=1, format_weight=0.5, answer_weight=2.0, max_seq_len=200
    )
    assert lines[0]["reward"] == pytest.approx((2.5 + 0.5) / 4)
    assert lines[0]["accuracy"] == 0.25 and lines[0]["format_share"] == 0.5 and lines[0]["dead_groups"] == 0


def test_thinking_is_switched_in_the_prompt_and_judged_with_the_answer(tokenizer, tmp_path):
    seen = []
    for thinking in ("on", "off"):
        train(
            tokenizer, tmp_path, max_steps=1, thinking=thinking,
            on_rollout=lambda step, groups: seen.append(groups[0].texts[0]),
        )  # fmt: skip
    assert seen[0].startswith("<think>\n") and seen[1].startswith("<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_size": 1}, "group_size must be 2"),
        ({"prompts_per_step": 0}, "prompts_per_step"),
        ({"updates_per_rollout": 0}, "updates_per_rollout"),
        ({"max_new_tokens": 60}, "max_new_tokens must be 1 or more and below max_seq_len"),
        ({"beta": -0.1}, "beta must be 0 or more"),
        ({"answer_weight": math.nan}, "answer_weight"),
        ({"thinking": "maybe"}, "unknown thinking"),
        ({"variant": "ppo"}, "unknown variant"),
        ({"eps_low": 2.0}, "eps_low must be"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"top_p": 0.0}, "top_p"),
        ({"accumulation_steps": 2}, "accumulation_steps"),
    ],
)
def test_wrong_settings_are_named(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, **changes).validate()


def test_settings_change_the_variant(tmp_path):
    config = settings(tmp_path, variant="dapo", eps_high=0.4, drop_equal_groups=False)
    assert config.loss_variant() == Variant(aggregation="token", eps_high=0.4)
    assert settings(tmp_path, prompts_per_step=5, group_size=6, batch_size=16).rows_per_pass() == 15
    assert callable(grpo_loss)
