"""Prints the board of a file of votes, or of an arena's run: ratings, intervals, and ranks that models share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.system.home import data_home
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, print_as_json, print_table

if TYPE_CHECKING:
    from firsthand.arena.battle_table import BattleTable
    from firsthand.arena.rank_intervals import RatedModel
    from firsthand.arena.ratings import Method, Ratings
    from firsthand.arena.vote_checks import SmallAccounts, SuspectVoter
    from firsthand.arena.vote_files import VoteFile

LOOK_S = 0.5
"""Seconds between two looks at a session of votes that is under way."""


def print_votes(
    source: str,
    votes: VoteFile,
    *,
    method: Method,
    anchor: str,
    confidence: float,
    level: str,
    json: bool,
    checks: bool = False,
    cap: int = 0,
    stuffing: str = "",
) -> None:
    """Rate the votes and print the board; `source` is their file or run, `level` the confidence as it was written."""
    if stuffing:
        _print_stuffing(votes, stuffing, cap)
        return
    checked = _checked(votes, cap) if checks else None
    if checked is not None:
        if not json:
            _print_checks(votes, checked)
        votes = replace(votes, battles=checked.kept)
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
        told = {} if checked is None else {"checks": checked.to_json()}
        print_as_json(_as_json(votes, battles, ratings, rows, unrated) | told)
        return
    _print(source, level, votes, battles, ratings, rows, unrated)


def follow_votes(source: str, show: Callable[[], None]) -> None:
    """Print a run's board by `show`, and again after each vote, until its session ends.

    Votes that are too few to compare two models are said, and more are waited for. ConfigError if they still are at the end.
    """
    from firsthand.runs import store

    with store.open_run(source, data_home()) as run:
        seen, identifier = -1, run.id  # `last` may be another run at the next look
    while True:
        with store.open_run(identifier, data_home()) as run:
            is_open, count = run.info.status == "running", len(run.preferences())
        if count != seen:
            try:
                show()
            except ConfigError as error:
                if not is_open:
                    raise
                console().print(f"{count_of(count, 'vote')}: {error}", soft_wrap=True, markup=False)
        elif not is_open:
            return
        seen = count
        if is_open:
            time.sleep(LOOK_S)


@dataclass(frozen=True)
class _Checked:
    """The votes that the checks keep, and their findings."""

    kept: BattleTable
    left_out: int
    voters: list[tuple[str, SuspectVoter]]
    """The name of each suspect voter, with what is most telling of them."""
    small: list[SmallAccounts]

    def to_json(self) -> Json:
        """The findings as a JSON object."""
        voters = [{**vars(each), "voter": name} for name, each in self.voters]
        return {"left_out": self.left_out, "voters": voters, "small_accounts": [vars(each) for each in self.small]}


def _checked(votes: VoteFile, cap: int) -> _Checked:
    from firsthand.arena.vote_checks import checked_votes, small_accounts, suspect_voters

    battles = votes.battles
    # one row for a voter: votes for a model are also votes against those that it met
    suspects = list({each.voter: each for each in reversed(suspect_voters(battles))}.values())[::-1]
    kept = checked_votes(battles, cap=cap)
    named = [(battles.voter_names[each.voter], each) for each in suspects]
    return _Checked(kept, len(battles) - len(kept), named, small_accounts(battles))


def _print_checks(votes: VoteFile, checked: _Checked) -> None:
    """The suspect voters and small accounts, and how many votes are left out."""
    from firsthand.arena.vote_checks import FEWEST, share_of_small_accounts

    right = ("battles", "won", "expected", "p corrected")
    rows = [[name, each.model, *_figures(each)] for name, each in checked.voters]
    if rows:
        title = "voters who are for or against a model beyond chance"
        print_table(title, ["voter", "model", *right], rows, right=right)
    rows = [
        [
            f"fewer than {each.under}",
            each.model,
            *_figures(each),
            "left out" if each.is_left_out else "kept: they outnumber the others",
        ]
        for each in checked.small
    ]
    if rows:
        header = ["votes of an account", "model", *right, "votes on the model"]
        print_table(
            "small accounts that are for or against a model beyond what larger ones are", header, rows, right=right
        )
    share = share_of_small_accounts(votes.battles)
    if share:
        told = f"{share:.0%} of the votes are by voters with fewer than {FEWEST}, who are looked at together alone."
        console().print(told, markup=False)
    findings = count_of(len(checked.voters) + len(checked.small), "finding")
    console().print(f"{count_of(checked.left_out, 'vote', ',')} left out by the checks ({findings}).", markup=False)


def _figures(found: SuspectVoter | SmallAccounts) -> list[str]:
    return [str(found.battles), f"{found.won:g}", f"{found.expected:.1f}", f"{found.p_value:.2g}"]


def _print_stuffing(votes: VoteFile, target: str, cap: int) -> None:
    from firsthand.arena.vote_stuffing import StuffingAttack, forged_votes_needed

    attack = StuffingAttack(target)
    rows = []
    kinds = [("no checks", False)] if votes.battles.voters is None else [("no checks", False), ("checks", True)]
    for label, checks in kinds:
        needed = forged_votes_needed(votes.battles, attack, checks=checks, cap=cap)
        rows.append([label, f"more than {attack.most:,}" if needed is None else f"{needed:,}"])
    print_table(f"forged votes that move {target} up a rank", ["ratings", "votes"], rows, right=("votes",))
    console().print(
        f"The attacker recognises answers with {attack.accuracy:.0%}, casts {attack.votes_per_account} votes an account, "
        "and votes honestly where the model is not seen.",
        soft_wrap=True,
        markup=False,
    )


def _anchor(text: str, centre: float) -> tuple[str | None, float]:
    if not text:
        return None, centre
    name, equals, value = text.rpartition("=")
    try:
        rating = float(value) if equals else centre
        if not math.isfinite(rating):
            raise ValueError
        return name if equals else text, rating
    except ValueError:
        raise ConfigError(f"anchor is {text!r}: write MODEL=RATING, such as gpt-4=1200") from None


def _as_json(
    votes: VoteFile, battles: BattleTable, ratings: Ratings, rows: list[RatedModel], unrated: list[str]
) -> Json:
    return {
        "method": ratings.method,
        "models": [vars(row) for row in rows],
        "unrated": unrated,
        "battles": len(votes.battles),
        "rated_battles": len(battles),
        "duplicates": votes.duplicates,
        "filtered": votes.filtered,
        "void": votes.void,
        "anonymous": votes.anonymous,
        "ties_parameter": ratings.ties,
        "covariates": {
            name: {"coefficient": value, "error": error} for name, (value, error) in ratings.covariates.items()
        },
    }


def _print(
    source: str,
    level: str,
    votes: VoteFile,
    battles: BattleTable,
    ratings: Ratings,
    rows: list[RatedModel],
    unrated: list[str],
) -> None:
    """The board of the rated models' battles with each other."""
    import numpy as np

    from firsthand.arena.battle_table import TIE
    from firsthand.arena.vote_files import voter_shares

    share = dict(zip(battles.models, battles.games_won / np.maximum(battles.games, 1), strict=True))
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
        if left := len(votes.battles) - len(battles):
            remarks.append(f"{count_of(left, 'battle', ',')} with models that are not rated left out.")
    if votes.duplicates:
        remarks.append(f"{count_of(votes.duplicates, 'repeated row', ',')} counted once.")
    if votes.void:
        remarks.append(f"{count_of(votes.void, 'vote')} not counted, because an answer named its model.")
    if votes.anonymous:
        remarks.append(f"{count_of(votes.anonymous, 'vote', ',')} without a voter: each counts as a voter of its own.")
    if votes.filtered:
        remarks.append(f"{count_of(votes.filtered, 'row', ',')} left out by --where.")
    if (battles.outcome == TIE).all():
        remarks.append("Every vote is a tie: nothing tells these models apart.")
    shares = voter_shares(battles)
    if ratings.clustered_by:
        remarks.append(f"Intervals are clustered by {' and '.join(ratings.clustered_by)}.")
        remarks += ratings.few_clusters
    if len(shares) > 1 and "voter" not in ratings.clustered_by:
        remarks.append(
            f"{count_of(len(shares), 'voter')} are too few to cluster by: the intervals hold for these people."
        )
    if len(shares) > 1 and (most := max(shares.values())) > len(battles) / 3:
        remarks.append(f"One voter cast {most / len(battles):.0%} of the votes: the intervals rest on few people.")
    console().print("\n".join(remarks), soft_wrap=True, markup=False)
