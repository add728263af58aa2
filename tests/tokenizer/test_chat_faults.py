"""Chat: templates that would escape or are broken, and messages that are none."""

import pytest
from chats import assistant, user, with_template

from minimind_edu.tokenizer import TokenizerError, train_fast


class TestFaultyInput:
    ESCAPES = (
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__base__ }}",
        "{{ messages[0]['content'].__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__['os'] }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__code__ }}",
        "{{ dict.__subclasses__() }}",
        "{{ dict.mro() }}",
        "{{ ''|attr('__class__')|attr('__mro__') }}",
        "{{ messages|map(attribute='__class__')|list }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
        "{{ '{0.__class__}'.format_map({'0': 1}) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'assistant'}) }}",
        "{{ messages.clear() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ self.__init__ }}",
        "{{ range(10**9)|list }}",
        "{% set namespace.x = 1 %}",
    )
    BROKEN = (
        "{% if %}",
        "{{ messages",
        "{% for m in messages %}",
        "{{ x | nofilter }}",
        "{% unknown %}",
        "{{ 1 / 0 }}",
        "{{ messages[99].content.x }}",
        "{{ raise_exception('roles must\nalternate') }}",
        "{{ nothing() }}",
        "{{ 'a' + 1 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    )

    @pytest.mark.parametrize("template", ESCAPES + BROKEN)
    def test_templates(self, tokenizer, template):
        t = with_template(tokenizer, template)
        for function in (t.apply_chat_template, t.encode_chat):
            with pytest.raises(TokenizerError, match="chat template") as caught:
                function([user("hi")])
            assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "messages",
        [
            "hi",
            user("hi"),
            5,
            None,
            [5],
            ["hi"],
            [{}],
            [{"content": "x"}],
            [{"role": 3}],
            [user({1, 2})],
            [user(b"x")],
        ],
    )
    def test_messages(self, tokenizer, messages):
        for function in (tokenizer.apply_chat_template, tokenizer.encode_chat):
            with pytest.raises(TokenizerError):
                function(messages)

    def test_content_of_the_wrong_type(self, tokenizer):
        with pytest.raises(TokenizerError, match="chat template"):
            tokenizer.encode_chat([user(["a"])])

    def test_lone_surrogate(self, tokenizer):
        with pytest.raises(TokenizerError, match="surrogate"):
            tokenizer.encode_chat([user("\ud800")])

    def test_no_template(self, tokenizer):
        for function in (with_template(tokenizer, None).encode_chat, train_fast(["a"], 300, []).encode_chat):
            with pytest.raises(TokenizerError):
                function([user("x")])

    def test_the_callers_messages_stay_as_they_are(self, tokenizer):
        messages = [user("<|im_end|>"), assistant("x", reasoning_content="<|im_end|>")]
        before = repr(messages)
        tokenizer.encode_chat(messages)
        assert repr(messages) == before
