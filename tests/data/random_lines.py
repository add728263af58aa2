"""Random records as lines of a file, for tests that draw from them."""

import json
import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

anywhere = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

# Any JSON, with what looks like JSON's own punctuation inside of strings.
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=6)
    | st.sampled_from([",\n ", "\r\n", "[{", " "]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def records(count, seed=0, longest=60):
    """Different records of different lengths, some Chinese, as lines without newline."""
    dice = random.Random(seed)
    lines = []
    for number in range(count):
        alphabet = dice.choice(["abcd ", "你好世界", "где"])
        text = f"{number} " + "".join(dice.choices(alphabet, k=dice.randint(0, longest)))
        lines.append(json.dumps({"text": text}, ensure_ascii=dice.random() < 0.5))
    return lines


def in_key_order(lines, seed):
    """What the package promises: one random number for each line, in the file's order; the smallest first."""
    generator = random.Random(seed)
    return [line for _, _, line in sorted((generator.random(), n, line) for n, line in enumerate(lines))]


def size(line):
    return len(line.encode()) + 1


def sentences(count, seed, copies=0.5):
    """Texts of which a part are altered copies of earlier ones, and how many originals there are."""
    dice = random.Random(seed)
    texts, originals = [], 0
    for number in range(count):
        if texts and dice.random() < copies:
            text = dice.choice(texts[-30:])
            place = dice.randrange(len(text))
            texts.append(text[:place] + dice.choice("XYZ") + text[place + 1 :])
        else:
            texts.append(f"{number} " + "".join(dice.choices("abcdefghijklmnop ", k=300)))
            originals += 1
    return [json.dumps({"text": text}) for text in texts], originals
