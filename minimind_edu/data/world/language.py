"""What a language of the world consists of: words and wordings, as tables.

``english.py`` and ``chinese.py`` fill these tables. Every wording of a fact names the person *before* it
says the fact, so a reader (and a model that reads left to right) always knows whom the fact is about.
"""

from dataclasses import dataclass

FACTS = ("home", "trade", "food", "pet", "friend")


@dataclass(frozen=True)
class FactWords:
    """How one fact is told, asked and answered.

    Attributes:
        values: the possible values (empty for ``friend``: any other person).
        wordings: sentences with ``{name}`` and ``{value}``, as biographies tell the fact.
        questions: questions with ``{name}``.
        answer: the one sentence that answers them, with ``{name}`` and ``{value}``.
    """

    values: tuple[str, ...]
    wordings: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class ProblemWords:
    """How verifiable problems are put, and how their solutions are written out (see ``data.problems``).

    Attributes:
        sum_question, difference_question: with ``{a}`` and ``{b}``.
        difference: the parts of a written-out subtraction, as in ``Language.reasoning``; ``{k}`` and ``{n}``
            are borrows.
        things: what people of word problems have, in the same order in every language.
        start, question: a word problem's first and last sentence, with ``{name}``, ``{things}`` and ``{a}``.
        steps: what happens between them, for ``+`` and ``-`` (``{name}``, ``{friend}``, ``{b}``) and ``*``
            (``{b}``).
        step: one line of its solution, with ``{a} {op} {b} {c}``.
        countdown: the question of a number puzzle, with ``{target}`` and ``{numbers}``.
        attempt: one line of its search, with ``{chain}`` and ``{verdict}``; ``verdicts`` are no and yes.
        comma: what stands between two calculations of a chain.
    """

    sum_question: str
    difference_question: str
    difference: dict[str, str]
    things: tuple[str, ...]
    start: str
    question: str
    steps: dict[str, str]
    step: str
    countdown: str
    attempt: str
    verdicts: tuple[str, str]
    comma: str


@dataclass(frozen=True)
class Language:
    """The words of one language.

    Attributes:
        code: ``"en"`` or ``"zh"``.
        joiner: what stands between two sentences.
        given_names, family_names: the parts of names; ``full_name`` says how they are joined.
        full_name: a template with ``{given}`` and ``{family}``.
        pronouns: subject pronoun of a woman and of a man.
        facts: for each of ``FACTS``, its words.
        stories: templates with slots ``{name} {trade} {friend} {pronoun}`` and those of ``story_words``.
        story_words: slot name -> the words it may take.
        sums: wordings of a sum, with ``{a} {b} {c}``.
        sum_questions: questions about a sum, with ``{a} {b}``; ``sum_answer`` has ``{a} {b} {c}``.
        reasoning: the parts of a written-out addition: question, first line, one step for each digit (digits
            ``{x} {y}``, carry ``{k}``, their sum ``{s}``, digit to write ``{d}``, next carry ``{n}``), and
            last line.
        identity: groups of questions about the assistant, each with its answer.
        clinic: complaints, each with its remedy; ``clinic_questions`` have ``{complaint}``, ``clinic_answer``
            has ``{remedy}`` too.
        polite: frames around an ``{answer}``.
        problems: the words of verifiable problems.
    """

    code: str
    joiner: str
    given_names: tuple[str, ...]
    family_names: tuple[str, ...]
    full_name: str
    pronouns: tuple[str, str]
    facts: dict[str, FactWords]
    stories: tuple[str, ...]
    story_words: dict[str, tuple[str, ...]]
    sums: tuple[str, ...]
    sum_questions: tuple[str, ...]
    sum_answer: str
    reasoning: dict[str, str]
    identity: tuple[tuple[tuple[str, ...], str], ...]
    clinic_questions: tuple[str, ...]
    clinic_answer: str
    clinic: tuple[tuple[str, str], ...]
    polite: tuple[str, ...]
    problems: ProblemWords
