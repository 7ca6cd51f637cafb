"""Answers of a remote agent as they come: shown piece by piece, looked up when they break off, cancelled when unwanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from a2a.types.a2a_pb2 import CancelTaskRequest, GetTaskRequest, StreamResponse, Task
from google.protobuf.json_format import ParseDict

from firsthand.errors import ModelError
from firsthand.message import Message, ToolCall, assistant, system, user
from firsthand.model import Completion, Delta, Sampling, Usage
from firsthand.providers import a2a as provider
from firsthand.providers.a2a import RemoteAgent, _Thread
from firsthand.providers.a2a_answer import Answer
from firsthand.serve.openai.choices import WholeAnswer
from jumping_clock import run_by_the_clock


def event(**body: Any) -> StreamResponse:
    return ParseDict(body, StreamResponse())


def chunk(id: str, text: str, *, append: bool = False) -> StreamResponse:
    artifact = {"artifactId": id, "parts": [{"text": text}]}
    return event(artifactUpdate={"taskId": "t", "artifact": artifact, "append": append})


def status(state: str, text: str = "") -> StreamResponse:
    message = {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": text}]}} if text else {}
    update = {"status": {"state": f"TASK_STATE_{state}", **message}, "taskId": "t1", "contextId": "c1"}
    return event(statusUpdate=update)


def task(state: str, *texts: str, said: str = "") -> Task:
    artifacts = [{"artifactId": str(at), "parts": [{"text": text}]} for at, text in enumerate(texts)]
    message = {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": said}]}} if said else {}
    whole = {"id": "t1", "contextId": "c1", "status": {"state": f"TASK_STATE_{state}", **message}}
    return ParseDict({**whole, "artifacts": artifacts}, Task())


class Played(RemoteAgent):
    """An agent whose events are given, and what it was asked kept."""

    def __init__(self, *events: StreamResponse, wait_s: float = 0.0, **options: Any) -> None:
        super().__init__("http://host/", key="", **options)
        self.events, self.wait_s = events, wait_s
        self.asked: list[tuple[_Thread, str]] = []

    async def _asked(self, thread: _Thread, text: str, answer: Answer) -> AsyncGenerator[None, None]:
        self.asked.append((thread, text))
        for each in self.events:
            answer.take(each)
            yield
        await asyncio.sleep(self.wait_s)


def streamed(agent: RemoteAgent, prompt: Any) -> list[Delta]:
    async def main() -> list[Delta]:
        return [delta async for delta in agent.stream(prompt, Sampling())]

    return asyncio.run(main())


def test_an_answer_is_shown_as_far_as_it_only_grows() -> None:
    agent = Played(
        status("WORKING", "busy"), chunk("a", "He"), chunk("a", "llo", append=True), chunk("a", "", append=True),
        chunk("b", "you"), status("COMPLETED", "said"),
    )  # fmt: skip
    whole = Completion(assistant("Hello\n\nyou"), "stop", Usage())
    assert streamed(agent, "Hi") == [Delta("He"), Delta("llo"), Delta("\n\nyou"), Delta("", whole)]
    assert agent.asked == [(_Thread(), "Hi")]
    changed = Played(chunk("a", "one"), chunk("a", "two"), chunk("a", "!", append=True), status("COMPLETED"))
    two = Completion(assistant("two!"), "stop", Usage())
    assert streamed(changed, "Hi") == [Delta("one"), Delta("\n\ntwo!"), Delta("", two, is_revised=True)]
    gathered = WholeAnswer()
    for delta in streamed(changed, "Hi"):
        gathered.add(delta)
    assert gathered.text == "two!", "a chat that is not streamed shows the answer, not the draft"
    spoken = Played(status("WORKING", "busy"), status("COMPLETED", "only said"))
    assert [each.text for each in streamed(spoken, "Hi")] == ["only said", ""]
    silent = Played(status("COMPLETED"))
    assert streamed(silent, "Hi") == [Delta("", Completion(assistant(""), "stop", Usage()))]
    answers = asyncio.run(spoken.complete("Hi", Sampling(), n=3))
    assert answers == [Completion(assistant("only said"), "stop", Usage())] * 3 and len(spoken.asked) == 4


def test_a_task_that_asks_back_is_answered_and_one_that_is_done_is_not() -> None:
    agent = Played(chunk("a", "draft"), status("INPUT_REQUIRED", "Which one?"))
    talk = [system("S"), user("Book"), assistant("", ToolCall("c", "f", {})), user("now")]
    asks = Completion(assistant("draft\n\nWhich one?"), "stop", Usage())
    assert streamed(agent, talk) == [Delta("draft"), Delta("\n\nWhich one?"), Delta("", asks)]
    told = "The conversation so far:\n\nsystem: S\n\nuser: Book\n\nThe message to answer:\n\nnow"
    assert agent.asked == [(_Thread(), told)]
    streamed(agent, [*talk, assistant("draft\n\nWhich one? "), user("the red")])
    assert agent.asked[-1] == (_Thread("c1", "t1"), "the red")
    for said in ("later", "first\n\nlater"):  # the answer, and all that a stream has shown of it
        redrawn = Played(chunk("a", "first"), chunk("a", "later"), status("COMPLETED"))
        streamed(redrawn, [user("one")])
        streamed(redrawn, [user("one"), assistant(said), user("two")])
        assert redrawn.asked[-1] == (_Thread("c1", ""), "two")
    done = Played(chunk("a", "yes"), status("COMPLETED"))
    streamed(done, [user("one")])
    streamed(done, [user("one"), assistant("yes"), user("two")])
    streamed(done, [user("one"), assistant("no"), user("two")])
    assert done.asked == [
        (_Thread(), "one"), (_Thread("c1", ""), "two"),
        (_Thread(), "The conversation so far:\n\nuser: one\n\nassistant: no\n\nThe message to answer:\n\ntwo"),
    ]  # fmt: skip
    assert list(done._threads) == [
        provider._digest("", talk)
        for talk in (
            [user("one"), assistant("yes"), user("two"), assistant("yes")],
            [user("one"), assistant("no"), user("two"), assistant("yes")],
        )
    ]


def test_a_message_that_failed_is_asked_again_in_its_context() -> None:
    agent, talk = Played(status("INPUT_REQUIRED", "sure?")), [user("one")]
    streamed(agent, talk)
    talk += [assistant("sure?"), user("yes")]
    agent.events, agent.wait_s, agent._timeout_s = (), 9, 0.01
    with pytest.raises(ModelError, match="no answer within"):
        streamed(agent, talk)
    agent.wait_s, agent._timeout_s = 0.0, 60.0
    for state, words in (("AUTH_REQUIRED", "auth required"), ("FAILED", "failed"), ("REJECTED", "rejected")):
        agent.events = (status(state),)
        with pytest.raises(ModelError, match=f"ended with {words}"):
            streamed(agent, talk)
    agent.events = (status("COMPLETED", "done"),)
    streamed(agent, talk)
    streamed(agent, talk)
    waits, over = _Thread("c1", "t1"), _Thread("c1")
    told = [_Thread(), waits, waits, waits, over, over, _Thread()]
    assert [thread for thread, _ in agent.asked] == told, "a task that ended takes no message"
    assert [len(each) for each in agent._threads.values()] == [2], "two answers with equal texts are two conversations"
    broken = Played(chunk("a", "never"), wait_s=9, timeout_s=0.01)
    with pytest.raises(ModelError, match="no answer within"):
        streamed(broken, [user("one")])
    assert not broken._threads, "what began nothing is not kept"


def test_a_task_that_got_stuck_or_took_too_long_is_an_error() -> None:
    for state, words in (("FAILED", "failed"), ("AUTH_REQUIRED", "auth required"), ("REJECTED", "rejected")):
        with pytest.raises(ModelError, match=f"^a2a:http://host ended with {words}: it gives no reason$"):
            streamed(Played(status(state)), "Hi")
    with pytest.raises(ModelError, match=r"ended with canceled: x{500}\.\.\.$"):
        streamed(Played(chunk("a", "half"), status("CANCELED", "x" * 501)), "Hi")
    late = {"wait_s": 5.0, "timeout_s": 0.05}
    with pytest.raises(ModelError, match=r"^a2a:http://host gave no answer within 0\.05 s: it gave no task$"):
        streamed(Played(**late), "Hi")
    with pytest.raises(ModelError, match=r"gave no answer within 0\.05 s: its task is t1$"):
        streamed(Played(status("WORKING"), **late), "Hi")


class Client:
    """Gives each task, or raises each error, that it has."""

    def __init__(self, *found: Any) -> None:
        self.found, self.asked, self.cancelled = list(found), 0, []

    async def get_task(self, request: GetTaskRequest) -> Task:
        assert request.id == "t1"
        self.asked += 1
        found = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        if isinstance(found, Exception):
            raise found
        return found

    async def cancel_task(self, request: CancelTaskRequest) -> None:
        self.cancelled.append(request.id)
        raise OSError("too late")


def test_a_task_that_broke_off_is_looked_up_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (provider._POLL_S, provider._LOST_S, provider._CANCEL_S) == (0.2, 10.0, 3.0)
    monkeypatch.setattr(provider, "_POLL_S", 0.001)
    monkeypatch.setattr(provider, "_LOST_S", 0.002)
    agent, gone = RemoteAgent("http://host", key=""), OSError("gone")

    async def looked_up(client: Client, answer: Answer) -> int:
        return len([None async for _ in agent._looked_up(client, answer)])  # type: ignore[arg-type]

    def begun() -> Answer:
        answer = Answer("a")
        answer.take(status("WORKING"))
        return answer

    answer = begun()
    client = Client(gone, gone, task("WORKING", "a"), gone, gone, task("COMPLETED", "a", "b", said="s"))
    assert asyncio.run(looked_up(client, answer)) == client.asked == 6
    assert (answer.text, answer.said, answer.state) == ("a\n\nb", "s", "TASK_STATE_COMPLETED")
    assert asyncio.run(looked_up(client, answer)) == 0 and client.asked == 6, "it is over"
    lost = Client(gone)
    with pytest.raises(ModelError) as error:
        asyncio.run(looked_up(lost, begun()))
    said = "a2a:http://host broke off and did not come back (OSError: gone): its task is t1"
    assert str(error.value) == said and lost.asked == 3
    with pytest.raises(ModelError, match="ended its answer without saying anything: ask it again"):
        asyncio.run(looked_up(client, Answer("a")))


def test_a_task_is_cancelled_once_it_is_known_and_only_while_it_goes_on() -> None:
    agent = RemoteAgent("http://host", key="")

    async def cancelled(answer: Answer, *, reads_s: float = 9.0, comes_s: float = 0.0) -> list[str]:
        client, reading = Client(), asyncio.create_task(asyncio.sleep(reads_s))
        await asyncio.sleep(0)
        if comes_s:
            asyncio.get_running_loop().call_later(comes_s, lambda: answer.take(status("WORKING")))
        await agent._canceled(client, answer, reading)  # type: ignore[arg-type]
        reading.cancel()
        return client.cancelled

    running, over = Answer("a"), Answer("a")
    running.take(status("WORKING"))
    over.take(status("COMPLETED"))
    for answer, given, ids, seconds in (
        (running, {}, ["t1"], 0.0), (over, {}, [], 0.0), (Answer("a"), {"comes_s": 0.025}, ["t1"], 0.03),  # a moment later
        (Answer("a"), {"reads_s": 0.015}, [], 0.02),  # no id will come
        (Answer("a"), {}, [], 3.0), (Answer("a"), {"comes_s": 3.5}, [], 3.0),  # and nobody waits for one without end
    ):  # fmt: skip
        found, took = run_by_the_clock(cancelled(answer, **given))
        assert found == ids and took == pytest.approx(seconds, abs=0.011), (given, took)


def test_the_causes_of_an_error_are_told_once_and_in_short() -> None:
    inner, outer = OSError("in"), ValueError("out" + "x" * 300)
    outer.__cause__, inner.__cause__ = inner, outer
    assert provider._causes(outer) == [outer, inner] and provider._causes(KeyError("k"))[0].args == ("k",)
    reason = provider.RemoteAgent("http://h")._reason
    assert reason(outer) == f"ValueError: out{'x' * 185}..." and reason(inner) == "OSError: in"
    assert provider._digest("", [user("a"), assistant("b")]) == provider._digest("", [user(" a\n"), assistant("b")])
    differ = ([user("a"), assistant("b")], [assistant("b"), user("a")], [user("ab")], [assistant("a"), user("b")])
    assert len({provider._digest("", each) for each in differ}) == 4
    assert provider._digest("", [Message("user", ())]) != provider._digest("", [])
