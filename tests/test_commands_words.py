"""Words that commands complete, list and pass on: completion, `list`, `quickstart`, summaries, and their subcommands."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand import catalog
from firsthand.commands import alignment_tables, completion, mcp, quickstart, run, subcommands, summary, train
from firsthand.commands import list as listing
from firsthand.commands.completion import complete
from firsthand.errors import ConfigError, DataError, DownloadError, UnknownName
from firsthand.experiment import named_agents
from firsthand.runs import store
from firsthand.stats.intervals import Interval
from firsthand.stats.run_summary import SummaryRow
from firsthand.stats.score_statistics import Spread
from firsthand.system.first_rows import most_rows
from firsthand.tool import tool
from firsthand.train import doctor
from printed_tables import widen, words

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables have all their columns side by side."""
    widen(monkeypatch, summary)


# -- completion --


def test_a_line_is_cut_into_words_with_its_open_quote_closed() -> None:
    cut = {
        "a b": ["a", "b"], "a b ": ["a", "b", ""], 'a "b c': ["a", "b c"], "a 'b ": ["a", "b "], 'a "b" ': ["a", "b", ""],
        'a "b\\': ["a", '"b\\'], "": [],
    }  # fmt: skip
    for line, found in cut.items():
        assert completion._words(line) == found, line


def test_what_stands_before_the_last_break_is_left_out() -> None:
    line = "firsthand run --pattern self_consistency:sa"
    assert complete(line) == ["self_consistency:samples="] == complete(line, " =")
    assert complete(line, ":=") == ["samples="] and complete("firsthand") == complete("") == []
    assert complete("firsthand serve --kv-cache=i") == ["--kv-cache=int8"]
    assert complete("firsthand serve --kv-cache=i", "=:") == ["int8"]
    assert complete("firsthand --") == ["--help", "--version"] and complete("firsthand runs --con") == ["--config"]


def test_values_follow_the_flag_before_them_and_words_their_place() -> None:
    assert complete("firsthand completion bash ") == []
    assert complete("firsthand data last --as pa") == ["pairs"] and complete("firsthand data --as=ta") == ["--as=tasks"]
    assert complete("firsthand memory list f ") == [] and complete("firsthand tokens --languages --ki") == ["--kind"]
    assert complete("firsthand tokens --kind ") == ["bpe", "unigram", "wordpiece"]
    assert complete("firsthand tokens --train f --kind uni") == ["unigram"]
    assert complete("firsthand run gsm8k --pattern direct --model smollm2 arith") == ["arithmetic"]
    flags = {"--of": SimpleNamespace(hint=str), "--is": SimpleNamespace(hint=bool)}
    counts = {"a b": 2, "--of a b": 1, "--is a b": 2, "--other a": 1, "--of": 0, "": 0}
    assert {line: completion._num_positionals(line.split(), flags) for line in counts} == counts  # type: ignore[arg-type]


# -- subcommands --


def test_subcommands_are_the_files_beside_a_command() -> None:
    assert (
        list(subcommands.subcommands_of("papers")) == ["ask", "index", "show"]
        and subcommands.subcommands_of("none") == {}
    )
    assert subcommands.subcommand_of("papers", "show").__name__ == "firsthand.commands.papers_show"
    with pytest.raises(UnknownName, match=r"subcommand 'shoe'.*did you mean 'show'"):
        subcommands.subcommand_of("papers", "shoe")
    told = subcommands.listed_subcommands("papers", "About papers; and more.").splitlines()
    assert told[:3] == ["About papers.", "", "subcommands:"] and len(told) == 6
    assert told[3] == f"  ask    {subcommands.subcommands_of('papers')['ask']}" and told[4].startswith(
        "  index  Index the"
    )


# -- list --


def test_the_data_of_a_benchmark_are_here_or_fetched_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"made": {"levels": "1"}}
    monkeypatch.setattr(catalog, "options", lambda kind, name: options.get(name, {"data": "hub"}))
    given: dict[str, Any] = {
        "fetched": DownloadError("no network"), "lost": DataError("pull it"), "inspect": ConfigError("name a task"),
        "slice": SimpleNamespace(protocol="packaged slice"), "full": SimpleNamespace(protocol="all"),
        "bare": SimpleNamespace(protocol=None),
    }  # fmt: skip
    options["inspect"] = {"task": ""}
    options["bare"] = {"folder": ""}

    def benchmark(name: str) -> Any:
        if isinstance(given[name], Exception):
            raise given[name]
        return given[name]

    monkeypatch.setattr(catalog, "benchmark", benchmark)
    found = {name: (each.state, each.how) for name in ("made", *given) for each in [listing.data_of(name)]}
    assert found == {
        "made": ("generated", ""), "fetched": ("hub", "no network"), "lost": ("missing", "pull it"),
        "inspect": ("named by you", "name a task"), "slice": ("packaged", ""), "full": ("here", ""), "bare": ("here", ""),
    }  # fmt: skip


def fail(error: Exception) -> Any:
    raise error


def test_the_first_rows_show_where_the_data_of_a_benchmark_are(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int | None] = []

    def benchmark(name: str) -> Any:
        read.append(most_rows.get())
        if name == "long" and read[-1] is not None:
            raise DataError("101 rows were expected")
        return SimpleNamespace(protocol="all")

    monkeypatch.setattr(catalog, "options", lambda kind, name: {"data": ""})
    monkeypatch.setattr(catalog, "benchmark", benchmark)
    assert listing.data_of("long").state == listing.data_of("short").state == "here"
    assert read == [10, None, 10]
    monkeypatch.setattr(catalog, "benchmark", lambda name: read.append(0) or fail(DownloadError("no network")))
    assert listing.data_of("far").state == "hub" and read.count(0) == 1, "what is not here is not looked for twice"


def test_benchmarks_are_listed_with_their_options_and_what_they_need(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = {"far": listing.DataState("hub", "no network"), "lost": listing.DataState("missing", "pull it")}
    monkeypatch.setattr(listing, "data_of", states.__getitem__)
    monkeypatch.setattr(catalog, "options", lambda kind, name: {"data": "...", "split": "dev", "n": ""})
    listing.print_benchmarks({"far": "Far away.", "far@paper": "As in the paper.", "lost": "Is lost."})
    assert words(capsys.readouterr().out)[:5] == [
        "benchmarks", "name data description options needs", "far hub Far away. data, split=dev, n",
        "far@paper As in the paper.", "lost missing Is lost. data, split=dev, n pull it",
    ]  # fmt: skip
    monkeypatch.setattr(catalog, "tool_forms", lambda: {"files": ("files:FOLDER", "read")})
    listing.print_tools({"files": "Reads.", "own": "Mine."})
    assert words(capsys.readouterr().out) == [
        "tools", "name effects description", "files:FOLDER read Reads.", "own as declared Mine.",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["scorers", "chunkers", "models", "guards", "patterns"])
def test_a_kind_is_listed_line_by_line_or_as_json(kind: str, cli: Cli) -> None:
    code, out, _ = cli("list", kind)
    body = json.loads(cli("list", kind, "--json")[1])
    assert code == 0 and list(body) == ([kind, "options"] if kind == "patterns" else [kind]) and len(body[kind]) > 3
    header = "name description options" if kind == "patterns" else "name description"
    assert words(out)[:2] == [kind, header] and all(name in out for name in body[kind])


# -- quickstart --


def test_the_quickstart_runs_four_patterns_on_two_benchmarks(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(quickstart, "fetch_model", lambda name, shown: asked.append((name, shown)))
    monkeypatch.setattr(run, "main", lambda settings: asked.append(settings) or 3)
    code, _, err = cli("quickstart")
    patterns = ("direct", "cot", "self_consistency:samples=5", "react")
    settings = run.Config(
        benchmarks=("arithmetic:levels=1-2", "arc_easy"), model=("smollm2",), pattern=patterns, limit=24, seed=0,
        max_tokens=96, concurrency=16, name="quickstart",
    )  # fmt: skip
    assert code == 3 and asked == [("smollm2", True), settings]
    assert err == f"4 agents x 24 tasks x 2 benchmarks, as in\n  {settings.command()}\n"
    code, _, err = cli("quickstart", "--model", "openai:x", "--limit", "1", "--seed", "2", "--max-tokens", "3",
                       "--concurrency", "4")  # fmt: skip
    assert len(asked) == 3 and err.startswith("4 agents x 1 task x 2 benchmarks")
    found = asked[2]
    assert (found.model, found.limit, found.seed, found.max_tokens, found.concurrency) == (("openai:x",), 1, 2, 3, 4)
    assert cli("quickstart", "--json")[2] == "" and asked[3] == ("smollm2", False) and asked[4].json
    assert cli("quickstart", "--limit", "0")[0] == 2 and len(asked) == 5


# -- summaries --


def row(score: Interval, agent: str = "ada", spread: Spread | None = None, **more: Any) -> SummaryRow:
    return SummaryRow("sums", agent, score, spread or Spread(0.25, 0.04, 6, 2), 12, 1, 1234.0, 0.5, 0.0, **more)


def test_a_summary_has_a_line_of_words_for_figures_strata_and_clusters(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Interval(0.5, 0.25, 0.75, 6, "t", 0.1)
    rows = [
        row(plain, figures={"bleu": Interval(0.125, 0.1, 0.2, 6, "BCa")}),
        row(Interval(0.5, math.nan, 0.75, 1, "t"), "bo", Spread(math.nan, 0.0, 1, 2)),
        row(Interval(0.12345, 0.1, 0.15, 2000, "stratified t", 0.01, 4, 0.8), "cy"),
        row(Interval(0.5, 0.25, 0.75, 1999, "clustered t", 0.1, 1, 1.5), "di"),
    ]
    endless = row(Interval(0.5, 0.25, math.inf, 1, "t"))
    assert summary._cells(endless)[1] == "0.500\nunknown", "one end alone is no interval"
    cells = [summary._cells(each) for each in rows]
    assert [each[:2] for each in cells] == [
        ["ada", "0.500\n[0.250, 0.750]"], ["bo", "0.500\nunknown"], ["cy", "0.1235\n[0.1000, 0.1500]"],
        ["di", "0.500\n[0.250, 0.750]"],
    ]  # fmt: skip
    assert cells[0][2:] == ["t", "6", "12", "1", "0.500\n0.200", f"{rows[0].detectable:.3f}", "1.2k", "500 ms"]
    assert cells[1][6:8] == ["?\n0.000", "?"]
    summary.print_lines("sums", rows, "90%")
    out = words(capsys.readouterr().out)
    assert out[0] == "sums" and out[1].startswith(
        "agent score (90% CI) interval tasks attempts errors sd MDE tokens time"
    )
    assert out[-3:] == [
        "ada: bleu 0.12 [0.10, 0.20]", "cy: the standard error is the one within strata, 0.80 of that without",
        "di: 1999 tasks in 1 cluster: the standard error is multiplied by 1.50",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--threshold 80%", "threshold needs exactly one key"), ("--by a,b --threshold 80%", "threshold needs exactly one"),
        ("--by a --score s", "score and by do not go together"), ("--by a --strata s", "strata and by do not go"),
        ("--by a --reduce max", "reduce and by do not go together"),
        ("--threshold=", "threshold needs exactly one key"),
        ("--by a --score=", "score and by do not go together"),
    ],
)  # fmt: skip
def test_options_of_a_summary_that_do_not_go_together(line: str, said: str, cli: Cli) -> None:
    code, out, err = cli("summary", "last", *line.split())
    assert code == 2 and said in err and not out


def test_rates_are_shown_with_three_digits_or_a_dash() -> None:
    assert [alignment_tables.shown_rates(each) for each in (0.12345, 1.0, math.nan)] == ["0.123", "1.000", "-"]


# -- the doctor of a training, and what an MCP server offers --


def test_what_the_doctor_finds_is_printed_and_is_the_exit_status(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [doctor.Finding("equal rewards", "all are 0", "an easier task"), doctor.Finding("b", "c", "d")]
    closed: list[str] = []
    names = ["loss"]
    opened = SimpleNamespace(id="r", close=lambda: closed.append("closed"))
    monkeypatch.setattr(store, "open_run", lambda ref, home: opened)
    monkeypatch.setattr(train, "Track", lambda run: SimpleNamespace(names=lambda: names))
    monkeypatch.setattr(doctor, "diagnose", lambda track: found)
    code, out, _ = cli("train", "doctor", "r")
    assert code == 1 and out == "equal rewards: all are 0.\n  Try: an easier task.\n\nb: c.\n  Try: d.\n\n"
    code, out, _ = cli("train", "doctor", "--json")
    assert code == 1 and json.loads(out)[1] == {"name": "b", "evidence": "c", "advice": "d"}
    found.clear()
    said = "The doctor finds nothing: its curves look like those of a run that learns.\n"
    assert cli("train", "doctor")[:2] == (0, said) and cli("train", "doctor", "--json")[:2] == (0, "[]\n")
    names.clear()
    code, _, err = cli("train", "doctor")
    assert code == 2 and "r has no metrics: give a training run" in err and closed == ["closed"] * 5


def test_an_mcp_server_offers_tools_of_different_names(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mcp")
    record: Any = SimpleNamespace(tasks=None)
    asked: list[Any] = []

    def opened(*names: str) -> list[Any]:
        def one(text: str) -> str:
            """Does it."""
            return text

        made = []
        for name in names:
            one.__name__ = name
            made.append(tool(effect="read")(one) if name != "remote" else SimpleNamespace())
        return made

    def server(*names: str, **more: Any) -> Any:
        monkeypatch.setattr(
            named_agents, "open_tools", lambda texts, rules: asked.append((texts, rules)) or opened(*names)
        )
        return mcp.make_server(mcp.Config(("a",), **more), record)

    assert server("one", "two", approve=("write=ask",)) is not None and asked == [(("a",), ("write=ask",))]
    with pytest.raises(ConfigError, match="two of what is served are tools named 'one': leave one out"):
        server("two", "one", "a", "two", "one")
    with pytest.raises(ConfigError, match="firsthand mcp passes no other MCP server on: leave mcp: out of --tools"):
        server("one", "remote")
