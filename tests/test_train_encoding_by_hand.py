"""Conversations as tokens turn by turn, whatever the template, and each wrong line told by what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.message import Message, Text, ToolCall, assistant, user
from firsthand.model import ToolSpec
from firsthand.retrieval.reflection.token_reflections import SPELLED, raw_prompt
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train.conversations import (
    Conversation,
    Encoded,
    _of_text,
    _of_turns,
    _reply,
    _turn_end,
    conversation_of,
    encode_conversation,
    encode_conversations,
    read_conversations,
    with_marks,
)
from firsthand.train.reflected_texts import ReflectedText, encode_reflected, read_reflected
from firsthand.train.streams import Stream
from tiny import CHATML, write_tokenizer
from train_rehearsal import write_lines

Load = Callable[[str], tuple[Tokenizer, ChatTemplate]]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    def loaded(template: str) -> tuple[Tokenizer, ChatTemplate]:
        folder = tmp_path_factory.mktemp("tokenizer")
        write_tokenizer(folder, template=template)
        tokenizer = pretrained.load(folder)
        return tokenizer, ChatTemplate(tokenizer, template)

    return loaded


PLAIN = (
    "{% for m in messages %}{{ m['role'] }}:\n{{ m['content'] }}  \n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
"""A template without end tokens."""
THINKING = CHATML.replace("assistant\n{% endif %}", "assistant\n<think></think>{% endif %}")
"""The prompt of a turn is not the beginning of the finished one."""


def test_a_reply_is_what_the_template_writes_after_the_prompt_up_to_its_end(load: Load) -> None:
    tokenizer, chat = load(CHATML)
    said = [user("a")]
    prompt = chat.encode(said)
    assert _reply(said, assistant("12"), prompt, (), tokenizer, chat) == [
        *tokenizer.encode("12"),
        tokenizer.id_of("<|im_end|>"),
    ]
    tokenizer, chat = load(PLAIN)
    found = _reply(said, assistant("12 "), chat.encode(said), (), tokenizer, chat)
    assert tokenizer.decode(found[:-1]) == "12" and found[-1] == tokenizer.eos_id, "trailing space is the template's"
    tokenizer, chat = load(THINKING)
    found = _reply(said, assistant(" 12 "), chat.encode(said), (), tokenizer, chat)
    assert tokenizer.decode(found[:-1]) == " 12 " and found[-1] == tokenizer.id_of("<|im_end|>")
    call = Message("assistant", (Text("x"), ToolCall("c", "add", {"a": 1})))
    with pytest.raises(ConfigError) as refused:
        _reply(said, call, chat.encode(said), (), tokenizer, chat)
    assert str(refused.value) == (
        "the model's chat template does not write a tool call as a continuation of its own prompt, so its tokens are not "
        "known: give a template that does"
    )
    end, other = tokenizer.id_of("<|im_end|>"), tokenizer.id_of("<|im_start|>")
    two = SimpleNamespace(eos_ids={3, 9}, eos_id=4)
    assert [_turn_end(ids, two) for ids in ([3, 1, 9, 5], [9, 3], [1])] == [[9], [3], [4]]  # type: ignore[arg-type]
    assert _turn_end([1], SimpleNamespace(eos_ids=set(), eos_id=None)) == []  # type: ignore[arg-type]
    assert _turn_end([1, end, 7, other], tokenizer) == [end] and _turn_end([1, 7], tokenizer) == [tokenizer.eos_id]


def test_turns_end_with_the_last_that_counts_and_spans_leave_out_the_others(load: Load) -> None:
    tokenizer, chat = load(CHATML)
    turns = (user("a"), assistant("12"), user("b"), assistant("30"), user("c"), assistant("no"), user("d"))
    conversation = Conversation("f:1", turns, (False, True, False, True, False, False, False))
    ids, spans = _of_turns(conversation, tokenizer, chat)
    assert tokenizer.decode(ids, skip_special=False) == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n12<|im_end|>\n<|im_start|>user\nb<|im_end|>\n"
        "<|im_start|>assistant\n30<|im_end|>"
    )
    assert [tokenizer.decode(ids[start:stop], skip_special=False) for start, stop in spans] == [
        "12<|im_end|>",
        "30<|im_end|>",
    ]
    stream = encode_conversation(conversation, tokenizer, chat)
    assert stream.ids.tolist() == ids and stream.source == "f:1"
    assert np.flatnonzero(stream.ce).tolist() == [place for start, stop in spans for place in range(start, stop)]
    last = encode_conversation(conversation, tokenizer, chat, last_only=True)
    assert np.flatnonzero(last.ce).tolist() == list(range(*spans[1])) and last.ids.tolist() == ids
    assert with_marks(last, tokenizer).endswith("assistant\n⟦30<|im_end|>⟧")
    assert with_marks(Stream([tokenizer.id_of("<|im_end|>")] * 4, ce=[0, 1, 0, 1]), tokenizer) == (
        "<|im_end|>⟦<|im_end|>⟧<|im_end|>⟦<|im_end|>⟧"
    )
    broken = ChatTemplate(tokenizer, "{{ raise_exception('no system') }}")
    with pytest.raises(DataError, match=r"^f:1: "):
        encode_conversation(conversation, tokenizer, broken)


def test_a_text_follows_its_prompt_as_it_would_be_sampled(load: Load) -> None:
    tokenizer, chat = load(CHATML)
    for add_bos in (False, True):
        own = Tokenizer(**{**tokenizer.settings(), "add_bos": add_bos}, chat_template=None)
        begin = [own.bos_id] if add_bos else []
        prompt = [*begin, *own.encode("What is")]
        ids, spans = _of_text(Conversation("f", prompt="What is", text=" 12?"), own)
        assert (ids, spans) == ([*prompt, *own.encode(" 12?"), own.eos_id], [(len(prompt), len(ids))])
        ids, spans = _of_text(Conversation("f", text="12"), own)
        assert (ids, spans) == ([*begin, *own.encode("12"), own.eos_id], [(len(begin), len(ids))])
    stream = encode_conversation(Conversation("f:2", prompt="a", text="12"), tokenizer, chat)
    assert stream.ce.tolist() == [0.0, *[1.0] * (len(stream) - 1)]


def test_conversations_beyond_the_context_are_left_out_cut_or_refused_and_counted(load: Load) -> None:
    tokenizer, chat = load(CHATML)
    rows = [Conversation("f:1", prompt="a", text="!"), Conversation("f:2", prompt="a" * 4, text="!?!?"),
            Conversation("f:3", prompt="aaaaaaaaaa", text="!")]  # fmt: skip
    sizes = [len(encode_conversation(each, tokenizer, chat)) for each in rows]
    assert sizes[1] - sizes[0] > 2 and sizes[2] > sizes[0] + 4
    context = sizes[1]
    found = encode_conversations(rows, tokenizer, chat, context=context)
    assert ([each.source for each in found.streams], found.num_skipped, found.num_cut, found.num_without) == (
        (["f:1", "f:2"], 1, 0, 0) if sizes[2] > context else (["f:1", "f:2", "f:3"], 0, 0, 0)
    )  # fmt: skip
    found = encode_conversations(rows, tokenizer, chat, context=context - 1, too_long="cut")
    assert [len(each) for each in found.streams][:2] == [sizes[0], context - 1]
    assert found.streams[1].ids.tolist() == encode_conversation(rows[1], tokenizer, chat).ids[:-1].tolist()
    assert found.streams[1].ce.tolist()[-1] == 1.0 and found.streams[1].source == "f:2"
    shortest = encode_conversations(rows, tokenizer, chat, context=sizes[0], too_long="cut")
    without = [each for each, size in zip(rows[1:], sizes[1:], strict=True) if size > sizes[0]]
    assert (len(shortest.streams), shortest.num_cut, shortest.num_without) == (1, 0, len(without))
    with pytest.raises(DataError) as refused:
        encode_conversations(rows, tokenizer, chat, context=context - 1, too_long="refuse")
    assert str(refused.value) == f"f:2 has {context} tokens, and the context is {context - 1}: shorten or cut it"
    with pytest.raises(DataError) as nothing:
        encode_conversations(rows, tokenizer, chat, context=1)
    assert str(nothing.value) == (
        "nothing is left to train on within a context of 1 tokens: 0 conversations, 0 tokens, 0 of them trained on; 3 "
        "longer than the context and left out (`--too-long cut` keeps their beginning)"
    )
    told = Encoded([Stream([1, 2, 3], ce=[0, 0.5, 0]), Stream([4, 5], ce=[0, 1])], 2, 3, 4)
    assert str(told) == (
        "2 conversations, 5 tokens, 2 of them trained on; 2 longer than the context and left out (`--too-long cut` keeps "
        "their beginning); 3 longer than the context and cut; 4 without a token to train on"
    )
    assert str(Encoded([Stream([1], ce=[0])])) == "1 conversation, 1 token, 0 of them trained on"


CALL = {"id": "c1", "function": {"name": "add", "arguments": '{"a": 1}'}}


def test_messages_in_openais_format_are_read_with_their_calls_and_weights() -> None:
    tools = [{"function": {"name": "add", "description": "sums", "parameters": {"type": "x"}}}, {"name": "bare"}]
    body = {
        "messages": [
            {"role": "user", "content": ""}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "3"}, {"role": "assistant", "content": "ok", "weight": 0},
            {"role": "assistant", "content": "b", "tool_calls": [{"name": "bare"}]},
        ],
        "tools": tools,
    }  # fmt: skip
    found = conversation_of(body, "f:4")
    assert found.trained == (False, True, False, False, True) and found.source == "f:4"
    first, second, third, _, last = found.messages
    assert first == user("") and second.tool_calls == (ToolCall("c1", "add", {"a": 1}),) and second.text == ""
    assert (third.role, third.parts[0].call_id, third.parts[0].name) == ("tool", "c1", "add")  # type: ignore[union-attr]
    assert (last.text, last.tool_calls) == ("b", (ToolCall("", "bare", {}),))
    assert found.tools == (ToolSpec("add", "sums", {"type": "x"}), ToolSpec("bare", "", {"type": "object"}))
    turns = conversation_of(
        {"prompt": [{"role": "assistant", "content": "x"}], "completion": [{"role": "assistant", "content": "y"}]}
    )
    assert turns.trained == (False, True) and conversation_of({"text": "t"}, "f:1") == Conversation("f:1", text="t")
    assert conversation_of({"prompt": "p", "completion": "c"}, "f") == Conversation("f", prompt="p", text="c")


def test_each_wrong_line_is_told_by_what_is_wrong_with_it(tmp_path: Path) -> None:
    def told(body: Any) -> str:
        with pytest.raises(DataError) as refused:
            conversation_of(body, "f:4")
        return str(refused.value)

    def one(**entry: Any) -> str:
        return told({"messages": [{"role": "user", "content": "q"}, entry]})

    assert told({}) == "f:4 has the fields (none): expected `messages`, `prompt` and `completion`, or `text`"
    assert told(dict.fromkeys("abcdefg")).startswith("f:4 has the fields a, b, c, d, e, f: expected")
    assert told({"messages": []}) == told({"messages": "x"}) == "f:4: `messages` must be a list of one message or more"
    assert told({"prompt": "p"}) == "f:4: `prompt` and `completion` must both be texts, or both lists of messages"
    assert (
        told({"prompt": "p", "completion": ""}) == "f:4: the field `completion` is empty: there is nothing to train on"
    )
    assert told({"messages": [{"role": "user", "content": "q"}]}) == (
        "f:4: no message of the role `assistant` counts: there is nothing to train on"
    )
    assert one(role="assistant", content="a", weight=2) == "f:4, message 2: its weight is 2: expected 0 or 1"
    assert one(role="assistant", content=" \n") == (
        "f:4, message 2 is an empty answer: give it a text or tool calls, or leave the line out"
    )
    assert one(role="assistant", content=["x"]) == "f:4, message 2 has a content of type list: expected a text"
    assert one(role="user", content="x", tool_calls=[CALL]) == (
        "f:4, message 2 has tool calls and the role 'user': expected the role assistant"
    )
    for calls, kind in ((3, "int"), (True, "bool"), ("add", "str"), ({"name": "add"}, "dict")):
        for role in ("assistant", "user", "tool"):
            assert one(role=role, content="x", tool_calls=calls) == (
                f"f:4, message 2 has tool calls of type {kind}: expected a list of them"
            )
    for call, text in (
        ({"function": {}}, "f:4, message 2 has a tool call without a function's name: expected OpenAI's format"),
        ("x", "f:4, message 2 has a tool call without a function's name: expected OpenAI's format"),
        ({"name": "add", "arguments": "{"}, "f:4, message 2: the arguments of add are no JSON"),
        ({"name": "add", "arguments": "[]"}, "f:4, message 2: the arguments of add are list: expected an object"),
        ({"name": "add", "arguments": "[" * 100_000}, "f:4, message 2: the arguments of add are no JSON"),
        ({"name": "add", "arguments": ""}, "f:4, message 2: the arguments of add are no JSON"),
        ({"name": "add", "arguments": None}, "f:4, message 2: the arguments of add are NoneType: expected an object"),
        ({"name": 3}, "f:4, message 2 has a tool call without a function's name: expected OpenAI's format"),
        (None, "f:4, message 2 has a tool call without a function's name: expected OpenAI's format"),
    ):
        assert one(role="assistant", tool_calls=[call]) == text
    good = [{"role": "assistant", "content": "a"}]
    assert told({"messages": good, "tools": [{}]}) == "f:4: `tools` is not a list in OpenAI's format (KeyError: 'name')"
    assert told({"messages": good, "tools": 3}).startswith("f:4: `tools` is not a list in OpenAI's format (TypeError: ")
    for tools, kind in ((["add"], "AttributeError"), ("add", "AttributeError"), ([None], "AttributeError"),
                        ([{"function": 3}], "TypeError"), ([{"function": ["name"]}], "TypeError"),
                        ([{"name": "add"}, {"x": 1}], "KeyError"), ({"name": "add"}, "AttributeError")):  # fmt: skip
        assert told({"messages": good, "tools": tools}).startswith(
            f"f:4: `tools` is not a list in OpenAI's format ({kind}: "
        ), tools
    for none in ({}, {"tools": None}, {"tools": []}):
        assert conversation_of({"messages": good, **none}).tools == ()
    assert conversation_of({"messages": good, "tools": [{"name": "add"}, {"function": {"name": "b"}}]}).tools == (
        ToolSpec("add", "", {"type": "object"}), ToolSpec("b", "", {"type": "object"})
    )  # fmt: skip
    path = write_lines(tmp_path / "c.jsonl", [{"text": "a"}, {"x": 1}, {"messages": []}, {"text": ""}])
    with pytest.raises(DataError) as refused:
        read_conversations(path)
    assert str(refused.value) == (
        f"{path}:2 has the fields x: expected `messages`, `prompt` and `completion`, or `text` (2 more lines are bad too)"
    )
    path.write_text("\n")
    with pytest.raises(DataError) as empty:
        read_conversations(path)
    assert str(empty.value) == f"{path} has no conversation: give one JSON object a line"


def test_reflections_words_and_the_end_count_and_prompts_and_passages_do_not(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, specials=SPELLED)
    tokenizer = pretrained.load(tmp_path)
    output = "[Retrieval]<paragraph>12 [Relevant] 30</paragraph>[Relevant]42<paragraph>a</paragraph>no[Utility:3] x"
    parts = [("[Retrieval]", 1), ("<paragraph>", 0), ("12 ", 0), ("[Relevant]", 0), (" 30", 0), ("</paragraph>", 0),
             ("[Relevant]", 1), ("42", 1), ("<paragraph>", 0), ("a", 0), ("</paragraph>", 0), ("no", 1), ("[Utility:3]", 1),
             (" x", 1)]  # fmt: skip
    for add_bos in (False, True):
        own = Tokenizer(**{**tokenizer.settings(), "add_bos": add_bos}, chat_template=None)
        ids = [*([own.bos_id] if add_bos else []), *own.encode(raw_prompt("q [Relevant]", ""))]
        ce = [0.0] * len(ids)
        for text, weight in parts:
            new = [own.token_id(text)] if text in SPELLED else own.encode(text)
            ids, ce = [*ids, *new], [*ce, *[float(weight)] * len(new)]
        stream = encode_reflected(ReflectedText("f:3", "q [Relevant]", output), own)
        assert stream.ids.tolist() == [*ids, own.eos_id] and stream.ce.tolist() == [*ce, 1.0] and stream.source == "f:3"
    assert own.token_id("[Relevant]") not in own.encode(raw_prompt("q [Relevant]", "")), "an instruction is text"
    good = {"instruction": "q", "output": "[Relevant]a"}
    rows = write_lines(tmp_path / "r.jsonl", [good, {**good, "instruction": "p", "output": output}])
    assert read_reflected(rows) == [
        ReflectedText(f"{rows}:1", "q", "[Relevant]a"), ReflectedText(f"{rows}:2", "p", output)
    ]  # fmt: skip
    empty = "`instruction` and `output` must both be texts that are not empty"
    for line, text in (
        ({**good, "instruction": " "}, empty), ({**good, "output": "\n"}, empty), ({"output": "[Relevant]"}, empty),
        ({**good, "output": 3}, empty), 
        ({**good, "output": "a"}, "the output has no reflection token, such as [Relevant]: label it first"),
        ({**good, "output": "[Relevant]<paragraph>"}, "a <paragraph> is not closed"),
        ({**good, "output": "[Relevant]</paragraph><paragraph>"}, "<paragraph> and </paragraph> do not come in pairs"),
        ({**good, "output": "[Relevant]<paragraph><paragraph></paragraph></paragraph>"},
         "<paragraph> and </paragraph> do not come in pairs"),
    ):  # fmt: skip
        write_lines(rows, [good, line])
        with pytest.raises(DataError) as refused:
            read_reflected(rows)
        assert str(refused.value) == f"{rows}:2: {text}"
    rows.write_text("\n")
    with pytest.raises(DataError) as none:
        read_reflected(rows)
    assert str(none.value) == f"{rows} has no line: make it by `firsthand rag label`"


def test_a_reply_that_goes_on_from_its_prompt_begins_without_the_space_of_a_first_word() -> None:
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    vocab = {piece: id for id, piece in enumerate(("▁", "a", "▁a", ":", "<|end|>", "<|no|>"))}
    body = {
        "version": "1.0", "normalizer": None, "pre_tokenizer": space, "decoder": space, "post_processor": None,
        "truncation": None, "padding": None, "model": {"type": "BPE", "vocab": vocab, "merges": [["▁", "a"]]},
        "added_tokens": [
            {"id": 4 + n, "content": text, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False}
            for n, text in enumerate(("<|end|>", "<|no|>"))
        ],
    }  # fmt: skip
    tokenizer = Tokenizer(body, eos_ids=(4,))
    said = [user("a")]
    no_end = ChatTemplate(
        tokenizer, "{% for m in messages %}{{ m.content }}:{% endfor %}{% if add_generation_prompt %}<|no|>{% endif %}"
    )
    thought = ChatTemplate(
        tokenizer,
        "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|no|>{% endif %}",
    )
    for chat in (no_end, thought):
        prompt = chat.encode(said)
        assert prompt[-1] == 5, "the prompt is no beginning of the finished turn"
        assert _reply(said, assistant("aa"), prompt, (), tokenizer, chat) == [1, 1, 4] != tokenizer.encode("aa")
        assert _reply(said, assistant(" a"), prompt, (), tokenizer, chat) == [2, 4]
        named = _reply(said, assistant("a<|end|>"), prompt, (), tokenizer, chat)
        assert named[-1] == 4 and 4 not in named[:-1], "words name no token"
