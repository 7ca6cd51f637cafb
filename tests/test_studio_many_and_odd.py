"""The Studio's pages where there are many of a thing, two tries of one, nothing of it, or text that may not be shown."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.task import Task
from firsthand.trace import Call, Event, Node, Origin, Score, Trace
from studio_page_outline import asked, sent
from studio_small_home import entered
from studio_varied_home import RUNS, attempt, span, write_runs

DAY_S = 86_400


def made(number: int, text: str = "ask", **more: Any) -> Trace:
    given = {"scores": (Score("exact", number / 200),), "place": f"p{number}", "answer": f"a{number}", **more}
    nodes = (Node(None, user(text)), Node(0, assistant(f"{text} again")))
    calls = (Call(":0", "generate", 0, 0.0, 1.0, "r", usage=Usage(number, 0, 1, 0.0), nodes=(1,)),)
    return Trace(f"x{number}", "quiz", f"t{number}", {"name": "ann"}, 0, 0, "", 1.0, nodes=nodes, calls=calls, **given)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, str, dict[str, str]]]:
    home = tmp_path_factory.mktemp("many")
    with store.create(home, {}, "many") as run:
        for number in range(102):
            run.append(made(number))
    taken = TraceStore(home, create=True)
    taken.add(SpanPreparer(Redactor()).prepared(
        [span(n, 1, 0, "ask", n * DAY_S, 1, session__id=f"s{n:03d}", user__id=f"u{n:03d}") for n in range(1,
        103)]))  # fmt: skip
    taken.close()
    with entered(home) as client:
        yield client, run.id, {run.id: "MANY"}


@pytest.mark.slow
def test_the_hundred_and_first_is_on_the_next_page(shown: tuple[TestClient, str, dict[str, str]]) -> None:
    client, run, names = shown
    for path, more, first, second in (
        (f"/runs/{run}?filter=agent:ann&sort=tokens", f"/runs/{run}?filter=agent%3Aann&sort=tokens&start=100",
        "p99", "p100"),
        ("/traces?filter=user:u&sort=started", "/traces?filter=user%3Au&sort=started&start=100", f"{100:032x}",
        f"{101:032x}"),
    ):  # fmt: skip
        page = html.unescape(client.get(path).text)
        assert f'hx-get="{more}"' in page and f"{first}?" in page and f"{second}?" not in page
        rest = html.unescape(client.get(more, headers={"hx-request": "true"}).text)
        assert "hx-get" not in rest and f"{second}?" in rest and f"{first}?" not in rest and rest.count("<tr") == 2
    for by, last, next_one in (("sessions", "s003", "s002"), ("users", "u003", "u002")):
        page, _ = asked(client, f"/traces/by/{by}?filter=name:ask", names)
        assert (
            page.endswith(f" more(/traces/by/{by}?filter=name%3Aask&start=100)")
            and f" {last}(" in page
            and f" {next_one}(" not in page
        )
        rest, _ = asked(client, f"/traces/by/{by}?filter=name:ask&start=100", names)
        assert " more(" not in rest and f" {next_one}(" in rest and f" {last}(" not in rest
    page, _ = asked(client, "/traces/by/days?filter=name:ask", names)
    assert (
        page.endswith(" more(/traces/by/days?filter=name%3Aask&start=100)")
        and "1970-01-05(" in page
        and "1970-01-04(" not in page
    )
    rest, _ = asked(client, "/traces/by/days?filter=name:ask&start=100", names)
    assert " more(" not in rest and "1970-01-04(" in rest and "1970-01-05(" not in rest
    assert "1970" not in asked(client, "/traces/by/days?start=102", names)[0]


def test_a_queue_and_a_data_set_take_all_that_a_filter_finds(shown: tuple[TestClient, str, dict[str, str]]) -> None:
    client, run, names = shown
    assert sent(client, "/queues", {}, name="q", run=run, filter="tokens>1", score="good", guide="g" * 4001) == (
        303,
        "/queues/q",
    )
    page, _ = asked(client, "/queues/q", names)
    assert (
        " 0 of 101 finished, 0 labels." in page and page.count("(/queues/q/items/") == 101 and f" {'g' * 4000} " in page
    )
    skipped = "&".join(f"skip=p{number}" for number in range(1, 53))
    moved = client.get(f"/queues/q/next?as=eve&{skipped}", follow_redirects=False)
    assert moved.headers["location"] == "/queues/q/items/p1?as=eve", "the last fifty count"
    moved = client.get(f"/queues/q/next?as=eve&{skipped}&skip=p1", follow_redirects=False)
    assert moved.headers["location"] == "/queues/q/items/p2?as=eve"
    assert sent(client, "/data-sets", {}, name="s", run=run, filter="tokens>1")[0] == 400, "the run holds no tasks"
    last = asked(client, "/queues/q/items/p101?as=eve", names)[0]
    assert last.startswith("Queues(/queues) / q(/queues/q) / quiz / t101 0 of 101 rated by human:eve. ")


def test_the_newest_try_counts_and_gets_the_note(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "tries") as run:
        run.append(made(1))
        run.append(
            made(1, "once more", scores=(Score("exact", 0.75),), answer="new", origin=Origin("x0", 1, "parents"))
        )
    names = {run.id: "RUN"}
    with entered(tmp_path) as client:
        base = f"/runs/{run.id}/attempts/p1"
        assert sent(client, f"{base}/notes", {}, name="good", value="0.5", text="Yes", view="tree") == (
            303,
            f"{base}?view=tree",
        )
        page, status = asked(client, base, names)
        assert (
            status == 200 and " answer new scores 0.75 exact note.good 0.5 Yes " in page and " user #0 continue" in page
        )
        assert (
            "once more again" in page
            and page.count(" assistant #1 ") == 1
            and "ask" not in page.split("assistant #1")[1]
        )
        assert (
            "Continues an attempt of parents(/runs/parents/attempts/x0) from message #1: compare the "
            "two(/compare/attempts?run_a=parents&a=x0&run_b=RUN&b=x1)"
        ) in page
        assert sent(client, "/queues", {}, name="q", run=run.id, score="kind")[0] == 303
        rated = sent(client, "/queues/q/items/p1", {}, value="1", version="0", **{"as": "eve"})
        assert rated == (303, "/queues/q/next?as=eve")
        kept = client.app.state.runs.get(run.id)  # type: ignore[attr-defined]
        assert [(score.name, score.value, score.detail) for score in kept.trace("p1").attempt_scores] == [
            ("exact", 0.75, {}), ("note.good", 0.5, {"by": "human:root", "text": "Yes"}), ("note.kind", 1.0,
            {"by": "human:eve"}),
        ]  # fmt: skip
        assert asked(client, f"/runs/{run.id}", names)[0].count("/attempts/p1)") == 1
        rows = asked(client, f"+/runs/{run.id}?filter=has:note", names)[0]
        assert " 1 attempt columns " in rows and rows.endswith(
            "quiz / t1(/runs/RUN/attempts/p1?filter=has%3Anote) ann 0.75 done 2 1 1.0 s"
        )


@pytest.mark.slow
def test_protected_text_is_on_no_page(tmp_path: Path) -> None:
    hidden = "a secret question of some length"
    with store.create(tmp_path, {}, "guarded") as run:
        run.add_tasks(
            "quiz", [Task("t1", hidden, secret={"answer": "the secret"}, metadata={"protected": "its authors ask"})]
        )
        run.add_agent("ann", {"name": "ann"})
        run.append(
            made(1, hidden, events=(Event("protected", 0.0, {"why": "its authors ask"}),), answer=f"{hidden}, it is")
        )
    with entered(tmp_path) as client:
        assert sent(client, "/queues", {}, name="q", run=run.id, filter="", score="good")[0] == 303
        both = f"run_a={run.id}&a=p1&run_b={run.id}&b=p1"
        for path in (f"/runs/{run.id}", f"/runs/{run.id}/attempts/p1", f"/runs/{run.id}/attempts/p1?view=raw",
        f"/runs/{run.id}/attempts/p1?view=tree",
                     "/queues/q/items/p1", f"/compare/attempts?{both}", f"/playground?run={run.id}&attempt=p1",
                     f"/runs/{run.id}/attempts/p1/span?ref=call:0", f"/runs/{run.id}/attempts/p1/spans.json"):  # fmt: skip
            answer = client.get(path)
            assert answer.status_code == 200 and "secret question" not in answer.text, path
        says = "the task 't1' is protected (its authors ask): it is not collected"
        assert sent(client, "/data-sets", {}, name="s", run=run.id, attempt="p1") == (
            400,
            f"Problem {says} All runs(/)",
        )


def test_where_nothing_was_attempted_the_pages_say_what_to_do(tmp_path: Path) -> None:
    with store.create(tmp_path, {"a": 1}, "bare") as run:
        pass
    names = {run.id: "BARE"}
    with entered(tmp_path) as client:
        page, status = asked(client, "/queues", names)
        assert (
            status == 200 and "BARE" not in page and page.startswith("Annotation queues There is nothing to rate yet.")
        )
        for key, ends in (
            (f"/compare?run={run.id}", "Compare A comparison needs two agents. Mark two runs in the list of "
            "runs(/) (key x)"),
            (f"/compare/grid?run={run.id}", "Compare(/compare?run=BARE&) / Tasks by agents No run is chosen, or "
            "nothing was attempted"),
            (f"/curves?run={run.id}", "Curves The run has logged no numbers."), ("/compare", "Compare A "
            "comparison needs two agents."),
        ):  # fmt: skip
            assert asked(client, key, names)[0].startswith(ends)
        assert (
            asked(client, f"+/runs/{run.id}/board", names)
            == ("", 200)
            == asked(client, f"+/runs/{run.id}/under-way", names)
        )
        whole, _ = asked(client, f"/runs/{run.id}", names)
        assert "Scores are computed" not in whole and " 0 attempts, 0 tokens Note " in whole
        assert whole.endswith(" No attempt fulfils this filter.")


@pytest.mark.slow
def test_a_board_has_every_agent_with_its_own_numbers(tmp_path: Path) -> None:
    first, _ = write_runs(tmp_path)
    with entered(tmp_path) as client:
        page, status = asked(client, f"+/runs/{first}/board", {first: "FIRST"})
        assert status == 200 and page.startswith(
            "quiz exact, 3 tasks, 2 epochs bob: inconclusive vs. ann (0.00 vs. 0.50, p=1.000), for 1.2x its tokens."
        )
        assert (
            " ann ◆ on the Pareto frontier 0.50[0.00, 1.00] ◇ baseline 140113 in, 27 out7 cached 1.5 smean 1.5 "
            "spath 750 ms 1 $0.29 0 bob "
            "0.00[0.00, 0.66] -0.75[-0.99, +0.96] ● inconclusivep=1.0000 won, 1 lost, 0 same 175160 in, 15 "
            "out16 cached 6.0 smean 6.0 "
            "spath 3.0 s 1 $0.50 1 Errors: 1 attempt failed or could not be scored."
        ) in page
        with store.open_run(first, tmp_path) as run:
            run.append(attempt(run, 5, (*RUNS["first"][4][:3], 1.0, *RUNS["first"][4][4:])))
        again, _ = asked(client, f"+/runs/{first}/board", {first: "FIRST"})
        assert again != page and re.search(r" bob 0\.\d\d\[", again.replace("◆ on the Pareto frontier ", ""))


def test_what_was_looked_at_goes_when_another_run_takes_the_place_of_its_run(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "taken") as run:
        run.append(made(1, scores=(Score("exact", 0.25),)))
    shutil.copytree(run.path, tmp_path / "copy")
    with store.open_run(run.id, tmp_path) as again, again.database.write() as connection:
        connection.execute("DELETE FROM traces")
    with store.open_run(run.id, tmp_path) as again:
        again.append(made(1, "other words", scores=(Score("exact", 1.0),), answer="another answer"))
    with entered(tmp_path) as client:

        def shown_now() -> tuple[str, list[str]]:
            page = asked(client, f"/runs/{run.id}/attempts/p1", {})[0]
            board = asked(client, f"+/runs/{run.id}/board", {})[0]
            return page.partition(" answer ")[2].partition(" scores ")[0], re.findall(r"\d\.\d\d(?=\[)", board)

        assert shown_now() == ("another answer", ["1.00"])
        shutil.move(run.path, tmp_path / "old")
        shutil.copytree(tmp_path / "copy", run.path)
        assert shown_now() == ("a1", ["0.25"])
