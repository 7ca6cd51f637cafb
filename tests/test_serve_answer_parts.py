"""The parts of an OpenAI answer made one by one: jobs, choices, echoes, log-probs, calls, usage and what is remembered."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

import pytest

from firsthand.message import Message, Sampled, Text, ToolCall, assistant, user
from firsthand.model import CallDelta, Completion, Delta, Sampling, TokenRating, Usage
from firsthand.serve.anthropic.anthropic_messages import messages
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.models.served_models import ServedModel
from firsthand.serve.openai import chat_completions as chats
from firsthand.serve.openai import choices
from firsthand.serve.openai import completions as texts
from firsthand.serve.openai import responses as made_responses
from firsthand.serve.openai.request_parsing import Tools
from firsthand.serve.openai.request_schema import ChatRequest, CompletionRequest, read
from firsthand.serve.openai.responses_schema import ResponsesRequest
from spelled_model import SpelledModel, answered, request_with, state_of

HI = [{"role": "user", "content": "Hi"}]
GO, STOP = ({"type": "function", "function": {"name": name}} for name in ("go", "stop"))


def job_of(spelled: SpelledModel, state: Any = None, request: Any = None, **fields: Any) -> chats.ChatJob:
    state = state or state_of(spelled)
    return asyncio.run(
        chats.chat_job(state, request or request_with({}), read(ChatRequest, {"messages": HI, **fields}))
    )


def text_job(model: SpelledModel, **fields: Any) -> tuple[Any, texts.CompletionJob]:
    state = state_of(model)
    return state, texts._job(state, request_with({}), read(CompletionRequest, {"prompt": "x", **fields}))


def refused(work: Any, *given: Any) -> tuple[int, str, str | None]:
    with pytest.raises(Refusal) as caught:
        result = work(*given)
        if asyncio.iscoroutine(result):
            asyncio.run(result)
    return caught.value.status, caught.value.message, caught.value.param


# -- chats --


def test_a_job_has_the_settings_of_its_request_and_knows_how_its_prompt_ends() -> None:
    model = SpelledModel(thinks=True)
    request = request_with({}, max_tokens=50)
    job = job_of(model, None, request, n=3, max_tokens=7, temperature=0.5, logprobs=True, top_logprobs=4, tools=[GO],
                 stream=True, stream_options={"include_usage": True})  # fmt: skip
    assert job.n == 3 and (job.served.name, job.served.tokens) == ("demo", model) and job.messages == [user("Hi")]
    assert (job.sampling.max_tokens, job.sampling.temperature, job.sampling.top_logprobs) == (7, 0.5, 4)
    assert [spec.name for spec in job.tools.specs] == ["go"] and not job.starts_in_thought
    assert request.notes == {"stream": True, "messages": 1}
    assert job_of(model).n == 1 and job_of(model, None, request_with({}, max_tokens=50)).sampling.max_tokens == 50
    both = {"max_tokens": 7, "max_completion_tokens": 9}
    assert job_of(model, **both).sampling.max_tokens == 9
    thinking = {"messages": [{"role": "user", "content": "say"}], "chat_template_kwargs": {"x": "<think>"}}
    ends = SpelledModel(thinks=True)

    async def tokenize(prompt: Any, tools: Any = (), *, template: Any = None) -> list[int]:
        return list(b"a long prompt " + (b"<think>\n" if template == {"x": "<think>"} and tools == () else b"no"))

    ends.tokenize = tokenize  # type: ignore[assignment]
    assert job_of(ends, **thinking).starts_in_thought and not job_of(ends).starts_in_thought
    plain = SpelledModel()
    plain.tokenize = tokenize  # type: ignore[assignment]
    assert not job_of(plain, **thinking).starts_in_thought, "a model without thoughts"
    state = state_of(model, log_texts=True)
    request = request_with({})
    job_of(model, state, request)
    assert request.notes["prompt"] == [user("Hi").to_json()]
    schema = {"response_format": {"type": "json_object"}}
    assert job_of(model, **schema, tools=[GO], tool_choice="none").sampling.grammar is not None
    elsewhere = state_of(model)
    elsewhere.models.tokens = None
    for fields, told in (
        ({"logprobs": True}, "logprobs needs a model that runs here, and demo does not"),
        ({"model": "other"}, "there is no model 'other' here: demo"),
    ):
        with pytest.raises(Refusal, match=told):
            job_of(model, elsewhere, **fields)


def test_a_conversation_that_comes_back_has_the_tokens_that_its_client_was_shown() -> None:
    model = SpelledModel(thinks=True)
    state, request = state_of(model), request_with({})
    said = replace(assistant("Yes"), sampled=Sampled((1, 2), (-0.5, -1.0)))
    back = {"messages": [*HI, {"role": "assistant", "content": "Yes"}, *HI]}

    def known(**fields: Any) -> Any:
        fresh = state_of(model)
        job = job_of(model, fresh, request, **fields)
        chats.remember(fresh, request, job, Completion(said, "stop", Usage()))
        return job_of(model, fresh, request, **back).messages[1].sampled

    assert known() == Sampled((1, 2), (-0.5, -1.0))
    assert known(stop=["x"]) is None and known(stop_token_ids=[3]) is None
    job = job_of(model, state, request)
    thought = replace(assistant("<think>so</think>Yes"), sampled=Sampled((3,), (-0.5,)))
    chats.remember(state, request, job, Completion(thought, "stop", Usage()))
    assert len(state.sampled_turns) == 0
    plain = state_of(SpelledModel())
    chats.remember(plain, request, job_of(SpelledModel(), plain), Completion(thought, "stop", Usage()))
    assert len(plain.sampled_turns) == 1, "a model without thoughts means its text"
    assert job_of(model, state, request_with({}, client="bob"), **back).messages[1].sampled is None


def test_a_call_is_demanded_by_name_unless_the_answer_was_cut() -> None:
    job = job_of(SpelledModel(), tools=[GO, STOP])

    def fine(choice: str, reason: Any, *names: str) -> bool:
        made = assistant("", *(ToolCall(name, name, {}) for name in names)) if names else assistant("x")
        tools = Tools(job.tools.specs, choice)
        try:
            chats.check_called(replace(job, tools=tools), Completion(made, reason, Usage()))
        except Refusal as refusal:
            assert (refusal.status, refusal.message) == (
                502,
                "the model did not make the call that tool_choice demands",
            )
            return False
        return True

    assert (
        fine("auto", "stop") and fine("required", "tool_calls", "go", "stop") and fine("go", "tool_calls", "go", "go")
    )
    assert not fine("required", "stop") and not fine("go", "stop") and not fine("go", "tool_calls", "go", "stop")
    assert fine("required", "length") and fine("go", "length", "stop")
    two = Completion(assistant("", *(ToolCall(name, name, {}) for name in ("go", "stop"))), "tool_calls", Usage())
    with pytest.raises(Refusal, match="made several calls at once") as several:
        chats.check_called(job_of(SpelledModel(), tools=[GO, STOP], parallel_tool_calls=False), two)
    assert several.value.status == 502
    one = Completion(assistant("", ToolCall("go", "go", {})), "tool_calls", Usage())
    chats.check_called(job_of(SpelledModel(), tools=[GO, STOP], parallel_tool_calls=False), one)


@pytest.mark.parametrize("handler", [chats.chat_completions, messages])
def test_a_stream_of_one_call_ends_before_a_second(handler: Any) -> None:
    calls = [ToolCall("0", "go", {}), ToolCall("1", "stop", {})]
    pieces = [Delta("", call=CallDelta(at, call.id, call.name, "{}")) for at, call in enumerate(calls)]
    model = SpelledModel(*pieces, Delta("", Completion(assistant("", *calls), "tool_calls", Usage())))
    one: dict[str, Any] = {"tools": [GO, STOP], "parallel_tool_calls": False}
    if handler is messages:
        one = {"model": "demo", "max_tokens": 9, "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
        one["tools"] = [{"name": call.name, "input_schema": {"type": "object"}} for call in calls]
    for fields, names in ((one, ["go"]), ({**one, "parallel_tool_calls": True, "tool_choice": None}, ["go", "stop"])):
        if handler is messages and fields is not one:
            fields = {**one, "tool_choice": {"type": "auto"}}
        told = json.dumps(answered(handler, state_of(model), {**fields, "messages": HI, "stream": True}), default=str)
        assert [name for name in ("go", "stop") if f'"name": "{name}"' in told] == names
        assert ("made several calls at once" in told) == (names == ["go"])


def test_a_choice_of_a_chat_shows_kept_tokens_alone_and_a_missing_text_where_there_are_calls() -> None:
    model = SpelledModel(thinks=True)
    answer = choices.WholeAnswer()
    whole = Completion(
        Message("assistant", (Text("<think>a</think>b"),), Sampled((97, 98), (-0.5, -1.0))), "length", Usage()
    )
    for delta in (
        Delta("<think>a</think>", token_ids=(97,), logprobs=(-0.5,), top_logprobs=((("x", -0.25),),)),
        Delta("b", token_ids=(98,), logprobs=(float("-inf"),), top_logprobs=((),)), Delta("", whole), Delta("c"),
    ):  # fmt: skip
        answer.add(delta)
    assert answer.whole is whole and answer.text == "<think>a</think>bc"
    job = job_of(model, logprobs=True, return_token_ids=True)
    assert chats._choice(job, 4, answer) == {
        "index": 4, "finish_reason": "length", "token_ids": [97, 98],
        "message": {"role": "assistant", "content": "bc", "refusal": None, "reasoning_content": "a"},
        "logprobs": {"refusal": None, "content": [
            {"token": "a", "logprob": -0.5, "bytes": [97],
             "top_logprobs": [{"token": "x", "logprob": -0.25, "bytes": [120]}]},
            {"token": "b", "logprob": -9999.0, "bytes": [98], "top_logprobs": []},
        ]},
    }  # fmt: skip
    bare = choices.WholeAnswer("", completion=Completion(assistant(""), "stop", Usage()))
    plain = job_of(model)
    assert chats._choice(plain, 0, bare) == {
        "index": 0, "message": {"role": "assistant", "content": "", "refusal": None}, "logprobs": None,
        "finish_reason": "stop",
    }  # fmt: skip
    called = assistant("", ToolCall("0", "go", {"b": "ö", "a": 1}))
    calls = choices.WholeAnswer("", completion=Completion(called, "tool_calls", Usage()))
    message = chats._choice(plain, 0, calls)["message"]
    (call,) = message.pop("tool_calls")
    assert message == {"role": "assistant", "content": None, "refusal": None}
    assert call == {"id": call["id"], "type": "function", "function": {"name": "go", "arguments": '{"a":1,"b":"ö"}'}}
    assert refused(lambda: choices.WholeAnswer().whole) == (502, "the model ended without an answer", None)
    assert chats.split_reasoning(replace(plain, starts_in_thought=True), "a</think>b") == ("a", "b")
    logged = job_of(model, logprobs=True)
    assert chats._choice(logged, 0, bare)["logprobs"] == {"content": [], "refusal": None}
    total = choices.total([whole, Completion(assistant(""), "stop", Usage(5, 2, 3)),
                           Completion(assistant(""), "stop", Usage(7, 1, 4))])  # fmt: skip
    assert choices.usage_json(total) == {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19,
                                         "prompt_tokens_details": {"cached_tokens": 3}}  # fmt: skip
    marks = choices.CallMarks()
    ids = [choices.call_id(marks.of(at)) for at in range(2)]
    assert len(set(ids)) == 2 and all(len(id) == 29 for id in ids)
    assert choices.arguments(ToolCall("0", "a", {"x": 1}, "{bad")) == "{bad"


def test_the_head_of_an_answer_names_its_request_its_model_and_what_computes_it() -> None:
    job = job_of(SpelledModel())
    _, other = text_job(SpelledModel())
    for head, prefix, kind in (
        (chats._head(request_with({}), job, "chat.completion"), "chatcmpl-", "chat.completion"),
        (texts._head(request_with({}), other), "cmpl-", "text_completion"),
    ):
        assert abs(head.pop("created") - time.time()) < 5
        assert head == {"id": f"{prefix}r1", "object": kind, "model": "demo",
                        "system_fingerprint": job.served.system_fingerprint}  # fmt: skip
    served = job.served
    changed = replace(served, facts=replace(served.facts, computed_by="gpu"))  # type: ignore[type-var]
    assert served.system_fingerprint is not None and served.system_fingerprint.startswith("fp_")
    assert len(served.system_fingerprint) == 13 and changed.system_fingerprint != served.system_fingerprint

    class Gone(SpelledModel):
        @property
        def fingerprint(self) -> str:  # type: ignore[override]
            raise FileNotFoundError

        @fingerprint.setter
        def fingerprint(self, value: str) -> None: ...

    assert ServedModel("g", Gone(), None, served.facts).system_fingerprint is None


def test_the_options_of_an_answer_are_those_that_are_set_and_caches_may_be_each_clients_own() -> None:
    state, request = state_of(SpelledModel()), request_with({})
    served = state.models.find(None)
    assert state.options(request, served, None) == {} == state.options(request, served, "", {})
    assert state.options(request, served, "s", {"a": 1}) == {"cache_salt": "s", "template": {"a": 1}}
    private = state_of(SpelledModel(), private_caches=True)
    assert private.options(request, served, None) == {"cache_salt": "ann/"}
    assert private.options(request, served, "s") == {"cache_salt": "ann/s"}
    remote = replace(served, tokens=None)
    assert private.options(request, remote, None) == {} and private.options(request, remote, "s") == {"cache_salt": "s"}
    model = SpelledModel(Delta("a", Completion(assistant("a"), "stop", Usage())))
    state = state_of(model)
    named: list[Any] = []

    class Span:
        def called(self, *given: Any) -> None:
            named.append(given)

        def answered(self, *given: Any) -> None: ...

    request.span = Span()  # type: ignore[assignment]
    sampling = Sampling(max_tokens=3)

    async def run() -> None:
        pieces = state.answers(request, state.models.find(None), "p", sampling, n=2, priority=5, user="u" * 300, x=1)
        assert [each.text async for each in pieces] == ["a"]

    asyncio.run(run())
    (asked,) = model.asked
    run_name = "ann/" + "u" * 252
    assert asked == {"prompt": "p", "sampling": sampling, "tools": (), "n": 2, "priority": 5, "run": run_name, "x": 1}
    assert named == [("demo", "p", sampling, 2)]


# -- texts --


def test_prompts_are_one_text_one_list_of_ids_or_several_of_either() -> None:
    for prompt, expected in (
        ("ab", ["ab"]), (["a", ""], ["a", ""]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]]), ("", [""]),
    ):  # fmt: skip
        assert texts._prompts(read(CompletionRequest, {"prompt": prompt})) == expected
    _, job = text_job(SpelledModel())
    assert job.n == 1 and job.sampling.max_tokens == texts.DEFAULT_TOKENS == 16
    request = request_with({}, max_answers=2)
    state = state_of(SpelledModel(), log_texts=True)
    made = texts._job(state, request, read(CompletionRequest, {"prompt": [[1], [2]], "n": 2, "max_tokens": 3, "logprobs": 5,
                                                               "guided_regex": "a+"}))  # fmt: skip
    assert (made.n, made.sampling.max_tokens, made.sampling.top_logprobs) == (2, 3, 5)
    assert made.sampling.grammar is not None and request.notes == {"stream": False, "prompts": 2, "prompt": [[1], [2]]}


def test_an_echo_is_the_prompt_with_what_is_known_of_its_tokens() -> None:
    def echo(prompt: Any, **fields: Any) -> tuple[Any, list[Any]]:
        model = SpelledModel()
        state, job = text_job(model, **fields)
        return asyncio.run(texts._echo(state, request_with({}), job, prompt)), model.asked

    assert echo("ab") == (("", [], []), [])
    assert echo("ab", echo=True) == (("ab", [], []), []), "an echo alone needs no tokens"
    assert echo([97, 98], echo=True) == (("ab", [97, 98], []), [])
    assert echo("ab", echo=True, max_tokens=0) == (("ab", [97, 98], []), [])
    found, asked = echo("abc", echo=True, logprobs=1, priority=2, cache_salt="s")
    assert found == (
        "abc",
        [97, 98, 99],
        [(b"a", None, (), b"a"), (b"b", -1.0, [(b"z", -0.25)], b"b"), (b"c", -2.0, [(b"z", -0.25)], b"c")],
    )
    assert asked == [{"rate": [97, 98, 99], "top": 1, "priority": 2, "run": "ann", "cache_salt": "s"}]
    rating = TokenRating(98, -1.5, ((195, -0.5), (99, -3.0)))
    best = [(b"\xc3", -0.5), (b"c", -3.0)]
    assert texts._rated(SpelledModel(), rating, b"") == (b"b", -1.5, best, b"")  # type: ignore[arg-type]


def test_log_probs_of_the_older_shape_are_lists_side_by_side() -> None:
    def token(raw: bytes, logprob: float | None, top: Any) -> Any:
        return texts.EchoedToken(raw, logprob, top, raw)

    tokens = [token(b"a", None, ()), token(b"\xc3", -0.5, [(b"x", -0.25), (b"y", -0.75)]),
              token(b"\xa9", -1.0, [(b"\x80", -0.5)]), token(b"bc", float("-inf"), [(b"q", float("-inf"))])]  # fmt: skip
    offsets = texts._TextOffsets()
    assert offsets.next(b"0123456789") == 0
    assert texts._logprobs(tokens, 2, offsets) == {
        "tokens": ["a", r"bytes:\xc3", r"bytes:\xa9", "bc"], "token_logprobs": [None, -0.5, -1.0, -9999.0],
        "top_logprobs": [None, {"y": -0.75, "x": -0.25, r"bytes:\xc3": -0.5},
                         {r"bytes:\x80": -0.5, r"bytes:\xa9": -1.0}, {"q": -9999.0, "bc": -9999.0}],
        "text_offset": [10, 11, 11, 12],
    }  # fmt: skip
    assert texts._logprobs([token(b"d", -1.0, ())], 0, offsets)["text_offset"] == [14], "after the tokens before it"
    assert list(texts._logprobs(tokens, 2, texts._TextOffsets())["top_logprobs"][1]) == ["y", "x", r"bytes:\xc3"]
    assert texts._logprobs(tokens, 0, texts._TextOffsets())["top_logprobs"] is None
    same = [token(b"a", -1.0, [(b"a", -0.25), (b"a", -4.0)])]
    assert texts._logprobs(same, 1, texts._TextOffsets())["top_logprobs"] == [{"a": -0.25}], "the best of equal texts"
    for logprobs, expected in ((None, None), (0, texts._logprobs(tokens, 0, texts._TextOffsets()))):
        body = read(CompletionRequest, {"prompt": "x", "logprobs": logprobs})
        assert texts._choice(body, "t", tokens, "stop") == {
            "index": 0, "text": "t", "logprobs": expected, "finish_reason": "stop",
        }  # fmt: skip


def test_tokens_of_an_answer_and_of_a_piece_are_spelled_with_their_log_probs() -> None:
    _, job = text_job(SpelledModel(), logprobs=1)
    answer = choices.WholeAnswer("ab", [97, 98], [-0.5, -1.0], [(("z", -0.1),), ()])
    assert texts._tokens(job, answer) == [(b"a", -0.5, [(b"z", -0.1)], b"a"), (b"b", -1.0, [], b"b")]
    piece = Delta("c", token_ids=(99, 33), logprobs=(-2.0, -3.0))
    assert texts._tokens(job, piece) == [(b"c", -2.0, [], b"c"), (b"!", -3.0, [], b"!")]
    assert texts._tokens(text_job(SpelledModel())[1], answer) == []
    assert asyncio.run(texts._ids(job.served, "é")) == [195, 169] and asyncio.run(texts._ids(job.served, [5])) == [5]


def test_prompt_log_probs_rank_the_best_and_leave_the_first_token_out() -> None:
    model = SpelledModel()
    state = state_of(model)
    served = state.models.find(None)
    rows = asyncio.run(chats.rate_prompt(state, request_with({}), served, [104, 122, 255], 2, "s"))
    assert rows == [
        None,
        {"122": {"logprob": -0.25, "rank": 1, "decoded_token": "z"},
         "121": {"logprob": -2.0, "rank": 2, "decoded_token": "y"}},
        {"255": {"logprob": -2.0, "rank": None, "decoded_token": "\ufffd"},
         "122": {"logprob": -0.25, "rank": 1, "decoded_token": "z"},
         "121": {"logprob": -2.0, "rank": 2, "decoded_token": "y"}},
    ]  # fmt: skip
    assert model.asked == [{"rate": [104, 122, 255], "top": 2, "run": "ann", "cache_salt": "s"}]


# -- responses --


def test_the_items_of_a_response_are_a_thought_a_text_and_calls() -> None:
    request = request_with({})
    call, cut = ToolCall("0", "go", {"b": 1, "a": "é"}), ToolCall("1", "go", {}, '{"a')

    def output(reasoning: str, content: str, *calls: ToolCall, reason: Any = "stop") -> list[Any]:
        whole = Completion(assistant(content, *calls), reason, Usage())
        return made_responses._output(
            request, choices.WholeAnswer(content, completion=whole), reasoning, content, choices.CallMarks()
        )

    def said(text: str) -> dict[str, Any]:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {"type": "message", "id": "msg_r1", "role": "assistant", "status": "completed", "content": [part]}

    thought = {"type": "reasoning", "id": "rs_r1", "summary": [], "content": [{"type": "reasoning_text", "text": "so"}]}
    assert output("", "") == [said("")] and output("so", "") == [thought, said("")] and output("", "a") == [said("a")]
    first, second, third = output("so", "a", call)
    assert (first, second) == (thought, said("a"))
    assert third == {"type": "function_call", "id": f"fc_{third['call_id']}", "call_id": third["call_id"], "name": "go",
                     "arguments": '{"a":"é","b":1}', "status": "completed"}  # fmt: skip
    assert [each["type"] for each in output("", "", call, call)] == ["function_call"] * 2
    for calls, reason, ends in (
        ((), "stop", ["completed"]), ((), "length", ["incomplete"]),
        ((call, cut), "length", ["completed"] * 2 + ["incomplete"]),
        ((call,), "length", ["completed"] * 2), ((call, cut), "tool_calls", ["completed"] * 3),
    ):  # fmt: skip
        assert [each["status"] for each in output("", "a", *calls, reason=reason)] == ends
    assert made_responses._message(request, None, "in_progress")["content"] == []
    assert made_responses._usage(Usage(9, 4, 2, cache_write_tokens=3), 1) == {
        "input_tokens": 9, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3}, "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 11,
    }  # fmt: skip


def test_a_response_says_back_what_it_was_asked_and_how_far_it_came() -> None:
    model = SpelledModel()
    job = job_of(model, temperature=0.5, top_p=0.25)

    def response(completion: Completion | None, state: Any = None, **fields: Any) -> dict[str, Any]:
        body = read(ResponsesRequest, {"input": "Hi", **fields})
        found = made_responses._response(state or state_of(model), request_with({}), body, job, [{"o": 1}], completion)
        assert abs(found.pop("created_at") - time.time()) < 5
        return found

    done = Completion(assistant("x"), "stop", Usage(9, 4, 2))
    plain = {
        "id": "resp_r1", "object": "response", "status": "completed", "error": None, "incomplete_details": None,
        "instructions": None, "max_output_tokens": None, "model": "demo", "output": [{"o": 1}], "parallel_tool_calls": True,
        "previous_response_id": None, "store": True, "temperature": 0.5, "text": {"format": {"type": "text"}},
        "tool_choice": "auto", "tools": [], "top_p": 0.25, "truncation": "disabled",
        "usage": made_responses._usage(Usage(9, 4, 2), 0), "metadata": {},
    }  # fmt: skip
    assert response(done) == plain
    assert response(replace(done, finish_reason="length")) == plain | {
        "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"},
    }  # fmt: skip
    assert response(None) == plain | {"status": "in_progress", "usage": None}
    tool = {"type": "function", "name": "go", "parameters": {"type": "object"}, "strict": False}
    form = {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}
    given = {"instructions": "I", "max_output_tokens": 8, "parallel_tool_calls": False, "previous_response_id": "resp_0",
             "store": False, "text": form, "tools": [tool], "metadata": {"k": "v"},
             "tool_choice": {"type": "function", "name": "go"}}  # fmt: skip
    assert response(done, **given) == plain | given
    assert response(done, state_of(model, stored_responses=0))["store"] is False


def test_arguments_of_a_cut_call_are_what_came_of_them_and_of_any_other_those_of_the_call() -> None:
    whole, cut, bare = (
        ToolCall("0", "go", {"a": 1}),
        ToolCall("1", "go", {}, '{"name": "go"'),
        ToolCall("2", "", {}, "{x"),
    )
    for reason, second in (("stop", '{"b": 2'), ("length", '{"b": 2'), ("tool_calls", '{"name": "go"')):
        answer = choices.WholeAnswer()
        for delta in (
            Delta("", call=CallDelta(0, "c", "go", '{"a": 1}')), Delta("", call=CallDelta(1, "d", "go", '{"b":')),
            Delta("", call=CallDelta(1, arguments=" 2")),
            Delta("", Completion(assistant("", whole, cut, bare), reason, Usage())),  # type: ignore[arg-type]
        ):  # fmt: skip
            answer.add(delta)
        assert answer.arguments() == ['{"a":1}', second, "{x"]
        assert [each["function"]["arguments"] for each in choices.calls_json(answer, "xyz")] == answer.arguments()


def test_an_answer_that_a_stop_string_cut_need_not_have_the_call_that_was_required() -> None:
    tool = {"type": "function", "function": {"name": "go", "parameters": {"type": "object"}}}
    job = job_of(SpelledModel(), tools=[tool], tool_choice="required")
    chats.check_called(job, Completion(assistant("so"), "stop", Usage(), stop_string="#"))
    with pytest.raises(Refusal, match="did not make the call"):
        chats.check_called(job, Completion(assistant("so"), "stop", Usage()))
