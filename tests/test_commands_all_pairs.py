"""`firsthand compare`: every two agents of one run, or of three and more; the changed tasks and figures of two."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.commands import compare, pairwise, sides
from firsthand.commands.compare_config import Config
from firsthand.errors import ConfigError, UnknownName
from firsthand.runs import pairing, store
from firsthand.runs.run_folder import Run
from firsthand.stats.figures import micro_f1
from printed_tables import widen, words
from scored_runs import scored_run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    widen(monkeypatch, pairwise, compare)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    return tmp_path


def made(home: Path, name: str, **agents: str) -> str:
    """A run whose agents got these scores at the tasks a1, a2, b3, b4; x is an attempt that failed."""

    def tries(digits: str) -> dict[str, Any]:
        return {
            task: [None if digit == "x" else {"exact": int(digit) / 4, "other": 1.0}]
            for task, digit in zip(("a1", "a2", "b3", "b4"), digits, strict=True)
        }

    with scored_run(home, name, {agent: {"sums": tries(digits)} for agent, digits in agents.items()}) as run:
        return run.id


Json = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def compared(capsys: pytest.CaptureFixture[str]) -> Json:
    def of(*runs: str, **more: Any) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert pairwise.compare_pairwise(Config(runs, json=True, **more)) == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return found

    return of


def test_every_two_agents_of_a_run_are_compared_the_later_with_the_earlier(home: Path, compared: Json) -> None:
    run = made(home, "r", ada="0004", cy="04x4", bob="4444")
    found = compared(run)
    assert [(each["benchmark"], each["score"], each["a"], each["b"]) for each in found] == [
        ("sums", "exact", "ada", "cy"), ("sums", "exact", "ada", "bob"), ("sums", "exact", "cy", "bob"),
    ]  # fmt: skip
    # an attempt that failed counts as 0: ada has 1 of 4, cy 2, bob 4
    assert [(each["difference"], each["n"]) for each in found] == [(0.25, 4), (0.75, 4), (0.5, 4)]
    assert [(each["better"], each["worse"], each["same"]) for each in found] == [(1, 0, 3), (3, 0, 1), (2, 0, 2)]
    dropped = compared(run, errors="drop")
    # without b3: ada 1 of 3, cy 2 of 3, bob 3 of 3; ada and bob keep all four
    assert [(round(each["difference"], 3), each["n"]) for each in dropped] == [(0.333, 3), (0.75, 4), (0.333, 3)]
    assert [round(each["difference"], 3) for each in compared(run, score="other")] == [-0.25, 0.0, 0.25]
    wide, narrow = (compared(run, confidence=level)[1] for level in ("99%", "80%"))
    assert wide["low"] < narrow["low"] < 0.75
    plain, holm = (compared(run, correct=kind)[1]["p_value"] for kind in ("none", "holm"))
    assert plain < holm, "of three comparisons"


def test_agents_of_several_runs_have_the_names_of_their_runs_and_a_run_counts_once(home: Path, compared: Json) -> None:
    first, second = made(home, "one", ada="0000", bob="0044"), made(home, "two", ada="4444")
    found = compared(first, second, first)
    names = [f"{first}/ada", f"{first}/bob", f"{second}/ada"]
    assert [(each["a"], each["b"], each["difference"]) for each in found] == [
        (names[0], names[1], 0.5), (names[0], names[2], 1.0), (names[1], names[2], 0.5),
    ]  # fmt: skip
    for again in (["last"], [str(home / "runs" / second)], [first, "last", second]):
        assert compared(first, second, *again) == found, "whatever it is called"
    assert compared(first, str(home / "runs" / first)) == compared(first), "one run: its agents have their own names"
    assert [each["a"] for each in compared(first, benchmark="sums")] == ["ada"]
    with pytest.raises(UnknownName, match=f"no benchmark 'sum'; did you mean 'sums'.* `firsthand show {first}`"):
        compared(first, benchmark="sum")
    with pytest.raises(ConfigError) as refused:
        compared(second)
    assert str(refused.value) == "the runs have one agent only: name runs with several, whose pairs are compared"


def test_every_run_is_closed_one_named_twice_and_after_a_refusal_too(
    home: Path, compared: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_: list[str] = []
    name = made(home, "one", ada="0000", bob="0044")
    opening, closing = store.open_run, Run.close

    def opened(ref: str, home: Path) -> Run:
        run = opening(ref, home)
        open_.append(run.id)
        return run

    monkeypatch.setattr(store, "open_run", opened)
    monkeypatch.setattr(Run, "close", lambda self: open_.remove(self.id) or closing(self))
    assert len(compared(name, name, name)) == 1 and open_ == []
    with pytest.raises(UnknownName):
        compared(name, benchmark="more")
    assert open_ == []


def test_one_benchmark_of_several_is_compared_alone(
    home: Path, compared: Json, capsys: pytest.CaptureFixture[str]
) -> None:
    scores: Any = {
        agent: {"sums": {"t": [{"exact": value}], "u": [{"exact": value}]}, "more": {"t": [{"exact": 0.5}]}}
        for agent, value in (("ada", 1.0), ("bob", 0.0))
    }
    for agent in ("ada", "bob"):
        scores[agent]["sums"]["t"][0]["style"] = 0.25
    with scored_run(home, "r", scores) as run:
        name = run.id
    assert [(each["benchmark"], each["score"]) for each in compared(name, score="style")] == [("sums", "style")]
    assert [(each["benchmark"], each["difference"], each["n"]) for each in compared(name)] == [
        ("more", 0.0, 1), ("sums", -1.0, 2)
    ]  # fmt: skip
    assert [each["benchmark"] for each in compared(name, benchmark="more")] == ["more"]
    assert pairwise.compare_pairwise(Config((name,), benchmark="more", confidence="90%")) == 0
    told = words(capsys.readouterr().out)
    assert told[0] == "more, exact: all pairs" and told[1].startswith("agent vs. tasks difference (90% CI) p ")
    assert told[2].startswith("bob ada 1 +0.000 [") and len(told) == 3, "one pair needs no correction"


def test_groups_are_those_of_the_first_run_that_has_some(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (
        scored_run(home, name, {"ada": {"sums": {"t": [{"exact": 1.0}], "u": [{"exact": 0.0}]}}}) for name in "abc"
    )
    groups = {one.id: {}, two.id: {"sums": {"t": "g", "u": "g"}}, three.id: {"sums": {"t": "h", "u": "i"}}}
    monkeypatch.setattr(Run, "clusters", lambda self, strata: groups[self.id] if strata == "s" else None)
    asked: list[Any] = []
    monkeypatch.setattr(
        pairwise, "all_pairs", lambda values, *given, **more: asked.append((values, *given, more)) or {}
    )
    runs = [one, two, three]
    agents: Any = {f"{run.id}/ada": {"t": (1.0,), "u": (0.0,)} for run in runs}
    config = Config(tuple(run.id for run in runs), strata="s", correct="bh", confidence="90%")
    assert [place for place, _ in pairwise.on_benchmark(config, runs, "sums", agents, {})] == [("sums", "exact")]
    assert asked == [(agents, "bh", 0.9, groups[two.id]["sums"], {"lower_is_better": False})]
    for run in runs:
        run.close()


# -- two runs --


def test_changed_tasks_name_the_first_attempt_of_each_side(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def twice(value: float) -> Any:
        return {"ada": {"sums": {"t": [{"exact": value}, {"exact": value}], "u": [{"exact": 0.5}, {"exact": 0.5}]}}}

    one, two = scored_run(home, "one", twice(1.0)), scored_run(home, "two", twice(0.25))
    found = pairing.compare(one, two)
    places = {"a": ("0a1b2c3d4e", "ffffffffff"), "b": ("9z8y7x6w5v", "eeeeeeeeee")}
    pairs = [
        replace(pair, a=replace(pair.a, places=places["a"]), b=replace(pair.b, places=places["b"]))
        for pair in found.pairs
    ]
    compare.print_comparison(replace(found, pairs=tuple(pairs)), {}, Config((one.id, two.id)))
    told = words(capsys.readouterr().out)
    at = told.index("changed tasks (1)")
    assert told[at + 1 : at + 3] == ["task a b trace in a trace in b", "sums/t 1 0.25 0a1b2c3d 9z8y7x6w"]
    one.close(), two.close()


def test_figures_of_an_agent_whose_name_has_a_slash_are_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: Any = {"org/ada": {"sums": {"t": [{"exact": 1.0}], "u": [{"exact": 0.0}]}}}
    one, two = scored_run(home, "one", tries), scored_run(home, "two", tries)
    asked: list[Any] = []

    def figures(named: Any, benchmark: str, own: Any, **more: Any) -> Any:
        asked.append((named, benchmark, own, more))
        return {"both": {"a": "of a", "b": "of b"}, "alone": {"b": "of b"}}

    monkeypatch.setattr(sides, "stored_figures", figures)
    found = pairing.compare(one, two, agent_a="org/ada", agent_b="org/ada")
    own: Any = {"sums": len}
    assert sides.paired_figures(found, "sums", one, two, own, errors=True) == {"both": ("of a", "of b")}
    both = {"a": {"t", "u"}, "b": {"t", "u"}}
    assert asked == [
        ({"a": (one, "org/ada"), "b": (two, "org/ada")}, "sums", own, {"tasks": both, "errors": True})
    ]  # fmt: skip
    one.close(), two.close()


def test_figures_of_a_benchmark_are_those_of_the_tasks_that_are_paired_in_it(home: Path) -> None:
    def tries(**of_task: str) -> Any:
        return {task: [{"exact": 1.0, "labels": micro_f1("labels", {label}, {"x"})}] for task, label in of_task.items()}

    one = scored_run(home, "one", {"ada": {"sums": tries(t="x", u="y"), "words": tries(t="x", u="x", v="y")}})
    two = scored_run(home, "two", {"ada": {"sums": tries(t="y", u="y", w="x"), "words": tries(t="y", v="x", w="x")}})
    found = pairing.compare(one, two)
    # u and w of words stand in one run alone, though each of them is a task of sums too
    for benchmark, tasks in (("sums", ["t", "u"]), ("words", ["t", "v"])):
        figures = sides.paired_figures(found, benchmark, one, two, {}, errors=True)
        assert list(figures) == ["labels"] and [sorted(each.tasks) for each in figures["labels"]] == [tasks] * 2
    pairs = tuple(each for each in found.pairs if (each.benchmark, each.task_id) != ("words", "t"))
    (fewer,) = sides.paired_figures(replace(found, pairs=pairs), "words", one, two, {}, errors=True).values()
    assert [each.tasks for each in fewer] == [("v",), ("v",)], "t of words was taken out, and t of sums is another task"
    assert sides.paired_figures(found, "others", one, two, {}, errors=True) == {}
    one.close(), two.close()


@pytest.mark.parametrize("paired_by", [None, "exact"])
def test_samples_are_those_of_the_score_that_attempts_are_paired_by(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], paired_by: str | None
) -> None:
    runs = [scored_run(home, name, {"ada": {"sums": {"t": [{"exact": 1.0}]}}}) for name in ("one", "two")]
    ids = tuple(run.id for run in runs)
    told: list[Any] = []

    def keep(name: str, result: Any = None) -> Any:
        def kept(*given: Any) -> Any:
            told.append((name, *(each.id if isinstance(each, Run) else each for each in given)))
            return result

        return kept

    monkeypatch.setattr(compare, "own_figures", lambda complain, *of: "own")
    monkeypatch.setattr(compare, "benchmarks_with", lambda score, *of, own: {"sums": paired_by})
    for name, result in (("compare_all", ["pairs"]), ("differences_of", "differences"), ("write_page", None),
                         ("print_comparison", None), ("print_samples", None), ("print_flaky", None),
                         ("flaky", "flaky")):  # fmt: skip
        monkeypatch.setattr(compare, name, keep(name, result))
    config = Config(ids, score="bleu", diff=True, flaky=True, html=home / "c.html", limit=7)
    monkeypatch.setattr(compare, "PairBudget", lambda: "one budget")
    assert compare.main(config) == 0
    assert told == [
        ("compare_all", config, *ids, {"sums": paired_by}), ("write_page", config, ["pairs"], *ids, paired_by),
        ("differences_of", config, "pairs", *ids, "own"), ("print_comparison", "pairs", "differences", config),
        ("flaky", "pairs"), ("print_flaky", "flaky", 7), ("print_samples", "pairs", *ids, config, paired_by, "one budget"),
    ]  # fmt: skip
    told.clear()
    assert compare.main(Config(ids)) == 0 and [each[0] for each in told] == [
        "compare_all", "differences_of", "print_comparison"
    ]  # fmt: skip
    for run in runs:
        run.close()


def test_samples_are_printed_up_to_the_limit_and_a_page_has_those_of_every_comparison(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    drawn: list[str] = []

    def samples(comparison: Any, *given: Any) -> Any:
        asked.append((comparison.b, *given))
        for number in range(4):
            drawn.append(f"{comparison.b}{number}")
            yield drawn[-1]

    monkeypatch.setattr(compare, "samples", samples)
    monkeypatch.setattr(compare, "terminal_text", lambda sample, width, budget: f"<{sample} {width} {budget}>")
    a: Any = "run a"
    b: Any = "run b"
    tasks = {"worse": 1, "better": 2, "same": 3}
    first, second = (
        SimpleNamespace(a=f"{name}-", b=name, tasks=lambda change, times=times: [change] * tasks[change] * times)
        for name, times in (("x", 1), ("y", 10))
    )
    more = "there are more: --limit shows them, and --html writes them into a file\n"
    for limit, told in (
        (3, f"<x0 240 b>\n<x1 240 b>\n<x2 240 b>\n{more}"),
        (4, "".join(f"<x{n} 240 b>\n" for n in range(4))),
    ):
        compare.print_samples(first, a, b, Config(("r", "s"), only="worse", limit=limit), "exact", "b")  # type: ignore[arg-type]
        assert capsys.readouterr().out == told
    assert asked == [("x", a, b, "worse", "exact")] * 2
    pages: list[Any] = []
    monkeypatch.setattr(compare, "page", lambda *given: pages.append(given) or "the page é")
    monkeypatch.setattr(compare, "MAX_SAMPLES", 5)
    drawn.clear()
    config = Config(("r", "s"), only="all", html=home / "c.html")
    compare.write_page(config, [first, second], a, b, None)  # type: ignore[list-item]
    counts = [("worse", 11), ("better", 22), ("same", 33)]
    assert pages == [("x vs. x-; y vs. y-", ["x0", "x1", "x2", "x3", "y0", "y1"], counts)], (
        "one more tells that some are cut"
    )
    assert (home / "c.html").read_text(encoding="utf-8") == "the page é" and asked[2:] == [
        ("x", a, b, "all", None), ("y", a, b, "all", None)
    ]  # fmt: skip
    missing = replace(config, html=home / "none" / "c.html")
    with pytest.raises(ConfigError, match=r"^cannot write '.*/none/c\.html': No such file or directory$"):
        compare.write_page(missing, [first], a, b, None)  # type: ignore[list-item]
