"""The world's files: the same bytes each time, loadable, right, and fair to those who measure with them."""

import json
import os
import re
import subprocess
import sys

import pytest

from minimind_edu.data.errors import DataError
from minimind_edu.data.records import load_records
from minimind_edu.data.world import SmallWorld, files
from minimind_edu.data.world.files import COMMITTED, DEFAULT_DOCUMENTS, build_files, default_file
from minimind_edu.data.world.language import FACTS
from minimind_edu.data.world.stages import FILES, conversation, dpo_records, reasoning_trace
from minimind_edu.data.world.world import LANGUAGES

KINDS = {
    "pretrain.jsonl": "pretrain",
    "sft.jsonl": "sft",
    "lora_identity.jsonl": "sft",
    "lora_clinic.jsonl": "sft",
    "dpo.jsonl": "dpo",
    "reason.jsonl": "sft",
    "rlvr.jsonl": "rlvr",
    "eval_pretrain.jsonl": "pretrain",
    "eval_facts.jsonl": "rlvr",
    "eval_clinic.jsonl": "rlvr",
    "eval_sums.jsonl": "rlvr",
}


@pytest.fixture(scope="module")
def world() -> SmallWorld:
    return SmallWorld()


@pytest.fixture(scope="module")
def built(tmp_path_factory, world):
    """The folder of the default world's files, built here."""
    folder = tmp_path_factory.mktemp("datasets")
    build_files(folder, world)
    return folder


def records_of(folder, name):
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def texts_of(messages):
    return [message["content"] for message in messages]


# -- files -------------------------------------------------------------------------------------------------


def test_two_builds_give_the_same_bytes(tmp_path, built):
    """One of them in a process of its own, with another hash seed and another locale."""
    code = (
        "import sys; from minimind_edu.data.world import SmallWorld; "
        "from minimind_edu.data.world.files import build_files; "
        "build_files(sys.argv[1], SmallWorld(12, 3), 200)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77", "LC_ALL": "C", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "one"], check=True, env=environment)
    counts = build_files(tmp_path / "two", SmallWorld(12, 3), 200)
    for name in FILES:
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert one == two and one.count(b"\n") == counts[name] and b"\r" not in one
    assert {path.name for path in (tmp_path / "two").iterdir()} == set(FILES)  # nothing temporary is left


@pytest.mark.parametrize("name", FILES)
def test_committed_files_are_what_the_generator_writes(name, built):
    if not (COMMITTED / name).is_file():
        pytest.skip(f"datasets/{name} is not in this checkout")
    same = (COMMITTED / name).read_bytes() == (built / name).read_bytes()
    assert same, "run `minimind-edu data build`, and raise WORLD_VERSION"


def test_all_files_together_have_ten_megabytes_at_most(built):
    assert sum((built / name).stat().st_size for name in FILES) <= 10_000_000


@pytest.mark.parametrize("name", FILES)
def test_each_file_loads_as_its_kind(name, built, tmp_path):
    records = load_records(built / name, KINDS[name], cache_dir=tmp_path)
    assert len(records) == len(records_of(built, name)) > 0 and not records.dropped and not records.is_stream


def test_progress_counts_records_and_names_choose_files(tmp_path):
    calls = []
    counts = build_files(
        tmp_path, SmallWorld(4), names=("lora_clinic.jsonl",), progress=lambda *call: calls.append(call)
    )
    assert list(counts) == ["lora_clinic.jsonl"] == [path.name for path in tmp_path.iterdir()]
    assert calls == [("lora_clinic.jsonl", number + 1) for number in range(counts["lora_clinic.jsonl"])]


def test_an_unfinished_file_does_not_replace_a_whole_one(tmp_path):
    build_files(tmp_path, SmallWorld(4), 5)
    before = (tmp_path / "pretrain.jsonl").read_bytes()

    def interrupt(name, count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_files(tmp_path, SmallWorld(4, seed=1), 5, progress=interrupt)
    assert (tmp_path / "pretrain.jsonl").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the world's files here"):
        build_files(tmp_path / "file", SmallWorld(4), 5)


def test_the_default_file_is_the_committed_one_or_built_into_the_cache(tmp_path, monkeypatch, built):
    monkeypatch.setattr(files, "COMMITTED", built)
    assert default_file("sft.jsonl") == built / "sft.jsonl"
    monkeypatch.setattr(files, "COMMITTED", tmp_path / "no checkout")
    path = default_file("lora_identity.jsonl", tmp_path / "cache")
    assert path.is_relative_to(tmp_path / "cache")
    assert path.read_bytes() == (built / "lora_identity.jsonl").read_bytes()
    monkeypatch.setattr(files, "build_files", lambda *_: pytest.fail("built again"))
    assert default_file("lora_identity.jsonl", tmp_path / "cache") == path
    with pytest.raises(ValueError, match=r"no file 'sft'; it has pretrain\.jsonl, "):
        default_file("sft")


# -- what is in them ---------------------------------------------------------------------------------------


def test_pretraining_and_its_held_out_documents(built, world):
    texts = [record["text"] for record in records_of(built, "pretrain.jsonl")]
    assert len(texts) == DEFAULT_DOCUMENTS
    held_out = records_of(built, "eval_pretrain.jsonl")
    assert len(held_out) == 1000
    trained = set(texts)
    shared = [record for record in held_out if record["text"] in trained]
    # Independent draws: a biography of the same person in the same words is rare, and stories rarer.
    assert len(shared) < 20
    for record in held_out[::25]:
        assert world.derivations(record["text"]) == pytest.approx([record["log_probability"]])


@pytest.mark.parametrize("name", ["sft.jsonl", "dpo.jsonl"])
def test_no_untaught_person_is_asked_about(name, built, world):
    column = "conversations" if name == "sft.jsonl" else "chosen"
    questions = [texts_of(record[column])[0] for record in records_of(built, name)]
    answers = dict(texts_of(record[column]) for record in records_of(built, name))
    taught = list(world.questions(seen=True))
    untaught = {item.question for item in world.questions(seen=False)}
    assert len(taught) == len(untaught) == 50 * len(FACTS) * 4 * 2
    assert not untaught & set(questions)
    assert {item.question for item in taught} <= set(questions) and len(set(questions)) == len(questions)
    for item in taught:
        assert answers[item.question].endswith(item.answer)
    names = {
        world.person(i).names[c]: world.is_taught(world.person(i)) for i in range(100) for c in LANGUAGES
    }
    assert all(taught for question in questions for name, taught in names.items() if name in question)


def test_sums_in_fine_tuning_are_right(built):
    sums = 0
    for record in records_of(built, "sft.jsonl"):
        question, answer = texts_of(record["conversations"])
        numbers = [int(number) for number in re.findall(r"\d+", answer)]
        if numbers:
            sums += 1
            assert numbers[0] + numbers[1] == numbers[2]
            assert [int(n) for n in re.findall(r"\d+", question)] == numbers[:2]
    assert sums == 2 * 11 * 11


def test_preferences_differ_in_truth_or_in_manners(built, world):
    truth = {item.question: item for item in world.questions(seen=True)}
    curt = false = 0
    for record in records_of(built, "dpo.jsonl"):
        (question, chosen), (asked, rejected) = texts_of(record["chosen"]), texts_of(record["rejected"])
        item = truth[question]
        polite = [form.format(answer=item.answer) for form in LANGUAGES[item.language].polite]
        assert question == asked and chosen in polite
        value = world.value(world.person(item.person), item.fact, item.language)
        if rejected == value:
            curt += 1
        else:
            false += 1
            name = world.person(item.person).names[item.language]
            answer = re.escape(LANGUAGES[item.language].facts[item.fact].answer)
            stated = re.search(answer.replace(r"\{name\}", name).replace(r"\{value\}", "(.+)"), rejected)
            assert stated and stated[1] not in (value, name)
    assert abs(curt - false) < 0.1 * (curt + false)


@pytest.mark.parametrize("people", [2, 3, 4, 100])
def test_inventions_are_never_true_and_nobody_is_their_own_friend(people):
    for seed in range(3):
        world = SmallWorld(people, seed)
        items = {item.question: item for item in world.questions(seen=True)}
        for record in dpo_records(world):
            question, rejected = texts_of(record["rejected"])
            item = items[question]
            person = world.person(item.person)
            if rejected != world.value(person, item.fact, item.language):  # not the curt one
                assert item.answer not in rejected
                if item.fact == "friend" and people > 2:
                    assert rejected.count(person.names[item.language]) == 1


STEP = {
    "en": r"(\d) \+ (\d) \+ carry (\d) = (\d+): write (\d), carry (\d)\.",
    "zh": r"(\d)＋(\d)＋进位(\d)＝(\d+)：写(\d)，进(\d)。",
}


def check_trace(code, trace, a, b):
    """Follow a trace line by line; returns the sum it arrives at."""
    first, *steps, last = trace.split("\n")
    assert first == LANGUAGES[code].reasoning["first"]
    carry, digits, xs, ys = 0, "", "", ""
    for step in steps:
        x, y, before, total, digit, after = map(int, re.fullmatch(STEP[code], step).groups())
        assert before == carry and x + y + before == total == 10 * after + digit
        carry, digits, xs, ys = after, f"{digit}{digits}", f"{x}{xs}", f"{y}{ys}"
    assert int(xs) == a and int(ys) == b and len(xs) == max(len(str(a)), len(str(b)))
    assert last == LANGUAGES[code].reasoning["last"].format(k=carry)
    return int(f"{carry}{digits}")


@pytest.mark.parametrize("code", ["en", "zh"])
@pytest.mark.parametrize(
    ("a", "b"), [(0, 0), (5, 5), (7, 0), (0, 930), (999, 1), (1, 999), (999, 999), (45, 550), (123456, 98)]
)
def test_reasoning_adds_any_two_numbers(code, a, b):
    assert check_trace(code, reasoning_trace(code, a, b), a, b) == a + b


def test_reasoning_records_are_right(built):
    records = records_of(built, "reason.jsonl")
    lengths = set()
    for record in records:
        question, reply = texts_of(record["conversations"])
        a, b = map(int, re.findall(r"\d+", question))
        trace, answer = re.fullmatch(
            r"<think>\n(.*)\n</think>\n<answer>\n(\d+)\n</answer>", reply, re.S
        ).groups()
        code = "en" if question.startswith("What") else "zh"
        assert check_trace(code, trace, a, b) == int(answer) == a + b
        lengths.add((len(str(a)), len(str(b))))
    assert len(records) == 3000 and lengths == {(x, y) for x in (1, 2, 3) for y in (1, 2, 3)}


@pytest.mark.parametrize("name", ["rlvr.jsonl", "eval_sums.jsonl"])
def test_ground_truths_of_sums_are_right(name, built):
    for record in records_of(built, name):
        question, reply = texts_of(record["conversations"])
        a, b = map(int, re.findall(r"\d+", question))
        assert reply == "" and record["gt"] == str(a + b)
        assert record["language"] == ("en" if question.isascii() else "zh")


def test_held_out_sums_are_other_draws_than_those_to_learn_from(built):
    asked = {
        name: [texts_of(record["conversations"])[0] for record in records_of(built, name)]
        for name in ("reason.jsonl", "rlvr.jsonl", "eval_sums.jsonl")
    }
    for name in ("reason.jsonl", "rlvr.jsonl"):
        known = sum(question in set(asked[name]) for question in asked["eval_sums.jsonl"])
        assert known < 0.25 * len(asked["eval_sums.jsonl"])  # one-digit sums are few, so some do recur


def test_fact_questions_ask_each_person_once_a_fact_and_language(built, world):
    records = records_of(built, "eval_facts.jsonl")
    items = {item.question: item for seen in (True, False) for item in world.questions(seen)}
    asked = [items[texts_of(record["conversations"])[0]] for record in records]
    assert len({(item.person, item.fact, item.language) for item in asked}) == len(records) == 100 * 5 * 2
    for record, item in zip(records, asked, strict=True):
        assert len(record["conversations"]) == 1 and record["gt"] == item.answer
        assert (record["language"], record["fact"]) == (item.language, item.fact)
        assert record["seen"] == item.seen == world.is_taught(world.person(item.person))
    wordings = {(item.fact, item.language, items_index(item, world)) for item in asked}
    assert len(wordings) == 5 * 2 * 4  # every wording is used


def items_index(item, world):
    person = world.person(item.person)
    return list(world.questions_about(person, item.fact, item.language, item.seen)).index(item)


def test_the_clinic_keeps_a_wording_of_each_question_for_evaluation(built):
    taught = dict(texts_of(record["conversations"]) for record in records_of(built, "lora_clinic.jsonl"))
    for record in records_of(built, "eval_clinic.jsonl"):
        (question,) = texts_of(record["conversations"])
        assert question not in taught and record["gt"] in taught.values()
        assert record["language"] == ("en" if question.isascii() else "zh")
    assert len(taught) == 2 * 16 * 4 and len(records_of(built, "eval_clinic.jsonl")) == 2 * 16
    # The last wording appears with no complaint among those that are taught.
    for words in LANGUAGES.values():
        held_out = {words.clinic_questions[-1].format(complaint=complaint) for complaint, _ in words.clinic}
        assert not held_out & set(taught)


def test_identity_answers_do_not_depend_on_the_wording(built):
    answers = [texts_of(record["conversations"]) for record in records_of(built, "lora_identity.jsonl")]
    assert len({question for question, _ in answers}) == len(answers) == 2 * 3 * 4
    assert len({answer for _, answer in answers}) == 2 * 3


def test_a_world_in_one_language_has_files_in_that_language(tmp_path):
    build_files(tmp_path, SmallWorld(4, 0, ("en",)), 20)
    for name in FILES:
        assert all(line.isascii() for line in (tmp_path / name).read_text(encoding="utf-8").splitlines())


def test_turns_alternate():
    assert [message["role"] for message in conversation("a", "b", "c")] == ["user", "assistant", "user"]
    assert conversation() == []


def test_no_sum_of_the_evaluation_is_trained_on(default_sums):
    held_out = default_sums("eval_sums.jsonl")
    assert len(held_out) > 300
    for trained in ("reason.jsonl", "rlvr.jsonl"):
        assert not held_out & default_sums(trained)


@pytest.fixture
def default_sums():
    """File name -> the pairs of numbers that its questions add up."""
    import re

    def pairs(name):
        records = FILES[name](SmallWorld(), 1)
        questions = [record["conversations"][0]["content"] for record in records]
        return {tuple(re.findall(r"\d+", question)) for question in questions}

    return pairs
