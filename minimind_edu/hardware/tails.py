"""What comes behind the last layer: each stage's loss, in the terms of `hardware.tape`."""

from minimind_edu.hardware.activations import Shadow
from minimind_edu.hardware.operations import FLOAT, LONG
from minimind_edu.hardware.tape import Buffer, Value
from minimind_edu.hardware.workload import Workload

PAIR_BYTES = 33  # what `PreferenceLoss` keeps of a pair: seven numbers and whether it is usable


def scored_rows(work: Workload) -> int:
    """Positions that the head computes logits for: the first token of a row is never predicted."""
    return min(work.scored, work.rows * (work.seq_len - 1) or 1)


def picked(model: Shadow, hidden: Value, rows: int, length: int, scored: int) -> Value:
    """`hidden[:, :-1][labelled]`."""
    width = model.config.hidden_size * model.e
    tape, full, cut = model.tape, rows * length * width, rows * max(length - 1, 1) * width
    sliced = tape.op("slice", 0, [hidden], lambda grad: model.allocate(full))
    mask = Value(tape, tape.allocate(rows * max(length - 1, 1)))
    return tape.op("labelled", scored * width, [sliced], lambda grad: model.allocate(cut), [mask])


def logits_of(model: Shadow, hidden: Value, scored: int) -> Value:
    """`model.head`."""
    return model.linear("lm_head.input", hidden, (model.head_weight,), scored, part="logits")


def table(model: Shadow, scored: int) -> int:
    """Bytes of float32 logits."""
    return scored * model.config.vocab_size * FLOAT


def in_float32(model: Shadow, logits: Value, scored: int) -> Value:
    """`logits.float()`."""
    size = table(model, scored)
    return logits if model.e == FLOAT else model.cast(logits, size // 2, size, part="logits")


def elementwise(model: Shadow, name: str, x: Value, size: int, keeps: bool = False) -> Value:
    """An operation on logits with a result of the same size, which autograd keeps or not."""
    tape = model.tape
    return tape.op(
        name, size, [x], lambda grad: [tape.allocate(size, "logits")], keeps_result=keeps, part="logits"
    )


def cross_entropy(model: Shadow, logits32: Value, scored: int) -> Value:
    """`F.cross_entropy`: a log-softmax, of which one number a row is read."""
    tape, size = model.tape, table(model, scored)
    targets = Value(tape, tape.allocate(scored * LONG))
    log_softmax = elementwise(model, "log_softmax", logits32, size, keeps=True)

    def back(grad: Buffer) -> list[Buffer]:
        return [tape.allocate(size, "logits")]

    total_weight = Value(tape, tape.allocate(FLOAT))
    return tape.op("loss", FLOAT, [log_softmax], back, [log_softmax, targets, total_weight])


def with_balance(model: Shadow, loss: Value) -> Value:
    """The loss plus the experts' auxiliary losses."""
    balances, model.balances = model.balances, []
    return model.tape.op(
        "total", FLOAT, [loss, *balances], lambda grad: model.allocate(*[FLOAT] * (1 + len(balances)))
    )


def causal_lm(model: Shadow, work: Workload) -> Value:
    """`causal_lm_loss`, and `weighted_lm_loss` and `sequence_logprobs`, which need the same tensors."""
    hidden = model.hidden_states(work.rows, work.seq_len, is_masked(work))
    scored = scored_rows(work)
    logits = logits_of(model, picked(model, hidden, work.rows, work.seq_len, scored), scored)
    loss = cross_entropy(model, in_float32(model, logits, scored), scored)
    small = {"reason": scored * FLOAT + FLOAT, "dpo": PAIR_BYTES * work.batch_size}.get(work.stage)
    if small:  # weights of tokens, or numbers of pairs
        tape = model.tape
        numbers = Value(tape, tape.allocate(small))
        loss = tape.op("weighted", FLOAT, [loss], lambda grad: model.allocate(FLOAT), [numbers])
    return with_balance(model, loss)


def is_masked(work: Workload) -> bool:
    """Whether attention reads a mask of its own for every row: packed documents, or experts' padding."""
    if work.stage in ("dpo", "grpo"):
        return work.config.use_moe
    return work.packed


def distillation(model: Shadow, work: Workload, teacher: Shadow) -> Value:
    """`white_box_loss` with the teacher at hand, and the forward KL."""
    tape, scored = model.tape, scored_rows(work)
    size = table(model, scored)
    hidden = model.hidden_states(work.rows, work.seq_len, is_masked(work))
    student = logits_of(model, picked(model, hidden, work.rows, work.seq_len, scored), scored)
    first = cross_entropy(model, in_float32(model, student, scored), scored)
    with tape.no_grad():
        tape.phase = "forward of the teacher"
        seen = teacher.hidden_states(work.rows, work.seq_len, is_masked(work))
        tape.phase = "forward of the teacher"
        expected = logits_of(teacher, picked(teacher, seen, work.rows, work.seq_len, scored), scored)
        teacher.balances.clear()
    tape.enter("head")
    log_q = log_distribution(model, in_float32(model, student, scored), size)
    with tape.no_grad():
        log_p = log_distribution(model, in_float32(teacher, expected, scored), size)
        chances = elementwise(model, "exp", log_p, size)
        clamped = elementwise(model, "clamp", log_p, size)
    difference = elementwise(model, "difference", log_q, size)
    del clamped
    product = tape.op(
        "product", size, [difference], lambda grad: [tape.allocate(size, "logits")], [chances], part="logits"
    )
    del difference, chances, log_p
    kl = tape.op("kl", scored * FLOAT, [product], lambda grad: [tape.allocate(size, "logits")])
    del product
    total = tape.op("loss", FLOAT, [first, kl], lambda grad: model.allocate(FLOAT, scored * FLOAT))
    return with_balance(model, total)


def log_distribution(model: Shadow, logits32: Value, size: int) -> Value:
    """`(logits / temperature).log_softmax(-1)`."""
    scaled = elementwise(model, "scaled", logits32, size)
    return elementwise(model, "log_softmax", scaled, size, keeps=True)


def policy(model: Shadow, work: Workload) -> Value:
    """`PolicyLoss`: log-probabilities of the actions, and the entropy, without gradient."""
    tape, scored = model.tape, scored_rows(work)
    size = table(model, scored)
    hidden = model.hidden_states(work.rows, work.seq_len, is_masked(work))
    logits = logits_of(model, picked(model, hidden, work.rows, work.seq_len, scored), scored)
    logits = in_float32(model, logits, scored)
    chosen = Value(tape, tape.allocate(scored * LONG))
    found = log_distribution(model, logits, size)
    back = lambda grad: [tape.allocate(size, "logits")]  # noqa: E731
    read = tape.op("loss", scored * FLOAT, [found], back, [chosen])
    with tape.no_grad():
        chances = elementwise(model, "exp", found, size)
        clamped = elementwise(model, "clamp", found, size)
        elementwise(model, "product", chances, size)
        del chances, clamped
    return with_balance(model, read)
