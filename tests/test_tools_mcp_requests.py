"""A server's requests for completions and answers: refused, failed, too many, put off, and made from another task."""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types

from firsthand.errors import AnswerPending, ModelError
from firsthand.loop.approval import Approval, Decision
from firsthand.loop.calling import caller
from firsthand.model import Sampling
from firsthand.providers.scripted import Scripted
from firsthand.tool import Tool
from firsthand.tools.mcp.server_requests import RequestAnswers, _message, _none, _shown
from mcp_questions import SERVER, Person, during_a_call, form, notes, said

URL = types.ElicitRequestURLParams(mode="url", message="Look.", url="http://h.example/x", elicitation_id="1")


def wanted(text: str = "Which?", **more: Any) -> types.CreateMessageRequestParams:
    return types.CreateMessageRequestParams(messages=[said("user", text)], **{"max_tokens": 5, **more})


def test_what_a_server_leaves_open_is_the_agents_and_what_it_gives_is_its_own() -> None:
    model = Scripted(["teal", "red", "blue"])

    async def work(answers: RequestAnswers) -> Any:
        given: list[dict[str, Any]] = [{}, {"temperature": 0.0, "stop_sequences": []}, {"temperature": 1.5}]
        return [await answers.sample(None, wanted(str(at), **each)) for at, each in enumerate(given)]

    found, trace = during_a_call(work, model=model, sampling=Sampling(max_tokens=7, temperature=0.5, stop=("END",)))
    assert [each.model_dump(exclude_none=True) for each in found] == [
        {
            "role": "assistant", "content": {"type": "text", "text": text},
            "model": "scripted", "stop_reason": "endTurn",
        }
        for text in ("teal", "red", "blue")
    ]  # fmt: skip
    asked = [(each.sampling.max_tokens, each.sampling.temperature, each.sampling.stop) for each in model.asked]
    assert asked == [(5, 0.5, ("END",)), (5, 0.0, ("END",)), (5, 1.5, ("END",))]
    noted = notes(trace, "mcp_sampling")
    assert [sorted(each) for each in noted] == [["node", "server"]] * 3
    assert [trace.nodes[each["node"]].message.text for each in noted] == ["teal", "red", "blue"]


def test_a_completion_that_fails_or_is_refused_is_told_to_the_server_and_noted() -> None:
    async def work(answers: RequestAnswers) -> Any:
        result = await answers.sample(None, wanted())
        assert answers._pending == {} and answers._counts == {caller().effect: 1}  # type: ignore[union-attr]
        return result.code, result.message

    result, trace = during_a_call(work, model=Scripted(error=ModelError("the model is down")))
    assert result == (-1, "the model is down")
    assert notes(trace, "mcp_sampling") == [{"server": "peer", "error": "the model is down"}]

    async def silent(tool: Tool, arguments: Any) -> Decision:
        assert arguments == {"messages": ["user: Which?"], "system": ""}
        return Decision(False, "me")

    result, trace = during_a_call(work, approval=Approval({"peer__sampling": "ask"}, ask=silent))
    assert result == (-1, "refused") and notes(trace, "mcp_sampling") == []
    result, trace = during_a_call(work, approval=Approval({"external": "deny"}))
    assert result == (-1, "peer__sampling is not allowed here")
    refusal = {"allowed": False, "by": "rule", "reason": "peer__sampling is not allowed here"}
    shown = {"messages": ["user: Which?"], "system": ""}
    assert notes(trace, "approval") == [{"tool": "peer__sampling", "arguments": shown, "effect": "external", **refusal}]


def test_a_completion_that_somebody_must_approve_first_waits_for_them() -> None:
    later = AnswerPending("approval", "later")

    async def ask(tool: Tool, arguments: Any) -> Decision:
        raise later

    async def work(answers: RequestAnswers) -> Any:
        effect = caller().effect  # type: ignore[union-attr]
        result = await answers.sample(None, wanted())
        assert answers._pending == {effect: later} and answers._counts == {effect: 1}
        with pytest.raises(AnswerPending) as raised:
            answers.check_answered(effect)
        assert raised.value is later and answers._pending == answers._counts == {}
        return result.code, result.message

    result, trace = during_a_call(work, approval=Approval({"peer__sampling": "ask"}, ask=ask))
    assert result == (-1, "nobody has answered yet")
    assert [each.kind for each in trace.events if each.kind in ("mcp_sampling", "approval")] == []


def test_eight_requests_of_both_kinds_are_answered_in_one_call_and_one_more_is_noted() -> None:
    async def work(answers: RequestAnswers) -> Any:
        for _ in range(4):
            assert (await answers.sample(None, wanted())).role == "assistant"  # type: ignore[union-attr]
            assert (await answers.elicit(None, form())).action == "accept"  # type: ignore[union-attr]
        refused = [await answers.sample(None, wanted()), await answers.elicit(None, form())]
        return [(each.code, each.message) for each in refused]  # type: ignore[union-attr]

    result, trace = during_a_call(work, approval=Approval(ask=Person(answers={"n": 1})))
    assert result == [(-1, "more than 8 requests in one call")] * 2
    for kind in ("mcp_sampling", "mcp_elicitation"):
        assert len(notes(trace, kind)) == 5
        assert notes(trace, kind)[-1] == {"server": "peer", "error": "too many requests"}


def test_completions_that_are_asked_for_at_once_are_put_to_the_user_one_by_one_in_their_order() -> None:
    under_way: list[str] = []
    most: list[int] = []

    async def ask(tool: Tool, arguments: Any) -> Decision:
        under_way.append(arguments["messages"][0])
        most.append(len(under_way))
        for _ in range(20):
            await asyncio.sleep(0)
        under_way.pop()
        return Decision(arguments["messages"] != ["user: 1"], "me", "not this one")

    model = Scripted(lambda messages, sampling, index: f"re {messages[-1].text}")

    async def work(answers: RequestAnswers) -> Any:
        asked = [asyncio.ensure_future(answers.sample(None, wanted(str(at)))) for at in range(5)]
        await asyncio.sleep(0)
        asked[3].cancel()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(found.pop(3), asyncio.CancelledError)
        assert (await answers.sample(None, wanted("later"))).content.text == "re later"  # type: ignore[union-attr]
        return [each.message if isinstance(each, types.ErrorData) else each.content.text for each in found]  # type: ignore

    found, trace = during_a_call(work, model=model, approval=Approval({"peer__sampling": "ask"}, ask=ask))
    assert found == ["re 0", "not this one", "re 2", "re 4"] and most == [1] * 5
    assert [call.id for call in trace.calls if call.kind == "generate"] == [f":0 request {at}" for at in range(4)]
    assert [each["arguments"]["messages"] for each in notes(trace, "approval")] == [
        [f"user: {text}"] for text in ("0", "1", "2", "4", "later")
    ]


def test_requests_are_answered_as_of_the_call_whichever_task_the_server_reaches() -> None:
    seen: list[Any] = []

    class Watching(Person):
        async def __call__(self, tool: Tool, arguments: Any) -> Decision:
            seen.append(caller())
            return await super().__call__(tool, arguments)

        async def fill(self, tool: Tool, message: str, fields: Any) -> Any:
            seen.append(caller())
            return await super().fill(tool, message, fields)

    async def work(_: RequestAnswers) -> Any:
        at = caller()
        answers = RequestAnswers(replace(SERVER, name="other"), lambda: at)
        bare = contextvars.Context()  # as in the task that holds the connection
        elicited = await asyncio.create_task(answers.elicit(None, form()), context=bare)
        opened = await asyncio.create_task(answers.elicit(None, URL), context=bare)
        sampled = await asyncio.create_task(answers.sample(None, wanted()), context=bare)
        assert seen == [at, at, at] and caller() is at and bare.run(caller) is None
        return elicited, opened, sampled

    person = Watching(answers={"seat": "b"})
    (elicited, opened, sampled), trace = during_a_call(work, approval=Approval({"external": "ask"}, ask=person))
    assert (elicited.action, elicited.content) == ("accept", {"seat": "b"})
    assert (opened.action, opened.content, sampled.content.text) == ("accept", None, "teal")
    asking = "MCP server peer asks you."
    assert [each[0] for each in person.asked] == ["other__elicitation", "other__elicitation", "other__sampling"]
    assert person.asked[1][1:] == (
        "external", asking.replace("peer", "other"), {"message": "Look.", "open": "http://h.example/x"},
    )  # fmt: skip
    assert [each["server"] for each in notes(trace, "mcp_elicitation")] == ["other"]
    assert [call.id for call in trace.calls if call.kind == "generate"] == [":0 request 0"]


def test_a_refused_question_is_noted_with_the_rule_and_a_form_without_fields_is_told() -> None:
    def asked(params: Any, **agent: Any) -> tuple[Any, Any]:
        async def work(answers: RequestAnswers) -> Any:
            return await answers.elicit(None, params)

        return during_a_call(work, **agent)

    for params in (form(), URL):
        result, trace = asked(params, approval=Approval({"external": "deny"}, ask=Person(answers={"n": 1})))
        assert (result.action, result.content) == ("decline", None)
        assert notes(trace, "approval") == [
            {
                "tool": "peer__elicitation", "arguments": {}, "effect": "external", "allowed": False, "by": "rule",
                "reason": "peer__elicitation is not allowed here",
            }
        ]  # fmt: skip
        assert notes(trace, "mcp_elicitation") == []
    result, trace = asked(form(), approval=Approval(ask=Person(error=ModelError("no form today"))))
    assert (result.code, result.message) == (-1, "no form today")
    assert notes(trace, "mcp_elicitation") == notes(trace, "approval") == []
    upper = URL.model_copy(update={"url": "HTTP://h.example/y"})
    result, trace = asked(upper, approval=Approval(ask=Person(True)))
    assert result.action == "accept" and len(notes(trace, "approval")) == 1
    for url in ("ftp://h/", "", "//h/x"):
        result, trace = asked(URL.model_copy(update={"url": url}), approval=Approval(ask=Person(True)))
        assert (result.code, result.message) == (-1, "only addresses of http and https are opened")
        assert notes(trace, "approval") == []


def test_a_requests_tool_and_text_are_those_of_its_server() -> None:
    answers = RequestAnswers(replace(SERVER, name="bank"), lambda: None)
    made = answers._asking("sampling", "Some text.")
    assert (made.name, made.spec.description, made.effect, made.origin) == (
        "bank__sampling", "Some text.", "external", "MCP server bank",
    )  # fmt: skip
    assert made.spec.parameters == {"type": "object", "properties": {}} and _none() is None
    mixed = said("assistant", "a", types.AudioContent(type="audio", data="QQ==", mime_type="audio/x"), "b")
    assert (_message(mixed).role, _message(mixed).text) == ("assistant", "a\n[audio]\nb")
    assert _shown(said("user", "one")) == "user: one" and _shown(mixed) == "assistant: a\n[audio]\nb"


def test_what_is_sent_in_the_background_is_let_go_of_however_it_ends() -> None:
    async def main() -> None:
        answers = RequestAnswers(SERVER, lambda: None)
        gate = asyncio.Event()

        async def fails() -> None:
            await gate.wait()
            raise OSError("the server is gone")

        answers.in_background(gate.wait())
        answers.in_background(fails())
        answers.in_background(asyncio.sleep(60))
        sending = set(answers._sending)
        assert len(sending) == 3
        gate.set()
        next(each for each in sending if each.get_coro().__name__ == "sleep").cancel()  # type: ignore[attr-defined]
        await asyncio.wait(sending)
        await asyncio.sleep(0)
        assert answers._sending == set()

    asyncio.run(main())
