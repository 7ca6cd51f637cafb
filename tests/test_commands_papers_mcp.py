"""What `firsthand papers` and `mcp` print of small cases, refuse, and pass on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.commands import (
    agent_server,
    mcp,
    papers,
    papers_ask,
    papers_index,
    papers_show,
    rag_ask,
    rag_index,
)
from firsthand.commands.rag_ask import AnswerFlags
from firsthand.errors import ConfigError
from firsthand.experiment import named_agents
from firsthand.providers.scripted import Scripted
from firsthand.reading import entry_documents, entry_search, reading_list
from firsthand.serve.http.listen_address import ListenAddress

Cli = Callable[..., tuple[int, str, str]]


# -- papers --


def test_questions_and_documents_of_the_reading_list_go_on_to_rag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(rag_ask, "run", lambda config: asked.append(config) or 4)
    monkeypatch.setattr(rag_index, "run", lambda config: asked.append(config) or 5)
    monkeypatch.setattr(entry_documents, "check_list_index", asked.append)
    monkeypatch.setattr(entry_documents, "list_index", lambda: tmp_path / "deep" / "own.db")
    monkeypatch.setattr(entry_documents, "list_folder", lambda: tmp_path / "list")
    monkeypatch.setattr(entry_documents, "docs_folder", lambda: tmp_path / "docs")
    monkeypatch.setattr(entry_documents, "write_entries", asked.append)
    assert papers.dispatch(["ask", "Why?", "--show", "--k", "3"]) == 4
    flags = AnswerFlags(k=3)
    assert asked == [
        tmp_path / "deep" / "own.db",
        rag_ask.Config("Why?", tmp_path / "deep" / "own.db", flags, show=True),
    ]
    assert papers_ask.run(papers_ask.Config("Why?", Path("i.db"), json=True)) == 4
    assert asked[2:] == [Path("i.db"), rag_ask.Config("Why?", Path("i.db"), json=True)]
    with pytest.raises(ConfigError, match="ask what"):
        papers_ask.Config("  ")
    asked.clear()
    with pytest.raises(ConfigError, match="docs is not the folder of the documentation: it has no glossary"):
        papers_index.run(papers_index.Config())
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "glossary.md").touch()
    with pytest.raises(ConfigError, match="none is no folder: give the folder with the PDFs"):
        papers_index.run(papers_index.Config(pdfs=tmp_path / "none"))
    assert asked == [] and papers_index.run(papers_index.Config()) == 5 and (tmp_path / "deep").is_dir()
    sources = (str(tmp_path / "list"), str(tmp_path / "docs"))
    left_out = (*entry_documents.LEFT_OUT, "*.png", "*.svg", "*.css")
    assert asked == [tmp_path / "list", rag_index.Config(sources, index=tmp_path / "deep" / "own.db", exclude=left_out)]
    told = papers_index.Config(tmp_path, tmp_path / "docs", tmp_path / "x.db", "none", 3.0, json=True)
    assert papers_index.run(told) == 5 and asked[3] == rag_index.Config(
        (*sources, str(tmp_path)), index=tmp_path / "x.db", model="none", exclude=left_out, parse_seconds=3.0, json=True
    )


def test_entries_of_the_reading_list_are_found_by_words_and_section(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int]] = []

    def search(query: str, entries: list[Any], limit: int) -> list[Any]:
        asked.append((query, len(entries), limit))
        return entries[:1] if "flash" in query else []

    monkeypatch.setattr(entry_search, "search_entries", search)
    every = reading_list.reading_list()
    safety = [each for each in every if each.section == "safety"]
    assert 0 < len(safety) < len(every)
    out = "".join(cli("papers", "x" * 300)[1].split())
    assert out == f"noentryhasawordof'{'x' * 200}':`firsthandpapers`showsall"
    body = json.loads(cli("papers", "flash", "attention", "--section", "safety", "--limit", "0", "--json")[1])
    assert [each["id"] for each in body] == [safety[0].id]
    assert cli("papers", "flash")[0] == 0
    assert asked == [
        ("x" * 300, len(every), 10),
        ("flash attention", len(safety), len(safety)),
        ("flash", len(every), 10),
    ]
    assert len(json.loads(cli("papers", "--section", "safety", "--json")[1])) == len(safety)
    assert papers._titled("A", 0) == "A" and papers._titled("A", 3) == "A (3 must-reads)"
    code, _, err = cli("papers", "--limit", "-1")
    assert code == 2 and "limit is -1: give 1 or more, or 0 for all" in err
    code, out, _ = cli("papers", "show", safety[0].id, every[0].id)
    assert code == 0 and out == "".join(f"{entry_documents.rendered(each)}\n" for each in (safety[0], every[0]))
    assert [each["id"] for each in json.loads(cli("papers", "show", every[0].id, "--json")[1])] == [every[0].id]
    with pytest.raises(ConfigError, match="show which entry"):
        papers_show.Config()


# -- mcp, and a served agent --


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "nothing to serve: name tools, an index, benchmarks or a model"),
        ("--sign-in ftp://x", "sign_in is 'ftp://x': give the server's URL, which begins with https://"),
        ("--tools calculator --port 1", "an address, a certificate and keys are for --http"),
        ("--tools calculator --keys k.toml", "an address, a certificate and keys are for --http"),
        ("--tools calculator --pattern cot", "pattern is for agents, and an agent needs a model: give --model too"),
    ],
)
def test_words_of_mcp_that_make_no_sense_are_refused(cli: Cli, line: str, said: str) -> None:
    code, out, err = cli("mcp", *line.split())
    assert code == 2 and said in err and not out


def test_agents_of_an_mcp_server_have_what_its_flags_say(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    agent, offer = Agent("agent", Scripted([]), catalog.pattern("direct")[0]), SimpleNamespace(ends=[])
    monkeypatch.setattr(named_agents, "make_agents", lambda settings: asked.append(settings) or [agent])
    assert mcp.make_agents_of(mcp.Config(tools=("calculator",)), offer) == () and not asked  # type: ignore[arg-type]
    told = mcp.Config(
        ("calculator",), model="m", pattern=("cot", "react"), approve=("write=ask",), answer_tokens=7, budget_tokens=8,
        budget_seconds=9.0,
    )  # fmt: skip
    assert mcp.make_agents_of(told, offer) == [agent] and offer.ends == []  # type: ignore[arg-type]
    [found] = asked
    assert (found.benchmarks, found.model, found.pattern, found.tools) == (
        (),
        ("m",),
        ("cot", "react"),
        ("calculator",),
    )
    assert (found.approve, found.max_tokens, found.budget_tokens, found.budget_seconds) == (("write=ask",), 7, 8, 9.0)


def test_an_address_without_a_port_gets_a_free_one_and_has_a_url() -> None:
    fixed = ListenAddress(port=8123)
    assert agent_server.with_port(fixed) is fixed
    assert 1024 <= agent_server.with_port(ListenAddress(port=0)).port < 65536
    assert agent_server.url_of(fixed) == f"http://{fixed.host}:8123"
    assert agent_server.url_of(SimpleNamespace(host="::1", port=9, tls_cert="c")) == "https://[::1]:9"  # type: ignore[arg-type]
    assert agent_server.url_of(SimpleNamespace(host="[::1]", port=9, tls_cert=None)) == "http://[::1]:9"  # type: ignore[arg-type]
