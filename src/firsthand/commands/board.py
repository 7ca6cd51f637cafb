"""Print a leaderboard of votes, runs, or other tools' results; models that cannot be told apart share their ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from firsthand.config import confidence
from firsthand.errors import ConfigError, UnknownName, nearest
from firsthand.system.home import data_home

if TYPE_CHECKING:
    from firsthand.arena.vote_files import VoteFile
    from firsthand.boards.board_results import ResultSet
    from firsthand.boards.board_spec import BoardSpec
    from firsthand.boards.cross_reference import CrossReference
    from firsthand.boards.make_board import MadeBoard

EXAMPLES = """
firsthand board last                                         # an arena's ratings, or a run's benchmarks
firsthand board last --watch                                 # again after each vote, in a second terminal
firsthand board votes.csv --style length,headers,lists,bold --where language=English
firsthand board votes.csv --method davidson --anchor gpt-4=1200 --json
firsthand board mteb results/                                # Borda ranks over the tasks of MTEB's result files
firsthand board helm groups/core_scenarios.json              # mean win rates
firsthand board swe_bench reports/ --export board.html
firsthand board seal last --grade grading --graders ann,ben,cy --criteria correct,clear  # sheets for expert graders
firsthand board seal grading --adjudicator dee               # a sheet of the answers that they disagree on
firsthand board our_board.toml --climb climb.svg             # a board of your own; the best score by date
firsthand board scores.csv --cross-reference                 # scores out of line with a model's other benchmarks
firsthand board composite results.csv RUN --save all.results # keep what was read in one file
"""


@dataclass(frozen=True)
class Config:
    """The results or votes to rank, and how."""

    sources: tuple[str, ...] = field(metadata={"positional": True})
    """A board (`firsthand list boards`, or a .toml file), then files, folders and runs; votes need no board."""
    method: Literal["bradley-terry", "davidson", "rao-kupper"] = "bradley-terry"
    """For votes: the model of outcomes; bradley-terry counts a tie as half a win, the other two model ties."""
    style: tuple[str, ...] = ()
    """For votes: covariates to hold equal: length, headers, lists, bold."""
    where: tuple[str, ...] = ()
    """For votes: columns and the values to keep, such as language=English."""
    anchor: str = ""
    """For votes: a model and its rating, such as gpt-4=1200; without, the mean is 1000."""
    checks: bool = False
    """For votes: name the voters who favour a model beyond chance, and leave their votes out."""
    cap: int = 0
    """For votes: with --checks, count at most this many votes of each voter; 0 counts all."""
    stuffing: str = ""
    """For votes: simulate how many forged votes would move this model up a rank, with and without the checks."""
    write_votes: str = ""
    """For an arena's run: write its votes in Chatbot Arena's layout to this .csv or .jsonl file."""
    protocol: tuple[str, ...] = ()
    """The protocol that counts where a benchmark has several, as in gsm8k=*5-shot*."""
    metric: tuple[str, ...] = ()
    """The metric that counts where a benchmark has several, as in arc_challenge=acc_norm."""
    models: tuple[str, ...] = ()
    """Only these models, as texts that may have * in them."""
    origins: bool = False
    """Print where each number comes from: protocol, run or file, commit, data hash."""
    export: tuple[str, ...] = ()
    """Write the board to files: .html, .md, .json or .csv."""
    climb: str | None = field(default=None, metadata={"bare": "-"})
    """Print the best score by date; with a file name ending in .svg, plot it."""
    cross_reference: bool = False
    """Show the scores that are out of line with the same model's other benchmarks."""
    save: str = ""
    """Write all results that were read to one file, NAME.results, which a later board reads at once."""
    watch: bool = False
    """Print the board again whenever a run among the sources has new attempts or votes, until all are done."""
    grade: str = ""
    """Write blind grading sheets of a run's answers to this new folder, one for each of --graders."""
    graders: tuple[str, ...] = ()
    """For --grade: the people who grade; each answer goes to two of them."""
    criteria: tuple[str, ...] = ("quality",)
    """For --grade: the criteria of the rubric, each graded from 0 to 1."""
    adjudicator: str = ""
    """For a folder of grading sheets: write a sheet of the answers that two graders disagree on, for this person."""
    confidence: str = "95%"
    """Confidence level of the intervals and of all ranks together."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.watch and self.json:
            raise ConfigError("watch and json do not go together: one is for people, the other for programs")
        if self.watch and self.cross_reference:
            raise ConfigError("watch and cross_reference do not go together: ask for it when the runs are done")
        if self.grade and len(set(self.graders)) < 2:
            raise ConfigError("grade needs two graders or more, for each answer is graded twice: --graders ann,ben")
        if self.graders and not self.grade:
            raise ConfigError("graders are for new grading sheets: name their folder with --grade FOLDER")
        if self.grade and self.adjudicator:
            raise ConfigError(
                "grade and adjudicator do not go together: graders come first, the adjudicator after them"
            )
        if self.cap < 0:
            raise ConfigError(f"cap is {self.cap}: give 0 (all votes) or more")
        if self.cap and not self.checks:
            raise ConfigError("cap limits the votes that --checks counts: give --checks too")


def main(config: Config) -> int:
    """Print the leaderboard of votes or of results."""
    from firsthand.boards.board_spec import BoardSpec, is_board, load_board
    from firsthand.commands.board_of_votes import follow_votes, print_votes

    level = confidence(config.confidence)
    named = config.sources[0]
    is_arena = named == "arena"
    spec = load_board(named) if is_board(named) else None
    sources = config.sources[1:] if spec is not None or is_arena else config.sources
    if spec is not None:
        sources = (*spec.results, *sources)
    if not sources:
        raise ConfigError(f"the board {named} has no results to read: name files, folders or runs after it")
    _check_sources(sources, named if spec is None and not is_arena else "")
    if config.grade or config.adjudicator:
        from firsthand.commands.board_grading import write_grading

        return write_grading(sources, config.grade, config.graders, config.criteria, config.adjudicator)
    read = _votes(config, sources) if spec is None and len(sources) == 1 else None
    if read is not None:
        source = sources[0]
        others = ("protocol", "metric", "models", "origins", "export", "climb", "save", "cross_reference")
        if given := [name for name in others if getattr(config, name) != getattr(Config, name)]:
            raise ConfigError(f"--{given[0].replace('_', '-')} is for results: leave it out for votes")
        if config.watch and Path(source).is_file():
            raise ConfigError("--watch is for runs and results: leave it out for a file of votes")
        if config.write_votes:
            _write(source, Path(config.write_votes))

        def show() -> None:
            print_votes(
                source,
                read(),
                method=config.method,
                anchor=config.anchor,
                confidence=level,
                level=config.confidence,
                json=config.json,
                checks=config.checks,
                cap=config.cap,
                stuffing=config.stuffing,
            )

        if config.watch:
            follow_votes(source, show)
        else:
            show()
        return 0
    if is_arena:
        raise ConfigError(f"{', '.join(sources)} holds no votes: give one file of votes, or a run of `firsthand arena`")
    own = ("method", "style", "where", "anchor", "checks", "stuffing", "write_votes")
    if given := [name for name in own if getattr(config, name) != getattr(Config, name)]:
        raise ConfigError(f"--{given[0].replace('_', '-')} is for votes: leave it out for results")
    return _print_results(config, spec or BoardSpec(), sources, level)


def _check_sources(sources: Sequence[str], named: str) -> None:
    """UnknownName for a source that is no file and no run; the first word, `named`, might have been a board too."""
    from firsthand.boards.board_spec import board_names
    from firsthand.runs.run_names import find_run

    for source in sources:
        if not Path(source).exists():
            try:
                find_run(source, data_home())
            except UnknownName as error:
                if source == "last":
                    raise
                if source == named:
                    close = nearest(source, board_names())
                    told = (
                        f"no board, file or run {source[:80]!r}:{f' did you mean {close!r}?' if close else ''} "
                        "`firsthand list boards` and `firsthand runs` show all"
                    )
                else:
                    told = f"no file or run {source[:80]!r}; `firsthand runs` shows the runs"
                raise UnknownName(told) from error


def _print_results(config: Config, spec: BoardSpec, sources: tuple[str, ...], level: float) -> int:
    from firsthand.boards.board_export import write_board
    from firsthand.boards.make_board import make_board
    from firsthand.boards.read_results import read_results
    from firsthand.boards.result_file import write_result_file
    from firsthand.commands.board_of_results import (
        follow,
        print_board,
        print_climbs,
        print_cross_reference,
        print_origins,
    )
    from firsthand.system.terminal import print_as_json

    _check_outputs(config)
    protocols, metrics = _conditions(config.protocol, "protocol"), _conditions(config.metric, "metric")

    def made() -> tuple[ResultSet, MadeBoard]:
        results = _only(read_results(sources, data_home()), config.models)
        return results, make_board(results, spec, confidence=level, protocols=protocols, metrics=metrics)

    if config.watch:
        follow(sources, lambda: made()[1])
    results, board = made()
    crossed = _crossed(results, spec, protocols, metrics) if config.cross_reference else None
    for name in config.export:
        write_board(board, Path(name))
    if config.save:
        write_result_file(Path(config.save), results)
    if config.json:
        body = board.to_json()
        print_as_json(body if crossed is None else {**body, "cross_reference": crossed.to_json()})
        return 0
    if not config.watch:
        print_board(board)
    if config.origins:
        print_origins(board)
    if config.climb is not None:
        print_climbs(board, None if config.climb == "-" else Path(config.climb))
    if crossed is not None:
        print_cross_reference(crossed)
    return 0


def _crossed(results: ResultSet, spec: BoardSpec, protocols: dict[str, str], metrics: dict[str, str]) -> CrossReference:
    from firsthand.boards.board_columns import board_columns
    from firsthand.boards.cross_reference import cross_reference

    columns, _ = board_columns(results, spec, protocols=protocols, metrics=metrics)
    return cross_reference(columns)


def _check_outputs(config: Config) -> None:
    """ConfigError for a file that could not be written, before anything is read or printed."""
    from firsthand.boards.board_export import BOARD_FORMATS
    from firsthand.boards.result_file import RESULT_FILE

    plots = [] if config.climb in (None, "-") else [str(config.climb)]
    saves = [config.save] if config.save else []
    wanted = (
        ("export", config.export, BOARD_FORMATS, "a board is written as"),
        ("climb", plots, (".svg",), "a plot ends in"),
        ("save", saves, (RESULT_FILE,), "a file of results ends in"),
    )
    for flag, names, endings, told in wanted:
        for path in map(Path, names):
            if path.suffix not in endings:
                raise ConfigError(f"{flag} is {str(path)!r}: {told} {', '.join(endings)}")
            if not path.absolute().parent.is_dir():
                raise ConfigError(f"the folder of {str(path)!r} does not exist: make it, or name another file")


def _write(source: str, path: Path) -> None:
    from firsthand.arena.vote_writing import write_votes
    from firsthand.runs import store

    if Path(source).is_file():
        raise ConfigError("write_votes is for a run of the arena: a file of votes is one already")
    with store.open_run(source, data_home()) as run:
        write_votes(run, path)


def _only(results: ResultSet, patterns: tuple[str, ...]) -> ResultSet:
    """The results of the models that one of the patterns matches; all without patterns."""
    from fnmatch import fnmatchcase

    if not patterns:
        return results
    kept = tuple(each for each in results.results if any(fnmatchcase(each.model, text) for text in patterns))
    if not kept:
        raise ConfigError(f"no model is named {', '.join(patterns)}: the models are {', '.join(results.models)[:300]}")
    return replace(results, results=kept)


def _votes(config: Config, sources: tuple[str, ...]) -> Callable[[], VoteFile] | None:
    """Reads the votes of a file or of a run when called; None if it holds none, and is to be read as results."""
    from firsthand.arena.vote_files import SUFFIXES, holds_votes, read_votes
    from firsthand.runs import store

    source = sources[0]
    path = Path(source)
    if path.suffix in SUFFIXES and not path.is_dir():
        asked = bool(config.where or config.style or config.anchor)
        if asked or holds_votes(path):
            return lambda: read_votes(path, where=_conditions(config.where, "where"), style=config.style)
        return None
    if path.is_file() or (path.is_dir() and not (path / "run.sqlite").exists()):
        return None
    with store.open_run(source, data_home()) as run:
        if "arena" not in run.config and not run.preferences():
            return None
        identifier = run.id
    if config.where:
        raise ConfigError("--where is for files of votes: leave it out for a run")
    return lambda: _votes_of_run(identifier, config.style)


def _votes_of_run(source: str, style: tuple[str, ...]) -> VoteFile:
    from firsthand.arena.run_votes import votes_of_runs
    from firsthand.runs import store

    with store.open_run(source, data_home()) as run:
        if not run.preferences():
            raise ConfigError(f"run {run.id} holds no votes: `firsthand arena MODEL MODEL` makes some")
        votes = votes_of_runs([run], style)
        if not len(votes.battles):
            raise ConfigError(f"run {run.id} holds no votes that count: `firsthand arena MODEL MODEL` makes some")
    return votes


def _conditions(texts: tuple[str, ...], flag: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if bad := [text for text, (_, equals, _) in zip(texts, pairs, strict=True) if not equals]:
        told = "COLUMN" if flag == "where" else "BENCHMARK"
        raise ConfigError(f"{flag} is {bad[0]!r}: write {told}=VALUE")
    return {name: value for name, _, value in pairs}
