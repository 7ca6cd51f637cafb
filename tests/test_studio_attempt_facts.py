"""The facts beside an attempt's answer: votes, branches kept and pruned, and the budget; and their labels in the tree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from starlette.testclient import TestClient

from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.studio.access import Access
from firsthand.studio.attempt_facts import attempt_facts
from firsthand.studio.attempt_spans import spans_of
from firsthand.studio.studio_app import create_app
from firsthand.trace import Call, Event, Node, Trace

PORT = 8127
HUGE = 10**400


def made() -> Trace:
    """An attempt with two branches, a vote and a budget."""
    nodes = (Node(None, user("q")), Node(0, assistant("a")), Node(0, assistant("b")))
    calls = (
        Call("0:0", "generate", 0, 0.0, 1.0, "0" * 64, Usage(1000, 0, 400), (1,)),
        Call("1:0", "generate", 0, 1.0, 1.0, "0" * 64, Usage(5, 0, 2), (2,)),
        Call(":0", "guard", 0, 1.0, 1.0, "0" * 64),
    )
    events = (
        Event("branch", 0.5, {"name": "0", "at": 1, "status": "open", "text": "first thought"}),
        Event("branch", 1.0, {"name": "0", "at": 1, "status": "kept", "score": 0.75}),
        Event("branch", 1.5, {"name": "1", "status": "pruned", "score": 0.25, "text": "<b>odd</b>"}),
        Event("vote", 2.0, {"27": 1, "2": 2}),
    )
    agent = {"name": "tot", "limits": {"tokens": 2500, "calls": 9, "seconds": 60.0, "depth": 64}}
    return Trace("told", "sums", "t", agent, 0, 0, "2026-11-29T00:00:00+00:00", 3.0, nodes, calls, events, answer="2")


def test_votes_branches_and_budget_are_summed_up() -> None:
    told = attempt_facts(made())
    assert told.votes == ((("2", 2.0), ("27", 1.0)),)
    assert dict(told.fates) == {"kept": 1, "pruned": 1}
    assert [(each.words, each.node) for each in told.branches] == [
        ("● 0 kept 0.75: first thought", 1),
        ("✗ 1 pruned 0.25: <b>odd</b>", None),
    ]
    assert told.budget == ("1.4k of 2.5k tokens", "2 of 9 calls", "3.0 s of 60.0 s")


def test_an_attempt_without_them_has_none() -> None:
    bare = attempt_facts(replace(made(), events=(), agent={"name": "a", "limits": "none"}))
    assert (bare.votes, bare.fates, bare.branches, bare.budget) == ((), (), (), ())
    assert attempt_facts(replace(made(), agent={"limits": {"tokens": HUGE, "calls": True, "seconds": 0}})).budget == ()


def test_numbers_beyond_floats_are_no_votes_and_no_scores() -> None:
    events = (
        Event("vote", 0.0, {"a": HUGE, "b": 1}),
        Event("branch", 0.0, {"name": "x", "status": "kept", "score": HUGE}),
    )
    told = attempt_facts(replace(made(), events=events))
    assert told.votes == () and told.branches[0].words == "● x kept"


def test_a_note_on_a_branch_begins_with_its_fate_in_the_tree() -> None:
    labels = [span.label for span in spans_of(made().to_json()) if span.kind == "event"]
    assert labels == ["open 0: first thought", "branch kept 0 0.75", "pruned 1 0.25: <b>odd</b>", "vote 27=1 2=2"]


def test_the_page_shows_them_and_links_a_branch_to_its_conversation(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "told") as run:
        run.append(made())
    access = Access()
    access.port = PORT
    with TestClient(create_app(tmp_path, access), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        text = client.get(f"/runs/{run.id}/attempts/told").text
        assert "1 kept, 1 pruned" in text and "1.4k of 2.5k tokens" in text and "<b>2</b> <bdi>2</bdi>" in text
        assert f'href="/runs/{run.id}/attempts/told?leaf=1#m1">● 0 kept 0.75' in text
        assert "&lt;b&gt;odd" in text and "<b>odd" not in text
        assert "1.4k of 2.5k" not in client.get(f"/runs/{run.id}/attempts/told?view=tree").text
