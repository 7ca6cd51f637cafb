"""Prints the board of a file of votes, or of an arena's run: ratings, intervals, and ranks that models share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, print_as_json, print_table

if TYPE_CHECKING:
    from firsthand.arena.rank_intervals import RatedModel
    from firsthand.arena.ratings import Method, Ratings
    from firsthand.arena.vote_files import VoteFile


def print_votes(
    source: str, votes: VoteFile, *, method: Method, anchor: str, confidence: float, level: str, json: bool
) -> None:
    """Rate the votes and print the board; `source` is their file or run, `level` the confidence as it was written."""
    from firsthand.arena.connectivity import comparable_groups
    from firsthand.arena.rank_intervals import ranked
    from firsthand.arena.ratings import CENTRE, rate

    named, at = _anchor(anchor, CENTRE)
    groups = comparable_groups(votes.battles)
    battles = votes.battles if len(groups) == 1 else votes.battles.only(groups[0])
    if len(groups[0]) < 2:
        raise ConfigError(
            f"no two models of {source} can be compared: each has only won or only lost against the others; "
            "more battles are needed"
        )
    ratings = rate(battles, method)
    rows = ranked(ratings, confidence=confidence, anchor=named, at=at)
    unrated = [name for group in groups[1:] for name in group]
    if json:
        print_as_json(_as_json(votes, ratings, rows, unrated))
        return
    _print(source, level, votes, ratings, rows, unrated)


def _anchor(text: str, centre: float) -> tuple[str | None, float]:
    if not text:
        return None, centre
    name, equals, value = text.rpartition("=")
    try:
        return (name, float(value)) if equals else (text, centre)
    except ValueError:
        raise ConfigError(f"anchor is {text!r}: write MODEL=RATING, such as gpt-4=1200") from None


def _as_json(votes: VoteFile, ratings: Ratings, rows: list[RatedModel], unrated: list[str]) -> Json:
    return {
        "method": ratings.method,
        "models": [vars(row) for row in rows],
        "unrated": unrated,
        "battles": len(votes.battles),
        "duplicates": votes.duplicates,
        "filtered": votes.filtered,
        "void": votes.void,
        "ties_parameter": ratings.ties,
        "covariates": {
            name: {"coefficient": value, "error": error} for name, (value, error) in ratings.covariates.items()
        },
    }


def _print(
    source: str, level: str, votes: VoteFile, ratings: Ratings, rows: list[RatedModel], unrated: list[str]
) -> None:
    from firsthand.arena.vote_files import voter_shares

    battles = votes.battles
    won = battles.wins.sum(1)
    share = {name: won[i] / max(int(battles.games[i]), 1) for i, name in enumerate(battles.models)}
    print_table(
        f"{Path(source).name}: {count_of(len(battles), 'battle', ',')}, {ratings.method}",
        ["rank", "model", "rating", f"{level} CI", "battles", "win rate"],
        [
            [
                str(row.rank_low) if row.rank_low == row.rank_high else f"{row.rank_low}-{row.rank_high}",
                row.model,
                f"{row.rating:.0f}",
                f"[{row.low:.0f}, {row.high:.0f}]",
                f"{row.games:,}",
                f"{share[row.model]:.2f}",
            ]
            for row in rows
        ],
        right=("rank", "rating", "battles", "win rate"),
    )
    remarks = [f"Ranks hold together at {level}: models that share a rank cannot be told apart."]
    if ratings.covariates:
        effects = ", ".join(f"{name} {value:+.3f} ± {error:.3f}" for name, (value, error) in ratings.covariates.items())
        remarks.append(f"Held equal (log-odds per standard deviation, ± standard error): {effects}.")
    if unrated:
        remarks.append(
            f"Not rated, because no chain of wins leads both to and from the others: {', '.join(sorted(unrated))}."
        )
    if votes.duplicates:
        remarks.append(f"{count_of(votes.duplicates, 'repeated row', ',')} counted once.")
    if votes.void:
        remarks.append(f"{count_of(votes.void, 'vote')} not counted, because an answer named its model.")
    if votes.filtered:
        remarks.append(f"{count_of(votes.filtered, 'row', ',')} left out by --where.")
    shares = voter_shares(battles)
    if ratings.clustered_by:
        remarks.append(f"Intervals are clustered by {' and '.join(ratings.clustered_by)}.")
    if len(shares) > 1 and "voter" not in ratings.clustered_by:
        remarks.append(
            f"{count_of(len(shares), 'voter')} are too few to cluster by: the intervals hold for these people."
        )
    if len(shares) > 1 and (most := max(shares.values())) > len(battles) / 3:
        remarks.append(f"One voter cast {most / len(battles):.0%} of the votes: the intervals rest on few people.")
    console().print("\n".join(remarks), soft_wrap=True, markup=False)
