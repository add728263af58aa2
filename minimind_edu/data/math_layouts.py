"""GSM8K's layout of word problems, converted to ours (Cobbe et al., 2021, "Training Verifiers to Solve Math
Word Problems").

    {"question": "…", "answer": "She sold 48/2 = <<48/2=24>>24 clips.\\n#### 24"}

The text before the last line becomes the thoughts, without the marks for a calculator (`<<48/2=24>>`); the
number behind `####` becomes the answer. It is written as `stages.verify` wants numbers written: without the
commas of 1,080, leading zeros, or a decimal part of zeros.
"""

import re
from typing import Any

from minimind_edu.data.problems.problem import ANSWER, THINKING
from minimind_edu.data.validation import BadRecord, check_text, shorten

_LAST_LINE = re.compile(r"(?:\A|\n)####[ \t]*([^\n]*)\s*\Z")
_MARK = re.compile(r"<<[^<>\n]*>>")
_NUMBER = re.compile(r"([-+]?)\$?([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.(0*))?")
_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)


def is_math(record: dict[str, Any]) -> bool:
    """Whether a record has the fields of GSM8K's layout, and its mark somewhere in the answer."""
    answer = record.get("answer")
    return record.get("question") is not None and isinstance(answer, str) and "####" in answer


def math_to_sft(record: dict[str, Any]) -> dict[str, Any]:
    """The problem as a conversation whose answer thinks first.

    Raises:
        BadRecord: no question, no last line with `####`, or something else than a whole number behind it.
    """
    question, thoughts, number = _parts(record)
    if not thoughts:
        raise BadRecord("'answer' has nothing before its '####' line: no thoughts to learn from")
    if _TAG.search(thoughts):
        raise BadRecord("'answer' has a think or answer tag in it")
    written = THINKING.format(thoughts=thoughts) + ANSWER.format(answer=number)
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": written}]
    return {"conversations": messages}


def math_to_rlvr(record: dict[str, Any]) -> dict[str, Any]:
    """The problem as a prompt with its ground truth; errors as in `math_to_sft`."""
    question, _, number = _parts(record)
    return {"conversations": [{"role": "user", "content": question}], "gt": number}


def plain_number(text: str) -> str | None:
    """A whole number as a verifier wants it written, or None if the text is none.

    >>> plain_number("1,080"), plain_number("$5.00"), plain_number("-7"), plain_number("1/2")
    ('1080', '5', '-7', None)
    """
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        return None
    digits = found[2].replace(",", "").lstrip("0") or "0"
    return "-" + digits if found[1] == "-" and digits != "0" else digits


def _parts(record: dict[str, Any]) -> tuple[str, str, str]:
    """Question, thoughts and answer."""
    question = check_text(record["question"], "'question'")
    answer = check_text(record["answer"], "'answer'")
    last = _LAST_LINE.search(answer)
    if last is None:
        raise BadRecord("'answer' does not end with a line of '####' and the number (as GSM8K's do)")
    number = plain_number(last[1])
    if number is None:
        raise BadRecord(f"'answer': {shorten(last[1])} behind '####' is not a whole number")
    return question, _MARK.sub("", answer[: last.start()]).strip(), number
