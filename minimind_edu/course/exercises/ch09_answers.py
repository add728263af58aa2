"""Exercises of chapter 9, continued: finding the answer that counts."""

import re
from collections.abc import Callable

import torch

from minimind_edu.course.exercises.checking import Exercise, Mistake, Property

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def extract_answer(text: str) -> str | None:
    """What stands in the answer block, without white space around it.

    None unless the text is an answer block, alone or after one block of thoughts, with no other tag anywhere
    and nothing but white space outside of the blocks.
    """
    pattern = r"\s*(?:<think>(.*?)</think>\s*)?<answer>(.*?)</answer>\s*"
    found = re.fullmatch(pattern, text, re.DOTALL)
    if found is None or any(tag in (found[1] or "") + found[2] for tag in _TAGS):
        return None
    return found[2].strip() or None


def _number(generator: torch.Generator) -> str:
    return str(int(torch.randint(10, 10_000, (), generator=generator)))


def _texts(generator: torch.Generator) -> list[tuple]:
    right, other = _number(generator), _number(generator) + "0"
    block = f"<answer>{right}</answer>"
    good = f"<think>\n{other} + 1\n</think>\n<answer>\n{right}\n</answer>"
    return [
        (good,),
        (f" {good}\n",),
        (block,),
        (f"It is {right}: {block}",),
        (f"<think>x</think><think>{other}</think>{block}",),
        (f"<think>{right} < {other} > 5</think>{block}",),
        (f"<answer>3 + {right} * (2 - 1)</answer>",),
        (f"<answer>\n{right}\n</answer>\n",),
        (f"<think>\n<answer>{right}</answer>\n</think>",),
        (f"<think>\n<answer>{right}</answer>\n</think>\n<answer>\n{other}\n</answer>",),
        (f"{good}\n<answer>\n{other}\n</answer>",),
        (f"{good} or {other}",),
        (f"It is {right}: {good}",),
        (good.replace("\n<answer>", f"\nSo {right}.\n<answer>"),),
        (good.removesuffix("</answer>"),),
        (f"</answer>{right}<answer>",),
        ("<answer>\n \n</answer>",),
        (f"<think>\nx\n{good}",),
        (right,),
        ("",),
    ]


def _first(text: str) -> str | None:
    found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    return (found[1].strip() or None) if found else None


def _last(text: str) -> str | None:
    found = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    return (found[-1].strip() or None) if found else None


def _greedy(text: str) -> str | None:
    found = re.search(r"<answer>(.*)</answer>", text, re.DOTALL)
    return (found[1].strip() or None) if found else None


def _after_thoughts(text: str) -> str | None:
    return _first(text.split("</think>")[-1])


def _unstripped(text: str) -> str | None:
    pattern = r"\s*(?:<think>(.*?)</think>\s*)?<answer>(.*?)</answer>\s*"
    found = re.fullmatch(pattern, text, re.DOTALL)
    if found is None or any(tag in (found[1] or "") + found[2] for tag in _TAGS):
        return None
    return found[2] if found[2].strip() else None


def _trailing_text(text: str) -> str | None:
    if any(text.count(tag) > 1 for tag in _TAGS):
        return None
    found = re.match(r"\s*(?:<think>.*?</think>\s*)?<answer>(.*?)</answer>", text, re.DOTALL)
    return (found[1].strip() or None) if found else None


def _counted_once(text: str) -> str | None:
    once = all(text.count(tag) == 1 for tag in ("<answer>", "</answer>"))
    return _first(text) if once else None


def _empty_string(text: str) -> str | None:
    return extract_answer(text) or ("" if re.fullmatch(r"<answer>\s*</answer>", text) else None)


def _says_yes_to_a_good_one(attempt: Callable, generator: torch.Generator) -> bool:
    number = _number(generator)
    return attempt(f"<think>\nx\n</think>\n<answer>\n{number}\n</answer>") == number


def _refuses_two(attempt: Callable, generator: torch.Generator) -> bool:
    block = f"<answer>{_number(generator)}</answer>"
    return attempt(block + block) is None


def _refuses_thoughts(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt(f"<think><answer>{_number(generator)}</answer></think>") is None


def _refuses_more_text(attempt: Callable, generator: torch.Generator) -> bool:
    block = f"<answer>{_number(generator)}</answer>"
    return attempt(f"{block}.") is None and attempt(f"So: {block}") is None


def _refuses_pieces(attempt: Callable, generator: torch.Generator) -> bool:
    number = _number(generator)
    return attempt(number) is None and attempt(f"<answer>{number}") is None and attempt("") is None


ANSWER_EXERCISES = (
    Exercise(
        name="ch09.extract_answer",
        solution=extract_answer,
        cases=_texts,
        mistakes=(
            Mistake("the first block counts, wherever it stands; it may be in the thoughts", _first),
            Mistake("the last block counts: a model may write several and let you choose", _last),
            Mistake("the pattern runs on to the last end tag; what is between two answers is no answer",
                    _greedy),
            Mistake("what stands outside of the blocks after the thoughts is not looked at", _after_thoughts),
            Mistake("white space around the answer should be removed", _unstripped),
            Mistake("text after the answer block should spoil it", _trailing_text),
            Mistake("one answer block is not enough: look at where it stands and what is around it",
                    _counted_once),
            Mistake("an empty block holds no answer: return None", _empty_string),
        ),
        properties=(
            Property("thoughts, then an answer block with one number: that number should come back",
                     _says_yes_to_a_good_one),
            Property("two answer blocks should give None", _refuses_two),
            Property("an answer block inside of the thoughts should give None", _refuses_thoughts),
            Property("text before or after the blocks should give None", _refuses_more_text),
            Property("without a whole answer block there is no answer", _refuses_pieces),
        ),
    ),
)  # fmt: skip
