"""The doors of a served agent: the routes of its sessions, the header that names them, its run, and agents of files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.loop.budget import Limits
from firsthand.loop.form import FormField
from firsthand.model import Sampling
from firsthand.runs import store as runs
from firsthand.serve.admission.active_request import ActiveRequest, attach
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client
from firsthand.serve.agents import kept_sessions
from firsthand.serve.agents.agent_doors import opened_sessions
from firsthand.serve.agents.agent_file import AgentFile, open_agent
from firsthand.serve.agents.caller_middleware import CallerMiddleware
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_model import caller
from firsthand.serve.agents.sessions_app import SessionsApp, sessions_app
from firsthand.serve.agents.shown_steps import ShownSteps
from firsthand.serve.http.replies import reply
from firsthand.trace import Trace
from served_agent import Desk, clerk, within_sessions


async def answered(
    app: Any, method: str, path: str, body: bytes = b"", *, client: str = "ann"
) -> tuple[int, Any, dict[str, str], dict[str, Any]]:
    """Status, JSON and headers of an app's answer, and the notes of the request."""
    request = ActiveRequest("r", Client(client, ClientLimits()), "/x", "application/json", body)
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path}
    attach(scope, request)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, None, send)
    fields = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], json.loads(sent[1]["body"]), fields, request.notes


# -- sessions and approvals --


def test_a_client_lists_reads_and_answers_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_sessions, "MOST_LISTED", 2)

    async def use(sessions: ServedSessions) -> None:
        app, kept = SessionsApp(sessions), sessions.store

        async def ask(method: str, path: str, body: Any = None, client: str = "ann") -> tuple[int, Any]:
            raw = b"" if body is None else json.dumps(body).encode()
            status, found, _, _ = await answered(app, method, path, raw, client=client)
            return status, found

        paying = await sessions.settled(sessions.submit("ann", "pay 5", context="x y/z").id)
        others = [kept.open_session(owner, context) for owner, context in (("bob", "b"), ("ann", "c"), ("ann", "d"))]
        (asked,) = kept.pending(paying.id)
        turn = {
            "id": paying.id,
            "number": 1,
            "state": "input_required",
            "prompt": "pay 5",
            "answer": None,
            "error": None,
        }
        assert await ask("GET", "/sessions") == (200, {"object": "list", "data": [
            {"id": "c", "turns": []}, {"id": "d", "turns": []}], "older": "/sessions?before=c"}), "the newest"  # fmt: skip
        assert await ask("GET", "/sessions", client="bob") == (
            200,
            {"object": "list", "data": [{"id": "b", "turns": []}]},
        )
        assert await ask("GET", "/sessions/c") == (200, {"id": "c", "turns": [], "trace": None})
        status, found = await ask("GET", "/sessions/x y/z")
        assert status == 200 and (found["id"], found["turns"]) == ("x y/z", [turn])
        trace = sessions.trace(paying.session)
        assert trace is not None and found["trace"] == json.loads(json.dumps(ShownSteps(()).trace(trace)))
        assert [each["kind"] for each in found["trace"]["calls"]] == ["generate", "tool"]
        shown = {"id": asked.id, "turn": paying.id, "tool": "pay", "effect": "irreversible", "arguments": {"amount": 5},
                 "question": asked.question, "state": "pending"}  # fmt: skip
        assert await ask("GET", "/approvals") == (200, {"object": "list", "data": [shown]})
        assert await ask("GET", "/approvals", client="bob") == (200, {"object": "list", "data": []})

        def error(message: str, code: str | None, param: str | None = None, kind: str = "invalid_request_error") -> Any:
            return {"error": {"message": message, "type": kind, "param": param, "code": code}}

        place = f"/approvals/{asked.id}"
        for method, path, allowed in (("POST", "/sessions", "GET"), ("PUT", "/sessions/c", "GET or DELETE"),
                                      ("GET", place, "POST"),
                                      ("PATCH" * 5, "/approvals", "GET")):  # fmt: skip
            status, body, fields, notes = await answered(app, method, path)
            said = f"{method[:20]} is not taken here: use {allowed}"
            assert (status, body["error"]["message"], notes["error"]) == (405, said, said)
            assert fields["allow"] == allowed.replace(" or ", ", ")
        status, body = await ask("GET", "/sessions/" + "n" * 90)
        assert (status, body["error"]["message"]) == (404, f"no session '{'n' * 79}: GET /sessions lists them")
        status, body = await ask("POST", place, {"allowed": True}, client="bob")
        assert (status, body["error"]["message"]) == (404, f"no approval {asked.id!r}")
        for wrong, param in (({"allowed": "maybe"}, "allowed"), ({"allowed": True, "x": 1}, "x"), ({}, "allowed"),
                             ({"allowed": False, "reason": "r" * 1001}, "reason")):  # fmt: skip
            status, body = await ask("POST", place, wrong)
            assert (status, body["error"]["param"]) == (400, param) and kept.approval(asked.id).state == "pending"
        status, body = await ask("POST", place, {"allowed": False, "reason": "too much"})
        assert (status, body["id"], body["answer"]) == (200, paying.id, None)
        answer = kept.approval(asked.id)
        assert (answer.state, answer.reason, answer.answered_by, answer.content) == ("denied", "too much", "ann", None)
        status, body = await ask("POST", place, {"allowed": True})
        assert status == 409 and body == error(f"{asked.id} was denied before: it is answered once", "answered")
        assert "too much" in ((await sessions.settled(paying.id)).answer or "")

        form = kept.asked(
            kept.add_turn(others[1].id, "hi").id, "0", "fill", "read", {}, "?", [FormField("n", "integer")]
        )
        status, body = await ask("GET", "/approvals")
        assert body["data"][0]["schema"]["properties"]["n"]["type"] == "integer"
        assert (await ask("POST", f"/approvals/{form.id}", {"allowed": True, "content": {"n": 3}}))[0] == 200
        assert kept.approval(form.id).content == {"n": 3} and kept.approval(form.id).reason == ""

        def broken(*asked: Any) -> Any:
            raise KeyError("secret")

        sessions.kept.page = broken  # type: ignore[method-assign]
        status, body, _, notes = await answered(app, "GET", "/sessions")
        assert status == 500 and "secret" not in str(body) and "KeyError: 'secret'" in notes["traceback"]

    within_sessions(clerk(Desk()), tmp_path, use)


def test_sessions_run_as_long_as_their_app_and_its_paths_have_three_patterns(tmp_path: Path) -> None:
    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
        mounted = sessions_app(sessions)
        assert mounted.work_methods == {"POST"} and mounted.prefix == "" and mounted.lifespan is not None
        paths = [
            "/sessions",
            "/approvals",
            "/sessions/a",
            "/approvals/b",
            "/sessions/",
            "/sessions/a/b",
            "/approvals/a/b",
        ]
        assert [mounted.route_of(path) for path in paths] == [
            "/sessions", "/approvals", "/sessions/{id}", "/approvals/{id}", None, "/sessions/{id}", None,
        ]  # fmt: skip
        waits = sessions.store.add_turn(sessions.store.open_session("ann", "c").id, "hi")

        async def main() -> None:
            async with mounted.lifespan():  # type: ignore[misc]
                assert (await sessions.settled(waits.id)).answer == "You said hi, after 0 others."
            assert sessions._closing

        asyncio.run(main())


def test_a_protected_trace_is_not_shown() -> None:
    from firsthand.trace import Event

    trace = Trace("t", "served", "s", {"name": "a"}, 0, 0, "then", 1.0, answer="A", stop_reason="done")
    shown = {"id": "t", "stop_reason": "done", "answer": "A", "calls": [], "events": []}
    assert ShownSteps(()).trace(trace) == shown and ShownSteps(()).trace(None) is None
    hidden = Trace(
        "t", "served", "s", {"name": "a"}, 0, 0, "then", 1.0, events=(Event("protected", 0.0, {"why": "x"}),)
    )
    assert ShownSteps(()).trace(hidden) is None


# -- doors --


def test_an_answer_names_its_session_in_a_header_of_its_own() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        who = caller.get()
        assert who is not None and (who.name, who.session) == ("bob", "")
        who.session = scope["path"][1:]
        await reply({"a": 1}, headers={"x-own": "1"})(scope, receive, send)

    named, bare = (asyncio.run(answered(CallerMiddleware(app), "GET", path, client="bob")) for path in ("/chat-1", "/"))
    assert named[:2] == bare[:2] == (200, {"a": 1}) and named[2] == {**bare[2], "x-firsthand-session": "chat-1"}
    assert bare[2]["x-own"] == "1" and "x-firsthand-session" not in bare[2]


def test_sessions_are_kept_in_a_new_run_or_go_on_in_the_one_of_their_folder(tmp_path: Path) -> None:
    agent = Agent("Dr. Who", clerk(Desk()).model, clerk(Desk()).pattern)
    with opened_sessions(agent, tmp_path, None) as sessions:
        (info,) = runs.list_runs(tmp_path)
        assert "served-dr-who" in info.id and info.config == {"served": agent.to_json()}
        assert sessions.run.path == info.path and sessions.settings.open_turns == 64 and sessions._seed == 0
        sessions.store.open_session("ann", "c")
    assert sessions.store.database._pid == -1, "the file is closed"
    folder = tmp_path / "own"
    for seed in (3, 4):
        with opened_sessions(agent, tmp_path, folder, seed=seed) as sessions:
            assert sessions.run.path == folder and sessions._seed == seed
            sessions.store.open_session("ann", f"c{seed}")
    with opened_sessions(agent, tmp_path, folder) as sessions:
        assert [row.context for row in sessions.store.sessions()] == ["c3", "c4"]
        with sessions.run.working(), pytest.raises(ConfigError), opened_sessions(agent, tmp_path, folder):
            pass


# -- agents in files --


def test_an_agent_has_each_part_that_its_file_names(tmp_path: Path) -> None:
    file = AgentFile(
        "scripted:echo", "clerk", pattern="react:max_steps=4", tools=("calculator",), system="Be kind.",
        guard=("redact:pattern=SECRET",), memory="notes:lifetime=agent", approve=("read=ask", "calculator=deny"),
        max_tokens=7, temperature=0.5, budget_tokens=1, budget_calls=2, budget_seconds=3.0, budget_usd=4.0,
    )  # fmt: skip
    agent = open_agent(file)
    assert (agent.name, agent.model.name, agent.system) == ("clerk", "scripted:echo", "Be kind.")
    assert agent.pattern.__name__ == "react" and agent.options == {"max_steps": 4}
    assert [tool.name for tool in agent.tools] == ["calculator"] and agent.sampling == Sampling(
        max_tokens=7, temperature=0.5
    )
    assert agent.approval.rules == {"read": "ask", "calculator": "deny"} and agent.limits == Limits(1, 2, 3.0, 4.0)
    assert agent.memory is not None and agent.memory.lifetime == "agent" and "redact" in str(agent.to_json()["guard"])
    bare = open_agent(AgentFile("scripted:echo"))
    assert (bare.name, bare.tools, bare.system, bare.guard, bare.memory) == ("agent", (), None, None, None)
    assert bare.limits == Limits() and bare.sampling == Sampling(max_tokens=1024, temperature=0.0)
    assert bare.approval.rules == {}
    with pytest.raises(ConfigError, match="pay"):
        open_agent(AgentFile("scripted:echo", approve=("pay=ask",)))
