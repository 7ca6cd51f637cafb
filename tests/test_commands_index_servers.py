"""`rag serve` and `mcp --http` in this process: what they open, print, answer and close again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corpus_tiny import write_index
from firsthand import model as models
from firsthand.commands import mcp, rag_ask, rag_serve
from firsthand.errors import ConfigError
from firsthand.retrieval import corpus
from firsthand.retrieval.answers import rag_model
from firsthand.retrieval.corpus import close_corpora
from firsthand.serve.admission.admission_settings import AdmissionSettings
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings
from served_in_thread import asked, free_port, telemetry_told, until_signal, wide_address


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("FIRSTHAND_API_KEY", raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.json").write_text('{"": "It is seven."}')
    yield tmp_path / "home"
    close_corpora()


@pytest.mark.slow
def test_an_index_is_served_with_and_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = write_index(
        tmp_path / "d.index", {"mill.md": "The mill was built in 1871.\n", "b.txt": "River.\n"}, vectors=False
    )
    told: list[Any] = []
    telemetry_told(monkeypatch, told)
    monkeypatch.setattr(corpus, "close_corpora", lambda: told.append("corpora closed"))
    closed = models.close
    for module in (models, rag_model):
        monkeypatch.setattr(
            module, "close", lambda *given: told.append(given[0] and type(given[0]).__name__) or closed(*given)
        )
    for name, model in (("none", "none"), ("own", f"scripted:{tmp_path}/s.json")):
        port, found = free_port(), {}

        def asks(port: int = port, found: dict[str, Any] = found) -> None:
            found["search"] = asked(port, "POST", "/search", {"query": "mill", "search": "lexical", "k": 1})[1]
            found["answer"] = asked(port, "POST", "/answer", {"question": "When was the mill built?"})
            found["models"] = asked(port, "GET", "/v1/models")[1]

        config = rag_serve.Config(
            index, name="docs", answer=rag_ask.AnswerFlags(model=model), listen=ListenAddress(port=port),
            telemetry=TelemetrySettings(log="none"), admission=AdmissionSettings(drain_s=0.2),
        ) if name == "own" else rag_serve.Config(
            index, answer=rag_ask.AnswerFlags(model=model), listen=ListenAddress(port=port),
            telemetry=TelemetrySettings(log="none"), admission=AdmissionSettings(drain_s=0.2),
        )  # fmt: skip
        told.clear()
        assert until_signal(port, lambda config=config: rag_serve.run(config), asks) == 0  # type: ignore[misc]
        url = f"http://127.0.0.1:{port}"
        routes = f"{url}/search" if name == "none" else f"{url}/v1, {url}/search and {url}/answer"
        assert capsys.readouterr().out == f"{index} is served at {routes} (Ctrl-C ends it)\n"
        assert [hit["document"] for hit in found["search"]["data"]] == ["mill.md"], found["search"]
        assert (found["answer"][0] == 200) is (name == "own"), found["answer"]
        listed = [each["id"] for each in found["models"]["data"]]
        assert ("docs" in listed) is (name == "own"), listed
        assert told == ["open_spans", "close"] + (["RagModel", "Scripted"] if name == "own" else [None]) + [
            "corpora closed"
        ]
    with (
        wide_address() as wide,
        pytest.raises(ConfigError, match=r"host is '0\.0\.0\.0', which others can reach, and there are no API keys"),
    ):
        rag_serve.run(rag_serve.Config(index, listen=wide))


def test_tools_are_served_over_http_and_the_record_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mcp")
    told: list[Any] = []
    telemetry_told(monkeypatch, told)
    port, found = free_port(), {}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}

    def asks() -> None:
        found["health"] = asked(port, "GET", "/health")[0]
        found["other"] = asked(port, "POST", "/v1/chat/completions", {})[0]
        found["mcp"] = asked(port, "POST", "/mcp", call, Accept="application/json, text/event-stream")[0]

    config = mcp.Config(
        tools=("calculator",), http=True, listen=ListenAddress(port=port), telemetry=TelemetrySettings(log="none"),
        admission=AdmissionSettings(drain_s=0.2),
    )  # fmt: skip
    assert until_signal(port, lambda: mcp.main(config), asks) == 0
    assert capsys.readouterr().out == f"MCP is served at http://127.0.0.1:{port}/mcp (Ctrl-C ends it)\n"
    assert told == ["open_spans", "close"] and found["health"] == 200 and found["other"] == 404 != found["mcp"]
    with (
        wide_address() as wide,
        pytest.raises(ConfigError, match=r"host is '0\.0\.0\.0', which others can reach, and there are no API keys"),
    ):
        mcp.main(mcp.Config(tools=("calculator",), http=True, listen=wide))
