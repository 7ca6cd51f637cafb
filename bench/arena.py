"""Ratings of 2 million simulated votes over 200 models, beside arena-rank: CPU seconds, and intervals of rarely seen models.

    OMP_NUM_THREADS=1 python bench/arena.py --rival-python VENV/bin/python          # a venv with `pip install arena-rank`
    ... --fastchat FastChat/fastchat/serve/monitor/rating_systems.py                # FastChat too, with 100 bootstraps, once
    ... --equal [VOTES.csv]                                                         # ratings and intervals alone

All begin with three columns of strings and end with ratings and intervals. The rivals take a pandas frame, whose strings are
Arrow's since pandas 3; ours is timed from that frame, from Arrow arrays and from lists, and the rivals' time from lists has
the making of the frame in it. Intervals are without clusters, which arena-rank has not. The half-widths are compared
with those of a bootstrap of the votes (200 resamples, Newton's method on each).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas
import pyarrow

from firsthand.arena.battle_table import BattleTable
from firsthand.arena.connectivity import comparable_groups
from firsthand.arena.rank_intervals import ranked
from firsthand.arena.ratings import ELO, Ratings, rate
from firsthand.arena.vote_files import read_votes

WIKIPEDIA = ("AB2", "BA3", "AD1", "DA4", "BC5", "CB3", "CD1", "DC3")
"""Winner, loser, games: the worked example that arena-rank's tests hold."""


def simulated(models: int, votes: int, seed: int) -> dict[str, np.ndarray]:
    """Columns of votes: normal strengths, popularity as uneven as an arena's, 30 % ties."""
    rng = np.random.default_rng(seed)
    strength, popularity = rng.normal(0, 1, models), rng.dirichlet(np.ones(models))
    a, b = (rng.choice(models, votes, p=popularity) for _ in range(2))
    a, b = a[a != b], b[a != b]
    won = rng.random(len(a)) < 1 / (1 + np.exp(strength[b] - strength[a]))
    winner = np.where(rng.random(len(a)) < 0.3, "tie", np.where(won, "model_a", "model_b"))
    names = np.array([f"model-{i}" for i in range(models)])
    return {"model_a": names[a], "model_b": names[b], "winner": winner}


def bootstrap_half_widths(table: BattleTable, resamples: int, seed: int) -> np.ndarray:
    """Shape (M): 1.96 standard deviations of the ratings over the connected resamples, in Elo points."""
    rng = np.random.default_rng(seed)
    shares = table.counts.ravel() / len(table)
    found = []
    for _ in range(resamples):
        counts = rng.multinomial(len(table), shares).reshape(table.counts.shape)
        outcome, a, b = np.nonzero(counts)
        times = counts[outcome, a, b]
        drawn = BattleTable(table.models, *(np.repeat(each, times).astype(np.int32) for each in (a, b, outcome)))
        if len(comparable_groups(drawn)) == 1:  # a rare model may win or lose all its battles
            found.append(rate(drawn).theta)
    return 1.96 * ELO * np.std(found, 0, ddof=1)


def arena_rank(python: str, votes: dict[str, np.ndarray], *words: str) -> dict:
    """The result of `rivals/run_arena_rank.py`."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "votes.npz"), **votes)
        script = str(Path(__file__).parent / "rivals" / "run_arena_rank.py")
        subprocess.run([python, script, f"{folder}/votes.npz", f"{folder}/result.json", *words], check=True)
        return json.loads(Path(folder, "result.json").read_text())


def apart(ours: Ratings, other: dict) -> tuple[float, float]:
    """The largest difference of the centred ratings and of the half-widths, in Elo points."""
    theirs = np.array([other["ratings"][name] for name in ours.models])
    halves = np.array([other["half"][name] for name in ours.models])
    mine = ELO * ours.theta
    widths = 1.959963984540054 * ELO * np.sqrt(np.diag(ours.covariance))
    return float(np.abs(theirs - theirs.mean() - mine).max()), float(np.abs(halves - widths).max())


def equal(python: str, files: list[str], models: int, votes: int) -> None:
    """Print how far ratings and intervals are apart from arena-rank's, at its own stop and at the end of its optimiser."""
    games = [(winner, loser) for winner, loser, number in WIKIPEDIA for _ in range(int(number))]
    tables = {"its tests' example": BattleTable.from_columns(*zip(*games, strict=True), ["a"] * len(games))}
    tables |= {name: read_votes(Path(name)).battles for name in files}
    tables["simulated votes"] = BattleTable.from_columns(*simulated(models, votes, 0).values())
    print("largest difference from arena-rank in Elo points, and its mean loss less ours")
    for name, table in tables.items():
        names = np.array(table.models)
        winner = np.array(["model_a", "tie", "model_b"])[table.outcome]
        given = {"model_a": names[table.a], "model_b": names[table.b], "winner": winner}
        other = arena_rank(python, given, "exact")
        ours = rate(table, clustered=False)
        loss = -ours.log_likelihood / len(table)
        first, second = apart(ours, other), apart(ours, other["optimum"])
        print(f"{name}: {len(table):,} votes, {len(names)} models")
        more = other["loss"] - loss
        print(f"  its own stop: ratings {first[0]:.2g}, half-widths {first[1]:.2g}, loss {more:.1e} a vote")
        print(f"  its optimum: ratings {second[0]:.2g}, loss {other['optimum']['loss'] - loss:.1e} a vote", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival-python", required=True)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--votes", type=int, default=2_000_000)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fastchat", default="", help="FastChat's rating_systems.py")
    parser.add_argument("--equal", nargs="*", help="compare ratings and intervals only, on these files of votes too")
    options = parser.parse_args()
    if options.equal is not None:
        equal(options.rival_python, options.equal, options.models, options.votes)
        return
    votes = simulated(options.models, options.votes, 0)
    arrow = [pyarrow.array(column) for column in votes.values()]
    spent: dict[str, list[float]] = {"a pandas frame": [], "Arrow arrays": [], "lists": []}
    framing, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            columns = [column.tolist() for column in votes.values()]  # strings whose hashes are not known yet
            lists = [column.tolist() for column in votes.values()]
            start = time.process_time()
            frame = pandas.DataFrame(dict(zip(votes, lists, strict=True)))
            framing.append(time.process_time() - start)
            for name, given in zip(spent, ([frame[each] for each in votes], arrow, columns), strict=True):
                start = time.process_time()
                table = BattleTable.from_columns(*given)
                ratings = rate(table)
                spent[name].append(time.process_time() - start)
            rival = arena_rank(options.rival_python, votes)
            theirs.append(rival["seconds"])
        if options.fastchat:
            np.savez(Path(folder, "votes.npz"), **votes)
            script = str(Path(__file__).parent / "rivals" / "run_fastchat.py")
            words = [options.rival_python, script, options.fastchat, f"{folder}/votes.npz", f"{folder}/fastchat.json"]
            subprocess.run(words, check=True)
            fastchat = json.loads(Path(folder, "fastchat.json").read_text())
    start = time.process_time()
    rows = {row.model: row for row in ranked(ratings)}
    ranks = time.process_time() - start
    print(f"{len(table):,} votes over {options.models} models, CPU seconds, medians of {options.rounds} in turn")
    first, second = np.median(theirs, axis=0)
    rivals = [("arena-rank with compilation", first), ("arena-rank without", second)]
    if options.fastchat:
        rivals.append(("FastChat with 100 bootstraps", fastchat["seconds"][0]))
    for name, seconds in spent.items():
        own, more = float(np.median(seconds)), float(np.median(framing)) if name == "lists" else 0
        told = ", ".join(f"{rival} {each + more:.2f} ({(each + more) / own:.0f}x)" for rival, each in rivals)
        print(f"firsthand from {name} {own:.3f}; {told}")
    print(f"ranks with simultaneous intervals {ranks:.2f} more")
    told = [("arena-rank", rival)]
    if options.fastchat:
        print(f"FastChat without intervals {fastchat['seconds'][1]:.2f}")
        told.append(("FastChat", fastchat))
    for name, other in told:
        centre = np.mean(list(other["ratings"].values())) - np.mean([row.rating for row in rows.values()])
        gaps = {each: abs(other["ratings"][each] - centre - row.rating) for each, row in rows.items()}
        noise = {each: gaps[each] / (row.high - row.low) * 2 * 1.96 for each, row in rows.items()}
        print(
            f"{name}: ratings differ by at most {max(gaps.values()):.2g} Elo points, {max(noise.values()):.2g} errors"
        )
    widths = bootstrap_half_widths(table, options.resamples, 1)
    print("half-widths of 95 % intervals: battles, firsthand, bootstrap, arena-rank")
    for place in np.argsort(table.games)[[0, 1, 2, 5, 20, options.models // 2, -1]]:
        name = table.models[place]
        half = rows[name].high - rows[name].rating
        print(f"{table.games[place]:>9,} {half:7.1f} {widths[place]:7.1f} {rival['half'][name]:7.1f}")


if __name__ == "__main__":
    main()
