"""The switch of adaptive thinking: prompts that make a model think, or not, or leave it the choice.

A model that was trained on both kinds of answers follows what its prompt begins with: an open block of
thoughts, or an empty one (Yang et al., 2025, "Qwen3 Technical Report", section 4.3).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from minimind_edu.tokenizer.fast import Tokenizer
from minimind_edu.tokenizer.template import Message

# What an answer begins with: our template and MiniMind-3's write it, Qwen3's only the second.
OPENINGS = {True: "<think>\n", False: "<think>\n\n</think>\n\n"}


def prompt_ids(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    thinking: bool | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> list[int]:
    """Token ids of a conversation up to where the model is to go on.

    Args:
        thinking: True or False set the template's switch, called `open_thinking` in MiniMind-3's template and
            `enable_thinking` in Qwen3's. For a template without one, the opening is written here: what the
            model then sees is what a record that thinks, or has an empty block of thoughts, begins with. None
            leaves the template at its default.

    Raises:
        TokenizerError: as `Tokenizer.encode_chat`.
    """

    def encode(**switch: bool) -> list[int]:
        return tokenizer.encode_chat(messages, add_generation_prompt=True, tools=tools, **switch).input_ids

    if thinking is None:
        return encode()
    on, off = (encode(open_thinking=value, enable_thinking=value) for value in (True, False))
    if on == off:
        return on + tokenizer.encode(OPENINGS[thinking], special=True)
    return on if thinking else off


def opening(tokenizer: Tokenizer, prompt: Sequence[int]) -> str:
    """What of the model's answer stands in its prompt already, the begun or empty block of thoughts.

    A verifier has to see the whole answer: this, and what the model wrote.
    """
    text = tokenizer.decode(prompt)
    return next((start for start in reversed(OPENINGS.values()) if text.endswith(start)), "")


def whole_answer(tokenizer: Tokenizer, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    """The answer that a verifier is to see: what its prompt began, and all that the model wrote.

    Only the end token is left out. Other control tokens stay, as text: a decoder that dropped them would turn
    "4<|im_start|>6" into a clean 46.
    """
    ended = bool(tokens) and tokens[-1] == tokenizer.eos_token_id
    return opening(tokenizer, prompt) + tokenizer.decode(tokens[:-1] if ended else tokens)
