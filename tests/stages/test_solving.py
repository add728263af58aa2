"""Solving problems: whole answers are judged, and pass@k is what counting all choices gives."""

import itertools
import random

import pytest
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.data.problems import problems
from minimind_edu.generation import Sampling
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages import solving
from minimind_edu.stages.solving import (
    Solved,
    accuracy,
    format_share,
    mean_pass_at_k,
    pass_at_k,
    solve,
)
from minimind_edu.tokenizer import train_fast

PROBLEMS = [*problems("sums", 6, 1), *problems("countdown", 3, 3)]


@pytest.mark.parametrize("n", [1, 4, 7])
def test_pass_at_k_counts_all_choices(n):
    for c in range(n + 1):
        samples = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            choices = list(itertools.combinations(samples, k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, choices)) / len(choices), abs=1e-12)


def test_pass_at_k_has_no_bias():
    """Against the true chance 1 - (1 - p)^k; 1 - (1 - c/n)^k, which people write, is too low."""
    rng, p, n, k = random.Random(0), 0.2, 8, 4
    counts = [sum(rng.random() < p for _ in range(n)) for _ in range(20_000)]
    truth = 1 - (1 - p) ** k
    assert sum(pass_at_k(n, c, k) for c in counts) / len(counts) == pytest.approx(truth, abs=0.01)
    assert sum(1 - (1 - c / n) ** k for c in counts) / len(counts) < truth - 0.05


def test_pass_at_k_of_many_samples():
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5)
    assert pass_at_k(10_000, 5_001, 5_000) == 1.0


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5), (0, 0, 1)])
def test_pass_at_k_without_sense(n, c, k):
    with pytest.raises(ValueError, match="0 <= c <= n"):
        pass_at_k(n, c, k)


@pytest.fixture(scope="module")
def tokenizer():
    texts = [text for problem in PROBLEMS for text in (problem.question, problem.response())]
    return train_fast(texts * 3, 500, split_digits=True)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return MiniMind(ModelConfig(vocab_size=tokenizer.vocab_size, num_key_value_heads=1, **shape))


class Scripted:
    """Stands in for `complete`: what the model is to write to each prompt, and what it was asked."""

    def __init__(self, monkeypatch, tokenizer, write):
        self.tokenizer, self.write, self.asked = tokenizer, write, []
        monkeypatch.setattr(solving, "complete", self)

    def __call__(self, model, prompts, **options):
        self.asked += [(self.tokenizer.decode(prompt), options) for prompt in prompts]
        texts = [self.write(self.tokenizer.decode(prompt)) for prompt in prompts]
        ids = [self.tokenizer.encode(text, special=True) + [self.tokenizer.eos_token_id] for text in texts]
        return [type("Completion", (), {"tokens": one}) for one in ids]


@pytest.mark.parametrize("thinking", [True, False, None])
def test_what_the_prompt_began_is_part_of_the_answer(monkeypatch, tokenizer, model, thinking):
    by_question = {problem.question: problem for problem in PROBLEMS}

    def write(prompt):
        problem = next(value for question, value in by_question.items() if question in prompt)
        whole = problem.response(thinking is not False)
        return whole if thinking is None else whole.split("<think>\n" if thinking else "</think>\n\n", 1)[1]

    script = Scripted(monkeypatch, tokenizer, write)
    solved = solve(model, tokenizer, PROBLEMS, thinking=thinking, batch_size=2)
    assert [one.texts for one in solved] == [(p.response(thinking is not False),) for p in PROBLEMS]
    assert accuracy(solved) == {(): 1.0} and format_share(solved) == (thinking is not False)
    endings = {True: "<think>\n", False: "</think>\n\n", None: "assistant\n"}
    assert all(prompt.endswith(endings[thinking]) for prompt, _ in script.asked)
    assert all(options["eos_token_id"] == tokenizer.eos_token_id for _, options in script.asked)


@pytest.mark.parametrize("place", ["within the answer", "after the answer", "before it"])
def test_control_tokens_spoil_an_answer(monkeypatch, tokenizer, model, place):
    """A decoder that drops them would show the verifier a right answer."""

    def write(prompt):
        whole = next(p for p in PROBLEMS if p.question in prompt).response(False)
        at = {"within the answer": whole.index("</answer>") - 1, "after the answer": len(whole)}.get(place, 0)
        return whole[:at] + tokenizer.bos_token + whole[at:]

    Scripted(monkeypatch, tokenizer, write)
    assert accuracy(solve(model, tokenizer, PROBLEMS)) == {(): 0.0}


def test_each_problem_has_its_own_samples(monkeypatch, tokenizer, model):
    turn = itertools.count()
    right = {problem.question: problem.response(False) for problem in PROBLEMS}

    def write(prompt):  # every third sample is right
        return next(text for q, text in right.items() if q in prompt) if next(turn) % 3 == 0 else "no"

    Scripted(monkeypatch, tokenizer, write)
    seen = []
    solved = solve(
        model, tokenizer, PROBLEMS, samples=3, sampling=Sampling(temperature=1.0), batch_size=4,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert [one.right for one in solved] == [(True, False, False)] * len(PROBLEMS)
    assert [one.problem for one in solved] == PROBLEMS
    assert seen[-1] == (27, 27) and all(len(one.tokens) == 3 for one in solved)
    assert mean_pass_at_k(solved, 1) == pytest.approx(1 / 3) and mean_pass_at_k(solved, 3) == 1
    assert accuracy(solved, "kind") == {("countdown",): pytest.approx(1 / 3), ("sums",): pytest.approx(1 / 3)}


def test_a_real_model_writes_the_same_in_any_batch(tokenizer, model):
    first = solve(model, tokenizer, PROBLEMS, max_new_tokens=12, batch_size=9)
    second = solve(model, tokenizer, PROBLEMS, max_new_tokens=12, batch_size=2)
    assert [one.texts for one in first] == [one.texts for one in second]
    assert all(one.tokens[0] <= 12 for one in first)


def test_accuracy_by_several_attributes():
    solved = [
        Solved(problem, ("",), (problem.language == "en",), (1,)) for problem in problems("sums", 20, (1, 2))
    ]
    found = accuracy(solved, "language", "difficulty")
    assert found == {("en", 1): 1.0, ("en", 2): 1.0, ("zh", 1): 0.0, ("zh", 2): 0.0}


def test_questions_without_sense(tokenizer, model):
    with pytest.raises(ValueError, match="temperature"):
        solve(model, tokenizer, PROBLEMS, samples=2)
    with pytest.raises(ValueError, match="1 or more"):
        solve(model, tokenizer, PROBLEMS, batch_size=0)
    with pytest.raises(ValueError, match="no problem"):
        mean_pass_at_k([], 1)
