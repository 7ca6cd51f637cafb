"""Lines of conversations and comparisons as streams, and what is told of a line that cannot be trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import DataError
from firsthand.message import Message, Text, ToolCall, ToolResult
from firsthand.model import ToolSpec
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.train.conversations import (
    Conversation,
    Encoded,
    conversation_of,
    encode_conversations,
    read_conversations,
)
from firsthand.train.preference_data import ReadComparisons, mismatched, read_comparisons
from firsthand.train.preference_layouts import as_comparison, dialogue, preferred
from firsthand.train.streams import Stream
from tiny import CHATML, write_tokenizer


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, template=CHATML)
    tokenizer = pretrained.load(folder)
    return tokenizer, ChatTemplate(tokenizer, CHATML)


def refused(act: Callable[[], Any], kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as raised:
        act()
    return str(raised.value)


# -- conversations --


def test_a_conversation_is_read_with_calls_results_tools_and_weights() -> None:
    body = {
        "messages": [
            {"role": "system", "content": ""}, {"role": "user", "content": "go"},
            {"role": "assistant", "content": None,
            "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": '{"a": 1}'}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "r"},
            {"role": "tool", "tool_call_id": "c2", "name": "g", "content": None,
                                                                    "tool_calls": [1]},
            {"role": "assistant", "content": "x", "weight": 0, "tool_calls": [{"name": "h", "arguments": {}}]},
            {"role": "assistant", "content": "y", "weight": 1},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": 3}},
        {"name": "g", "parameters": {"type": "object", "x": 1}}],
    }  # fmt: skip
    assert conversation_of(body, "f:1") == Conversation(
        "f:1",
        (
            Message("system", (Text(""),)), Message("user", (Text("go"),)),
            Message("assistant", (ToolCall("c1", "f", {"a": 1}),)), Message("tool", (ToolResult("c1", "f", "r"),)),
            Message("tool", (ToolResult("c2", "g", ""),)), Message("assistant", (Text("x"), ToolCall("", "h", {}))),
            Message("assistant", (Text("y"),)),
        ),
        (False, False, True, False, False, False, True),
        (ToolSpec("f", "3", {"type": "object"}), ToolSpec("g", "", {"type": "object", "x": 1})),
    )  # fmt: skip
    asked, replied = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    both = conversation_of({"prompt": [asked, replied, asked], "completion": [replied]})
    assert both.trained == (False, False, False, True) and both.tools == ()
    calls = {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f"}}, {"id": "c2", "name": "g"}]}
    results = [{"role": "tool", "tool_call_id": id, "content": id[1:]} for id in ("c1", "c2", "c3", "c1")]
    third = {"role": "assistant", "tool_calls": [{"id": "c3", "name": "h"}]}
    later = {
        "prompt": [asked, calls, *results[:2], third],
        "completion": [*results[2:], replied],
        "tools": [{"name": "t"}],
    }
    found = conversation_of(later, "f:7")
    assert [part for message in found.messages for part in message.parts if isinstance(part, ToolResult)] == [
        ToolResult("c1", "f", "1"), ToolResult("c2", "g", "2"), ToolResult("c3", "h", "3"), ToolResult("c1", "f", "1")
    ]  # fmt: skip
    assert (found.source, found.tools) == ("f:7", (ToolSpec("t", "", {"type": "object"}),))
    assert found.trained == (False,) * 7 + (True,)
    assert conversation_of({"prompt": "p", "completion": "c"}) == Conversation("a line", prompt="p", text="c")
    assert conversation_of({"text": "t"}, "f:2") == Conversation("f:2", text="t")


def test_a_conversation_that_cannot_be_trained_on_says_which_message_and_why() -> None:
    user, good = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}

    def said(*messages: Any, **more: Any) -> str:
        return refused(lambda: conversation_of({"messages": list(messages), **more}, "f:3"))

    call = {"function": {"name": "f", "arguments": "{"}}
    assert said() == "f:3: `messages` must be a list of one message or more"
    assert said(user) == "f:3: no message of the role `assistant` counts: there is nothing to train on"
    assert said(user, {**good, "weight": 2}) == "f:3, message 2: its weight is 2: expected 0 or 1"
    assert said("x") == "f:3, message 1 has no role: expected an object with `role` and `content`"
    assert said({"role": "bot", "content": "x"}).startswith("f:3, message 1 has the role 'bot': expected one of ")
    assert said({"role": "user"}) == "f:3, message 1 has no content: expected a text"
    assert said({"role": "user", "content": [1]}) == "f:3, message 1 has a content of type list: expected a text"
    assert said(user, {"role": "assistant", "content": " \n"}) == (
        "f:3, message 2 is an empty answer: give it a text or tool calls, or leave the line out"
    )
    assert (
        said({**user, "tool_calls": [call]})
        == "f:3, message 1 has tool calls and the role 'user': expected the role assistant"
    )
    assert said({**good, "tool_calls": [call]}) == "f:3, message 1: the arguments of f are no JSON"
    assert said({**good, "tool_calls": [{"name": "f", "arguments": "[]"}]}) == (
        "f:3, message 1: the arguments of f are list: expected an object"
    )
    for broken in ({"function": {}}, 3, {"function": 3}):
        assert said({**good, "tool_calls": [broken]}) == (
            "f:3, message 1 has a tool call without a function's name: expected OpenAI's format"
        )
    assert said(user, good, tools=[{"description": "no name"}]).startswith(
        "f:3: `tools` is not a list in OpenAI's format (KeyError"
    )
    assert refused(lambda: conversation_of({"prompt": "p", "completion": [good]}, "f")) == (
        "f: `prompt` and `completion` must both be texts, or both lists of messages"
    )
    assert refused(lambda: conversation_of({"prompt": "p", "completion": ""}, "f")) == (
        "f: the field `completion` is empty: there is nothing to train on"
    )
    assert refused(lambda: conversation_of({"a": 1, "b": 2}, "f")) == (
        "f has the fields a, b: expected `messages`, `prompt` and `completion`, or `text`"
    )


def test_a_file_counts_its_further_bad_lines_and_leaves_out_what_has_no_answer(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"text": "a"}\n{"b": 1}\n{"text": ""}\n{"text": "b"}\n')
    assert refused(lambda: read_conversations(file)).endswith("or `text` (1 more lines are bad too)")
    file.write_text('{"text": "a"}\n{"b": 1}\n')
    assert "more lines" not in refused(lambda: read_conversations(file))
    ends, open_ = "\n\nHuman: q\n\nAssistant: a", "\n\nHuman: q"
    file.write_text(
        json.dumps({"chosen": ends, "rejected": open_}) + "\n" + json.dumps({"chosen": open_, "rejected": ends}) + "\n"
    )
    [only] = read_conversations(file)
    assert only.source == f"{file}:1" and [each.text for each in only.messages] == ["q", "a"]
    file.write_text(json.dumps({"chosen": open_, "rejected": ends}))
    none = f"{file} has no answer to train on; 1 line left out: their `label` is false, or no answer is preferred"
    assert refused(lambda: read_conversations(file)) == none
    file.write_text("")
    assert refused(lambda: read_conversations(file)) == f"{file} has no conversation: give one JSON object a line"


def test_conversations_longer_than_the_context_are_left_out_cut_or_refused(load: Any) -> None:
    tokenizer, chat = load
    short, long = Conversation("s", text="ab"), Conversation("l", prompt="abab", text="abababab")
    whole = encode_conversations([short, long], tokenizer, chat, context=999)
    size = len(whole.streams[1])
    assert (
        str(whole) == f"2 conversations, {sum(map(len, whole.streams))} tokens, "
        f"{sum(int(s.ce.sum()) for s in whole.streams)} of them trained on"
    )  # type: ignore[union-attr]
    assert len(encode_conversations([short, long], tokenizer, chat, context=size).streams) == 2
    less = encode_conversations([short, long], tokenizer, chat, context=size - 1)
    assert (len(less.streams), less.num_skipped, less.num_cut) == (1, 1, 0)
    assert str(less).endswith("; 1 longer than the context and left out (`--too-long cut` keeps their beginning)")
    cut = encode_conversations([short, long], tokenizer, chat, context=size - 1, too_long="cut")
    assert (
        cut.num_cut == 1
        and cut.streams[1].ids.tolist() == whole.streams[1].ids[:-1].tolist()
        and cut.streams[1].source == "l"
    )
    assert str(cut).endswith("; 1 longer than the context and cut")
    prompt = len(tokenizer.encode("abab")) + (1 if tokenizer.add_bos and tokenizer.bos_id is not None else 0)
    without = encode_conversations(
        [short, long], tokenizer, chat, context=max(prompt, len(whole.streams[0])), too_long="cut"
    )
    assert (without.num_cut, without.num_without, len(without.streams)) in ((0, 1, 1), (1, 0, 2))
    assert refused(lambda: encode_conversations([long], tokenizer, chat, context=size - 1, too_long="refuse")) == (
        f"l has {size} tokens, and the context is {size - 1}: shorten or cut it"
    )
    assert refused(lambda: encode_conversations([long], tokenizer, chat, context=size - 1)).startswith(
        f"nothing is left to train on within a context of {size - 1} tokens: 0 conversations, 0 tokens, 0 of them trained "
        "on; 1 "
    )
    assert str(Encoded(num_without=2)).endswith("; 2 without a token to train on")


# -- comparisons --

HH = ("\n\nHuman: one\n\nHuman: more\n\nAssistant: first", "\n\nHuman: one\n\nHuman: more\n\nAssistant: second")


def test_published_layouts_become_comparisons_or_are_undecided() -> None:
    user, a, b = (
        {"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "a"), ("assistant", "b"))
    )
    assert dialogue(HH[0], "f") == [
        {"role": "user", "content": "one\n\nmore"},
        {"role": "assistant", "content": "first"},
    ]
    assert dialogue("Assistant:hi\n\nHuman:  yes ", "f") == [
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "yes"},
    ]
    for text in ("no turns", "before\n\nHuman: x"):
        assert refused(lambda t=text: dialogue(t, "f:1, chosen")).startswith(
            "f:1, chosen is no dialogue: expected turns"
        )  # type: ignore[misc]
    assert as_comparison({"chosen": HH[0], "rejected": HH[1]}, "f") == {
        "prompt": [{"role": "user", "content": "one\n\nmore"}], "chosen": [{"role": "assistant", "content": "first"}],
        "rejected": [{"role": "assistant", "content": "second"}],
    }  # fmt: skip
    for other in (
        HH[0],
        "\n\nHuman: else\n\nAssistant: x",
        "\n\nHuman: one\n\nHuman: more",
        "\n\nHuman: one\n\nHuman: more\n\nAssistant: ",
    ):
        assert as_comparison({"chosen": HH[0], "rejected": other}, "f") is None
        assert as_comparison({"chosen": other, "rejected": HH[0]}, "f") is None
    whole = {"prompt": "q", "chosen": [user, a], "rejected": [user, b], "tools": [1], "other": 2}
    assert as_comparison(whole, "f") == {"prompt": [user], "chosen": [a], "rejected": [b], "tools": [1]}
    again = {"role": "user", "content": "r"}
    for parting in ({"chosen": [user, a], "rejected": [b, b]},
                    {"chosen": [user, a, user, a], "rejected": [user, b, again, b]},
                    {"chosen": [user, a, user, a], "rejected": [user, a, again, b]}, {"chosen": [user, a], "rejected": [b]},
                    {"prompt": [user], "chosen": [a, user, a], "rejected": [b, again, b]},
                    {"prompt": "q", "chosen": [user, a], "rejected": [again, b]},
                    {"prompt": [user], "answers": [[a, user, a], [a, user, b], [a, again, b]]}):  # fmt: skip
        assert as_comparison(parting, "f") is None
    for alone in ([a], [{"role": "system", "content": "s"}, a]):
        line = {"prompt": "q", "chosen": alone, "rejected": [*alone[:-1], b]}
        assert "must both be texts, or both lists of messages" in refused(lambda ln=line: preferred(ln, "f"))  # type: ignore[misc]
        assert preferred({**line, "prompt": None}, "f") == {"prompt": alone[:-1], "completion": [a]}
    asked_last = {"prompt": "q", "chosen": [a, user], "rejected": [a, b]}
    assert "must both be texts, or both lists of messages" in refused(lambda: preferred(asked_last, "f"))  # type: ignore[misc]
    with pytest.raises(DataError, match="must both be texts, or both lists of messages"):
        as_comparison(line, "f")
    for kept in ({"chosen": [a], "rejected": [b]}, {"chosen": [], "rejected": [b]}, {"chosen": [user, a], "rejected": []},
                 {"prompt": [user], "answers": [[a, user, a], [a, user, b]]}, {"prompt": "p", "answers": ["x", "y"]},
                 {"chosen": [user, a], "rejected": [user, a]},
                 {"prompt": "p", "chosen": "x", "rejected": "y"},
                 {"prompt": [user], "chosen": [user, a], "rejected": [user, b]}):  # fmt: skip
        assert as_comparison(kept, "f") is kept
    scored = [
        {"overall_score": score, "response": text}
        for score, text in ((3, "c"), ("7.5", "top"), (3, "late"), (9, " "), (1, "low"))
    ]
    assert as_comparison({"instruction": "do", "completions": scored}, "f") == {
        "prompt": [{"role": "user", "content": "do"}],
        "answers": [[{"role": "assistant", "content": text}] for text in ("top", "c", "low")],
    }
    assert as_comparison({"instruction": "do", "completions": scored[:1] + scored[2:4]}, "f") is None
    assert refused(lambda: as_comparison({"instruction": "do", "completions": [{"response": "x"}]}, "f")) == (
        "f: a completion has no `response` or no number as `overall_score` (KeyError: 'overall_score')"
    )
    for score, response, reason in (
        ("nan", "x", "ValueError: the score is nan"), (float("inf"), "x", "ValueError: the score is inf"),
        (1, None, "TypeError: the response is NoneType, not a text"), (1, 5, "TypeError: the response is int, not a text"),
    ):  # fmt: skip
        wrong = [*scored, {"overall_score": score, "response": response}]
        assert refused(lambda wrong=wrong: as_comparison({"instruction": "do", "completions": wrong}, "f")) == (
            f"f: a completion has no `response` or no number as `overall_score` ({reason})"
        )


def test_of_a_comparison_the_chosen_answer_is_for_fine_tuning() -> None:
    user, a = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    assert preferred({"prompt": "p", "chosen": "c", "rejected": "r"}, "f") == {"prompt": "p", "completion": "c"}
    assert preferred({"chosen": [user, a], "rejected": []}, "f") == {"prompt": [user], "completion": [a]}
    assert preferred({"prompt": [user], "chosen": [a], "rejected": []}, "f") == {"prompt": [user], "completion": [a]}
    for prompt in ({}, {"prompt": [user]}):
        body = {**prompt, "chosen": [user, a], "rejected": [], "tools": [{"name": "t"}], "source": "s"}
        assert preferred(body, "f") == {
            "prompt": [user], "completion": [user, a] if prompt else [a], "tools": [{"name": "t"}],
        }  # fmt: skip
    assert preferred({"chosen": HH[0], "rejected": "x"}, "f") == {
        "prompt": [{"role": "user", "content": "one\n\nmore"}], "completion": [{"role": "assistant", "content": "first"}]
    }  # fmt: skip
    for open_ in ("\n\nHuman: q", "\n\nHuman: q\n\nAssistant: "):
        assert preferred({"chosen": open_, "rejected": HH[0]}, "f") is None
    assert preferred({"chosen": "x"}, "f") == {"chosen": "x"} and preferred({"rejected": "x"}, "f") == {"rejected": "x"}


def test_an_answer_marked_as_bad_is_not_for_fine_tuning() -> None:
    user, a = ({"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "a")))
    for line in ({"prompt": "p", "completion": "c"}, {"prompt": [user], "completion": [a]}, {"messages": [user, a]}):
        assert preferred({**line, "label": False}, "f") is None
        for label in (True, 0, None, "business"):  # other values than false do not judge
            assert preferred(kept := {**line, "label": label}, "f") is kept
    assert preferred(text := {"text": "t", "label": False}, "f") is text, "a text is no answer"
    pair = {"prompt": "p", "chosen": "c", "rejected": "r", "label": False}
    assert preferred(pair, "f") == {"prompt": "p", "completion": "c"}, "the chosen answer is judged by its pair"


def test_of_ranked_and_scored_answers_the_best_is_for_fine_tuning() -> None:
    user, a, b = (
        {"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "a"), ("assistant", "b"))
    )
    tools = [{"name": "t"}]
    assert preferred({"prompt": "p", "answers": ["c", "d"]}, "f") == {"prompt": "p", "completion": "c"}
    assert preferred({"prompt": [user], "answers": [[b], [a]], "tools": tools}, "f") == {
        "prompt": [user], "completion": [b], "tools": tools,
    }  # fmt: skip
    assert preferred({"answers": [[user, a], [user, b]]}, "f") == {"prompt": [user], "completion": [a]}
    for answers in (["c"], "cd", {"text": ["c", "d"]}):
        assert "a list of two answers or more" in refused(
            lambda ln=answers: preferred({"prompt": "p", "answers": ln}, "f")
        )  # type: ignore[misc]
    for own in ({"prompt": "p", "completion": "c"}, {"messages": [user, a]}, {"text": "t"}):
        gold = {**own, "answers": ["c", "d"], "instruction": "i", "completions": []}
        assert preferred(gold, "f") is gold, "fields beside a line of its own do not rank"
    scored = [{"response": text, "overall_score": score} for text, score in (("low", 1), ("high", 3), ("mid", 2))]
    assert preferred({"instruction": "do", "completions": scored}, "f") == {
        "prompt": [{"role": "user", "content": "do"}], "completion": [{"role": "assistant", "content": "high"}],
    }  # fmt: skip
    assert preferred({"instruction": "do", "completions": scored[:1]}, "f") is None


def test_of_an_answer_judged_alone_all_turns_count(load: Any, tmp_path: Path) -> None:
    tokenizer, _ = load
    texts = (("user", "q"), ("assistant", "act"), ("user", "seen"), ("assistant", "end"))
    asked, acted, seen, ended = ({"role": role, "content": text} for role, text in texts)

    def counted(body: dict[str, Any]) -> list[list[str]]:
        file = tmp_path / "judged.jsonl"
        file.write_text(json.dumps(body))
        [answers] = read_comparisons(file, *load, context=200).comparisons
        return [tokenizer.decode(each.ids[each.ce > 0].tolist(), skip_special=True) for each in answers]

    whole = [acted, seen, ended]
    for label in (True, False):
        assert counted({"prompt": [asked], "completion": whole, "label": label}) == ["actend"]
    assert counted({"prompt": [asked, acted, seen], "completion": [ended], "label": False}) == ["end"]
    unweighed = [{**acted, "weight": 0}, seen, ended]
    assert counted({"prompt": [asked], "completion": unweighed, "label": False}) == ["end"]
    assert counted({"completion": [asked, *whole], "label": False}) == ["end"], "nothing says where the prompt ends"
    other = [acted, seen, {"role": "assistant", "content": "so"}]
    assert counted({"prompt": [asked], "chosen": whole, "rejected": other}) == ["end", "so"], "they are alike before"
    assert counted({"prompt": [asked], "answers": [whole, other]}) == ["end", "so"]
    assert counted({"prompt": "q", "completion": "end", "label": True}) == ["end"]


def test_lines_without_a_preferred_answer_are_counted(load: Any, tmp_path: Path) -> None:
    good, bad = ({"prompt": "p", "completion": text, "label": text == "good"} for text in ("good", "bad"))
    file = tmp_path / "judged.jsonl"
    file.write_text("".join(f"{json.dumps(each)}\n" for each in (bad, good, bad)))
    found = read_conversations(file)
    assert [each.text for each in found] == ["good"] and found.num_unwanted == 2
    encoded = encode_conversations(found, *load, context=64)
    left_out = "left out: their `label` is false, or no answer is preferred"
    assert len(encoded.streams) == 1 and str(encoded).endswith(f"; 2 {left_out}")
    file.write_text(json.dumps(bad))
    assert refused(lambda: read_conversations(file)) == f"{file} has no answer to train on; 1 line {left_out}"


def test_comparisons_are_streams_with_labels_by_rank_and_their_number(load: Any, tmp_path: Path) -> None:
    tokenizer, chat = load
    file = tmp_path / "x.jsonl"

    def read(*lines: Any, context: int = 999, too_long: Any = "skip") -> ReadComparisons:
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return read_comparisons(file, tokenizer, chat, context=context, too_long=too_long)

    pair = {"prompt": "say", "chosen": "yes", "rejected": "no no no no no"}
    found = read(pair, {"chosen": HH[0], "rejected": HH[0]}, {"prompt": "p", "answers": ["a", "b", "c"]},
                 {"prompt": "p", "completion": "x", "label": False},
                 {"prompt": "p", "completion": "x", "label": True})  # fmt: skip
    assert [[stream.label for stream in each] for each in found.comparisons] == [[1, -1], [3, 2, 1], [-1], [1]]
    assert [[stream.pair for stream in each] for each in found.comparisons] == [[0, 0], [1, 1, 1], [2], [3]]
    assert (found.num_skipped, found.num_undecided) == (0, 1)
    one = found.comparisons[0][0]
    longest = max(map(len, found.comparisons[0]))
    assert one.ce is not None and one.ce.sum() == len(one) - int(one.ce.argmax()) and one.source == f"{file}:1"
    assert read(pair, {"prompt": "p", "answers": ["a", "b"]}, context=longest).num_skipped == 0
    less = read(pair, {"prompt": "p", "answers": ["a", "b"]}, context=longest - 1)
    assert (less.num_skipped, [stream.pair for stream in less.comparisons[0]]) == (1, [0, 0])
    cut = read(pair, context=longest - 1, too_long="cut")
    assert max(map(len, cut.comparisons[0])) == longest - 1 and [s.label for s in cut.comparisons[0]] == [1, -1]
    assert refused(lambda: read(pair, context=longest - 1, too_long="refuse")) == (
        f"{file}:1 has {longest} tokens, and the context is {longest - 1}: shorten or cut it"
    )
    assert (
        refused(lambda: read(pair, context=2))
        == f"{file} has no comparison within a context of 2 tokens (1 are longer, or alike within it)"
    )
    user, answers = (
        {"role": "user", "content": "q"},
        [{"role": "assistant", "content": text} for text in ("a1", "a2", "b2")],
    )
    said = read(
        {"prompt": [user], "chosen": [answers[0], user, answers[1]], "rejected": [answers[0], user, answers[2]]}
    )
    assert [tokenizer.decode(each.ids[each.ce > 0].tolist()) for each in said.comparisons[0]] == ["a2", "b2"]
    assert all(
        each.ids[int(each.ce.argmax()) :].tolist() == each.ids[each.ce > 0].tolist() for each in said.comparisons[0]
    )
    start = int(one.ce.argmax())
    assert refused(lambda: read(pair, context=start, too_long="cut")).endswith("(1 are longer, or alike within it)"), (
        "nothing that counts is left"
    )
    for line, told in (
        ({**pair, "rejected": "yes"}, "`chosen` and `rejected` are equal: nothing is preferred, so leave the line out"),
        ({"prompt": "p", "answers": ["a"]}, "`answers` must be a list of two answers or more, the best first"),
        ({"prompt": "p", "completion": "x", "label": 1}, "its label is 1: expected true or false"),
        (
            {"prompt": "p", "chosen": "x"},
            "an answer is missing: expected both `chosen` and `rejected`, or `completion`",
        ),
    ):
        assert refused(lambda ln=line: read(ln)) == f"{file}:1: {told}"  # type: ignore[misc]
    assert refused(lambda: read({"prompt": "p"})).startswith(
        f"{file}:1 has the fields prompt: expected `prompt` with `chosen` and"
    )


def test_mismatched_rows_have_the_next_rows_answer() -> None:
    rows = [Stream([1, 2, 3], ce=[0, 0, 1]), Stream([4, 5, 6, 7], ce=[0, 1, 0.5, 1]), Stream([8, 9], ce=[0, 1])]
    found = mismatched(rows, context=96)
    assert [each.ids.tolist() for each in found] == [[1, 2, 5, 6, 7], [4, 9], [8, 3]]
    assert [each.ce.tolist() for each in found if each.ce is not None] == [[0, 0, 1, 0.5, 1], [0, 1], [0, 1]]
    assert replace(rows[0]).ids.tolist() == [1, 2, 3]
