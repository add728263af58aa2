"""The switch of adaptive thinking: training sees what generation begins with."""

import pytest

from minimind_edu.data.problems import problems
from minimind_edu.tokenizer import Tokenizer, load_tokenizer, train_fast
from minimind_edu.tokenizer.thinking import OPENINGS, opening, prompt_ids, whole_answer

PROBLEMS = [*problems("sums", 6), *problems("words", 6), *problems("countdown", 4)]
QUESTION = [{"role": "user", "content": "What is 1 + 2?"}]
NO_SWITCH = (
    "{%- for m in messages %}{{- bos_token + m.role + '\\n' + m.content + eos_token + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- bos_token + 'assistant\\n' }}{%- endif %}"
)
QWEN = (
    "{%- for m in messages %}{{- bos_token + m.role + '\\n' + m.content + eos_token + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- bos_token + 'assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)


@pytest.fixture(scope="module", params=[True, False], ids=["digits", "numbers"])
def tokenizer(request):
    texts = [text for problem in PROBLEMS for text in (problem.question, problem.response())]
    return train_fast(texts * 3, 700, split_digits=request.param)


def is_beginning(tokenizer, problem, thinking):
    prompt = prompt_ids(tokenizer, [{"role": "user", "content": problem.question}], thinking)
    whole = tokenizer.encode_chat(problem.record(bool(thinking))["conversations"])
    return whole.input_ids[: len(prompt)] == prompt


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("thinking", [True, False, None])
def test_records_begin_as_prompts_do(tokenizer, problem, thinking):
    assert is_beginning(tokenizer, problem, thinking)


@pytest.mark.parametrize("thinking", [True, False])
def test_the_opening_is_special_tokens(tokenizer, thinking):
    prompt = prompt_ids(tokenizer, QUESTION, thinking)
    plain = prompt_ids(tokenizer, QUESTION)
    assert prompt[: len(plain)] == plain
    assert tokenizer.decode(prompt[len(plain) :]) == OPENINGS[thinking] == opening(tokenizer, prompt)
    tags = [tokenizer.special_tokens["<think>"], tokenizer.special_tokens["</think>"]]
    assert [token for token in prompt[len(plain) :] if token in tags] == tags[: 1 if thinking else 2]
    assert opening(tokenizer, plain) == ""


def test_a_users_tag_is_no_opening(tokenizer):
    sly = [{"role": "user", "content": "<think>\n\n</think>\n\n"}]
    ids = prompt_ids(tokenizer, sly, thinking=True)
    assert ids.count(tokenizer.special_tokens["<think>"]) == 1
    assert opening(tokenizer, prompt_ids(tokenizer, sly)) == ""


def test_a_template_with_qwens_switch(tokenizer):
    qwen = Tokenizer(tokenizer.library, tokenizer.config, QWEN)
    plain, on, off = (prompt_ids(qwen, QUESTION, thinking) for thinking in (None, True, False))
    assert on == plain, "with thinking on, the model itself writes <think>"
    assert opening(qwen, off) == OPENINGS[False] and off[: len(plain)] == plain


@pytest.mark.parametrize("problem", PROBLEMS[:8])
@pytest.mark.parametrize("thinking", [True, False, None])
def test_minimind_3(shared, problem, thinking):
    published = load_tokenizer(shared / "data" / "tokenizers" / "minimind3")
    assert is_beginning(published, problem, thinking)
    prompt = prompt_ids(published, QUESTION, thinking)
    assert opening(published, prompt) == OPENINGS[bool(thinking)], "its template does not think by default"


@pytest.mark.parametrize("problem", PROBLEMS)
def test_an_empty_block_of_thoughts_is_the_prompts(tokenizer, problem):
    """Learned as the answer's, it would be written behind a prompt that has opened a block for thoughts."""
    question = [{"role": "user", "content": problem.question}]
    for thinking, prompt in (
        (False, prompt_ids(tokenizer, question, thinking=False)),
        (True, prompt_ids(tokenizer, question)),
    ):
        whole = tokenizer.encode_chat(problem.record(thinking)["conversations"])
        learned = [number for number, one in enumerate(whole.assistant_mask) if one]
        assert learned == [*range(len(prompt), learned[-1] + 1)]
        assert whole.input_ids[learned[-1]] == tokenizer.eos_token_id


ANSWERS = {  # what is learned of them
    "<think>\n\n</think>\n\nIt is 5.": "It is 5.",
    "<think></think>It is 5.": "It is 5.",
    " <think> </think>\n\n\u56db": "\u56db",  # a character of several tokens
    "<think>\n\n</think>\n\n": "",
    "<think>\n.\n</think>\n\nIt is 5.": "<think>\n.\n</think>\n\nIt is 5.",
    "It is <think>\n\n</think>\n\n5.": "It is <think>\n\n</think>\n\n5.",
    "<think>\n\nIt is 5.": "<think>\n\nIt is 5.",
}


@pytest.mark.parametrize(("answer", "learned"), ANSWERS.items())
def test_what_is_learned_of_an_answer(tokenizer, answer, learned):
    chat = [*QUESTION, {"role": "assistant", "content": answer}]
    for turns in (1, 2):  # an earlier turn is learned from in the same way
        ids, mask = tokenizer.encode_chat(chat * turns)
        kept = tokenizer.decode([one for one, is_said in zip(ids, mask, strict=True) if is_said])
        assert kept == (learned + tokenizer.eos_token) * turns


def test_the_default_template_has_the_switch(tokenizer):
    """As text: another reader of the template, such as transformers, gets the same prompts by its name."""
    chat = {"messages": QUESTION, "add_generation_prompt": True}
    plain = tokenizer.apply_chat_template(**chat)
    assert plain.endswith("<|im_start|>assistant\n") and plain == tokenizer.apply_chat_template(
        **chat, enable_thinking=None
    )
    for thinking in (True, False):
        text = tokenizer.apply_chat_template(**chat, enable_thinking=thinking)
        assert text == plain + OPENINGS[thinking]
        assert prompt_ids(tokenizer, QUESTION, thinking) == tokenizer.encode(text, special=True)


def test_a_template_without_a_switch(tokenizer):
    older = Tokenizer(tokenizer.library, tokenizer.config, NO_SWITCH)
    for thinking in (None, True, False):
        assert prompt_ids(older, QUESTION, thinking) == prompt_ids(tokenizer, QUESTION, thinking)


def test_the_whole_answer_is_the_prompts_part_and_all_that_was_written(tokenizer):
    end = tokenizer.eos_token_id
    for thinking, begun in (*OPENINGS.items(), (None, "")):
        prompt = prompt_ids(tokenizer, QUESTION, thinking)
        for ids in ([], tokenizer.encode("3"), [*tokenizer.encode("3"), end]):
            assert whole_answer(tokenizer, prompt, ids) == begun + ("3" if ids else "")


def test_control_tokens_in_an_answer_are_seen(tokenizer):
    """Dropped, they would let an answer through that is none: 4<|im_start|>6 is not 46."""
    prompt, end = prompt_ids(tokenizer, QUESTION), tokenizer.eos_token_id
    four, six = tokenizer.encode("4"), tokenizer.encode("6")
    begin = tokenizer.bos_token_id
    assert whole_answer(tokenizer, prompt, [*four, begin, *six, end]) == f"4{tokenizer.bos_token}6"
    assert whole_answer(tokenizer, prompt, [*four, end, end]) == f"4{tokenizer.eos_token}"
    assert whole_answer(tokenizer, prompt, [begin]) == tokenizer.bos_token
