"""Chat: rendering as transformers does, and the mask of what the assistant said."""

import random

import pytest
from chats import CONVERSATIONS, TEXTS, TOOLS, assistant, call, said, system, user, with_template
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from minimind_edu.tokenizer import SPECIAL_TOKENS, TokenizerError, load_tokenizer, train_fast


class TestEqualsTransformers:
    @pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
    @pytest.mark.parametrize("tools", [None, [], TOOLS], ids=["", "no tools", "tools"])
    @pytest.mark.parametrize(
        "switches",
        [
            {},
            {"add_generation_prompt": True},
            {"add_generation_prompt": True, "open_thinking": True},
            {"add_generation_prompt": True, "open_thinking": False},
        ],
    )
    def test_published_template(self, published, messages, tools, switches):
        ours, theirs = published
        text = theirs.apply_chat_template(messages, tools=tools, tokenize=False, **switches)
        assert ours.apply_chat_template(messages, tools=tools, **switches) == text
        if tools is not TOOLS:  # the description in TOOLS has a special token, which is plain text for us
            ids = theirs.apply_chat_template(messages, tools=tools, tokenize=True, **switches)["input_ids"]
            assert ours.encode_chat(messages, tools=tools, **switches).input_ids == ids

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_any_contents(self, tokenizer, tmp_path_factory, data):
        theirs = self._saved(tokenizer, tmp_path_factory)
        text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
        text = text.filter(lambda content: not any(token in content for token in SPECIAL_TOKENS))
        roles = st.sampled_from(["user", "assistant", "system", "tool", "critic"])
        messages = data.draw(
            st.lists(st.fixed_dictionaries({"role": roles, "content": text}), min_size=1, max_size=6)
        )
        prompt = data.draw(st.booleans())
        rendered = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        assert tokenizer.apply_chat_template(messages, prompt) == rendered
        encoding = tokenizer.encode_chat(messages, prompt)
        ids = theirs.apply_chat_template(messages, add_generation_prompt=prompt)["input_ids"]
        assert encoding.input_ids == ids
        answers = "".join(m["content"] + "<|im_end|>" for m in messages if m["role"] == "assistant")
        assert answers in said(tokenizer, encoding) or "\n" in answers  # newlines may join the header's

    _theirs = None

    def _saved(self, tokenizer, tmp_path_factory):
        if TestEqualsTransformers._theirs is None:
            folder = tmp_path_factory.mktemp("tokenizer")
            tokenizer.save(folder)
            TestEqualsTransformers._theirs = AutoTokenizer.from_pretrained(folder)
        return TestEqualsTransformers._theirs

    @pytest.mark.parametrize(
        "template",
        [
            "{{ messages | tojson }} {{ messages | tojson(indent=2) }} {{ tools | tojson }}",
            "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
            "{% for m in messages %}\n  {%- generation %}\n{{ m.content }}{% endgeneration %}\n{% endfor %}",
            "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}{{ image_token }}{{ nothing }}",
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = 2 %}{% endfor %}{{ ns.n }}",
            "  {% if documents is none %}  x\n  {% endif %}  \n{{ messages[-1].role|upper }}",
            "{{ dict(a=1)['a'] }} {{ messages[0].content[:1] }} {{ messages[0].missing is defined }}",
        ],
    )
    def test_other_templates(self, published, template):
        ours, theirs = published
        messages = [system("é<>&"), user("hi\n"), assistant("yes")]
        expected = theirs.apply_chat_template(messages, chat_template=template, tokenize=False)
        assert with_template(ours, template).apply_chat_template(messages) == expected

    def test_variables_of_any_name(self, tokenizer):
        names = ("template", "tokens", "names", "encode", "variables", "self_", "x")
        t = with_template(tokenizer, tokenizer.chat_template + "".join(f"{{{{ {n} }}}}" for n in names))
        values = dict.fromkeys(names, "v")
        assert t.apply_chat_template([user("x")], **values).endswith("\n" + "v" * len(names))
        assert t.encode_chat([user("x")], **values).input_ids[-1:] == t.encode("vvvvvvv")[-1:]

    def test_the_date(self, tokenizer):
        stamped = with_template(tokenizer, "{{ strftime_now('%Y') }}")
        assert int(stamped.apply_chat_template([user("x")])) >= 2024


def test_many_random_conversations_on_the_published_template(published):
    ours, theirs = published
    rng = random.Random(1)
    texts = [
        "hi",
        "",
        "你好\n",
        "<b>x</b>",
        "  two  ",
        "<think>\nplan\n</think>\n\nanswer",
        "\n\nq",
        "a</think>b",
        "7",
    ]
    for _ in range(150):
        messages = [system(rng.choice(texts[:5]))] if rng.random() < 0.4 else []
        for _ in range(rng.randint(1, 4)):
            messages.append(user(rng.choice([t for t in texts if "think" not in t])))
            answer = assistant(rng.choice(texts))
            if rng.random() < 0.3:
                answer["reasoning_content"] = rng.choice(texts[:5])
            if rng.random() < 0.3:
                answer["tool_calls"] = [
                    call("f", {"x": rng.choice(texts[:5])}) for _ in range(rng.randint(1, 2))
                ]
                messages += [answer, {"role": "tool", "content": rng.choice(texts[:5])}]
                answer = assistant("done")
            messages.append(answer)
        prompt = rng.random() < 0.5
        expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        assert ours.apply_chat_template(messages, prompt) == expected
        ids = theirs.apply_chat_template(messages, add_generation_prompt=prompt)["input_ids"]
        assert ours.encode_chat(messages, prompt).input_ids == ids


# What MiniMind2's family of templates does: the header of the answer belongs to the question.
OLD_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ '<s>system\\n' + messages[0]['content'] + '</s>\\n' }}{% endif %}"
    "{% for message in messages %}{% set content = message['content'] %}"
    "{% if message['role'] == 'user' %}{{ '<s>user\\n' + content + '</s>\\n<s>assistant\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ content + '</s>\\n' }}{% endif %}{% endfor %}"
)


class TestMask:
    def test_by_hand(self, tokenizer):
        t = tokenizer
        encoding = t.encode_chat(
            [user("q"), assistant("A"), user("r"), assistant("B")], add_generation_prompt=True
        )
        newline, header = t.encode("\n"), [1, *t.encode("assistant\n")]
        ids, mask = [], []
        for question, answer in (("q", "A"), ("r", "B")):
            for part, learned in (
                ([1, *t.encode("user\n" + question), 2, *newline, *header], False),
                ([*t.encode(answer), 2], True),
                (newline, False),
            ):
                ids += part
                mask += [learned] * len(part)
        assert encoding.input_ids == ids + header
        assert encoding.assistant_mask == mask + [False] * len(header)
        assert set(map(type, encoding.input_ids)) == {int} and set(map(type, encoding.assistant_mask)) == {
            bool
        }

    @pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
    def test_published_answers(self, published, messages):
        t, _ = published
        text = t.apply_chat_template(messages)
        answers = [part.split("<|im_end|>")[0] for part in text.split("<|im_start|>assistant\n")[1:]]
        # MiniMind-3 writes an empty block of thoughts where there are none: the prompt's, not the answer's.
        answers = [answer.removeprefix("<think>\n\n</think>\n\n") for answer in answers]
        assert said(t, t.encode_chat(messages)) == "".join(answer + "<|im_end|>" for answer in answers)

    def test_generation_prompt_is_not_learned(self, published):
        t, _ = published
        for switches in ({}, {"open_thinking": True}):
            assert not any(t.encode_chat([user("q")], add_generation_prompt=True, **switches).assistant_mask)

    def test_older_template(self):
        t = with_template(train_fast(TEXTS, 420, ["<unk>", "<s>", "</s>"]), OLD_TEMPLATE)
        encoding = t.encode_chat([system("s"), user("a</s>"), assistant("b"), user("c"), assistant("d</s>")])
        assert said(t, encoding) == "b</s>d</s></s>"
        assert encoding.input_ids.count(2) == 5
        assert not any(t.encode_chat([user("a"), user("b")]).assistant_mask)

    def test_one_token_for_begin_and_end(self):
        t = train_fast(TEXTS, 420, ["<|endoftext|>"])
        encoding = t.encode_chat([user("a"), assistant("assistant\nb"), user("c"), assistant("d")])
        assert said(t, encoding) == "assistant\nb<|endoftext|>d<|endoftext|>"

    def test_wordpiece(self, shared):
        t = load_tokenizer(shared / "data/tokenizers/bert_base_uncased_vocab.txt")
        encoding = t.encode_chat([user("[SEP] hi"), assistant("Hello!"), user("x"), assistant("bye")])
        assert said(t, encoding).split() == ["hello!", "[SEP]", "bye", "[SEP]"]

    @pytest.mark.parametrize(
        "template",
        [
            "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}",
            "{% for m in messages %}{{ bos_token + m.role + ' ' + m.content + eos_token }}{% endfor %}",
            "{% for m in messages %}{{ bos_token + m.role + '\\n' + m.content }}{% endfor %}",
            "",
        ],
    )
    def test_no_recognisable_answer(self, tokenizer, template):
        t = with_template(tokenizer, template)
        with pytest.raises(TokenizerError, match="no assistant turn"):
            t.encode_chat([user("a"), assistant("b")])
        assert not any(t.encode_chat([user("a")]).assistant_mask)

    def test_answers_of_newlines(self, tokenizer):
        for content in ("", "\n", "\n\n\n", "\n\nx\n\n"):
            encoding = tokenizer.encode_chat([user("a"), assistant(content), user("b"), assistant("c")])
            text = said(tokenizer, encoding)
            assert text.endswith("c<|im_end|>") and content + "<|im_end|>" in text


class TestDefaultTemplateShowsEverything:
    """What a record holds must not vanish: reasoning, calls of tools, and the tools themselves."""

    CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}

    def test_reasoning_and_calls_are_the_assistants_own_words(self, tokenizer):
        chat = [
            {"role": "user", "content": "1 + 2?"},
            {"role": "assistant", "content": "", "reasoning_content": "a sum", "tool_calls": [self.CALL]},
        ]
        encoded = tokenizer.encode_chat(chat)
        learned = [i for i, own in zip(encoded.input_ids, encoded.assistant_mask, strict=True) if own]
        assert tokenizer.decode(learned) == (
            "<think>\na sum\n</think>\n\n"
            '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call><|im_end|>'
        )
        assert tokenizer.special_tokens["<tool_call>"] in learned

    def test_tools_join_the_system_message(self, tokenizer):
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
        tools = [{"type": "function", "function": {"name": "add"}}]
        text = tokenizer.apply_chat_template(chat, tools=tools)
        assert text.count("<|im_start|>system\n") == 1 and text.startswith(
            "<|im_start|>system\nBe brief.\n\n"
        )
        assert '"name": "add"' in text and text.endswith("<|im_start|>user\nhi<|im_end|>\n")
        assert not any(tokenizer.encode_chat(chat, tools=tools).assistant_mask)
