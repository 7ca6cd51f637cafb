"""Markdown rows of runs in worlds: `python bench/world_rows.py RUN ...` (ids, beginnings of ids, or folders).

A row is one agent in one world: the score with its 95% interval, tokens and rounds of an attempt, the share of actions that
were invalid, and why attempts below 1 ended. An attempt with an error counts as 0.

    --together   one row for each model and pattern, over all the runs and worlds
    --matrix     one row for each world and model: score, rounds, invalid actions and the reason for each pattern
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from firsthand.runs import store
from firsthand.stats.intervals import mean_interval
from firsthand.system.home import data_home
from firsthand.trace import Trace
from firsthand.worlds.outcomes import reason_of


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
        elif (trace.value() or 0.0) < 1:
            reasons[reason_of(trace)] += 1
    why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()) or "-"
    return (
        f"| `{world}` | {agent} | {len(traces)} | {found.value:.2f} [{found.low:.2f}, {found.high:.2f}] "
        f"| {tokens / len(traces):,.0f} | {rounds / len(traces):.1f} | {invalid / max(rounds, 1):.0%} | {why} |"
    )


def cell(traces: Sequence[Trace]) -> str:
    """One pattern in one world: the mean score, rounds, how many actions were invalid, and the reasons."""
    rounds = sum(trace.final_state.get("rounds", 0) for trace in traces)
    invalid = sum(trace.final_state.get("invalid_actions", 0) for trace in traces)
    mean = sum(trace.value() or 0.0 for trace in traces) / len(traces)
    why = Counter("error" if each.error else "won" if each.value() == 1 else reason_of(each) for each in traces)
    acts = f"{rounds} ({invalid} invalid)" if rounds else "0"
    return f"{mean:.2f}; {acts}; {', '.join(why)}"


def matrix(traces: Sequence[Trace]) -> list[str]:
    """The lines of the matrix."""
    patterns = list(dict.fromkeys(pattern_of(each) for each in traces))
    found: dict[tuple[str, str], dict[str, list[Trace]]] = defaultdict(lambda: defaultdict(list))
    for each in traces:
        found[each.task_id.partition("/")[0], model_of(each)][pattern_of(each)].append(each)
    head = ["world", "model", *(f"`{each}`" for each in patterns)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for (world, model), by in sorted(found.items()):
        cells = [cell(by[each]) if each in by else "-" for each in patterns]
        lines.append(f"| {' | '.join([f'`{world}`', model, *cells])} |")
    return lines


def pattern_of(trace: Trace) -> str:
    """The pattern with its options."""
    return str(trace.agent.get("name"))


def model_of(trace: Trace) -> str:
    """The model's short name."""
    return Path(str(trace.agent.get("model"))).stem


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--matrix", action="store_true")
    given = parser.parse_args()
    traces: list[Trace] = []
    for name in given.runs:
        with store.open_run(name, data_home()) as run:
            traces += run.traces()
    if given.matrix:
        print("\n".join(matrix(traces)))
    else:
        print("| world | agent | tasks | score [95%] | tokens | rounds | invalid | why below 1 |")
        print("|" + "---|" * 8)
        groups: dict[tuple[str, str], list[Trace]] = defaultdict(list)
        for each in traces:
            key = (
                (model_of(each), pattern_of(each)) if given.together else (each.benchmark, str(each.agent.get("name")))
            )
            groups[key].append(each)
        for (world, agent), found in groups.items():
            print(row(world, agent, found))
