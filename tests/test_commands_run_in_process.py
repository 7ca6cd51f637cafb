"""`firsthand run` in this process: settings that are resumed or replayed, progress, failures, whole outputs."""

from __future__ import annotations

import asyncio
import html
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.commands import print_run, run, score
from firsthand.errors import ConfigError, StoreError, TooManyFailures
from firsthand.experiment.experiment import Experiment
from firsthand.runs import store
from firsthand.runs.attempt_summary import summaries_of
from firsthand.show import board, live_tree
from firsthand.trace import Failure, Score
from printed_tables import widen, words
from scored_runs import scored_run

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    widen(monkeypatch, run, print_run, score)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home [b]x"))
    monkeypatch.chdir(tmp_path)
    Path("q.jsonl").write_text("".join(f'{{"question": "{n} + {n}?", "answer": "{2 * n}"}}\n' for n in (1, 2, 3)))
    told = 'data = "q.jsonl"\nprompt = "{question}"\ntarget = "{answer}"\nscorer = "exact"\n'
    Path("q.toml").write_text(told)
    Path("s.json").write_text('{"1 \\\\+ 1": "2", "3": "5"}')
    return tmp_path / "home [b]x"


def test_a_run_prints_its_board_where_it_is_and_what_failed(home: Path, cli: Cli) -> None:
    code, out, err = cli("run", "q.toml", "--model", "scripted:s.json", "--seed", "3", "--concurrency", "1")
    told = words(out)
    with store.open_run("last", home) as made:
        places = {trace.task_id: trace.place for trace in made.traces()}
        at = made.path
    assert code == 3 and told[0] == "q: exact, 3 tasks" and told[2].startswith("direct 0.33 (baseline) ")
    assert told[-5:] == [
        "protocol q: q.jsonl, 3 rows; 0-shot; '{question}'", f"report {at}/report.html", f"traces {at}",
        f"show firsthand show {at.name} {places['row-00001'][:8]}",
        "reproduce firsthand run q.toml --model scripted:s.json --seed 3 --concurrency 1",
    ]  # fmt: skip
    assert "report    /" in out and (at / "report.html").read_text().count("scripted:s.json") >= 2
    [failed] = err.splitlines()
    why = "scripted:s.json has no reply to '2 + 2?'"
    assert failed.startswith(f"firsthand: 1 of 3 attempts failed, the first with ModelError: {why}")
    code, out, err = cli("run", "--replay", "last", "--json")
    body = json.loads(out)
    assert code == 3 and list(body) == ["run", "path", "status", "protocols", "boards"] and body["run"] != at.name
    assert body["status"] == "done" and body["boards"][0]["rows"][0]["errors"] == 1
    code, out, err = cli("run", "q.toml", "--model", "scripted:s.json", "--limit", "1", "--pattern", "direct,cot")
    assert (code, err) == (0, "") and words(out)[-2].startswith("show firsthand show ")
    with store.open_run("last", home) as made:
        [last] = made.traces(agent="cot")
        assert words(out)[-2].split()[-1] == last.place[:8], "the last agent's, where none failed"


def test_a_run_is_stopped_by_failures_or_by_a_person_and_says_how_to_go_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    line = ("run", "q.toml", "--model", "scripted:s.json", "--concurrency", "1")
    whole, calls, stop = run.attempt, run.interruption.run, []

    async def attempt(experiment: Any, made: Any, config: Any) -> None:
        await whole(replace(experiment, limit=1), made, config)
        if stop == ["failures"]:
            raise TooManyFailures("3 attempts in a row failed")
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "attempt", attempt)
    monkeypatch.setattr(run.interruption, "run", asyncio.run)
    code, out, err = cli(*line)
    with store.open_run("last", home) as made:
        name = made.id
    assert code == 130 and "q: exact, 1 task" in out
    told = f"interrupted with 1 of 3 attempts done: `firsthand run --resume {name}` finishes them"
    assert err == f"firsthand: {told}\n"
    monkeypatch.setattr(run, "attempt", whole)
    code, out, err = cli("run", "--resume", name, "--json")
    body = json.loads(out)
    assert (code, body["run"], body["boards"][0]["rows"][0]["attempts"]) == (3, name, 3), "the same run is finished"
    assert [each.name for each in home.glob("runs/2*")] == [name]
    monkeypatch.setattr(run, "attempt", attempt)
    stop.append("failures")
    code, out, err = cli(*line)
    assert (code, err) == (3, "firsthand: 3 attempts in a row failed\n") and "report " in out
    Path("s.json").write_text('{"2": "4"}')
    failed = "firsthand: 1 of 1 attempt failed, the first with ModelError: scripted:s.json has no reply to '1 + 1?'"
    code, _, err = cli(*line)
    first, last = err.splitlines()
    assert code == 3 and first.startswith(failed) and last == "firsthand: 3 attempts in a row failed"
    stop.clear()
    code, _, err = cli(*line)
    first, last = err.splitlines()
    with store.open_run("last", home) as made:
        told = told.replace(name, made.id)
    assert code == 130 and first.startswith(failed) and last == f"firsthand: {told}", (
        "an interruption goes before failures"
    )
    stop.append("failures")

    def interrupted(work: Any) -> Any:
        name = work.cr_code.co_name
        if name == stop[0]:
            work.close()
            raise KeyboardInterrupt
        return calls(work)

    monkeypatch.setattr(run.interruption, "run", interrupted)
    before = sorted(home.glob("runs/*"))
    for at, why in (
        ("ready", "the model was loaded: nothing has been run"),
        ("equalised", "the budgets were measured: nothing else has been run"),
    ):
        stop[:] = [at]
        assert cli(*line) == (130, "", f"firsthand: interrupted while {why}\n")
    assert sorted(home.glob("runs/*")) == before


def test_boards_and_failures_are_in_the_order_of_the_settings_whatever_ended_first(
    home: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    Path("a.toml").write_text(Path("q.toml").read_text())
    Path("s.json").write_text('{"3 . 3": "6"}')
    whole = run.attempt

    async def backwards(experiment: Any, made: Any, config: Any) -> None:
        turned = [
            replace(each, tasks=lambda seed, each=each: each.tasks(seed)[::-1])
            for each in experiment.made_benchmarks[::-1]
        ]
        await whole(replace(experiment, benchmarks=turned), made, config)

    monkeypatch.setattr(run, "attempt", backwards)
    code, out, err = cli("run", "q.toml", "a.toml", "--model", "scripted:s.json", "--concurrency", "1")
    with store.open_run("last", home) as made:
        ended = [(trace.benchmark, trace.task_id) for trace in made.traces()]
        first = next(trace.place for trace in made.traces(benchmark="q") if trace.task_id == "row-00000")
    assert code == 3 and ended[0] == ("a", "row-00002") and ended[-1] == ("q", "row-00000")
    told = words(out)
    assert [line for line in told if line.endswith(": exact, 3 tasks")] == ["q: exact, 3 tasks", "a: exact, 3 tasks"]
    assert "4 of 6 attempts failed, the first with ModelError: scripted:s.json has no reply to '1 + 1?'" in err
    assert told[-2].endswith(f" {first[:8]}"), "the first that failed is shown"


def test_a_resumed_run_has_its_settings_but_for_where_and_how_many_at_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    assert (
        cli("run", "q.toml", "--model", "scripted:s.json", "--seed", "3", "--concurrency", "2", "--name", "n")[0] == 3
    )
    with store.open_run("last", home) as made:
        name = made.id
    resumed, settings = run.open_or_configure(run.Config(resume=name))
    assert resumed is not None and resumed.id == name
    assert (settings.seed, settings.concurrency, settings.on, settings.workers) == (3, 2, None, None)
    resumed.close()
    for more, concurrency in (({"concurrency": 7}, 7), ({"seed": 3, "benchmarks": ("q.toml",)}, 2)):
        resumed, settings = run.open_or_configure(run.Config(resume=name, **more))  # type: ignore[arg-type]
        assert resumed is not None and (settings.concurrency, settings.seed) == (concurrency, 3)
        resumed.close()
    resumed, settings = run.open_or_configure(run.Config(resume=name, on="ray", workers=4))
    assert resumed is not None and (settings.on, settings.workers) == ("ray", 4)
    resumed.close()
    with pytest.raises(ConfigError, match=f"^{name} was begun with limit None|{name} was begun with limit"):
        run.open_or_configure(run.Config(resume=name, limit=1))
    none, settings = run.open_or_configure(run.Config(replay=name, limit=1, name="again"))
    path = str(home / "runs" / name)
    assert none is None and (settings.replay, settings.limit, settings.seed, settings.name) == (path, 1, 3, "again")
    assert settings.model == ("scripted:s.json",) and settings.concurrency == 2 and settings.on is None
    none, settings = run.open_or_configure(run.Config(benchmarks=("b",), seed=5))
    assert none is None and (settings.benchmarks, settings.seed) == (("b",), 5)
    assert run.changed_flags(run.Config(benchmarks=("b",), seed=5, pattern=("direct",))) == {
        "benchmarks": ("b",),
        "seed": 5,
    }


def test_a_run_from_elsewhere_is_resumed_and_replayed_only_with_trust(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    assert cli("run", "q.toml", "--model", "scripted:s.json")[0] == 3
    with store.open_run("last", home) as made:
        path, name = made.path, made.id
    shutil.copytree(path, tmp_path / "other" / "runs" / name)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "other"))
    why = f"{name} was made elsewhere and names the benchmark 'q.toml'"
    for more in ({"resume": name}, {"replay": name}):
        with pytest.raises(ConfigError, match=why):
            run.open_or_configure(run.Config(**more))  # type: ignore[arg-type]
        found, settings = run.open_or_configure(run.Config(trust=True, **more))  # type: ignore[arg-type]
        assert settings.benchmarks == ("q.toml",) and (found is None) is ("replay" in more)
        if found is not None:
            found.close()
    own = run.Config(replay=name, benchmarks=("arithmetic",), model=("scripted:echo",))
    assert run.open_or_configure(own)[1].benchmarks == ("arithmetic",), "what is given here is the person's own"


@pytest.mark.slow
def test_progress_and_the_tree_follow_each_attempt(home: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    told: list[Any] = []

    @contextmanager
    def progress(label: str, total: int | None, **more: Any) -> Iterator[Any]:
        told.append((label, total, more))
        yield lambda done, **given: told.append((done, given.get("note", "")[:6]))

    @contextmanager
    def watching(**more: Any) -> Iterator[Any]:
        told.append(more)
        yield SimpleNamespace(
            ended=lambda trace: told.append(trace.task_id), listener=lambda place: told.append("heard")
        )

    monkeypatch.setattr(run, "progress", progress)
    monkeypatch.setattr(live_tree, "watching", watching)
    config = run.Config(benchmarks=("q.toml",), model=("scripted:s.json",), concurrency=1, fail_fast=0)
    for more, shown in (({}, True), ({"json": True}, False), ({"watch": True}, False)):
        given = replace(config, **more)  # type: ignore[arg-type]
        experiment = Experiment.from_settings(given.settings(), show_progress=False)
        told.clear()
        with experiment.create() as made:
            asyncio.run(run.attempt(experiment, made, given))
            asyncio.run(run.attempt(experiment, made, given))
        ends = [(1, "direct"), (2, "direct"), (3, "direct")]
        kept = [each for each in told if each not in ("heard", "row-00000", "row-00001", "row-00002")]
        begun = [("q", 3, {"shown": shown}), {"in_place": True}]
        assert kept == [*begun, (0, ""), *ends, *begun, (3, "")], kept
        watched = [each for each in told if isinstance(each, str) and each != "heard"]
        assert watched == (["row-00000", "row-00001", "row-00002"] if given.watch else [])
        assert told.count("heard") == 3 * given.watch
    Path("a.toml").write_text(Path("q.toml").read_text())
    both = replace(config, benchmarks=("q.toml", "a.toml"), limit=1)
    experiment = Experiment.from_settings(both.settings(), show_progress=False)
    told.clear()
    with experiment.create() as made:
        asyncio.run(run.attempt(experiment, made, both))
        assert told[0] == ("q, a", 2, {"shown": True}), "in the order that they are named in"
    experiment = Experiment.from_settings(config.settings(), show_progress=False)
    with experiment.create() as made:
        asyncio.run(run.attempt(experiment, made, config))
        told.clear()
        asyncio.run(run.attempt(experiment, made, replace(config, resume=made.id, retry_errors=True)))
    assert told[2:] == [(3, ""), (3, "direct")], "one is made once more, and no more are done than there are"
    asking = replace(config, tools=("calculator",), approve=("calculator=ask",))
    experiment = Experiment.from_settings(asking.settings(), show_progress=False)
    told.clear()
    with experiment.create() as made:
        asyncio.run(run.attempt(experiment, made, asking))
    assert experiment.asks_person and told[:2] == [("q", 3, {"shown": False}), {"in_place": False}], "a question shows"
    told.clear()
    asyncio.run(run.ready(experiment, None, shown=False))
    assert told[0] == ("loading scripted:s.json", None, {"shown": False})


def test_spans_are_checked_before_anything_is_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(asked: bool) -> None:
        raise ConfigError(f"spans: {asked}")

    monkeypatch.setattr(run, "check_telemetry", check)
    for otel in (True, False):
        with pytest.raises(ConfigError, match=f"^spans: {otel}$"):
            run.main(run.Config(benchmarks=("q.toml",), model=("scripted:s.json",), otel=otel))
    assert not home.exists()
    asked: list[Any] = []

    def made(settings: Any, **more: Any) -> None:
        asked.append((settings.benchmarks, more))
        raise ConfigError("no experiment")

    monkeypatch.setattr(run, "check_telemetry", lambda asked: None)
    monkeypatch.setattr(Experiment, "from_settings", made)
    for json_ in (True, False):
        with pytest.raises(ConfigError, match=r"^no experiment$"):
            run.main(run.Config(benchmarks=("q.toml",), json=json_))
    assert asked == [(("q.toml",), {"show_progress": False}), (("q.toml",), {"show_progress": True})]


def test_a_protected_benchmark_is_not_watched(home: Path) -> None:
    task = SimpleNamespace(protected="its authors ask")
    place = SimpleNamespace(task=task, benchmark=SimpleNamespace(name="gpqa"))
    open_to_all = SimpleNamespace(task=SimpleNamespace(protected=None), benchmark=SimpleNamespace(name="gsm8k"))
    experiment: Any = SimpleNamespace(places=lambda: [open_to_all, place, open_to_all], asks_person=False)
    made: Any = SimpleNamespace(done=lambda: {})
    with pytest.raises(ConfigError) as refused:
        asyncio.run(run.attempt(experiment, made, run.Config(benchmarks=("b",), watch=True)))
    assert str(refused.value) == "watch would print what must not be printed (its authors ask): leave it out"


def test_every_setting_of_an_attempt_reaches_it() -> None:
    asked: list[Any] = []

    async def attempt_async(of: Any, **more: Any) -> None:
        asked.append((of, more))

    experiment: Any = SimpleNamespace(places=lambda: [], asks_person=False, attempt_async=attempt_async)
    made: Any = SimpleNamespace(done=lambda: {})
    asyncio.run(run.attempt(experiment, made, run.Config(resume="r", retry_errors=True, otel=True, fail_fast=0)))
    [(of, more)] = asked
    assert of is made and callable(more.pop("on_trace")) and more.pop("listener")("place") is None
    assert more == {"on_notice": run.complain, "otel": True, "redo_errors": True, "fail_fast": 0}


def test_equal_budgets_are_measured_with_the_runs_own_flags_and_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run.Config(benchmarks=("b",), watch=True, resume="r", retry_errors=True)
    measured: list[Any] = []

    async def attempt(variants: Any, made: Any, given: Any) -> None:
        measured.append((variants, made, given))

    monkeypatch.setattr(run, "attempt", attempt)
    fitted: Any = [SimpleNamespace(pattern="cot", knob="samples"), SimpleNamespace(pattern="react", knob=None)]
    made: Any = SimpleNamespace(id="R", config={"limit": limit} if (limit := 1) else {})

    async def equalised(measure: Any, told: Any) -> str:
        await measure("variants", made)
        told(made, 12345.6, fitted)
        return "fair"

    experiment: Any = SimpleNamespace(equalised=equalised)
    assert asyncio.run(run.equalised(experiment, config)) == "fair"
    assert measured == [("variants", made, replace(config, watch=False, retry_errors=False))]
    assert capsys.readouterr().out == (
        "budget    12,346 tokens an attempt, measured on 1 task of each benchmark in R: cot; react (unchanged)\n"
    )
    asyncio.run(run.equalised(experiment, replace(config, watch=False, json=True)))
    assert capsys.readouterr().out == ""


def test_failed_attempts_and_scores_are_counted_apart(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = Score("judge", 0.0, {}, failure="no verdict")
    later = Score("style", 0.0, {}, failure="worse")
    tries = {"a": {"b": {"t1": [{"x": 1.0}], "t2": [None], "t3": [{"judge": broken, "style": 1.0}], "t4": [None]}}}
    with scored_run(home, "n", tries) as made:
        attempts = list(made.traces())
    assert run.report_failures(attempts) is True
    assert capsys.readouterr().err.splitlines() == [
        "firsthand: 2 of 4 attempts failed, the first with ModelError: gone",
        "firsthand: 1 of 4 attempts could not be scored, the first by judge: no verdict",
    ]
    unlike = [replace(attempts[1], error=Failure("TimeLimit", "too slow")), *attempts]
    unlike.append(replace(attempts[2], scores=(later,)))
    assert run.report_failures(unlike) is True
    assert capsys.readouterr().err.splitlines() == [
        "firsthand: 3 of 6 attempts failed, the first with TimeLimit: too slow",
        "firsthand: 2 of 6 attempts could not be scored, the first by judge: no verdict",
    ]
    assert run.report_failures(summaries_of(attempts[:1])) is False and capsys.readouterr().err == ""
    second = [replace(attempts[0], scores=(Score("x", 1.0), later))]
    assert run.report_failures(second) is False, "only the first score counts"
    assert run.report_failures(attempts[2:3]) is True and run.report_failures(attempts[1:2]) is True
    assert "1 of 1 attempt failed" in capsys.readouterr().err


def test_the_boards_of_a_run_are_made_of_its_budget_clusters_figures_order_and_reducers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(board, "leaderboard", lambda attempts, **more: told.append((attempts, more)) or ["made"])
    monkeypatch.setattr(board, "reducers_of", lambda run: {"sums": run.id})
    made: Any = SimpleNamespace(
        id="R", clusters=lambda: {"c": 1}, agents=lambda: {"b": {}, "a": {}}, retried=lambda: {}
    )
    settings: Any = SimpleNamespace(token_budget=77)
    figures, attempts = {"sums": len}, [object()]
    results: Any = print_run.Results(made, settings, attempts, {"sums": "5-shot"}, figures)  # type: ignore[arg-type]
    assert results.boards() == ["made"] and results._replace(attempts=[]).boards() == []
    [(given, more)] = told
    assert given is attempts and more == {
        "budget": 77, "clusters": {"c": 1}, "figures": figures, "order": {"b": {}, "a": {}},
        "protocols": {"sums": "5-shot"}, "reducers": {"sums": "R"}, "retried": {},
    }  # fmt: skip


def test_a_report_takes_the_place_of_a_link_and_a_folder_refuses_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = scored_run(home, "n", {"ada": {"sums": {"t1": [{"exact": 1.0}], "t2": [{"exact": 0.0}]}}})
    attempts = list(made.summaries())
    settings = run.RunSettings(benchmarks=("sums", "more"), model=("m", "o"))
    results = print_run.Results(made, settings, attempts, {"sums": "5-shot"})
    other = home / "mine.txt"
    other.write_text("mine")
    (made.path / "report.html").symlink_to(other)
    boards = results.boards()
    assert [(board.benchmark, len(board.rows), board.protocol) for board in boards] == [("sums", 1, "5-shot")]
    told = print_run.write_report(made, settings, attempts, boards, {"sums": "5-shot"})
    assert told == str(made.path / "report.html") and other.read_text() == "mine"
    page = (made.path / "report.html").read_text()
    assert "sums, more with m, o" in page and settings.command() in page and "protocol of sums" in page
    shown = [each for part in re.split(r"<[^>]*>", page) if (each := html.unescape(part).strip())]
    end = shown.index("Reproduce")
    for n, right in ((1, "1.00"), (2, "0.00")):
        said, at = f"ada t{n} 0", shown.index(f"sums / t{n}")
        assert shown[at : at + 18] == [
            f"sums / t{n}", "ada", right, said, "x", "8", "1.0 s", "question", f"t{n}?", "expected", "x", "answer", said,
            "attempt", f"n-ada-sums-t{n}-0", "user", f"t{n}?", "assistant",
        ]  # fmt: skip
    assert shown[shown.index("The whole run", end) + 1] == settings.command()
    facts = {
        "seed": "0",
        "protocol of sums": "5-shot",
        "python": made.about["machine"]["python"],
        "run": str(made.path),
    }
    assert {name: shown[shown.index(name, end) + 1] for name in facts} == facts
    assert str(made.path) in page and not (made.path / "report.html").is_symlink()
    (made.path / "report.html").unlink()
    (made.path / "report.html").symlink_to(home / "not there yet")
    print_run.write_report(made, settings, attempts, boards, {})
    assert not (home / "not there yet").exists(), "nor is a file made that a link points to"
    (made.path / "report.html").unlink()
    (made.path / "report.html").mkdir()
    with pytest.raises(StoreError) as refused:
        print_run.write_report(made, settings, attempts, boards, {})
    assert (
        str(refused.value) == f"the report {made.path}/report.html cannot be written: Is a directory; the run is kept"
    )
    empty = print_run.Results(made, settings, [], {})
    assert empty.boards() == []
    capsys.readouterr()
    print_run.print_results(empty)
    assert capsys.readouterr().out == f"No attempt has finished.\nreproduce {settings.command()}\n"
    assert print_run.judge_facts(attempts) == {}
    judged = SimpleNamespace(
        scores=(Score("r", 1.0, {"judge": "m", "protocol": "p", "by": "words", "calls": 2, "tokens": 9}),)
    )
    facts = print_run.judge_facts([judged])  # type: ignore[list-item]
    assert facts == {"judge": "m, protocol p", "judging": "2 calls, 9 tokens", "verdicts": "1 by words"}
    made.close()
