"""Parts of the MCP server without a wire: task rows, states of tasks, pages, resources, questions and results."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types
from mcp import MCPError

from firsthand.errors import ConfigError, ToolError
from firsthand.loop.form import FormField
from firsthand.loop.listener import Began
from firsthand.serve.agents.agent_doors import opened_sessions
from firsthand.serve.agents.question_subjects import QuestionSubjects
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.serve.mcp.agent_offer import AskClient, ProgressOfSteps, approval_request, is_approved, offer_agents
from firsthand.serve.mcp.benchmark_offer import _known, described, offer_benchmarks
from firsthand.serve.mcp.exchange import ParkedExchange, expect_capability, result_type
from firsthand.serve.mcp.index_offer import offer_index
from firsthand.serve.mcp.mcp_server import McpServer, Offer, ServedPrompt, ServedResource, _page
from firsthand.serve.mcp.mcp_transports import _opens_session
from firsthand.serve.mcp.older_tasks import _older
from firsthand.serve.mcp.running_call import RunningCall
from firsthand.serve.mcp.served_tool import ServedTool, failed, served, text_result
from firsthand.serve.mcp.server_tasks import ServerTask, ServerTasks, _answers, row_state
from firsthand.serve.mcp.session_door import _result, _turn_id, _turn_of
from firsthand.serve.mcp.task_file import TaskFile, TaskRow
from firsthand.tool import tool_from_function
from served_agent import Desk, clerk

ASK = types.ElicitRequest(
    params=types.ElicitRequestFormParams(message="Which?", requested_schema={"type": "object", "properties": {}})
)
YES = types.ElicitResult(action="accept", content={"approve": True})


def row(id: str, **more: Any) -> TaskRow:
    return replace(
        TaskRow(
            id, "ann", "ask", {"a": 1}, {"elicitation": {}}, {}, "n", "working", None, "t0", "t1", time.time() + 60
        ),
        **more,
    )


# -- the file of tasks --


def test_a_task_is_kept_whole_until_it_ends_expires_or_is_forgotten(tmp_path: Path) -> None:
    file = TaskFile(tmp_path)
    first, second = row("1"), row("2", owner=None, tool="run", answers={"k": 1})
    file.add(first)
    file.add(second)
    assert file.find("1") == first and file.find("3") is None and file.unfinished() == [first, second]
    file.add_answers("2", {"k": 2, "l": {"x": 3}})
    file.add_answers("9", {"k": 2})
    file.keep_note("1", "run 7")
    file.end("2", "failed", {"code": 5}, "t9")
    file.end("2", "completed", {}, "t10")
    assert file.find("2") == replace(
        second, answers={"k": 2, "l": {"x": 3}}, status="failed", outcome={"code": 5}, updated_at="t9"
    )
    assert file.unfinished() == [replace(first, note="run 7")]
    file.end("1", "cancelled", None, "t3")
    found = file.find("1")
    assert found is not None and (found.status, found.outcome) == ("cancelled", None) and file.unfinished() == []
    file.add(row("old", expires=time.time() - 1))
    assert file.find("old") is None and file.unfinished() == []
    file.add(row("4"))
    assert file._database.read("SELECT count(*) FROM tasks WHERE id = 'old'")[0][0] == 0, "what is too old goes"
    file.forget("4")
    assert file.find("4") is None and file.find("2") is not None
    file.close()


def test_the_state_of_a_kept_task_has_its_result_or_its_error() -> None:
    head = {"taskId": "1", "createdAt": "t0", "lastUpdatedAt": "t1", "ttlMs": 3_600_000, "pollIntervalMs": 500}
    for status, outcome, more in (
        ("completed", {"content": []}, {"result": {"content": []}}),
        ("completed", None, {"result": {}}),
        ("failed", {"message": "m", "code": 1}, {"statusMessage": "m", "error": {"message": "m", "code": 1}}),
        ("failed", None, {"statusMessage": "the tool failed for a reason of its own", "error": {}}),
        ("cancelled", None, {}),
    ):
        assert row_state(row("1", status=status, outcome=outcome)) == head | {"status": status} | more
    state = head | {"status": "failed", "statusMessage": "m", "error": {}}
    assert _older(state) == {
        "taskId": "1", "status": "failed", "statusMessage": "m", "createdAt": "t0", "lastUpdatedAt": "t1", "ttl": 3_600_000,
        "pollInterval": 500,
    }  # fmt: skip


def test_a_running_task_tells_its_requests_its_progress_and_its_end() -> None:
    async def main() -> None:
        exchange = ParkedExchange(None, {"elicitation": {}}, {})

        async def work() -> Any:
            await exchange.progress(1, 4, "one")
            answer = await exchange.ask("k", ASK)
            return text_result(str(answer.content))

        call = RunningCall("t", work(), exchange, "id-1")
        tasks = ServerTasks()
        task = tasks.begin(call, "ann", "t", {})
        assert task.seed() == {
            "resultType": "task", "taskId": "id-1", "status": "working", "createdAt": task.created,
            "lastUpdatedAt": task.updated, "ttlMs": 3_600_000, "pollIntervalMs": 500,
        }  # fmt: skip
        assert task.created == task.updated and task.created.endswith("Z") and len(task.created) == 24
        await call.settled()
        state = task.state()
        assert (state["status"], state["statusMessage"]) == ("input_required", "1/4 one")
        assert state["inputRequests"]["k"]["params"]["message"] == "Which?"
        with pytest.raises(MCPError, match="there is no such task"):
            tasks.find("bob", "id-1")
        tasks.bring(task, {"other": YES})
        assert task.state()["status"] == "input_required"
        tasks.bring(task, {"k": YES})
        await call.task
        assert tasks.find("ann", "id-1") is task
        ended = task.state()
        assert ended["status"] == "completed" and ended["result"]["content"][0]["text"] == "{'approve': True}"
        assert "inputRequests" not in ended and task.state() == ended, "the time of a change stands"

        async def broken(error: Exception) -> Any:
            raise error

        for error, message, code in (
            (MCPError(-7, "own"), "own", -7),
            (KeyError("x"), "the tool failed for a reason of its own", -32603),
        ):
            lost = ServerTask(RunningCall("t", broken(error), ParkedExchange(None, {}, {})), None, "t0")
            await asyncio.wait({lost.call.task})
            assert lost.state()["error"] == {"code": code, "message": message} and lost.created == "t0"
        stopped = tasks.begin(RunningCall("t", asyncio.sleep(9), ParkedExchange(None, {}, {})), None, "t", {})
        await tasks.end(stopped)
        assert stopped.state()["status"] == "cancelled" and stopped.call.exchange.is_cancelled
        assert stopped.end() == ("cancelled", None)
        await tasks.close()

    asyncio.run(main())


def test_tasks_of_another_process_go_on_where_their_tool_can(tmp_path: Path) -> None:
    file = TaskFile(tmp_path)
    given = {"k": {"action": "accept", "content": {"approve": True}}, "bad": {"x": 1}}
    for made in (row("1", answers=given), row("2", tool="gone"), row("3", tool="plain"), row("4", status="completed")):
        file.add(made)
    seen: list[Any] = []

    async def run(arguments: Any, exchange: Any) -> str:
        answer = await exchange.ask("k", ASK)
        exchange.keep("later")
        seen.append((arguments, exchange.task, exchange.note, exchange.client, answer.content))
        return "done"

    async def main() -> None:
        tasks = ServerTasks(file)
        shape: Any = {"type": "object"}
        tasks.resume(
            {"ask": ServedTool("ask", "", shape, run, resumes=True), "plain": ServedTool("plain", "", shape, run)}
        )
        assert list(tasks.tasks) == ["1"] and tasks.tasks["1"].created == "t0"
        await tasks.tasks["1"].call.task
        await asyncio.sleep(0)
        kept = file.find("1")
        assert kept is not None and (kept.status, kept.note) == ("completed", "later")
        for id, tool in (("2", "gone"), ("3", "plain")):
            lost = file.find(id)
            assert lost is not None and lost.status == "failed" and lost.outcome == {
                "code": -32603, "message": f"the server was stopped while {tool} ran: call it again",
            }  # fmt: skip
        assert isinstance(tasks.find("ann", "2"), TaskRow)
        await tasks.close()

    asyncio.run(main())
    assert seen == [({"a": 1}, "1", "later", "ann", {"approve": True})]
    assert list(_answers(given)) == ["k"]


# -- exchanges --


def test_a_question_of_a_call_has_a_key_of_its_own_and_an_answer_that_fits() -> None:
    async def main() -> None:
        notes: list[str] = []
        exchange = ParkedExchange(None, {"elicitation": {}}, {"a+": YES, "b": "no result"}, client="ann")
        exchange.on_note = notes.append
        exchange.keep("n")
        assert (exchange.note, notes, exchange.client) == ("n", ["n"], "ann")
        assert exchange.can("elicitation") and not exchange.can("roots")
        first = asyncio.ensure_future(exchange.ask("a", ASK))
        await asyncio.sleep(0)
        assert await exchange.ask("a", ASK) is YES, "the second has the key a+, whose answer came with the call"
        third, other = (asyncio.ensure_future(exchange.ask(key, ASK)) for key in ("a", "b"))
        await asyncio.sleep(0)
        assert list(exchange.pending) == ["a", "a++", "b"]
        exchange.bring({"a": types.ListRootsResult(roots=[]), "x": YES})
        assert list(exchange.pending) == ["a", "a++", "b"]
        no = types.ElicitResult(action="decline")
        exchange.bring({"a++": no, "a": YES})
        assert await first is YES and await third is no and list(exchange.pending) == ["b"]
        other.cancel()
        await asyncio.wait({other})
        assert exchange.pending == {} and exchange.moved.is_set()
        with pytest.raises(MCPError, match="a client with the capability roots") as caught:
            await exchange.ask("r", types.ListRootsRequest())
        assert caught.value.error.data == {"requiredCapabilities": {"roots": {}}}
        for done, total, message, status in ((1, None, "", "1"), (2.5, 4, "half", "2.5/4 half"), (0, 3, "", "0/3")):
            await exchange.progress(done, total, message)
            assert exchange.status == status

    asyncio.run(main())
    assert result_type(ASK) is types.ElicitResult and result_type(types.ListRootsRequest()) is types.ListRootsResult
    expect_capability({"elicitation": {}}, ASK)


def test_a_call_is_settled_when_it_is_over_or_has_asked_for_all() -> None:
    async def main() -> None:
        exchange = ParkedExchange(None, {"elicitation": {}}, {})

        async def work() -> list[Any]:
            return await asyncio.gather(exchange.ask("a", ASK), exchange.ask("b", ASK))

        call = RunningCall("t", work(), exchange)
        await call.settled()
        assert list(call.requests()) == ["a", "b"] and not call.task.done() and len(call.id) == 24
        exchange.bring({"a": YES, "b": YES})
        await call.settled()
        assert call.task.done() and call.requests() == {}

    asyncio.run(main())


class Client:
    """An exchange whose client gives these answers."""

    def __init__(self, *answers: Any, can: bool = True):
        self.answers, self._can = list(answers), can
        self.asked: list[tuple[str, Any]] = []
        self.told: list[Any] = []

    def can(self, capability: str) -> bool:
        return self._can and capability == "elicitation"

    async def ask(self, key: str, request: Any) -> Any:
        self.asked.append((key, request))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def progress(self, *told: Any) -> None:
        self.told.append(told)


def test_a_user_approves_by_an_explicit_yes_and_fills_in_what_fits() -> None:
    tool = Desk().tools()[0]
    fields = (FormField("n", "integer", required=True), FormField("w", "string", default="x"))

    def decided(*answers: Any, can: bool = True) -> Any:
        client = Client(*answers, can=can)
        return asyncio.run(AskClient(client, QuestionSubjects())(tool, {"amount": 5})), client  # type: ignore[arg-type]

    yes, client = decided(YES)
    assert (yes.allowed, yes.by, yes.reason) == (True, "client", "")
    ((key, request),) = client.asked
    assert key == "approval  pay 1" and "pay" in request.params.message
    assert request.params.requested_schema["required"] == ["approve"]
    for answer in (
        types.ElicitResult(action="accept", content={"approve": False}), types.ElicitResult(action="accept"),
        types.ElicitResult(action="decline", content={"approve": True}), types.ElicitResult(action="cancel"),
    ):  # fmt: skip
        no, _ = decided(answer)
        assert (no.allowed, no.by, no.reason) == (False, "client", "the user did not approve this call of pay")
        assert not is_approved(answer)
    lost, _ = decided(MCPError(-1, "gone"))
    assert (lost.allowed, lost.by, lost.reason) == (False, "client", "the client did not answer: gone")
    mute, _ = decided(can=False)
    assert (mute.allowed, mute.by) == (False, "nobody") and mute.reason.startswith("pay needs approval")

    def filled(*answers: Any, can: bool = True) -> Any:
        return asyncio.run(AskClient(Client(*answers, can=can), QuestionSubjects()).fill(tool, "Q", fields))  # type: ignore[arg-type]

    accept = types.ElicitResult(action="accept", content={"n": 3})
    assert (
        filled(accept) == {"n": 3, "w": "x"} and filled(types.ElicitResult(action="decline", content={"n": 3})) is None
    )
    assert filled(MCPError(-1, "gone")) is None and filled(can=False) is None
    with pytest.raises(ConfigError):
        filled(types.ElicitResult(action="accept", content={}))
    schema = approval_request("pay", "Q", fields).params.requested_schema
    assert list(schema["properties"]) == ["n", "w"] and schema["required"] == ["n"]


def test_steps_are_told_in_order_and_none_is_lost_with_a_client_that_left() -> None:
    client = Client()
    client.told_first = False  # type: ignore[attr-defined]

    async def main() -> None:
        steps = ProgressOfSteps(client, QuestionSubjects())  # type: ignore[arg-type]
        for step in (Began("0:0", "generate", 0), Began("0:1", "tool", 0, {"name": "pay"}), "other"):
            steps(step)  # type: ignore[arg-type]
        telling = asyncio.create_task(steps.tell())
        await asyncio.sleep(0.001)
        telling.cancel()

    asyncio.run(main())
    assert client.told == [(1, None, "asks the model"), (2, None, "calls pay")]


# -- what is offered --


def test_a_list_has_pages_of_five_hundred_and_cursors_of_its_own() -> None:
    entries = list(range(1000))

    def page(cursor: str | None, count: int = 1000) -> Any:
        return _page(entries[:count], types.PaginatedRequestParams(cursor=cursor))

    assert _page(entries, None) == page(None) == (entries[:500], "500")
    assert (
        page("500") == (entries[500:], None)
        and page("500", 501) == ([500], None)
        and page(None, 500) == (entries[:500], None)
    )
    assert page("1000") == ([], None)
    for cursor in ("1001", "-1", "x", "\u0663"):
        with pytest.raises(MCPError, match="this cursor was not given by this server"):
            page(cursor)


def test_a_template_gives_the_parts_of_an_address() -> None:
    async def read(uri: str, parts: Any) -> Any:
        return []

    made = ServedResource("x://a.b/{one}/c/{two}", "n", "d", read)
    assert made.is_template and made.parts_of("x://a.b/%C3%A9/c/z%2Fy") == {"one": "é", "two": "z/y"}
    for uri in ("x://aXb/1/c/2", "x://a.b/1/c/", "x://a.b/1/2/c/3", "x://a.b/1/c/2/"):
        assert made.parts_of(uri) is None
    assert not ServedResource("x://a", "n", "d", read).is_template


def test_a_tool_is_described_and_its_arguments_are_checked_before_it_runs() -> None:
    async def run(arguments: Any, exchange: Any) -> Any:
        if arguments.get("n") == 0:
            raise ToolError("zero")
        return "text" if arguments.get("n") == 1 else failed("own")

    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "l": {"type": "array", "items": {"type": "string"}}},
    }
    made = ServedTool("t", "Does.", schema, run, as_task="must", title="T", output_schema={"type": "object"})
    shown = made.described()
    assert (shown.name, shown.title, shown.description, shown.input_schema) == ("t", "T", "Does.", schema)
    assert shown.execution is not None and shown.execution.task_support == "required"
    assert replace(made, as_task="may").described().execution.task_support == "optional"  # type: ignore[union-attr]
    assert replace(made, as_task="never").described().execution is None and shown.output_schema == {"type": "object"}
    assert made.problem({"n": 1}) is None
    for arguments, said in (
        ({"n": "x"}, "t cannot take these arguments: n: 'x' is not of type 'integer'"),
        ({"l": ["a", 2]}, "t cannot take these arguments: l.1: 2 is not of type 'string'"),
    ):
        wrong = made.problem(arguments)
        assert wrong is not None and wrong.is_error and wrong.content[0].text == said  # type: ignore[union-attr]

    def check(arguments: Any) -> None:
        if arguments:
            raise ToolError("no")

    own = replace(made, check=check)
    assert own.problem({}) is None and own.problem({"n": 1}).content[0].text == "no"  # type: ignore[union-attr]
    for n, text, is_error in ((1, "text", None), (2, "own", True), (0, "zero", True)):
        result = asyncio.run(made.result({"n": n}, None))  # type: ignore[arg-type]
        assert result.content[0].text == text and bool(result.is_error) is bool(is_error)  # type: ignore[union-attr]


def test_a_tool_of_ours_says_what_it_may_do() -> None:
    def go(a: int) -> str:
        """Goes."""
        return str(a)

    for effect, origin, hints in (
        ("read", None, (True, False, True, False)), ("read", "the web", (True, False, True, True)),
        ("write", None, (False, False, False, False)), ("external", None, (False, False, False, True)),
        ("irreversible", None, (False, True, False, True)),
    ):  # fmt: skip
        made = served(tool_from_function(go, effect=effect, origin=origin))  # type: ignore[arg-type]
        notes = made.annotations
        assert notes is not None
        assert (notes.read_only_hint, notes.destructive_hint, notes.idempotent_hint, notes.open_world_hint) == hints
        assert (made.name, made.description) == ("go", "Goes.") and made.problem({"a": "x"}) is not None
    assert asyncio.run(made.run({"a": 3}, None)) == "3"  # type: ignore[arg-type]


def test_agents_benchmarks_and_indexes_are_offered_by_names_of_their_own(tmp_path: Path) -> None:
    offer = Offer()
    agents = [clerk(Desk()), replace(clerk(Desk()), name="-Dr. Who! ")]
    offer_agents(offer, agents, None)  # type: ignore[arg-type]
    assert [tool.name for tool in offer.tools] == ["ask_clerk", "ask_Dr__Who"]
    alone = Offer()
    offer_agents(alone, agents[:1], None)  # type: ignore[arg-type]
    (tool,) = alone.tools
    assert (tool.name, tool.as_task, tool.resumes) == ("ask", "may", True)
    assert tool.description == "Asks the agent clerk (scripted:clerk) a question, and returns its answer."
    long = Offer()
    offer_agents(long, [replace(agents[0], name="x" * 80)] * 2, None)  # type: ignore[arg-type]
    assert len(long.tools[0].name) == 64
    for given, count in ((agents[:1], 1), ([], 0)):
        made = Offer()
        offer_benchmarks(made, ["game24"], given)
        assert (len(made.resources), len(made.tools)) == (1, count)
    assert made.resources[0].uri == "firsthand://benchmark/game24" and made.resources[0].mime_type == "application/json"
    for name in ("a", "b"):
        folder = tmp_path / f"{name} docs"
        folder.mkdir()
        (folder / "one.txt").write_text("The moon is far.")
    for only, names in ((True, ["search", "lookup"]), (False, ["search_a_docs", "lookup_a_docs"])):
        found = Offer()
        offer_index(found, str(tmp_path / "a docs"), only=only)
        assert [each.name for each in found.tools] == names
        template, one = found.resources
        assert template.uri == "firsthand://index/a_docs/{document}" and one.uri == "firsthand://index/a_docs/one.txt"
        (contents,) = asyncio.run(one.read(one.uri, {}))
        assert contents.text == "The moon is far." and contents.mime_type == "text/plain"  # type: ignore[union-attr]
        with pytest.raises(ToolError, match="no document 'none'"):
            asyncio.run(template.read("x", {"document": "none"}))


def test_a_benchmark_is_described_by_its_first_three_tasks() -> None:
    from firsthand import catalog

    body = described("game24", catalog.benchmark("game24"))
    tasks = catalog.benchmark("game24").tasks(0)
    assert body["tasks"] == len(tasks) and body["name"] == "game24"
    assert [each["id"] for each in body["examples"]] == [task.id for task in tasks[:3]]
    assert body["examples"][0]["prompt"] == tasks[0].prompt
    assert _known("agent", "a", {"a": 1}) == "a"
    with pytest.raises(
        ToolError, match="no agent 'clark' is served here; did you mean 'clerk'\\? there are clerk, other"
    ):
        _known("agent", "clark", {"clerk": 1, "other": 2})


def test_a_server_lists_its_tools_by_name_and_completes_a_hundred_values() -> None:
    async def get(arguments: Any, exchange: Any) -> Any:
        return None

    async def run(arguments: Any, exchange: Any) -> str:
        return "x"

    prompts = [ServedPrompt(name, "d", get, complete=lambda argument, text: [f"{argument}{text}{n}" for n in range(101)])
               for name in ("b", "a")]  # fmt: skip
    made = McpServer(Offer([ServedTool(name, "d", {}, run) for name in ("z", "y")], prompts=prompts))
    made.add(ServedTool("x", "d", {}, run))

    async def main() -> None:
        listed = await made._list_tools(None, None)  # type: ignore[arg-type]
        assert [tool.name for tool in listed.tools] == ["x", "y", "z"]
        assert [each.name for each in (await made._list_prompts(None, None)).prompts] == ["a", "b"]  # type: ignore[arg-type]
        for name, count in (("a", 100), ("none", 0)):
            params = types.CompleteRequestParams(
                ref=types.PromptReference(type="ref/prompt", name=name),
                argument=types.CompletionArgument(name="n", value="v"),
            )
            found = (await made._complete(None, params)).completion  # type: ignore[arg-type]
            assert (len(found.values), found.total, found.has_more) == (count, count and 101, bool(count))
        assert found.values == []

    asyncio.run(main())


def test_a_session_is_opened_by_a_post_of_an_older_revision_without_one() -> None:
    def opens(method: str, **headers: str) -> bool:
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        return _opens_session({"method": method, "headers": pairs})

    assert opens("POST") and opens("POST", mcp_protocol_version="2025-06-18")
    assert (
        not opens("GET")
        and not opens("POST", mcp_session_id="s")
        and not opens("POST", mcp_protocol_version="2026-07-28")
    )


def test_a_turn_of_a_session_is_told_by_its_state(tmp_path: Path) -> None:
    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
        store = sessions.store
        turn = store.add_turn(store.open_session("ann", "c").id, "q", id="mcp-7")
        asked = [store.asked("mcp-7", str(at), "pay", "read", {}, "?").id for at in range(2)]

        def told(state: Any, answer: str | None = None, error: str | None = None) -> Any:
            made = SessionTurn("mcp-7", turn.session, 1, state, "q", answer, error, "ann", "c")
            result = _result(sessions, made, "c")
            return result.content[0].text, bool(result.is_error), result.meta["org.firsthand/session"]  # type: ignore

        about = {"session": "c", "turn": "mcp-7"}
        assert told("completed", "42") == ("42", False, {**about, "state": "completed"})
        assert told("completed") == ("", False, {**about, "state": "completed"})
        assert told("failed", error="why") == ("clerk gave no answer: why", True, {**about, "state": "failed"})
        assert told("canceled") == ("clerk gave no answer: canceled", True, {**about, "state": "canceled"})
        text, is_error, more = told("input_required")
        assert (
            not is_error
            and more["approvals"] == ", ".join(asked)
            and f"({', '.join(asked)})" in text
            and "session='c'" in text
        )
        assert _turn_id("7") == "mcp-7" and _turn_id("") == ""
        assert _turn_of(sessions, "7", "ann") == turn
        assert _turn_of(sessions, "7", "bob") is None and _turn_of(sessions, "", "ann") is None
        assert SimpleNamespace(turn=turn).turn.number == 1
