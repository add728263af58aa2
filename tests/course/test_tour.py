"""The tour, end to end in a world of ten people: whole, interrupted, and gone on with."""

import json
import signal
from types import SimpleNamespace

import pytest

from minimind_edu.course import tour as tour_module
from minimind_edu.course.tour import TourConfig, format_report, tour
from minimind_edu.data.world import SmallWorld, files, stages
from minimind_edu.training import Interrupted, loop, read_metrics

WORLD = SmallWorld(10)
HELD_OUT = 60


@pytest.fixture(scope="module", autouse=True)
def small_world():
    """Ten people and few held-out documents: every part of the tour works as always, on less."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tour_module, "SmallWorld", lambda: WORLD)
        held_out = {"eval_pretrain.jsonl": lambda world, _: stages.eval_pretrain_records(world, HELD_OUT)}
        patch.setattr(files, "FILES", stages.FILES | held_out)
        yield


def settings(folder, **changes) -> TourConfig:
    return TourConfig(str(folder), pretrain_epochs=1, sft_epochs=2, documents=300, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tour")
    report = tour(settings(folder), progress=False)
    return SimpleNamespace(
        folder=folder, report=report, saved=json.loads((folder / "report.json").read_text("utf-8"))
    )


def test_the_report_has_every_number(finished):
    report, saved = finished.report, finished.saved
    assert saved["parameters"] == report.parameters > 900_000
    assert saved["loss"] == report.loss > saved["floor"] == report.floor > 0.1
    assert set(saved["tokens"]) == {"pretraining", "fine-tuning"} and min(saved["tokens"].values()) > 1000
    assert set(saved["seconds"]) == {"data", "pretraining", "fine-tuning", "asking"}
    assert min(saved["seconds"].values()) > 0
    assert set(saved["exact_match"]) == {"English", "Chinese"}
    for scores in saved["exact_match"].values():
        assert set(scores) == {"taught", "not taught"}
        assert all(0 <= score <= 1 for score in scores.values())
    assert (saved["seed"], saved["environment"]["threads"] > 0) == (42, True)
    assert "out_dir" not in saved["command"] and str(finished.folder) not in json.dumps(saved)


def test_the_command_in_the_report_says_how_to_do_it_again(finished):
    command = finished.saved["command"]
    assert command == "minimind-edu tour --seed 42 --pretrain_epochs 1 --sft_epochs 2 --documents 300"


def test_the_loss_and_its_floor_are_of_the_held_out_documents(finished):
    records = (finished.folder / "data" / "eval_pretrain.jsonl").read_text("utf-8").splitlines()
    log_probabilities = [json.loads(record)["log_probability"] for record in records]
    assert len(log_probabilities) == HELD_OUT
    tokens = -sum(log_probabilities) / finished.report.floor
    assert tokens == pytest.approx(round(tokens), abs=1e-6) and 30 * HELD_OUT < tokens < 200 * HELD_OUT


def test_five_questions_about_people_who_were_not_taught(finished):
    shown = finished.report.shown
    items = {item.question: item for item in WORLD.questions(seen=False)}
    asked = [items[answer.question] for answer in shown]
    assert len({item.fact for item in asked}) == len({item.person for item in asked}) == len(shown) == 5
    assert {item.language for item in asked} == {"en", "zh"}
    assert [answer.expected for answer in shown] == [item.answer for item in asked]
    assert [answer["given"] for answer in finished.saved["shown"]] == [answer.given for answer in shown]


def test_the_figure_is_there_and_the_models_can_be_used(finished):
    assert finished.report.figure == finished.folder / "loss.png" and finished.saved["figure"] == "loss.png"
    assert (finished.folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    for stage in ("pretrain", "sft"):
        assert (finished.folder / stage / "model" / "config.json").is_file()
        assert any("loss" in line for line in read_metrics(finished.folder / stage / "metrics.jsonl"))


def test_the_report_as_text_shows_answers_and_numbers(finished):
    text, report = format_report(finished.report), finished.report
    for answer in report.shown:
        assert f"  Q  {answer.question}\n" in text and f"  =  {answer.expected}\n" in text
    for number in (f"{report.loss:.4f}", f"{report.floor:.4f}", f"{report.loss / report.floor:.3f}"):
        assert number in text
    for language, scores in report.exact_match.items():
        assert f"exact match, {language}, people it was not " in text and f"{scores['taught']:.3f}" in text
    assert f"{report.tokens['pretraining']:,}" in text and text.endswith(str(report.figure))


@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_an_interrupted_tour_goes_on_to_the_same_result(tmp_path, monkeypatch, finished, stage):
    """Ctrl-C during the second step of a stage; no step is then taken twice."""
    steps, count = [], {name: last_step(finished.folder / name) for name in ("pretrain", "sft")}
    interrupted_after = 2 if stage == "pretrain" else count["pretrain"] + 2
    learning_rate_at = loop.learning_rate_at

    def interrupt(*arguments):
        steps.append(arguments)
        if len(steps) == interrupted_after:
            signal.raise_signal(signal.SIGINT)
        return learning_rate_at(*arguments)

    monkeypatch.setattr(loop, "learning_rate_at", interrupt)
    with pytest.raises(Interrupted):
        tour(settings(tmp_path), progress=False)
    assert not (tmp_path / "report.json").exists()
    resumed = tour(settings(tmp_path, from_resume=1), progress=False)
    whole = finished.report
    assert len(steps) == sum(count.values())
    assert (resumed.loss, resumed.tokens) == (whole.loss, whole.tokens)
    assert (resumed.exact_match, resumed.shown) == (whole.exact_match, whole.shown)


def last_step(folder):
    return read_metrics(folder / "metrics.jsonl")[-1]["step"]


def test_a_tour_says_what_it_does_only_when_asked_to(capsys):
    tour_module._say(False, "1. The data")
    assert capsys.readouterr().out == ""
    tour_module._say(True, "1. The data")
    assert capsys.readouterr().out == "\n1. The data\n"
