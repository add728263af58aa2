"""A model's weights by size, and the operations its modules are made of, in the terms of `hardware.tape`."""

from collections.abc import Callable

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.tape import Buffer, Parameter, Tape, Value
from minimind_edu.hardware.workload import Workload

FLOAT, LONG = 4, 8  # bytes of a number
Back = Callable[[Buffer], list[Buffer | None]]


class Operations:
    """The weights of a model, and operations on tensors that have a size only.

    Args:
        tape: where its tensors are written down; the weights are, at once.
        work: number format, device, adapters and checkpointing.
        trained: whether its weights get gradients (under LoRA only the adapters' do).
        part: what its weights count as.
    """

    def __init__(
        self, tape: Tape, config: ModelConfig, work: Workload, trained: bool = True, part: str = "weights"
    ) -> None:
        self.tape, self.config, self.work, self.part = tape, config, work, part
        self.e = FLOAT if work.dtype == "float32" else 2
        self.on_cpu = work.device == "cpu"
        self.trained, self.adapted = trained and not work.rank, trained and work.rank
        self.parameters: list[Parameter] = []
        self.balances: list[Value] = []  # the experts' auxiliary losses
        self.held = [Value(tape, tape.allocate(self._table_size(config.max_position_embeddings), part))
                     for _ in ("cos", "sin")]  # fmt: skip
        c = config
        self.embedding = self._parameter(c.vocab_size, c.hidden_size, is_table=True)
        self.layers = [self._layer() for _ in range(c.num_hidden_layers)]
        self.norm = self._parameter(c.hidden_size)
        tied = c.tie_word_embeddings
        self.head_weight = (
            self.embedding if tied else self._parameter(c.vocab_size, c.hidden_size, is_table=True)
        )

    def _table_size(self, positions: int) -> int:
        return positions * self.config.head_dim * FLOAT

    def _parameter(self, *shape: int, trained: bool | None = None, is_table: bool = False) -> Parameter:
        parameter = Parameter(*shape, trained=self.trained if trained is None else trained, is_table=is_table)
        self.parameters.append(parameter)
        self.held.append(Value(self.tape, self.tape.allocate(parameter.size, self.part)))
        return parameter

    def _matrix(self, name: str, fan_in: int, fan_out: int) -> tuple[Parameter, ...]:
        """A weight, and the two of its adapter if it has one."""
        found = [self._parameter(fan_out, fan_in, is_table=name == "gate")]
        if self.adapted and (name in self.work.targets or "all-linear" in self.work.targets):
            rank = self.work.rank
            found += [
                self._parameter(rank, fan_in, trained=True),
                self._parameter(fan_out, rank, trained=True),
            ]
        return tuple(found)

    def _layer(self) -> dict:
        c = self.config
        queries, keys = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        layer: dict = {"q_proj": self._matrix("q_proj", c.hidden_size, queries)}
        layer |= {name: self._matrix(name, c.hidden_size, keys) for name in ("k_proj", "v_proj")}
        layer["o_proj"] = self._matrix("o_proj", queries, c.hidden_size)
        if c.qk_norm:
            layer |= {name: self._parameter(c.head_dim) for name in ("q_norm", "k_norm")}
        if c.use_moe:
            layer["gate"] = self._matrix("gate", c.hidden_size, c.num_experts)
            count = c.num_experts + c.num_shared_experts
            layer["experts"] = [self._expert(c.moe_intermediate_size) for _ in range(count)]
        else:
            layer["mlp"] = self._expert(c.intermediate_size)
        names = ("input_layernorm", "post_attention_layernorm")
        return layer | {name: self._parameter(c.hidden_size) for name in names}

    def _expert(self, width: int) -> dict:
        c = self.config.hidden_size
        return {
            "gate_proj": self._matrix("gate_proj", c, width),
            "up_proj": self._matrix("up_proj", c, width),
            "down_proj": self._matrix("down_proj", width, c),
        }

    # Operations that several modules have.

    def allocate(self, *sizes: int) -> list[Buffer]:
        """Gradients of these sizes."""
        return [self.tape.allocate(size) for size in sizes]

    def passed_on(self, grad: Buffer) -> list[Buffer]:
        """The gradient of the result is that of the input."""
        return [self.tape.hold(grad)]

    def cast(self, x: Value, before: int, after: int, part: str = "temporary") -> Value:
        """A copy in another type: from `before` to `after` bytes."""
        return self.tape.op("cast", after, [x], lambda grad: [self._part(before, part)], part=part)

    def _part(self, size: int, part: str) -> Buffer:
        return self.tape.allocate(size, part)

    def copied(self, x: Value, size: int) -> Value:
        """A copy in another order of its elements, in both directions."""
        return self.tape.op("copy", size, [x], lambda grad: self.allocate(size))

    def recopied(self, x: Value, size: int) -> Value:
        """A view whose gradient comes in another order and is copied."""
        return self.tape.op("view", 0, [x], lambda grad: self.allocate(size))

    def times(self, name: str, x: Value, y: Value | Parameter, size: int, reduced: int, e: int = 4) -> Value:
        """x times y, of which y has `reduced` bytes and is spread over x."""
        tape, both = self.tape, _trained(y)

        def back(grad: Buffer) -> list[Buffer | None]:
            of_x = tape.allocate(size) if x_needs else None
            if not both:
                return [of_x, None]
            of_y = tape.allocate(size)
            if reduced == size:
                return [of_x, of_y]
            summed = tape.allocate(reduced)
            tape.drop(of_y)
            return [of_x, summed]

        x_needs = x.needs_grad
        keeps = ([x] if both else []) + ([y] if isinstance(y, Value) and x_needs else [])
        return tape.op(name, size, [x, y], back, keeps)

    def added(self, x: Value, y: Value, size: int, e: int) -> Value:
        """The residual stream (float32, `size` bytes) plus what a sublayer gives in `e` bytes a number."""
        tape = self.tape
        if e != FLOAT and self.on_cpu:  # a CPU converts first, a GPU while it adds
            tape.drop(tape.allocate(size))

        def back(grad: Buffer) -> list[Buffer]:
            other = tape.hold(grad) if e == FLOAT else tape.allocate(size * e // FLOAT)
            return [tape.hold(grad), other]

        return tape.op("residual", size, [x, y], back)

    def rms_norm(self, name: str, x: Value, weight: Parameter, count: int, width: int, e: int) -> Value:
        """`RMSNorm` of `count` vectors in float32; x has `e` bytes a number, the result `self.e`."""
        tape, full, one = self.tape, count * width * FLOAT, count * FLOAT
        with tape.named(name):
            x32 = x if e == FLOAT else self.cast(x, count * width * e, full)

            def square_back(grad: Buffer) -> list[Buffer]:
                power, times = self.allocate(full, full)
                result = tape.allocate(full)
                tape.drop(power)
                tape.drop(times)
                return [result]

            squares = tape.op("input", full, [x32], square_back, [x32])
            mean = tape.op("mean", one, [squares], lambda grad: self.allocate(full))
            del squares
            root = tape.op("rsqrt", one, [mean], lambda grad: self.allocate(one), keeps_result=True)
            del mean
            normed = self.times("input", x32, root, full, one)
            del root
            scaled = self.times("normed", normed, weight, full, width * FLOAT)
            return scaled if self.e == FLOAT else self.cast(scaled, full, full // 2)

    def linear(
        self, name: str, x: Value, weights: tuple[Parameter, ...], rows: int, part: str = "temporary"
    ) -> Value:
        """`nn.Linear`, or `LoRALinear` where there are an adapter's weights."""
        y = self._product(name, x, weights[0], rows, part)
        if len(weights) == 1:
            return y
        low = self._product(f"{name}.lora_A", x, weights[1], rows)
        high = self._product(f"{name}.lora_B", low, weights[2], rows)
        size = high.buffer.size
        scaled = self.tape.op("scale", size, [high], lambda grad: self.allocate(size))
        del high
        return self.tape.op("sum", size, [y, scaled], lambda grad: 2 * self.passed_on(self.tape.hold(grad)))

    def _product(self, name: str, x: Value, weight: Parameter, rows: int, part: str = "temporary") -> Value:
        """x times a weight, which autocast copies to 16 bits once for a whole forward pass."""
        tape, (fan_out, fan_in) = self.tape, weight.shape
        matrix = weight if self.e == FLOAT else self._autocast(weight)

        def back(grad: Buffer) -> list[Buffer | None]:
            of_weight = tape.allocate(fan_out * fan_in * self.e) if weight.trained else None
            return [tape.allocate(rows * fan_in * self.e) if x_needs else None, of_weight]

        x_needs = x.needs_grad
        keeps = [x] if weight.trained else []
        if isinstance(matrix, Value) and x_needs:
            keeps.append(matrix)
        return tape.op(name, rows * fan_out * self.e, [x, matrix], back, keeps, part=part, views=True)

    def _autocast(self, weight: Parameter) -> Value:
        if weight in self.tape.casts:
            return self.tape.casts[weight]
        tape = self.tape
        copy = tape.op("cast", weight.size // 2, [weight], lambda grad: self.allocate(weight.size))
        if weight.trained:
            tape.casts[weight] = copy
        return copy


def _trained(one: Value | Parameter) -> bool:
    return one.needs_grad if isinstance(one, Value) else one.trained
