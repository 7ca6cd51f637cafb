"""Reads the results of files, folders and runs, whatever tool wrote them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from firsthand.benchmark import Figure
from firsthand.benchmarks.sources.datasets import MAX_BYTES, contents
from firsthand.benchmarks.sources.tables import SUFFIXES, TableRow, decoded, expect_values, parse_table, read_table
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet, expect_cells
from firsthand.boards.grading_sheets import is_grading, read_sheets
from firsthand.boards.result_file import RESULT_FILE, read_result_file
from firsthand.boards.result_formats import (
    code_reports,
    every_eval_results,
    helm_results,
    inspect_logs,
    lm_eval_results,
    mteb_results,
    swe_leaderboards,
)
from firsthand.boards.result_formats import rubric_grades as grades
from firsthand.boards.result_formats import score_tables as tables
from firsthand.boards.result_tally import ResultTally
from firsthand.boards.task_sets import Problems, TaskSets, problems_of, tasks_hash
from firsthand.errors import ConfigError, DataError
from firsthand.runs import store
from firsthand.runs.epoch_reducer import reduced_name
from firsthand.runs.retried_attempts import retried_text
from firsthand.runs.run_folder import Run
from firsthand.runs.scored_alike import other_scorers
from firsthand.stats.agent_scores import task_values
from firsthand.stats.figure_stats import figure_interval, figure_value
from firsthand.stats.intervals import Clusters
from firsthand.stats.stored_figures import first_score, names_of_figures, own_figures, stored_figures
from firsthand.stats.task_scores import harm_benchmarks, reduced_benchmarks, unstated_directions
from firsthand.system.given_folder import files_below, leads_out
from firsthand.system.packed_text import unpacked_gzip

Found = BoardResult | ItemScores
MAX_FILES = 20_000
_SIDE_FILES = ("model_meta.json", "run_spec.json", "stats.json", "per_instance_stats.json", "scenario.json")


def read_results(sources: Iterable[str | Path], home: Path) -> ResultSet:
    """The results of all sources together.

    Args:
        sources: Files and folders of results in any known layout, or runs by id (or `last`).
        home: The data home that holds the runs.

    Raises:
        ConfigError: A source that is neither a file nor a run.
        DataError: A file that is in no known layout, or is broken; the message names file and line.
    """
    results: list[BoardResult] = []
    items: list[ItemScores] = []
    remarks: list[str] = []
    tally, sets = ResultTally(), TaskSets()
    runs: list[str | Path] = []
    for source in sources:
        path = Path(source)
        found = _of_path(path, remarks, tally) if path.exists() and not (path / "run.sqlite").exists() else None
        if found is None:
            runs.append(source)
            with store.open_run(source, home) as run:
                problems = problems_of(run)
                made = run_results(run, remarks.append, problems)
                placed = (sets.place(each, str(run.path), run.id, problems) for each in made)
                counted = list(tally.counted(placed))
        else:
            counted = [sets.place_read(each, str(path)) for each in found]
        for each in counted:
            (items if isinstance(each, ItemScores) else results).append(each)  # type: ignore[arg-type]
    return ResultSet.of(results, items, remarks + sets.remarks + _scorer_remarks(runs, home))


def _scorer_remarks(sources: Sequence[str | Path], home: Path) -> list[str]:
    """A sentence for each score that a run does not have from the scorer of the first run with attempts at its benchmark."""
    remarks: dict[str, None] = {}
    first: dict[str, str | Path] = {}
    for source in sources:
        with store.open_run(source, home) as run:
            for benchmark in dict.fromkeys(name for name, _ in run.pairs()):
                if (base := first.setdefault(benchmark, source)) == source:
                    continue
                with store.open_run(base, home) as other:
                    score = first_score(benchmark, run)
                    is_one = score and score == first_score(benchmark, other)
                    found = other_scorers(other, run, [(benchmark, score)] if is_one else [])
                remarks |= dict.fromkeys(f"{each}: {other.id} and {run.id}." for each in found)
    return list(remarks)


def run_results(run: Run, tell: Callable[[str], None], problems: Problems | None = None) -> Iterator[Found]:
    """The first scores of each benchmark of a run, by task: each agent's epochs reduced as in the run; an error counts as 0,
    or, of a score of harm, is left out. A reducer of epochs is part of the metric's name (`reduced_name`).

    A figure of that name, such as BLEU of a corpus, stands in place of the mean, as in the run's own table. `tell` receives
    a sentence for figures that cannot be computed; the means then have another metric's name. `problems` are the run's
    (`problems_of`), for the hash of its tasks.
    """
    commit, protocols, clusters = str(run.about.get("commit") or ""), run.protocols, run.clusters()
    problems = problems_of(run) if problems is None else problems
    by_benchmark: dict[str, dict[str, dict[str, float]]] = {}
    for (benchmark, agent), scores in task_values(run).items():
        by_benchmark.setdefault(benchmark, {})[agent] = scores
    costs = {(each.benchmark, each.agent): each for each in run.totals()}
    own_of, harms = own_figures(tell, run), harm_benchmarks(run)
    for text in unstated_directions(run):
        tell(text)
    retried = run.retried()
    for benchmark, agents in by_benchmark.items():
        again = {agent: count for (name, agent), count in retried.items() if name == benchmark and agent in agents}
        if text := retried_text(again):
            tell(f"{benchmark}, {run.id}: {text}")
    repeats, epochs = _repeats(run, harms), run.epochs()
    for benchmark, agents in by_benchmark.items():
        score = first_score(benchmark, run)
        if not score and not any(agents.values()):
            tell(f"Nothing was scored on {benchmark}.")
            continue
        figures = stored_figures({agent: (run, agent) for agent in agents}, benchmark, own_of).get(score)
        unknown = figures is None and benchmark not in own_of and benchmark in names_of_figures(run)
        named = score if figures is not None else reduced_name(score, run.reducer(benchmark), epochs.get(benchmark, 1))
        metric = f"{named}, mean of tasks" if unknown else named
        key = ColumnKey(benchmark, protocols.get(benchmark, ""), metric)
        table = ItemScores.of(key, agents)
        tasks = table.tasks
        about = BoardResult(
            "",
            benchmark,
            0.0,
            when=run.created_at[:19] + "+00:00" if run.created_at else "",
            source=str(run.path),
            run=run.id,
            commit=commit,
            data_hash=tasks_hash(tasks, problems.get(benchmark, {})),
            lower_is_better=benchmark in harms,
            of_run=True,
        )
        groups = clusters.get(benchmark) or {}
        own = tuple(groups.get(task, task) for task in tasks) if groups else ()
        digests = tuple(problems.get(benchmark, {}).get(task, "") for task in tasks)
        for i, agent in enumerate(agents):
            total = costs.get((benchmark, agent))
            spent = None if total is None else (total.cost_usd / total.attempts, total.seconds / total.attempts)
            priced = about if spent is None else _priced(about, *spent)
            told = replace(priced, repeats=repeats.get((benchmark, agent), 1))
            if figures is None and agents[agent]:
                yield ItemScores(key, (agent,), tasks, table.scores[i : i + 1], own, (told,), digests)
            elif figures is None or not math.isfinite(figure_value(figures[agent])):
                tell(f"{agent} has no {score} on {benchmark}: it has no value for the tasks that were answered.")
            else:
                yield _of_figure(key, agent, figures[agent], clusters.get(benchmark), priced)


def _repeats(run: Run, harms: Collection[str]) -> dict[tuple[str, str], int]:
    """Benchmark and agent -> attempts at each task, where all have equally many, of 0 or 1, and the score is their mean."""
    found: dict[tuple[str, str], set[int]] = {}
    reduced = reduced_benchmarks(run)
    for each in run.task_means():
        counted = each.scored if each.benchmark in harms else each.counted
        if counted:
            is_plain = each.binary and each.benchmark not in reduced
            found.setdefault((each.benchmark, each.agent), set()).add(counted if is_plain else 1)
    return {pair: counts.pop() for pair, counts in found.items() if len(counts) == 1}


def _of_figure(
    key: ColumnKey, agent: str, figure: Figure, clusters: Clusters | None, about: BoardResult
) -> BoardResult:
    """A figure as a number with its bootstrap's error, for no scores of items have it as their mean."""
    found = figure_interval(figure, clusters)
    is_known = math.isfinite(found.error)  # else it is not that of a share of so many items either
    return replace(
        about,
        model=agent,
        protocol=key.protocol,
        metric=key.metric,
        value=found.value,
        error=found.error if is_known and found.error > 0 else None,
        n=len({*figure.tasks}) if is_known else 0,
        lower_is_better=figure.lower_is_better,
        verified=True,
    )


def _priced(about: BoardResult, usd: float, seconds: float) -> BoardResult:
    return BoardResult(**vars(about) | {"cost_usd": usd if usd else None, "seconds": seconds})


def _of_path(path: Path, remarks: list[str], tally: ResultTally, most: int = MAX_FILES) -> Iterator[Found]:
    """The results of a file, or of all files of a folder, each counted."""
    if path.is_file():
        yield from tally.counted(_of_file(path, remarks))
        return
    if is_grading(path):
        graded = read_sheets(path)
        remarks += graded.remarks
        yield from tally.counted([graded.items])
        return
    every = files_below(path)
    files = [each for each in every if each.name not in _SIDE_FILES]
    runs = helm_results.helm_runs(every)
    if len(files) > most:
        raise ConfigError(f"{path} holds {len(files):,} files: give a folder of results, with at most {most:,}")
    side = helm_results.side_files(runs, files)
    known = [each for each in files if _suffix(each) in (*SUFFIXES, ".eval", RESULT_FILE) and each not in side]
    if not known and not runs:
        raise DataError(f"{path} holds no file of results: {', '.join(SUFFIXES)} or .eval was expected")
    for folder in runs:
        spec, stats = _json(folder / "run_spec.json"), _json(folder / "stats.json")
        found = helm_results.helm_run_results(spec, stats, str(folder))
        yield from tally.counted(_well_formed(found, folder))
    for each in known:
        try:
            yield from tally.counted(_of_file(each, remarks))
        except DataError as error:
            remarks.append(f"Left out: {error}.")


def _suffix(path: Path) -> str:
    return Path(path.stem if _is_packed(path) else path.name).suffix.lower()


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _of_file(path: Path, remarks: list[str]) -> Iterator[Found]:
    suffix = _suffix(path)
    if suffix == RESULT_FILE:
        yield from read_result_file(path)
        return
    if suffix == ".eval":
        archive = inspect_logs.read_archive(contents(path), str(path))
        yield from _well_formed(inspect_logs.inspect_results(archive, str(path), remarks), path)
        return
    if suffix == ".json":
        body: Any = _json(path)
        if not isinstance(body, list) or (body and helm_results.helm_tables(body)):
            yield from _well_formed(_of_json(body, path, remarks), path)
            return
    if suffix not in SUFFIXES:
        raise ConfigError(
            f"{path} is no table of votes: give a file {', '.join(SUFFIXES)}, another tool's file of results, or a run"
        )
    rows = _rows(path)
    columns = rows[0].columns
    expect_cells(len(rows), len(columns), f"{path} has {len(rows):,} rows and {len(columns):,} columns")
    if grades.is_grades(columns):
        graded = grades.graded_answers(rows, path)
        remarks += graded.remarks
        yield graded.items
    elif tables.is_open_llm(columns):
        yield from tables.open_llm_rows(rows, path)
    elif tables.is_long(columns):
        yield from tables.long_rows(rows, path)
    elif tables.is_item_table(columns):
        yield from tables.item_rows(rows, path)
    elif tables.is_wide(columns):
        yield from tables.wide_rows(rows, path, remarks)
    else:
        raise DataError(
            f"{path} holds no results: it has the columns {', '.join(map(str, columns))[:200]}; model, benchmark and score, "
            "or model and a column for each benchmark, were expected"
        )


def _of_json(body: Any, path: Path, remarks: list[str]) -> Iterator[Found]:
    where = str(path)
    if lm_eval_results.is_lm_eval(body):
        yield from lm_eval_results.lm_eval_results(body, where)
    elif inspect_logs.is_inspect(body):
        yield from inspect_logs.inspect_results(body, where, remarks)
    elif tables_of_helm := helm_results.helm_tables(body):
        for each in tables_of_helm:
            yield from helm_results.helm_table_results(each, where)
    elif mteb_results.is_mteb(body):
        meta = path.parent / "model_meta.json"
        yield from mteb_results.mteb_results(
            body, path, _json(meta) if meta.is_file() and not leads_out(meta, meta.parent) else {}
        )
    elif code_reports.is_swe_report(body):
        yield from code_reports.swe_results(body, path)
    elif swe_leaderboards.is_swe_leaderboards(body):
        yield from swe_leaderboards.swe_leaderboard_results(body, where, remarks)
    elif swe_leaderboards.is_swe_instances(body):
        yield from swe_leaderboards.swe_instance_results(body, where)
    elif code_reports.is_evalplus(body):
        yield from code_reports.evalplus_results(body, path)
    elif every_eval_results.is_every_eval(body):
        yield from every_eval_results.every_eval_results(body, where)
    elif code_reports.is_evalplus_board(body):
        yield from code_reports.evalplus_board_results(body, where)
    elif code_reports.is_bigcode(body):
        yield from code_reports.bigcode_results(body, where)
    else:
        known = "lm-evaluation-harness, Inspect, HELM, MTEB, SWE-bench, EvalPlus, bigcode-evaluation-harness"
        raise DataError(f"{path} is in no known layout of results: a file of {known} or Every Eval Ever was expected")


def _well_formed(found: Iterator[Found], path: Path) -> Iterator[Found]:
    """The results of another tool's file; DataError where the file turns out to be of another form."""
    try:
        yield from found
    except (AttributeError, TypeError, KeyError, IndexError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path} begins as a file of results and is malformed ({type(error).__name__}: {error})"
        ) from None


def _json(path: Path) -> Any:
    text = decoded(_raw(path), path)
    expect_values(text, str(path))
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not JSON (is the file cut short?)") from None


def _raw(path: Path, most: int = MAX_BYTES) -> bytes:
    """The file's bytes, unpacked if it is a .gz file; DataError if that gives more than a plain file may have."""
    raw = contents(path)
    return unpacked_gzip(raw, path, most) if _is_packed(path) else raw


def _rows(path: Path) -> list[TableRow]:
    return parse_table(decoded(_raw(path), path), path, _suffix(path)) if _is_packed(path) else read_table(path)
