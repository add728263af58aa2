"""Exercises of chapter 7, continued: log-probabilities of answers, and a win rate."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    """A random integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


# ------------------------------------------------------------------------------------------- answer_logprobs


def answer_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of ln p over each row's labelled tokens, of logits (B, T, V) and labels (B, T), not shifted."""
    logits, targets = logits[:, :-1], labels[:, 1:]
    chosen = logits.log_softmax(dim=-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return (chosen * (targets != -100)).sum(dim=-1)


def _answers(generator: torch.Generator) -> list[tuple]:
    cases = []
    for _ in range(5):
        batch, length, size = (_integer(generator, *limits) for limits in ((2, 4), (6, 9), (4, 9)))
        logits = 2 * torch.randn(batch, length, size, generator=generator)
        labels = torch.randint(1, size, (batch, length), generator=generator)
        labels[:, :2] = -100  # the prompt
        labels[0, -2:] = -100  # padding: the answers have different lengths
        labels[1, 3] = 0  # a token like any other
        cases.append((logits, labels))
    return cases


def _each(logits: Tensor, targets: Tensor) -> Tensor:
    """ln p of each target, 0 where there is none."""
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none")
    return -losses.view(targets.shape)


def _unshifted(logits: Tensor, labels: Tensor) -> Tensor:
    return _each(logits, labels).sum(dim=-1)


def _shifted_back(logits: Tensor, labels: Tensor) -> Tensor:
    return _each(logits[:, 1:], labels[:, :-1]).sum(dim=-1)


def _mean_of_tokens(logits: Tensor, labels: Tensor) -> Tensor:
    return answer_logprobs(logits, labels) / (labels[:, 1:] != -100).sum(dim=-1)


def _mean_of_places(logits: Tensor, labels: Tensor) -> Tensor:
    return answer_logprobs(logits, labels) / (labels.shape[1] - 1)


def _of_the_batch(logits: Tensor, labels: Tensor) -> Tensor:
    return answer_logprobs(logits, labels).sum()


def _per_token(logits: Tensor, labels: Tensor) -> Tensor:
    return _each(logits[:, :-1], labels[:, 1:])


def _padding_scored(logits: Tensor, labels: Tensor) -> Tensor:
    return _each(logits[:, :-1], labels[:, 1:].clamp(min=0)).sum(dim=-1)


def _token_0_left_out(logits: Tensor, labels: Tensor) -> Tensor:
    return answer_logprobs(logits, labels.masked_fill(labels == 0, -100))


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    return -answer_logprobs(logits, labels)


def _probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    return answer_logprobs(logits, labels).exp()


def _probabilities_added(logits: Tensor, labels: Tensor) -> Tensor:
    each = _each(logits[:, :-1], labels[:, 1:])
    return (each.exp() * (labels[:, 1:] != -100)).sum(dim=-1)


def _raw_logits(logits: Tensor, labels: Tensor) -> Tensor:
    targets = labels[:, 1:]
    chosen = logits[:, :-1].gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return (chosen * (targets != -100)).sum(dim=-1)


def _one_a_row(attempt: Callable, generator: torch.Generator) -> bool:
    logits, labels = _answers(generator)[0]
    return tuple(attempt(logits, labels).shape) == (len(labels),)


def _grows_with_length(attempt: Callable, generator: torch.Generator) -> bool:
    labels = torch.tensor([[-100, 1, 2, 3], [-100, 1, -100, -100]])
    given = attempt(torch.zeros(2, 4, 5), labels)
    return abs(float(given[0] / given[1]) - 3) < 1e-4


def _ignores_what_is_not_labelled(attempt: Callable, generator: torch.Generator) -> bool:
    logits = torch.randn(1, 5, 6, generator=generator)
    labels = torch.tensor([[-100, -100, 3, 2, -100]])
    other = logits.clone()
    other[:, [0, 3, 4]] = torch.randn(1, 3, 6, generator=generator)
    return abs(float(attempt(logits, labels)[0] - attempt(other, labels)[0])) < 1e-5


def _has_a_gradient(attempt: Callable, generator: torch.Generator) -> bool:
    """The logit of a labelled token is pulled up, by 1 minus its probability."""
    logits = torch.zeros(1, 3, 4, requires_grad=True)
    pull = torch.autograd.grad(attempt(logits, torch.tensor([[-100, -100, 3]])).sum(), logits)[0]
    return abs(float(pull[0, 1, 3]) - 0.75) < 1e-4


# -------------------------------------------------------------------------------------------------- win_rate


def win_rate(ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> float:
    """Share of questions on which our score beats theirs, a tie as half; scores compare like tuples."""
    points = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(ours, theirs, strict=True)]
    return sum(points) / len(points)


def _scores(generator: torch.Generator) -> list[tuple]:
    cases = []
    for _ in range(4):
        both = [[(_integer(generator, 0, 1), _integer(generator, 0, 2)) for _ in range(14)] for _ in "ab"]
        # A win, a tie, and a truth against manners, so that no rule passes by luck.
        both[0] += [(1, 2), (1, 1), (1, 0), (1, 0), (0, 1)]
        both[1] += [(0, 0), (1, 1), (0, 2), (0, 1), (0, 1)]
        cases.append(tuple(both))
    return cases


def _points(ours: list, theirs: list, tie: float, key: Callable = lambda score: score) -> list[float]:
    pairs = [(key(a), key(b)) for a, b in zip(ours, theirs, strict=True)]
    return [1.0 if a > b else tie if a == b else 0.0 for a, b in pairs]


def _mean(points: list[float]) -> float:
    return sum(points) / len(points)


def _ties_lost(ours: list, theirs: list) -> float:
    return _mean(_points(ours, theirs, 0.0))


def _ties_won(ours: list, theirs: list) -> float:
    return _mean(_points(ours, theirs, 1.0))


def _ties_left_out(ours: list, theirs: list) -> float:
    decided = [point for point in _points(ours, theirs, 0.5) if point != 0.5]
    return _mean(decided)


def _added_up(ours: list, theirs: list) -> float:
    return _mean(_points(ours, theirs, 0.5, key=sum))


def _manners_first(ours: list, theirs: list) -> float:
    return _mean(_points(ours, theirs, 0.5, key=lambda score: score[::-1]))


def _truth_only(ours: list, theirs: list) -> float:
    return _mean(_points(ours, theirs, 0.5, key=lambda score: score[0]))


def _the_others(ours: list, theirs: list) -> float:
    return win_rate(theirs, ours)


def _counted(ours: list, theirs: list) -> float:
    return sum(_points(ours, theirs, 0.5))


def _in_percent(ours: list, theirs: list) -> float:
    return 100 * win_rate(ours, theirs)


def _against_itself(attempt: Callable, generator: torch.Generator) -> bool:
    ours = _scores(generator)[0][0]
    return abs(attempt(ours, list(ours)) - 0.5) < 1e-9


def _sums_to_one(attempt: Callable, generator: torch.Generator) -> bool:
    ours, theirs = _scores(generator)[0]
    return abs(attempt(ours, theirs) + attempt(theirs, ours) - 1) < 1e-9


def _truth_beats_manners(attempt: Callable, generator: torch.Generator) -> bool:
    return abs(attempt([(1, 0)], [(0, 9)]) - 1) < 1e-9


def _question_by_question(attempt: Callable, generator: torch.Generator) -> bool:
    return abs(attempt([(1, 1), (0, 0)], [(0, 0), (1, 1)]) - 0.5) < 1e-9


ANSWER_EXERCISES = (
    Exercise(
        name="ch07.answer_logprobs",
        solution=answer_logprobs,
        cases=_answers,
        mistakes=(
            Mistake("the label at a place is the target of the place before it", _unshifted),
            Mistake("shifted the wrong way: a token is predicted from the place before it", _shifted_back),
            Mistake("DPO compares whole answers: add the tokens up, without a mean", _mean_of_tokens),
            Mistake("no mean here, and least of all over places without a label", _mean_of_places),
            Mistake("one number for each row is wanted, not one for the batch", _of_the_batch),
            Mistake("these are the single tokens; add them up in each row", _per_token),
            Mistake("places labelled -100 were scored as if token 0 came there", _padding_scored),
            Mistake("token 0 is a token like any other: only -100 says that none counts", _token_0_left_out),
            Mistake("log-probabilities are negative: this is the loss", _losses),
            Mistake("stay with logarithms: the probability of an answer is far too small", _probabilities),
            Mistake("add logarithms of probabilities, not probabilities", _probabilities_added),
            Mistake("these are sums of logits, which are not normalised yet", _raw_logits),
        ),
        properties=(
            Property("the result should have one number for each row: shape (B,)", _one_a_row),
            Property(
                "with equal logits, three labels should weigh three times one label", _grows_with_length
            ),
            Property(
                "positions whose next token has no label should not matter", _ignores_what_is_not_labelled
            ),
            Property(
                "a model could not be trained with it: the logits get no gradient, or a wrong one",
                _has_a_gradient,
                always=True,
            ),
        ),
    ),
    Exercise(
        name="ch07.win_rate",
        solution=win_rate,
        cases=_scores,
        mistakes=(
            Mistake("a tie counts as half a win, not as a loss", _ties_lost),
            Mistake("a tie counts as half a win, not as a whole one", _ties_won),
            Mistake("ties belong to the total, each with half a point", _ties_left_out),
            Mistake("do not add truth and manners: what comes first decides first", _added_up),
            Mistake(
                "the first entry of a score decides, the second only where the first is equal", _manners_first
            ),
            Mistake("where the first entries are equal, the second decides", _truth_only),
            Mistake("this is the other model's win rate", _the_others),
            Mistake("divide by the number of questions", _counted),
            Mistake("a share from 0 to 1 is wanted, not percent", _in_percent),
        ),
        properties=(
            Property("a model against itself should get one half", _against_itself),
            Property("a win of one is a loss of the other: both rates should sum to 1", _sums_to_one),
            Property("a polite lie should lose against a curt truth", _truth_beats_manners),
            Property("compare question by question, not total scores", _question_by_question),
        ),
    ),
)
