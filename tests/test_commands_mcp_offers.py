"""What `firsthand mcp` offers by its flags, and how it ends."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from firsthand.commands import mcp
from firsthand.errors import ConfigError


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_what_an_mcp_server_offers_follows_its_flags(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    pytest.importorskip("mcp")
    from firsthand.serve.mcp import agent_offer, benchmark_offer, index_offer

    asked: list[Any] = []
    monkeypatch.setattr(index_offer, "offer_index", lambda offer, path, only: asked.append((path, only)))
    monkeypatch.setattr(agent_offer, "offer_agents", lambda offer, agents, record: asked.append((agents, record)))
    monkeypatch.setattr(benchmark_offer, "offer_benchmarks", lambda offer, names, agents: asked.append((names, agents)))
    monkeypatch.setattr(mcp, "make_agents_of", lambda config, offer: ["agent"] if config.model else ())
    record: Any = SimpleNamespace(tasks=None)
    made = mcp.make_server(mcp.Config(("calculator",), benchmark=("arithmetic",)), record)
    assert asked == [(("arithmetic",), ())] and made.offer.version == mcp.__version__
    assert [each.name for each in made.offer.tools] == ["calculator"]
    asked.clear()
    mcp.make_server(mcp.Config(index=("a", "b"), model="m", benchmark=("arithmetic",)), record)
    assert asked == [("a", False), ("b", False), (["agent"], record), (("arithmetic",), ["agent"])]
    asked.clear()
    mcp.make_server(mcp.Config(index=("a",)), record)
    assert asked == [("a", True)]


def test_a_server_over_standard_input_ends_with_its_record_closed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mcp")
    from firsthand.serve.mcp import agent_offer, mcp_transports
    from firsthand.tools.mcp import remote_tools

    told: list[Any] = []
    record = SimpleNamespace(close=lambda: told.append("closed"))
    monkeypatch.setattr(agent_offer, "CallRecord", lambda folder: told.append(folder) or record)
    monkeypatch.setattr(mcp, "make_server", lambda config, kept: told.append(kept is record) or "made")

    async def serve_stdio(made: Any) -> None:
        told.append(made)
        if stops:
            raise stops[0]

    stops: list[BaseException] = []
    monkeypatch.setattr(mcp_transports, "serve_stdio", serve_stdio)
    monkeypatch.setattr(mcp.interruption, "run", asyncio.run)
    config = mcp.Config(("calculator",), record=tmp_path)
    assert mcp.main(config) == 0 and told == [tmp_path, True, "made", "closed"]
    stops.append(KeyboardInterrupt())
    told.clear()
    assert mcp.main(config) == 0 and told[-1] == "closed"
    stops[:] = [OSError("gone")]
    told.clear()
    with pytest.raises(OSError, match="gone"):
        mcp.main(replace(config, record=None))
    assert told == [None, True, "made", "closed"] and capsys.readouterr().out == ""

    class Source:
        def __init__(self, declared: Any, sign_in: Any) -> None:
            told.append((declared.url, declared.oauth, declared.opening_s))
            made = sign_in()
            made.close()
            told.append((made.declaration is declared, made.registers_anew))
            self.tools = ["one", "two"]

        async def open(self) -> None:
            told.append("open")

        async def close(self) -> None:
            told.append("close")

    monkeypatch.setattr(remote_tools, "RemoteTools", Source)
    told.clear()
    assert mcp.main(mcp.Config(sign_in="https://m.example/mcp")) == 0
    assert told == [("https://m.example/mcp", True, 330.0), (True, True), "open", "close"]
    assert capsys.readouterr().out == "signed in to https://m.example/mcp: 2 tools\n"


def test_the_keys_of_a_server_are_those_of_its_own_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mcp")
    from firsthand.commands import rag_serve
    from firsthand.serve.admission import api_keys
    from firsthand.serve.admission.admission_settings import ClientLimits

    asked: list[Any] = []

    def read(file: Path | None, environment: Any, limits: ClientLimits) -> None:
        asked.append((file, environment is os.environ, limits))
        raise ConfigError("bad keys")

    monkeypatch.setattr(api_keys, "read_keys", read)
    limits, made = ClientLimits(body_bytes=2000), cast(Any, None)
    config = mcp.Config(("calculator",), http=True, record=Path("record"), keys=Path("keys"), limits=limits)
    with pytest.raises(ConfigError, match="bad keys"):
        mcp.serve_http(config, made)
    with pytest.raises(ConfigError, match="bad keys"):
        rag_serve.run(rag_serve.Config(Path("index"), keys=Path("keys"), limits=limits))
    assert asked == [(Path("keys"), True, limits)] * 2


def test_each_server_admits_and_tells_as_its_own_flags_say(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mcp")
    from firsthand.commands import agent_server, rag_serve, serve
    from firsthand.retrieval import corpus
    from firsthand.serve.admission import server_admission
    from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
    from firsthand.serve.agents import agent_file
    from firsthand.serve.http.listen_address import ListenAddress
    from firsthand.serve.models import served_models
    from firsthand.serve.telemetry import server_telemetry
    from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings

    asked: list[Any] = []

    def admission(keys: Any, settings: Any, *, mean_request_s: Any) -> None:
        asked.append((settings, mean_request_s))
        raise ConfigError("nobody")

    admitted, told = AdmissionSettings(max_requests=3), TelemetrySettings(log="none")
    monkeypatch.setattr(server_admission, "Admission", admission)
    monkeypatch.setattr(
        server_telemetry,
        "ServerTelemetry",
        lambda given: SimpleNamespace(metrics=SimpleNamespace(mean_request_s=given)),
    )
    monkeypatch.setattr(served_models, "ServedModels", lambda *given, name: SimpleNamespace(name=name))
    monkeypatch.setattr(corpus, "open_corpus", lambda index: SimpleNamespace(embedder=None))
    monkeypatch.setattr(serve, "open_here", lambda config: (None, None))
    monkeypatch.setattr(
        agent_file, "read_agent_file", lambda path: SimpleNamespace(model="scripted:x", shared_memory=True)
    )
    monkeypatch.setattr(agent_file, "open_agent", lambda file: SimpleNamespace(memory=None))
    parts: dict[str, Any] = {"admission": admitted, "telemetry": told}
    for run in (
        lambda: serve.main(serve.Config("m", **parts)),
        lambda: rag_serve.run(rag_serve.Config(answer=rag_serve.AnswerFlags(model="none"), **parts)),
        lambda: mcp.serve_http(mcp.Config(("calculator",), http=True, **parts), cast(Any, None)),
        lambda: agent_server.serve_agent(
            Path("a.toml"), folder=None, listen=ListenAddress(port=9), key_file=None, limits=ClientLimits(),
            admitted=admitted, recorded=told, openai=cast(Any, None), session_limits=cast(Any, None), a2a=cast(Any, None),
        ),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="nobody"):
            run()
    assert asked == [(admitted, told)] * 4


def test_the_mcp_server_is_told_the_host_that_it_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mcp")
    from firsthand.serve.http.listen_address import ListenAddress
    from firsthand.serve.mcp import mcp_transports

    asked: list[Any] = []

    def app(made: Any, host: str) -> None:
        asked.append((made, host))
        raise ConfigError("no app")

    monkeypatch.setattr(mcp_transports, "mcp_app", app)
    config = mcp.Config(("calculator",), http=True, record=Path("record"), listen=ListenAddress(host="localhost"))
    with pytest.raises(ConfigError, match="no app"):
        mcp.serve_http(config, cast(Any, "made"))
    assert asked == [("made", "localhost")]
