"""Formats the numbers of a board: the same in the terminal, in reports and in JSON."""

from __future__ import annotations

from collections.abc import Mapping

from firsthand.stats.figure_stats import NO_INTERVAL
from firsthand.stats.score_statistics import Interval, finite
from firsthand.system.plurals import count_of


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


def figure_text(name: str, figure: Interval) -> str:
    """A figure by name, with its interval if it has one."""
    bounds = "" if figure.method == NO_INTERVAL else f" {span(figure.low, figure.high)}"
    return f"{name} {value_text(figure.value)}{bounds}"


def p_text(p_value: float) -> str:
    """A p-value that is never rounded across 0.05."""
    if p_value < 0.001:
        return "p<0.001"
    return f"p={p_value:.3f}" if f"{p_value:.3f}" != "0.050" else f"p={p_value:.6f}"


def value_text(value: float) -> str:
    """A score with two decimals; a dash for none."""
    return "-" if finite(value) is None else f"{value:.2f}"


def error_notes(errors: int, metric: str, left_out: Mapping[str, int], *, is_figure: bool) -> list[str]:
    """A sentence on the attempts that failed and what they count as, if there are any; `left_out` are tasks by agent."""
    if not errors:
        return []
    lacking = [f"{count_of(count, 'task')} of {agent}" for agent, count in left_out.items()]
    counted = (
        f"{metric} leaves out {', '.join(lacking)}, and each counts as 0 in a mean"
        if lacking
        else "Each counts as 0 in a mean, and in a figure as an empty answer or not at all"
        if is_figure
        else "Each counts as 0"
    )
    failed = f"Errors: {count_of(errors, 'attempt')} failed or could not be scored."
    return [f"{failed} {counted}; one without a verdict of its judge is left out."]
