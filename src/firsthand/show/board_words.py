"""Formats the findings, caveats and numbers of a board: the same in the terminal, in reports and in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firsthand.stats.score_statistics import finite

if TYPE_CHECKING:
    from firsthand.show.board import Board, Row


def findings(board: Board) -> list[str]:
    """Each agent's difference from the baseline and its cost, a sentence each."""
    first = board.row(board.baseline)
    return [finding(row, first) for row in board.rows if row.versus and first]


def caveats(board: Board) -> list[str]:
    """The limits of the numbers, in a few sentences."""
    versus = [row.versus for row in board.rows if row.versus]
    off = [f"{row.agent} ({share:.0%})" for row in board.rows if (share := board.share(row)) and abs(share - 1) > 0.1]
    spent = f"More than 10% off the budget, by share used: {', '.join(off)}." if off else ""
    tasks = f"{board.tasks} task" + ("s" if board.tasks != 1 else "")
    if not board.metric:
        return ["Nothing was scored."]
    shared = max((row.score.clusters for row in board.rows), default=0)
    wider = [f"Its tasks fall into {shared} clusters, which CIs and tests account for."] if shared else []
    if any("bootstrap" in row.score.method for row in board.rows):
        wider.append(f"{board.metric} is a corpus-level figure, with bootstrap CIs.")
    if errors := sum(row.errors for row in board.rows):
        wider.append(
            f"Errors: {errors} attempts failed or could not be scored. Each counts as 0; one without a verdict of its judge "
            "is left out."
        )
    if not versus:
        return [*wider, f"Brackets are 95% CIs of the true score on tasks like these {tasks}."]
    largest = max((each.detectable for each in versus if finite(each.detectable) is not None), default=1.0)
    lines = [
        *wider,
        f"Minimum detectable effect with {tasks}: {largest:.2f} (80% power)."
        if largest < 1
        else f"Underpowered: with {tasks} no difference is detectable with 80% power; run more.",
    ]
    paired = f"Each agent is compared to the baseline {board.baseline} on the tasks both attempted, with 95% CIs"
    if len(versus) > 1:
        lines.append(f"{paired}. Differences and p-values are Holm-corrected for {len(versus)} comparisons.")
    else:
        lines.append(f"{paired}.")
    return [*lines, *([spent] if spent else [])]


def finding(row: Row, first: Row) -> str:
    """One agent's difference from the baseline and its cost, in a sentence."""
    assert row.versus is not None, "the baseline is not compared to itself"
    found, ratio = row.versus, row.cost.tokens / first.cost.tokens if first.cost.tokens else None
    price = "" if ratio is None else f" for {ratio:.1f}x its tokens"
    scores = f"({value_text(row.score.value)} vs. {value_text(first.score.value)}, {p_text(found.p_value)})"
    if found.verdict == "inconclusive":
        return f"{row.agent}: inconclusive vs. {first.agent} {scores},{price or ' at the same cost'}."
    return f"{row.agent}: {found.verdict} than {first.agent} by {abs(found.difference):.2f} {scores},{price}."


def amount(value: float) -> str:
    """A count in few characters: 7.5, 340, 1.2k, 3.4M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            scaled = value / size
            return f"{scaled:.0f}{unit}" if scaled >= 99.5 else f"{scaled:.1f}{unit}"
    return f"{value:.0f}" if value >= 9.95 or value == round(value) else f"{value:.1f}"


def seconds(value: float) -> str:
    """A duration in few characters: 12 ms, 1.4 s, 3.1 min."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"


def money(value: float) -> str:
    """Dollars in few characters; a dash for none."""
    return "-" if value == 0 else f"${value:.2f}" if value >= 0.1 else f"${value:.2g}"


def span(low: float, high: float, *, signed: bool = False) -> str:
    """An interval in brackets; `unknown` where it is not finite."""
    if finite(low) is None or finite(high) is None:
        return "unknown"
    return f"[{low + 0.0:+.2f}, {high + 0.0:+.2f}]" if signed else f"[{low:.2f}, {high:.2f}]"


def p_text(p_value: float) -> str:
    """A p-value that is never rounded across 0.05."""
    if p_value < 0.001:
        return "p<0.001"
    return f"p={p_value:.3f}" if f"{p_value:.3f}" != "0.050" else f"p={p_value:.6f}"


def value_text(value: float) -> str:
    """A score with two decimals; a dash for none."""
    return "-" if finite(value) is None else f"{value:.2f}"
