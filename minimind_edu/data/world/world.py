"""Small World (小世界): people with facts, told in documents whose exact probability is known.

Nothing is stored: person ``i`` and document ``i`` are computed from the seed whenever they are asked for, so
a world of 100,000 people costs as much memory as one of a hundred, and its documents can be streamed.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from minimind_edu.data.world.chinese import CHINESE
from minimind_edu.data.world.english import ENGLISH
from minimind_edu.data.world.grammar import (
    Node,
    Pick,
    Sequential,
    Shuffled,
    Weighted,
    derivations,
    draw,
    pattern,
)
from minimind_edu.data.world.language import FACTS, Language

LANGUAGES: dict[str, Language] = {"en": ENGLISH, "zh": CHINESE}

# What a document is about, and how often. Biographies teach the facts; stories and sums are there so that
# the model learns to write more than one kind of text.
DOCUMENT_KINDS = {"biography": 0.75, "story": 0.2, "sums": 0.05}
LARGEST_ADDEND = 10
SUMS_IN_A_DOCUMENT = 3


@dataclass(frozen=True)
class Person:
    """One inhabitant: the same person, with the same facts, in every language.

    Attributes:
        index: the person's number, from 0.
        names: language code -> full name.
        is_woman: chooses the pronoun.
        facts: for each of home, trade, food and pet the index of its value; for friend a person's index.
    """

    index: int
    names: dict[str, str]
    is_woman: bool
    facts: dict[str, int]


@dataclass(frozen=True)
class Document:
    """A text with what its generator knows about it.

    Attributes:
        text: the document.
        log_probability: natural logarithm of the probability that the world writes exactly this text.
        language, kind: which language, and which of ``DOCUMENT_KINDS``.
    """

    text: str
    log_probability: float
    language: str
    kind: str


@dataclass(frozen=True)
class Question:
    """A question with its one right answer; ``seen`` says whether its person is one SFT teaches about."""

    question: str
    answer: str
    language: str
    fact: str
    person: int
    seen: bool


class _People:
    """A sequence of grammar nodes, one a person, each made when it is looked at."""

    def __init__(self, world: "SmallWorld", language: str, kind: str) -> None:
        self.world, self.language, self.kind = world, language, kind

    def __len__(self) -> int:
        return self.world.people

    def __getitem__(self, index: int) -> Node:
        person = self.world.person(index)
        if self.kind == "biography":
            return self.world.biography(person, self.language)
        return self.world.story(person, self.language)


class SmallWorld:
    """A seeded world of ``people`` in one or two languages.

    Args:
        people: how many inhabitants, from 2 to ``SmallWorld.MOST_PEOPLE``.
        seed: another seed gives other names and other facts.
        languages: any of ``"en"`` and ``"zh"``.

    Raises:
        ValueError: an argument is out of range; the message says which and why.
    """

    MOST_PEOPLE = min(len(table.given_names) * len(table.family_names) for table in LANGUAGES.values())

    def __init__(self, people: int = 100, seed: int = 0, languages: tuple[str, ...] = ("en", "zh")) -> None:
        if not isinstance(people, int) or not 2 <= people <= self.MOST_PEOPLE:
            raise ValueError(f"people must be a whole number from 2 to {self.MOST_PEOPLE}, not {people}")
        unknown = [code for code in languages if code not in LANGUAGES]
        if unknown or not languages or len(set(languages)) != len(languages):
            raise ValueError(f"languages must be a choice of {tuple(LANGUAGES)}, not {tuple(languages)}")
        self.people, self.seed, self.languages = people, seed, tuple(languages)
        self._given_order = {
            code: self._permutation(f"given/{code}", len(LANGUAGES[code].given_names)) for code in LANGUAGES
        }
        # Everyone's friend is the person this many places further on: a circle, so everyone is also
        # somebody's friend, and a friendship needs no storage.
        self._friend_distance = 1 + int(self._rng("friend").random() * (people - 1))
        # One grammar for each language and kind of document, and how often the world turns to each.
        self._grammars = {
            f"{code}/{kind}": self._document_grammar(code, kind)
            for code in self.languages
            for kind in DOCUMENT_KINDS
        }
        self._topics = Weighted(
            tuple(self._grammars), tuple(DOCUMENT_KINDS[name.split("/")[1]] for name in self._grammars)
        )

    # -- people ------------------------------------------------------------------------------------------

    def person(self, index: int) -> Person:
        """The person with this number.

        Raises:
            IndexError: there is no such person.
        """
        if not 0 <= index < self.people:
            raise IndexError(f"no person {index} in a world of {self.people}")
        rng = self._rng("person", index)
        facts = {
            fact: int(rng.random() * len(ENGLISH.facts[fact].values)) for fact in FACTS if fact != "friend"
        }
        facts["friend"] = (index + self._friend_distance) % self.people
        english_given = self._given_order["en"][index % len(ENGLISH.given_names)]
        return Person(
            index=index,
            names={code: self._name(code, index) for code in self.languages},
            is_woman=english_given % 2 == 0,
            facts=facts,
        )

    def value(self, person: Person, fact: str, language: str) -> str:
        """The value of a fact in words, such as ``"Oakton"`` or a friend's name."""
        number = person.facts[fact]
        if fact == "friend":
            return self._name(language, number)
        return LANGUAGES[language].facts[fact].values[number]

    def is_taught(self, person: Person) -> bool:
        """Whether SFT asks about this person: one, at random, of each pair of neighbours (2k, 2k + 1)."""
        first_of_pair = self._rng("taught", person.index // 2).random() < 0.5
        return first_of_pair == (person.index % 2 == 0)

    def _name(self, language: str, index: int) -> str:
        """A name no one else has. Neighbours differ in the given name; the n-th person with a given name
        has the n-th family name after that given name's random first one."""
        words = LANGUAGES[language]
        round_number, place = divmod(index, len(words.given_names))
        given = self._given_order[language][place]
        first_family = int(self._rng("family", language, given).random() * len(words.family_names))
        family = words.family_names[(first_family + round_number) % len(words.family_names)]
        return words.full_name.format(given=words.given_names[given], family=family)

    # -- documents ---------------------------------------------------------------------------------------

    def biography(self, person: Person, language: str) -> Node:
        """Every fact of a person once, in random order, each in one of its wordings."""
        words, name = LANGUAGES[language], person.names[language]
        sentences = tuple(
            Pick(
                tuple(
                    wording.format(name=name, value=self.value(person, fact, language))
                    for wording in words.facts[fact].wordings
                )
            )
            for fact in FACTS
        )
        return Shuffled(sentences, words.joiner)

    def story(self, person: Person, language: str) -> Node:
        """A small event that agrees with the person's trade and best friend."""
        words = LANGUAGES[language]
        slots: dict[str, Node] = {slot: Pick(choices) for slot, choices in words.story_words.items()}
        slots["name"] = person.names[language]
        slots["trade"] = self.value(person, "trade", language)
        slots["friend"] = self.value(person, "friend", language)
        slots["pronoun"] = words.pronouns[0 if person.is_woman else 1]
        return Pick(tuple(pattern(template, **slots) for template in words.stories))

    def document(self, index: int, split: str = "train") -> Document:
        """Document number ``index`` of a split. Splits are independent draws from the same world."""
        rng = self._rng("document", split, index)
        topic, topic_logp = draw(self._topics, rng)
        text, logp = draw(self._grammars[topic], rng)
        language, kind = topic.split("/")
        return Document(text, topic_logp + logp, language, kind)

    def documents(self, count: int, split: str = "train", start: int = 0) -> Iterator[Document]:
        """Documents ``start`` to ``start + count`` of a split, one at a time."""
        return (self.document(index, split) for index in range(start, start + count))

    def derivations(self, text: str) -> list[float]:
        """Every way in which the world can write ``text``: the log-probability (nats) of each.

        One entry for a text of this world, none for any other: that the list is never longer is what makes
        ``Document.log_probability`` exact.
        """
        topics = zip(self._topics.options, self._topics.weights, strict=True)
        return [
            math.log(weight / sum(self._topics.weights)) + logp
            for topic, weight in topics
            for logp in derivations(self._grammars[topic], text)
        ]

    def _document_grammar(self, language: str, kind: str) -> Node:
        """Every document of one kind that the world may write in one language."""
        if kind != "sums":
            return Pick(_People(self, language, kind))
        words, addends = LANGUAGES[language], range(LARGEST_ADDEND + 1)
        one_sum = Pick(
            [
                Pick([wording.format(a=a, b=b, c=a + b) for a in addends for b in addends])
                for wording in words.sums
            ]
        )
        return Sequential((one_sum, *(words.joiner, one_sum) * (SUMS_IN_A_DOCUMENT - 1)))

    # -- questions ---------------------------------------------------------------------------------------

    def questions(self, seen: bool, language: str | None = None) -> Iterator[Question]:
        """Every question about every fact of the people SFT teaches about (``seen``) or of the others."""
        for code in self.languages if language is None else (language,):
            for index in range(self.people):
                person = self.person(index)
                if self.is_taught(person) == seen:
                    for fact in FACTS:
                        yield from self.questions_about(person, fact, code, seen)

    def questions_about(self, person: Person, fact: str, language: str, seen: bool) -> Iterator[Question]:
        """The questions about one fact of one person, in each wording."""
        words, name = LANGUAGES[language].facts[fact], person.names[language]
        answer = words.answer.format(name=name, value=self.value(person, fact, language))
        for wording in words.questions:
            yield Question(wording.format(name=name), answer, language, fact, person.index, seen)

    # -- randomness --------------------------------------------------------------------------------------

    def _rng(self, *purpose: object) -> random.Random:
        """A generator of its own for each purpose: nothing depends on the order of asking."""
        return random.Random("/".join(map(str, (self.seed, *purpose))))

    def _permutation(self, purpose: str, size: int) -> list[int]:
        rng = self._rng(purpose)
        return sorted(range(size), key=lambda _: rng.random())
