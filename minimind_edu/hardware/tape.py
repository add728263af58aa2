"""When tensors begin and end in a training step, without computing any of them.

A `Tape` plays a step with tensors that have a size and nothing else. Operations say how large their result
is, which tensors autograd keeps for them, and what their backward allocates. Lifetimes then follow from the
rules that PyTorch has too: a tensor is freed when the last Python variable, the last operation that kept it,
and the last gradient slot let it go. `hardware.activations` writes our modules down in these terms.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "temporary", "second_model", "cache")


class Buffer:
    """A piece of memory of `size` bytes, alive while `refs` is above 0."""

    __slots__ = ("number", "part", "refs", "saved", "size")

    def __init__(self, number: int, size: int, part: str) -> None:
        self.number, self.size, self.part, self.refs, self.saved = number, size, part, 1, 0

    @property
    def counted_as(self) -> str:
        """The part of the memory it belongs to now: temporary until autograd keeps it."""
        return "activations" if self.part == "temporary" and self.saved else self.part


class Slot:
    """Where gradients of a value arrive. A leaf (a parameter, or a detached input) is a slot and no more."""

    def __init__(self) -> None:
        self.grad: Buffer | None = None
        self.grad_is_view = False


class Parameter(Slot):
    """A weight in float32.

    Attributes:
        shape: (out, in) of a matrix.
        is_table: whether its rows stand for tokens or experts, which Muon leaves to AdamW.
        size: bytes.
        trained: whether it gets a gradient.
        total: its gradient over all batches of a window.
        uses: operations of this forward pass that will send a gradient.
    """

    def __init__(self, *shape: int, trained: bool = True, is_table: bool = False) -> None:
        super().__init__()
        self.shape, self.size, self.trained = shape, 4 * math.prod(shape), trained
        self.is_table = is_table
        self.total: Buffer | None = None
        self.uses = 0


class Node(Slot):
    """An operation on the tape that has a backward.

    Attributes:
        inputs: the slots that `back` has gradients for.
        back: takes the gradient of the result, and returns a gradient (bytes in a Buffer) for each input.
        kept: what autograd keeps until `back` has run.
        views: whether the gradients are views of other tensors; PyTorch cannot add into those in place.
    """

    def __init__(
        self,
        inputs: list[Slot],
        back: Callable[[Buffer], list[Buffer]],
        kept: list[Buffer],
        views: bool,
        place: str,
    ) -> None:
        super().__init__()
        self.inputs, self.back, self.kept, self.views, self.place = inputs, back, kept, views, place
        self.number = 0
        self.pieces: list[Buffer] | None = None  # gradients of parts, to be joined to one


class Value:
    """A Python variable that holds a tensor: deleting it may free the memory."""

    __slots__ = ("buffer", "source", "tape")

    def __init__(self, tape: "Tape", buffer: Buffer, source: Slot | None = None) -> None:
        self.tape, self.buffer, self.source = tape, buffer, source

    @property
    def needs_grad(self) -> bool:
        """Whether the backward pass reaches it."""
        return self.source is not None

    def __del__(self) -> None:
        self.tape.drop(self.buffer)


class Tape:
    """A sequence of allocations and releases, with the total of each part.

    Attributes:
        events: (number, size) for an allocation, (number, 0) for the release; numbers below 0 are objects of
            operations, without a size that matters.
        live: bytes by part, now.
        peak: most bytes at one time; `at_peak` are the parts then, `moment` the phase.
    """

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []
        self.live = dict.fromkeys(PARTS, 0)
        self.total = self.peak = 0
        self.at_peak, self.moment = dict(self.live), ""
        self.records, self.nodes = True, []
        self.place, self.phase = "start", "start"
        self.casts: dict[Parameter, Value] = {}  # autocast's copies of weights, until its context ends
        self.kept_by_name: dict[str, int] = {}
        self.scope = ""
        self._count = 0

    def enter(self, place: str) -> None:
        """Forward operations belong to this part of the model from now on."""
        self.place, self.phase = place, f"forward of {place}"

    def allocate(self, size: int, part: str = "temporary") -> Buffer:
        """A new piece of memory."""
        self._count += 1
        buffer = Buffer(self._count, size, part)
        self.events.append((buffer.number, size or 1))  # 0 stands for a release
        self.live[part] += size
        self.total += size
        if self.total > self.peak:
            self.peak, self.at_peak, self.moment = self.total, dict(self.live), self.phase
        return buffer

    def hold(self, buffer: Buffer) -> Buffer:
        """One more reference."""
        buffer.refs += 1
        return buffer

    def drop(self, buffer: Buffer) -> None:
        """One reference less; the last one frees the memory."""
        buffer.refs -= 1
        if not buffer.refs:
            self.events.append((buffer.number, 0))
            self.live[buffer.counted_as] -= buffer.size
            self.total -= buffer.size

    def relabel(self, buffer: Buffer, part: str) -> None:
        """Count a piece of memory to another part from now on."""
        self.live[buffer.counted_as] -= buffer.size
        buffer.part = part
        self.live[buffer.counted_as] += buffer.size

    def keep(self, buffer: Buffer, name: str = "") -> Buffer:
        """What autograd does with a tensor that a backward will need."""
        before = buffer.counted_as
        if not buffer.saved and buffer.part != "weights":
            full = f"{self.scope}{name}"
            self.kept_by_name[full] = self.kept_by_name.get(full, 0) + buffer.size
        buffer.saved += 1
        self._moved(buffer, before)
        return self.hold(buffer)

    def unkeep(self, buffer: Buffer) -> None:
        """The backward that needed it has run."""
        before = buffer.counted_as
        buffer.saved -= 1
        self._moved(buffer, before)
        self.drop(buffer)

    def _moved(self, buffer: Buffer, before: str) -> None:
        if buffer.counted_as != before:
            self.live[before] -= buffer.size
            self.live[buffer.counted_as] += buffer.size

    @contextmanager
    def named(self, scope: str) -> Iterator[None]:
        """Names of kept tensors begin with `scope` inside."""
        before, self.scope = self.scope, f"{self.scope}{scope}."
        yield
        self.scope = before

    @contextmanager
    def no_grad(self) -> Iterator[None]:
        """Operations inside have no backward and keep nothing."""
        before, self.records = self.records, False
        yield
        self.records = before

    def op(
        self,
        name: str,
        size: int,
        inputs: Sequence[Value | Parameter],
        back: Callable[[Buffer], list[Buffer | None]],
        keeps: Iterable[Value | Buffer] = (),
        *,
        keeps_result: bool = False,
        part: str = "temporary",
        views: bool = False,
        made: Value | None = None,
        always: bool = False,
    ) -> Value:
        """An operation with a result of its own.

        Args:
            size: bytes of the result; 0 for a view of the first input.
            back: gradient of the result to one gradient for each input (None where it needs none).
            keeps: what autograd keeps if any input needs a gradient.
            made: the result, where it exists already.
            always: has a backward even if no input needs a gradient.
        """
        if made is not None or not size:
            result = self.hold((made or inputs[0]).buffer)
        else:
            result = self.allocate(size, part)
        if not self.records or not (always or any(_slot(one) for one in inputs)):
            return Value(self, result)
        kept = [one.buffer if isinstance(one, Value) else one for one in keeps]
        kept = [self.keep(one, name) for one in kept + ([result] if keeps_result else [])]
        for one in inputs:
            if isinstance(one, Parameter) and one.trained:
                one.uses += 1
        node = Node([_slot(one) for one in inputs], back, kept, views, self.place)
        self.nodes.append(node)
        self._count += 1
        node.number = -self._count
        self.events.append((node.number, 1))
        return Value(self, result, node)

    def backward(self, end: Slot, gradient: Buffer) -> None:
        """Run all backwards, last operation first, as PyTorch's engine orders them.

        Args:
            end: the slot of the loss, or of a block's output.
            gradient: what it gets; the caller's reference is used up.
        """
        end.grad = gradient
        while self.nodes:
            node = self.nodes.pop()
            self.phase = f"backward of {node.place}"
            if node.pieces:
                node.grad = self.allocate(sum(piece.size for piece in node.pieces))
                for piece in node.pieces:
                    self.drop(piece)
            found = [None] * len(node.inputs)
            if node.grad is not None:
                found = node.back(node.grad)
                self.drop(node.grad)
            for buffer in node.kept:
                self.unkeep(buffer)
            node.kept, node.back = [], None
            self.events.append((node.number, 0))
            for slot, grad in zip(node.inputs, found, strict=True):
                if grad is not None:
                    self._send(slot, grad, node.views)

    def _send(self, slot: Slot | None, grad: Buffer, is_view: bool) -> None:
        if slot is None:
            self.drop(grad)
            return
        if isinstance(slot, Node) and slot.pieces is not None:
            slot.pieces.append(grad)
            return
        if slot.grad is None:
            slot.grad, slot.grad_is_view = grad, is_view
        elif slot.grad_is_view or slot.grad.refs > 1:
            added = self.allocate(grad.size)
            self.drop(slot.grad)
            self.drop(grad)
            slot.grad, slot.grad_is_view = added, False
        else:
            self.drop(grad)
        if isinstance(slot, Parameter):
            slot.uses -= 1
            if not slot.uses:
                self._accumulate(slot)

    def _accumulate(self, parameter: Parameter) -> None:
        """A parameter's gradient is complete: keep it, or add it to that of earlier batches."""
        if parameter.total is None:
            parameter.total = parameter.grad
            self.relabel(parameter.total, "gradients")
        else:
            self.drop(parameter.grad)
        parameter.grad = None


def _slot(one: Value | Parameter) -> Slot | None:
    return one.source if isinstance(one, Value) else one if one.trained else None
