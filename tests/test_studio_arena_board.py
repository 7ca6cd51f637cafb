"""The arena's board and rounds, called by themselves and by their pages: every figure of a small table of votes."""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from firsthand.agent import Agent
from firsthand.arena.rank_intervals import RatedModel, ranked
from firsthand.arena.ratings import rate
from firsthand.arena.run_votes import votes_of_runs
from firsthand.errors import ConfigError, UnknownName
from firsthand.model import Usage
from firsthand.patterns.reply import reply
from firsthand.preference import Preference
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.runs.run_folder import Run
from firsthand.studio.access import Access
from firsthand.studio.arena_rounds import AnsweringSide, ArenaRounds, Round
from firsthand.studio.comparison_slices import scatter_points
from firsthand.studio.studio_app import create_app
from firsthand.studio.views import arena_views
from firsthand.studio.views.arena_views import (
    Standing,
    Standings,
    costs_of,
    has_votes,
    latest_votes,
    placed,
    standings_of,
    voter_of,
)
from firsthand.task import Task
from firsthand.trace import Call, Trace
from studio_page_outline import asked, outline, sent
from studio_small_home import PORT

# first, second, winner, minute; zed has lost to all, so nothing leads from it to the others
VOTES = [
    ("amber", "cobalt", "a", 5), ("amber", "cobalt", "a", 1), ("cobalt", "amber", "a", 2), ("teal", "amber", "tie", 3),
    ("teal", "cobalt", "b", 7), ("cobalt", "teal", "b", 6), ("amber", "teal", "both_bad", 4), ("zed", "teal", "b", 8),
]  # fmt: skip
TOKENS = {"amber": (100, 20, 0.5), "cobalt": (50, 10, 0.25), "teal": (200, 40, 0.125), "zed": (70, 7, 0.0)}


def arena(home: Path, name: str, votes: list[tuple[str, str, str, int]], void: int = -1) -> Run:
    """A run of votes, one of which does not count; answers of cobalt have headings, and lengths differ."""
    run = store.create(home, {"arena": {"name": name}}, name)
    run.add_tasks("arena", [Task(f"p{n}", f"{n}?") for n in range(len(votes))])
    for number, (first, second, winner, minute) in enumerate(votes):
        for side, agent in zip("ab", (first, second), strict=True):
            prompt, answer, usd = TOKENS[agent]
            call = Call("0:0", "generate", None, 0.0, 1.0, "r", Usage(prompt, 0, answer + number, usd))
            text = "# h\n" * (agent == "cobalt") + "x" * (len(agent) + number)
            run.append(Trace(f"{name}{number}{side}", f"arena{number}", f"p{number}", {"name": agent}, number, 0, "", 1.0,
                             calls=(call,), answer=text, place=f"{side}{number}"))  # fmt: skip
        detail = (
            {"void": "A names itself", "reasons": ["style"]}
            if number == void
            else {"reasons": ["clear", "safe"][: number % 3]}
        )
        when = f"2026-11-27T00:0{minute}:00+00:00"
        run.add_preference(Preference(f"p{number}", f"{name}{number}a", f"{name}{number}b", winner, f"human:v{number % 2}",
                                      when, detail if number else None))  # type: ignore[arg-type]  # fmt: skip
    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("board")


@pytest.fixture(scope="module")
def two(home: Path) -> Iterator[tuple[Run, Run]]:
    with arena(home, "one", VOTES[:5], void=1) as one, arena(home, "two", VOTES[5:]) as other:
        yield one, other


def test_standings_are_those_of_the_votes_that_count(two: tuple[Run, Run]) -> None:
    plain = votes_of_runs([*two])
    rows = ranked(rate(plain.battles.only(["amber", "cobalt", "teal"])))
    found = standings_of([*two], ())
    assert isinstance(found, Standings) and [each.row for each in found.rows] == list(rows)
    low, high = min(row.low for row in rows), max(row.high for row in rows)
    for each in found.rows:
        left, right, middle = (
            round(100 * (value - low) / (high - low), 2) for value in (each.row.low, each.row.high, each.row.rating)
        )
        assert (each.left, each.width, each.middle) == (left, round(right - left, 2), middle)
    assert {each.row.model: each.wins for each in found.rows} == {"amber": 2 / 4, "cobalt": 2 / 4, "teal": 2 / 4}
    names = [each.row.model for each in found.rows]
    between = {(a, b): found.matrix[i][j] for i, a in enumerate(names) for j, b in enumerate(names)}
    assert between == {
        ("amber", "amber"): (None, 0), ("cobalt", "cobalt"): (None, 0), ("teal", "teal"): (None, 0),
        ("amber", "cobalt"): (0.5, 2), ("cobalt", "amber"): (0.5, 2), ("amber", "teal"): (0.5, 2), ("teal",
        "amber"): (0.5, 2),
        ("cobalt", "teal"): (0.5, 2), ("teal", "cobalt"): (0.5, 2),
    }  # fmt: skip
    assert (found.unrated, found.num_votes, found.num_void) == (("zed",), 7, 1)
    costs = costs_of([*two])
    assert costs["zed"] == (79.0, 0.0) and costs["cobalt"] == ((5 * 60 + 0 + 1 + 2 + 4 + 0) / 5, 0.25)
    points, unit = scatter_points([(row.model, row.rating, *costs[row.model]) for row in rows])
    assert (list(found.points), found.unit) == (points, unit) == (points, "USD")
    styled = standings_of([*two], ("length",))
    assert (
        isinstance(styled, Standings) and list(styled.ratings.covariates or {}) == ["length"] and styled.num_votes == 7
    )
    assert standings_of([*two], ("bold",)) == "the answers never differ in bold: leave it out of style"
    assert [has_votes(run.info) for run in two] == [True, True]


def test_the_table_of_pairs_is_in_the_order_of_ratings_and_not_of_names(tmp_path: Path) -> None:
    votes = [("amber", "zed", "b", 1), ("zed", "amber", "a", 2), ("amber", "zed", "a", 3)]
    with arena(tmp_path, "zed", votes) as run:
        found = standings_of([run], ())
    assert isinstance(found, Standings) and [each.row.model for each in found.rows] == ["zed", "amber"]
    assert found.matrix == (((None, 0), (2 / 3, 3)), ((1 / 3, 3), (None, 0)))
    assert [each.wins for each in found.rows] == [2 / 3, 1 / 3]


def test_an_interval_has_its_place_on_the_scale_and_a_bar_that_can_be_seen() -> None:
    for rating, low, high, bar in (
        (1050.0, 1000.0, 1200.0, (0.0, 50.0, 12.5)), (1300.0, 1299.0, 1301.0, (74.75, 0.5, 75.0)),
        (1300.0, 1298.0, 1302.4, (74.5, 1.1, 75.0)), (1400.0, 1400.0, 1400.0, (100.0, 0.5, 100.0)),
    ):  # fmt: skip
        row = RatedModel("m", rating, low, high, 1, 2, 7)
        assert placed(row, 0.75, 1000.0, 1400.0) == Standing(row, *bar, 0.75)
    assert placed(row, 0.5, 1400.0, 1400.0).middle == 0.0, "a scale of one point is divided all the same"


def test_models_that_nothing_leads_between_have_no_ratings(tmp_path: Path) -> None:
    with arena(tmp_path, "won", [("amber", "cobalt", "a", 1)] * 3) as run, store.create(tmp_path, {}, "none") as other:
        assert standings_of([run], ()) == (
            "no two models can be compared yet: each has only won or only lost against the others; more votes are needed"
        )
        votes = [("amber", "cobalt", "tie", 1), ("amber", "cobalt", "tie", 2), ("zed", "teal", "tie", 3)]
        with arena(tmp_path, "apart", votes) as apart:
            found = standings_of([apart], ())
        assert isinstance(found, Standings) and {each.row.model for each in found.rows} == {"amber", "cobalt"}
        assert (found.unrated, found.num_votes, found.matrix[1]) == (("teal", "zed"), 3, ((0.5, 2), (None, 0)))
        assert standings_of([other], ()) == standings_of([], ()) == "no votes" and not has_votes(other.info)


def test_the_last_votes_come_first_with_the_attempts_that_they_name(two: tuple[Run, Run], tmp_path: Path) -> None:
    def short(votes: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return [
            (each["run"], each["a"].place, each["b"].place, each["vote"].when[15:16], each["detail"]) for each in votes
        ]

    one, other = two
    everything = [
        (other.id, "a2", "b2", "8", {"reasons": ["clear", "safe"]}), (one.id, "a4", "b4", "7", {"reasons": ["clear"]}),
        (other.id, "a0", "b0", "6", {}), (one.id, "a0", "b0", "5", {}), (other.id, "a1", "b1", "4", {"reasons": ["clear"]}),
        (one.id, "a3", "b3", "3", {"reasons": []}), (one.id, "a2", "b2", "2", {"reasons": ["clear", "safe"]}),
        (one.id, "a1", "b1", "1", {"void": "A names itself", "reasons": ["style"]}),
    ]  # fmt: skip
    assert short(latest_votes([one, other])) == everything
    last4 = [*everything[:3], everything[4]]
    assert short(latest_votes([one, other], 4)) == last4, "of each run the four that were kept last, and of those four"
    with arena(tmp_path, "three", VOTES[:2]) as three:
        for a, b in (("gone", "three0b"), ("three0a", "gone")):
            three.add_preference(Preference("p0", a, b, "a", "human:v", "2026-11-27T00:09:00+00:00"))
        assert short(latest_votes([three])) == [
            (three.id, "a0", "b0", "5", {}), (three.id, "a1", "b1", "1", {"reasons": ["clear"]}),
        ]  # fmt: skip


def test_the_board_shows_each_figure_and_takes_runs_and_styles(
    home: Path, two: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    names = {one.id: "ONE", other.id: "TWO"}
    access = Access()
    access.port = PORT
    with TestClient(create_app(home, access), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        found = standings_of([other, one], ())
        assert isinstance(found, Standings)
        ids = {"ONE": one.id, "TWO": other.id}
        page, status = asked(client, "/arena/board", names)
        styles = "{style=length} length {style=headers} headers {style=lists} lists {style=bold} bold"
        head = (
            "Arena(/arena) / Arena leaderboard [get /arena/board votes of run: all arenas TWO ONE hold equal "
            + styles
            + " Show ] "
        )
        rows = " ".join(
            f"{each.row.rank_low}-{each.row.rank_high} {each.row.model} {each.row.rating:.0f} "
            f"[{each.row.low:.0f}, {each.row.high:.0f}] "
            f"(picture) {each.row.games} 50%"
            for each in found.rows
        )
        order = [each.row.model for each in found.rows]
        matrix = " ".join(f"{a} " + " ".join("-" if a == b else "0.502" for b in order) for a in order)
        assert (
            status == 200
            and page.startswith(head + "Elo points by Bradley-Terry, mean 1000; ")
            and f" {rows} 7 votes of 2 runs; 1 more do " in page
        )
        unrated = "Not rated, because no chain of wins leads both to and from the others: zed."
        assert f"{unrated} Rating against cost (picture) " in page
        assert (
            f"with the number of battles. model {' '.join(order)} {matrix} Last votes when by A B vote reasons " in page
        )
        votes = (
            "2026-11-27T00:08 human:v0 zed(/runs/TWO/attempts/a2) teal(/runs/TWO/attempts/b2) B is better clear, safe "
            "2026-11-27T00:07 human:v0 teal(/runs/ONE/attempts/a4) cobalt(/runs/ONE/attempts/b4) B is better clear "
            "2026-11-27T00:06 human:v0 cobalt(/runs/TWO/attempts/a0) teal(/runs/TWO/attempts/b0) B is better "
            "2026-11-27T00:05 human:v0 amber(/runs/ONE/attempts/a0) cobalt(/runs/ONE/attempts/b0) A is better "
            "2026-11-27T00:04 human:v1 amber(/runs/TWO/attempts/a1) teal(/runs/TWO/attempts/b1) both bad clear "
            "2026-11-27T00:03 human:v1 teal(/runs/ONE/attempts/a3) amber(/runs/ONE/attempts/b3) tie "
            "2026-11-27T00:02 human:v0 cobalt(/runs/ONE/attempts/a2) amber(/runs/ONE/attempts/b2) A is better clear, safe "
            "2026-11-27T00:01 human:v1 amber(/runs/ONE/attempts/a1) cobalt(/runs/ONE/attempts/b1) A is better "
            "void: A names itself style"
        )
        assert page.endswith(votes)
        alone, status = asked(
            client, f"/arena/board?run={ids['TWO']}&run={ids['TWO']}&style=bold&style=charm&style=length", names
        )
        chosen = head.replace("all arenas TWO ONE", "all arenas *TWO ONE").replace("{style=length}", "{*style=length}")
        assert status == 200 and alone.startswith(
            chosen.replace("{style=bold}", "{*style=bold}") + "the answers never differ in bold: leave it out "
            "of style Last votes "
        )
        assert alone.count("/runs/TWO/attempts/") == 6 and "/runs/ONE/" not in alone
        monkeypatch.setattr(arena_views, "MAX_RUNS", 1)
        for query, shown in (("", "TWO"), (f"?run={one.id}&run={one.id}&run={other.id}", "ONE")):
            part, _ = asked(client, f"/arena/board{query}", names)
            assert set(re.findall("/runs/(ONE|TWO)/attempts/", part)) == {shown} and "TWO ONE" in part.replace("*", "")


@pytest.mark.slow
def test_a_round_goes_by_its_pages_to_a_vote_that_is_kept(tmp_path: Path) -> None:
    access = Access()
    access.port = PORT
    agents = {name: Agent(name, Scripted(lambda *_, said=said: said, name=f"scripted:{name}", fingerprint=name), reply)
              for name, said in (("amber", "yes"), ("cobalt", "no\nnever"))}  # fmt: skip
    with TestClient(create_app(tmp_path, access, agents), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        assert sent(client, "/arena/rounds", {}, prompt=" ") == (
            400,
            "Problem the prompt is empty: write a question All runs(/)",
        )
        status, body = sent(client, "/arena/rounds", {}, prompt="Is it?")
        base = f"/arena/rounds/{json.loads(body)['round']}"
        assert status == 200 and list(json.loads(body)) == ["round"]
        stream = client.get(f"{base}/events")
        first, *events = stream.text.split("\n\n")
        assert (
            stream.headers["content-type"].startswith("text/event-stream")
            and first == "retry: 1000"
            and events[-1] == ""
        )
        shown = {"a": "", "b": ""}
        told = [json.loads(each.removeprefix("data: ")) for each in events[:-1]]
        for each in told[:-1]:
            shown[each["side"]] = shown[each["side"]][: each["from"]] + each["text"]
        assert told[-1] == {"ready": True} and sorted(shown.values()) == ["no\nnever", "yes"]
        assert sent(client, f"{base}/reveal", {})[0] == 400
        headers = {"sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"}
        voted = client.post(f"{base}/vote", content="winner=b&reason=style&reason=safe&winner=a", headers=headers)
        assert (voted.status_code, voted.json()) == (200, {"undo_s": 5.0})
        undone = client.post(f"{base}/undo", headers=headers)
        assert (undone.status_code, undone.json()) == (200, {})
        assert sent(client, f"{base}/vote", {}, reason="style") == (
            400, "Problem winner is '': it is one of a, b, tie, both_bad All runs(/)",
        )  # fmt: skip
        assert client.post(f"{base}/vote", content="winner=b&reason=style&reason=safe", headers=headers).json() == {
            "undo_s": 5.0
        }
        names = client.post(f"{base}/reveal", headers=headers).json()
        a = "amber" if shown["a"] == "yes" else "cobalt"
        with store.open_run(names["run"], tmp_path) as run:
            (kept,) = run.preferences()
            assert names == {"a": a, "b": {"amber": "cobalt", "cobalt": "amber"}[a], "winner": "b", "void": "",
            "run": run.id,
                             "attempts": [kept.a, kept.b]}  # fmt: skip
            assert (
                kept.by == voter_of(Request({"type": "http"}))
                and kept.detail is not None
                and kept.detail["reasons"] == ["style", "safe"]
            )
            assert (
                run.info.config["arena"]["models"] == ["amber", "cobalt"] and run.info.config["arena"]["by"] == "studio"
            )
        assert sent(client, f"{base}/undo", {}) == (
            400, "Problem the vote was kept, 5 s after it was given or when the names were shown All runs(/)",
        )  # fmt: skip
        for path in ("vote", "undo", "reveal"):
            assert sent(client, f"/arena/rounds/none/{path}", {}) == (
                404, "Problem this round is not known any more: start a new one All runs(/)",
            )  # fmt: skip
        assert client.get("/arena/rounds/none/events").status_code == 404
        page = outline(client.get("/arena"))
        reasons = "Why? correct complete clear follows the prompt style safe u Undo"
        assert page.startswith("Arena Two of 2 models answer, ") and reasons in page


def test_a_round_shows_both_sides_up_to_the_pace_and_says_why_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, other = (Agent(name, Scripted(lambda *_: "x", name=f"scripted:{name}"), reply) for name in ("one", "two"))
    made = Round("id", Task("t", "Q"), AnsweringSide(agent, "abcdef"), AnsweringSide(other, "uvw"))
    assert made.shown(10.0) == ("", "") and made.shown(10.003) == ("a", "u") and made.ready_at is None
    made.battle = object()  # type: ignore[assignment]
    assert made.shown(10.5) == ("abc", "uvw") and made.ready_at is None
    assert made.shown(11.5) == ("abcdef", "uvw") and made.ready_at == 11.5
    assert made.shown(12.5) == ("abcdef", "uvw") and made.ready_at == 11.5

    async def play() -> None:
        rounds = ArenaRounds(tmp_path, {"one": agent, "two": other})
        with pytest.raises(UnknownName):
            rounds.get("id")
        with pytest.raises(ConfigError, match="both answers must be complete before the vote"):
            rounds.vote(Round("x", made.task, made.a, made.b), "a", [], "ann")
        run = rounds._open()
        assert rounds._open() is run and rounds._number == 0 and run.info.config["arena"]["seed"] == 0
        lost = Round("lost", made.task, made.a, made.b)
        await rounds._fight(lost, None, 3)  # type: ignore[arg-type]
        assert lost.problem.startswith("The round ended without answers: 'NoneType' object") and lost.battle is None
        assert [each async for each in rounds.events(lost, tick_s=0)] == [{"problem": lost.problem}]
        assert rounds.reveal(lost) == {"a": "one", "b": "two", "winner": None}
        rounds.close()
        assert rounds.run is None

    asyncio.run(play())

    def nobody() -> str:
        raise KeyError("no user")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert voter_of(Request({"type": "http"})) == "human:user"


def test_a_vote_counts_from_when_both_answers_were_shown_and_waits_to_be_kept(tmp_path: Path) -> None:
    agents = {name: Agent(name, Scripted(lambda *_, said=said: said, name=f"scripted:{name}", fingerprint=name), reply)
              for name, said in (("amber", "yes"), ("cobalt", "no"))}  # fmt: skip

    async def play() -> None:
        rounds = ArenaRounds(tmp_path, agents, seed=3)
        made = await rounds.start("Is it?")
        assert made.work is not None and rounds.get(made.id) is made and rounds._number == 1
        assert sum([1 async for _ in rounds.events(made, tick_s=0.001)]) > 1 and made.battle is not None
        assert (made.battle.a.seed, made.battle.a.epoch, made.battle.task.prompt) == (made.battle.b.seed, 0, "Is it?")
        made.ready_at = time.monotonic() - 5
        rounds.vote(made, "a", ["style", "safe", "style"], "ann", undo_s=60)
        first = made.dwell_s
        assert 5 <= first < 6 and (made.winner, made.reasons, made.by, made.kept) == (
            "a",
            ("style", "safe"),
            "ann",
            None,
        )
        made.ready_at -= 100
        rounds.vote(made, "tie", [], "bob", undo_s=60)
        assert made.dwell_s == first and (made.winner, made.reasons, made.by) == ("tie", (), "bob")
        rounds.undo(made)
        rounds.undo(made)
        rounds.vote(made, "both_bad", ["clear"], "cat", undo_s=60)
        assert 105 <= made.dwell_s < 106
        spare = [Round(str(n), made.task, made.a, made.b) for n in range(5)]
        spare[3].problem, spare[4].battle = "It broke", made.battle
        rounds._rounds.update({each.id: each for each in spare})
        second = await rounds.start("x" * 20_000)
        assert second.work is not None and rounds._number == 2 and list(rounds._rounds)[-1] == second.id
        with pytest.raises(ConfigError, match="4 rounds are under way: wait for one of them to end"):
            await rounds.start("Is it?")
        await second.work
        with pytest.raises(ConfigError, match="the prompt has 20,001 characters: at most 20,000 are taken"):
            await rounds.start("x" * 20_001)
        run = rounds.run
        assert run is not None and made.keeper is not None
        rounds.close()
        rounds._keep(made)
        made.keeper.cancel()
        assert made.kept is not None and made.kept.detail is not None and rounds.run is None
        digest = hashlib.sha256(b"Is it?").hexdigest()
        assert made.kept.detail == {
            "prompt_sha256": digest,
            "dwell_s": round(made.dwell_s, 3),
            "void": "",
            "reasons": ["clear"],
        }
        assert (made.kept.winner, made.kept.by, made.kept.a, made.kept.b) == (
            "both_bad",
            "cat",
            made.battle.a.id,
            made.battle.b.id,
        )
        with store.open_run(run.id, tmp_path) as again:
            assert [(each.winner, each.by) for each in again.preferences()] == [("both_bad", "cat")]
            assert again.agents() == {name: agent.to_json() for name, agent in agents.items()}
            assert again.info.config["arena"] == {
                "models": ["amber", "cobalt"], "agents": {name: agent.to_json() for name, agent in agents.items()},
                "by": "studio", "seed": 3,
            }  # fmt: skip

    asyncio.run(play())


def test_rounds_that_begin_at_once_take_no_more_places_than_there_are(tmp_path: Path) -> None:
    agents = {
        name: Agent(name, Scripted([name] * 40, name=f"scripted:{name}", fingerprint=name), reply) for name in "abc"
    }

    async def play() -> None:
        rounds = ArenaRounds(tmp_path, agents, seed=3)
        begun = await asyncio.gather(*(rounds.start("Is it?") for _ in range(12)), return_exceptions=True)
        made = [each for each in begun if isinstance(each, Round)]
        assert len(made) == 4 and all("4 rounds are under way" in str(each) for each in begun if each not in made)
        await asyncio.gather(*(each.work for each in made if each.work is not None))
        numbers = [each.battle.a.epoch for each in made if each.battle is not None]
        assert sorted(numbers) == [0, 1, 2, 3] and len({each.a.agent.name + each.b.agent.name for each in made}) > 1
        again = await rounds.start("Is it?")  # the places are free again
        assert again.work is not None
        await again.work
        rounds.agents = {**agents, "d": agents["a"]}
        rounds.agents.pop("a")
        for _ in range(5):  # a start that fails gives its place back
            rounds._open = lambda: 1 / 0  # type: ignore[assignment,method-assign,return-value]
            with pytest.raises(ZeroDivisionError):
                await rounds.start("Is it?")
        rounds.close()

    asyncio.run(play())


def test_the_board_says_that_few_voters_weigh(tmp_path: Path) -> None:
    names = {1: "busy", 2: "keen"}
    with store.create(tmp_path, {"arena": {"name": "many"}}, "many") as run:
        run.add_tasks("arena", [Task(f"p{n}", f"{n}?") for n in range(60)])
        for n in range(60):
            for side, agent in zip("ab", ("amber", "teal"), strict=True):
                run.append(Trace(f"{n}{side}", f"arena{n}", f"p{n}", {"name": agent}, n, 0, "", 1.0, answer="x"))
            voter = names.get(n % 3, f"v{n}")
            vote = Preference(
                f"p{n}", f"{n}a", f"{n}b", "ab"[n % 2], f"human:{voter}", "2026-11-27T00:00:00+00:00", None
            )  # type: ignore[arg-type]
            run.add_preference(vote)
    access = Access()
    access.port = PORT
    with TestClient(create_app(tmp_path, access), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        told = re.sub(r"\s+", " ", client.get("/arena/board").text)
    # two voters of 20 votes each, and 20 of one: 60^2 / 820
    assert (
        "clustered by voter and question. Votes per voter are unequal: they weigh as much as those of 4 voters" in told
    )
