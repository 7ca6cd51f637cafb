"""The tools that an MCP server offers, called without a connection: an agent, a benchmark, a session, an index."""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types
from mcp import MCPError

from firsthand.agent import Agent
from firsthand.errors import ToolError
from firsthand.loop.budget import Limits
from firsthand.message import Message
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.mcp import benchmark_offer, index_offer
from firsthand.serve.mcp.agent_offer import CallRecord, agent_tool
from firsthand.serve.mcp.benchmark_offer import offer_benchmarks
from firsthand.serve.mcp.mcp_server import Offer
from firsthand.serve.mcp.session_door import _answered, session_tool
from mcp_contexts import NO, YES
from served_agent import Desk, clerk, within_sessions


class Noted:
    """An exchange that notes what it is told, and gives answers in turn; an answer that is a function is called first."""

    is_cancelled = False

    def __init__(
        self,
        *answers: Any,
        client: str | None = "ann",
        task: str = "",
        note: str = "",
        asks: bool = True,
        gone_after: int = 99,
    ):
        self.gone_after = gone_after
        self.client, self.task, self.note, self.asks, self.answers = client, task, note, asks, list(answers)
        self.told: list[Any] = []
        self.asked: list[Any] = []

    def keep(self, note: str) -> None:
        self.note = note

    def can(self, capability: str) -> bool:
        return self.asks and capability == "elicitation"

    async def ask(self, key: str, request: Any) -> Any:
        self.asked.append((key, request.params.message))
        answer = self.answers.pop(0)
        if callable(answer):
            answer = await answer()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        self.told.append((done, total, message))
        if len(self.told) == self.gone_after:
            raise RuntimeError("the client has gone")


def text_of(result: types.CallToolResult) -> tuple[str, bool]:
    (block,) = result.content
    return block.text, bool(result.is_error)  # type: ignore[union-attr]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# -- an agent --


def test_a_question_is_one_attempt_whose_trace_is_kept_under_the_task_of_its_call(home: Path, tmp_path: Path) -> None:
    desk = Desk()
    record = CallRecord("asked", tmp_path / "calls")
    tool = agent_tool(clerk(desk), "ask", record)

    async def main() -> list[Any]:
        exchanges = [Noted(YES, task="t1"), Noted(NO), Noted(asks=False), Noted(task="t1")]
        results = [await tool.run({"question": text}, each)  # type: ignore[arg-type]
                   for text, each in zip(("pay 5", "pay 6", "pay 7", "pay 5"), exchanges, strict=True)]  # fmt: skip
        assert len(asyncio.all_tasks()) == 1, "nothing tells of steps any more"
        return [*zip(exchanges, results, strict=True)]

    (yes, paid), (no, refused), (alone, unasked), (again, same) = asyncio.run(main())
    assert text_of(paid) == text_of(same) == ("Done: paid 5", False) and desk.paid == [5]
    assert [each[1] for each in (text_of(refused), text_of(unasked))] == [False, False]
    assert "the user did not approve this call of pay" in text_of(refused)[0]
    assert "pay needs approval, and the client cannot ask its user" in text_of(unasked)[0]
    assert yes.told == [(1, None, "asks the model"), (2, None, "calls pay"), (3, None, "asks the model")]
    assert len(yes.asked) == len(no.asked) == 1 and alone.asked == again.asked == [], (
        "the journal of a task has its answer"
    )
    traces = list(record._opened().traces())
    key = hashlib.sha256(b"pay 5\nt1").hexdigest()[:12]
    assert [trace.benchmark for trace in traces] == ["mcp"] * 3 and sum(trace.task_id == key for trace in traces) == 1
    place = next(trace.place for trace in traces if trace.task_id == key)
    about = [result.meta["org.firsthand/trace"] for result in (paid, refused, unasked, same)]
    tries = [trace.id for trace in record._opened().tries(place)]
    assert [each["trace"] for each in about[1:3]] == [trace.id for trace in traces if trace.task_id != key]
    assert [about[0]["trace"], about[3]["trace"]] == tries
    assert {(each["run"], each["stop_reason"]) for each in about} == {(record._opened().id, "done")}
    assert record._opened().agents() == {"clerk": traces[0].agent}
    task = record._opened().task("mcp", key)
    assert task is not None and task.prompt == "pay 5" and record.tasks is not None
    record.tasks.close()
    record.close()
    again_opened = CallRecord("asked", tmp_path / "calls")
    assert again_opened._opened().id == about[0]["run"] and len(list(again_opened._opened().traces())) == 3
    again_opened.close()


def test_an_attempt_without_an_answer_says_why_and_is_kept_in_a_run_of_its_own_when_it_is_over(home: Path) -> None:
    async def broken(task: Any, ctx: Any) -> str:
        raise ToolError("the shop is closed")

    record = CallRecord("asked")
    failing = agent_tool(Agent("shop", clerk(Desk()).model, broken), "ask", record)
    limited = agent_tool(replace(clerk(Desk()), limits=Limits(calls=1)), "ask", record)
    assert store.list_runs(home) == [] and record.tasks is None and record.journal("p") is None

    async def main() -> list[Any]:
        return [await each.run({"question": "wait"}, Noted(client=None)) for each in (failing, limited)]  # type: ignore

    fallen, cut = asyncio.run(main())
    assert text_of(fallen) == ("shop gave no answer: the shop is closed", True)
    assert text_of(cut) == ("clerk gave no answer: it stopped: calls", True)
    reasons = [each.meta["org.firsthand/trace"]["stop_reason"] for each in (fallen, cut)]
    assert reasons == ["error", "calls"]
    (info,) = store.list_runs(home)
    assert info.num_traces == 2 and info.status == "done" and info.command == ("firsthand", "mcp")
    assert info.config == {"mcp": {}} and "asked" in info.id and fallen.meta["org.firsthand/trace"]["run"] == info.id
    assert failing.description == "Asks the agent shop (scripted:clerk) a question, and returns its answer."
    with pytest.raises(ToolError):
        asyncio.run(failing.run({}, Noted()))  # type: ignore[arg-type]
    record.close()


# -- a benchmark --


@pytest.mark.slow
def test_a_benchmark_is_run_by_its_arguments_with_each_attempt_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def say(messages: Any, sampling: Any, index: int) -> Message | str:
        asked.append(messages[-1].text)
        return "none of it"

    one, two = (Agent(name, Scripted(say, name=f"scripted:{name}"), reply) for name in ("one", "two"))
    offer = Offer()
    offer_benchmarks(offer, ["arithmetic", "game24"], [one, two])
    (tool,) = offer.tools
    assert tool.description.endswith(" Benchmarks: arithmetic, game24. Agents: one, two.") and tool.resumes
    assert [each.uri for each in offer.resources] == [
        "firsthand://benchmark/arithmetic",
        "firsthand://benchmark/game24",
    ]
    call = {"benchmark": "arithmetic", "agent": "two", "limit": 3, "epochs": 2, "seed": 5}
    exchange = Noted()
    result: Any = asyncio.run(tool.run(call, exchange))  # type: ignore[arg-type]
    (info,) = store.list_runs(home)
    with store.open_run(info.id, home) as run:
        traces = list(run.traces())
        tokens = sum(trace.usage.total_tokens for trace in traces) / 6
        assert {(trace.benchmark, trace.agent_name, trace.seed) for trace in traces} == {("arithmetic", "two", 5)}
        assert sorted(trace.epoch for trace in traces) == [0, 0, 0, 1, 1, 1] and len({t.task_id for t in traces}) == 3
    assert exchange.note == info.id and len(asked) == 6
    assert exchange.told[0] == (0, 6, f"run {info.id}")
    assert [each[:2] for each in exchange.told[1:]] == [(at, 6) for at in range(1, 7)]
    assert sorted(each[2] for each in exchange.told[1:]) == sorted(trace.task_id for trace in traces)
    line, kept = result.content[0].text.split("\n")
    shape = r"two on arithmetic: 0\.000 \[0\.000, (0\.\d{3})\] at 95%, 6 attempts, 0 errors, (\d+) tokens each"
    found = re.fullmatch(shape, line)
    assert found and int(found[2]) == round(tokens) and kept == f"Kept as run {info.id}: `firsthand show {info.id}`"
    body = result.structured_content
    assert body["run"] == info.id and [(row["agent"], row["attempts"]) for row in body["rows"]] == [("two", 6)]
    assert f"{body['rows'][0]['score']['high']:.3f}" == found[1]

    again = Noted(note=info.id)
    assert asyncio.run(tool.run(call, again)).content == result.content and len(asked) == 6  # type: ignore
    assert again.told == [(0, 6, f"run {info.id}")] and again.note == info.id
    cut = Noted(gone_after=3)
    with pytest.raises(RuntimeError, match="the client has gone"):
        asyncio.run(tool.run(call, cut))  # type: ignore[arg-type]
    with store.open_run(cut.note, home) as run:
        done = len(run.done())
    rest = Noted(note=cut.note)
    last: Any = asyncio.run(tool.run(call, rest))  # type: ignore[arg-type]
    assert done >= 2 and [each[0] for each in rest.told] == [0, *range(done + 1, 7)], "what was done is not told again"
    assert last.structured_content["rows"][0]["attempts"] == 6 and last.structured_content["run"] == cut.note

    monkeypatch.setattr(benchmark_offer, "MAX_ATTEMPTS", 1)
    for wrong, says in (
        ({"limit": -1}, "limit is -1: give 0 or more"),
        ({"limit": 1, "epochs": 0}, "epochs is 0: give 1 or more"),
        ({"limit": 1, "epochs": 2}, "these are 2 attempts, and one call makes at most 1: set a limit"),
        ({"agent": "ones"}, "no agent 'ones' is served here; did you mean 'one'? there are one, two"),
        ({"benchmark": "mmlu"}, "no benchmark 'mmlu' is served here; there are arithmetic, game24"),
    ):
        with pytest.raises(ToolError) as told:
            asyncio.run(tool.run({"benchmark": "arithmetic"} | wrong, Noted()))  # type: ignore[arg-type]
        assert str(told.value) == says
    made: Any = asyncio.run(tool.run({"benchmark": "game24", "limit": 1}, default := Noted()))  # type: ignore[arg-type]
    assert made.content[0].text.startswith("one on game24: 0.000 [0.000, ") and len(default.told) == 2


# -- a session --


def test_a_call_is_the_next_turn_of_its_session_and_its_questions_are_asked_of_the_user(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        tool = session_tool(sessions)
        assert tool.description == "Asks the agent clerk (scripted:clerk), and returns its answer."
        assert session_tool(sessions, "Pays.").description == "Pays." and (tool.as_task, tool.resumes) == ("may", True)

        async def ask(question: str, exchange: Noted, **more: str) -> Any:
            return await tool.run({"question": question, **more}, exchange)  # type: ignore[arg-type]

        first = await ask("hi", Noted())
        about = first.meta["org.firsthand/session"]
        turn = sessions.store.turn(about["turn"])
        assert text_of(first) == ("You said hi, after 0 others.", False) and (turn.owner, turn.number) == ("ann", 1)
        assert about == {"session": turn.context, "turn": turn.id, "state": "completed"} and len(turn.context) == 16
        second = await ask("yo", Noted(task="t9"), session=turn.context)
        assert text_of(second)[0] == "You said yo, after 1 others."
        assert second.meta["org.firsthand/session"]["turn"] == "mcp-t9"
        resumed = await ask("never asked", Noted(task="t9"))
        assert text_of(resumed) == text_of(second) and len(sessions.store.turns(turn.session)) == 2
        other = await ask("yo", Noted(client=None, task="t8"), session=turn.context)
        assert text_of(other)[0] == "You said yo, after 0 others." and sessions.store.turn("mcp-t8").owner == ""

        yes = Noted(YES)
        paid = await ask("pay 5", yes)
        assert text_of(paid) == ("Done: paid 5", False) and desk.paid == [5]
        steps = ["asks the model", "calls pay", "calls pay", "asks the model"]
        assert yes.told == [(at, None, step) for at, step in enumerate(steps, 1)]
        ((key, said),) = yes.asked
        assert re.fullmatch(r"approval apr_[0-9a-f]{16}", key) and "pay" in said
        no = await ask("pay 6", Noted(NO))
        assert desk.paid == [5] and "client did not approve this call of pay" in text_of(no)[0]
        for answer in (MCPError(-1, "no user"), types.ElicitResult(action="cancel")):
            left = Noted(answer)
            waits = await ask("pay 7", left)
            (asked,) = sessions.store.pending(waits.meta["org.firsthand/session"]["turn"])
            assert waits.meta["org.firsthand/session"]["approvals"] == asked.id and asked.state == "pending"
            assert not waits.is_error and f"({asked.id})" in text_of(waits)[0] and len(left.asked) == 1
            await sessions.cancel(asked.turn)
        mute = Noted(asks=False)
        assert (await ask("pay 8", mute)).meta["org.firsthand/session"][
            "state"
        ] == "input_required" and mute.asked == []

    within_sessions(clerk(desk), tmp_path, use)


def test_a_call_that_its_client_cancels_ends_its_turn_and_one_that_is_cut_off_does_not(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        tool = session_tool(sessions)
        for is_cancelled, state in ((False, "working"), (True, "canceled")):
            exchange = Noted(task=f"t{is_cancelled}")
            exchange.is_cancelled = is_cancelled
            desk.waiting.clear()
            calling = asyncio.ensure_future(tool.run({"question": "wait"}, exchange))  # type: ignore[arg-type]
            while not desk.waiting.is_set():
                await asyncio.sleep(0.001)
            calling.cancel()
            await asyncio.wait({calling})
            assert calling.cancelled() and sessions.store.turn(f"mcp-t{is_cancelled}").state == state
        sessions.settings = replace(sessions.settings, open_turns=1)
        refused = await tool.run({"question": "more"}, Noted())  # type: ignore[arg-type]
        assert text_of(refused) == ("1 turns are open already: answer or cancel some of them first", True)  # type: ignore
        desk.go.set()
        await sessions.settled("mcp-tFalse")

    within_sessions(clerk(desk), tmp_path, use)


def test_a_question_is_no_longer_asked_once_somebody_else_has_answered_it(tmp_path: Path) -> None:
    ended: list[str] = []

    async def use(sessions: ServedSessions) -> None:
        turn = sessions.store.add_turn(sessions.store.open_session("ann", "c").id, "hi")
        first, second = (sessions.store.asked(turn.id, call, "pay", "read", {}, f"Pay {call}?") for call in "ab")

        async def never() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("asking")

        exchange = Noted(never, YES)
        asking = asyncio.ensure_future(_answered(sessions, first, "ann", exchange))  # type: ignore[arg-type]
        await asyncio.sleep(0.003)
        assert not asking.done() and exchange.asked == [(f"approval {first.id}", "Pay a?")]
        sessions.store.answer(first.id, False, by="eve")
        assert await asking and sessions.store.approval(first.id).answered_by == "eve"
        await asyncio.sleep(0)
        assert ended == ["asking"]
        assert await _answered(sessions, second, "ann", exchange)  # type: ignore[arg-type]
        kept = sessions.store.approval(second.id)
        assert (kept.state, kept.answered_by, kept.content) == ("allowed", "client", None)
        sessions.store.move(turn.id, "canceled")

    within_sessions(clerk(Desk()), tmp_path, use, poll_s=0.002)


# -- an index --


def test_an_index_lists_few_documents_and_cuts_long_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "--"
    folder.mkdir()
    (folder / "b é.txt").write_text("0123456")
    (folder / "a.txt").write_text("01234")
    monkeypatch.setattr(index_offer, "MAX_DOCUMENT", 5)
    monkeypatch.setattr(index_offer, "MAX_LISTED", 2)
    offer = Offer()
    index_offer.offer_index(offer, str(folder), only=False)
    assert [tool.name for tool in offer.tools] == ["search_documents", "lookup_documents"]
    assert [(each.uri, each.name, each.description) for each in offer.resources] == [
        ("firsthand://index/documents/{document}", "documents: document",
         "A document of documents; the search gives the ids of documents."),
        ("firsthand://index/documents/a.txt", "a.txt", "A document of documents."),
        ("firsthand://index/documents/b%20%C3%A9.txt", "b é.txt", "A document of documents."),
    ]  # fmt: skip
    template, short, long = offer.resources

    def read(resource: Any, uri: str, **parts: str) -> tuple[str, str]:
        (found,) = asyncio.run(resource.read(uri, parts))
        return found.uri, found.text

    assert read(short, "u") == ("u", "01234"), "each listed one is its own document"
    assert read(long, "v") == ("v", "01234\n[cut after 5 of 7 characters]")
    assert read(template, "w", document="b é.txt")[1] == "01234\n[cut after 5 of 7 characters]"
    monkeypatch.setattr(index_offer, "MAX_LISTED", 1)
    larger = Offer()
    index_offer.offer_index(larger, str(folder), only=True)
    assert [each.name for each in larger.resources] == ["documents: document"]
    assert [tool.name for tool in larger.tools] == ["search", "lookup"]
