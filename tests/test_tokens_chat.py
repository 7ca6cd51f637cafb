"""Conversations as ids: equal to transformers for plain ones, append-only for sampled ones, unforgeable for hostile ones."""

# ruff: noqa: E501  (templates are written as models ship them)

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from firsthand.errors import TemplateError
from firsthand.message import Message, Sampled, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import ToolSpec
from firsthand.tokens.pretrained import load
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.tokenizer import TextRun, Tokenizer

SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
]

CHATML = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are helpful<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
LLAMA3 = """{{- bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>

' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>

' }}{% endif %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model
' }}{% endif %}"""
QWEN3 = """{%- if tools %}{{- '<|im_start|>system\\n' }}{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- '# Tools\\n<tools>' }}{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}{{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}
{%- set ns = namespace(last=messages | length - 1, search=true) %}
{%- for message in messages[::-1] %}{%- set index = (messages | length - 1) - loop.index0 %}
{%- if ns.search and message.role == 'user' and not (message.content.startswith('<tool_response>')) %}
{%- set ns.search = false %}{%- set ns.last = index %}{%- endif %}{%- endfor %}
{%- for message in messages %}{%- set content = message.content if message.content is string else '' %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}{%- set thought = '' %}
{%- if '</think>' in content %}{%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
{%- if loop.index0 > ns.last and (loop.last or thought) %}
{{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
{%- else %}{{- '<|im_start|>assistant\\n' + content }}{%- endif %}
{%- for call in message.tool_calls or [] %}{%- if loop.index0 or content %}{{- '\\n' }}{%- endif %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson + '}\\n</tool_call>' }}
{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
MISTRAL = """{{ bos_token }}{% if tools %}{{ '[AVAILABLE_TOOLS] ' + tools | tojson }}{% endif %}{% for message in messages %}{% if message.role in ('user', 'system') %}{{ '[INST] ' + message.content + '[/INST]' }}
{%- elif message.role == 'tool' %}{{ '[TOOL_RESULTS] ' + {'content': message.content, 'call_id': message.tool_call_id} | tojson }}
{%- elif message.tool_calls %}{{ '[TOOL_CALLS] [' }}{% for call in message.tool_calls %}{% if call.id | length != 9 %}{{ raise_exception('ids') }}{% endif %}
{{- call.function | tojson }}{% endfor %}{{ ']' + eos_token }}{% else %}{{ ' ' + message.content + eos_token }}{% endif %}{% endfor %}"""
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "qwen3": QWEN3, "mistral": MISTRAL, "none": None}
TOOLS = (ToolSpec("add", "Add two numbers <|im_end|>", {"type": "object", "properties": {"a": {"type": "integer"}}}),)


@cache
def rust() -> Any:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [
        "the cat sat.\n\n the user\n\n\nassistant\nHello  there",
        "user\nuser\n\n model\n  \n",
        '{"name": "add", "arguments": {}}',
    ] * 4
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=380,
            special_tokens=SPECIALS,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return tokenizer


@cache
def tokenizer_for(name: str) -> Tokenizer:
    ids = {special: id for id, special in enumerate(SPECIALS)}
    bos, eos = {
        "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
        "gemma": ("<bos>", "<end_of_turn>"),
        "mistral": ("<s>", "</s>"),
    }.get(name, ("<|endoftext|>", "<|im_end|>"))
    return Tokenizer(json.loads(rust().to_str()), bos_id=ids[bos], eos_ids=[ids[eos]])


@cache
def chat_for(name: str) -> ChatTemplate:
    return ChatTemplate(tokenizer_for(name), TEMPLATES[name])


def show(chat_name: str, ids: list[int]) -> str:
    return tokenizer_for(chat_name).decode(ids, skip_special=False)


WORDS = st.text(st.sampled_from("the cat\n <>|é"), max_size=12)
HOSTILE = st.lists(st.one_of(WORDS, st.sampled_from(SPECIALS)), max_size=4).map("".join)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "qwen3"])
def test_a_plain_conversation_has_the_ids_that_transformers_gives(name: str) -> None:
    from transformers import PreTrainedTokenizerFast

    ours = tokenizer_for(name)
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=rust(), bos_token=ours.text_of(ours.bos_id), eos_token=ours.text_of(ours.eos_id)
    )

    @settings(max_examples=40, deadline=None)
    @given(st.lists(WORDS, min_size=1, max_size=5), st.booleans())
    def agree(texts: list[str], reply: bool) -> None:
        messages = [user(text) if index % 2 == 0 else assistant(text) for index, text in enumerate(texts)]
        dicts = [{"role": message.role, "content": message.text} for message in messages]
        expected = theirs.apply_chat_template(
            dicts, chat_template=TEMPLATES[name], add_generation_prompt=reply, tokenize=False
        )
        assert chat_for(name).encode(messages, reply=reply) == theirs.encode(expected, add_special_tokens=False)

    agree()
    thinking = [user("the cat"), assistant("<think>\nhm\n</think>\n\nsat"), user("more")]
    dicts = [{"role": message.role, "content": message.text} for message in thinking]
    expected = theirs.apply_chat_template(dicts, chat_template=TEMPLATES[name], tokenize=False)
    assert show(name, chat_for(name).encode(thinking, reply=False)) == expected


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """User turns, sampled and unsampled answers with thoughts and calls, and tool results."""
    messages = [system(draw(HOSTILE))] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 4))):
        messages.append(user(draw(HOSTILE)))
        called = draw(st.booleans())
        calls = (ToolCall(f"call_{turn}", "add", {"a": draw(HOSTILE)}),) if called else ()
        said = draw(st.sampled_from(["", "<think>\nthe cat\n</think>\n\n"])) + draw(WORDS)
        ids = draw(st.lists(st.integers(0, 300), max_size=6)) + draw(st.sampled_from([[], [2], [6], [9], [11], [0]]))
        sampled = Sampled(tuple(ids), (0.0,) * len(ids)) if draw(st.booleans()) else None
        messages.append(Message("assistant", (Text(said), *calls), sampled))
        if called:
            messages.append(Message("tool", (ToolResult(f"call_{turn}", "add", draw(HOSTILE)),)))
    return messages


@pytest.mark.slow
@pytest.mark.parametrize("name", TEMPLATES)
def test_sampled_turns_are_spliced_in_and_begin_every_longer_conversation(name: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(conversations(), st.booleans())
    def holds(messages: list[Message], with_tools: bool) -> None:
        tools = TOOLS if with_tools else ()
        chat = chat_for(name)
        whole = {reply: chat.encode(messages, tools, reply=reply) for reply in (True, False)}
        for k, message in enumerate(messages):
            if message.sampled is not None:
                head = [*chat.encode(messages[:k], tools), *message.sampled.token_ids]
                upto = chat.encode(messages[: k + 1], tools, reply=False)
                assert upto[: len(head)] == head
                for ids in (*whole.values(), chat.encode(messages[: k + 2], tools)):
                    assert ids[: len(head)] == head
                    assert ids[: len(upto)] == upto
        assert (
            ChatTemplate(tokenizer_for(name), TEMPLATES[name]).encode(messages, tools) == whole[True]
        )  # nothing depends on memory

    holds()


def harmless(text: str) -> str:
    for special in SPECIALS:
        text = text.replace(special, "x")
    return text


@pytest.mark.slow
@pytest.mark.parametrize("name", TEMPLATES)
def test_messages_cannot_forge_control_tokens(name: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(conversations(), HOSTILE)
    def holds(messages: list[Message], description: str) -> None:
        chat, specials = chat_for(name), tokenizer_for(name).special_ids
        unsampled = [Message(message.role, message.parts) for message in messages]
        tamed = [map_texts(message, harmless) for message in unsampled]
        tools = [ToolSpec("add", text, {"type": "object"}) for text in (description, harmless(description))]
        controls = [
            [id for id in chat.encode(said, [tool]) if id in specials]
            for said, tool in ((unsampled, tools[0]), (tamed, tools[1]))
        ]
        assert controls[0] == controls[1]

    holds()


def map_texts(message: Message, change: Callable[[str], str]) -> Message:
    parts = []
    for part in message.parts:
        match part:
            case Text(text):
                parts.append(Text(change(text)))
            case ToolResult(call_id, tool, content):
                parts.append(ToolResult(call_id, tool, change(content)))
            case ToolCall(id, tool, arguments):
                parts.append(ToolCall(id, tool, {key: change(value) for key, value in arguments.items()}))
    return Message(message.role, tuple(parts))


def test_control_text_in_json_and_out_of_it_comes_out_as_it_was_said() -> None:
    call = ToolCall("call_0", "add", {"a": 'say "<|im_end|>"\n', "b": [1, {"c": "<|im_start|>é"}]})
    messages = [user("x"), assistant("", call), Message("tool", (ToolResult("call_0", "add", 'r "<|im_end|>"'),))]
    text = show("qwen3", chat_for("qwen3").encode(messages, TOOLS))
    assert json.dumps(call.arguments, ensure_ascii=False) in text
    assert json.dumps(TOOLS[0].to_json(), ensure_ascii=False) in text
    assert '<tool_response>\nr "<|im_end|>"\n</tool_response>' in text
    text = show("mistral", chat_for("mistral").encode([*messages, user("y")]))
    assert '{"content": "r \\"<|im_end|>\\"", "call_id": "' in text
    assert json.dumps({"name": "add", "arguments": call.arguments}, ensure_ascii=False) in text


def test_a_template_that_hides_who_said_what_is_refused_when_it_matters() -> None:
    chat = ChatTemplate(
        tokenizer_for("chatml"),
        "{% for m in messages %}<|im_start|>{{ m.content | tojson(ensure_ascii=true) }}{% endfor %}",
    )
    assert show("chatml", chat.encode([user("hé")])) == '<|im_start|>"h\\u00e9"'
    with pytest.raises(TemplateError, match="control token"):
        chat.encode([user("hé <|im_end|>")])


def test_a_sampled_end_of_turn_is_not_doubled() -> None:
    chat = chat_for("chatml")
    prompt = chat.encode([user("hi")])
    for ids, expected in (((50, 2), "<|im_end|>\n"), ((50,), "<|im_end|>\n"), ((50, 0), "<|endoftext|>\n")):
        answered = chat.encode(
            [user("hi"), Message("assistant", (Text("?"),), Sampled(ids, (0.0,) * len(ids)))], reply=False
        )
        assert answered[: len(prompt) + 1] == [*prompt, 50]
        assert show("chatml", answered[len(prompt) + 1 :]) == expected


ALTERNATING = MISTRAL.replace(
    "{% for message in messages %}",
    "{% for m in messages if m.role == 'assistant' and not m.tool_calls %}{% if not loop.last %}{{ raise_exception('alternate') }}"
    "{% endif %}{% endfor %}{% for message in messages %}",
    1,
)


def test_a_template_that_insists_on_knowing_sampled_calls_is_told_them() -> None:
    chat = ChatTemplate(tokenizer_for("mistral"), ALTERNATING)
    call = ToolCall("call_0", "add", {"a": 1})
    for ids in ((50, 51, 11), (50, 51)):
        turn = Message("assistant", (Text(""), call), Sampled(ids, (0.0,) * len(ids)))
        messages = [user("x"), turn, Message("tool", (ToolResult("call_0", "add", "1"),))]
        head = [*chat.encode(messages[:1]), 50, 51, 11]
        later = chat.encode([*messages, assistant("so"), user("y")])
        assert later[: len(head)] == head and show("mistral", later[len(head) :]).startswith(
            '[TOOL_RESULTS] {"content": "1"'
        )


def test_system_words_join_the_first_user_turn_where_there_is_no_system_role() -> None:
    assert not chat_for("gemma").knows_system
    assert show("gemma", chat_for("gemma").encode([system("Be kind."), user("hi")])) == (
        "<bos><start_of_turn>user\nBe kind.\n\nhi<end_of_turn>\n<start_of_turn>model\n"
    )
    assert "only this" in show("gemma", chat_for("gemma").encode([system("only this")]))


def test_tools_are_described_where_the_template_does_not_know_them() -> None:
    assert not chat_for("chatml").knows_tools and chat_for("qwen3").knows_tools
    call = ToolCall("call_0", "add", {"a": 1})
    messages = [
        system("Be kind."),
        user("1?"),
        assistant("Well.", call),
        Message("tool", (ToolResult("call_0", "add", "1"),)),
    ]
    text = show("chatml", chat_for("chatml").encode(messages, TOOLS))
    assert text.startswith("<|im_start|>system\nBe kind.\n\n") and json.dumps(TOOLS[0].to_json()) in text
    assert 'Well.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>' in text
    assert "<|im_start|>user\n<tool_response>\n1\n</tool_response><|im_end|>\n<|im_start|>assistant\n" in text
    assert chat_for("chatml").parse('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>') == ("", (call,))


def test_without_a_template_there_is_chatml_or_plain_text() -> None:
    assert (
        show("none", chat_for("none").encode([user("hi")])) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    body = json.loads(rust().to_str())
    body["added_tokens"] = [entry | {"content": f"<{entry['id']}>"} for entry in body["added_tokens"]]
    body["model"]["vocab"] = {
        (f"<{id}>" if id < len(SPECIALS) else text): id for text, id in body["model"]["vocab"].items()
    }
    plain = Tokenizer(body)
    ids = ChatTemplate(plain, None).encode([system("Be kind."), user("hi"), assistant("yes"), user("ok")])
    assert plain.decode(ids) == "Be kind.\n\nUser: hi\nAssistant: yes\nUser: ok\nAssistant:"


@pytest.mark.slow
def test_a_broken_template_and_endless_nesting_are_template_errors() -> None:
    with pytest.raises(TemplateError):
        ChatTemplate(tokenizer_for("chatml"), "{% if %}")
    with pytest.raises(TemplateError, match="left out"):
        ChatTemplate(tokenizer_for("chatml"), "x").encode(
            [user("a"), Message("assistant", (Text("b"),), Sampled((50,), (0.0,)))]
        )
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"a": nested}
    with pytest.raises(TemplateError, match="nested"):
        chat_for("qwen3").encode([user("a"), assistant("", ToolCall("call_0", "add", nested))])


class CountingTokenizer(Tokenizer):
    """A tokenizer that counts the characters it is given to encode."""

    encoded = 0

    def encode_runs(self, runs: Sequence[TextRun], **options: Any) -> list[int]:
        self.encoded += sum(len(run.text) for run in runs)
        return super().encode_runs(runs, **options)


def test_a_long_chat_costs_each_turn_only_its_new_tokens() -> None:
    tokenizer = CountingTokenizer(json.loads(rust().to_str()), bos_id=0, eos_ids=[2])
    chat = ChatTemplate(tokenizer, CHATML)
    messages: list[Message] = []
    costs = []
    for turn in range(40):
        messages.append(user(f"the cat {turn:02}"))
        before = tokenizer.encoded
        chat.encode(messages)
        costs.append(tokenizer.encoded - before)
        messages.append(Message("assistant", (Text("sat"),), Sampled((50, 2), (0.0, 0.0))))
    assert (
        costs[-1] == costs[2] < 2 * len("<|im_end|>\n<|im_start|>user\nthe cat 39<|im_end|>\n<|im_start|>assistant\n")
    )


@pytest.mark.weights
def test_smollm2_renders_its_own_template(smollm2: Path) -> None:
    tokenizer = load(smollm2)
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    head = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>"
    assert chat.encode([user("hi <|im_end|>")]) == [
        *tokenizer.encode(head, special=True),
        *tokenizer.encode("user\nhi <|im_end|>"),
        *tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n", special=True),
    ]
    assert chat.encode([system("Be brief."), user("hi")]) == [
        1,
        9690,
        198,
        6077,
        5453,
        30,
        2,
        198,
        1,
        4093,
        198,
        6004,
        2,
        198,
        1,
        520,
        9531,
        198,
    ]


def test_a_prompt_that_is_sampled_again_is_not_rendered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = ChatTemplate(tokenizer_for("chatml"), TEMPLATES["chatml"])
    rendered: list[Any] = []
    render = chat._template.render
    monkeypatch.setattr(chat._template, "render", lambda *given: (rendered.append(given), render(*given))[1])
    messages = [user("hi")]
    first = chat.encode(messages)
    count = len(rendered)
    assert count and chat.encode(messages) == first and len(rendered) == count
    first.append(7)  # what a caller does with its list changes nothing
    assert chat.encode(messages) == first[:-1]
    fresh = ChatTemplate(tokenizer_for("chatml"), TEMPLATES["chatml"])
    assert chat.encode(messages, reply=False) == fresh.encode(messages, reply=False) != first[:-1]
    tools = [ToolSpec("look", "Look.", {"type": "object", "properties": {}})]
    assert chat.encode(messages, tools) == fresh.encode(messages, tools) != first[:-1]
    assert chat.encode([user("ho")]) != first[:-1]
