"""Writes the notes of a table on tokens and costs that no endpoint reported."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from firsthand.runs.unreported_usage import Unreported
from firsthand.system.plurals import count_of


def unreported_notes(agents: Mapping[str, Unreported], named: Collection[str] = ()) -> list[str]:
    """A sentence for each kind of number that was not reported, with the agents it is of.

    The agents in `named` are said already to have reported no tokens at all.
    """
    found = agents.items()
    silent = [
        f"{count_of(each.silent, 'model call')} of {name}" for name, each in found if each.silent and name not in named
    ]
    estimated = [f"{count_of(each.estimated, 'model call')} of {name}" for name, each in found if each.estimated]
    unpriced = [f"{count_of(each.unpriced, 'attempt')} of {name}" for name, each in found if each.unpriced]
    notes = []
    if silent:
        notes.append(f"No tokens were reported of {', '.join(silent)}: they count as 0, so the cost is higher.")
    if estimated:
        notes.append(f"The tokens of {', '.join(estimated)} are estimates from bytes, for none were reported.")
    if unpriced:
        notes.append(f"No cost was reported of {', '.join(unpriced)}: a limit in USD counts them as free.")
    return notes
