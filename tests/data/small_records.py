"""Messages of a conversation, and short ways to look at what was loaded or refused."""

import pytest

from minimind_edu.data.errors import DataError

U, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
S, T = {"role": "system", "content": "s"}, {"role": "tool", "content": "4"}


def refusal(load, *args, **options):
    with pytest.raises(DataError) as caught:
        load(*args, **options)
    return str(caught.value)


def texts(loaded):
    return [record["text"] for record in loaded]
