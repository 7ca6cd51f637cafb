"""Print a leaderboard of votes: ratings with intervals, and ranks that models share when they cannot be told apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from firsthand.config import confidence
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, print_as_json, print_table

if TYPE_CHECKING:
    from firsthand.arena.rank_intervals import RatedModel
    from firsthand.arena.ratings import Ratings
    from firsthand.arena.vote_files import VoteFile

EXAMPLES = """
firsthand board last
firsthand board votes.csv
firsthand board votes.jsonl --style length,headers,lists,bold --where language=English
firsthand board votes.csv --method davidson --anchor gpt-4=1200 --json
"""


@dataclass(frozen=True)
class Config:
    """The votes to rate, and how."""

    votes: str = field(metadata={"positional": True})
    """A table with the columns model_a, model_b and winner (.csv, .tsv, .jsonl, .json), or a run of the arena, or last."""
    method: Literal["bradley-terry", "davidson", "rao-kupper"] = "bradley-terry"
    """The model of outcomes; bradley-terry counts a tie as half a win, the other two model ties."""
    style: tuple[str, ...] = ()
    """Covariates to hold equal: length, headers, lists, bold."""
    where: tuple[str, ...] = ()
    """Columns and the values to keep, such as language=English."""
    anchor: str = ""
    """A model and its rating, such as gpt-4=1200; without, the mean is 1000."""
    confidence: str = "95%"
    """Confidence level of the intervals and of all ranks together."""
    json: bool = False
    """Print JSON for programs."""


def main(config: Config) -> int:
    """Print the leaderboard of a file of votes."""
    from firsthand.arena.connectivity import comparable_groups
    from firsthand.arena.rank_intervals import ranked
    from firsthand.arena.ratings import CENTRE, rate

    level = confidence(config.confidence)
    anchor, at = _anchor(config.anchor, CENTRE)
    votes = _votes(config)
    groups = comparable_groups(votes.battles)
    battles = votes.battles if len(groups) == 1 else votes.battles.only(groups[0])
    if len(groups[0]) < 2:
        raise ConfigError(
            f"no two models of {config.votes} can be compared: each has only won or only lost against the others; "
            "more battles are needed"
        )
    ratings = rate(battles, config.method)
    rows = ranked(ratings, confidence=level, anchor=anchor, at=at)
    unrated = [name for group in groups[1:] for name in group]
    if config.json:
        print_as_json(_as_json(votes, ratings, rows, unrated))
        return 0
    _print(config, votes, ratings, rows, unrated)
    return 0


def _votes(config: Config) -> VoteFile:
    """The votes of a file or of a run."""
    from firsthand.arena.blind_battles import battles_of
    from firsthand.arena.vote_files import SUFFIXES, VoteFile, read_votes
    from firsthand.runs import store
    from firsthand.system.home import data_home

    if Path(config.votes).suffix in SUFFIXES:
        return read_votes(Path(config.votes), where=_conditions(config.where), style=config.style)
    if config.where or config.style:
        raise ConfigError("--where and --style are for files of votes: leave them out for a run")
    if Path(config.votes).is_file():
        raise ConfigError(f"{config.votes} is no table of votes: give a file {', '.join(SUFFIXES)}, or a run")
    with store.open_run(config.votes, data_home()) as run:
        battles, void = battles_of(run)
    if not len(battles):
        raise ConfigError(f"run {run.id} holds no votes: `firsthand arena MODEL MODEL` makes some")
    return VoteFile(battles, 0, 0, void)


def _conditions(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if bad := [text for text, (_, equals, _) in zip(texts, pairs, strict=True) if not equals]:
        raise ConfigError(f"where is {bad[0]!r}: write COLUMN=VALUE")
    return {name: value for name, _, value in pairs}


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


def _print(config: Config, votes: VoteFile, ratings: Ratings, rows: list[RatedModel], unrated: list[str]) -> None:
    from firsthand.arena.vote_files import voter_shares

    battles = votes.battles
    won = battles.wins.sum(1)
    share = {name: won[i] / max(int(battles.games[i]), 1) for i, name in enumerate(battles.models)}
    print_table(
        f"{Path(config.votes).name}: {count_of(len(battles), 'battle', ',')}, {ratings.method}",
        ["rank", "model", "rating", f"{config.confidence} CI", "battles", "win rate"],
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
    remarks = [f"Ranks hold together at {config.confidence}: models that share a rank cannot be told apart."]
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
