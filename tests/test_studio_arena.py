"""The Studio's arena: pace, blindness until the vote, undo, what is kept, and the ratings of the votes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from firsthand.agent import Agent
from firsthand.arena.ratings import rate
from firsthand.arena.run_votes import votes_of_runs
from firsthand.errors import ConfigError, ModelError
from firsthand.model import Usage
from firsthand.patterns.reply import reply
from firsthand.preference import Preference, utc_now
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.runs.run_folder import Run
from firsthand.studio.access import Access
from firsthand.studio.paced_pair import LEAST_PER_S, MOST_PER_S, PacedPair
from firsthand.studio.studio_app import create_app
from firsthand.studio.views.arena_views import costs_of, standings_of
from firsthand.task import Task
from firsthand.trace import Call, Trace

PORT = 8124
OWN = {"sec-fetch-site": "same-origin", "hx-request": "true"}


def agents(**replies: str | ModelError) -> dict[str, Agent]:
    def model(name: str, answer: str | ModelError) -> Scripted:
        if isinstance(answer, ModelError):
            return Scripted(["x"], name=f"scripted:{name}", error=answer)
        return Scripted(lambda messages, sampling, index: answer, name=f"scripted:{name}", fingerprint=name)

    return {name: Agent(name, model(name, answer), reply) for name, answer in replies.items()}


def opened(home: Path, **replies: str | ModelError) -> TestClient:
    access = Access()
    access.port = PORT
    client = TestClient(create_app(home, access, agents(**replies)), base_url=f"http://127.0.0.1:{PORT}")
    client.cookies.set(access.cookie, access.exchange(access.new_code()) or "")
    return client


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with opened(tmp_path, amber="yes, it is", cobalt="no. The answer is 42") as made:
        yield made


def news(client: TestClient, round: str) -> list[dict[str, Any]]:
    body = client.get(f"/arena/rounds/{round}/events").text
    return [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line.startswith("data: ")]


def ask(client: TestClient, prompt: str = "Is it?") -> str:
    return str(client.post("/arena/rounds", data={"prompt": prompt}, headers=OWN).json()["round"])


def send(client: TestClient, round: str, what: str, **fields: Any) -> Any:
    return client.post(f"/arena/rounds/{round}/{what}", data=fields, headers=OWN)


def kept_votes(home: Path) -> list[Preference]:
    with store.open_run("last", home) as run:
        return run.preferences()


# -- pace --


def paced(lengths: list[tuple[int, int]], tick_s: float = 0.05) -> list[tuple[int, int]]:
    """The characters shown at each tick; the last lengths are complete answers."""
    pair, found = PacedPair(), []
    for number in range(10_000):
        a, b = lengths[min(number, len(lengths) - 1)]
        is_done = number >= len(lengths) - 1
        found.append(pair.advance(a, is_done, b, is_done, number * tick_s))
        if pair.is_over:
            return found
    raise AssertionError("the answers were never shown")


def test_both_sides_show_as_many_characters_until_the_shorter_has_ended() -> None:
    shown = paced([(0, 50), (0, 100), (4, 300), (8, 300), (12, 300)])
    assert shown[0] == shown[1] == (0, 0), "nothing is shown before both have begun"
    assert all(a == b for a, b in shown if a < 12) and shown[-1] == (12, 300)


def test_the_rest_of_the_longer_answer_keeps_the_pace_of_the_slower_model() -> None:
    slow = paced([*((4 * n, 40 * n) for n in range(1, 26)), (100, 1000)])
    rest = [b for a, b in slow if a == 100]
    steps = np.diff(rest)[1:-1]
    assert steps.max() <= 6 and steps.mean() == pytest.approx(100 / 24, rel=0.1)


def test_a_fast_pair_is_shown_at_the_highest_pace_and_an_empty_one_at_the_lowest() -> None:
    assert len(paced([(6000, 6000)])) == pytest.approx(6000 / MOST_PER_S / 0.05, rel=0.02)
    one_sided = paced([(0, 40)])
    assert len(one_sided) == pytest.approx(40 / LEAST_PER_S / 0.05, rel=0.1)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=30))
def test_what_was_shown_is_never_taken_back_and_all_is_shown_in_the_end(steps: list[tuple[int, int]]) -> None:
    lengths = np.cumsum(steps, axis=0).tolist()
    shown = paced([tuple(each) for each in lengths])
    assert shown[-1] == tuple(lengths[-1])
    assert (np.diff(np.array([(0, 0), *shown]), axis=0) >= 0).all()


# -- rounds --


def test_names_are_nowhere_until_the_vote(client: TestClient, tmp_path: Path) -> None:
    said = [client.get("/arena").text]
    round = ask(client)
    events = news(client, round)
    said.append(json.dumps(events))
    early = send(client, round, "reveal")
    said.append(early.text + str(early.headers))
    assert "after the vote" in early.text
    said.append(send(client, round, "vote", winner="a").text)
    assert not any(name in text for text in said for name in ("amber", "cobalt", "scripted"))
    names = send(client, round, "reveal").json()
    assert {names["a"], names["b"]} == {"amber", "cobalt"}
    text = {side: "".join(each["text"] for each in events if each.get("side") == side) for side in "ab"}
    answers = {"amber": "yes, it is", "cobalt": "no. The answer is 42"}
    assert text == {side: answers[names[side]] for side in "ab"} and events[-1] == {"ready": True}
    (kept,) = kept_votes(tmp_path)
    with store.open_run("last", tmp_path) as run:
        assert [run.trace(id).agent_name for id in (kept.a, kept.b)] == [names["a"], names["b"]]


def test_a_vote_is_kept_with_its_reasons_once(client: TestClient, tmp_path: Path) -> None:
    round = ask(client)
    assert "complete before the vote" in send(client, round, "vote", winner="a").text
    news(client, round)
    assert "winner is" in send(client, round, "vote", winner="c").text
    assert "reason is" in send(client, round, "vote", winner="a", reason="envy").text
    assert send(client, round, "vote", winner="a").json()["undo_s"] > 0
    send(client, round, "vote", winner="tie", reason=["clear", "correct", "clear"])
    for _ in range(2):
        assert send(client, round, "reveal").status_code == 200
    (kept,) = kept_votes(tmp_path)
    assert kept.winner == "tie" and kept.by.startswith("human:") and kept.detail is not None
    assert kept.detail["reasons"] == ["clear", "correct"] and kept.detail["dwell_s"] >= 0
    assert "kept already" in send(client, round, "vote", winner="b").text
    assert "was kept" in send(client, round, "undo").text and len(kept_votes(tmp_path)) == 1


def test_a_vote_that_was_undone_is_not_kept(client: TestClient, tmp_path: Path) -> None:
    round = ask(client)
    news(client, round)
    send(client, round, "vote", winner="a")
    assert send(client, round, "undo").json() == {} and kept_votes(tmp_path) == []
    assert "after the vote" in send(client, round, "reveal").text
    send(client, round, "vote", winner="b")
    send(client, round, "reveal")
    assert [each.winner for each in kept_votes(tmp_path)] == ["b"]


def test_a_vote_that_nobody_undid_is_kept_when_the_studio_ends(tmp_path: Path) -> None:
    with opened(tmp_path, amber="yes", cobalt="no") as client:
        round = ask(client)
        news(client, round)
        send(client, round, "vote", winner="a")
        assert kept_votes(tmp_path) == []
    assert [each.winner for each in kept_votes(tmp_path)] == ["a"]
    with store.open_run("last", tmp_path) as run:
        assert run.status == "done"


@pytest.mark.slow
def test_an_arena_goes_on_in_the_same_run_with_the_same_models_alone(tmp_path: Path) -> None:
    for replies in ({"amber": "yes", "cobalt": "no"}, {"amber": "yes", "cobalt": "no"}, {"amber": "yes", "teal": "no"}):
        with opened(tmp_path, **replies) as client:
            news(client, ask(client))
    counts = sorted(info.num_traces for info in store.list_runs(tmp_path))
    assert counts == [2, 4]


def test_an_answer_that_failed_takes_no_vote(tmp_path: Path) -> None:
    with opened(tmp_path, amber="yes", cobalt=ModelError("the endpoint is gone")) as client:
        round = ask(client)
        assert "the endpoint is gone" in news(client, round)[-1]["problem"]
        assert "complete before the vote" in send(client, round, "vote", winner="a").text
        assert kept_votes(tmp_path) == []


@pytest.mark.parametrize(("prompt", "says"), [("  ", "prompt is empty"), ("x" * 20_001, "20,001 characters")])
def test_a_bad_prompt_is_one_sentence(client: TestClient, prompt: str, says: str) -> None:
    assert says in client.post("/arena/rounds", data={"prompt": prompt}, headers=OWN).text


def test_rounds_are_started_by_own_pages_and_need_two_models(client: TestClient, tmp_path: Path) -> None:
    assert client.post("/arena/rounds", data={"prompt": "x"}).status_code == 403
    assert client.get("/arena/rounds/unknown/events").status_code == 404
    with opened(tmp_path / "one", amber="yes") as one:
        assert "two models" in one.post("/arena/rounds", data={"prompt": "x"}, headers=OWN).text
        assert "firsthand studio --model" in one.get("/arena").text


# -- board --


def attempt(id: str, task: str, agent: str, number: int, answer: str) -> Trace:
    return Trace(id, "arena", task, {"name": agent}, number, 0, "2026-11-27T00:00:00+00:00", 1.0, answer=answer)


def arena(home: Path, votes: list[tuple[str, str, str]], void: int = 0) -> Run:
    """A run with these votes of (first, second, winner); answers of agents differ in length and Markdown."""
    run = store.create(home, {"arena": {}}, "arena")
    lengths = {"amber": 10, "cobalt": 40, "teal": 20}
    run.add_tasks("arena", [Task(f"p{n}", f"{n}?") for n in range(len(votes))])
    for number, (first, second, winner) in enumerate(votes):
        ids = []
        for side, name in enumerate((first, second)):
            text = "# h\n" * (name == "cobalt") + "x" * (lengths[name] + number % 3 * side)
            ids.append(f"t{number}{side}{name}")
            run.append(
                Trace(
                    ids[-1],
                    f"p{number}",
                    "arena",
                    {"name": name},
                    number,
                    0,
                    "2026-11-27T00:00:00+00:00",
                    1.0,
                    answer=text,
                )
            )
        detail = {"void": "A names itself: amber"} if number < void else {}
        run.add_preference(Preference(f"p{number}", *ids, winner, f"human:v{number % 2}", utc_now(), detail))  # type: ignore[arg-type]
    return run


VOTES = [
    *[("amber", "cobalt", "a")] * 6, *[("cobalt", "amber", "a")] * 3, ("teal", "amber", "tie"), ("teal", "cobalt", "b"),
    ("cobalt", "teal", "b"), ("amber", "teal", "b"), ("teal", "amber", "b"),
]  # fmt: skip


def test_votes_of_runs_are_one_table_and_void_ones_do_not_count(tmp_path: Path) -> None:
    with arena(tmp_path, VOTES[:7], void=1) as one, arena(tmp_path, VOTES[7:]) as two:
        found = votes_of_runs([one, two])
        assert (len(found.battles), found.void) == (len(VOTES) - 1, 1)
        i, j = (found.battles.models.index(name) for name in ("amber", "cobalt"))
        assert found.battles.wins[i, j] == 5 and found.battles.wins[j, i] == 3


def test_style_is_the_scaled_difference_of_the_two_answers(tmp_path: Path) -> None:
    with arena(tmp_path, VOTES) as run:
        battles = votes_of_runs([run], ("length", "headers")).battles
        assert battles.covariates is not None
        lengths = np.array(
            [[len(run.trace(each.a).answer or ""), len(run.trace(each.b).answer or "")] for each in run.preferences()]
        )
        raw = (lengths[:, 0] - lengths[:, 1]) / lengths.sum(1)
        assert battles.covariates[:, 0] == pytest.approx(raw / raw.std())
        with pytest.raises(ConfigError, match="never differ in bold"):
            votes_of_runs([run], ("bold",))
        with pytest.raises(ConfigError, match="style is 'charm'"):
            votes_of_runs([run], ("charm",))


def test_the_board_shows_ranks_intervals_matrix_and_links_to_both_attempts(tmp_path: Path) -> None:
    with arena(tmp_path, VOTES, void=1) as run:
        theta = rate(votes_of_runs([run]).battles)
        id = run.id
        last = run.preferences()[-1]
        place = run.trace(last.a).place
    with opened(tmp_path, amber="x", cobalt="y") as client:
        page = client.get("/arena/board").text
        for model, value in zip(theta.models, theta.theta, strict=True):
            assert f">{model}</th>" in page and f">{1000 + 400 / np.log(10) * value:.0f}<" in page
        assert ">1-3<" in page, "so few votes tell nobody apart"
        assert "0.62<small>8</small>" in page and "1 more do not count" in page
        assert f"/runs/{id}/attempts/{place}" in page
        assert "Held equal" not in page
        assert "Held equal" in client.get("/arena/board?style=length").text
        assert "never differ in bold" in client.get("/arena/board?style=bold").text
        assert client.get("/arena/board?run=nosuch").status_code == 404


def test_the_board_draws_ratings_against_cost_with_the_frontier(tmp_path: Path) -> None:
    tokens = {"amber": 30, "cobalt": 60, "teal": 90}
    with store.create(tmp_path, {"arena": {}}, "arena") as run:
        run.add_tasks("arena", [Task(f"p{n}", f"{n}?") for n in range(len(VOTES))])
        for number, (first, second, winner) in enumerate(VOTES):
            ids = [f"t{number}{side}" for side in "ab"]
            for id, name in zip(ids, (first, second), strict=True):
                call = Call("0:0", "generate", None, 0.0, 1.0, "0" * 64, Usage(tokens[name] - 20, 0, 20))
                run.append(replace(attempt(id, f"p{number}", name, number, "x"), calls=(call,)))
            run.add_preference(Preference(f"p{number}", *ids, winner, "human:v", utc_now()))  # type: ignore[arg-type]
        assert costs_of([run]) == {name: (count, 0.0) for name, count in tokens.items()}
        found = standings_of([run], ())
    assert not isinstance(found, str) and found.unit == "tokens"
    rated = {each.row.model: each.row.rating for each in found.rows}
    assert [(each.name, each.score, each.cost) for each in found.points] == [(m, rated[m], tokens[m]) for m in rated]
    best = {m for m in rated if all(rated[o] < rated[m] for o in rated if tokens[o] < tokens[m])}
    assert {each.name for each in found.points if each.on_frontier} == best != set(rated)
    with opened(tmp_path, amber="x", cobalt="y") as client:
        page = client.get("/arena/board").text
    assert "Rating against cost" in page and page.count("<circle") == 3 and "tokens per answer" in page


def test_an_empty_board_says_the_lines_that_fill_it(client: TestClient) -> None:
    assert "firsthand arena smollm2" in client.get("/arena/board").text


def test_names_on_the_board_are_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    with store.create(tmp_path, {"arena": {}}, "arena") as run:
        for number in range(2):
            for name in (hostile, "b"):
                run.append(
                    Trace(
                        f"{number}{name}",
                        "p",
                        "arena",
                        {"name": name},
                        number,
                        0,
                        "2026-11-27T00:00:00+00:00",
                        1.0,
                        answer=name,
                    )
                )
            winner = "ab"[number]
            detail = {"reasons": [hostile], "void": ""}
            run.add_preference(Preference("p", f"{number}{hostile}", f"{number}b", winner, hostile, utc_now(), detail))  # type: ignore[arg-type]
    with opened(tmp_path, amber="x", cobalt="y") as client:
        page = client.get("/arena/board").text
        assert hostile not in page and page.count("&lt;script&gt;") >= 6


def test_a_model_that_names_itself_beside_its_answer_voids_the_vote(tmp_path: Path) -> None:
    with opened(tmp_path, amber="I am Amber. The answer is 42", cobalt="The answer is 41") as client:
        round = ask(client)
        news(client, round)
        send(client, round, "vote", winner="a")
        assert "names itself: amber" in send(client, round, "reveal").json()["void"]
        assert "too few" not in client.get("/arena/board").text and "firsthand arena" in client.get("/arena/board").text
