"""Renders the tour: docs/tour.md from the same steps as `firsthand tour`."""

from __future__ import annotations

from firsthand.reading.tour_steps import TourStep, tour_steps

HEAD = """\
# A tour in twenty steps

A walk through [the reading list](reading-list.md): each step is one idea, one command, one table or plot, and something to
read next. Each command ends within a minute on two idle cores; SmolLM2 (98 MB) is fetched by the first one that needs it.

```bash
firsthand tour               # the steps, and which of them are done
firsthand tour next          # the first that is not done: says what it shows, and runs its command after Enter
firsthand tour 3 --yes       # step 3, run without asking
```

Commands run in the folder `tour` of the data home, so what they make lies there. Progress is kept there too;
`firsthand tour --reset` begins anew. Without a terminal a step is printed and not run, unless `--yes` is given.
`firsthand tour --page` prints this page.
"""


def tour_page() -> str:
    """The page as Markdown."""
    return HEAD + "".join(map(_section, tour_steps()))


def step_text(step: TourStep) -> str:
    """A step as it is printed in the terminal."""
    entry = step.reading
    return (
        f"{step.number}. {step.title}\n\n{step.idea}\n\n    {step.command}\n\n{step.look}\n\n"
        f"Next: {entry.title}{_source(entry.source)}; docs/{step.page}. `firsthand papers show {entry.id}` tells more."
    )


def _section(step: TourStep) -> str:
    entry = step.reading
    title = f"[{entry.title}]({entry.link})" if entry.link else entry.title
    return (
        f"\n## {step.number}. {step.title}\n\n{step.idea}\n\n```text\n{step.command}\n```\n\n{step.look}\n\n"
        f"Read next: {title}{_source(entry.source)}, and [the page about it]({step.page}).\n"
    )


def _source(source: str) -> str:
    return f" ({source})" if source else ""
