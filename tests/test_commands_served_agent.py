"""`serve_agent` serves an agent's file by all its settings until a signal comes, in this process."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand import model
from firsthand.commands import agent_server
from firsthand.errors import ConfigError
from firsthand.runs import store
from firsthand.serve.a2a.a2a_settings import A2ASettings
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.agents import agent_doors
from firsthand.serve.agents.agent_doors import speaks_a2a, speaks_mcp
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings

KEY = "k" * 32


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of an agent with a scripted model."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FIRSTHAND_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    Path("s.json").write_text('{"": "It is seven."}')
    lines = ('name = "clerk"', 'description = "Tells the time."', 'model = "scripted:s.json"', 'pattern = "reply"')
    Path("clerk.toml").write_text("\n".join([*lines, 'skill = ["What time?"]', ""]))
    return tmp_path / "clerk.toml"


def asked(address: ListenAddress, method: str, path: str, body: Any = None, *, key: str = KEY) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"} if key else {}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, json.loads(text) if text.startswith("{") else text


def served(file: Path, address: ListenAddress, asks: Callable[[], None], **more: Any) -> int:
    """Serve in this thread; once the server is ready another one asks, and then sends the signal of Ctrl-C."""

    def client() -> None:
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < 30:
                try:
                    if asked(address, "GET", "/v1/models")[0] == 200:
                        break
                except OSError:
                    pass
                time.sleep(0.01)
            asks()
        finally:
            if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # the server's own is in place
                os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=client)
    thread.start()
    given: dict[str, Any] = {
        "folder": None, "key_file": None, "limits": ClientLimits(), "admitted": AdmissionSettings(drain_s=0.2),
        "openai": OpenAISettings(), "recorded": TelemetrySettings(log="none"), "session_limits": SessionSettings(),
        "a2a": A2ASettings(),
    }  # fmt: skip
    try:
        return agent_server.serve_agent(file, listen=address, **{**given, **more})
    finally:
        thread.join(60)


def test_an_agent_is_served_by_its_file_and_settings_until_a_signal_comes(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offered: list[Any] = []
    real = agent_doors.ServedAgent
    monkeypatch.setattr(agent_doors, "ServedAgent", lambda *given: offered.append(real(*given)) or offered[0])
    told: list[Any] = []
    closed = model.close
    monkeypatch.setattr(agent_server, "fetch_named", lambda name: told.append(("fetched", name)))
    monkeypatch.setattr(
        model, "close", lambda *models: told.append(("closed", *(m.name for m in models))) or closed(*models)
    )
    for name in ("open_spans", "close"):
        whole = getattr(ServerTelemetry, name)
        monkeypatch.setattr(ServerTelemetry, name, lambda self, n=name, whole=whole: told.append(n) or whole(self))
    address = agent_server.with_port(ListenAddress(port=0))
    folder, log = tmp_path / "kept", tmp_path / "log.jsonl"
    url = f"http://127.0.0.1:{address.port}"
    found: dict[str, Any] = {}

    def asks() -> None:
        offered[0].sessions.on_bug("a bug")
        found["models"] = asked(address, "GET", "/v1/models")
        found["nobody"] = asked(address, "GET", "/v1/models", key="")
        body = {"model": "clerk", "messages": [{"role": "user", "content": "What time is it?"}]}
        found["answer"] = asked(address, "POST", "/v1/chat/completions", body)
        found["long"] = asked(address, "POST", "/v1/chat/completions", body | {"user": "u" * 3000})
        found["host"] = asked(address, "GET", "/.well-known/agent-card.json", key="")

    given = {
        "openai": OpenAISettings(stored_responses=3), "session_limits": SessionSettings(max_turns=2),
        "admitted": AdmissionSettings(max_requests=9, drain_s=0.2), "a2a": A2ASettings(public_url="https://clerk.example"),
    }  # fmt: skip
    code = served(file, address, asks, folder=folder, limits=ClientLimits(body_bytes=2000),
                  recorded=TelemetrySettings(log=str(log)), **given)  # fmt: skip
    assert code == 0
    assert told == [("fetched", "scripted:s.json"), "open_spans", "close", ("closed", "scripted:s.json")]
    made = offered[0]
    assert (made.openai, made.a2a, made.sessions.settings) == (given["openai"], given["a2a"], given["session_limits"])
    assert made.admission._mean_request_s == made.telemetry.metrics.mean_request_s, "refused clients wait as long"
    assert made.admission.settings == given["admitted"] and (made.address, made.url) == (address, url)
    assert (made.description, made.examples) == ("Tells the time.", ("What time?",))
    out, err = capsys.readouterr()
    also = f", as an A2A agent at {url}" * speaks_a2a() + f", to MCP clients at {url}/mcp" * speaks_mcp()
    assert out == f"clerk is served at {url}/v1{also} (Ctrl-C ends it)\nsessions  {folder}\n"
    assert (agent_server.NO_A2A in err) is not speaks_a2a()
    status, models = found["models"]
    assert status == 200 and [each["id"] for each in models["data"]] == ["clerk"]
    assert found["nobody"][0] == 401 and found["long"][0] == 413
    status, answer = found["answer"]
    assert status == 200 and answer["choices"][0]["message"]["content"] == "It is seven."
    if speaks_a2a():
        status, card = found["host"]
        assert status == 200 and (card["name"], card["description"]) == ("clerk", "Tells the time.")
        assert "https://clerk.example" in json.dumps(card) and "What time?" in json.dumps(card["skills"])
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    events = [line["event"] for line in lines]
    assert [line["error"] for line in lines if line["event"] == "turn_failed"] == ["a bug"]
    assert events[0] == "ready" and events[-2:] == ["draining", "stopped"]
    with store.open_run(folder, tmp_path / "home") as run:
        assert run.config["served"]["name"] == "clerk" and run.info.status != "running"
    with pytest.raises(OSError, match="refused"):
        asked(address, "GET", "/v1/models")


def test_an_agent_that_cannot_be_served_is_refused_before_anything_is_opened(file: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    given: dict[str, Any] = {
        "folder": None, "key_file": None, "limits": ClientLimits(), "admitted": AdmissionSettings(),
        "openai": OpenAISettings(), "recorded": TelemetrySettings(log="none"), "session_limits": SessionSettings(),
        "a2a": A2ASettings(), "listen": ListenAddress(port=0),
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"keys\.toml"):
        agent_server.serve_agent(file, **{**given, "key_file": keys})
    wide = ListenAddress(host="0.0.0.0", port=0)
    with pytest.raises(ConfigError, match=r"none\.toml"):  # the key of the environment is enough for others to reach it
        agent_server.serve_agent(tmp_path / "none.toml", **{**given, "listen": wide})
    os.environ.pop("FIRSTHAND_API_KEY")
    with pytest.raises(ConfigError, match=r"host is '0\.0\.0\.0', which others can reach, and there are no API keys"):
        agent_server.serve_agent(tmp_path / "none.toml", **{**given, "listen": wide})
    keys.write_text(f'[ada]\nkey = "{KEY}"\n')
    with pytest.raises(ConfigError, match=r"none\.toml"):
        agent_server.serve_agent(tmp_path / "none.toml", **{**given, "listen": wide, "key_file": keys})
    with pytest.raises(ConfigError, match=r"none\.toml"):
        agent_server.serve_agent(tmp_path / "none.toml", **given)
    file.write_text('name = "clerk"\n')
    with pytest.raises(ConfigError, match="names no model"):
        agent_server.serve_agent(file, **given)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(("a2a", "mcp"), [(False, False), (False, True), (True, False)])
def test_a_server_that_cannot_go_on_closes_its_log_and_its_model(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], a2a: bool, mcp: bool
) -> None:
    from firsthand.serve.http import server

    told: list[Any] = []

    def serve(app: Any, address: ListenAddress, *, on_open: Any) -> None:
        told.append(address.port)
        on_open("http://here")
        raise OSError("in use")

    monkeypatch.setattr(agent_doors, "open_doors", lambda served: [])
    monkeypatch.setattr(agent_doors, "speaks_a2a", lambda: a2a)
    monkeypatch.setattr(agent_doors, "speaks_mcp", lambda: mcp)
    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr(model, "close", lambda *models: told.append([each.name for each in models]))
    closed = ServerTelemetry.close
    monkeypatch.setattr(ServerTelemetry, "close", lambda self: told.append("telemetry") or closed(self))
    with pytest.raises(OSError, match=r"^in use$"):
        agent_server.serve_agent(
            file, folder=None, listen=ListenAddress(port=4321), key_file=None, limits=ClientLimits(),
            admitted=AdmissionSettings(), openai=OpenAISettings(), recorded=TelemetrySettings(log="none"),
            session_limits=SessionSettings(), a2a=A2ASettings(),
        )  # fmt: skip
    assert told == [4321, "telemetry", ["scripted:s.json"]]
    also = ", as an A2A agent at http://here" * a2a + ", to MCP clients at http://here/mcp" * mcp
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"clerk is served at http://here/v1{also} (Ctrl-C ends it)"
    assert err == ("" if a2a else f"firsthand: {agent_server.NO_A2A}\n")
