"""Measure claims and print a verdict for each; the results are kept as a run, and written as a page.

What fits into the budget is said before anything is measured. An interrupted run is finished with --resume.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError
from firsthand.system import interruption
from firsthand.system.home import data_home
from firsthand.system.plurals import count_of
from firsthand.system.terminal import complain, console, print_as_json

if TYPE_CHECKING:
    from firsthand.claims.all_claims import NamedClaim
    from firsthand.runs.run_folder import Run
    from firsthand.trace import Trace

EXAMPLES = """
firsthand claims run gpqa_items flash_attention_memory   # two claims
firsthand claims run architecture                        # a section of the list
firsthand claims run all --budget 10m                    # what fits into ten minutes of CPU
firsthand claims run --resume                            # finish the last run after Ctrl-C or a crash
firsthand claims run all --page claims.html --markdown claims.md
"""
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Config:
    """The claims to measure, and where to write what came out."""

    names: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Claims, sections (`firsthand claims` shows both), or all."""
    budget: str = ""
    """CPU time to spend, such as 90s, 10m or 1h: the cheapest claims that fit; by default all that are named."""
    seed: int = 0
    """Seed of everything random in the claims."""
    resume: str | None = field(default=None, metadata={"bare": "last"})
    """Finish an interrupted run of claims: a run's id, or nothing for the last one."""
    retry_errors: bool = False
    """With --resume: measure again what ended with an error, such as a model that was missing."""
    page: str = ""
    """Write the results as one HTML page with plots to this file; by default into the run's folder."""
    markdown: str = ""
    """Write them as Markdown to this file too, with its plots as SVG files beside it."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        self.budget_s()
        if self.resume is None and not self.names:
            raise ConfigError(
                "no claim was named: try `firsthand claims run architecture`; `firsthand claims` shows all"
            )
        if self.resume is not None and (self.names or self.budget):
            raise ConfigError("resume finishes what a run left, so it takes no names and no budget: leave them out")
        for name in ("page", "markdown"):
            if (given := getattr(self, name)) and not _can_be_file(Path(given).absolute()):
                raise ConfigError(f"{name} is {given!r}: give a file, in a folder that exists or can be made")
        if self.retry_errors and self.resume is None:
            raise ConfigError("retry_errors goes with resume: name the run, as in --resume last --retry-errors")

    def budget_s(self) -> float | None:
        """The budget in seconds; None without one."""
        if not self.budget:
            return None
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", self.budget.strip().lower())
        if found is None or found[2] not in UNITS or not float(found[1]):
            raise ConfigError(f"budget is {self.budget!r}: give a time such as 90s, 10m or 1h")
        return float(found[1]) * UNITS[found[2]]


def _can_be_file(path: Path) -> bool:
    """True if a file can be written there, folders that are missing made before."""
    there = next(each for each in path.parents if each.exists())
    return there.is_dir() and not path.is_dir()


def run(config: Config) -> int:
    """Measure what the run lacks, then print and write the results."""
    from firsthand.claims.all_claims import all_claims, chosen_claims, fitting
    from firsthand.claims.claim_run import claims_experiment, outcomes_of, run_of, verdict_of
    from firsthand.claims.claim_text import print_outcome, print_plan, print_totals
    from firsthand.claims.claims_page import write_html, write_markdown

    run: Run | None = None
    if config.resume is not None:
        run, claims, seed = run_of(config.resume, data_home())
        left_out: Sequence[NamedClaim] = ()
        done = run.done(errors=not config.retry_errors)
    else:
        claims, left_out = fitting(chosen_claims(config.names), config.budget_s())
        seed, done = config.seed, set()
    experiment = claims_experiment(claims, seed)
    missing = [place.task.id for place in experiment.places() if place.id not in done]
    if not config.json:
        print_plan([all_claims()[name] for name in missing], left_out)

    def tell(trace: Trace) -> None:
        if not config.json:
            claim = all_claims()[trace.task_id]
            print_outcome(claim, *verdict_of(claim, trace))

    with run or experiment.create() as run:
        try:
            interruption.run(experiment.attempt_async(run, on_trace=tell, redo_errors=config.retry_errors))
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True
        outcomes = list(outcomes_of(run))
        page = Path(config.page) if config.page else run.path / "claims.html"
        write_html(page, outcomes, run)
        if config.markdown:
            write_markdown(Path(config.markdown), outcomes, run)
        if config.json:
            print_as_json({"run": run.id, "claims": [each.to_json() for each in outcomes]})
        else:
            print_totals(outcomes)
            console().print(f"run {run.id}; page {page}", markup=False, soft_wrap=True)
        if interrupted:
            told = f"{len(outcomes)} of {count_of(len(claims), 'claim')}"
            complain(f"interrupted with {told} done: `firsthand claims run --resume {run.id}` finishes them")
            return 130
    return 0
