"""Writes the outcomes of a run of claims as one HTML page, and as Markdown with its plots as SVG files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from firsthand.claims.claim import KINDS, POINTS, SECTIONS, Measurement
from firsthand.claims.claim_run import Outcome
from firsthand.claims.claim_text import amount, number
from firsthand.runs.run_folder import Run
from firsthand.show.html_page import page_html
from firsthand.show.line_plot import LinePlot, line_plot, plot_svg
from firsthand.show.markdown_text import escaped
from firsthand.system.new_file import write_new

MAX_ROWS = 40
"""Rows of a table that the page shows."""


def write_html(path: Path, outcomes: Sequence[Outcome], run: Run) -> None:
    """The page in one file, which asks the network for nothing."""
    sections = [
        (title, [_entry(each) for each in outcomes if each.claim.section == section])
        for section, title in SECTIONS.items()
    ]
    text = page_html(
        "claims",
        title="The reading list, tested here",
        facts=_facts(run),
        counts=_counts(outcomes),
        kinds=list(KINDS.items()),
        sections=[(title, entries) for title, entries in sections if entries],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_new(path, text)


def write_markdown(path: Path, outcomes: Sequence[Outcome], run: Run) -> None:
    """The same as Markdown; the plot of claim NAME is `STEM-plots/NAME.svg` beside it."""
    folder = path.with_name(f"{path.stem}-plots")
    lines = ["# The reading list, measured", ""]
    lines += [f"{name}: {escaped(text)}  " for name, text in _facts(run)]
    lines += ["", "; ".join(f"{count} {word}" for word, count in _counts(outcomes)) + ".", ""]
    for section, title in SECTIONS.items():
        own = [each for each in outcomes if each.claim.section == section]
        if not own:
            continue
        lines += [f"## {title}", "", "| claim | kind | measured | verdict |", "|---|---|---|---|"]
        lines += [
            f"| [{each.claim.name}](#{each.claim.name}) | {each.claim.claim.kind} | {_short(each)} | "
            f"{each.verdict.word} |"
            for each in own
        ]
        for each in own:
            lines += _markdown_entry(each, folder)
        lines.append("")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_new(path, "\n".join(lines).rstrip() + "\n")


def _markdown_entry(outcome: Outcome, folder: Path) -> list[str]:
    about, measurement = outcome.claim.claim, outcome.measurement
    lines = ["", f"### {outcome.claim.name}", "", f"> {about.quote}", "", f"Source: {about.source}. "]
    if measurement is not None:
        lines[-1] += f"Measured ({about.kind}): {escaped(measurement.what)}: **{escaped(amount(measurement))}**. "
        if measurement.rows:
            lines += [
                "",
                "| " + " | ".join(map(_cell, measurement.columns)) + " |",
                "|---" * len(measurement.columns) + "|",
            ]
            lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in measurement.rows[:MAX_ROWS]]
        if (picture := line_plot(measurement.curves, measurement.axes)) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            write_new(folder / f"{outcome.claim.name}.svg", plot_svg(picture))
            lines += [
                "",
                f"![{escaped(' by '.join(measurement.axes[::-1]))}]({escaped(folder.name)}/{outcome.claim.name}.svg)",
            ]
    return [*lines, "", f"**{outcome.verdict.word.capitalize()}.** {escaped(outcome.verdict.why)}"]


def _entry(outcome: Outcome) -> dict[str, object]:
    about, measurement = outcome.claim.claim, outcome.measurement
    return {
        "name": outcome.claim.name,
        "quote": about.quote,
        "source": about.source,
        "kind": about.kind,
        "word": outcome.verdict.word,
        "mark": outcome.verdict.word.replace(" ", "-"),
        "why": outcome.verdict.why,
        "measured": "" if measurement is None else f"{measurement.what}: {amount(measurement)}",
        "columns": () if measurement is None else measurement.columns,
        "rows": [[_plain(cell) for cell in row] for row in ((measurement and measurement.rows) or ())[:MAX_ROWS]],
        "plot": _plot(measurement),
    }


def _plot(measurement: Measurement | None) -> LinePlot | None:
    return None if measurement is None else line_plot(measurement.curves, measurement.axes)


def _facts(run: Run) -> list[tuple[str, str]]:
    machine = run.about.get("machine", {})
    return [
        ("run", f"{run.id}, firsthand {run.about.get('firsthand', '?')}, seed {run.config.get('seed', 0)}"),
        ("machine", f"{machine.get('system', '?')}, {machine.get('cores', '?')} cores"),
    ]


def _counts(outcomes: Sequence[Outcome]) -> list[tuple[str, int]]:
    counts = Counter(each.verdict.word for each in outcomes)
    return [(word, counts[word]) for word in POINTS if counts[word]]


def _short(outcome: Outcome) -> str:
    return "-" if outcome.measurement is None else _cell(amount(outcome.measurement))


def _cell(value: str | float | None) -> str:
    return escaped(_plain(value))


def _plain(value: str | float | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else number(value)
