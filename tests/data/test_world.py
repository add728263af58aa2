"""Small World: its people, its documents and their exact probabilities, its questions."""

import itertools
import math
import statistics
import tracemalloc
from collections import Counter

import pytest

from minimind_edu.data.world import SmallWorld
from minimind_edu.data.world.chinese import CHINESE
from minimind_edu.data.world.english import ENGLISH
from minimind_edu.data.world.language import FACTS
from minimind_edu.tokenizer import train_fast

BOTH = ("en", "zh")
TABLES = {"en": ENGLISH, "zh": CHINESE}


# -- probabilities -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("people", "seed", "languages", "count"),
    [
        (2, 3, BOTH, 1000),
        (5, 0, ("en",), 1000),
        (7, 11, ("zh",), 1000),
        (12, "a seed may be any object", ("zh", "en"), 500),
        (100, 0, BOTH, 100),
        (250, 2, BOTH, 20),  # each given name of English is used twice
    ],
)
@pytest.mark.parametrize("split", ["train", "held-out"])
def test_a_document_has_one_derivation_with_its_log_probability(people, seed, languages, count, split):
    world = SmallWorld(people, seed, languages)
    for document in world.documents(count // 2, split):
        assert world.derivations(document.text) == pytest.approx([document.log_probability], abs=1e-9)


@pytest.mark.parametrize("language", BOTH)
def test_the_probability_of_a_document_follows_from_the_number_of_choices(language):
    world, table = SmallWorld(20, 5), TABLES[language]
    words = {slot: len(choices) for slot, choices in table.story_words.items()}
    for document in world.documents(400):
        if document.language != language:
            continue
        if document.kind == "biography":
            choices = 20 * math.factorial(len(FACTS)) * math.prod(len(table.facts[f].wordings) for f in FACTS)
            share = 0.75
        elif document.kind == "sums":
            choices, share = (len(table.sums) * 11 * 11) ** 3, 0.05
        else:
            (template,) = [t for t in table.stories if is_written_by(document.text, t)]
            slots = [slot for slot in words if f"{{{slot}}}" in template]
            choices, share = 20 * len(table.stories) * math.prod(words[slot] for slot in slots), 0.2
        assert document.log_probability == pytest.approx(math.log(share / 2 / choices))


def is_written_by(text, template):
    """Whether the fixed words of a story's template stand in ``text`` in their order."""
    place = 0
    for piece in template.replace("}", "{").split("{")[::2]:
        place = text.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True


def test_texts_of_no_world_or_of_another_have_no_derivation():
    world, other = SmallWorld(6, 1), SmallWorld(6, 2)
    ours = list(world.documents(60))
    assert not any(
        world.derivations(document.text) for document in other.documents(60) if document.kind != "sums"
    )
    for text in ("", " ", "Hello.", *world.languages):
        assert world.derivations(text) == []
    for before, document in itertools.pairwise(ours):
        text, middle = document.text, len(document.text) // 2
        for faulty in (
            text[:-1],
            text[1:],
            text + " ",
            text[:middle] + text[middle + 1 :],
            text[:middle] + "x" + text[middle:],
            f"{before.text} {text}",
            before.text + text,
        ):
            assert world.derivations(faulty) == []


def test_a_false_fact_has_no_derivation():
    world = SmallWorld(6, 1, ("en",))
    biography = next(d.text for d in world.documents(100) if d.kind == "biography")
    told = next(value for value in ENGLISH.facts["food"].values if value in biography)
    for value in ENGLISH.facts["food"].values:
        assert len(world.derivations(biography.replace(told, value))) == (value == told)


def test_entropy_and_kinds_are_as_designed():
    world = SmallWorld()
    documents = list(world.documents(4000))
    kinds = Counter(document.kind for document in documents)
    assert sorted(kinds) == ["biography", "story", "sums"]
    assert abs(kinds["biography"] / 4000 - 0.75) < 0.03
    assert abs(kinds["story"] / 4000 - 0.2) < 0.03
    assert abs(kinds["sums"] / 4000 - 0.05) < 0.015
    assert abs(sum(document.language == "en" for document in documents) / 4000 - 0.5) < 0.03
    # Nats a document: about 18 for a biography, whose facts a model can know, more for a story.
    assert 17 < -statistics.mean(d.log_probability for d in documents if d.kind == "biography") < 19
    assert 18 < -statistics.mean(document.log_probability for document in documents) < 22
    assert len({document.text for document in documents}) > 3900


def test_golden_documents():
    """Anyone with any Python gets these; committed files and published results depend on it."""
    assert SmallWorld().document(0).text == CHINESE_STORY
    assert SmallWorld().document(29_999).text == ENGLISH_BIOGRAPHY
    assert SmallWorld(3, 7, ("en",)).document(4, "held-out").text == HELD_OUT


CHINESE_STORY = (
    "马书泉这位园丁收到了顾嘉琳的信，信上说有人在老桥丢了金色的铃铛。在一个安静的日子，早上，她去找它，心"
    "里很惊讶。后来两个人把它擦干净了。很快全镇都知道了。"
)
ENGLISH_BIOGRAPHY = (
    "Roger Marshwood works as a singer. Visitors find Roger Marshwood in the town of Windhill. Roger"
    " Marshwood went to school with Kevin Heathworth. Roger Marshwood could eat a whole plate of dum"
    "plings. Roger Marshwood is very fond of a goldfish."
)
HELD_OUT = (
    "Nick Westcroft has a pet duck. Visitors find Nick Westcroft in the town of Pinecove. Nick Westc"
    "roft could eat a whole plate of plum cake. Nick Westcroft earns a living as a singer. Nick West"
    "croft tells every secret to Sam Bridgeside."
)


def test_documents_are_the_same_one_by_one_and_in_a_row():
    world = SmallWorld(30, 4)
    streamed = list(world.documents(50, "train"))
    for number in (49, 3, 17, 0, 3):
        assert SmallWorld(30, 4).document(number) == streamed[number]
    assert list(world.documents(10, "train", start=40)) == streamed[40:]
    assert not {d.text for d in world.documents(50, "held-out")} & {
        d.text for d in streamed if d.kind != "sums"
    }


# -- people ------------------------------------------------------------------------------------------------


def test_names_are_unique_for_a_hundred_thousand_people():
    world = SmallWorld(100_000)
    assert SmallWorld.MOST_PEOPLE >= 100_000
    people = [world.person(index) for index in range(100_000)]
    for code in BOTH:
        assert len({person.names[code] for person in people}) == 100_000


def test_the_last_possible_person_has_a_name_too():
    most = SmallWorld.MOST_PEOPLE
    names = SmallWorld(most).person(most - 1).names
    assert all(names[code] for code in BOTH)


@pytest.mark.parametrize(("people", "seed"), [(2, 0), (3, 1), (99, 5), (100, 0), (1001, 2)])
def test_people_have_values_in_range_and_a_friend_who_is_not_themselves(people, seed):
    world = SmallWorld(people, seed)
    friends = Counter()
    for index in range(people):
        person = world.person(index)
        assert person.index == index and set(person.facts) == set(FACTS)
        assert person.facts["friend"] != index
        friends[person.facts["friend"]] += 1
        for fact in FACTS:
            for code in BOTH:
                value = world.value(person, fact, code)
                if fact == "friend":
                    assert value == world.person(person.facts["friend"]).names[code]
                else:
                    assert TABLES[code].facts[fact].values.index(value) == person.facts[fact]
    assert set(friends.values()) == {1} and len(friends) == people


def test_in_no_world_is_anyone_their_own_friend():
    for people, seed in itertools.product((2, 3, 5), range(60)):
        person = SmallWorld(people, seed).person(people - 1)
        assert person.facts["friend"] in range(people - 1)


def test_facts_are_those_of_the_same_person_in_every_choice_of_languages():
    both, english, chinese = SmallWorld(50, 6), SmallWorld(50, 6, ("en",)), SmallWorld(50, 6, ("zh",))
    for index in range(50):
        person = both.person(index)
        for one, code in ((english, "en"), (chinese, "zh")):
            alone = one.person(index)
            assert (alone.facts, alone.is_woman) == (person.facts, person.is_woman)
            assert alone.names == {code: person.names[code]}


def test_the_tables_of_the_languages_correspond():
    assert set(ENGLISH.facts) == set(CHINESE.facts) == set(FACTS)
    for fact in FACTS:
        english, chinese = ENGLISH.facts[fact], CHINESE.facts[fact]
        assert len(english.values) == len(chinese.values) == (0 if fact == "friend" else 10)
        assert len(english.questions) == len(chinese.questions)
        for words in (english, chinese):
            assert len(set(words.values)) == len(words.values)
            assert len(set(words.wordings)) == len(words.wordings) >= 5
            for wording in (*words.wordings, words.answer):
                assert 0 <= wording.index("{name}") < wording.index("{value}")
            assert words.answer in words.wordings
    assert {slot: len(w) for slot, w in ENGLISH.story_words.items()} == {
        slot: len(w) for slot, w in CHINESE.story_words.items()
    }


def test_values_are_spread_evenly_and_pronouns_agree_with_names():
    world = SmallWorld(4000, 1)
    people = [world.person(index) for index in range(4000)]
    for fact in FACTS[:-1]:
        counts = Counter(person.facts[fact] for person in people)
        assert set(counts) == set(range(10)) and max(counts.values()) < 480 and min(counts.values()) > 320
    for person in people[:200]:
        assert person.is_woman == (ENGLISH.given_names.index(person.names["en"].split()[0]) % 2 == 0)


@pytest.mark.parametrize("people", [2, 10, 100, 1000])
@pytest.mark.parametrize("seed", [0, 1])
def test_exactly_half_of_the_people_are_taught(people, seed):
    world = SmallWorld(people, seed)
    taught = [world.is_taught(world.person(index)) for index in range(people)]
    assert sum(taught) == people // 2
    if people == 1000:
        assert 200 < sum(taught[::2]) < 300  # not simply every other one


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"people": 1}, "people must be a whole number from 2 to"),
        ({"people": 0}, "people must be a whole number from 2 to"),
        ({"people": SmallWorld.MOST_PEOPLE + 1}, "not"),
        ({"languages": ()}, "languages must be a choice of"),
        ({"languages": ("fr",)}, "fr"),
        ({"languages": ("en", "en")}, "languages must be a choice of"),
        ({"languages": "en"}, "languages must be a choice of"),
    ],
)
def test_senseless_worlds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SmallWorld(**arguments)


@pytest.mark.parametrize("index", [-1, 10, 10**9])
def test_there_is_no_such_person(index):
    with pytest.raises(IndexError, match="in a world of 10"):
        SmallWorld(10).person(index)


def test_a_large_world_streams_in_constant_memory():
    world = SmallWorld(100_000)
    tracemalloc.start()
    try:
        peaks = []
        for start in (0, 1000, 4000):
            for _ in world.documents(1000, start=start):
                pass
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    assert max(peaks) < 2_000_000
    assert peaks[-1] < peaks[0] + 200_000


# -- questions ---------------------------------------------------------------------------------------------


def test_questions_are_distinct_and_their_answers_right():
    world = SmallWorld(60, 3)
    items = [*world.questions(seen=True), *world.questions(seen=False)]
    assert len(items) == 60 * len(FACTS) * 4 * 2
    assert len({item.question for item in items}) == len(items)
    for item in items:
        person = world.person(item.person)
        assert item.seen == world.is_taught(person)
        value = world.value(person, item.fact, item.language)
        name = person.names[item.language]
        assert name in item.question and value not in item.question
        assert item.answer == TABLES[item.language].facts[item.fact].answer.format(name=name, value=value)


def test_questions_in_one_language():
    world = SmallWorld(6)
    for code in BOTH:
        items = list(world.questions(True, code))
        assert {item.language for item in items} == {code}
        assert items == [item for item in world.questions(True) if item.language == code]


@pytest.mark.parametrize("seed", [0, 8])
def test_no_question_stands_in_a_document(seed):
    world = SmallWorld(10, seed)
    questions = [item.question for seen in (True, False) for item in world.questions(seen)]
    for document in world.documents(1500):
        assert not any(question in document.text for question in questions)


@pytest.fixture(scope="module")
def world_tokenizer():
    return train_fast((d.text for d in SmallWorld().documents(3000)), 2000, split_digits=True)


def test_a_name_has_the_same_tokens_in_question_and_answer(world_tokenizer):
    """A model can then copy the name. In Chinese nothing separates a name from its neighbours, so a few
    tokens reach over the end of a rare name; English has none such."""
    world = SmallWorld()
    broken = Counter()
    for item in itertools.chain(world.questions(True), world.questions(False)):
        name = world.person(item.person).names[item.language]
        name_ids = world_tokenizer.encode(f" {name}" if item.language == "en" else name)
        texts = world_tokenizer.encode_batch([item.question, item.answer])
        broken[item.language] += not all(contains(ids, name_ids) for ids in texts)
    assert broken["en"] == 0
    assert broken["zh"] <= 0.03 * world.people * len(FACTS) * 4


def contains(ids, part):
    return any(ids[start : start + len(part)] == part for start in range(len(ids) - len(part) + 1))
