"""A server's parts by unusual inputs: calls that are mixed, empty forms, bodies at their limits, tasks and their hour."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from a2a.types.a2a_pb2 import Message, Part
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from mcp import MCPError

from firsthand.loop.form import FormField
from firsthand.message import Message as ChatMessage
from firsthand.message import Sampled, Text, ToolCall, assistant, user
from firsthand.model import CallDelta, Completion, Delta, Usage
from firsthand.serve.a2a.turn_executor import decisions
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.admission.api_keys import Client
from firsthand.serve.admission.server_admission import WINDOW_S, Admission
from firsthand.serve.agents.session_store import SessionStore
from firsthand.serve.anthropic.anthropic_messages import messages
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.request_body import ClientLeft, parse_object, read_body
from firsthand.serve.mcp.exchange import ParkedExchange
from firsthand.serve.mcp.running_call import PARKED_S, ParkedCalls, RunningCall
from firsthand.serve.mcp.served_tool import text_result
from firsthand.serve.mcp.server_tasks import TTL_MS, ServerTask, ServerTasks
from firsthand.serve.mcp.task_file import TaskFile
from firsthand.serve.openai.chat_completions import chat_completions
from firsthand.serve.openai.completions import completions
from firsthand.serve.openai.reasoning_split import ReasoningSplitter
from firsthand.serve.openai.request_parsing import messages as conversation
from firsthand.serve.openai.request_schema import ChatRequest, read
from firsthand.serve.openai.sampled_turns import SampledTurns
from spelled_model import SpelledModel, answered, state_of

HI = [{"role": "user", "content": "Hi"}]


def test_a_task_is_kept_for_an_hour_in_memory_and_in_its_file(tmp_path: Path) -> None:
    async def main() -> None:
        file = TaskFile(tmp_path)
        tasks = ServerTasks(file)
        call = RunningCall("t", asyncio.sleep(9), ParkedExchange(None, {"roots": {}}, {}), "id-1")  # type: ignore[arg-type]
        call.exchange.ctx = SimpleNamespace()  # type: ignore[assignment]
        before, wall = time.monotonic(), time.time()
        task = tasks.begin(call, "ann", "ask", {"q": "é"})
        assert 3600 <= task.until - before < 3605 and TTL_MS == 3_600_000 and call.exchange.ctx is None
        row = file.find("id-1")
        assert row is not None and 3600 <= row.expires - wall < 3605
        assert (row.owner, row.tool, row.arguments, row.declared, row.status) == (
            "ann", "ask", {"q": "é"}, {"roots": {}}, "working",
        )  # fmt: skip
        assert (row.created_at, row.updated_at) == (task.created, task.updated) and call.exchange.task == "id-1"
        call.exchange.keep("half")
        assert file.find("id-1").note == "half"  # type: ignore[union-attr]
        with pytest.raises(MCPError, match="no such task"):
            tasks.find(None, "id-1")
        await tasks.end(task)
        await tasks.end(task)
        again = ServerTask(call, None, "t9")
        assert (again.created, again.state()["status"], again.is_over) == ("t9", "cancelled", True)
        assert file.find("id-1").status == "cancelled"  # type: ignore[union-attr]
        await tasks.close()
        assert tasks.tasks == {} and tasks.file is None
        await tasks.close()

    asyncio.run(main())


def test_a_call_that_waits_is_given_up_after_ten_minutes_or_for_another_of_who_has_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        parked = ParkedCalls(lambda *told: None)

        def waiting(id: str, client: str | None, age_s: float = 0.0) -> RunningCall:
            exchange = ParkedExchange(None, {}, {}, client=client)
            exchange.ctx = SimpleNamespace()  # type: ignore[assignment]
            call = RunningCall("t", asyncio.sleep(9), exchange, id)
            shown = parked._park(call)
            assert (shown.request_state, shown.input_requests, call.exchange.ctx) == (id, {}, None)
            call.since -= age_s
            return call

        monkeypatch.setattr("firsthand.serve.mcp.running_call.MAX_PARKED", 4)
        calls = [
            waiting("a", "ann", PARKED_S + 1),
            waiting("b", "bob"),
            waiting("c", "ann", PARKED_S - 1),
            waiting("d", "ann"),
        ]
        calls += [waiting("e", None)]
        parked._forget_old()
        await asyncio.sleep(0)
        assert list(parked._calls) == ["b", "d", "e"] and [each.task.done() for each in calls] == [
            True,
            False,
            True,
            False,
            False,
        ]
        parked._forget_old()
        assert len(parked._calls) == 3, "there is room for one more"
        await parked.close()
        assert parked._calls == {} and all(each.task.done() for each in calls)

    asyncio.run(main())


def test_mixed_calls_of_a_streamed_message_grow_in_their_own_blocks() -> None:
    calls = (ToolCall("1", "go", {"a": 1}), ToolCall("2", "up", {}, "{broken"), ToolCall("3", "on", {}))
    end = Completion(assistant("x", *calls), "tool_calls", Usage(9, 4, 2))
    model = SpelledModel(
        Delta("x"), Delta("", call=CallDelta(0, "k", "go", "")), Delta("", call=CallDelta(0, "", None, '{"a":')),
        Delta("", call=CallDelta(0, "", None, "1}")), Delta("", call=CallDelta(2, "m", "on", "{}")), Delta("", end),
    )  # fmt: skip
    asked = {"model": "demo", "max_tokens": 9, "messages": HI, "stream": True,
             "tools": [{"name": name, "input_schema": {}} for name in ("go", "up", "on")]}  # fmt: skip
    found = list(answered(messages, state_of(model), asked))
    told = [
        (each["type"], each.get("index"), each.get("delta") or each.get("content_block", {}).get("name"))
        for each in found
    ]
    assert told[1:-2] == [
        ("content_block_start", 0, None), ("content_block_delta", 0, {"type": "text_delta", "text": "x"}),
        ("content_block_stop", 0, None), ("content_block_start", 1, "go"),
        ("content_block_delta", 1, {"type": "input_json_delta", "partial_json": '{"a":'}),
        ("content_block_delta", 1, {"type": "input_json_delta", "partial_json": "1}"}), ("content_block_stop", 1, None),
        ("content_block_start", 2, "on"), ("content_block_delta", 2, {"type": "input_json_delta", "partial_json": "{}"}),
        ("content_block_stop", 2, None), ("content_block_start", 3, "up"),
        ("content_block_delta", 3, {"type": "input_json_delta", "partial_json": '{"INVALID_JSON":"{broken"}'}),
        ("content_block_stop", 3, None),
    ]  # fmt: skip
    assert told[-2][:1] == ("message_delta",) and found[-2]["usage"]["output_tokens"] == 2
    assert found[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None} and told[-1][0] == "message_stop"
    assert len({each["content_block"].get("id") for each in found if "content_block" in each}) == 4
    whole = answered(messages, state_of(model), asked | {"stream": False})
    assert [(each["type"], each.get("input", each.get("text"))) for each in whole["content"]] == [
        ("text", "x"), ("tool_use", {"a": 1}), ("tool_use", {"INVALID_JSON": "{broken"}), ("tool_use", {}),
    ]  # fmt: skip


def test_an_empty_form_is_a_yes_and_a_good_answer_behind_a_bad_one_counts(tmp_path: Path) -> None:
    store = SessionStore(tmp_path, create=True)
    session = store.open_session("ann", "c")
    turn = store.add_turn(session.id, "pay")
    one = store.asked(turn.id, "0", "pay", "external", {}, "Pay?")
    two = store.asked(turn.id, "1", "fill", "external", {}, "Fill?", [FormField("n", "integer", "N")])

    def said(*bodies: Any, pending: Any = (one, two)) -> Any:
        parts = [Part(text=each) if isinstance(each, str) else Part(data=ParseDict(each, Value())) for each in bodies]
        return decisions(Message(parts=parts), list(pending), {each.id for each in pending})

    assert said({"approval": two.id, "content": {}}) == {two.id: (True, {})}
    assert said([1], {"allowed": 1, "approval": one.id}, {"allowed": True, "approval": "none"},
                {"allowed": False, "approval": one.id}) == {one.id: (False, None)}  # fmt: skip
    assert said("yes") == {} == said({"allowed": True}) and said("yes", pending=[one]) == {one.id: (True, None)}
    assert said({"content": {"n": 1}}, pending=[two]) == {two.id: (True, {"n": 1})} and said("yes", pending=[]) == {}
    assert said({"allowed": False, "content": {"n": 1}}, pending=[two]) == {two.id: (False, {"n": 1})}
    assert said("perhaps", {"allowed": None, "content": {}}, "no", pending=[two]) == {two.id: (False, None)}
    assert said({"content": "n"}, pending=[two]) == {}
    store.close()


def test_a_body_is_read_to_its_last_byte_and_its_nesting_counts_outside_strings_alone() -> None:
    def read_(*pieces: bytes, most: int = 4, declared: str | None = None, left: bool = False) -> Any:
        waiting = [{"type": "http.request", "body": each, "more_body": True} for each in pieces]
        if not left:
            waiting[-1]["more_body"] = False

        async def receive() -> Any:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        try:
            return asyncio.run(read_body(receive, most, 5.0, declared))
        except Refusal as refusal:
            return refusal.status, refusal.message

    assert read_(b"ab", b"", b"cd", declared="4") == b"abcd" == read_(b"abcd", declared="0004")
    long = (413, "the body has more than 4 bytes: send less")
    assert read_(b"ab", b"cde") == long == read_(b"", declared="5") == read_(b"", declared="0" * 19)
    assert read_(b"", declared="0") == b"" and read_(b"", declared="0" * 18) == b""
    for declared in ("", "-1", "4.0", "٤"):
        assert read_(b"", declared=declared) == (400, f"Content-Length is {declared!r}: a number was expected")
    with pytest.raises(ClientLeft):
        read_(b"ab", left=True)

    def parsed(text: str, kind: str | None = " Application/JSON ; charset=utf-8") -> Any:
        try:
            return parse_object(text.encode("utf-8", "surrogatepass"), kind)
        except Refusal as refusal:
            return refusal.status, refusal.message

    deep = '{"a": ' + "[" * 63 + "]" * 63 + "}"
    assert parsed(deep) == json.loads(deep) and parsed('{"a": "' + "[" * 99 + '\\"{"}') == {"a": "[" * 99 + '"{'}
    assert parsed('{"a": ' + "[" * 64 + "]" * 64 + "}") == (400, "the body nests lists and objects more than 64 deep")
    assert parsed('{"a": [' + "[]," * 99 + "[]]}") == {"a": [[]] * 100}, "many side by side"
    assert parsed("{}", None) == (415, "Content-Type is 'missing': send application/json") and parsed("{}", "x" * 61) == (
        415, f"Content-Type is {'x' * 60!r}: send application/json",
    )  # fmt: skip
    assert parsed('{"a": 1, "b": 2, "a": 1}')[1].endswith("the key 'a' comes twice")
    assert parsed('{"a": {"b": NaN}}')[1].endswith("NaN is no JSON")
    assert parsed("[]") == (400, "the body is a JSON list: an object was expected")
    assert parsed('{"a": "\ud800"}') == (400, "the body is not valid UTF-8 (byte 7)")


def test_options_that_are_given_reach_the_model_whole_or_streamed() -> None:
    end = Delta("", Completion(assistant("x"), "stop", Usage(3, 0, 1)))
    given = {"n": 1, "priority": -0, "user": "u" * 128, "cache_salt": "s", "seed": 0, "temperature": 0, "top_p": 0.5}
    for stream in (False, True):
        for handler, more in (
            (chat_completions, {"messages": HI, "chat_template_kwargs": {"k": 0}}), (completions, {"prompt": "Hi"}),
        ):  # fmt: skip
            model = SpelledModel(end)
            answered(handler, state_of(model), {**given, **more, "stream": stream}, min_priority=-5)
            (asked,) = model.asked
            sampling = asked.pop("sampling")
            assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.0, 0.5, 0)
            assert asked.pop("prompt") == ("Hi" if "prompt" in more else [ChatMessage("user", (Text("Hi"),))])
            template = {"template": {"k": 0}} if "messages" in more else {}
            assert asked == {
                "tools": (), "n": 1, "priority": 0, "run": "ann/" + "u" * 128, "cache_salt": "s",
            } | template, (stream, more)  # fmt: skip


def test_text_is_split_alike_however_it_comes() -> None:
    for starts, text, wanted in (
        (False, "<think>\n\na\n\nb\n</think>\n\nc</think>\n", ("a\n\nb", "c</think>\n")),
        (False, " \n<think>a</think>", ("a", "")), (False, "<thin", ("", "<thin")), (False, " <b>x", ("", " <b>x")),
        (True, "\na</thi</think>b", ("a</thi", "b")), (True, "a\n", ("a\n", "")), (True, "</think>\n\n", ("", "")),
        (False, "a<think>b</think>", ("", "a<think>b</think>")), (True, "a</think", ("a</think", "")),
    ):  # fmt: skip
        for size in (1, 2, 3, 7, 99):
            split = ReasoningSplitter(thinks=True, starts_in_thought=starts)
            pieces = [piece for at in range(0, len(text), size) for piece in split.feed(text[at : at + size])]
            pieces += split.finish()
            kinds = {
                kind: "".join(each.text for each in pieces if each.kind == kind) for kind in ("reasoning", "content")
            }
            assert tuple(kinds.values()) == wanted, (starts, text, size)
            assert split.finish() == [] and all(each.text for each in pieces)
    plain = ReasoningSplitter(starts_in_thought=True)
    assert [*plain.feed("<think>"), *plain.feed(""), *plain.finish()] == [("content", "<think>")]


def test_sampled_tokens_are_known_again_only_after_the_same_words_of_the_same_client() -> None:
    def said(text: str, *ids: int) -> ChatMessage:
        made = assistant(text)
        return ChatMessage("assistant", made.parts, Sampled(ids, tuple(-float(each) for each in ids)))

    kept = SampledTurns(max_answers=2, max_tokens=5)
    asked = [user("q\ud800")]
    kept.remember("ann", asked, said("a", 1, 2))
    kept.remember("ann", asked, said("a", 7, 8, 9, 9, 9))
    kept.remember("ann", asked, said("none"))
    assert len(kept) == 1, "the first tokens of the same words stay, and none are not kept"
    turns = kept.recall("ann", [*asked, assistant("a"), user("r"), assistant("b")])
    assert [each.sampled for each in turns] == [None, Sampled((1, 2), (-1.0, -2.0)), None, None]
    assert kept.recall("bob", [*asked, assistant("a")])[1].sampled is None
    kept.remember("ann", turns[:3], said("b", 3, 4, 5))
    assert len(kept) == 2, "exactly the most tokens"
    kept.recall("ann", [*asked, assistant("a")])
    kept.remember("ann", [user("z")], said("c", 6))
    found = kept.recall("ann", [*asked, assistant("a"), user("r"), assistant("b")])
    assert [each.sampled is not None for each in found] == [False, True, False, False], (
        "what was not asked for went first"
    )
    kept.remember("ann", [user("y")], said("d", *range(6)))
    assert len(kept) == 0, "more than all tokens that are kept"


def test_allowances_end_with_their_minute_and_slots_come_back_after_an_error() -> None:
    admission = Admission(settings=AdmissionSettings(max_requests=1))
    client = Client("c", ClientLimits(tokens_per_minute=4, concurrency=1))
    with pytest.raises(KeyError), admission.slot(client):
        raise KeyError("x")
    assert (admission.in_flight, admission.by_client) == (0, {})
    now = time.monotonic()
    for ago, count in ((WINDOW_S + 1, 50), (40, 2), (20, 3), (10, 1)):
        admission.charge(client, count)
        at, _ = admission._spent["c"].pop()
        admission._spent["c"].append((at - ago, count))
    # 2 + 3 + 1 in the window: without the 2, 4 are left, which is still the whole allowance; without the 3 there is room
    assert 39 < admission.wait_for_tokens_s(client) - (time.monotonic() - now) <= 40
    assert [count for _, count in admission._spent["c"]] == [2, 3, 1]
    admission.drain()
    with pytest.raises(Refusal) as told:
        admission.check_open()
    assert (told.value.status, told.value.headers) == (503, {"retry-after": "5", "connection": "close"})
    for header, key, problem in ((None, None, "an API key is needed"), ("", None, "the API key is wrong")):
        with pytest.raises(Refusal) as told:
            Admission(keyed()).client(header, key)
        assert told.value.message.startswith(problem)
    assert (
        Admission(keyed()).client(None, "k" * 16).name
        == "c"
        == Admission(keyed()).client(f"BEARER  {'k' * 16} ", "x").name
    )
    with pytest.raises(Refusal):
        Admission(keyed()).client("", "k" * 16)


def keyed() -> Any:
    import hashlib

    from firsthand.serve.admission.api_keys import Keys

    other = Client("d", ClientLimits(), hashlib.sha256(b"z" * 16).digest())
    return Keys((Client("c", ClientLimits(), hashlib.sha256(b"k" * 16).digest()), other))


def test_a_conversation_names_calls_across_turns_and_keeps_broken_arguments() -> None:
    def call(id: str, name: str, arguments: str) -> Any:
        return {"id": id, "function": {"name": name, "arguments": arguments}}

    body = read(ChatRequest, {"messages": [
        {"role": "developer", "content": []}, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text",
        "text": "b"}]},
        {"role": "assistant", "tool_calls": [call("1", "go", ""), call("2", "up", "[1]"), call("3", "up", "{"), call("4",
        "up", '{"é": 0}')]},
        {"role": "tool", "tool_call_id": "3", "content": "x", "name": "up"}, {"role": "assistant", "content": "",
        "reasoning": "t"},
        {"role": "tool", "tool_call_id": "1"},
    ]})  # fmt: skip
    found = conversation(body.messages, thinks=True)
    assert [(each.role, each.text) for each in found] == [
        ("system", ""), ("user", "ab"), ("assistant", ""), ("tool", "x"), ("assistant", "<think>\nt\n</think>\n\n"),
        ("tool", ""),
    ]  # fmt: skip
    assert found[2].tool_calls == (
        ToolCall("1", "go", {}), ToolCall("2", "up", {}, "[1]"), ToolCall("3", "up", {}, "{"), ToolCall("4", "up", {"é": 0}),
    )  # fmt: skip
    results = [part for each in found if each.role == "tool" for part in each.parts]
    assert [(each.call_id, each.name, each.content) for each in results] == [("3", "up", "x"), ("1", "go", "")]  # type: ignore[union-attr]
    assert conversation(body.messages)[4].text == "" and text_result("").content[0].text == ""  # type: ignore[union-attr]
