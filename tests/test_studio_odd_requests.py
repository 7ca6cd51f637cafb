"""Requests of the Studio's pages at their limits: parts of lists, odd paths, long names, defaults that are left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from firsthand.runs import store
from firsthand.runs.track import Track
from firsthand.studio import annotation_queue, studio_store
from firsthand.studio.views import comparison_views, queue_views
from studio_page_outline import outline
from studio_small_home import entered, ids, post, problem, said, write_home

Shown = tuple[TestClient, Path, str, str]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    home = write_home(tmp_path_factory.mktemp("odd"))
    older, newer = ids(home)
    with entered(home) as client:
        yield client, home, older, newer


def asked(shown: Shown, path: str, *, is_part: bool = False) -> str:
    client, _, older, newer = shown
    answer = client.get(
        path.replace("OLD", older).replace("NEW", newer), headers={"hx-request": "true"} if is_part else {}
    )
    assert answer.status_code == 200, answer.text[:200]
    return outline(answer, {older: "OLD", newer: "NEW"})


@pytest.mark.slow
def test_a_part_of_a_list_is_its_table_from_the_start_and_rows_alone_from_later_on(shown: Shown) -> None:
    counts = {
        "/": "status interrupted2 model newer1 older1 2 of 2 runs columns",
        "/runs/OLD": "benchmark quiz5 agent ann3 bob2 is right2 wrong2 failed1 stop done4 error1 5 attempts columns",
        "/traces": "service shop1 model m11 name chat3 other1 user ann2 bob1 session s12 s21 4 of 4 traces columns",
    }
    for path, row in (("/", "OLD(/runs/OLD)"), ("/runs/OLD", "quiz / t1("), ("/traces", "chat(/traces/")):
        for start in ("", "?start=0"):
            assert asked(shown, path + start, is_part=True).startswith(counts[path])
        rows = asked(shown, f"{path}?start=1", is_part=True)
        assert rows.startswith(row) and "columns" not in rows
        assert len(asked(shown, path)) > len(asked(shown, path, is_part=True))


def test_the_older_run_is_the_baseline_of_its_own_agent_unless_another_is_asked_for(shown: Shown) -> None:
    for query, chosen in (
        ("run=NEW&run=OLD", ("OLD/ann", "NEW/ann", "changed")),
        ("run=OLD&run=NEW&a=OLD/bob", ("OLD/bob", "NEW/ann", "changed")),
    ):
        text = asked(shown, f"/compare?{query}")
        a, b, only = (
            text.partition(name)[2].partition("*")[2].split()[0] for name in ("baseline a:", "against b:", "only:")
        )
        assert (a, b, only) == chosen and f"{b} against {a};" in text.replace("quiz", ""), query
    client, _, older, newer = shown
    for query, says in (
        (f"run={older}&b={newer}/bob", f"no agent '{newer}/bob' in the runs that are compared"),
        (f"run={older}&only=best", "only is 'best': it is one of changed, worse, better, same, all"),
        (f"run={older}&slice=size", "the tasks have no metadata 'size' to slice by: they have level"),
    ):
        assert says in problem(client.get(f"/compare?{query}")), query


def test_a_comparison_of_just_one_page_has_no_other(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _, older, newer = shown
    for size, has_more in ((2, True), (3, False)):
        monkeypatch.setattr(comparison_views, "PAGE", size)
        text = client.get(f"/compare?run={older}&run={newer}&only=all").text
        assert (f"start={size}" in text) is has_more and "start=0" not in text


def test_paths_that_are_nearly_right_are_not_found_and_each_file_has_its_kind(shown: Shown) -> None:
    client = shown[0]
    for path, says in (
        ("/traces/by/sessionss", "traces are grouped by sessions, users or days, not by 'sessions'"),
        ("/traces/by/sss", "traces are grouped by sessions, users or days, not by 'ss'"),
        ("/nowhere", "There is no page '/nowhere'."),
        ("/runs/..%2Fx", "There is no page '/runs/../x'."),
    ):
        assert says in problem(client.get(path), 404), path
    for by in ("session", "sessions", "user", "users", "day", "days"):
        assert client.get(f"/traces/by/{by}").status_code == 200
    for name, status, kind in (
        ("studio.css", 200, "text/css; charset=utf-8"), ("studio.html", 404, "text/plain; charset=utf-8"),
        ("nope.css", 404, "text/plain; charset=utf-8"), (".css", 404, "text/plain; charset=utf-8"),
        ("n" * 300 + ".css", 404, "text/plain; charset=utf-8"), ("n%00.css", 404, "text/plain; charset=utf-8"),
    ):  # fmt: skip
        found = client.get(f"/static/any/{name}")
        assert (found.status_code, found.headers["content-type"]) == (status, kind), name
    assert client.get("/static/any/studio.css").headers["cache-control"] == "public, max-age=31536000, immutable"
    part = client.get("/runs/none", headers={"hx-request": "true"})
    assert part.status_code == 200 and "<main" not in part.text and "no run" in part.text
    assert client.get("/runs/none").status_code == 404 and client.get("/?sort=model").status_code == 400


def test_a_message_to_continue_is_one_that_is_there(shown: Shown) -> None:
    client, _, older, _ = shown
    base = f"/playground?run={older}&attempt=p0"
    assert "the attempt has no message 3: it has 3" in problem(client.get(f"{base}&at=3"))
    assert "two of ann" in said(client.get(f"{base}&at=2")) and "Q t0" in said(client.get(base))
    assert "at is '-x': a whole number was expected" in problem(client.get(f"{base}&at=-x"))
    ends = {leaf: asked(shown, f"/runs/OLD/attempts/p0{leaf}") for leaf in ("", "?leaf=-1", "?leaf=1", "?leaf=2")}
    assert ends[""] == ends["?leaf=-1"] == ends["?leaf=2"] and "*2(/runs/OLD/attempts/p0?leaf=2) two of ann" in ends[""]
    assert "*1(/runs/OLD/attempts/p0?leaf=1) 2(/runs/OLD/attempts/p0?leaf=2) one" in ends["?leaf=1"]


def test_queues_skip_the_last_fifty_and_raters_have_names_of_sixty_letters(shown: Shown) -> None:
    client, _, older, _ = shown
    made = post(client, "/queues", name="odd", run=older, filter="agent:ann", score="good")
    assert made.headers["location"] == "/queues/odd"

    def following(*skipped: str, who: str = "eve") -> str:
        found = client.get("/queues/odd/next", params={"as": who, "skip": list(skipped)}, follow_redirects=False)
        assert found.status_code == 303
        return str(found.headers["location"])

    assert following("p0", "p1") == "/queues/odd/items/p2?as=eve"
    assert following("p0", *["x"] * 50) == "/queues/odd/items/p0?as=eve", "the first of 51 is given again"
    assert following("p0", *["x"] * 49) == "/queues/odd/items/p1?as=eve"
    assert following("p0", "p1", "p2") == "/queues/odd?as=eve"
    assert following(who="n" * 60).endswith(f"?as={'n' * 60}")
    for name in ("n" * 61, "a\tb"):
        says = f"{name[:60]!r} is no name of a rater: give up to 60 characters on one line"
        assert says in problem(client.get("/queues/odd/next", params={"as": name}))


def test_a_queue_of_more_attempts_than_are_taken_is_refused_and_not_cut(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _, older, _ = shown
    for module in (queue_views, annotation_queue):
        monkeypatch.setattr(module, "MAX_ITEMS", 3)
    for words, says in (
        ("", "the queue has 4 attempts: at most 3 are taken"),
        ("agent:zed", "the queue has no attempts"),
    ):
        assert says in problem(post(client, "/queues", name="many", run=older, filter=words, score="good"))
    assert post(client, "/queues", name="three", run=older, filter="agent:ann", score="good").status_code == 303
    assert "0 of 3 finished, 0 labels" in asked(shown, "/queues/three")


def test_a_rating_that_the_store_refuses_is_told_by_its_reason_and_only_a_later_one_by_another_tab(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _, older, _ = shown
    assert post(client, "/queues", name="refused", run=older, filter="agent:ann", score="good").status_code == 303

    def rated(text: str, version: str, place: str = "p0") -> Any:
        form = {"value": "0.5", "text": text, "version": version, "as": "eve"}
        return post(client, f"/queues/refused/items/{place}", **form)

    assert rated("First", "0").status_code == 303
    with monkeypatch.context() as smaller:
        smaller.setattr(studio_store, "MAX_BODY_CHARS", 200)
        for place, version in (("p0", "1"), ("p1", "0")):
            says = problem(rated("x" * 200, version, place))
            assert f"'{place} human:eve " in says and says.count("at most 200 are kept") == 1, says
            assert "Another tab" not in says
    tab = "Another tab has rated this attempt 0.5 meanwhile, and your 0.5 was not kept: rate it again here to replace that."
    for version in ("0", "2"):
        late = rated("Late words", version)
        assert tab in problem(late, 409) and "Late words" in late.text
    assert "1 of 3 finished, 1 label." in asked(shown, "/queues/refused")
    assert rated("Second", "1").status_code == 303 and rated("Third", "1").status_code == 409


def test_notes_prompts_and_views_are_kept_up_to_their_limits(shown: Shown) -> None:
    client, _, older, _ = shown
    for version, says in (
        ("12345678", "was changed in the meantime"), ("123456789", "version is '123456789': a whole number was expected"),
        ("", "version is '': a whole number was expected"), ("²", "version is '²': a whole number was expected"),
    ):  # fmt: skip
        answer = post(client, f"/runs/{older}/note", text="Kept words", version=version)
        assert answer.status_code == 400 and says in said(answer) and "Kept words" in answer.text, version
    assert post(client, f"/runs/{older}/note", text="One", version="0").status_code == 303
    for after, status in (("", 303), ("1", 303), ("1", 400), ("00000002", 303), ("000000003", 400), ("x", 400)):
        text = f"Be{len(after)}\r\nbrief {after}"
        answer = post(client, "/prompts", name=" brief ", text=text, after=after)
        assert answer.status_code == status, (after, said(answer))
    page = said(client.get("/prompts/brief"))
    assert "Be8 brief 00000002" in page and "brief x" not in page
    for address, status in (
        ("/" + "a" * 7999, 303), ("/" + "a" * 8000, 400), ("//x", 400), ("/\\x", 400), ("x", 400), ("/a b", 400), ("/", 303),
    ):  # fmt: skip
        assert post(client, "/views", name=f"v{address[:2]}", address=address).status_code == status, address[:9]
        post(client, "/views/remove", name=f"v{address[:2]}")
    assert post(client, "/views/remove", name="v").headers["location"] == "/views"


def test_curves_are_asked_for_by_metric_with_at_least_ten_points(shown: Shown) -> None:
    client, home, _, _ = shown
    with store.create(home, {"lr": 1}, "trained") as run:
        track = Track(run)
        track.log({"b": 0.0, "a": 2.0}, step=0)
        for step in range(1, 40):
            track.log({"a": float(step % 3)}, step=step)
        track.flush()
        id = run.id

    def curves(query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(client.get(f"/curves.json?run={id}{query}").text)["curves"]
        return found

    assert (
        [each["name"] for each in curves("")] == [each["name"] for each in curves("&metric=a&metric=b")] == ["a", "b"]
    )
    few, ten, more = (curves(f"&metric=a&points={points}")[0] for points in (1, 10, 20))
    assert few == ten != more and (few["run"], few["name"]) == (id, "a") and curves("&metric=c") == []
    assert "with is 'sums': it is one of" in problem(client.get(f"/curves.json?run={id}&with=sums&with=means"))
    runs = "&".join(f"run=r{at}" for at in range(41))
    assert "41 runs are too many for one plot: choose 40 at most" in problem(client.get(f"/curves.json?{runs}"))
    assert "no run 'r0'" in problem(client.get(f"/curves?{runs}".replace("run=r40", "run=r0")), 404)
