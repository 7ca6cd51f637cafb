"""The arena: a blind battle between two models, and the ratings that its votes give."""

from __future__ import annotations

import getpass
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from firsthand.errors import ConfigError
from firsthand.runs.index import RunInfo
from firsthand.runs.run_folder import Run
from firsthand.studio.arena_rounds import REASONS, UNDO_S, ArenaRounds
from firsthand.studio.comparison_slices import CostPoint, scatter_points
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.rendering import json_answer, page
from firsthand.studio.views.form_fields import fields_of, form_of

if TYPE_CHECKING:
    from firsthand.arena.rank_intervals import RatedModel
    from firsthand.arena.ratings import Ratings

STYLES = ("length", "headers", "lists", "bold")
MAX_RUNS = 100
MOST_VOTES_SHOWN = 100
MOST_PAIRED = 100
"""Models, the best first, whose pairs are shown: the page of a table of all pairs of 2,000 has 41 MB."""
MOST_UNRATED_SHOWN = 100


def routes(runs: OpenRuns, rounds: ArenaRounds) -> list[Route]:
    """The page, the rounds that it starts and votes on, and the board."""

    def show(request: Request) -> Response:
        return page(request, "arena", title="Arena", num_models=len(rounds.agents), reasons=REASONS, undo_s=UNDO_S)

    async def start(request: Request) -> Response:
        form = await form_of(request)
        made = await rounds.start(form.get("prompt", ""))
        return json_answer({"round": made.id})

    async def events(request: Request) -> Response:
        made = rounds.get(request.path_params["round"])

        async def lines() -> AsyncIterator[str]:
            yield "retry: 1000\n\n"
            async for event in rounds.events(made):
                yield f"data: {json.dumps(event, ensure_ascii=True)}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def vote(request: Request) -> Response:
        made = rounds.get(request.path_params["round"])
        fields = await fields_of(request)
        winner = next((value for name, value in fields if name == "winner"), "")
        rounds.vote(made, winner, [value for name, value in fields if name == "reason"], voter_of(request))
        return json_answer({"undo_s": UNDO_S})

    async def undo(request: Request) -> Response:
        rounds.undo(rounds.get(request.path_params["round"]))
        return json_answer({})

    async def reveal(request: Request) -> Response:
        made = rounds.get(request.path_params["round"])
        return json_answer(await run_in_threadpool(rounds.reveal, made))

    def board(request: Request) -> Response:
        infos = [info for info in runs.infos() if has_votes(info)]
        asked = list(dict.fromkeys(request.query_params.getlist("run")))[:MAX_RUNS]
        chosen = runs.several(asked or [info.id for info in infos[:MAX_RUNS]])
        style = tuple(name for name in STYLES if name in request.query_params.getlist("style"))
        return page(
            request,
            "arena_board",
            title="Arena leaderboard",
            infos=infos,
            asked=asked,
            chosen=chosen,
            style=style,
            styles=STYLES,
            found=standings_of(chosen, style),
            votes=latest_votes(chosen),
            most_unrated=MOST_UNRATED_SHOWN,
        )

    base = "/arena/rounds"
    return [
        Route("/arena", show),
        Route("/arena/board", board),
        Route(base, start, methods=["POST"]),
        Route(f"{base}/{{round}}/events", events),
        Route(f"{base}/{{round}}/vote", vote, methods=["POST"]),
        Route(f"{base}/{{round}}/undo", undo, methods=["POST"]),
        Route(f"{base}/{{round}}/reveal", reveal, methods=["POST"]),
    ]


def voter_of(request: Request) -> str:
    """The name that a vote or a note is kept under: the account, or the user of this machine."""
    user = request.scope.get("firsthand.user")
    if user is not None:
        return f"human:{user.name}"
    try:
        return f"human:{getpass.getuser()}"
    except (OSError, KeyError):
        return "human:user"


def has_votes(info: RunInfo) -> bool:
    """True of the runs of arenas."""
    return "arena" in info.config


@dataclass(frozen=True)
class Standing:
    """A row of the board, with the place of its interval on a scale from 0 to 100."""

    row: RatedModel
    left: float
    width: float
    middle: float
    wins: float
    """The share of battles won, a tie half."""


@dataclass(frozen=True)
class Standings:
    """Ratings of the votes of runs."""

    ratings: Ratings
    rows: tuple[Standing, ...]
    matrix: tuple[tuple[tuple[float | None, int], ...], ...]
    """For each row's model against each column's, of the `MOST_PAIRED` best: the share won, and the battles."""
    unrated: tuple[str, ...]
    num_votes: int
    num_void: int
    points: tuple[CostPoint, ...]
    """The rated models by rating and by the cost of an answer, with their Pareto frontier."""
    unit: str
    """The unit of cost: USD, or tokens."""


def standings_of(runs: list[Run], style: tuple[str, ...]) -> Standings | str:
    """The ratings of all votes of the runs, or why there are none."""
    import numpy as np

    from firsthand.arena.connectivity import comparable_groups
    from firsthand.arena.rank_intervals import ranked
    from firsthand.arena.ratings import rate
    from firsthand.arena.run_votes import votes_of_runs

    plain = votes_of_runs(runs)
    if not len(plain.battles):
        return "no votes"
    groups = comparable_groups(plain.battles)
    if len(groups[0]) < 2:
        return "no two models can be compared yet: each has only won or only lost against the others; more votes are needed"
    try:
        battles = votes_of_runs(runs, style).battles if style else plain.battles
        rated = battles if len(groups) == 1 else battles.only(groups[0])
        ratings = rate(rated)
    except ConfigError as error:
        return str(error)
    rows = ranked(ratings)
    low, high = min(row.low for row in rows), max(row.high for row in rows)
    shares_won = dict(zip(rated.models, rated.games_won / np.maximum(rated.games, 1), strict=True))
    paired = battles.only([row.model for row in rows[:MOST_PAIRED]])
    games = paired.counts.sum(0)
    games = games + games.T
    shares = [
        tuple((float(won / number) if number else None, int(number)) for won, number in zip(*each, strict=True))
        for each in zip(paired.wins, games, strict=True)
    ]
    standings = [placed(row, float(shares_won[row.model]), low, high) for row in rows]
    unrated = tuple(sorted(name for group in groups[1:] for name in group))
    costs = costs_of(runs)
    points, unit = scatter_points([(row.model, row.rating, *costs.get(row.model, (0.0, 0.0))) for row in rows])
    num_votes = len(plain.battles)
    return Standings(ratings, tuple(standings), tuple(shares), unrated, num_votes, plain.void, tuple(points), unit)


def placed(row: RatedModel, wins: float, low: float, high: float) -> Standing:
    """A rated model on the scale from `low` to `high`; the bar of its interval is half a point wide at least."""
    reach = max(high - low, 1e-9)
    left, right, middle = (round(100 * (value - low) / reach, 2) for value in (row.low, row.high, row.rating))
    return Standing(row, left, max(0.5, round(right - left, 2)), middle, wins)


def costs_of(runs: list[Run]) -> dict[str, tuple[float, float]]:
    """The mean tokens and USD of an answer of each model in the runs."""
    found: dict[str, tuple[int, int, float]] = {}
    for total in (total for run in runs for total in run.totals()):
        attempts, tokens, usd = found.get(total.agent, (0, 0, 0.0))
        found[total.agent] = (attempts + total.attempts, tokens + total.tokens, usd + total.cost_usd)
    return {name: (tokens / n, usd / n) for name, (n, tokens, usd) in found.items() if n}


def latest_votes(runs: list[Run], most: int = MOST_VOTES_SHOWN) -> list[dict[str, Any]]:
    """The last votes of the runs, with the places of both attempts."""
    found: list[dict[str, Any]] = []
    for run in runs:
        rows = {row.id: row for row in run.rows()}
        for vote in run.preferences()[-most:]:
            a, b = rows.get(vote.a), rows.get(vote.b)
            if a is not None and b is not None:
                found.append({"run": run.id, "vote": vote, "a": a, "b": b, "detail": vote.detail or {}})
    return sorted(found, key=lambda each: each["vote"].when or "", reverse=True)[:most]
