"""Ratings of 2 million simulated votes over 200 models, beside arena-rank: CPU seconds, and intervals of rarely seen models.

    OMP_NUM_THREADS=1 python bench/arena.py --rival-python VENV/bin/python          # a venv with `pip install arena-rank`
    ... --fastchat FastChat/fastchat/serve/monitor/rating_systems.py                # FastChat too, with 100 bootstraps, once

Both begin with three columns of strings and end with ratings and sandwich intervals, without clusters, which arena-rank has
not. The half-widths are compared with those of a bootstrap of the votes (200 resamples, Newton's method on each).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from firsthand.arena.battle_table import BattleTable
from firsthand.arena.connectivity import comparable_groups
from firsthand.arena.rank_intervals import ranked
from firsthand.arena.ratings import ELO, rate


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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival-python", required=True)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--votes", type=int, default=2_000_000)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fastchat", default="", help="FastChat's rating_systems.py")
    options = parser.parse_args()
    votes = simulated(options.models, options.votes, 0)
    columns = [votes[name].tolist() for name in ("model_a", "model_b", "winner")]
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "votes.npz"), **votes)
        command = [options.rival_python, str(Path(__file__).parent / "rivals" / "run_arena_rank.py")]
        for _ in range(options.rounds):
            start = time.process_time()
            table = BattleTable.from_columns(*columns)
            ratings = rate(table)
            ours.append(time.process_time() - start)
            subprocess.run([*command, f"{folder}/votes.npz", f"{folder}/result.json"], check=True)
            rival = json.loads(Path(folder, "result.json").read_text())
            theirs.append(rival["seconds"])
        if options.fastchat:
            script = str(Path(__file__).parent / "rivals" / "run_fastchat.py")
            words = [options.rival_python, script, options.fastchat, f"{folder}/votes.npz", f"{folder}/fastchat.json"]
            subprocess.run(words, check=True)
            fastchat = json.loads(Path(folder, "fastchat.json").read_text())
    start = time.process_time()
    rows = {row.model: row for row in ranked(ratings)}
    ranks = time.process_time() - start
    print(f"{len(table):,} votes over {options.models} models, CPU seconds, medians of {options.rounds} in turn")
    first, second = np.median(theirs, axis=0)
    own = float(np.median(ours))
    print(f"firsthand {own:.2f} (ranks with simultaneous intervals {ranks:.2f} more)")
    print(f"arena-rank {first:.2f} with compilation ({first / own:.0f}x), {second:.2f} without ({second / own:.0f}x)")
    told = [("arena-rank", rival)]
    if options.fastchat:
        most, once = fastchat["seconds"]
        print(f"FastChat {most:.1f} with 100 bootstraps ({most / own:.0f}x), {once:.2f} without intervals")
        told.append(("FastChat", fastchat))
    for name, other in told:
        centre = np.mean(list(other["ratings"].values())) - np.mean([row.rating for row in rows.values()])
        apart = {each: abs(other["ratings"][each] - centre - row.rating) for each, row in rows.items()}
        noise = {each: apart[each] / (row.high - row.low) * 2 * 1.96 for each, row in rows.items()}
        print(
            f"{name}: ratings differ by at most {max(apart.values()):.2g} Elo points, {max(noise.values()):.2g} errors"
        )
    widths = bootstrap_half_widths(table, options.resamples, 1)
    print("half-widths of 95 % intervals: battles, firsthand, bootstrap, arena-rank")
    for place in np.argsort(table.games)[[0, 1, 2, 5, 20, options.models // 2, -1]]:
        name = table.models[place]
        half = rows[name].high - rows[name].rating
        print(f"{table.games[place]:>9,} {half:7.1f} {widths[place]:7.1f} {rival['half'][name]:7.1f}")


if __name__ == "__main__":
    main()
