"""Names, versions and addresses as people type them: prompts, saved views, notes of runs, and runs named by a beginning."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from firsthand.message import user
from firsthand.runs import store
from firsthand.runs.index import RunInfo
from firsthand.show import answer_diff
from firsthand.studio.live_events import mark_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.prompt_library import PromptLibrary
from firsthand.studio.run_notes import RunNotes
from firsthand.studio.studio_store import SqliteStore
from firsthand.studio.views import feature_views, run_list_views
from firsthand.studio.views.arena_views import voter_of
from firsthand.studio.views.feature_views import _matching, _sorted
from firsthand.trace import Node, Score, Trace
from studio_page_outline import outline
from studio_small_home import entered, post, problem, said

Shown = tuple[TestClient, Path, list[str]]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Three runs of one agent at one benchmark."""
    home, ids = tmp_path_factory.mktemp("names"), []
    for name in ("ga", "gb", "gc"):
        with store.create(home, {}, name, command=["firsthand"]) as run:
            run.add_agent("ann", {"name": "ann"})
            run.append(
                Trace(name, "quiz", "t", {"name": "ann"}, 0, 0, "", 1.0, scores=(Score("exact", 0.5),), place="p")
            )
            ids.append(run.id)
    with entered(home) as client:
        yield client, home, ids


@pytest.mark.slow
def test_a_prompt_follows_the_version_that_was_seen_even_if_none_was(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, home, _ = shown
    prompts = PromptLibrary(SqliteStore(home))
    for after, text, says in (
        ("0", "One two three", None), ("0", "Two", "the prompt 'brief' has 1 versions by now: open it again"),
        ("²", "Two", "after is '²': a whole number was expected"), ("-1", "Two", "after is '-1'"),
        ("١", "Two", "after is '١': a whole number was expected"),
        ("1", "One four three\r\nfive", None), ("000000001", "x", "after is '000000001'"),
        ("1", "One four three\nfive", "has 2 versions by now"), ("2", "One four three\nfive", None),
        ("", "é" * 12_000, None),
        ("3", " ", "the prompt has 1 characters: give 1 to 50,000"), ("3", "x" * 50_001, "the prompt has 50,001 characters"),
    ):  # fmt: skip
        answer = post(client, "/prompts", name=" brief ", text=text, after=after, note=f"n{after}")
        assert (answer.headers.get("location") == "/prompts/brief") if says is None else says in problem(answer), after
    found = [(each.number, each.text[:20], each.note, each.by) for each in prompts.versions("brief")]
    me = f"human:{getpass.getuser()}"
    assert found == [
        (1, "One two three", "n0", me), (2, "One four three\nfive", "n1", me), (3, "é" * 20, "n", me),
    ]  # fmt: skip
    page = client.get("/prompts/brief").text
    assert "<del>two</del><ins>four</ins>" in page and page.index('id="v3"') < page.index('id="v1"')
    assert 'name="after" value="3"' in page
    monkeypatch.setattr(answer_diff, "MAX_DIFF_CHARS", 4)
    page = client.get("/prompts/brief").text
    assert "four" not in page.partition('id="v2"')[2].partition("</article>")[0] and page.count("é") == 12_000 + 4
    item = prompts.store.get("prompt", "brief")
    assert item is not None
    more = [{**item.body["versions"][0], "text": f"text {number}"} for number in range(4, 26)]
    prompts.store.put("prompt", "brief", {"versions": item.body["versions"] + more})
    assert client.get("/prompts/brief").text.count("<article") == 25, "all versions are shown"
    assert "the form has more than 256 KiB" in problem(post(client, "/prompts", name="b", text="x" * (257 << 10)))


def test_a_view_is_kept_by_its_name_without_blanks_and_its_address_as_it_is(shown: Shown) -> None:
    client, home, _ = shown
    kept = SqliteStore(home)
    for name, address in ((" a b ", "/?filter=x%20y&sort=-é+%7E'(~*)[!]#z"), ("c", '/traces?filter="q"<s>')):
        assert post(client, "/views", name=name, address=address).headers["location"] == "/views"
    assert {item.key: item.body["address"] for item in kept.items("view")} == {
        "a b": "/?filter=x%20y&sort=-%C3%A9+%7E'(~*)[!]#z", "c": "/traces?filter=%22q%22%3Cs%3E",
    }  # fmt: skip
    assert "c(/traces?filter=%22q%22%3Cs%3E)" in outline(client.get("/views"))
    for name in ("c ", "C", ""):
        assert post(client, "/views/remove", name=name).status_code == 303
    assert len(kept.items("view")) == 2, "a name is removed as it is"
    assert post(client, "/views/remove", name="c").status_code == 303 and [item.key for item in kept.items("view")] == [
        "a b"
    ]
    for address in ("http://x" + "y" * 80, "/a b", "/\u00a0", "///x", "/\\x", "/x\\y", "", "/x\n", "?x"):
        says = problem(post(client, "/views", name="d", address=address))
        assert f"address is {' '.join(repr(address[:60]).split())}: a page of the Studio was expected" in says, address
    for name in ("", "  ", "n" * 201, "a\tb"):
        assert "is no name: give 1 to 200 characters on one line" in problem(
            post(client, "/views", name=name, address="/")
        )


def test_a_run_may_be_named_by_its_beginning_and_is_kept_by_its_id(shown: Shown) -> None:
    client, home, ids = shown
    begun = ids[1][:-1]
    page = client.get(f"/runs/{begun}").text
    seen = re.findall(r'data-seen="(\w+)"', page)
    runs = OpenRuns(home)
    assert seen == [mark_of(f"run:{ids[1]}", runs)] and f'data-topics="run:{ids[1]}"' in page
    assert ids[0] in page.partition("<main")[2] and ids[2] not in page.partition("<main")[2]
    assert post(client, f"/runs/{begun}/note", text="Big Moon", version="0").headers["location"] == f"/runs/{ids[1]}"
    assert list(RunNotes(SqliteStore(home)).all()) == [ids[1]]
    wrong = post(client, f"/runs/{begun}/note", text="x", version="0")
    assert wrong.status_code == 400
    emptied = post(client, f"/runs/{begun}/note", text="", version="0")
    assert emptied.status_code == 400 and "Big Moon</textarea>" not in emptied.text
    board = client.get(f"/runs/{begun}/board").text
    client.app.state.playground.problems[ids[1]] = "It broke early"  # type: ignore[attr-defined]
    assert "It broke early" in said(client.get(f"/runs/{begun}")) and client.get(f"/runs/{begun}/board").text == board
    list_page = said(client.get("/?filter=note:moon"))
    assert "Big Moon" in list_page and "1 of 3 runs" in list_page
    assert client.get(f"/runs/{begun}/attempts/p/copy/test.py").text.count(f"RUN, ATTEMPT = '{ids[1]}',") == 1
    told: list[list[str]] = []
    client.app.state.curves.ahead = lambda infos, _: told.append([each.id for each in infos])  # type: ignore[attr-defined]
    for query in ("", "?filter=id:gb", "?start=1"):
        assert client.get(f"/{query}").status_code == 200
    assert told == [ids[::-1], [ids[1]], ids[1::-1]]
    rows = client.get("/?start=3", headers={"hx-request": "true"}).text
    assert "<thead" not in rows and "data-row" not in rows, "after the last there are rows alone, and none"
    runs.close()


def test_without_a_name_in_the_system_a_vote_is_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> Any:
        def asked() -> str:
            raise error

        return asked

    for error in (KeyError("uid"), OSError("no user")):
        with monkeypatch.context() as patch:
            patch.setattr(getpass, "getuser", fail(error))
            assert voter_of(SimpleNamespace(scope={})) == "human:user"  # type: ignore[arg-type]


def test_features_are_found_by_all_their_words_and_ordered_with_what_is_not_known_last() -> None:
    def feature(index: int, density: float, rule: Any, ablation: Any, *words: str) -> Any:
        context = [[SimpleNamespace(text=each) for each in word] for word in words]
        return SimpleNamespace(
            index=index, density=density, promoted=["Up"], suppressed=["Straße", f"{index}x"], bands={"top": context},
            rule=None if rule is None else SimpleNamespace(rule=f"Rule {index}", balanced_accuracy=rule),
            ablation=None if ablation is None else SimpleNamespace(value=ablation[0], n=ablation[1]),
        )  # fmt: skip

    found = [
        feature(12, 0.5, None, (9.0, 0)), feature(7, 0.25, 0.0, (-0.5, 2), "moon", "sun"), feature(3, 0.25, 0.75, None),
        feature(4, 0.125, 0.5, (0.0, 1), "dust"),
    ]  # fmt: skip
    for words, indices in (
        ("", [12, 7, 3, 4]), ("  ", [12, 7, 3, 4]), (" SUN ", [7]), ("STRASSE", [12, 7, 3, 4]), ("RULE 4", [4]),
        ("12x", [12]),
        ("us", [4]), ("moons", []), ("up\nstrasse", [12, 7, 3, 4]), ("upstrasse", []), ("7", [7]), ("monde", []),
    ):  # fmt: skip
        assert [each.index for each in _matching(found, words)] == indices, words
    for sort, indices in (("density", [12, 7, 3, 4]), ("ablation", [4, 7, 12, 3]), ("rule", [3, 4, 7, 12])):
        assert [each.index for each in _sorted(found, sort)] == indices, sort
    assert (feature_views.SORTS, feature_views.MAX_INDEX) == (("density", "ablation", "rule"), 1 << 24)
    assert _sorted([], "rule") == [] == _matching([], "x")


def test_the_number_of_runs_is_that_of_the_home_and_not_of_the_filter(shown: Shown) -> None:
    page = run_list_views.run_page([RunInfo("a", Path("a")), RunInfo("b", Path("b"))], "id=a")
    assert (page.total, [each.id for each in page.rows]) == (1, ["a"])
    assert "0 of 3 runs" in said(shown[0].get("/?filter=id=none"))


@pytest.mark.slow
def test_queues_and_attempts_of_odd_names_have_addresses_of_their_own(shown: Shown) -> None:
    client, home, _ = shown
    with store.create(home, {}, "odd", command=["firsthand"]) as run:
        run.add_agent("ann", {"name": "ann"})
        for place, nodes in (("p#1?", (Node(None, user("y" * 4001)),)), ("p%2", ())):
            run.append(Trace(f"x{place}", "quiz", "t", {"name": "ann"}, 0, 0, "", 1.0, nodes=nodes, place=place,
                             scores=(Score("foot_note.a", 0.25),)))  # fmt: skip
    assert post(client, "/queues", name="q?1", run=run.id, score="good").headers["location"] == "/queues/q%3F1"
    first = client.get("/queues/q%3F1/next?as=eve", follow_redirects=False).headers["location"]
    assert first == "/queues/q%3F1/items/p%231%3F?as=eve" and client.get(first).status_code == 200
    rated = post(client, first.partition("?as")[0], value="1", version="0", **{"as": "eve"})
    assert rated.headers["location"] == "/queues/q%3F1/next?as=eve"
    second = client.get(rated.headers["location"], follow_redirects=False).headers["location"]
    assert second == "/queues/q%3F1/items/p%252?as=eve"
    here = f"/runs/{run.id}/attempts/p%231%3F"
    assert post(client, f"{here}/notes", name="N", value="1").headers["location"] == here
    continued = client.get(f"/playground?run={run.id}&attempt=p%231%3F").text
    assert "y" * 4000 in continued and "y" * 4001 not in continued, "a message is shown up to 4,000 letters"
    page = outline(client.get(here))
    assert "scores 0.25 foot_note.a note.good 1 note.N 1 " in page
    for place, again in (("p%231%3F", True), ("p%252", False)):
        for view in ("tree", "raw", "conversation"):
            text = client.get(f"/runs/{run.id}/attempts/{place}?view={view}").text
            assert ("attempt the task again, with any model" in text) is again, (place, view)
    for query, says in (
        ("colour=logprobs", "colour is 'logprobs': it is logprob or entropy"),
        ("view=Tree", "view is 'Tree': it is one of conversation, tree, raw"), ("leaf=x", "leaf is 'x': a whole number"),
        ("colour=" + "x" * 50, f"colour is '{'x' * 40}': it"), ("sort=size", "attempts cannot be sorted by 'size'"),
    ):  # fmt: skip
        assert says in problem(client.get(f"{here}?{query}")), query
