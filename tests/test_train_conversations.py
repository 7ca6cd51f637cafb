"""Loss masks of conversations: the assistant's tokens alone, and the ids of serving."""

from __future__ import annotations

import json

import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.message import Message, Reasoning, Sampled, Text, assistant, system, user
from firsthand.serve.openai.reasoning_split import ReasoningSplitter
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.train.conversations import (
    conversation_of,
    encode_conversation,
    encode_conversations,
    read_conversations,
    with_marks,
)
from tiny import CHATML, write_tokenizer

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 12 + 30?"},
    {"role": "assistant", "content": "The answer is 42."},
    {"role": "user", "content": "And <|im_end|>?"},
    {"role": "assistant", "content": "A token."},
]
THINKING = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n\n</think>\n{% endif %}")
"""As Qwen3's: the prompt of a turn has an empty thought that a finished turn has not."""
OPENED = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
"""As DeepSeek-R1's: the prompt of a turn opens a thought, and a finished turn has none."""


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    def loaded(template):
        folder = tmp_path_factory.mktemp("tokenizer")
        write_tokenizer(folder, template=template)
        tokenizer = pretrained.load(folder)
        return tokenizer, ChatTemplate(tokenizer, template)

    return loaded


def marked(body, tokenizer, chat, **settings):
    return with_marks(encode_conversation(conversation_of(body), tokenizer, chat, **settings), tokenizer)


def test_the_assistants_tokens_and_the_end_of_its_turns_count(load):
    assert marked({"messages": CHAT}, *load(CHATML)) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n"
        "⟦The answer is 42.<|im_end|>⟧\n<|im_start|>user\nAnd <|im_end|>?<|im_end|>\n<|im_start|>assistant\n"
        "⟦A token.<|im_end|>⟧"
    )


def test_text_that_spells_a_special_token_is_no_special_token(load):
    tokenizer, chat = load(CHATML)
    stream = encode_conversation(conversation_of({"messages": CHAT}), tokenizer, chat)
    end = tokenizer.id_of("<|im_end|>")
    assert (stream.ids == end).sum() == 5 and (stream.ids[stream.ce > 0] == end).sum() == 2


def test_the_trained_ids_are_those_of_serving(load):
    """Each trained turn continues the very prompt that the engine would compute for it, with earlier turns as sampled."""
    tokenizer, chat = load(CHATML)
    stream = encode_conversation(conversation_of({"messages": CHAT}), tokenizer, chat)
    reply = [*tokenizer.encode("The answer is 42."), tokenizer.id_of("<|im_end|>")]
    said = [system("Be brief."), user("What is 12 + 30?")]
    prompt = ChatTemplate(tokenizer, CHATML).encode(said)
    assert stream.ids[: len(prompt) + len(reply)].tolist() == prompt + reply
    assert (stream.ce[: len(prompt)] == 0).all() and (stream.ce[len(prompt) : len(prompt) + len(reply)] == 1).all()
    sampled = Message("assistant", assistant("The answer is 42.").parts, Sampled(tuple(reply), (0.0,) * len(reply)))
    later = ChatTemplate(tokenizer, CHATML).encode([*said, sampled, user("And <|im_end|>?")])
    assert stream.ids[: len(later)].tolist() == later and stream.ce[len(later) :].all()


def test_a_prompt_with_an_empty_thought_is_continued_by_the_answer(load):
    shown = marked({"messages": CHAT[:3]}, *load(THINKING))
    assert shown.endswith("<|im_start|>assistant\n<think>\n\n</think>\n⟦The answer is 42.<|im_end|>⟧")


@pytest.mark.parametrize(
    ("content", "trained"),
    [
        ("Paris.", "\n</think>\n\nParis."),
        ("\n  Paris.", "\n</think>\n\n  Paris."),
        ("<think>\nFrance.\n</think>\n\nParis.", "France.\n</think>\n\nParis."),
        ("\n<think>France.</think>Paris.", "France.</think>Paris."),
        ("<think>\n\n</think>\n\nParis.", "\n</think>\n\nParis."),
        ("France.\n</think>\n\nParis.", "France.\n</think>\n\nParis."),  # as it is sampled after such a prompt
        ("Paris, not <think>.", "\n</think>\n\nParis, not <think>."),
    ],
)
def test_an_answer_after_a_prompt_that_opens_a_thought_closes_it(load, content, trained):
    parts = load(OPENED)
    shown = marked({"messages": [CHAT[1], {"role": "assistant", "content": content}]}, *parts)
    assert shown.endswith(f"<|im_start|>assistant\n<think>\n⟦{trained}<|im_end|>⟧")
    splitter = ReasoningSplitter(thinks=True, starts_in_thought=True)
    served = [*splitter.feed(trained), *splitter.finish()]
    assert [piece.text.strip() for piece in served if piece.kind == "content"] == [
        trained.partition("</think>")[2].strip()
    ]


def test_every_turn_closes_the_thought_that_its_prompt_opens(load):
    shown = marked({"messages": CHAT[1:]}, *load(OPENED))
    closed = "<think>\n⟦\n</think>\n\n"
    assert shown.count("⟦") == 2 and shown.endswith(f"{closed}A token.<|im_end|>⟧")
    assert f"{closed}The answer is 42.<|im_end|>⟧\n<|im_start|>user" in shown


@pytest.mark.parametrize(
    ("blanks", "empty"), [("", "\n\n</think>\n\n"), ("\n\n", "</think>\n\n"), (" ", "\n\n</think>\n\n")]
)
def test_an_empty_thought_has_the_line_ends_that_the_prompt_has_not(load, blanks, empty):
    shown = marked({"messages": CHAT[1:3]}, *load(OPENED.replace("<think>\n", f"<think>{blanks}")))
    assert shown.endswith(f"<think>{blanks}⟦{empty}The answer is 42.<|im_end|>⟧")


def test_a_template_that_writes_the_opened_thought_into_finished_turns_closes_it_itself_or_not(load):
    header = "<|im_start|>{{ message['role'] }}\n"
    opening = header + "{% if message['role'] == 'assistant' %}<think>\n{% endif %}"
    never = load(OPENED.replace(header, opening))
    thought = {"role": "assistant", "content": "<think>\nFrance.\n</think>\n\nParis."}
    assert marked({"messages": CHAT[1:3]}, *never).endswith("<think>\n⟦\n</think>\n\nThe answer is 42.<|im_end|>⟧")
    for before in ("", "\n"):
        lines = [CHAT[1], thought | {"content": before + thought["content"]}]
        assert marked({"messages": lines}, *never).endswith("<think>\n⟦France.\n</think>\n\nParis.<|im_end|>⟧")
    itself = load(OPENED.replace(header, opening.replace("<think>\n", "<think>\nno thought</think>")))
    assert marked({"messages": CHAT[1:3]}, *itself).endswith("<think>\n⟦no thought</think>The answer is 42.<|im_end|>⟧")


@pytest.mark.parametrize(
    ("content", "trained"),
    [
        ("Paris.", "no thought\n</think>\n\nParis."),
        ("<think>\nFrance.\n</think>\n\nParis.", "France.\n</think>\n\nParis."),
        ("France.\n</think>\n\nParis.", "France.\n</think>\n\nParis."),
    ],
)
def test_an_own_thought_stands_in_place_of_the_one_that_the_template_writes(load, content, trained):
    header = "<|im_start|>{{ message['role'] }}\n"
    closing = header + "{% if message['role'] == 'assistant' %}<think>\nno thought\n</think>\n\n{% endif %}"
    parts = load(OPENED.replace(header, closing))
    shown = marked({"messages": [CHAT[1], {"role": "assistant", "content": content}]}, *parts)
    assert shown.endswith(f"<think>\n⟦{trained}<|im_end|>⟧")
    unclosed = {"messages": [CHAT[1], {"role": "assistant", "content": "<think>\nIt may be"}]}
    with pytest.raises(DataError, match="opens a thought and does not close it"):
        marked(unclosed, *parts)


READ = "{% if message.FIELD is defined %}<think>\n{{ message.FIELD }}\n</think>\n\n{% endif %}"
REASONED = {"role": "assistant", "content": "4"}


def reading(field, template=CHATML):
    return template.replace("{{ message['content'] }}", READ.replace("FIELD", field) + "{{ message['content'] }}")


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize("read", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_in_a_field_is_trained_as_the_template_writes_it(load, name, read):
    parts = load(reading(read))
    both = {"messages": [CHAT[1], REASONED | {name: "two <|im_end|>"}, *CHAT[3:]]}
    assert marked(both, *parts) == (
        "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n"
        "⟦<think>\ntwo <|im_end|>\n</think>\n\n4<|im_end|>⟧\n<|im_start|>user\nAnd <|im_end|>?<|im_end|>\n"
        "<|im_start|>assistant\n⟦A token.<|im_end|>⟧"
    )
    assert marked({"messages": [CHAT[1], REASONED | {name: "two"}]}, *load(reading(read, OPENED))).endswith(
        "<think>\n⟦two\n</think>\n\n4<|im_end|>⟧"
    )
    plain = [user("a"), Message("assistant", (Reasoning("two", {}), Text("4"))), user("b")]
    assert "two" not in parts[0].decode(parts[1].encode(plain)), "serving does not give it to the template"
    assert "two" in parts[0].decode(parts[1].with_reasoning().encode(plain)), "whatever was encoded before"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_that_the_template_does_not_write_into_the_turn_is_refused(load, name):
    said = {"messages": [CHAT[1], REASONED | {name: "two"}]}
    separate = reading(name).replace("\n</think>\n\n", "<|im_end|>\n<|im_start|>assistant\n")
    unclosed = reading(name, OPENED).replace("\n</think>\n\n", "")
    for template in (CHATML, OPENED, reading(name, THINKING), separate, unclosed):
        with pytest.raises(
            DataError, match=f"^x:7: an answer has `{name}`, which the model's chat template does not write"
        ):
            encode_conversation(conversation_of(said, "x:7"), *load(template))
    unequal = {"messages": [CHAT[1], REASONED | {"reasoning": "two", "thinking": "three"}]}
    with pytest.raises(
        DataError, match=r"^x:7, message 2 has unequal texts in reasoning and thinking: leave all but one"
    ):
        conversation_of(unequal, "x:7")
    with pytest.raises(DataError, match=f"^x:7, message 2 has `{name}` of type list: expected a text"):
        conversation_of({"messages": [CHAT[1], REASONED | {name: ["two"]}]}, "x:7")
    alike = REASONED | {"reasoning": "two", "reasoning_content": "two"}
    assert len(conversation_of({"messages": [CHAT[1], alike]}).messages[1].parts) == 2
    empty = REASONED | {name: None}
    assert conversation_of({"messages": [CHAT[1], empty]}).messages[1] == assistant("4")
    tools = {"tools": [{"name": "f"}], "messages": [CHAT[1], REASONED | {name: "two"}]}
    assert "⟦<think>\ntwo\n</think>\n\n4" in marked(tools, *load(reading(name))), "a template without tools too"


@pytest.mark.parametrize("name", ["reasoning_details", "function_call"])
def test_a_field_that_keeps_a_part_of_an_answer_and_is_not_read_is_refused(name):
    answer = {"role": "assistant", "content": "4", name: "two and two"}
    for line in ({"messages": [CHAT[1], answer]}, {"prompt": [CHAT[1]], "completion": [answer]},
                 {"messages": [CHAT[1], answer | {"weight": 0}, *CHAT[1:]]}):  # fmt: skip
        with pytest.raises(DataError, match=rf"^x:7, message 2 has `{name}`, which is not read: write it "):
            conversation_of(line, "x:7")
    for held in (None, "", []):
        read = conversation_of({"messages": [CHAT[1], answer | {name: held}]})
        assert read.messages[-1].text == "4"
    assert conversation_of({"messages": [CHAT[1] | {name: "x"}, CHAT[2]]}).trained == (False, True)


def test_an_answer_that_never_closes_its_thought_is_refused_where_the_prompt_opens_one(load):
    messages = [CHAT[1], {"role": "assistant", "content": "<think>\nIt may be"}]
    with pytest.raises(DataError, match=r"^x:7: an answer opens a thought and does not close it: write </think>"):
        encode_conversation(conversation_of({"messages": messages}, "x:7"), *load(OPENED))
    assert marked({"messages": messages}, *load(CHATML)).endswith("⟦<think>\nIt may be<|im_end|>⟧")


def test_tags_of_a_thought_that_are_control_tokens_are_trained_as_such_once(tmp_path):
    write_tokenizer(tmp_path, template=OPENED, specials=("<think>", "</think>"))
    tokenizer = pretrained.load(tmp_path)
    messages = [CHAT[1], {"role": "assistant", "content": "<think>\nA <|im_end|>.</think>B </think>"}]
    stream = encode_conversation(conversation_of({"messages": messages}), tokenizer, ChatTemplate(tokenizer, OPENED))
    trained = stream.ids[stream.ce > 0].tolist()
    assert tokenizer.decode(trained, skip_special=False) == "A <|im_end|>.</think>B </think><|im_end|>"
    assert [id for id in trained if id in tokenizer.special_ids] == [
        tokenizer.id_of("</think>"),
        tokenizer.id_of("<|im_end|>"),
    ]
    assert tokenizer.decode(trained[: trained.index(tokenizer.id_of("</think>"))]) == "A <|im_end|>.", (
        "the first ends it"
    )


def test_a_model_without_a_template_learns_its_end_token(load):
    plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    plain += "{% if add_generation_prompt %}assistant:{% endif %}"
    shown = marked({"messages": CHAT[1:]}, *load(plain))
    assert shown == (
        "user: What is 12 + 30?\nassistant:⟦ The answer is 42.<|im_end|>⟧\nuser: And <|im_end|>?\nassistant:"
        "⟦ A token.<|im_end|>⟧"
    )


def test_only_what_should_count_counts(load):
    parts = load(CHATML)
    last = marked({"messages": CHAT}, *parts, last_only=True)
    assert last.count("⟦") == 1 and last.endswith("⟦A token.<|im_end|>⟧")
    weighed = [*CHAT[:2], {**CHAT[2], "weight": 0}, *CHAT[3:]]
    assert marked({"messages": weighed}, *parts) == last
    first = [*CHAT[:4], {**CHAT[4], "weight": 0}]
    assert marked({"messages": first}, *parts).endswith("⟦The answer is 42.<|im_end|>⟧")


def test_prompt_and_completion_are_text_or_messages(load):
    parts = load(CHATML)
    assert marked({"prompt": "2 + 2 =", "completion": " 4"}, *parts) == "2 + 2 =⟦ 4<|im_end|>⟧"
    as_messages = {"prompt": CHAT[:4], "completion": CHAT[4:]}
    assert marked(as_messages, *parts) == marked({"messages": CHAT}, *parts, last_only=True)


def test_all_tokens_of_a_text_but_the_first_count(load):
    tokenizer, chat = load(CHATML)
    stream = encode_conversation(conversation_of({"text": "all of it"}), tokenizer, chat)
    assert stream.ids.tolist() == [*tokenizer.encode("all of it"), tokenizer.eos_id]
    assert stream.ce.tolist() == [0.0] + [1.0] * (len(stream) - 1)


def test_tool_calls_count_and_their_results_do_not(load):
    tools = [
        {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
    ]
    messages = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{\"a\": 2}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "4"},
        {"role": "assistant", "content": "It is 4."},
    ]  # fmt: skip
    shown = marked({"messages": messages, "tools": tools}, *load(CHATML))
    calls = '⟦<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call><|im_end|>⟧'
    assert calls in shown and shown.endswith("⟦It is 4.<|im_end|>⟧") and shown.count("⟦") == 2
    assert "<tool_response>\n4\n</tool_response>" in shown and '"description": "Adds."' in shown


def test_long_conversations_are_counted_and_cut_only_when_asked(load):
    tokenizer, chat = load(CHATML)
    both = [conversation_of({"messages": CHAT}, "x:1"), conversation_of({"messages": CHAT[1:3]}, "x:2")]
    sizes = [len(encode_conversation(each, tokenizer, chat)) for each in both]
    exact = encode_conversations(both, tokenizer, chat, context=sizes[0])
    assert (len(exact.streams), exact.num_skipped) == (2, 0)
    skipped = encode_conversations(both, tokenizer, chat, context=sizes[0] - 1)
    assert [stream.source for stream in skipped.streams] == ["x:2"] and skipped.num_skipped == 1
    assert "1 longer than the context and left out (`--too-long cut`" in str(skipped)
    cut = encode_conversations(both, tokenizer, chat, context=sizes[0] - 1, too_long="cut")
    assert [len(stream) for stream in cut.streams] == [sizes[0] - 1, sizes[1]] and cut.num_cut == 1
    assert "1 longer than the context and cut" in str(cut)
    with pytest.raises(DataError, match=rf"x:1 has {sizes[0]} tokens, and the context is {sizes[0] - 1}"):
        encode_conversations(both, tokenizer, chat, context=sizes[0] - 1, too_long="refuse")
    short = encode_conversations(both[::-1], tokenizer, chat, context=sizes[1], too_long="cut", last_only=True)
    assert [stream.source for stream in short.streams] == ["x:2"] and (short.num_cut, short.num_without) == (0, 1)
    with pytest.raises(DataError, match="nothing is left to train on within a context of 5 tokens"):
        encode_conversations(both, tokenizer, chat, context=5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"conversations": []}, "has the fields conversations: expected `messages`"),
        ({"messages": []}, "`messages` must be a list of one message or more"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no message of the role `assistant` counts"),
        (
            {"messages": [{"role": "human", "content": "x"}]},
            "message 1 has the role 'human': expected one of system, user",
        ),
        ({"messages": [{"content": "x"}]}, "message 1 has no role"),
        ({"messages": ["x"]}, "message 1 has no role"),
        ({"messages": [*CHAT[:2], {"role": "assistant", "content": " \n"}]}, "message 3 is an empty answer"),
        ({"messages": [*CHAT[:2], {"role": "assistant"}]}, "message 3 has no content"),
        ({"messages": [{"role": "user", "content": [1]}]}, "message 1 has a content of type list"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": [{"name": "f"}]}]},
            "tool calls and the role 'user'",
        ),
        (
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]},
            "a tool call without a function's name",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}]},
            "arguments of f are no JSON",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[]"}]}]},
            "arguments of f are list",
        ),
        ({"messages": [{"role": "assistant", "content": "x", "weight": 2}]}, "its weight is 2: expected 0 or 1"),
        ({"messages": CHAT, "tools": [{"description": "x"}]}, "`tools` is not a list in OpenAI's format"),
        ({"prompt": "x", "completion": ""}, "the field `completion` is empty"),
        ({"prompt": "x"}, "`prompt` and `completion` must both be texts"),
        ({"prompt": "x", "completion": [1]}, "`prompt` and `completion` must both be texts"),
        ({"text": ""}, "the field `text` is empty"),
    ],
)
def test_a_bad_line_is_refused_with_file_and_line(tmp_path, line, message):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": CHAT}) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(DataError) as caught:
        read_conversations(path)
    assert str(caught.value).startswith(f"{path}:2") and message in str(caught.value)


def test_the_first_bad_line_is_named_and_the_others_counted(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text('{"text": ""}\n{"text": "x"}\n{"text": 1}\n{}\n')
    with pytest.raises(DataError, match=r"chats\.jsonl:1: the field `text` is empty: .* \(2 more lines are bad too\)"):
        read_conversations(path)
    path.write_text("\n")
    with pytest.raises(DataError, match="has no conversation"):
        read_conversations(path)


def test_a_tool_call_that_a_template_writes_apart_from_its_prompt_is_refused(load):
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {}}]}]
    with pytest.raises(ConfigError, match="does not write a tool call as a continuation of its own prompt"):
        marked({"messages": messages}, *load(THINKING))
