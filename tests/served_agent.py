"""A served agent for the tests: sessions in a folder, all doors, a server in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from firsthand.agent import Agent
from firsthand.commands.agent_server import url_of, with_port
from firsthand.message import Message, ToolCall, assistant
from firsthand.model import Sampling
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.serve.a2a.a2a_settings import A2ASettings
from firsthand.serve.admission.admission_settings import AdmissionSettings
from firsthand.serve.admission.api_keys import Keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.agents.agent_doors import ServedAgent, agent_models, open_doors, opened_sessions
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.http.app import ServerApp
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.server import Server
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings
from firsthand.tool import Tool, tool_from_function
from served import Running, until


def scripted(messages: Sequence[Message], sampling: Sampling, index: int) -> str | Message:
    """Pays where it is asked to, and says what came of it."""
    last = messages[-1]
    if last.role == "tool":
        return f"Done: {last.parts[-1].content}"  # type: ignore[union-attr]
    asked = last.text.split("\n")[0]
    if asked.startswith("pay"):
        amounts = [int(word) for word in asked.split() if word.isdigit()]
        return assistant("", *(ToolCall(f"c{at}", "pay", {"amount": each}) for at, each in enumerate(amounts)))
    if asked.startswith("wait"):
        return assistant("", ToolCall("c0", "wait", {}))
    return f"You said {asked}, after {sum(each.role == 'user' for each in messages) - 1} others."


class Desk:
    """The tools of the agent, and what they did."""

    def __init__(self) -> None:
        self.paid: list[int] = []
        self.waited = 0
        self.waiting, self.go = threading.Event(), threading.Event()

    def tools(self) -> tuple[Tool, ...]:
        def pay(amount: int) -> str:
            """Pay an amount."""
            self.paid.append(amount)
            return f"paid {amount}"

        async def wait() -> str:
            """Wait until somebody says go."""
            self.waited += 1
            self.waiting.set()
            while not self.go.is_set():
                await asyncio.sleep(0.005)
            return "it is over"

        return tool_from_function(pay, effect="irreversible"), tool_from_function(wait, effect="read")


def clerk(desk: Desk, **more: Any) -> Agent:
    return Agent("clerk", Scripted(scripted, name="scripted:clerk"), react, {"native": True}, desk.tools(), **more)


def within_sessions(
    agent: Agent,
    folder: Path,
    use: Callable[[ServedSessions], Coroutine[Any, Any, Any]],
    *,
    seed: int = 40,
    **settings: Any,
) -> Any:
    """What `use` makes of an agent's sessions while they run; `on_bug` appends to their `bugs`."""

    async def main() -> Any:
        limits = SessionSettings(**{"poll_s": 0.01} | settings)
        with opened_sessions(agent, folder, folder / "s", limits, seed=seed) as sessions:
            sessions.bugs = []  # type: ignore[attr-defined]
            sessions.on_bug = sessions.bugs.append  # type: ignore[attr-defined]
            async with sessions.running():
                return await asyncio.wait_for(use(sessions), 30)

    return asyncio.run(main())


class RunningAgent(Running):
    """A server of an agent under way."""

    sessions: ServedSessions
    bugs: list[str]


@contextmanager
def serving_agent(
    agent: Agent,
    folder: Path,
    *,
    keys: Keys | None = None,
    sessions: SessionSettings | None = None,
    description: str = "",
    **a2a: Any,
) -> Iterator[RunningAgent]:
    """A server of an agent that is ready; `a2a` are fields of A2ASettings."""
    address = with_port(ListenAddress(port=0))
    telemetry = ServerTelemetry(TelemetrySettings(log="none"))
    admission = Admission(keys, AdmissionSettings(drain_s=2.0), mean_request_s=telemetry.metrics.mean_request_s)
    limits = sessions or SessionSettings(poll_s=0.02)
    with opened_sessions(agent, folder, folder / "sessions", limits) as opened:
        bugs: list[str] = []
        opened.on_bug = bugs.append
        served = ServedAgent(
            opened, agent_models(opened), admission, telemetry, address, url_of(address), description,
            a2a=A2ASettings(**a2a),
        )  # fmt: skip
        server = Server(ServerApp(served.models, admission, telemetry, open_doors(served)), address)
        listening = server.open()
        loops: list[asyncio.AbstractEventLoop] = []

        def run() -> None:
            async def main() -> None:
                loops.append(asyncio.get_running_loop())
                await server.run_until_stopped(listening)

            asyncio.run(main())

        thread = threading.Thread(target=run, name="served-agent")
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive())
            assert server.started, "the server ended before it listened"
            running = RunningAgent(server, thread, loops[0])
            running.sessions, running.bugs = opened, bugs
            yield running
        finally:
            server.force_exit = server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()
