"""Prints the boards of results: their tables, the origin of each number, and the climb by date."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError
from firsthand.system.home import data_home
from firsthand.system.new_file import write_new
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, print_prose, print_table

if TYPE_CHECKING:
    from firsthand.boards.cross_reference import CrossReference
    from firsthand.boards.make_board import MadeBoard

MOST_PARTS = 8
"""Columns beside the score that the terminal shows; files have all."""
MOST_ROWS = 10_000
"""Rows of all tables that the terminal shows, by whole tables; files have all."""
MOST_MISSING = 12
LOOK_S = 1.0
"""Seconds between two looks at a run that is under way."""


def print_board(board: MadeBoard) -> None:
    """Print each table of the board, the models without a rank, and the remarks."""
    from firsthand.boards.board_export import interval_text, part_names, part_text, rank_text, score_text

    level = f"{board.confidence:.0%}"
    out = console()
    rows = 0
    for at, section in enumerate(board.sections):
        rows += len(section.lines)
        if at and rows > MOST_ROWS:
            further = count_of(len(board.sections) - at, "more table")
            out.print(f"Not shown: {further}. --export board.html or .csv has all.", markup=False)
            break
        names = part_names(section)
        shown = names if len(names) <= MOST_PARTS else []
        name = board.spec.title or (board.spec.name if board.spec.rule != "each" else "")
        title = ": ".join(each for each in (name, section.title) if each)
        print_table(
            title,
            ["rank", "model", section.score, f"{level} CI", *shown],
            [
                [
                    rank_text(line),
                    line.model,
                    score_text(line.score),
                    interval_text(line),
                    *(part_text(name, line.parts[name]) if name in line.parts else "-" for name in shown),
                ]
                for line in section.lines
            ],
            right=("rank", section.score, *shown),
        )
        if section.unranked:
            out.print("Not ranked, because results are missing (nothing is put in their place):", markup=False)
            for each in section.unranked[:MOST_MISSING]:
                few = ", ".join(each.missing[:4]) + (
                    f" and {len(each.missing) - 4} more" if len(each.missing) > 4 else ""
                )
                out.print(f"  {each.model} lacks {few}", soft_wrap=True, markup=False)
            if left := len(section.unranked) - MOST_MISSING:
                out.print(f"  and {count_of(left, 'more model')}" if left > 0 else "", markup=False)
        if len(names) > MOST_PARTS:
            out.print(f"{len(names)} columns are not shown: --export board.html or .csv has them.", markup=False)
    remarks = [f"Ranks hold together at {level} in each table: models that share a rank cannot be told apart."]
    print_prose("\n".join([*remarks, *board.remarks]))


def print_origins(board: MadeBoard) -> None:
    """Print where each number of the board comes from."""
    from firsthand.boards.board_export import score_text

    rows = []
    for section in board.sections:
        cells = [(each.model, each.cells) for each in section.lines] + [
            (each.model, each.cells) for each in section.unranked
        ]
        for model, results in cells:
            for name, result in results.items():
                origin = result.run or result.source
                told = "verified" if result.verified else "reported"
                about = [model, name, score_text(result.value), told, result.protocol or "not stated", origin]
                rows.append([*about, result.commit[:12], result.data_hash])
    print_table("origins", ["model", "benchmark", "value", "status", "protocol", "run or file", "commit", "data"], rows)


def print_cross_reference(found: CrossReference) -> None:
    """Print the scores that are out of line with the model's other benchmarks, or the nearest to it if none is."""
    shown = found.flagged or found.scores[:3]
    rows = [
        [
            each.model,
            each.benchmark,
            f"{each.score:.3f}",
            f"{each.expected:.3f}",
            f"[{each.low:.3f}, {each.high:.3f}]",
            f"{each.z:+.1f}",
            "-" if found.heavy_tailed else f"{each.p_value:.3f}",
        ]
        for each in shown[:MOST_MISSING]
    ]
    heads = ["model", "benchmark", "score", "expected", "range", "z", "p corrected"]
    print_table("cross-reference", heads, rows, right=("score", "expected", "z", "p corrected"))
    out = console()
    judged = count_of(len(found.scores), "score")
    if not found.flagged:
        out.print(f"None of {judged} is out of line with its model's other benchmarks.", markup=False, soft_wrap=True)
    else:
        more = len(found.flagged) - len(rows)
        left = f"; {more} more are in --json" if more else ""
        out.print(f"{len(found.flagged)} of {judged} out of line{left}.", markup=False, soft_wrap=True)
    told = "Expected from the model's other benchmarks; the range holds all scores of a table without outliers at "
    told += f"{1 - found.alpha:.0%}, by {found.tables} simulated tables for each kind of deviation: "
    told += f"{', '.join(found.deviations)}. "
    if found.heavy_tailed:
        told = "Expected from the model's other benchmarks. The deviations have heavier tails than Student's t with 5 "
        told += "degrees of freedom, so no rate of false alarms is claimed: read the range as a sorting aid. "
    told += "A score out of line may be a leak, another protocol, "
    out.print(told + "a special skill or a mistake.", markup=False, soft_wrap=True)
    if found.left_out:
        names = ", ".join(found.left_out[:6]) + (
            f" and {len(found.left_out) - 6} more" if len(found.left_out) > 6 else ""
        )
        out.print(f"Too few results to judge: {names}.", markup=False, soft_wrap=True)


def print_climbs(board: MadeBoard, path: Path | None) -> None:
    """Print the steps of the best score by date, and plot them if a path is given; only a board of one table is plotted."""
    from firsthand.boards.climb import climb_svg, climbs

    found = climbs(board)
    for climb in found:
        rows = [[each.when[:10], each.model, f"{each.score:.4g}", f"{each.gain:+.4g}"] for each in climb.steps]
        print_table(
            f"climb: {climb.title}", ["date", "model", "best score", "gain"], rows, right=("best score", "gain")
        )
        if climb.undated:
            console().print(f"{count_of(climb.undated, 'model')} without a date left out.", markup=False)
    if path is None:
        return
    if path.suffix != ".svg":
        raise ConfigError(f"climb is {str(path)!r}: give a file name that ends in .svg")
    if len(found) > 1:
        raise ConfigError(f"the board has {len(found)} tables: plot one, by a definition that lists one benchmark")
    try:
        write_new(path, climb_svg(found[0]))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None


def follow(sources: tuple[str, ...], make: Callable[[], MadeBoard]) -> None:
    """Print the board, and again whenever a run among the sources has grown, until none is running."""
    from firsthand.runs import store

    runs = [each for each in sources if not Path(each).exists() or (Path(each) / "run.sqlite").exists()]
    seen: list[tuple[int, str]] = []
    while True:
        now = []
        for each in runs:
            with store.open_run(each, data_home()) as run:
                info = run.info
                now.append((info.num_traces, info.status))
        if (now != seen or not runs) and (len(runs) < len(sources) or any(count for count, _ in now)):
            print_board(make())
        elif now != seen and any(status == "running" for _, status in now):
            console().print("No attempt is finished yet: the board follows.", markup=False)
        seen = now
        if not any(status == "running" for _, status in now):
            return
        time.sleep(LOOK_S)
