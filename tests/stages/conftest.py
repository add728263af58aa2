"""What tests of stages share; a file with other needs has fixtures of its own by these names."""

import pytest

from minimind_edu.data.world import SmallWorld
from minimind_edu.data.world.stages import dpo_records
from minimind_edu.tokenizer import train_fast


@pytest.fixture(scope="session")
def tokenizer():
    return train_fast([document.text for document in SmallWorld(6).documents(300)], 500, split_digits=True)


@pytest.fixture(scope="session")
def world_pairs():
    return list(dpo_records(SmallWorld(6)))[:24]
