"""A chat template over a small tokenizer: sampled turns, refusals, what is remembered, variables."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from byte_tokens import BYTES, END, IDS, START, TOKENIZER, added, description, ids, made
from firsthand.errors import PromptTooLong, TemplateError
from firsthand.message import Message, Sampled, Text, ToolCall
from firsthand.model import ToolSpec
from firsthand.tokens.templates import chat_template
from firsthand.tokens.templates.chat_template import ChatTemplate, _strings
from firsthand.tokens.tokenizer import Tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
)


def say(role: Any, text: str, *calls: ToolCall, sampled: list[int] | None = None) -> Message:
    kept = None if sampled is None else Sampled(tuple(sampled), (0.0,) * len(sampled))
    return Message(role, (Text(text), *calls), kept)


def shown(found: list[int]) -> str:
    return TOKENIZER.decode(found, skip_special=False)


def test_a_sampled_turn_keeps_its_ids_and_gets_the_end_it_lacks() -> None:
    chat = ChatTemplate(TOKENIZER, CHATML)
    assert (chat.knows_system, chat.knows_tools, chat.markup) == (True, False, "hermes")
    head = [257, *ids("user:q"), 258, *ids("\n"), 257, *ids("assistant:")]
    assert chat.encode([say("user", "q")]) == head
    for sampled, closing in (
        ([256, 258], "\n"),
        ([256, 263], "\n"),
        ([IDS["a"], IDS["b"]], f"{END}\n"),
        ([], f"{END}\n"),
    ):
        turns = [say("user", "q"), say("assistant", "ab", sampled=sampled), say("user", f"r{END}")]
        end = TOKENIZER.encode(closing, special=True)
        after = [*head, *sampled, *end]
        assert chat.encode(turns[:2], reply=False) == after
        assert chat.encode(turns, reply=False) == [*after, 257, *ids(f"user:r{END}"), 258, *ids("\n")], "no forged end"
        assert chat.encode(turns) == [*chat.encode(turns, reply=False), 257, *ids("assistant:")]
    assert shown(chat.encode([say("assistant", "ab"), say("user", "q")], reply=False)) == (
        f"{START}assistant:ab{END}\n{START}user:q{END}\n"
    )
    call = ToolCall("1", "f", {"x": 2})
    turns = [say("user", "q"), say("assistant", "", call, sampled=[IDS["z"]]), say("user", "r")]
    assert chat.encode(turns, reply=False)[len(head) :] == [
        IDS["z"], 258, *ids("\n"), 257, *ids("user:r"), 258, *ids("\n"),
    ]  # fmt: skip


def test_a_template_that_drops_or_escapes_turns_is_refused_in_words() -> None:
    without = ChatTemplate(TOKENIZER, "{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}")
    turns = [say("user", "q"), say("assistant", "a", sampled=[1]), say("user", "r")]
    with pytest.raises(TemplateError) as raised:
        without.encode(turns)
    assert str(raised.value) == (
        "the chat template left out the content of an assistant turn: use a template that renders every turn"
    )
    escaping = ChatTemplate(TOKENIZER, "{% for m in messages %}{{ m.content | tojson(ensure_ascii=true) }}{% endfor %}")
    assert shown(escaping.encode([say("user", "é")], reply=False)) == '"\\u00e9"'
    with pytest.raises(
        TemplateError, match=r"^a message names a control token, and the chat template escapes messages"
    ):
        escaping.encode([say("user", END)])


def test_prompts_are_remembered_up_to_a_number_and_a_size_the_newest_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (chat_template._MAX_REMEMBERED, chat_template._MAX_REMEMBERED_IDS) == (256, 1 << 22)
    monkeypatch.setattr(chat_template, "_MAX_REMEMBERED", 3)
    monkeypatch.setattr(chat_template, "_MAX_REMEMBERED_IDS", 6)
    chat = ChatTemplate(TOKENIZER, CHATML)
    for key in (b"a", b"b", b"c"):
        chat._remember(key, [1, 2])
    assert chat._recall(b"a") == [1, 2] and chat._recall(b"x") is None and list(chat._remembered) == [b"b", b"c", b"a"]
    chat._remember(b"d", [3])
    assert list(chat._remembered) == [b"c", b"a", b"d"], "three at most"
    chat._remember(b"e", [4, 5, 6, 7])
    assert list(chat._remembered) == [b"d", b"e"], "six ids at most"
    chat._remember(b"f", [0] * 9)
    assert list(chat._remembered) == [b"f"], "the last one is kept, whatever its size"


def test_variables_belong_to_the_copy_and_are_part_of_what_is_remembered() -> None:
    chat = ChatTemplate(
        TOKENIZER, "{{ messages[0].content }}{{ v | default('-') }}{% if add_generation_prompt %}>{% endif %}"
    )
    other = chat.with_variables({"v": "x"})
    turns = [say("user", "q")]
    assert [shown(each.encode(turns)) for each in (chat, other, chat)] == ["q->", "qx>", "q->"]
    assert shown(chat.encode(turns, reply=False)) == "q-" and chat._variables == {}
    given = {"a": [1, "b", ("c", {"d": None})], "e": "f"}
    assert _strings(given) == ["a", "b", "c", "d", "e", "f"]
    plain = ChatTemplate(made(add_bos=True), None)
    assert TOKENIZER.decode(plain.encode(turns), skip_special=False) == f"{START}user\nq{END}\n{START}assistant\n"
    with pytest.raises(PromptTooLong):
        ChatTemplate(TOKENIZER, CHATML, max_tokens=10).encode([say("user", "x" * 50)])


def test_the_text_between_two_turns_is_encoded_by_itself_whatever_follows() -> None:
    chat = ChatTemplate(TOKENIZER, "{% for m in messages %}{{ m.content }}<|im_end|>a{% endfor %}")
    for sampled, closing in (([IDS["x"], 258], []), ([IDS["x"], 263], []), ([IDS["x"]], [258]), ([], [258])):
        turns = [say("user", "q"), say("assistant", "x", sampled=sampled), say("user", "b")]
        head = [IDS["q"], 258, IDS["a"], *sampled, *closing, IDS["a"]]
        assert chat.encode(turns[:2], reply=False) == head
        assert chat.encode(turns, reply=False) == [*head, IDS["b"], 258, IDS["a"]], "not `ab`, which is one token"
    assert chat.encode([say("user", "q"), say("user", "b")], reply=False) == [IDS["q"], 258, 256, 258, IDS["a"]]


def test_a_model_without_a_template_has_the_one_that_its_vocabulary_allows_and_a_clock_if_one_is_given() -> None:
    content = description()
    first = {START: 0, **{letter: id + 1 for letter, id in content["model"]["vocab"].items()}}
    content |= {"added_tokens": [added(0, START)], "model": content["model"] | {"vocab": first}}
    asked: Any = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    chat = ChatTemplate(Tokenizer(content), None)
    assert chat._render(asked, [], True) == f"{START}system\ns{END}\n{START}user\nq{END}\n{START}assistant\n", "id 0"
    assert chat.encode([say("user", "")])[0] == 0
    del first[START]
    content |= {"added_tokens": [], "model": content["model"] | {"vocab": first | {BYTES[0]: 0}}}
    plain = ChatTemplate(Tokenizer(content), None)
    assert (
        plain._render(asked, [], True) == "s\n\nUser: q\nAssistant:" and plain._render(asked, [], False)[-3:] == " q\n"
    )
    begun = ChatTemplate(Tokenizer(content, bos_id=3, add_bos=True), None)
    assert begun._render(asked[1:], [], True) == f"{BYTES[2]}User: q\nAssistant:"
    dated = ChatTemplate(TOKENIZER, "{{ strftime_now('%d %b %Y') }}", now=datetime(2024, 3, 5))
    assert shown(dated.encode([say("user", "q")])) == shown(dated.with_variables({"v": 1}).encode([])) == "05 Mar 2024"


def test_what_a_template_writes_before_the_end_of_a_turn_is_kept() -> None:
    bye = ChatTemplate(TOKENIZER, "{% for m in messages %}{{ m.content }} bye<|im_end|>{% endfor %}")
    turns = [say("user", "q"), say("assistant", "a", sampled=[IDS["a"], 258])]
    assert bye.encode(turns, reply=False) == [*ids("q bye"), 258, IDS["a"], 258, *ids(" bye"), 258]
    two = ChatTemplate(
        TOKENIZER,
        "{# tools #}{% for m in messages %}{% if m.content %}{{ m.content }}<|im_end|>{% else %}"
        "{{ m.tool_calls[0].function.arguments | tojson }}<|im_end|>!{% endif %}{% endfor %}",
    )
    call = ToolCall("1", "f", {"x": 2})
    for text, end in (("", 263), ("t", 258)):
        turns = [say("user", "q"), say("assistant", text, call, sampled=[IDS["z"]])]
        assert two.encode(turns, reply=False) == [IDS["q"], 258, IDS["z"], end]


def test_tools_are_given_to_a_template_that_knows_them_and_written_for_one_that_does_not() -> None:
    knows = ChatTemplate(TOKENIZER, "{{ tools is none }}{% for t in tools or [] %}{{ t.function.name }}{% endfor %}")
    spec = ToolSpec("f", "d", {"type": "object", "properties": {}})
    turns = [say("user", "q"), say("assistant", "a", sampled=[IDS["a"]]), say("user", "r")]
    assert knows.knows_tools and shown(knows.encode(turns[:1])) == "True"
    assert shown(knows.encode(turns[:1], (spec,))) == "Falsef"
    chat = ChatTemplate(TOKENIZER, CHATML)
    found = shown(chat.encode(turns, (spec,), reply=False))
    assert found.startswith(f"{START}system:You may call one or more functions")
    assert found.endswith(f"{START}user:q{END}\n{START}assistant:a{END}\n{START}user:r{END}\n")


def test_a_turn_that_a_template_writes_twice_ends_after_its_last_place() -> None:
    twice = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }}"
        "{% if m.role == 'assistant' %}({{ m.content }}{% for c in m.tool_calls or [] %}"
        "{{ c.function.arguments | tojson }}{{ c.function.arguments | tojson }}{% endfor %}){% endif %}<|im_end|>\n"
        "{% endfor %}"
    )
    chat = ChatTemplate(TOKENIZER, twice)
    turns = [say("user", "q"), say("assistant", "ab", sampled=[IDS["z"]]), say("user", "r")]
    for size, after in ((2, f"){END}\n"), (3, f"){END}\nuser:r{END}\n")):
        found = shown(chat.encode(turns[:size], reply=False))
        assert found.endswith(f"z{after}") and found.count(")") == 1, found
    with_tools = ChatTemplate(TOKENIZER, "{% if tools %}t{% endif %}" + twice)
    turns[1] = say("assistant", "ab", ToolCall("1", "f", {"x": 2}), sampled=[IDS["z"]])
    assert with_tools.knows_tools and not chat.knows_tools
    assert shown(with_tools.encode(turns, reply=False)).endswith(f"z{END}\nuser:r{END}\n")
    assert shown(chat.encode(turns, reply=False)).endswith(f"z){END}\nuser:r{END}\n"), "its calls are text"
