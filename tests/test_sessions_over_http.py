"""Sessions and approvals as routes, the header that names a session, and the doors of a served agent, without a wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.loop.approval import Approval
from firsthand.loop.form import FormField
from firsthand.message import Message, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Sampling
from firsthand.serve.a2a.a2a_settings import A2ASettings
from firsthand.serve.admission.active_request import ActiveRequest, attach
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.agents.agent_doors import ServedAgent, agent_models, open_doors, opened_sessions
from firsthand.serve.agents.agent_file import AgentFile, open_agent
from firsthand.serve.agents.caller_middleware import CallerMiddleware
from firsthand.serve.agents.kept_sessions import MOST_LISTED
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_model import ASK, Caller, SessionModel, caller
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.agents.sessions_app import SessionsApp, sessions_app
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings
from replica_scripted import Echo
from served_agent import Desk, clerk


def within(agent: Agent, folder: Path, use: Callable[[ServedSessions], Awaitable[Any]]) -> Any:
    """What `use` makes of an agent's sessions while they run."""

    async def main() -> Any:
        with opened_sessions(agent, folder, folder / "s", SessionSettings(poll_s=0.01)) as sessions:
            async with sessions.running():
                return await use(sessions)

    return asyncio.run(main())


async def asked(app: Any, method: str, path: str, body: Any = None, *, client: str = "ann", **scope: Any) -> Any:
    """Status, headers and body of an answer, and the request's notes."""
    request = ActiveRequest(
        "r1",
        Client(client, ClientLimits()),
        path,
        "application/json",
        b"" if body is None else json.dumps(body).encode(),
    )
    made = {"type": "http", "method": method, "path": path, "headers": [], **scope}
    attach(made, request)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app(made, None, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, json.loads(sent[1]["body"]), request.notes


# -- routes --


def test_a_client_reads_its_own_sessions_and_answers_its_own_approvals(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        app = SessionsApp(sessions)
        hi = await sessions.settled(sessions.submit("ann", "hi", context="one").id)
        pays = await sessions.settled(sessions.submit("ann", "pay 5", context="two").id)
        bobs = await sessions.settled(sessions.submit("bob", "pay 6", context="one").id)
        hi_json = {"id": hi.id, "number": 1, "state": "completed", "prompt": "hi",
                   "answer": "You said hi, after 0 others.", "error": None}  # fmt: skip
        pay_json = {
            "id": pays.id,
            "number": 1,
            "state": "input_required",
            "prompt": "pay 5",
            "answer": None,
            "error": None,
        }

        status, headers, body, notes = await asked(app, "GET", "/sessions")
        assert (status, headers["content-type"], notes) == (200, "application/json", {})
        assert body == {
            "object": "list",
            "data": [{"id": "one", "turns": [hi_json]}, {"id": "two", "turns": [pay_json]}],
        }
        assert (await asked(app, "GET", "/sessions", client="eve"))[2] == {"object": "list", "data": []}
        (pending,) = sessions.store.pending(pays.id)
        approval = {"id": pending.id, "turn": pays.id, "tool": "pay", "effect": "irreversible", "arguments": {"amount": 5},
                    "question": pending.question, "state": "pending"}  # fmt: skip
        assert (await asked(app, "GET", "/approvals"))[2] == {"object": "list", "data": [approval]}
        status, _, body, _ = await asked(app, "GET", "/sessions/one")
        assert status == 200 and (body["id"], body["turns"]) == ("one", [hi_json])
        trace = sessions.trace(hi.session)
        assert trace is not None and body["trace"]["id"] == trace.id and len(body["trace"]["calls"]) == 1
        assert body["trace"]["events"][-1] == {"kind": "turn", "data": {"number": 1, "id": hi.id, "state": "completed",
                                                                        "prompt": "hi"}}  # fmt: skip
        (other,) = sessions.store.pending(bobs.id)
        for method, path, given, told in (
            ("GET", "/sessions/three", None, (404, "no session 'three': GET /sessions lists them", None)),
            ("POST", "/sessions", None, (405, "POST is not taken here: use GET", None)),
            ("PUT", "/sessions/one", None, (405, "PUT is not taken here: use GET or DELETE", None)),
            ("GET", f"/approvals/{pending.id}", None, (405, "GET is not taken here: use POST", None)),
            ("POST", "/approvals", None, (405, "POST is not taken here: use GET", None)),
            ("POST", f"/approvals/{other.id}", {"allowed": True}, (404, f"no approval '{other.id}'", None)),
        ):
            status, headers, body, notes = await asked(app, method, path, given)
            assert (status, body["error"]["message"], body["error"]["code"]) == told and notes["error"] == told[1]
            use = told[1].partition(": use ")[2].replace(" or ", ", ")
            assert headers.get("allow") == (use if status == 405 else None)
        status, _, body, _ = await asked(app, "POST", f"/approvals/{pending.id}", {"allowed": "yes", "more": 1})
        assert status == 400 and sessions.store.approval(pending.id).state == "pending"
        answer = {"allowed": False, "reason": "too much"}
        status, _, body, _ = await asked(app, "POST", f"/approvals/{pending.id}", answer)
        assert (status, body) == (200, pay_json)
        kept = sessions.store.approval(pending.id)
        assert (kept.state, kept.answered_by, kept.reason) == ("denied", "ann", "too much")
        status, _, body, notes = await asked(app, "POST", f"/approvals/{pending.id}", {"allowed": True})
        assert (status, body["error"]["code"], notes["error"]) == (
            409, "answered", f"{pending.id} was denied before: it is answered once",
        )  # fmt: skip
        await sessions.settled(pays.id)
        turn = sessions.store.add_turn(sessions.store.open_session("ann", "form").id, "q", id="asks")
        form = sessions.store.asked(turn.id, ":0", "fill", "read", {}, "?", (FormField("n", "integer", required=True),))
        shown = (await asked(app, "GET", "/approvals"))[2]["data"]
        assert [each["id"] for each in shown] == [form.id] and list(shown[0]["schema"]["properties"]) == ["n"]
        given = {"allowed": True, "content": {"n": 4}}
        assert (await asked(app, "POST", f"/approvals/{form.id}", given))[2]["id"] == "asks"
        assert sessions.store.approval(form.id).content == {"n": 4} and sessions.store.approval(form.id).reason == ""

    within(clerk(desk), tmp_path, use)


def test_the_newest_thousand_sessions_are_listed_and_a_bug_is_not_told(tmp_path: Path) -> None:
    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
        with sessions.store.database.write() as connection:
            connection.executemany(
                "INSERT INTO sessions (id, owner, context, transcript, conversation, created_at)"
                " VALUES (?, ?, ?, '', '[]', ?)",
                [(f"i{at}", "ann", f"c{at}", f"{at:05}") for at in range(MOST_LISTED + 2)],
            )
        app = SessionsApp(sessions)
        ids = [each["id"] for each in asyncio.run(asked(app, "GET", "/sessions"))[2]["data"]]
        assert MOST_LISTED == 1000 and len(ids) == 1000 and (ids[0], ids[-1]) == ("c2", "c1001")
        mounted = sessions_app(sessions)
        paths = (
            "/sessions",
            "/approvals",
            "/sessions/a b",
            "/approvals/x",
            "/sessions/a/b",
            "/sessions/",
            "/approvals/",
            "/",
        )
        assert [mounted.route_of(path) for path in paths] == [
            "/sessions", "/approvals", "/sessions/{id}", "/approvals/{id}", "/sessions/{id}", None, None, None,
        ]  # fmt: skip
        assert mounted.work_methods == {"POST"} and mounted.prefix == "" and mounted.open_routes == frozenset()
        assert mounted.lifespan is not None

        async def alive() -> tuple[bool, bool]:
            async with mounted.lifespan():  # type: ignore[misc]
                sessions._wake("none")
                inside = "none" in sessions._driving
            sessions._wake("more")
            return inside, "more" in sessions._driving

        assert asyncio.run(alive()) == (True, False)
    broken: Any = SessionsApp(None)  # type: ignore[arg-type]
    status, _, body, notes = asyncio.run(asked(broken, "GET", "/sessions"))
    assert status == 500 and body["error"]["code"] == "internal_error"
    assert notes["error"] == body["error"]["message"] and "Traceback" in notes["traceback"]


def test_the_session_of_a_chat_is_named_in_the_header_of_its_answer() -> None:
    def app(session: str) -> Any:
        async def answers(scope: Any, receive: Any, send: Any) -> None:
            who = caller.get()
            assert who is not None and who.name == "ann" and who.session == ""
            who.session = session
            await send({"type": "http.response.start", "status": 201, "headers": [(b"a", b"b")]})
            await send({"type": "http.response.body", "body": b"{}"})

        return CallerMiddleware(answers)

    assert asyncio.run(asked(app("chat-1"), "POST", "/x"))[:3] == (201, {"a": "b", "x-firsthand-session": "chat-1"}, {})
    assert asyncio.run(asked(app(""), "POST", "/x"))[:3] == (201, {"a": "b"}, {})


# -- doors and files --


def test_the_doors_of_an_agent_are_its_sessions_then_the_interfaces_with_their_settings(tmp_path: Path) -> None:
    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
        served = ServedAgent(
            sessions, agent_models(sessions), Admission(), ServerTelemetry(TelemetrySettings(log="none")),
            ListenAddress(port=0), "http://x:1", "Clerks.", ("one", "two"), OpenAISettings(private_caches=True),
            A2ASettings(public_url="https://p.example"),
        )  # fmt: skip
        doors = open_doors(served)
        first, second, *others = doors
        assert isinstance(first.app, SessionsApp) and isinstance(second.app, CallerMiddleware)
        assert second.route_of("/v1/chat/completions") == "/v1/chat/completions" and second.prefix == ""
        prefixes = [door.prefix for door in others]
        assert prefixes in (["", "/mcp"], [""], ["/mcp"], []) and sessions.slots.most_own == 8
        if prefixes[:1] == [""]:
            app: Any = others[0].app
            path = "/.well-known/agent-card.json"
            status, _, card, _ = asyncio.run(asked(app, "GET", path, query_string=b"", root_path=""))
            assert status == 200 and card["description"] == "Clerks." and len(sessions.on_begin) == 1
            assert [skill.get("examples") for skill in card["skills"]] == [["one", "two"]]
            assert {each["url"].split("/a2a")[0] for each in card["supportedInterfaces"]} == {"https://p.example"}
        two = Keys(tuple(Client(name, ClientLimits()) for name in ("ann", "bob")))
        open_doors(replace(served, admission=Admission(two)))
        assert sessions.slots.most_own == 7, "with several keys, one of eight is for the others"


def test_an_agent_is_made_of_the_parts_that_its_file_names(tmp_path: Path) -> None:
    script = tmp_path / "answers.json"
    script.write_text('["hello"]')
    model = f"scripted:{script}"
    made = open_agent(AgentFile(
        model, "clerk", pattern="react:max_steps=4", tools=("calculator",), system="Be kind.",
        approve=("read=ask",), max_tokens=7, temperature=0.5, budget_tokens=1,
        budget_calls=2, budget_seconds=3.0, budget_usd=4.0,
    ))  # fmt: skip
    assert (made.name, made.system, made.sampling.max_tokens, made.sampling.temperature) == (
        "clerk",
        "Be kind.",
        7,
        0.5,
    )
    assert [tool.name for tool in made.own_tools] == ["calculator"] and made.options == {"max_steps": 4}
    assert (made.limits.tokens, made.limits.calls, made.limits.seconds, made.limits.cost_usd) == (1, 2, 3.0, 4.0)
    assert made.guard is None and made.memory is None
    assert made.approval == Approval({"read": "ask"}) and made.model.name == model
    with pytest.raises(ConfigError, match="device is 'cuda'"):
        open_agent(AgentFile(model, device="cuda"))
    with pytest.raises(ConfigError, match="reed"):
        open_agent(AgentFile(model, approve=("reed=ask",)))
    plain = open_agent(AgentFile(model))
    assert (plain.name, plain.system, plain.sampling.max_tokens, plain.sampling.temperature) == (
        "agent",
        None,
        1024,
        0.0,
    )
    assert plain.own_tools == () and plain.limits.tokens is None and not plain.approval.rules
    remembers = open_agent(AgentFile(model, memory="notes:lifetime=agent", guard=("redact:pattern=SECRET",)))
    assert [type(each).__name__ for each in remembers.guards] == ["Redact"] and plain.guards == ()
    assert remembers.memory is not None


# -- chats as sessions --


def test_a_chat_goes_on_with_the_session_of_its_client_alone_and_brings_its_opening_along(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        model, store = SessionModel(sessions), sessions.store

        async def chat(*messages: Message, who: str = "ann") -> tuple[str, str]:
            me = Caller(who)
            caller.set(me)
            (completion,) = await model.complete(list(messages), Sampling())
            return completion.message.text, me.session

        call = assistant("", ToolCall("a", ASK, {}))
        result = Message("tool", (ToolResult("a", ASK, "yes"),))
        opening = (system("S"), user("before"), call, result, assistant("so"))
        text, context = await chat(*opening, user("hi"))
        row = store.find_session("ann", context)
        assert row is not None and row.conversation == (system("S"), user("before"), assistant("so"))
        assert text == "You said hi, after 1 others."
        text, same = await chat(*opening, user("hi"), assistant(text), user(" yo "))
        assert (text, same) == ("You said  yo , after 2 others.", context)
        assert store.sessions()[0].owner == "ann" and [turn.prompt for turn in store.turns(row.id)] == ["hi", " yo "]
        _, apart = await chat(system("S"), user("hi"))
        assert apart != context, "a first question begins a session of its own"
        mine, theirs = await chat(user("q"), who="ann"), await chat(user("q"), who="bob")
        assert mine[1] != theirs[1] and len(store.sessions()) == 4

        turn = sessions.submit("ann", "lost", context="chat-lost", conversation=(system("S"),))
        await sessions.settled(turn.id)
        other = sessions.submit("ann", "lost", context="other-door", conversation=(system("S"),))
        await sessions.settled(other.id)
        assert (await chat(system("T"), user("lost")))[1] not in ("chat-lost", "other-door")
        assert (await chat(system("S"), user("lost"), who="bob"))[1] not in ("chat-lost", "other-door")
        assert (await chat(system("S"), user("lost")))[1] == "chat-lost"
        assert (await chat(system("S"), user("lost")))[1] not in ("chat-lost", "other-door"), "it was delivered"
        followed = sessions.submit("ann", "pay 1", context="chat-followed")
        news = sessions.follow(followed.id)
        await anext(news)
        assert model._left(Caller("ann"), [], "pay 1") is None, "somebody waits for it"
        await news.aclose()
        found = model._left(Caller("ann"), [], "pay 1")
        assert found is not None and found.id == followed.id
        for messages, id in (([], None), ([user("pay 1")], followed.id)):
            turn = await model._turn(Caller("ann"), "alone", messages)
            assert turn.id == id if id else (turn.prompt, turn.number) == ("alone", 1)

        await sessions.settled(followed.id)
        (asks,) = store.pending(followed.id)
        answers = {"approval": asks.id}
        two = [user("pay 1"), assistant("", ToolCall("k", ASK, answers), ToolCall("l", "else", answers)),
               Message("tool", (ToolResult("k", ASK, '{"allowed": "no"}'),))]  # fmt: skip
        turn = await model._turn(Caller("ann"), "", two)
        kept = store.approval(asks.id)
        assert turn.id == followed.id and (kept.state, kept.answered_by) == ("denied", "ann")
        assert (await model._turn(Caller("ann"), "", two)).id == followed.id, "a retry"
        await sessions.settled(followed.id)

    within(clerk(desk), tmp_path, use)


def test_a_session_model_is_named_and_fingerprinted_by_its_agent(tmp_path: Path) -> None:
    with opened_sessions(clerk(Desk(), system="é"), tmp_path, tmp_path / "s") as sessions:
        model = SessionModel(sessions)
        with opened_sessions(clerk(Desk(), system="é!"), tmp_path, tmp_path / "t") as others:
            assert SessionModel(others).fingerprint != model.fingerprint == SessionModel(sessions).fingerprint
        assert model.name == "clerk" and model.fingerprint.startswith("served:") and len(model.fingerprint) == 23


def test_the_model_of_an_agent_is_loaded_before_its_first_turn(tmp_path: Path) -> None:
    loaded: list[str] = []

    class Loads(Echo):
        async def load(self) -> Any:
            loaded.append("loaded")
            return await super().load()

    async def pattern(task: Any, ctx: Any) -> str:
        return str(loaded)

    async def use(sessions: ServedSessions) -> None:
        app = sessions_app(sessions)
        assert app.lifespan is not None and loaded == []
        async with app.lifespan():
            turn = sessions.submit("ann", "q", context="c")
            assert (await sessions.settled(turn.id)).answer == "['loaded']"
        assert sessions._closing

    async def main() -> None:
        with opened_sessions(Agent("a", Loads(), pattern), tmp_path, tmp_path / "s") as sessions:
            await use(sessions)

    asyncio.run(main())
