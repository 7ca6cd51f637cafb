"""Walk through the reading list in twenty steps: one idea, one command, one table or plot, and what to read next."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError

if TYPE_CHECKING:
    from firsthand.reading.tour_steps import TourStep

EXAMPLES = """
firsthand tour                 # the steps, and which of them are done
firsthand tour next            # the first that is not done; its command runs after Enter
firsthand tour 8               # a step by its number or id
firsthand tour 8 --yes         # run without asking
"""


@dataclass(frozen=True)
class Config:
    """The step."""

    step: str | None = field(default=None, metadata={"positional": True})
    """A number, an id, or next; none lists the steps."""
    yes: bool = False
    """Run the step's command without asking."""
    reset: bool = False
    """Forget which steps are done."""
    page: bool = False
    """Print docs/tour.md."""
    json: bool = False
    """Print the steps as JSON for programs."""

    def __post_init__(self) -> None:
        if self.yes and self.step is None:
            raise ConfigError("--yes runs a step: name one, as in `firsthand tour next --yes`")


def main(config: Config) -> int:
    """List the steps, or show one and run its command. Returns the command's exit code."""
    from firsthand.reading.tour_page import step_text, tour_page
    from firsthand.reading.tour_progress import next_step, reset_progress, steps_done
    from firsthand.reading.tour_steps import tour_step, tour_steps
    from firsthand.system.terminal import print_as_json

    if config.page:
        print(tour_page(), end="")
        return 0
    if config.reset:
        reset_progress()
    done = steps_done()
    if config.json:
        print_as_json([asdict(step) | {"done": done.get(step.id)} for step in tour_steps()])
        return 0
    if config.step is None:
        _list(done)
        return 0
    step = next_step(done) if config.step == "next" else tour_step(config.step)
    if step is None:
        print("All steps are done. `firsthand claims` tells, line by line, what of the reading list holds here.")
        return 0
    print(step_text(step), flush=True)
    if not (config.yes or _agreed()):
        return 0
    if step.after and step.after not in done:
        needed = tour_step(step.after)
        raise ConfigError(
            f"step {step.number} uses what step {needed.number} made: run `firsthand tour {needed.number}` first"
        )
    return _run(step)


def _list(done: dict[str, str]) -> None:
    from firsthand.reading.tour_progress import next_step
    from firsthand.reading.tour_steps import tour_steps
    from firsthand.system.terminal import print_table

    rows = [
        (str(step.number), step.title, "done" if step.id in done else "", "SmolLM2" if step.weights else "")
        for step in tour_steps()
    ]
    print_table("A tour through the reading list", ("step", "title", "state", "needs"), rows, right=("step",))
    step = next_step(done)
    print(f"`firsthand tour {step.number}` is the next step." if step else "All steps are done.")


def _agreed() -> bool:
    """True if a person at the terminal presses Enter; without a terminal the step is only printed."""
    import sys

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        answer = input("\nEnter runs the command, anything else leaves: ")
    except EOFError:
        return False
    return not answer.strip()


def _run(step: TourStep) -> int:
    """Run a step's command in the tour's folder, and record it as done if it ended well."""
    import shlex
    import shutil
    import subprocess
    import sys

    from firsthand.reading.tour_progress import mark_done, tour_folder

    folder = tour_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("", "-wal", "-shm", ".lock") if step.makes else ():  # of an earlier try, with SQLite's side files
        made = folder / f"{step.makes}{suffix}"
        if made.is_dir():
            shutil.rmtree(made)
        else:
            made.unlink(missing_ok=True)
    _, *words = shlex.split(step.command)
    print(f"\nin {folder}:\n$ {step.command}\n", flush=True)
    code = subprocess.run([sys.executable, "-P", "-m", "firsthand", *words], cwd=folder, check=False).returncode
    if code == 0:
        mark_done(step)
    else:
        print(f"\nthe command ended with {code}: step {step.number} is not done", file=sys.stderr)
    return code if code >= 0 else 128 - code
