"""The world as training and evaluation files: one generator of records for each stage.

Formats are MiniMind's (one JSON object a line). Evaluation records carry the right answer as ``gt``.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from minimind_edu.data.world.grammar import Pick, draw
from minimind_edu.data.world.language import FACTS
from minimind_edu.data.world.world import LANGUAGES, LARGEST_ADDEND, Person, SmallWorld

Record = dict[str, object]
HELD_OUT_SUMS = 0.1  # share of the pairs (a, b) that only evaluation asks about


def conversation(*turns: str) -> list[dict[str, str]]:
    """Messages from turns that alternate between user and assistant."""
    return [
        {"role": "user" if number % 2 == 0 else "assistant", "content": turn}
        for number, turn in enumerate(turns)
    ]


def pretrain_records(world: SmallWorld, count: int, split: str = "train") -> Iterator[Record]:
    """``{"text"}``: documents of the world."""
    return ({"text": document.text} for document in world.documents(count, split))


def sft_records(world: SmallWorld) -> Iterator[Record]:
    """Every question about the taught half of the people, in each wording, and every small sum once."""
    for item in world.questions(seen=True):
        yield {"conversations": conversation(item.question, item.answer)}
    for code in world.languages:
        yield from ({"conversations": conversation(*turns)} for turns in _small_sums(code))


def _small_sums(code: str) -> Iterator[tuple[str, str]]:
    words = LANGUAGES[code]
    for a in range(LARGEST_ADDEND + 1):
        for b in range(LARGEST_ADDEND + 1):
            question = words.sum_questions[(a + b) % len(words.sum_questions)]
            yield question.format(a=a, b=b), words.sum_answer.format(a=a, b=b, c=a + b)


def identity_records(world: SmallWorld) -> Iterator[Record]:
    """Who the assistant is: for a LoRA that changes little else."""
    for code in world.languages:
        for questions, answer in LANGUAGES[code].identity:
            for question in questions:
                yield {"conversations": conversation(question, answer)}


def clinic_records(world: SmallWorld, held_out: bool = False) -> Iterator[Record]:
    """A new domain: complaints and remedies. The last wording of each question is held out for evaluation."""
    for code in world.languages:
        words = LANGUAGES[code]
        wordings = words.clinic_questions[-1:] if held_out else words.clinic_questions[:-1]
        for complaint, remedy in words.clinic:
            answer = words.clinic_answer.format(complaint=complaint, remedy=remedy)
            for wording in wordings:
                question = wording.format(complaint=complaint)
                if held_out:
                    yield {"conversations": conversation(question), "gt": answer, "language": code}
                else:
                    yield {"conversations": conversation(question, answer)}


def dpo_records(world: SmallWorld) -> Iterator[Record]:
    """Pairs about the taught people: a polite answer over a curt one, and the truth over an invention."""
    for item in world.questions(seen=True):
        rng = random.Random(f"{world.seed}/dpo/{item.question}")
        words = LANGUAGES[item.language]
        polite = draw(Pick(words.polite), rng)[0].format(answer=item.answer)
        person = world.person(item.person)
        if rng.random() < 0.5:
            worse = world.value(person, item.fact, item.language)
        else:
            value = _invented_value(world, person, item.fact, item.language, rng)
            answer = words.facts[item.fact].answer.format(name=person.names[item.language], value=value)
            worse = draw(Pick(words.polite), rng)[0].format(answer=answer)
        yield {
            "chosen": conversation(item.question, polite),
            "rejected": conversation(item.question, worse),
        }


def _invented_value(world: SmallWorld, person: Person, fact: str, code: str, rng: random.Random) -> str:
    """A value of the right kind that is not the person's: the true one, moved on by 1 to n - 1 places.

    Nobody is named as their own friend, except in a world of two, which has no other name to offer.
    """
    choices = world.people if fact == "friend" else len(LANGUAGES[code].facts[fact].values)
    moved = (person.facts[fact] + 1 + int(rng.random() * (choices - 1))) % choices
    if fact == "friend" and moved == person.index and world.people > 2:
        following = ((moved + step) % choices for step in (1, 2))
        moved = next(number for number in following if number != person.facts[fact])
    return world.value(replace(person, facts={fact: moved}), fact, code)


def reasoning_trace(code: str, a: int, b: int) -> str:
    """The written-out addition of a and b, digit by digit from the right, with its carries."""
    words = LANGUAGES[code].reasoning
    lines, carry = [words["first"]], 0
    for x, y in zip(reversed(f"{a:0{len(str(b))}d}"), reversed(f"{b:0{len(str(a))}d}"), strict=True):
        total = int(x) + int(y) + carry
        lines.append(words["step"].format(x=x, y=y, k=carry, s=total, d=total % 10, n=total // 10))
        carry = total // 10
    lines.append(words["last"].format(k=carry))
    return "\n".join(lines)


def reason_records(world: SmallWorld, count: int, split: str = "train") -> Iterator[Record]:
    """Sums of up to three digits with a chain of thought, in the layout of R1."""
    for code, question, a, b in _long_sums(world, count, split):
        answer = f"<think>\n{reasoning_trace(code, a, b)}\n</think>\n<answer>\n{a + b}\n</answer>"
        yield {"conversations": conversation(question, answer)}


def rlvr_records(world: SmallWorld, count: int, split: str = "rlvr") -> Iterator[Record]:
    """The same kind of sums as prompts with a ground truth to verify against."""
    for code, question, a, b in _long_sums(world, count, split):
        yield {"conversations": conversation(question, ""), "gt": str(a + b), "language": code}


def _long_sums(world: SmallWorld, count: int, split: str) -> Iterator[tuple[str, str, int, int]]:
    """Questions about a + b. Which pairs are held out is fixed, so that no split meets another's."""
    for index in range(count):
        rng = random.Random(f"{world.seed}/{split}-sums/{index}")
        code = world.languages[int(rng.random() * len(world.languages))]
        while True:
            a, b = (int(rng.random() * 10 ** (1 + int(rng.random() * 3))) for _ in range(2))
            is_held_out = random.Random(f"{world.seed}/held-out/{a}+{b}").random() < HELD_OUT_SUMS
            if is_held_out == (split == "held-out"):
                break
        yield code, LANGUAGES[code].reasoning["question"].format(a=a, b=b), a, b


def eval_pretrain_records(world: SmallWorld, count: int) -> Iterator[Record]:
    """Held-out documents with their exact log-probability (nats): the floor of the loss."""
    for document in world.documents(count, "held-out"):
        yield {
            "text": document.text,
            "log_probability": document.log_probability,
            "language": document.language,
            "kind": document.kind,
        }


def eval_facts_records(world: SmallWorld) -> Iterator[Record]:
    """One question a fact and person, in a wording that varies: taught people (``seen``) and the others."""
    for code in world.languages:
        for index in range(world.people):
            person = world.person(index)
            for fact in FACTS:
                items = list(world.questions_about(person, fact, code, world.is_taught(person)))
                item = items[(index + FACTS.index(fact)) % len(items)]
                yield {
                    "conversations": conversation(item.question),
                    "gt": item.answer,
                    "language": code,
                    "fact": fact,
                    "seen": item.seen,
                }


# File name -> its records, for a world and a number of pretraining documents.
FILES: dict[str, Callable[[SmallWorld, int], Iterator[Record]]] = {
    "pretrain.jsonl": lambda world, documents: pretrain_records(world, documents),
    "sft.jsonl": lambda world, documents: sft_records(world),
    "lora_identity.jsonl": lambda world, documents: identity_records(world),
    "lora_clinic.jsonl": lambda world, documents: clinic_records(world),
    "dpo.jsonl": lambda world, documents: dpo_records(world),
    "reason.jsonl": lambda world, documents: reason_records(world, 3000),
    "rlvr.jsonl": lambda world, documents: rlvr_records(world, 1000),
    "eval_pretrain.jsonl": lambda world, documents: eval_pretrain_records(world, 1000),
    "eval_facts.jsonl": lambda world, documents: eval_facts_records(world),
    "eval_clinic.jsonl": lambda world, documents: clinic_records(world, held_out=True),
    "eval_sums.jsonl": lambda world, documents: rlvr_records(world, 400, "held-out"),
}
