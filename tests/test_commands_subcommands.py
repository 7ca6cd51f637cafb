"""Words of `rag` and `papers` that go on to their parts, an intake that is opened or not, a run that is watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.commands import pairwise, papers, play, rag, rag_status, rag_verify, show, sides, studio, studio_intake
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.reading import list_page
from firsthand.runs import store
from firsthand.runs.feed import Ended
from firsthand.stats.paired import PairedDifference
from firsthand.worlds import players

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.delenv("FIRSTHAND_INGEST_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_words_after_rag_go_to_the_subcommand_that_comes_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cli: Cli
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(rag_status, "run", lambda config: asked.append(config) or 5)
    monkeypatch.setattr(rag_verify, "run", lambda config: asked.append(config) or 6)
    assert rag.dispatch(["status", "docs", "--documents"]) == 5 and rag.main(rag.Config("verify")) == 6
    assert asked == [rag_status.Config(Path("docs"), documents=True), rag_verify.Config()]
    with pytest.raises(UnknownName, match=r"no subcommand 'stats'; did you mean 'status'\?"):
        rag.dispatch(["stats"])
    for words in ([], ["--help"]):
        with pytest.raises(SystemExit) as ended:
            rag.dispatch(words)
        out = capsys.readouterr().out
        assert ended.value.code in (0, None) and "subcommands:" in out and "  delete " in out and "  verify " in out
    Path("c.toml").write_text("")
    with pytest.raises(ConfigError) as refused:
        rag.dispatch(["--config=c.toml", "status"])
    told = "'--config=c.toml' came before a subcommand: it is the first word, as in `firsthand rag index`"
    assert str(refused.value) == told
    code, _, err = cli("rag", "--documents", "status")
    assert code == 2 and "--documents" in err and len(asked) == 2
    known = rag.subcommands()
    assert list(known) == sorted(known) and {"ask", "chat", "decide", "graph", "index", "label", "reindex"} <= set(
        known
    )
    assert (
        known["verify"] == "Recount everything in an index and print its faults; the exit code is 1 if there are any."
    )
    assert rag.subcommand("status") is rag_status


def test_the_reading_list_is_printed_by_section_or_as_its_page(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.setattr(list_page, "list_page", lambda: "# A page\n")
    assert cli("papers", "--page", "flash") == (0, "# A page\n", "")
    asked: list[Any] = []
    monkeypatch.setattr(papers, "main", lambda config: asked.append(config) or 4)
    assert papers.dispatch(["flash", "attention", "--limit", "3"]) == 4 and papers.dispatch([]) == 4
    assert asked == [papers.Config(("flash", "attention"), limit=3), papers.Config()]
    assert papers.subcommand("show").__name__.endswith("papers_show") and papers.subcommand("flash") is papers


def test_sections_have_a_table_of_the_entries_that_are_no_part_of_another(
    monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    from firsthand.reading import reading_list

    def entry(id: str, section: str, part_of: str = "") -> Any:
        told = {"title": f"Of {id}", "source": f"s-{id}", "command": f"c-{id}"}
        return SimpleNamespace(id=id, section=section, part_of=part_of, **told)

    every = [entry("a", "papers"), entry("b", "safety"), entry("c", "papers", "a"), entry("d", "papers")]
    monkeypatch.setattr(reading_list, "reading_list", lambda: every)
    monkeypatch.setattr(reading_list, "parts_of", lambda whole: [each for each in every if each.part_of == whole.id])
    monkeypatch.setattr(reading_list, "section_titles", lambda: {"papers": "The papers", "safety": "The safety"})
    told = [" ".join(line.split()) for line in cli("papers")[1].splitlines() if line.strip(" ─")]
    head, last = "id title source command", "`firsthand papers show ID` prints an entry: what it says, where it is"
    assert told[:4] == ["The papers", head, "a Of a (1 must-reads) s-a c-a", "d Of d s-d c-d"]
    assert told[4:7] == ["The safety", head, "b Of b s-b c-b"] and told[7].startswith(last)
    told = [" ".join(line.split()) for line in cli("papers", "--section", "safety")[1].splitlines() if line.strip(" ─")]
    assert told[:3] == ["The safety", head, "b Of b s-b c-b"] and told[3].startswith(last)


def test_an_intake_is_opened_with_its_port_or_says_why_not(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = []
    from firsthand.ingest import otlp_grpc

    intake = SimpleNamespace(writer="writer", close=lambda: told.append("intake closed"))
    monkeypatch.setattr(
        studio_intake, "Intake", lambda at, settings, on_problem: told.append((at, settings.keep_s)) or intake
    )
    monkeypatch.setattr(
        otlp_grpc, "serve_grpc", lambda *given: told.append(given) or (4444, lambda: told.append("grpc closed"))
    )
    flags = studio.Config(grpc_port=0, ingest_key="k", keep="2d")
    opened = studio_intake.open_intake(flags, home, is_wide=True)
    assert opened is not None and (opened.key, opened.grpc_port, opened.intake) == ("k", 4444, intake)
    assert told == [(home, 172_800.0), ("writer", 0, "k")]
    opened.close()
    assert told[2:] == ["grpc closed", "intake closed"]
    assert opened.told(9) == "Traces: send OTLP to http://127.0.0.1:9 with the key, gRPC at 127.0.0.1:4444"
    plain = studio_intake.open_intake(studio.Config(), home, is_wide=False)
    assert plain is not None and (plain.key, plain.grpc_port) == (None, None)
    plain.close()
    assert told[-1] == "intake closed" and capsys.readouterr().err == ""

    def taken(*given: Any) -> Any:
        raise ConfigError("127.0.0.1:5 cannot be opened")

    monkeypatch.setattr(otlp_grpc, "serve_grpc", taken)
    del told[:]
    with pytest.raises(ConfigError, match="cannot be opened"):
        studio_intake.open_intake(flags, home, is_wide=True)
    assert told == [(home, 172_800.0), "intake closed"], "where its port is taken nothing stays open"

    for kind in (StoreError, ConfigError):

        def held(*given: Any, kind: Any = kind, **more: Any) -> Any:
            raise kind("another process receives here")

        monkeypatch.setattr(studio_intake, "Intake", held)
        assert studio_intake.open_intake(flags, home, is_wide=False) is None
        assert capsys.readouterr().err == "firsthand: no traces are received here: another process receives here\n"
    with pytest.raises(ConfigError):
        studio_intake.open_intake(studio.Config(keep="soon"), home, is_wide=True)
    flags = studio.Config(cold="3d", alert_allow="10.0.0.1+h.example", alert_ports="80+8080")
    settings = studio_intake.intake_settings(flags)
    assert (settings.cold_s, settings.keep_s, settings.keep_bytes) == (259_200.0, None, None)
    assert settings.alert_rules == studio_intake.intake_settings(flags).alert_rules != (
        studio_intake.intake_settings(studio.Config()).alert_rules)  # fmt: skip


def test_the_steps_of_a_run_are_told_but_not_attempts_that_had_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses = iter(["running", "done", "done"])

    class Watched:
        id = "R"
        path = Path("p")
        feed = SimpleNamespace(last=lambda: 7)

        @property
        def status(self) -> str:
            return next(statuses)

        def done(self) -> dict[str, int]:
            return {"a": 1}

    ended = Ended.__new__(Ended)
    steps = [(ended, 6), (ended, 7), ("a step", 5), (ended, 8)]

    async def follow(path: Path) -> Any:
        assert path == Path("p")
        for step, sequence in steps:
            yield SimpleNamespace(step=step, sequence=sequence)

    monkeypatch.setattr(show, "follow", follow)
    monkeypatch.setattr(show, "FeedLines", lambda: SimpleNamespace(of=lambda told: [f"[x] {told.sequence}", "more"]))
    watched: Any = Watched()
    assert asyncio.run(show.follow_run(watched)) == 0
    assert capsys.readouterr().out.splitlines() == [
        "R is running, 1 attempt done; Ctrl-C stops watching, not the run", "[x] 5", "more", "[x] 8", "more",
        "R is done; `firsthand show R` prints its leaderboard",
    ]  # fmt: skip


def test_eight_games_are_played_at_once_and_kept_in_the_order_of_their_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[str] = []
    most: list[int] = []

    async def played(benchmark: str, task: str, player: str, seed: int) -> str:
        running.append(task)
        most.append(len(running))
        for _ in range(ord("z") - ord(task)):  # the first tasks take longest
            await asyncio.sleep(0)
        running.remove(task)
        return f"{benchmark} {task} {player} {seed}"

    monkeypatch.setattr(players, "play", played)
    by_player: Any = play._by_player
    found = asyncio.run(by_player("b", list("abcdefghijkl"), "random", 7))
    assert found == [f"b {task} random 7" for task in "abcdefghijkl"] and max(most) == 8


def test_the_correction_of_pairs_is_told_where_there_are_several(capsys: pytest.CaptureFixture[str]) -> None:
    found = PairedDifference(0.5, 0.25, 0.75, 0.0005, 4, 3, 0, 1, "better", 0.1)
    pairs = {("a", "b"): found, ("a", "c"): found}
    told = []
    for correct, some in (("holm", pairs), ("bh", pairs), ("none", pairs), ("holm", {("a", "b"): found})):
        pairwise.print_pairs("T", some, pairwise.Config(("r",), correct=correct, confidence="90%"))  # type: ignore[arg-type]
        told.append([" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip(" ─")])
    row = "b a 4 +0.500 [+0.250, +0.750] <0.001 3 / 0 / 1 better"
    assert told[0][:3] == ["T: all pairs", "agent vs. tasks difference (90% CI) p better / worse / same verdict", row]
    assert told[0][4:] == [
        "p-values are corrected for 2 comparisons (Holm); 90% CIs hold jointly (Bonferroni)."]  # fmt: skip
    assert told[1][4:] == [
        "p-values are corrected for 2 comparisons (Benjamini and Hochberg); 90% CIs are wide enough for those found "
        "(Benjamini and Yekutieli)."]  # fmt: skip
    assert told[2][4:] == [] == told[3][3:]


def test_a_file_of_a_flag_is_written_or_refused_with_the_reason(tmp_path: Path) -> None:
    sides.write(tmp_path / "f.txt", "café \ud800\n")
    assert (tmp_path / "f.txt").read_bytes() == "café \\ud800\n".encode()
    with pytest.raises(ConfigError) as refused:
        sides.write(tmp_path, "x")
    assert str(refused.value) == f"cannot write '{tmp_path}': Is a directory"


def test_a_board_has_the_budget_strata_and_reducer_that_are_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Kept:
        id, status, protocols = "R", "done", {"b": "5-shot"}
        config: Any = None

        def __enter__(self) -> Kept:
            return self

        def __exit__(self, *given: object) -> None:
            asked.append("closed")

        def agents(self) -> dict[str, Any]:
            return {"bob": {}, "ada": {}}

        def clusters(self, strata: str | None) -> Any:
            return ("clusters", strata)

        def retried(self) -> Any:
            return "retried"

    kept = Kept()
    made = [SimpleNamespace(agent_name=name) for name in ("cy", "ada", "bob", "ada")]
    monkeypatch.setattr(show.store, "open_run", lambda ref, home: asked.append(ref) or kept)
    monkeypatch.setattr(show, "own_figures", lambda told, run: "figures")
    monkeypatch.setattr(show, "attempts_of", lambda run, figures: list(made) if figures == "figures" else [])
    monkeypatch.setattr(show, "reducers_of", lambda run, reduce: ("reducers", reduce))
    monkeypatch.setattr(
        show, "leaderboard", lambda attempts, **more: asked.append(([a.agent_name for a in attempts], more)) or []
    )
    budgets = ((1200, 1200.0), ("auto", None), (None, None), ("0.5", None))
    for config, budget in (({}, None), *(({"equal_budget": given}, budget) for given, budget in budgets)):
        kept.config = config
        asked.clear()
        assert show.main(show.Config("r", strata="level", reduce="max", json=True)) == 0
        given = {
            "budget": budget, "clusters": ("clusters", "level"), "figures": "figures", "protocols": {"b": "5-shot"},
            "reducers": ("reducers", "max"), "retried": "retried",
        }  # fmt: skip
        assert asked == ["r", (["bob", "ada", "ada", "cy"], given), "closed"], "in the order of the run's agents"


def test_an_empty_run_is_shown_in_a_sentence(home: Path, cli: Cli) -> None:
    with store.create(home, {}, "empty") as run:
        name = run.id
    code, out, _ = cli("show", name)
    first, last = out.splitlines()
    assert code == 0 and first == "No attempt has finished."
    assert last.startswith(f"{name} is ") and last.endswith(f"; `firsthand runs {name}` lists its attempts")
    assert cli("show", name, "--json")[:2] == (0, "[]\n")
