"""Serves an agent from a TOML file for `firsthand serve --agent`: OpenAI's interface, A2A and the other doors at once."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

from firsthand.errors import MissingExtra
from firsthand.hub.fetch_model import fetch_named
from firsthand.serve.a2a.a2a_settings import A2ASettings
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings
from firsthand.system.home import data_home
from firsthand.system.terminal import complain

NO_A2A = "A2A is left out, because its SDK is not installed: pip install 'firsthand[a2a]'"


def serve_agent(
    path: Path,
    *,
    folder: Path | None,
    listen: ListenAddress,
    key_file: Path | None,
    limits: ClientLimits,
    admitted: AdmissionSettings,
    openai: OpenAISettings,
    recorded: TelemetrySettings,
    session_limits: SessionSettings,
    a2a: A2ASettings,
) -> int:
    """Serve the agent of a file until a signal comes; open turns go on when the same folder is served again."""
    try:
        from firsthand.serve.http.app import ServerApp
        from firsthand.serve.http.server import serve
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve", "firsthand serve") from None
    from firsthand.model import close
    from firsthand.serve.admission.admission_settings import check_binding
    from firsthand.serve.admission.api_keys import read_keys
    from firsthand.serve.admission.server_admission import Admission
    from firsthand.serve.agents.agent_doors import (
        ServedAgent,
        agent_models,
        open_doors,
        opened_sessions,
        speaks_a2a,
        speaks_mcp,
    )
    from firsthand.serve.agents.agent_file import open_agent, read_agent_file
    from firsthand.serve.agents.client_memories import ClientMemories
    from firsthand.serve.telemetry.server_telemetry import ServerTelemetry

    keys = read_keys(key_file, os.environ, limits)
    check_binding(listen.host, bool(keys.clients))
    file = read_agent_file(path)
    fetch_named(file.model)
    agent = open_agent(file)
    memories = ClientMemories(agent.memory, shared=file.shared_memory)
    for client in keys.clients:
        memories.of(client.name)  # refused before anything is opened
    address = with_port(listen)
    telemetry = ServerTelemetry(recorded)
    admission = Admission(keys, admitted, mean_request_s=telemetry.metrics.mean_request_s)
    if not speaks_a2a():
        complain(NO_A2A)
    try:
        with opened_sessions(agent, data_home(), folder, session_limits, shared_memory=file.shared_memory) as sessions:
            sessions.on_bug = lambda text: telemetry.log.write("turn_failed", error=text)
            served = ServedAgent(
                sessions,
                agent_models(sessions),
                admission,
                telemetry,
                address,
                url_of(address),
                file.description,
                file.skill,
                openai,
                a2a,
            )
            app = ServerApp(served.models, admission, telemetry, open_doors(served))

            def announce(url: str) -> None:
                also = f", as an A2A agent at {url}" if speaks_a2a() else ""
                also += f", to MCP clients at {url}/mcp" if speaks_mcp() else ""
                print(f"{agent.name} is served at {url}/v1{also} (Ctrl-C ends it)", flush=True)
                print(f"sessions  {sessions.run.path}", flush=True)

            telemetry.open_spans()
            serve(app, address, on_open=announce)
    finally:
        telemetry.close()
        close(agent.model)
    return 0


def with_port(address: ListenAddress) -> ListenAddress:
    """The address with a port that is free now, where it leaves the choice: the agent's card names it."""
    if address.port:
        return address
    with socket.socket() as probe:
        probe.bind((address.host, 0))
        return replace(address, port=probe.getsockname()[1])


def url_of(address: ListenAddress) -> str:
    """The URL of a server at an address."""
    host = address.host.strip("[]")
    scheme = "https" if address.tls_cert else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{address.port}"
