"""What a server's parts make of 0, of an empty text and of an empty list that are given on purpose: not what None means."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.message import ToolCall, assistant, system, user
from firsthand.model import Completion, Delta, Usage
from firsthand.providers.scripted import Scripted
from firsthand.serve.agents.session_store import SessionStore, SessionTurn
from firsthand.serve.agents.session_trace import joined
from firsthand.serve.anthropic.message_parts import ended_json, tool_input
from firsthand.serve.anthropic.messages_schema import MessagesRequest
from firsthand.serve.anthropic.messages_schema import as_chat as chat_of_message
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.replies import event
from firsthand.serve.openai import completions as completions_module
from firsthand.serve.openai import request_parsing
from firsthand.serve.openai.chat_completions import chat_completions
from firsthand.serve.openai.choices import LEAST, WholeAnswer, arguments, chat_logprobs
from firsthand.serve.openai.completions import EchoedToken, _logprobs, _TextOffsets, completions
from firsthand.serve.openai.request_schema import ChatRequest, CompletionRequest, read
from firsthand.serve.openai.responses_schema import ResponsesRequest
from firsthand.serve.openai.responses_schema import as_chat as chat_of_response
from firsthand.serve.openai.tokenize import detokenize, tokenize
from firsthand.serve.telemetry.metrics import Metrics
from firsthand.serve.telemetry.request_log import RequestLog
from firsthand.serve.telemetry.request_spans import RequestSpan
from firsthand.trace import Call, Node, Trace
from spelled_model import SpelledModel, answered, request_with, state_of

HI = [{"role": "user", "content": "Hi"}]


def test_a_message_request_keeps_its_noughts_and_empty_texts() -> None:
    use = {"type": "tool_use", "id": "1", "name": "", "input": {}}
    chat, _ = chat_of_message(read(MessagesRequest, {
        "model": "", "max_tokens": 1, "temperature": 0, "top_p": 0, "top_k": 0, "stream": False, "seed": 0, "cache_salt": "",
        "chat_template_kwargs": {}, "stop_sequences": [], "metadata": {"user_id": ""}, "system": [],
        "tools": [{"name": "go", "input_schema": {}, "description": "", "strict": False}], "tool_choice": {"type": "tool",
        "name": ""},
        "messages": [
            {"role": "user", "content": ""}, {"role": "assistant", "content": [{"type": "thinking", "thinking": ""}, use]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "is_error": True},
                                         {"type": "text", "text": ""}, {"type": "text", "text": "x"}]},
        ],
    }))  # fmt: skip
    assert chat == {
        "model": "", "max_tokens": 1, "temperature": 0.0, "top_p": 0.0, "top_k": 0, "stream": False, "seed": 0,
        "cache_salt": "",
        "chat_template_kwargs": {}, "user": hashlib.sha256(b"").hexdigest(),
        "tools": [{"type": "function", "function": {"name": "go", "parameters": {}, "description": "", "strict": False}}],
        "tool_choice": {"type": "function", "function": {"name": ""}}, "parallel_tool_calls": True,
        "messages": [
            {"role": "user", "content": ""},
            {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "Error: "}, {"role": "user", "content": "\n\nx"},
        ],
    }  # fmt: skip
    job: Any = SimpleNamespace(sampling=SimpleNamespace(max_tokens=9))
    assert ended_json(job, Completion(assistant(""), "stop", Usage(), stop_string="")) == {
        "stop_reason": "stop_sequence", "stop_sequence": "",
    }  # fmt: skip
    assert (
        tool_input(ToolCall("0", "a", {"x": 1}, ""), "") == {"INVALID_JSON": ""}
        and arguments(ToolCall("0", "a", {"x": 1}, "")) == ""
    )


def test_a_response_request_keeps_its_noughts_and_empty_texts() -> None:
    chat, names = chat_of_response(read(ResponsesRequest, {
        "model": "", "temperature": 0, "top_p": 0.5, "stream": False, "parallel_tool_calls": False, "user": "",
        "instructions": "",
        "tools": [], "tool_choice": "none", "text": {"format": {"type": "text"}},
        "input": [
            {"role": "user", "content": []}, {"role": "assistant", "content": ""},
            {"type": "function_call", "call_id": "1", "name": "go"}, {"type": "function_call_output", "call_id": "1",
            "output": ""},
            {"type": "reasoning", "content": ""}, {"role": "assistant", "content": ""},
        ],
    }))  # fmt: skip
    assert chat == {
        "model": "", "temperature": 0.0, "top_p": 0.5, "stream": False, "parallel_tool_calls": False, "user": "",
        "tool_choice": "none",
        "messages": [
            {"role": "user", "content": ""},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "go", "arguments": ""}}]},
            {"role": "tool", "tool_call_id": "1", "content": ""},
            {"role": "assistant", "content": "", "reasoning_content": ""},
        ],
    }  # fmt: skip
    assert names["messages.0"] == "input.0" and names["messages.1"] == "input.1"
    for form, shown in (
        ({"type": "json_object"}, {"type": "json_object"}),
        ({"type": "json_schema", "name": "", "schema": {}}, {"type": "json_schema", "json_schema": {"name": "answer",
        "schema": {}}}),
    ):  # fmt: skip
        chat, _ = chat_of_response(read(ResponsesRequest, {"input": "", "text": {"format": form}}))
        assert chat == {"messages": [{"role": "user", "content": ""}], "response_format": shown}


def test_a_chats_rules_may_be_empty_and_its_limits_0() -> None:
    def structure(**fields: Any) -> Any:
        body = read(ChatRequest, {"messages": HI, **fields})
        found = request_parsing.structure(body, body.response_format)
        return (
            None
            if found is None
            else (found.kind, json.loads(found.source) if found.kind == "json_schema" else found.source)
        )

    assert structure(guided_json={}) == ("json_schema", {}) and structure(guided_json=True)[0] == "json_schema"
    assert structure() is None
    for field in ("guided_regex", "guided_grammar", "guided_choice"):
        with pytest.raises(Refusal) as told:
            structure(**{field: [] if field == "guided_choice" else ""})
        assert told.value.param == field
    with pytest.raises(Refusal) as told:
        structure(guided_json=False, guided_regex="a")
    assert told.value.message == "guided_json and guided_regex both say what the answer must look like: give one"

    def refused(handler: Any, **fields: Any) -> Any:
        with pytest.raises(Refusal) as told:
            answered(handler, state_of(SpelledModel()), fields)
        return told.value.status, told.value.param

    assert refused(chat_completions, messages=HI, top_logprobs=0) == (400, "top_logprobs")
    assert refused(chat_completions, messages=HI, prompt_logprobs=0, stream=True) == (400, "prompt_logprobs")
    assert refused(chat_completions, messages=HI, max_tokens=0) == (400, "max_tokens")
    assert (
        refused(chat_completions, messages=HI, model="") == (404, "model") == refused(completions, prompt="x", model="")
    )
    model = SpelledModel(Delta("", Completion(assistant(""), "stop", Usage()), index=0))
    body = answered(chat_completions, state_of(model), {"messages": HI, "logprobs": True, "top_logprobs": 0,
    "prompt_logprobs": 0,
                                                        "max_completion_tokens": 3, "max_tokens": 5,
                                                        "stop": ""})  # fmt: skip
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "", "refusal": None}
    assert choice["logprobs"] == {"content": [], "refusal": None} and len(body["prompt_logprobs"]) == 5
    assert model.asked[0]["sampling"].max_tokens == 3 and model.asked[0]["sampling"].stop == ()
    assert model.asked[1]["top"] == 0


def test_a_log_prob_of_0_is_one_and_minus_infinity_the_least() -> None:
    tokens = [
        EchoedToken(b"", None, (), b""),
        EchoedToken(b"a", 0.0, (), b"a"),
        EchoedToken(b"b", -float("inf"), ((b"c", -float("inf")),), b"b"),
    ]
    offsets = _TextOffsets()
    assert offsets.next(b"early") == 0
    assert _logprobs(tokens, 1, offsets) == {
        "tokens": ["", "a", "b"], "token_logprobs": [None, 0.0, LEAST],
        "top_logprobs": [None, {"a": 0.0}, {"c": LEAST, "b": LEAST}], "text_offset": [5, 5, 6],
    }  # fmt: skip
    assert _logprobs(tokens, 0, offsets)["top_logprobs"] is None and _logprobs([], 2, offsets)["top_logprobs"] == []
    whole = WholeAnswer()
    first, second = (Completion(assistant(each), "stop", Usage()) for each in "ab")
    for delta in (
        Delta("", first, token_ids=(0,)),
        Delta("x"),
        Delta("", second),
        Delta("y", token_ids=(5,), logprobs=(0.0,)),
    ):
        whole.add(delta)
    assert (whole.text, whole.token_ids, whole.logprobs, whole.whole) == ("xy", [0, 5], [0.0], second)


def test_a_broken_call_has_the_pieces_that_came_only_where_the_answer_was_cut() -> None:
    def told(reason: Any) -> list[str]:
        made = Completion(assistant("", ToolCall("c", "f", {}, '{"a": 1,}')), reason, Usage())
        return WholeAnswer(calls={0: '{"a'}, completion=made).arguments()

    assert [told(reason) for reason in ("length", "stop", "tool_calls")] == [['{"a'], ['{"a'], ['{"a": 1,}']]


def test_an_alternative_that_utf_8_cannot_hold_is_a_question_mark() -> None:
    served: Any = SimpleNamespace(token_model=lambda field: SimpleNamespace(spell=lambda ids: [b"a"]))
    (token,) = chat_logprobs(served, WholeAnswer("", [1], [-0.5], [(("\ud83d", -1.0),)]))["content"]
    assert token["top_logprobs"] == [{"token": "?", "logprob": -1.0, "bytes": [63]}]


def test_numbers_of_the_engine_that_are_0_are_told_and_those_it_does_not_have_are_not() -> None:
    lines = Metrics().text({"running": 0, "steps": 0}, ready=True, in_flight=0).splitlines()
    told = [line for line in lines if line.startswith("firsthand_engine_")]
    assert told == ["firsthand_engine_running 0", "firsthand_engine_steps_total 0"]


def test_what_is_written_down_of_a_request_may_be_0_or_empty(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "log", Metrics())
    log.write("request", status=0, error="", notes=[], none=None, stream=False)
    written = json.loads((tmp_path / "log").read_text())
    assert {key: value for key, value in written.items() if key != "at"} == {
        "event": "request", "status": 0, "error": "", "notes": [], "stream": False,
    }  # fmt: skip
    kept: dict[str, Any] = {}
    span: Any = SimpleNamespace(set_attributes=kept.update, end=lambda: None, update_name=lambda name: None)
    made = RequestSpan(span, "r", {}, None, content=False)
    made.answered(Completion(assistant(""), "stop", Usage()), 0.0)
    made.answered(Completion(assistant(""), "length", Usage()), 0.5)
    made.close(200, "")
    assert (kept["firsthand.time_in_queue"], kept["firsthand.client"], kept["gen_ai.response.id"]) == (0.0, "", "r")
    assert list(kept["gen_ai.response.finish_reasons"]) == ["stop", "length"] and "error.type" not in kept
    assert event({}, "") == b"event: \ndata: {}\n\n" and event({}) == b"data: {}\n\n"


def turn(number: int, state: Any, answer: str | None = None, error: str | None = None) -> SessionTurn:
    return SessionTurn(f"t{number}", "s", number, state, f"q{number}", answer, error, "ann", "c")


def test_a_turn_that_ends_at_the_first_message_is_gone_on_with_from_there() -> None:
    def attempt(*nodes: Node, calls: tuple[Call, ...] = ()) -> Trace:
        return Trace("i", "served", "s", {"name": "clerk"}, 0, 5, "now", 1.0, nodes, calls)

    said = Node(None, system("S"))
    failed = joined(None, attempt(said, Node(0, user("q1"))), turn(1, "failed", error=""), ())
    assert failed.final_state["turns"][0]["tip"] == 0, "the system message alone is history"
    assert failed.events[-1].data["error"] == ""
    call = Call(":0", "generate", 0, 0.0, 0.5, "", nodes=(0, 1))
    second = joined(failed, attempt(said, Node(0, user("q2")), calls=(call,)), turn(2, "completed", ""), ())
    assert [(node.parent, node.message.text) for node in second.nodes] == [
        (None, "S"), (0, "q1"), (0, "q2"), (0, "q2"), (3, ""),
    ]  # fmt: skip
    assert (second.calls[0].at, second.calls[0].nodes) == (0, (0, 2)) and second.final_state["turns"][1]["tip"] == 4
    nothing = joined(second, attempt(), turn(3, "canceled"), ())
    assert (nothing.final_state["turns"][2]["tip"], len(nothing.nodes), nothing.stop_reason) == (4, 5, "canceled")


def test_a_form_without_fields_is_one_and_takes_empty_content(tmp_path: Path) -> None:
    store = SessionStore(tmp_path, create=True)
    session = store.open_session("ann", "")
    store.add_turn(session.id, "", id="t")
    form, leave = store.asked("t", "0", "x", "read", {}, "", ()), store.asked("t", "1", "x", "read", {}, "")
    assert (form.form, leave.form, form.content) == ((), None, None)
    assert store.answer(form.id, True, by="") and store.answer(leave.id, True, by="ann", content={})
    assert (store.approval(form.id).content, store.approval(leave.id).content) == ({}, None)
    assert store.turn("t", "ann").prompt == "" and store.find_session("ann", "") == session
    assert store.move("t", "completed", answer="") and store.turn("t").answer == ""
    assert store.find_session("", "") is None and store.pending() == []
    store.close()


def test_a_problem_loses_folders_alone_also_where_a_model_has_none() -> None:
    def told(model: Any, problem: str) -> str:
        state = state_of(model)
        state.models.state, state.models.problem = "failed", problem
        with pytest.raises(Refusal) as refusal:
            state.models.check_ready()
        assert (refusal.value.status, refusal.value.code, refusal.value.headers) == (
            503,
            "failed",
            {"retry-after": "5"},
        )
        return refusal.value.message.removeprefix("the model has failed: ")

    bare = Scripted(["x"])
    assert told(bare, "None/x: nothing at /d/e/f.gguf, see https://h/p/q") == (
        "None/x: nothing at f.gguf, see https://h/p/q"
    )
    assert told(SpelledModel(), "/nowhere/models/spelled/x.bin and /nowhere/y/z") == "spelled/x.bin and z"
    assert told(bare, "") == "its engine stopped"


def test_an_empty_text_has_no_tokens_and_is_given_all_the_same() -> None:
    def told(handler: Any, **body: Any) -> Any:
        try:
            return answered(handler, state_of(SpelledModel()), body)
        except Refusal as refusal:
            return refusal.status, refusal.param

    assert told(tokenize, prompt="", return_token_strs=True) == {
        "count": 0, "max_model_len": 100, "tokens": [], "token_strs": [],
    }  # fmt: skip
    assert told(tokenize, prompt="é", return_token_strs=False) == {
        "count": 2,
        "max_model_len": 100,
        "tokens": [195, 169],
    }
    assert told(tokenize, prompt="", messages=HI) == (400, "prompt") == told(tokenize)
    assert told(tokenize, prompt="", tools=[{"type": "function", "function": {"name": "go"}}]) == (400, "tools")
    assert told(tokenize, messages=HI, tools=[])["tokens"] == list(b"u:Hi;")
    assert told(detokenize, tokens=[]) == {"prompt": ""} and told(detokenize, tokens=[0]) == {"prompt": "\0"}
    assert told(detokenize, tokens=[256]) == (400, "tokens") and told(detokenize, tokens=[65]) == {"prompt": "A"}


def test_no_token_at_all_is_asked_for_by_nought_and_sixteen_by_nothing() -> None:
    def job(most: int = 4096, **fields: Any) -> Any:
        body = read(CompletionRequest, {"prompt": "ab", **fields})
        return completions_module._job(state_of(SpelledModel()), request_with({}, max_tokens=most), body)

    for fields, most in (
        ({"max_tokens": 0, "echo": True}, 1), ({"max_tokens": 1}, 1), ({"max_tokens": 15}, 15), ({}, 16),
        ({"max_tokens": None}, 16), ({"max_tokens": 17}, 17),
    ):  # fmt: skip
        assert job(**fields).sampling.max_tokens == most
    for limit, most in ((15, 15), (16, 16), (17, 16), (1, 1)):
        assert job(limit).sampling.max_tokens == most, "of a client who may have fewer, as many"
    assert job(8, max_tokens=0, echo=True).sampling.max_tokens == 1 and job(8, max_tokens=8).sampling.max_tokens == 8
    with pytest.raises(Refusal, match=r"^max_tokens is 9: at most 8 are given$"):
        job(8, max_tokens=9)
    with pytest.raises(Refusal, match="max_tokens is 0 and echo is not set"):
        job(max_tokens=0)
    model = SpelledModel()
    asked = {"model": "demo", "prompt": ["ab", "c"], "max_tokens": 0, "echo": True, "n": 2}
    said = answered(completions, state_of(model), asked, max_answers=2)
    assert model.asked == [] and said["usage"] == {
        "prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0},
    }  # fmt: skip
    assert said["choices"] == [
        {"index": index, "text": text, "logprobs": None, "finish_reason": "length"}
        for index, text in enumerate(("ab", "ab", "c", "c"))
    ]
