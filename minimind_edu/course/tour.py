"""The tour: from nothing to a small model that answers questions, and how well it does."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tqdm.auto import tqdm

from minimind_edu.course.figures import loss_curve, save_figure
from minimind_edu.course.results import environment
from minimind_edu.data.world import SmallWorld
from minimind_edu.data.world.files import DEFAULT_DOCUMENTS, build_files
from minimind_edu.evaluation import Answer, answer_questions, exact_match, perplexity
from minimind_edu.stages.pretrain import PretrainConfig, pretrain
from minimind_edu.stages.setup import progress_callback
from minimind_edu.stages.sft import SFTConfig, sft
from minimind_edu.training import read_metrics

LANGUAGE_NAMES = {"en": "English", "zh": "Chinese"}


@dataclass
class TourConfig:
    """Settings of the tour.

    Args:
        out_dir: folder for everything the tour makes.
        seed: seed of training (the world is always the same).
        pretrain_epochs: passes over the world's documents.
        sft_epochs: passes over the questions and answers.
        documents: pretraining documents of the world.
        from_resume: 1 goes on where an interrupted tour stopped.
    """

    out_dir: str = "out/tour"
    seed: int = 42
    pretrain_epochs: int = PretrainConfig.epochs
    sft_epochs: int = SFTConfig.epochs
    documents: int = DEFAULT_DOCUMENTS
    from_resume: int = 0

    def command(self) -> str:
        """The command line that does the same, wherever it writes to."""
        options = [
            f"--{field.name} {getattr(self, field.name)}"
            for field in fields(self)
            if field.name not in ("out_dir", "from_resume")
            and (field.name == "seed" or getattr(self, field.name) != field.default)
        ]
        return " ".join(["minimind-edu tour", *options])


@dataclass(frozen=True)
class TourReport:
    """What the tour measured.

    Attributes:
        seed, command: how to measure it again.
        loss: on held-out documents, nats a token, after pretraining; ``floor``: their entropy.
        tokens: labelled tokens trained on, by stage; ``seconds``: wall time, by stage.
        exact_match: by language, for people SFT taught about and for those it did not.
        shown: five questions about people it did not teach, with the model's answers.
        figure: the loss curve.
    """

    seed: int
    command: str
    parameters: int
    loss: float
    floor: float
    tokens: dict[str, int]
    seconds: dict[str, float]
    exact_match: dict[str, dict[str, float]]
    shown: tuple[Answer, ...]
    figure: Path


def tour(config: TourConfig, progress: bool = True) -> TourReport:
    """Build the data, train a tokenizer, pretrain, fine-tune, ask. Writes ``out_dir/report.json``.

    Raises:
        ValueError: a setting makes no sense; other errors as of ``pretrain`` and ``sft``.
    """
    if config.from_resume not in (0, 1):
        raise ValueError(f"from_resume must be 0 or 1, not {config.from_resume}")
    out, seconds = Path(config.out_dir), {}
    shared = {
        "seed": config.seed,
        "from_resume": config.from_resume,
        "overwrite": 1 - config.from_resume,
        "cache_dir": str(out / "cache"),
    }
    _say(progress, "1. The data: a small world of 100 people, in English and Chinese")
    started = time.perf_counter()
    with tqdm(desc="writing", unit=" records", disable=not progress, leave=False, delay=1.0) as bar:
        build_files(out / "data", SmallWorld(), config.documents, progress=lambda name, count: bar.update())
    seconds["data"] = time.perf_counter() - started

    _say(progress, "2. Tokenizer and pretraining: read every document, predict every next token")
    started = time.perf_counter()
    base = pretrain(
        PretrainConfig(
            **shared,
            data_path=str(out / "data" / "pretrain.jsonl"),
            out_dir=str(out / "pretrain"),
            epochs=config.pretrain_epochs,
        ),
        progress,
    )
    # A tour that went on after a stop counts the earlier sittings too.
    seconds["pretraining"] = max(time.perf_counter() - started, base.fit.seconds)
    held_out = perplexity(
        base.model, base.tokenizer, out / "data" / "eval_pretrain.jsonl", cache_dir=out / "cache"
    )
    figure = loss_curve(
        read_metrics(out / "pretrain" / "metrics.jsonl"),
        held_out.floor,
        held_out.loss,
        f"Pretraining {base.model.num_parameters() / 1e6:.2f}M parameters on the small world",
    )
    figure_path = save_figure(figure, out / "loss.png")

    _say(progress, "3. Fine-tuning: learn to answer, from questions about half of the people")
    started = time.perf_counter()
    chat = sft(
        SFTConfig(
            **shared,
            data_path=str(out / "data" / "sft.jsonl"),
            out_dir=str(out / "sft"),
            from_weight=str(out / "pretrain"),
            epochs=config.sft_epochs,
        ),
        progress,
    )
    seconds["fine-tuning"] = max(time.perf_counter() - started, chat.fit.seconds)

    _say(progress, "4. Questions: about the people it was taught to answer about, and about the others")
    started = time.perf_counter()
    with progress_callback("asking", progress) as report:
        answers = answer_questions(
            chat.model,
            chat.tokenizer,
            out / "data" / "eval_facts.jsonl",
            progress=report,
            cache_dir=out / "cache",
        )
    seconds["asking"] = time.perf_counter() - started
    report = TourReport(
        seed=config.seed,
        command=config.command(),
        parameters=base.model.num_parameters(),
        loss=held_out.loss,
        floor=held_out.floor,
        tokens={"pretraining": base.fit.tokens, "fine-tuning": chat.fit.tokens},
        seconds=seconds,
        exact_match=_scores(answers),
        shown=tuple(_five(answers)),
        figure=figure_path,
    )
    _save(report, out / "report.json")
    return report


def format_report(report: TourReport) -> str:
    """The report as text: five answers, then the table."""
    lines = ["", "Five questions about people it was never fine-tuned on", ""]
    for answer in report.shown:
        lines += [f"  Q  {answer.question}", f"  A  {answer.given}", f"  =  {answer.expected}", ""]
    rows = [
        ("parameters", f"{report.parameters:,}"),
        ("pretraining loss on held-out documents", f"{report.loss:.4f} nats a token"),
        ("floor (entropy of the data)", f"{report.floor:.4f} nats a token"),
        ("loss / floor", f"{report.loss / report.floor:.3f}"),
        *((f"tokens, {stage}", f"{count:,}") for stage, count in report.tokens.items()),
        *((f"seconds, {stage}", f"{taken:.0f}") for stage, taken in report.seconds.items()),
        ("seconds in all", f"{sum(report.seconds.values()):.0f}"),
    ]
    for language, scores in report.exact_match.items():
        rows.append((f"exact match, {language}, people it was fine-tuned on", f"{scores['taught']:.3f}"))
        rows.append((f"exact match, {language}, people it was not", f"{scores['not taught']:.3f}"))
    width = max(len(name) for name, _ in rows)
    lines += [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, "", f"The loss curve with its floor: {report.figure}"])


def _scores(answers: list[Answer]) -> dict[str, dict[str, float]]:
    scores = exact_match(answers, "language", "seen")
    return {
        LANGUAGE_NAMES[code]: {"taught": scores[code, True], "not taught": scores[code, False]}
        for code in sorted({language for language, _ in scores})
    }


def _five(answers: list[Answer]) -> Iterator[Answer]:
    """One question a fact, the languages in turn, each about another person who was not taught."""
    facts = list(dict.fromkeys(answer.record["fact"] for answer in answers))
    for number, fact in enumerate(facts):
        code = list(LANGUAGE_NAMES)[number % len(LANGUAGE_NAMES)]
        wanted = {"fact": fact, "language": code, "seen": False}
        yield [a for a in answers if all(a.record[key] == value for key, value in wanted.items())][number]


def _save(report: TourReport, path: Path) -> None:
    numbers = asdict(report) | {"figure": report.figure.name, "environment": environment()}
    path.write_text(json.dumps(numbers, ensure_ascii=False, indent=1), encoding="utf-8")


def _say(progress: bool, line: str) -> None:
    if progress:
        print(f"\n{line}", flush=True)
