"""Markdown rows of runs in worlds: `python bench/world_rows.py RUN ...` (ids, beginnings of ids, or folders).

A row is one agent in one world: the score with its 95% interval, tokens and rounds of an attempt, the share of actions that
were invalid, and why attempts below 1 ended. An attempt with an error counts as 0.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence

from firsthand.runs import store
from firsthand.stats.intervals import mean_interval
from firsthand.system.home import data_home
from firsthand.trace import Trace


def row(world: str, agent: str, traces: Sequence[Trace]) -> str:
    """One line of the table."""
    found = mean_interval([trace.value() or 0.0 for trace in traces])
    states = [trace.final_state for trace in traces]
    rounds = sum(state.get("rounds", 0) for state in states)
    invalid = sum(state.get("invalid_actions", 0) for state in states)
    tokens = sum(trace.usage.total_tokens for trace in traces)
    reasons: Counter[str] = Counter()
    for trace in traces:
        if trace.error is not None:
            reasons["error"] += 1
        elif trace.scores and "reason" in trace.scores[0].detail:
            reasons[str(trace.scores[0].detail["reason"])] += 1
    why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()) or "-"
    return (
        f"| `{world}` | {agent} | {len(traces)} | {found.value:.2f} [{found.low:.2f}, {found.high:.2f}] "
        f"| {tokens / len(traces):,.0f} | {rounds / len(traces):.1f} | {invalid / max(rounds, 1):.0%} | {why} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    print("| world | agent | tasks | score [95%] | tokens | rounds | invalid | why below 1 |")
    print("|" + "---|" * 8)
    for name in parser.parse_args().runs:
        with store.open_run(name, data_home()) as run:
            groups: dict[tuple[str, str], list[Trace]] = defaultdict(list)
            for each in run.traces():
                groups[each.benchmark, str(each.agent.get("name"))].append(each)
        for (world, agent), traces in groups.items():
            print(row(world, agent, traces))
