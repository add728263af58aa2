"""A small tokenizer, and a published one as it is loaded here and by transformers."""

import pytest
from chats import TEXTS
from transformers import AutoTokenizer

from minimind_edu.tokenizer import Tokenizer, load_tokenizer, train_fast


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_fast(TEXTS, 420)


@pytest.fixture
def published(shared):
    path = shared / "data/tokenizers/minimind3"
    return load_tokenizer(path), AutoTokenizer.from_pretrained(path)
