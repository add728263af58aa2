"""The long experiments of chapter 7: what DPO gains in manners, and what it costs in truth.

Everything is measured on people that no pair asks about.
"""

import copy
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from minimind_edu.course import artifacts
from minimind_edu.data.pairs import PairRows, tokenize_pairs
from minimind_edu.data.records import Records, load_records
from minimind_edu.data.world import SmallWorld
from minimind_edu.data.world.files import default_file
from minimind_edu.data.world.stages import dpo_records
from minimind_edu.data.world.world import LANGUAGES as WORDS
from minimind_edu.data.world.world import Question
from minimind_edu.evaluation import Answer, answer_questions, truth_then_manners, win_rate
from minimind_edu.generation import complete
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.dpo import DPOConfig, PreferenceLoss, preference_rows
from minimind_edu.stages.reference import mean_kl, reference_logprobs
from minimind_edu.stages.setup import fit_stage
from minimind_edu.tokenizer import Tokenizer

SEEDS = (1, 2, 3)
LANGUAGES = ("en", "zh")
BETAS = (0.01, 1.0)  # besides the default
ALONE = 1e-6  # a beta with which nothing is left of DPO: supervised fine-tuning on the chosen answers
PROMPTS_FOR_KL = 60

CELLS = [
    *({"recipe": recipe, "seed": seed} for seed in SEEDS for recipe in ("default", "plain", "chosen only")),
    *({"recipe": "again", "seed": seed} for seed in SEEDS),
    *({"recipe": "default", "beta": beta, "seed": 1} for beta in BETAS),
    {"recipe": "default", "sft_weight": 1.0, "seed": 1},
    *({"recipe": "default", "loss_type": loss_type, "seed": 1} for loss_type in ("ipo", "hinge")),
]
RECIPES = {"plain": {"sft_weight": 0.0, "epochs": 1}, "chosen only": {"beta": ALONE}, "default": {}}

AGAIN = {"sft_weight": 0.0, "epochs": 1, "learning_rate": 1e-4}
CURVE = (
    "step",
    "preference_loss",
    "margin",
    "accuracy",
    "chosen_logp",
    "rejected_logp",
    "chosen_reward",
    "rejected_reward",
)

Log = Callable[[dict[str, float]], None]


def run_cell(recipe: str, seed: int, on_log: Log | None = None, **changes: object) -> dict[str, object]:
    """Train from the chat model and measure; see `measure` for what comes back, besides the training curve.

    Args:
        recipe: "default", or one of the others: "plain" DPO, supervised fine-tuning on the "chosen only",
            or "again", where plain DPO follows on the default, with that model as its reference.
        changes: settings that differ from the recipe's.
    """
    model, tokenizer = artifacts.chat_model(progress=False)
    reference = copy.deepcopy(model)
    if recipe == "again":
        train(model, tokenizer, seed)
        reference, changes = copy.deepcopy(model), {**AGAIN, **changes}
    lines = train(model, tokenizer, seed, on_log, **{**RECIPES.get(recipe, {}), **changes})
    return {**measure(model, tokenizer, reference), "curve": curve(lines)}


def curt_pairs() -> list[dict]:
    """The pairs whose rejected answer is curt: the fact, and no other word."""
    return [
        record
        for record in load_records(default_file("dpo.jsonl"), "dpo")
        if record["rejected"][1]["content"] in record["chosen"][1]["content"]
    ]


def train(
    model: MiniMind, tokenizer: Tokenizer, seed: int, on_log: Log | None = None, **settings: object
) -> list[dict[str, float]]:
    """Train a model in place on the world's pairs, as `minimind-edu dpo` does; the lines of its log."""
    lines: list[dict[str, float]] = []

    def log(line: dict[str, float]) -> None:
        lines.append(line)
        if on_log:
            on_log(line)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        config = DPOConfig(out_dir=folder, seed=seed, device="cpu", save_interval=0, **settings)
        records = load_records(default_file("dpo.jsonl"), "dpo")
        data = preference_rows(config, records, model, tokenizer, show=False)
        loss = PreferenceLoss(config.beta, config.loss_type, config.label_smoothing, config.sft_weight)
        fit_stage(config, data, model, loss, show=False, on_log=log)
    return lines


def curve(lines: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """The columns of a log that the chapter draws."""
    kept = [line for line in lines if "loss" in line]
    return {name: [round(line[name], 4) for line in kept] for name in CURVE}


def measure(model: MiniMind, tokenizer: Tokenizer, reference: MiniMind) -> dict[str, object]:
    """How a model answers about people that no pair asks about, beside the chat model.

    Returns:
        What `judge` says of its answers; `prefers`, the share of held-out pairs whose chosen side is the more
        probable one; and `kl` (nats an answer) to `reference`.
    """
    numbers = judge(ask(model, tokenizer))
    scored = reference_logprobs(model, held_out_pairs(tokenizer))
    numbers["prefers"] = round(float((scored[:, 0] > scored[:, 1]).mean()), 4)
    numbers["kl"] = round(kl(model, reference, tokenizer), 3)
    return numbers


def judge(after: Sequence[Answer]) -> dict[str, object]:
    """Answers beside the chat model's.

    Returns:
        For each language `win_rate` against the chat model, `exact` (share of true answers, polite words
        aside) and `polite`.
    """
    numbers: dict[str, object] = {"win_rate": {}, "exact": {}, "polite": {}}
    for language in LANGUAGES:
        ours, theirs = (
            [answer for answer in answers if answer.record["language"] == language]
            for answers in (after, chat_answers())
        )
        scores = [truth_then_manners(answer) for answer in ours]
        numbers["win_rate"][language] = round(win_rate(ours, theirs).rate, 4)
        numbers["exact"][language] = round(sum(is_true for is_true, _ in scores) / len(scores), 4)
        numbers["polite"][language] = round(sum(is_polite for _, is_polite in scores) / len(scores), 4)
    return numbers


def ask(model: MiniMind, tokenizer: Tokenizer) -> list[Answer]:
    """Greedy answers to the 500 questions about people that no pair asks about."""
    return answer_questions(
        model, tokenizer, default_file("eval_facts.jsonl"), keep=lambda record: not record["seen"]
    )


@functools.cache
def chat_answers() -> list[Answer]:
    """The chat model's answers, computed once."""
    return ask(*artifacts.chat_model(progress=False))


def exact(answers: Sequence[Answer]) -> dict[str, float]:
    """Share of true answers, polite words aside, by language."""
    scores = {language: [] for language in LANGUAGES}
    for answer in answers:
        scores[str(answer.record["language"])].append(truth_then_manners(answer)[0])
    return {language: round(sum(found) / len(found), 4) for language, found in scores.items()}


class Forced(NamedTuple):
    """What a model writes after a polite phrase.

    Attributes:
        share: of true answers to the held-out questions.
        first: what it wrote for the first of them.
        empty: share of the questions after which it wrote nothing.
    """

    share: float
    first: str
    empty: float


def after_phrases(model: MiniMind, tokenizer: Tokenizer, language: str) -> dict[str, Forced]:
    """By polite phrase: what a model writes where an answer has to begin with it."""
    asked = [answer for answer in chat_answers() if answer.record["language"] == language]
    shares = {}
    for frame in WORDS[language].polite:
        phrase = tokenizer.encode(frame.split("{answer}")[0].rstrip())
        prompts = [[*prompt, *phrase] for prompt in prompts_of(asked, tokenizer)]
        written = complete(model, prompts, max_new_tokens=48, eos_token_id=tokenizer.eos_token_id)
        said = [tokenizer.decode(one.tokens, skip_special_tokens=True).strip() for one in written]
        right = [one == answer.expected for one, answer in zip(said, asked, strict=True)]
        empty = sum(not one for one in said) / len(said)
        shares[frame.format(answer="…")] = Forced(sum(right) / len(right), said[0], empty)
    return shares


def prompts_of(answers: Sequence[Answer], tokenizer: Tokenizer) -> list[list[int]]:
    """The token ids that each answer was written after."""
    return [
        tokenizer.encode_chat(answer.record["conversations"], add_generation_prompt=True).input_ids
        for answer in answers
    ]


class OtherHalf(SmallWorld):
    """The same world, whose `questions` ask about the people that SFT and DPO do not."""

    def questions(self, seen: bool, language: str | None = None) -> Iterator[Question]:
        """See `SmallWorld.questions`."""
        return super().questions(not seen, language)


def held_out_pairs(tokenizer: Tokenizer) -> PairRows:
    """Every fourth pair about the other half of the people, made as those of `dpo.jsonl`."""
    records = Records.from_list(list(dpo_records(OtherHalf()))[::4], "dpo")
    return PairRows(tokenize_pairs(records, tokenizer), DPOConfig.max_seq_len)


def kl(model: MiniMind, reference: MiniMind, tokenizer: Tokenizer) -> float:
    """KL to a reference on the model's own answers to held-out questions, half of them in each language."""
    answers = chat_answers()[:: len(chat_answers()) // PROMPTS_FOR_KL]
    return mean_kl(model, reference, prompts_of(answers, tokenizer), tokenizer.eos_token_id)
