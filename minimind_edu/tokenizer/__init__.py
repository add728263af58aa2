"""Tokenizers: one written to be read (`bpe`), one to be used (`fast`), and chat templates (`chat`).

Chapter 1 derives byte-level BPE; `BPETokenizer` is what it ends with, `Tokenizer` gives the same ids faster.
"""

from minimind_edu.tokenizer.bpe import BPETokenizer
from minimind_edu.tokenizer.chat import ChatEncoding
from minimind_edu.tokenizer.fast import Tokenizer, load_tokenizer, train_fast
from minimind_edu.tokenizer.specials import SPECIAL_TOKENS, TokenizerError
from minimind_edu.tokenizer.template import DEFAULT_CHAT_TEMPLATE

__all__ = [
    "DEFAULT_CHAT_TEMPLATE",
    "SPECIAL_TOKENS",
    "BPETokenizer",
    "ChatEncoding",
    "Tokenizer",
    "TokenizerError",
    "load_tokenizer",
    "train_fast",
]
