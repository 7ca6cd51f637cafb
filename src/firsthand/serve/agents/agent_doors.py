"""The doors of a served agent: the apps of one server through which clients of different protocols reach its sessions.

A door is an app over `ServedSessions`: OpenAI's interface, A2A, MCP, and plain routes for sessions and approvals.
`open_doors` lists them; another protocol is another line there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from firsthand.agent import Agent
from firsthand.runs import store as runs
from firsthand.runs.run_folder import Run
from firsthand.serve.a2a.a2a_settings import A2ASettings
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.agents.caller_middleware import CallerMiddleware
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_model import SessionModel
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.agents.session_store import SessionStore
from firsthand.serve.agents.sessions_app import sessions_app
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.models.served_models import ServedModels
from firsthand.serve.openai.openai_app import openai_app
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry


@dataclass(frozen=True)
class ServedAgent:
    """An agent's sessions, and what a door needs to know of the server."""

    sessions: ServedSessions
    models: ServedModels
    """The agent as a model, for OpenAI's routes."""
    admission: Admission
    telemetry: ServerTelemetry
    address: ListenAddress
    url: str
    """The server's own URL."""
    description: str = ""
    examples: tuple[str, ...] = ()
    openai: OpenAISettings = field(default_factory=OpenAISettings)
    a2a: A2ASettings = field(default_factory=A2ASettings)


def agent_models(sessions: ServedSessions) -> ServedModels:
    """The agent as the one model of a server."""
    return ServedModels(SessionModel(sessions), name=sessions.agent.name)


def open_doors(served: ServedAgent) -> list[MountedApp]:
    """The apps of an agent's server. The first runs the sessions, so the others may count on them."""
    served.sessions.charge = served.admission.charge_by_name
    served.sessions.slots.share(len(served.admission.keys.clients))
    openai = openai_app(served.models, served.admission, served.telemetry, served.openai)
    doors = [sessions_app(served.sessions), replace(openai, app=CallerMiddleware(openai.app))]
    if speaks_a2a():
        from firsthand.serve.a2a.a2a_door import a2a_door

        doors.append(
            a2a_door(
                served.sessions,
                served.admission,
                served.address,
                served.a2a,
                url=served.url,
                description=served.description,
                examples=served.examples,
            )
        )
    if speaks_mcp():
        from firsthand.serve.mcp.session_door import session_door

        doors.append(session_door(served.sessions, served.address.host, served.description))
    return doors


def speaks_mcp() -> bool:
    """True if the MCP SDK is installed."""
    return importlib.util.find_spec("mcp") is not None


def speaks_a2a() -> bool:
    """True if the A2A SDK is installed."""
    return importlib.util.find_spec("a2a") is not None


@contextmanager
def opened_sessions(
    agent: Agent,
    home: Path,
    folder: Path | None,
    settings: SessionSettings | None = None,
    *,
    seed: int = 0,
    shared_memory: bool = False,
) -> Iterator[ServedSessions]:
    """The sessions kept in `folder`, or in a new run of `home`; closed after the block."""
    with sessions_run(agent, home, folder) as run:
        run.expect_idle()
        store = SessionStore(run.path, create=True)
        try:
            yield ServedSessions(agent, run, store, settings, seed=seed, shared_memory=shared_memory)
        finally:
            store.close()


def sessions_run(agent: Agent, home: Path, folder: Path | None) -> Run:
    """The run of an agent's sessions: that in the folder, made if there is none, or a new one of `home`."""
    about, name = {"served": agent.to_json()}, f"served-{agent.name.lower().replace(' ', '-')}"
    return runs.create(home, about, name) if folder is None else runs.open_or_create(home, about, name, at=folder)
