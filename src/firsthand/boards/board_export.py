"""Writes a board as HTML, Markdown, JSON or CSV, each number with its origin: protocol, source, run, commit, data hash."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from firsthand.boards.board_results import BoardResult
from firsthand.boards.make_board import BoardLine, BoardSection, MadeBoard
from firsthand.errors import ConfigError
from firsthand.show.html_page import page_html
from firsthand.show.markdown_text import escaped
from firsthand.system.new_file import write_new
from firsthand.system.spreadsheet_cells import plain_cell

ORIGIN = ("protocol", "metric", "n", "error", "when", "verified", "source", "run", "commit", "data_hash")
"""The origin that is given for a number, in CSV and in the pages."""


def rank_text(line: BoardLine) -> str:
    """A rank, or the range of ranks that the data allow."""
    return str(line.rank_low) if line.rank_low == line.rank_high else f"{line.rank_low}-{line.rank_high}"


def score_text(value: float) -> str:
    """A score with three decimals, or none where it counts points."""
    return "-" if math.isnan(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def interval_text(line: BoardLine) -> str:
    """The interval of a score; `unknown` where no error is known."""
    return "unknown" if math.isnan(line.low) else f"[{score_text(line.low)}, {score_text(line.high)}]"


def part_text(name: str, value: float) -> str:
    """A part of a score: counts and ranks as whole numbers, money to the hundredth of a cent."""
    if name in ("n", "Borda rank"):
        return f"{value:,.0f}"
    return f"{value:.4f}" if name == "USD each" else score_text(value)


def part_names(section: BoardSection) -> list[str]:
    """The parts that any line of the section has."""
    return list(dict.fromkeys(name for line in section.lines for name in line.parts))


BOARD_FORMATS = (".html", ".md", ".json", ".csv")


def write_board(board: MadeBoard, path: Path) -> None:
    """Writes the board to a file, in the layout of its suffix; ConfigError for another suffix or a file that cannot be."""
    writers: dict[str, Callable[[MadeBoard], str]] = {
        ".html": board_html,
        ".md": board_markdown,
        ".json": lambda made: json.dumps(made.to_json(), indent=2, ensure_ascii=False) + "\n",
        ".csv": board_csv,
    }
    if path.suffix not in writers:
        raise ConfigError(f"{path} ends in {path.suffix or 'nothing'}: a board is written as {', '.join(writers)}")
    try:
        write_new(path, writers[path.suffix](board), errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None


def board_markdown(board: MadeBoard) -> str:
    """The board as Markdown tables."""
    parts = [f"# {escaped(board.spec.title or board.spec.name)}", ""]
    if board.spec.about:
        parts += [escaped(board.spec.about), ""]
    for section in board.sections:
        if section.title:
            parts += [f"## {escaped(section.title)}", ""]
        names = part_names(section)
        header = ["rank", "model", section.score, f"{board.confidence:.0%} CI", *names]
        parts += [_row(header), _row(["---"] * len(header))]
        for line in section.lines:
            cells = [rank_text(line), line.model, score_text(line.score), interval_text(line)]
            parts.append(_row([*cells, *(part_text(n, line.parts[n]) if n in line.parts else "-" for n in names)]))
        parts.append("")
        if section.unranked:
            parts.append("Not ranked, because results are missing:")
            parts.append("")
            parts += [f"- {escaped(each.model)}: {escaped(', '.join(each.missing))}" for each in section.unranked]
            parts.append("")
    return "\n".join([*parts, *(f"- {escaped(each)}" for each in board.remarks)]).rstrip() + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(map(escaped, cells))} |"


def board_csv(board: MadeBoard) -> str:
    """A row for each number of the board, with its origin; scores of models are the rows of the column `(score)`."""
    out = io.StringIO(newline="")
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["section", "model", "rank_low", "rank_high", "column", "value", "low", "high", *ORIGIN])
    for section in board.sections:
        for line in section.lines:
            ends = ["" if math.isnan(each) else f"{each:.6g}" for each in (line.low, line.high)]
            score = [section.title, line.model, line.rank_low, line.rank_high, "(score)", f"{line.score:.6g}", *ends]
            table.writerow(list(map(plain_cell, score)) + [""] * len(ORIGIN))
        cells = [(each.model, each.cells) for each in section.lines] + [
            (each.model, each.cells) for each in section.unranked
        ]
        for model, results in cells:
            for name, result in results.items():
                start = [section.title, model, "", "", name, f"{result.value:.6g}", "", ""]
                table.writerow(list(map(plain_cell, [*start, *(getattr(result, key) for key in ORIGIN)])))
    return out.getvalue()


def board_html(board: MadeBoard) -> str:
    """The board as one page without scripts or requests; each number opens to its origin."""
    sections = []
    for section in board.sections:
        names = part_names(section)
        lines = [
            {
                "rank": rank_text(line),
                "model": line.model,
                "score": score_text(line.score),
                "interval": interval_text(line),
                "parts": [part_text(name, line.parts[name]) if name in line.parts else "–" for name in names],
                "cells": _origins(line.cells),
            }
            for line in section.lines
        ]
        missing = [
            {"model": each.model, "missing": ", ".join(each.missing), "cells": _origins(each.cells)}
            for each in section.unranked
        ]
        sections.append(
            {"title": section.title, "score": section.score, "parts": names, "lines": lines, "missing": missing}
        )
    return page_html(
        "ranking",
        title=board.spec.title or board.spec.name,
        about=board.spec.about,
        confidence=f"{board.confidence:.0%}",
        sections=sections,
        remarks=list(board.remarks),
    )


def _origins(cells: Mapping[str, BoardResult]) -> list[dict[str, object]]:
    return [
        {"column": name, "value": score_text(each.value), "origin": {key: getattr(each, key) for key in ORIGIN}}
        for name, each in cells.items()
    ]
