"""Our modules as sequences of tensor sizes: what a forward pass keeps, and what its backward allocates.

Every function here stands for one of `minimind_edu.model` and follows it line by line, so a change there is
a change here; tests compare the bytes with what `torch.autograd.graph.saved_tensors_hooks` counts.

Sizes are products of: N tokens (B rows of T), C hidden size, H query and G key/value heads of D channels,
I width of a feed-forward, V vocabulary; `e` bytes of a number in matrix products (4, or 2 under autocast).
"""

from minimind_edu.hardware.operations import FLOAT, LONG, Back, Operations
from minimind_edu.hardware.tape import Buffer, Node, Slot, Value

PLAIN_UP_TO = {4: 256, 2: 512}  # tokens, by e: see `model.attention.plain_is_faster`


class Shadow(Operations):
    """A model that has the sizes of its tensors only; arguments as for `Operations`."""

    def rope(self, x: Value, size: int, table: int) -> Value:
        """`apply_rope` to queries or keys of `size` bytes; `table` bytes have the angles of T positions."""
        tape, full = self.tape, size * FLOAT // self.e
        converts = self.e != FLOAT and self.on_cpu

        def times_back(grad: Buffer) -> list[Buffer]:
            result = tape.allocate(full)
            if self.e == FLOAT:
                return [result]
            rounded = tape.allocate(size)
            tape.drop(result)
            return [rounded]

        def addcmul_back(grad: Buffer) -> list[Buffer]:
            scaled = tape.allocate(table)
            (rounded,) = times_back(grad)
            tape.drop(scaled)
            return [tape.hold(grad), rounded]

        swapped = tape.op("roll", size, [x], lambda grad: self.allocate(size))
        if converts:
            tape.drop(tape.allocate(full))
        product = tape.op("cos", full, [x], times_back)
        if converts:
            tape.drop(tape.allocate(full))
        turned = tape.op("sin", full, [product, swapped], addcmul_back)
        del product
        return turned if self.e == FLOAT else self.cast(turned, full, size)

    def attention(self, layer: dict, x: Value, rows: int, length: int, bias: Value | None) -> Value:
        """`Attention` on B rows of T tokens."""
        c, tokens = self.config, rows * length
        heads, groups, channels = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        table = self._table_size(length)
        turned = {}
        for name, count in (("q", heads), ("k", groups)):
            size = tokens * count * channels * self.e
            one = self.recopied(self.linear(f"{name}_proj.input", x, layer[f"{name}_proj"], tokens), size)
            if c.qk_norm:
                norm = layer[f"{name}_norm"]
                one = self.rms_norm(f"{name}_norm", one, norm, tokens * count, channels, self.e)
            turned[name] = self.rope(one, size, table)
            del one
        value = self.linear("v_proj.input", x, layer["v_proj"], tokens)
        if bias is not None and self.on_cpu and length <= PLAIN_UP_TO[self.e]:
            mixed = self.plain_attention(turned["q"], turned["k"], value, bias, rows, length)
        else:
            mixed = self.fused_attention(turned["q"], turned["k"], value, bias, rows, length)
        size = tokens * heads * channels * self.e
        is_view = heads == 1 or self.is_fused_transposed(bias, length)
        joined = mixed if is_view else self.copied(mixed, size)
        return self.linear("o_proj.input", joined, layer["o_proj"], tokens)

    def is_fused_transposed(self, bias: Value | None, length: int) -> bool:
        """Whether attention's result has its heads beside each other already, as fused kernels write it."""
        return not (bias is not None and self.on_cpu and length <= PLAIN_UP_TO[self.e])

    def plain_attention(
        self, query: Value, key: Value, value: Value, bias: Value, rows: int, length: int
    ) -> Value:
        """`model.attention.plain_attention`: scores and weights of T x T for every head."""
        c, tape = self.config, self.tape
        heads, groups, channels = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        square = rows * heads * length * length * self.e
        q_size, k_size = (rows * count * length * channels * self.e for count in (heads, groups))
        alone = rows == 1 or groups == 1
        stacked = tape.op("bias", 0 if heads == 1 else square, [bias], self.passed_on)
        if not alone:
            key, value = self.copied(key, k_size), self.copied(value, k_size)
        if not (alone and heads == groups):
            query = self.copied(query, q_size)

        def both_back(x: Value, y: Value, sizes: tuple[int, int], scaled: bool) -> Back:
            needs = (x.needs_grad, y.needs_grad)

            def back(grad: Buffer) -> list[Buffer | None]:
                found: list[Buffer | None] = [None, None]
                # A plain product computes the right factor's gradient first, a scaled one the left's.
                for side in (0, 1) if scaled else (1, 0):
                    if needs[side]:
                        found[side] = tape.allocate(sizes[side])
                    if needs[side] and scaled:
                        product, found[side] = found[side], tape.allocate(sizes[side])
                        tape.drop(product)
                return found

            return back

        def kept(x: Value, y: Value) -> list[Value]:
            return ([x] if y.needs_grad else []) + ([y] if x.needs_grad else [])

        back = both_back(query, key, (q_size, k_size), scaled=True)
        scores = tape.op("scores", square, [query, key], back, kept(query, key))
        weights = tape.op("weights", square, [scores], lambda grad: self.allocate(square), keeps_result=True)
        back = both_back(weights, value, (square, k_size), scaled=False)
        mixed = tape.op("value", q_size, [weights, value], back, kept(weights, value))
        del stacked, scores, weights
        return self.recopied(mixed, q_size)

    def fused_attention(
        self, query: Value, key: Value, value: Value, bias: Value | None, rows: int, length: int
    ) -> Value:
        """`scaled_dot_product_attention`, which keeps its result and one number for every query."""
        c, tape = self.config, self.tape
        heads, groups, channels = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        q_size, k_size = (rows * count * length * channels * self.e for count in (heads, groups))
        sums = rows * heads * length * FLOAT
        q, k, v, b = (None if one is None else one.buffer for one in (query, key, value, bias))
        logsumexp = tape.allocate(sums)
        kept = [one for one in (b, k, q, v, logsumexp) if one is not None]
        mixed = tape.op(
            "fused",
            q_size,
            [query, key, value],
            lambda grad: self.allocate(q_size, k_size, k_size),
            kept,
            keeps_result=True,
        )
        tape.drop(logsumexp)
        return mixed

    def feed_forward(self, name: str, x: Value, weights: dict, rows: int, width: int) -> Value:
        """`FeedForward` (SwiGLU) on `rows` vectors."""
        size = rows * width * self.e
        with self.tape.named(name):
            gate = self.linear("gate_proj.input", x, weights["gate_proj"], rows)
            opened = self.tape.op("silu.input", size, [gate], lambda grad: self.allocate(size), [gate])
            del gate
            up = self.linear("up_proj.input", x, weights["up_proj"], rows)
            both = self.times("gated", opened, up, size, size)
            del opened, up
            return self.linear("down_proj.input", both, weights["down_proj"], rows)

    def mixture(self, layer: dict, x: Value, rows: int, tokens: int) -> Value:
        """`MoEFeedForward`, its tokens spread evenly over the experts."""
        c, tape = self.config, self.tape
        experts, top_k, width = c.num_experts, c.num_experts_per_tok, c.hidden_size
        pairs = tokens * top_k
        size = pairs * width * self.e
        gates = self.linear("gate.input", x, layer["gate"], tokens)
        chances = tokens * experts * FLOAT
        routed = tape.op("router", chances, [gates], lambda grad: self.allocate(chances), keeps_result=True)
        del gates
        chosen = Value(tape, tape.allocate(pairs * LONG))
        weights = tape.op("top_k", pairs * FLOAT, [routed], lambda grad: self.allocate(chances), [chosen])
        if c.norm_topk_prob:
            sums = Value(tape, tape.allocate(tokens * FLOAT))
            both = lambda grad: self.allocate(pairs * FLOAT)  # noqa: E731
            weights = tape.op("share", pairs * FLOAT, [weights], both, [weights, sums])
            del sums
        order, token = (Value(tape, tape.allocate(pairs * LONG)) for _ in ("order", "token"))

        def index_back(grad: Buffer) -> list[Buffer]:
            return self.allocate(tokens * width * self.e)

        taken = tape.op("sorted", size, [x], index_back, [token])
        split = tape.op("split", 0, [taken], self.passed_on)
        if isinstance(split.source, Node):
            split.source.pieces = []
        del taken
        shares = [pairs // experts + (number < pairs % experts) for number in range(experts)]
        outputs, places = [], []
        for number, share in enumerate(shares):
            block = Value(tape, tape.hold(split.buffer), split.source)
            one = self.feed_forward(
                f"experts.{number}", block, layer["experts"][number], max(share, 1), c.moe_intermediate_size
            )
            places.append(one.source)
            outputs.append(one)
        joined = self._joined(outputs, [share * width * self.e for share in shares], size)
        del outputs, one, block
        one_each = lambda grad: self.allocate(pairs * FLOAT)  # noqa: E731
        ordered = tape.op("order", pairs * FLOAT, [weights], one_each, [order])
        if self.e != FLOAT:
            ordered = self.cast(ordered, pairs * FLOAT, pairs * self.e)
        scaled = self.times("outputs", joined, ordered, size, pairs * self.e)
        del joined
        total = tokens * width * self.e
        output = tape.op("summed", total, [scaled], lambda grad: self.allocate(size), [scaled, token])
        del scaled
        tape.drop(tape.allocate(pairs * experts * LONG))  # one_hot
        groups = rows if c.seq_aux else 1
        balance = [Value(tape, tape.allocate(groups * count * FLOAT)) for count in (1, experts)]
        self.balances.append(
            tape.op("balance", FLOAT, [routed], lambda grad: self.allocate(chances), balance)
        )
        for number in range(experts, len(layer["experts"])):
            more = self.feed_forward(
                f"experts.{number}", x, layer["experts"][number], tokens, c.moe_intermediate_size
            )
            output = tape.op("sum", total, [output, more], lambda grad: 2 * self.passed_on(tape.hold(grad)))
            del more
        return output

    def _joined(self, outputs: list[Value], sizes: list[int], size: int) -> Value:
        """The experts' outputs as one tensor; its gradient is cut into views, held until all are used."""
        tape = self.tape

        def back(grad: Buffer) -> list[Buffer]:
            return [tape.hold(grad) for _ in sizes]

        return tape.op("joined", size, outputs, back, views=True)

    def block(self, number: int, x: Value, rows: int, length: int, bias: Value | None) -> Value:
        """`Block`."""
        layer, tokens, c = self.layers[number], rows * length, self.config
        size = tokens * c.hidden_size * FLOAT
        with self.tape.named(f"layers.{number}"):
            norm = layer["input_layernorm"]
            normed = self.rms_norm("input_layernorm", x, norm, tokens, c.hidden_size, FLOAT)
            mixed = self.attention(layer, normed, rows, length, bias)
            del normed
            x = self.added(x, mixed, size, self.e)
            del mixed
            norm = layer["post_attention_layernorm"]
            normed = self.rms_norm("post_attention_layernorm", x, norm, tokens, c.hidden_size, FLOAT)
            if c.use_moe:
                mixed = self.mixture(layer, normed, rows, tokens)
            else:
                mixed = self.feed_forward("mlp", normed, layer["mlp"], tokens, c.intermediate_size)
            return self.added(x, mixed, size, self.e)

    def hidden_states(self, rows: int, length: int, masked: bool) -> Value:
        """`MiniMind.hidden_states` of B rows of T tokens; `masked` where a mask tells documents apart."""
        c, tape, tokens = self.config, self.tape, rows * length
        table, size = self.embedding.size, tokens * c.hidden_size * FLOAT
        tape.enter("embedding")
        with tape.named("embed_tokens"):
            x = tape.op("output", size, [self.embedding], lambda grad: self.allocate(table))
        bias = self.bias(rows if masked else 1, length, masked)
        for number in range(c.num_hidden_layers):
            tape.enter(f"layer {number}")
            if self.work.gradient_checkpointing and tape.records and self.part == "weights":
                x = self._checkpointed(number, x, rows, length, bias)
            else:
                x = self.block(number, x, rows, length, bias)
        tape.enter("head")
        return self.rms_norm("norm", x, self.norm, tokens, c.hidden_size, FLOAT)

    def bias(self, rows: int, length: int, masked: bool) -> Value | None:
        """`attention_bias`, with the masks it is made from; None where attention is plainly causal."""
        tape = self.tape
        if not masked and not (self.on_cpu and length <= PLAIN_UP_TO[self.e]):
            return None
        allowed = [Value(tape, tape.allocate(length * length))]
        if masked:
            allowed.append(Value(tape, tape.allocate(rows * length * length)))
            allowed = [Value(tape, tape.allocate(rows * length * length))]
        bias = Value(tape, tape.allocate(rows * length * length * self.e))
        allowed.append(Value(tape, tape.allocate(rows * length * length)))
        return bias

    def _checkpointed(self, number: int, x: Value, rows: int, length: int, bias: Value | None) -> Value:
        """`torch.utils.checkpoint`: only the block's input is kept, and the block runs again later."""
        tape, place = self.tape, self.tape.place
        with tape.no_grad():
            result = self.block(number, x, rows, length, bias)
        start, needs_grad = x.buffer, x.needs_grad

        def back(grad: Buffer) -> list[Buffer | None]:
            leaf = Slot() if needs_grad else None
            nodes, casts, tape.nodes, tape.casts = tape.nodes, tape.casts, [], {}
            tape.phase = f"forward of {place} again"
            again = Value(tape, tape.hold(start), leaf)
            end = self.block(number, again, rows, length, bias)
            tape.casts, source = casts, end.source
            del end, again
            tape.backward(source, tape.hold(grad))
            tape.nodes = nodes
            return [leaf.grad if leaf else None]

        kept = [one for one in (x, bias) if one is not None]
        return tape.op("block.input", 0, [x], back, kept, made=result, always=True)
