"""Commands that write text with a trained model."""

import sys
from dataclasses import dataclass
from typing import Literal

from minimind_edu.commands.loading import load
from minimind_edu.generation import Sampling, stream
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.lora import adapter_names, set_adapter
from minimind_edu.tokenizer.thinking import opening, prompt_ids

SWITCH = "/adapter"  # typed in a chat


@dataclass
class SamplingConfig:
    """How to write text.

    Args:
        from_weight: folder of a run or of a model.
        adapter: folders of LoRA adapters, with commas between; the first is in use. Empty means none.
        max_new_tokens: most tokens to write.
        temperature: 0 takes the likeliest token; larger is more varied.
        top_k: choose among the k likeliest tokens only; 0 means all.
        top_p: choose among the likeliest tokens that together have this probability.
        repetition_penalty: more than 1 makes tokens that were there already less likely.
        thinking: on makes a model that has learned both think before it answers, off answer at once; default
            leaves it to the chat template.
        seed: seed of the choices.
        device: auto, cpu, cuda, cuda:1, mps.
    """

    from_weight: str = "out/sft"
    adapter: str = ""
    max_new_tokens: int = 200
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    thinking: Literal["default", "on", "off"] = "default"
    seed: int = 42
    device: str = "auto"

    def sampling(self) -> Sampling:
        """The part that decides the next token."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.repetition_penalty)

    def switch(self) -> bool | None:
        """The switch of `tokenizer.thinking`."""
        return {"default": None, "on": True, "off": False}[self.thinking]


@dataclass
class GenerateConfig(SamplingConfig):
    """Continue a text.

    Args:
        prompt: the text; empty reads it from standard input.
        chat: treat the prompt as a user's message and answer it.
    """

    prompt: str = ""
    chat: bool = False


@dataclass
class ChatConfig(SamplingConfig):
    """Talk to a fine-tuned model.

    Args:
        system: a system message to begin with.
        remember: how many earlier questions and answers the model sees.
    """

    system: str = ""
    remember: int = 0


def run_generate(config: GenerateConfig) -> None:
    if config.thinking != "default" and not config.chat:
        raise ValueError("--thinking is about answers to a message: add --chat")
    model, tokenizer = load(config)
    prompt = config.prompt or sys.stdin.read()
    if config.chat:
        chat = [{"role": "user", "content": prompt}]
        ids = prompt_ids(tokenizer, chat, config.switch())
    else:
        ids = [tokenizer.bos_token_id, *tokenizer.encode(prompt)]
        print(prompt, end="")
    _write(model, tokenizer, ids, config)


def run_chat(config: ChatConfig) -> None:
    model, tokenizer = load(config)
    system = [{"role": "system", "content": config.system}] if config.system else []
    history: list[dict[str, str]] = []
    print("Type a question; an empty line or Ctrl-D ends the chat.")
    if names := adapter_names(model):
        print(f"{SWITCH} NAME uses another adapter: {', '.join(names)}, or none. Now: {names[0]}")
    while True:
        try:
            question = input("you    > ").strip()
        except EOFError:
            question = ""
        if not question:
            return
        if question.split()[0] == SWITCH:
            _switch(model, question.removeprefix(SWITCH).strip())
            continue
        history = history[len(history) - 2 * config.remember :] if config.remember else []
        history.append({"role": "user", "content": question})
        ids = prompt_ids(tokenizer, system + history, config.switch())
        print("model  > ", end="")
        history.append({"role": "assistant", "content": _write(model, tokenizer, ids, config)})


def _switch(model: MiniMind, name: str) -> None:
    try:
        set_adapter(model, None if name == "none" else name)
    except ValueError as error:
        print(error)
    else:
        print(f"adapter: {name}")


def _write(model: object, tokenizer: object, ids: list[int], config: SamplingConfig) -> str:
    """Print the model's tokens as they come; returns the text.

    A block of thoughts that the prompt has opened belongs to it; an empty one is nobody's word.
    """
    begun = opening(tokenizer, ids) if config.thinking != "default" else ""
    begun = "" if "</think>" in begun else begun
    print(begun, end="")
    tokens: list[int] = []
    shown = ""
    for token in stream(
        model,
        ids,
        max_new_tokens=config.max_new_tokens,
        sampling=config.sampling(),
        eos_token_id=tokenizer.eos_token_id,
        seed=config.seed,
    ):
        tokens.append(token)
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # a character may be spread over several tokens
            print(text[len(shown) :], end="", flush=True)
            shown = text
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    print(text[len(shown) :], flush=True)
    return begun + text
