"""Runs that are not alike, side by side: other tasks, clusters, protected tasks, agents of one name, long answers."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from firsthand.errors import ConfigError
from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.runs.attempts import insert_trace
from firsthand.runs.run_folder import Run
from firsthand.show import answer_diff
from firsthand.stats.paired import PairedDifference
from firsthand.stats.power_analysis import paired_tasks_needed
from firsthand.studio.run_export import exported
from firsthand.studio.views import attempt_views, comparison_views
from firsthand.studio.views.attempt_views import check_note
from firsthand.studio.views.comparison_views import (
    GridRow,
    contest_of,
    grid_rows,
    is_open,
    plots_of,
    sides_of,
    tasks_to_decide,
)
from firsthand.task import Task
from firsthand.trace import Call, Node, Score, Trace
from studio_page_outline import outline
from studio_small_home import entered, post, problem, said

Shown = tuple[TestClient, Path, str, str]


def attempt(run: Run, number: int, agent: str, task: str, score: float, tokens: int = 100) -> None:
    nodes = (Node(None, user(f"Q {task}")), Node(0, assistant("é" * 40)))
    calls = (Call(":0", "generate", 0, 0.0, 0.5, "r", usage=Usage(tokens, 0, 10, 0.0), nodes=(1,)),)
    run.append(Trace(f"{run.id}-{number}", "quiz", task, {"name": agent, "model": agent}, 0, 0,
                     "2026-01-01T00:00:00+00:00", 1.5, nodes=nodes, calls=calls, answer=f"é{number % 6}é tail {agent}",
                     scores=(Score("exact", score),), place=f"p{number}"))  # fmt: skip


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Runs `first` of ann and `second` of cat and ann; `first` holds two tasks more, which nobody has attempted."""
    home = tmp_path_factory.mktemp("unlike")
    tasks = [
        Task("t0", "Secret words?", secret={"answer": "0"}, metadata={"protected": "", "level": "hard"}),
        *(Task(f"t{n}", f"Ask {n}?", secret={"answer": "1"}, metadata={"level": "easy", "cluster": f"c{n // 3}"})
          for n in range(1, 6)),
    ]  # fmt: skip
    more = [Task(f"t{n}", f"Ask {n}?", metadata={"size": str(n)}) for n in (6, 7)]
    with store.create(home, {}, "first", command=["firsthand"]) as first:
        first.add_tasks("quiz", [*tasks, *more])
        first.add_agent("ann", {"name": "ann", "model": "m"})
        for number, score in enumerate((1.0, 1.0, 0.5, 0.25, 0.75, 1.0)):
            attempt(first, number, "ann", f"t{number}", score)
    with store.create(home, {}, "second", command=["firsthand"]) as second:
        second.add_tasks("quiz", tasks)
        for number, agent in enumerate(("cat", "ann")):
            second.add_agent(agent, {"name": agent, "model": agent})
            for at, score in enumerate((0.0, 0.5, 0.25, 0.5, 0.0, 1.0)):
                attempt(second, 6 * number + at, agent, f"t{at}", score * (1 - number / 2), 200 + number)
    with store.create(home, {}, "third", command=["firsthand"]) as third:
        third.add_agent("ann", {"name": "ann", "model": "m"})
        attempt(third, 0, "ann", "t1", 0.5)
    with entered(home) as client:
        yield client, home, first.id, second.id


@pytest.mark.slow
def test_the_text_of_a_task_that_is_protected_without_a_reason_is_shown_nowhere(shown: Shown) -> None:
    client, home, first, second = shown
    assert post(client, "/queues", name="odd", run=first, score="good").status_code == 303
    pages = [
        f"/runs/{first}/attempts/p0", "/queues/odd/items/p0",
        f"/compare/attempts?run_a={first}&a=p0&run_b={second}&b=p0",
    ]  # fmt: skip
    for path in pages:
        page = said(client.get(path))
        assert "Secret words?" not in page and "expected" not in page, path
    with store.open_run(first, home) as run:
        text, count, left = exported(run)
        assert "Secret words?" not in text and "Ask 1?" in text and (count, left) == (6, 0)
    for place, says in (("p0", "the task 't0' is protected (): it is not collected"), ("p1", None)):
        answer = post(client, "/data-sets", name="x", run=first, attempt=place)
        assert (answer.status_code == 303) if says is None else says in problem(answer)


def test_names_and_scores_of_notes_up_to_their_limits() -> None:
    for name in ("a", "größe-1_b.c", "n" * 60, "-", "²"):
        assert check_note(name, "0.5", "") == (0.5, "")
    for name in ("", "n" * 61, "a b", "a/b", "a\n", "a ", "\u202ea"):
        with pytest.raises(ConfigError) as told:
            check_note(name, "0.5", "")
        assert str(told.value) == f"a note's name is {name[:60]!r}: use letters, digits and -_. (up to 60)"
    for value, number in (("0", 0.0), ("1", 1.0), (" 1e-3 ", 0.001), ("-0.0", 0.0)):
        assert check_note("a", value, "x" * 4000) == (number, "x" * 4000)
    for value in ("", "nan", "inf", "-inf", "1.0000001", "-0.0000001", "one", "0,5", "9" * 50):
        with pytest.raises(ConfigError) as told:
            check_note("a", value, "")
        assert str(told.value) == f"a note's score is {value[:40]!r}: a number from 0 to 1 was expected"
    with pytest.raises(ConfigError, match=r"the note has 4,001 characters: at most 4,000 are kept"):
        check_note("a", "1", "x" * 4001)


def test_a_note_leads_back_to_the_place_of_its_attempt_by_the_runs_whole_id(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    client, home, first, _ = shown
    for given, fields, query in (
        (f"{first}-2", {"name": " kind ", "value": "0.25", "text": "  ", "view": "tree"}, "?view=tree"),
        ("p2", {"name": "mood", "value": "1"}, ""),
    ):
        answer = post(client, f"/runs/{first[:-1]}/attempts/{given}/notes", **fields)
        assert answer.headers["location"] == f"/runs/{first}/attempts/p2{query}"
    with store.open_run(first, home) as run:
        rows = run.database.read("SELECT value, try FROM scores ORDER BY seq")
        notes = [(each.name, each.value, each.detail) for each in run.trace("p2").attempt_scores[1:]]
    assert rows == [(0.25, 1), (1.0, 1)]
    assert notes == [
        ("note.kind", 0.25, {"by": "human:ann", "text": "  "}), ("note.mood", 1.0, {"by": "human:ann"}),
    ]  # fmt: skip


def test_the_raw_view_counts_letters_and_leaves_out_the_rest(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _, first, _ = shown
    path = f"/runs/{first}/attempts/p1?view=raw"
    (whole,) = re.findall(r'<pre class="raw">(.*?)</pre>', client.get(path).text, re.DOTALL)
    raw = html.unescape(whole)
    found = f"/runs/{first}/attempts/p1/spans/found"
    assert client.get(found, params={"words": " ÉÉ "}).json() == ["call:0"]
    says = "the search has 501 characters: at most 500 are read"
    assert says in problem(client.get(found, params={"words": "x" * 499 + "  "}))
    assert raw.startswith('{\n "') and "é" * 40 in raw
    for limit, left in ((len(raw), None), (len(raw) - 1, "1"), (500, str(len(raw) - 500))):
        monkeypatch.setattr(attempt_views, "MAX_RAW_CHARS", limit)
        page = html.unescape(client.get(path).text)
        told = re.search(r"([\d,]+) more characters are left out", page)
        assert (told and told[1].replace(",", "")) == left and f'<pre class="raw">{raw[:limit]}</pre>' in page


def test_answers_are_compared_by_their_beginnings_alone(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _, first, second = shown
    path = f"/compare/attempts?run_a={first}&a=p1&run_b={second}&b=p1"
    page = outline(client.get(path))
    assert "é1é tail" in page and "ann cat" in page.partition("tail")[2][:20]
    monkeypatch.setattr(answer_diff, "MAX_DIFF_CHARS", 5)
    page = outline(client.get(path))
    assert "é1é t" in page and "tail" not in page
    other = outline(client.get(path.removesuffix("1") + "3"))
    assert "Ask 1?" in other and "/ quiz / t1 question" in other and "Ask 3?" not in other


@pytest.mark.slow
def test_the_side_of_an_agents_own_name_is_compared_by_the_tasks_of_the_baseline(shown: Shown) -> None:
    client, _, first, second = shown

    def chosen(query: str) -> tuple[str, str]:
        page = outline(client.get(f"/compare?run={second}&run={first}&run={second}{query}"), {first: "F", second: "S"})
        a, b = (page.partition(name)[2].partition("*")[2].split()[0] for name in ("baseline a:", "against b:"))
        return a, b

    assert chosen("") == ("F/ann", "S/ann"), "the older is the baseline, and cat is not ann"
    (third,) = [info.id for info in store.list_runs(shown[1]) if "third" in info.id]
    assert chosen(f"&run={third}") == ("F/ann", "S/ann"), "the next one, not the last"
    assert chosen(f"&a={second}/cat") == ("S/cat", "S/ann")
    assert chosen(f"&b={second}/cat") == ("F/ann", "S/cat")
    sliced = client.get(f"/compare?run={first}&run={second}&slice=level")
    assert sliced.status_code == 200 and "easy" in said(sliced)
    for query, says in (("", "cluster, level, size"), (f"&a={second}/cat&b={first}/ann", "cluster, level")):
        other = problem(client.get(f"/compare?run={first}&run={second}{query}&slice=x"))
        assert f"the tasks have no metadata 'x' to slice by: they have {says} " in other
    part = client.get(f"/compare?run={first}&run={second}", headers={"hx-request": "true"})
    assert "baseline a:" in outline(part)


def test_differences_of_clustered_tasks_are_wider_and_runs_are_taken_once(shown: Shown) -> None:
    _, home, first, second = shown
    with store.open_run(first, home) as a, store.open_run(second, home) as b:
        sides = sides_of([a, b, a])
        assert [each.key for each in sides] == [f"{first}/ann", f"{second}/cat", f"{second}/ann"]
        found = contest_of(sides[0], sides[2]).differences["quiz"]
        # t0 to t5: 0-1, .25-1, .125-.5, .25-.25, 0-.75, .5-1; t1 and t2 are one cluster, t3 to t5 another
        assert (found.method, found.n, found.clusters) == ("clustered t", 6, 3)
        assert math.isclose(found.difference, -(1 + 0.75 + 0.375 + 0.75 + 0.5) / 6)
        back = contest_of(sides[2], sides[0]).differences["quiz"]
        assert math.isclose(back.difference, -found.difference) and (back.better, back.worse, back.same) == (5, 0, 1)
        ((benchmark, points, unit),) = plots_of(sides[:2])
        assert (benchmark, unit, [each.name for each in points]) == (
            "quiz",
            "tokens",
            [f"{first}/ann", f"{second}/cat"],
        )
        assert [each.name for each in plots_of(sides[1:])[0][1]] == ["cat", "ann"], "of one run the agents are enough"
        assert plots_of(sides[:1]) == [] == plots_of([])
        rows = grid_rows([*sides, sides[0]])
        assert rows[0] == GridRow("quiz", "t0", (1.0, 0.0, 0.0, 1.0)) and len(rows) == 6
        assert [row.task for row in rows] == ["t0", "t1", "t4", "t5", "t2", "t3"], "those of one spread as they came"


def test_the_next_page_of_a_comparison_is_of_the_tasks_that_were_chosen(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _, first, second = shown
    for size, only, has_more in ((5, "changed", False), (4, "changed", True), (5, "all", True), (6, "all", False)):
        monkeypatch.setattr(comparison_views, "PAGE", size)
        text = client.get(f"/compare?run={first}&run={second}&only={only}").text
        assert (f"start={size}" in text) is has_more, (size, only)


def test_a_grid_has_at_most_so_many_columns_and_runs(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _, first, second = shown
    monkeypatch.setattr(comparison_views, "MAX_AGENTS", 2)
    grid = outline(client.get(f"/compare/grid?run={first}&run={second}"), {first: "F", second: "S"})
    assert "cat" in grid and grid.count("ann") < 3
    page = outline(client.get(f"/compare?run={second}&run={second}&run=none"), {second: "S"})
    assert "S/cat" in page and "no run" not in page, "the third is not looked at"
    assert "no run 'none'" in problem(client.get(f"/compare/grid?run={first}&run=none&run={second}"), 404)
    monkeypatch.setattr(comparison_views, "MAX_TASKS", 2)
    assert "t1" not in outline(client.get(f"/compare/grid?run={first}&run={second}"))


def test_the_spread_of_a_task_is_that_of_the_agents_that_attempted_it() -> None:
    spreads = [GridRow("q", "t", values).spread for values in ((), (None,), (None, 0.0), (0.25, None, 1.0, 0.5))]
    assert spreads == [0.0, 0.0, 0.0, 0.75]


def test_the_tasks_that_would_decide_are_as_many_as_the_power_asks_for() -> None:
    seen = PairedDifference(-0.2, -0.5, 0.1, 0.2, 50, 4, 14, 32, "inconclusive", 0.3, "paired t")
    assert tasks_to_decide(seen) == tasks_to_decide(replace(seen, difference=0.2)) == math.ceil(50 * 1.5**2) == 113
    for difference, detectable in ((0.0, 0.3), (math.nan, 0.3), (0.2, math.nan)):
        assert tasks_to_decide(replace(seen, difference=difference, detectable=detectable)) is None
    tango = replace(seen, method="Tango")
    assert tasks_to_decide(tango) == paired_tasks_needed(0.2, 19 / 52)
    assert tasks_to_decide(replace(tango, better=0, worse=2)) == paired_tasks_needed(0.2, 0.2), "no fewer than differ"
    assert tasks_to_decide(replace(tango, n=1, better=1, worse=1)) == paired_tasks_needed(0.2, 1.0)
    assert [is_open(replace(seen, n=n, verdict=v)) for n, v in ((0, "inconclusive"), (1, "inconclusive"), (9, "worse"))] == [
        False, True, False,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_data_set_names_its_own_runs_and_is_put_to_each_model_once(shown: Shown) -> None:
    client, home, first, _ = shown
    for name in ("few", "fewer"):
        assert post(client, "/data-sets", name=name, run=first, attempt="p4").status_code == 303
    with store.create(home, {"data_set": "fewer", "models": [], "check": "none"}, "theirs", command=()):
        pass
    for check, says in (("", "the check is '': it is one of numeric"), ("Exact", "the check is 'Exact': it is one of")):
        assert says in problem(post(client, "/data-sets/few/run", model="m-one", check=check))
    for prompt in (" ", " brief", "brief@1"):
        says = f"no prompt {prompt.partition('@')[0]!r}"
        assert says in problem(post(client, "/data-sets/few/run", model="m-one", prompt=["x", prompt]), 404)
    made = post(client, "/data-sets/few/run", model=["m-two", "m-one", "m-two"], prompt="")
    id = made.headers["location"].rpartition("/")[2]
    with store.open_run(id, home) as run:
        assert run.config == {"data_set": "few", "models": ["m-two", "m-one"], "check": "numeric"}
    forked = post(client, "/playground", model="m-one", run=first, attempt="p4", at="", say=" And? ", pattern="reply")
    with store.open_run(forked.headers["location"].rpartition("/")[2], home) as run:
        told = {"run": first, "attempt": "p4", "at": 0, "say": "And?", "is_plain": True}
        assert run.config == {"playground": {"models": ["m-one"], "epochs": 1, **told}}
    tried = post(client, "/playground", model=["m-two", "m-one", "m-two"], prompt=" Q ", at="", pattern="own")
    with store.open_run(tried.headers["location"].rpartition("/")[2], home) as run:
        assert run.config == {"playground": {"models": ["m-two", "m-one"], "prompt": " Q ", "epochs": 1}}
    page = outline(client.get("/data-sets/few"), {id: "OWN"})
    assert "OWN" in page and "theirs" not in page and "theirs" in outline(client.get("/data-sets/fewer"))
    line = {"id": "t4", "prompt": "Ask 4?", "target": "1", "from": {"run": first, "attempt": "p4"}}
    assert client.get("/data-sets/few/tasks.jsonl").text == json.dumps(line) + "\n"
    kept = post(client, "/data-sets/few/remove", benchmark="quiz", task=" t4 ")
    assert kept.headers["location"] == "/data-sets/few", "a task is taken out by its whole id"
    gone = post(client, "/data-sets/few/remove", benchmark="quiz", task="t4")
    assert gone.headers["location"] == "/data-sets", "the last task takes its data set along"
    for task, benchmark in (("t5", "quiz"), ("t4", "riddles")):
        kept = post(client, "/data-sets/fewer/remove", benchmark=benchmark, task=task)
        assert kept.headers["location"] == "/data-sets/fewer"


@pytest.mark.slow
def test_a_benchmark_with_a_verdict_is_not_undecided(tmp_path: Path) -> None:
    made = []
    for name, sure, close in (("x", 1.0, (1.0, 0.0, 1.0)), ("y", 0.0, (1.0, 1.0, 0.0))):
        with store.create(tmp_path, {}, name, command=["firsthand"]) as run:
            run.add_agent("ann", {"name": "ann", "model": "m"})
            with run.database.write() as connection:
                for n, (benchmark, score) in enumerate([*(("sure", sure),) * 12, *(("close", each) for each in close)]):
                    insert_trace(connection, Trace(f"{name}{n}", benchmark, f"t{n}", {"name": "ann"}, 0, 0, "", 1.0,
                                                   scores=(Score("exact", score),), place=f"p{n}"))  # fmt: skip
            made.append(run.id)
    with entered(tmp_path) as client:
        page = said(client.get(f"/compare?run={made[0]}&run={made[1]}"))
    assert "close is undecided: 3 tasks show" in page and "sure is undecided" not in page
    assert "No difference was seen." in page
