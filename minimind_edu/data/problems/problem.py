"""One problem, what training makes of it, and which problems no training may see."""

import random
from dataclasses import dataclass

from minimind_edu.data.world.stages import HELD_OUT_SUMS, Record, conversation

# What a model writes: its thoughts and its answer in the layout of R1. Thinking that is switched off leaves
# an empty block, the one that chat templates with such a switch write into the prompt (Qwen3, MiniMind-3).
THINKING = "<think>\n{thoughts}\n</think>\n"
NO_THINKING = "<think>\n\n</think>\n\n"
ANSWER = "<answer>\n{answer}\n</answer>"


@dataclass(frozen=True)
class Task:
    """What a kind of problem comes to in one language.

    Attributes:
        question: as a user asks it.
        gt: the ground truth to verify against (see ``stages.verify``).
        answer: a right answer.
        trace: a written-out way to it.
        keys: names of the calculation, whatever words it is put in; the first is the problem's own, the
            others are those of its mirror images (a + b and b + a).
    """

    question: str
    gt: str
    answer: str
    trace: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """A question with one right answer (or, for countdown, several) and a reasoning trace.

    Attributes:
        question, gt, answer, trace: see `Task`.
        language: "en" or "zh".
        kind: one of `KINDS`.
        difficulty: digits of a sum or difference, steps of a word problem, numbers of a countdown.
    """

    question: str
    gt: str
    answer: str
    trace: str
    language: str
    kind: str
    difficulty: int

    def response(self, thinking: bool = True) -> str:
        """What a model should write: thoughts and answer, or an empty block of thoughts and the answer."""
        thoughts = THINKING.format(thoughts=self.trace) if thinking else NO_THINKING
        return thoughts + ANSWER.format(answer=self.answer)

    def record(self, thinking: bool = True) -> Record:
        """A conversation to learn from."""
        return {"conversations": conversation(self.question, self.response(thinking))}

    def rlvr(self) -> Record:
        """A prompt with its ground truth, for reinforcement learning and evaluation."""
        return {
            "conversations": conversation(self.question, ""),
            "gt": self.gt,
            "language": self.language,
            "kind": self.kind,
            "difficulty": self.difficulty,
        }


def is_held_out(key: str) -> bool:
    """Whether the calculation of this name is for evaluation only: about one in ten, the same always.

    Sums of the files `reason.jsonl` and `rlvr.jsonl` of the default world are chosen by the same rule, so
    that `eval_sums.jsonl` and the held-out problems are new to models trained on either.
    """
    return random.Random(f"0/held-out/{key}").random() < HELD_OUT_SUMS
