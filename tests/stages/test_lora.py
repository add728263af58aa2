"""LoRA: the method on random layers and models, and the stage from a file to an adapter."""

import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.data.records import Records, load_records
from minimind_edu.data.world.files import default_file
from minimind_edu.model.weights import WeightsError
from minimind_edu.stages.lora import (
    LoRAConfig,
    LoRALinear,
    active_adapter,
    adapter_names,
    apply_lora,
    count_trainable,
    load_adapter,
    lora,
    lora_parameters,
    merge_lora,
    remove_lora,
    set_adapter,
    unmerge_lora,
    untrained_tokens,
    with_replay,
)
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.stages.setup import load_model, save_model
from minimind_edu.tokenizer import train_fast
from minimind_edu.training import CheckpointError, TrainConfig, read_metrics
from minimind_edu.training.optim import OptimizerSet

HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
SHAPE = ModelConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, max_position_embeddings=64, **HEADS)
MOE = {"use_moe": True, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


def make(seed=0, **changes):
    torch.manual_seed(seed)
    return MiniMind(SHAPE.replace(**changes)).eval()


def adapted(model, seed=1, **settings):
    """With an adapter that does something: B is no longer zero."""
    torch.manual_seed(seed)
    apply_lora(model, **settings)
    for name, parameter in lora_parameters(model).items():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.2)
    return model


IDS = torch.randint(0, 60, (3, 20), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def logits(model):
    return model(IDS).logits


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# --- one layer ---


@pytest.mark.parametrize("rank, alpha, bias", [(1, 1.0, False), (3, 16.0, True), (8, 4.0, False)])
def test_a_layer_is_the_base_plus_the_scaled_product(rank, alpha, bias):
    torch.manual_seed(rank)
    base = nn.Linear(10, 6, bias=bias)
    weight, x = base.weight.clone(), torch.randn(4, 5, 10, requires_grad=True)
    model = adapted(nn.ModuleDict({"q_proj": base}), rank=rank, alpha=alpha, targets="q_proj")
    layer = model["q_proj"]
    a, b = layer.lora_A["default"], layer.lora_B["default"]
    assert a.shape == (rank, 10) and b.shape == (6, rank)
    right = F.linear(x, weight + b @ a * (alpha / rank), base.bias)
    assert torch.allclose(layer(x), right, atol=1e-6)
    grads = torch.autograd.grad(right.square().sum(), (x, a, b))
    ours = torch.autograd.grad(layer(x).square().sum(), (x, a, b))
    for mine, torchs in zip(ours, grads, strict=True):
        assert (mine - torchs).norm() <= 1e-5 * torchs.norm()


def test_the_start_of_a_new_adapter():
    model = make()
    before = logits(model)
    apply_lora(model, rank=4)
    assert torch.equal(logits(model), before)
    for name, parameter in lora_parameters(model).items():
        if name.endswith("lora_B"):
            assert not parameter.any()
        else:  # kaiming_uniform_(a=sqrt 5): uniform within 1 / sqrt(inputs)
            bound = 1 / math.sqrt(parameter.shape[1])
            assert 0.8 * bound < parameter.abs().max() <= bound
            assert abs(float(parameter.detach().mean())) < 0.3 * bound


def test_dropout_is_on_the_adapters_input_only_and_only_in_training():
    model = adapted(make(), dropout=0.5)
    assert torch.equal(logits(model), logits(model))
    same = copy.deepcopy(model)
    for layer in same.modules():
        if isinstance(layer, LoRALinear):
            layer.settings = {"default": copy.copy(layer.settings["default"])}
            object.__setattr__(layer.settings["default"], "dropout", 0.0)
    assert torch.equal(logits(model), logits(same))
    model.train()
    layer, x = model.get_submodule("model.layers.0.self_attn.q_proj"), torch.ones(2000, 32)
    a, b = layer.lora_A["default"], layer.lora_B["default"]
    draws = (layer(x) - F.linear(x, layer.weight)).mean(dim=0)
    assert not torch.equal(layer(x[:1]), layer(x[:1]))
    assert torch.allclose(draws, (b @ a * 2).sum(dim=1), atol=0.1)  # kept inputs are scaled up to make up


# --- a model ---


def test_only_a_and_b_are_trained():
    model = adapted(make(), rank=2).train()
    before = state(model)
    optimizers = OptimizerSet(model, TrainConfig(learning_rate=0.01, weight_decay=0.0))
    loss = causal_lm_loss(model, {"input_ids": IDS, "labels": IDS, "document_ids": torch.zeros_like(IDS)})[0]
    loss.backward()
    assert all((p.grad is not None) == (".lora_" in name) for name, p in model.named_parameters())
    optimizers.optimizers[0].step()
    assert {key.split("::")[0] for key in optimizers.state_tensors()} == {
        name for name in before if ".lora_" in name
    }
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (".lora_" not in name)


def test_counting_by_hand():
    # q_proj is 32 -> 4 heads of 8, v_proj is 32 -> 2 heads of 8; a rank costs inputs + outputs.
    model = make()
    sizes, total = (32 + 32) + (32 + 16), model.num_parameters()
    assert count_trainable(model) == (total, total)
    apply_lora(model, rank=3)
    assert count_trainable(model) == (3 * sizes * 2, total + 3 * sizes * 2)
    assert sum(p.numel() for p in lora_parameters(model).values()) == 3 * sizes * 2


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), "q_proj, v_proj", ["v_proj", "q_proj", "q_proj"]])
def test_targets_by_name(targets):
    model = apply_lora(make(), targets=targets)
    names = {name for name, module in model.named_modules() if isinstance(module, LoRALinear)}
    assert names == {f"model.layers.{n}.self_attn.{part}_proj" for n in (0, 1) for part in "qv"}


def test_a_target_is_a_whole_name_or_its_end():
    model = apply_lora(make(), targets="layers.1.self_attn.q_proj")
    assert list(lora_parameters(model))[0] == "model.layers.1.self_attn.q_proj.lora_A"
    assert len(lora_parameters(model)) == 2
    with pytest.raises(ValueError, match="no linear layer is called 'proj'"):
        apply_lora(make(), targets="proj")


@pytest.mark.parametrize("targets", ["c_attn", ("q_proj", "w_q"), "embed_tokens", "self_attn"])
def test_a_target_that_matches_nothing_names_those_there_are(targets):
    model = make()
    before = state(model)
    with pytest.raises(
        ValueError, match="there are: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_"
    ):
        apply_lora(model, targets=targets)
    assert state(model).keys() == before.keys() and all(p.requires_grad for p in model.parameters())


def test_the_choice_by_square_shape_can_hit_nothing_and_names_cannot():
    """Fault 2: square matrices only. Here the heads are wider than the model, so none is square."""
    model = make(head_dim=16, num_key_value_heads=4)
    square = [m for m in model.modules() if isinstance(m, nn.Linear) and m.in_features == m.out_features]
    assert square == []
    assert count_trainable(apply_lora(model))[0] > 0


def test_all_linear_leaves_out_head_and_router():
    model = apply_lora(make(tie_word_embeddings=False, **MOE), targets="all-linear")
    plain = {
        n for n, m in model.named_modules() if isinstance(m, nn.Linear) and not isinstance(m, LoRALinear)
    }
    assert plain == {"lm_head", "model.layers.0.mlp.gate", "model.layers.1.mlp.gate"}
    assert "model.layers.0.mlp.experts.2.down_proj.lora_B" in lora_parameters(model)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"rank": 0}, "rank must be"),
        ({"rank": 2.5}, "rank must be"),
        ({"alpha": 0.0}, "alpha must be"),
        ({"alpha": math.nan}, "alpha must be"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"targets": ()}, "no target"),
        ({"targets": ""}, "no target"),
        ({"targets": "all-linear,q_proj"}, "stands alone"),
        ({"name": "a.b"}, "cannot be an adapter's name"),
        ({"name": "keys"}, "cannot be an adapter's name"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        apply_lora(make(), **settings)


# --- rows of the embedding ---


def test_rows_replace_those_of_the_embedding():
    model = apply_lora(make(), tokens=(5, 9))
    rows = lora_parameters(model)["model.embed_tokens.lora_rows"]
    base = make()
    assert rows.shape == (2, 32) and torch.equal(logits(model), logits(base))
    assert torch.equal(rows, base.model.embed_tokens.weight[[5, 9]])
    with torch.no_grad():
        rows += torch.randn(2, 32)
        base.model.embed_tokens.weight[[5, 9]] = rows
    assert torch.equal(logits(model), logits(base))  # tied: at the input and at the output
    assert not torch.equal(logits(set_adapter(model, None)), logits(base))
    assert torch.equal(logits(model), logits(make()))


def test_only_the_chosen_rows_are_trained():
    model = apply_lora(make(), rank=1, targets="v_proj", tokens=(5, 9))
    assert count_trainable(model)[0] == 2 * (32 + 16) + 2 * 32
    before = state(model)
    optimizers = OptimizerSet(model.train(), TrainConfig(learning_rate=0.01))
    model(IDS, labels=IDS).loss.backward()
    optimizers.optimizers[0].step()
    for name, tensor in model.state_dict().items():
        moved = ".lora_B" in name or ".lora_rows" in name  # A waits until B is no longer zero
        assert torch.equal(tensor, before[name]) != moved or ".lora_A" in name


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("untied", [False, True])
def test_rows_are_removed_like_the_rest(tmp_path, merge, untied):
    model = adapted(make(tie_word_embeddings=not untied), tokens=(5, 9))
    with torch.no_grad():
        lora_parameters(model)["model.embed_tokens.lora_rows"].mul_(3)
    apart, base = logits(model), logits(make(tie_word_embeddings=not untied))
    merge_lora(model)
    assert (logits(model) - apart).abs().max() < 1e-5
    assert torch.equal(logits(unmerge_lora(model)), apart)
    remove_lora(model, merge=merge)
    assert (logits(model) - (apart if merge else base)).abs().max() < 1e-5
    assert type(model.model.embed_tokens) is nn.Embedding
    assert model.state_dict().keys() == make(tie_word_embeddings=not untied).state_dict().keys()
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(MiniMind.from_pretrained(tmp_path)), logits(model))


def test_two_adapters_with_rows_of_their_own():
    model = apply_lora(make(), name="one", tokens=(5, 9))
    with torch.no_grad():
        lora_parameters(model)["model.embed_tokens.lora_rows"].mul_(3)
    one = logits(model)
    apply_lora(model, name="two", tokens=(1,))
    assert torch.equal(logits(model), logits(make()))
    assert torch.equal(logits(set_adapter(model, "one")), one)


def test_tokens_that_cannot_be():
    for tokens, message in (((60,), "outside the vocabulary"), ((1, 1), "different"), ((-1,), "different")):
        with pytest.raises(ValueError, match=message):
            apply_lora(make(), tokens=tokens)
    with pytest.raises(ValueError, match="this one has 0"):
        apply_lora(nn.ModuleDict({"q_proj": nn.Linear(2, 2)}), targets="q_proj", tokens=(1,))


def test_untrained_tokens_are_those_with_a_twin():
    model = make()
    with torch.no_grad():
        rows = model.model.embed_tokens.weight
        rows[40] = 2 * rows[7] + 0.001  # the same direction
        rows[41] = -rows[8]
    assert untrained_tokens(model, range(60)) == [7, 40]
    assert untrained_tokens(model, [40, 40, 3]) == [40]
    assert untrained_tokens(model, range(60), cosine=1.01) == [] == untrained_tokens(make(), range(60))


# --- merging ---


@pytest.mark.parametrize("changes", [{}, {"attention_bias": True, "qk_norm": False}, MOE])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), "all-linear"])
def test_merged_equals_unmerged(changes, targets):
    model = adapted(make(**changes), targets=targets, rank=4, alpha=8)
    before, apart = state(model), logits(model)
    assert (apart - logits(make(**changes))).abs().max() > 1e-2
    merge_lora(model)
    assert (logits(model) - apart).abs().max() <= 1e-5 * apart.abs().max()
    assert not torch.equal(model.state_dict()["model.layers.0.self_attn.q_proj.weight"],
                           before["model.layers.0.self_attn.q_proj.weight"])  # fmt: skip
    unmerge_lora(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(logits(model), apart)


def test_merged_equals_unmerged_to_1e_6_in_a_layer():
    torch.manual_seed(3)
    base, x = nn.Linear(64, 48, bias=False), torch.randn(100, 64)
    model = adapted(nn.ModuleDict({"q_proj": base}), targets="q_proj")
    apart = model["q_proj"](x)
    merge_lora(model)
    merged = model["q_proj"](x)
    assert (merged - apart).norm() <= 1e-6 * apart.norm()


@pytest.mark.parametrize("merged_before", [False, True])
@pytest.mark.parametrize("merge", [False, True])
def test_removed_is_a_plain_model(tmp_path, merge, merged_before):
    model = adapted(make(), targets="all-linear", dropout=0.1)
    base, apart = logits(make()), logits(model)
    if merged_before:
        merge_lora(model)
    remove_lora(model, merge=merge)
    assert (logits(model) - (apart if merge else base)).abs().max() < 1e-5
    assert {type(m) for m in model.modules() if isinstance(m, nn.Linear)} == {nn.Linear}
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(MiniMind.from_pretrained(tmp_path)), logits(model))


def test_removing_with_no_adapter_active_gives_the_base():
    model = set_adapter(adapted(make()), None)
    assert torch.equal(logits(remove_lora(model)), logits(make()))


def test_what_cannot_be_done_while_merged():
    model = merge_lora(adapted(make()))
    for forbidden in (
        lambda: merge_lora(model),
        lambda: set_adapter(model, None),
        lambda: apply_lora(model, name="second"),
    ):
        with pytest.raises(ValueError, match=r"merged into the weights: unmerge_lora\(model\) first"):
            forbidden()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="nothing to train"):
        OptimizerSet(model, TrainConfig())
    unmerge_lora(model)
    assert all(parameter.requires_grad for parameter in lora_parameters(model).values())


def test_nothing_to_merge_unmerge_remove():
    model = adapted(make())
    with pytest.raises(ValueError, match="no adapter is merged"):
        unmerge_lora(model)
    with pytest.raises(ValueError, match="no adapter is active; there are: default"):
        merge_lora(set_adapter(model, None))
    for function in (remove_lora, merge_lora):
        with pytest.raises(ValueError, match="no adapter"):
            function(make())


def test_merging_in_training_with_dropout_is_refused():
    model = adapted(make(), dropout=0.1).train()
    with pytest.raises(ValueError, match=r"model.eval\(\) first"):
        merge_lora(model)
    merge_lora(model.eval())
    merge_lora(adapted(make()).train())  # without dropout there is nothing to lose


# --- several adapters ---


def test_several_adapters_switched_by_name():
    model = adapted(make(), name="one", targets="v_proj", rank=2)
    one = logits(model)
    adapted(model, seed=5, name="two", targets=("q_proj", "up_proj"), rank=3, alpha=1)
    two = logits(model)
    assert set(adapter_names(model)) == {"one", "two"} and active_adapter(model) == "two"
    alone = adapted(make(), seed=5, targets=("q_proj", "up_proj"), rank=3, alpha=1)
    assert torch.equal(two, logits(alone))
    for name, right in (("one", one), (None, logits(make())), ("two", two), ("one", one)):
        set_adapter(model, name)
        assert torch.equal(logits(model), right)
        trainable = {n for n, p in model.named_parameters() if p.requires_grad}
        assert trainable == {n for n in state(model) if name and n.endswith(f".{name}")}
    merge_lora(model)
    assert (logits(model) - one).abs().max() < 1e-5
    set_adapter(unmerge_lora(model), "two")
    assert torch.equal(logits(model), two)


def test_a_name_twice_and_an_unknown_name():
    model = apply_lora(make(), name="clinic")
    with pytest.raises(ValueError, match="has an adapter called 'clinic' already"):
        apply_lora(model, name="clinic", targets="up_proj")
    with pytest.raises(ValueError, match="no adapter is called 'x'; there are: clinic"):
        set_adapter(model, "x")
    with pytest.raises(ValueError, match="there are: none"):
        set_adapter(make(), "x")


# --- saving ---


def test_a_model_with_adapters_is_not_saved_as_a_model(tmp_path):
    for model in (adapted(make()), merge_lora(adapted(make()))):
        with pytest.raises(WeightsError, match=r"remove_lora\(model\)"):
            model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_autocast():
    model = adapted(make(), targets="all-linear").train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(IDS, labels=IDS)
    out.loss.backward()
    model.eval()
    assert abs((out.loss - model(IDS, labels=IDS).loss).item()) < 0.05
    assert all(p.grad.dtype == torch.float32 and p.grad.any() for p in lora_parameters(model).values())


# --- the stage ---

CHATS = [
    [
        {"role": "user", "content": f"what does number {n} like?"},
        {"role": "assistant", "content": f"tea {n % 3}"},
    ]
    for n in range(40)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a small random model and a file of chats."""
    folder = tmp_path_factory.mktemp("base")
    texts = [message["content"] for chat in CHATS for message in chat]
    tokenizer = train_fast(texts, 300, split_digits=True)
    save_model(make(vocab_size=tokenizer.vocab_size), tokenizer, folder / "model")
    lines = [json.dumps({"conversations": chat}) for chat in CHATS]
    (folder / "chats.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def config(base, out_dir, **changes):
    plain = {
        "data_path": str(base / "chats.jsonl"), "cache_dir": str(base / "cache"), "out_dir": str(out_dir),
        "from_weight": str(base), "max_seq_len": 64, "epochs": 4, "device": "cpu", "dtype": "float32",
        "log_interval": 1, "lora_dropout": 0.1, "warmup_iters": 2, "rank": 4,
        "targets": "q_proj,v_proj,up_proj",
    }  # fmt: skip
    return LoRAConfig(**(plain | changes))


def test_the_stage_leaves_an_adapter_and_a_merged_model(base, tmp_path):
    result = lora(config(base, tmp_path), progress=False)
    losses = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < losses[0] - 0.5
    merged, tokenizer = load_model(tmp_path)
    assert tokenizer.fingerprint == result.tokenizer.fingerprint
    assert torch.equal(logits(merged), logits(result.model.eval()))
    start, _ = load_model(base)
    assert not torch.allclose(logits(start), logits(merged), atol=1e-2)
    load_adapter(start, tmp_path / "adapter")
    assert (logits(start) - logits(merged)).abs().max() < 1e-5
    trainable, total = count_trainable(start)
    assert any(f"{trainable:,} of {total:,} parameters" in note for note in result.notes)


def test_the_stage_trains_the_rows_of_new_tokens(base, tmp_path):
    model, tokenizer = load_model(base)
    ids = sorted(set(tokenizer.encode("tea 2")))
    with torch.no_grad():  # as if these had never been seen
        model.model.embed_tokens.weight[ids] = torch.ones(32)
    save_model(model, tokenizer, tmp_path / "model")
    start = {"from_weight": str(tmp_path / "model"), "epochs": 1}
    result = lora(config(base, tmp_path / "with", **start), progress=False)
    rows = load_adapter(model, tmp_path / "with" / "adapter")
    assert lora_parameters(rows)["model.embed_tokens.lora_rows"].shape == (len(ids), 32)
    assert f"{len(ids)} rows of the embedding" in result.notes[-1]
    without = lora(config(base, tmp_path / "without", new_tokens=0, **start), progress=False)
    assert torch.equal(without.model.model.embed_tokens.weight[ids], torch.ones(len(ids), 32))
    with pytest.raises(ValueError, match="new_tokens must be"):
        lora(config(base, tmp_path / "x", new_tokens=2), progress=False)


def test_earlier_conversations_are_mixed_in(base, tmp_path):
    def records(answer, count):
        chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]
        return Records.from_list([{"conversations": chat}] * count, "sft")

    new, earlier = records("new", 4), records("old", 9)
    both = with_replay(new, earlier, 3, seed=0)
    answers = [record["conversations"][1]["content"] for record in both]
    assert answers == ["new"] * 4 + ["old"] * 3
    assert both.fingerprint == with_replay(new, earlier, 3, seed=0).fingerprint
    assert both.fingerprint != with_replay(new, earlier, 3, seed=1).fingerprint != new.fingerprint
    assert len(with_replay(new, earlier, 100, seed=0)) == 13

    replay = {"replay_records": 20, "replay_path": str(base / "chats.jsonl"), "max_steps": 1}
    alone = lora(config(base, tmp_path / "alone", max_steps=1), progress=False)
    mixed = lora(config(base, tmp_path / "mixed", **replay), progress=False)
    lines = [read_metrics(tmp_path / name / "metrics.jsonl")[0] for name in ("alone", "mixed")]
    assert alone.fit.step == mixed.fit.step == 1 and lines[0]["loss"] != lines[1]["loss"]
    for wrong in ({"replay_records": -1}, {"replay_path": "x.jsonl"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            lora(config(base, tmp_path / "x", **wrong), progress=False)


def test_a_stopped_run_goes_on_to_the_same_adapter(base, tmp_path):
    def pull_the_plug(line):
        if line["step"] == 5:
            raise KeyboardInterrupt

    whole = lora(config(base, tmp_path / "whole"), progress=False)
    with pytest.raises(KeyboardInterrupt):
        lora(config(base, tmp_path / "run", save_interval=2), progress=False, on_log=pull_the_plug)
    with pytest.raises(CheckpointError, match="alpha=2"):
        lora(config(base, tmp_path / "run", from_resume=1, save_interval=2, lora_alpha=2.0), progress=False)
    again = lora(config(base, tmp_path / "run", from_resume=1, save_interval=2), progress=False)
    assert all(map(torch.equal, whole.model.parameters(), again.model.parameters()))
    files = [
        (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in ("whole", "run")
    ]
    assert files[0] == files[1]


def test_the_stage_refuses_before_it_works(base, tmp_path):
    with pytest.raises(ValueError, match="rank must be"):
        lora(config(base, tmp_path, rank=0), progress=False)
    with pytest.raises(ValueError, match="no linear layer is called 'wq'"):
        lora(config(base, tmp_path, targets="wq"), progress=False)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "diary.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not an adapter"):
        lora(config(base, tmp_path), progress=False)
    assert (tmp_path / "adapter" / "diary.txt").read_text() == "mine"


def test_the_default_file_is_the_clinic(base, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("minimind_edu.stages.lora.read_records", lambda *a: seen.append(a[1:3]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lora(config(base, tmp_path, data_path=""), progress=False)
    assert seen == [("sft", "lora_clinic.jsonl")]
    assert len(load_records(default_file("lora_clinic.jsonl"), "sft", cache_dir=tmp_path)) > 100


def test_real_conversations(shared, tmp_path):
    """The loss on held-out lines of MiniMind's own LoRA sample falls, from random weights."""
    source = shared / "data" / "minimind_format" / "lora_data.jsonl"
    texts = [
        m["content"]
        for record in load_records(source, "sft", cache_dir=tmp_path)
        for m in record["conversations"]
    ]
    tokenizer = train_fast(texts, 600)
    save_model(
        make(vocab_size=tokenizer.vocab_size, max_position_embeddings=256), tokenizer, tmp_path / "model"
    )
    lines = []
    settings = config(
        tmp_path, tmp_path / "out", data_path=str(source), from_weight=str(tmp_path / "model"), epochs=30,
        val_fraction=0.2, eval_interval=1, targets="all-linear", max_seq_len=256,
    )  # fmt: skip
    lora(settings, progress=False, on_log=lines.append)
    held_out = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert held_out[-1] < held_out[0] - 0.3
