"""Tables of misuse and over-refusal by arm, with the change from the first arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from firsthand.message import Json

if TYPE_CHECKING:
    from firsthand.interp.alignment.request_rates import RequestRates

LABELS = {
    "violations": "harmful answered",
    "jailbroken": "jailbroken",
    "over_refusals": "harmless declined",
    "helpful": "harmless answered rightly",
}


def rates_table(rows: Mapping[str, Sequence[RequestRates]], before: str) -> tuple[list[str], list[list[str]]]:
    """The header and a row for each arm: mean, interval, range of the seeds, and the paired change from `before`."""
    from firsthand.interp.alignment.request_rates import RATES, change, over_seeds

    table = []
    for arm, found in rows.items():
        cells = [arm]
        for name in RATES:
            mean = over_seeds(found, name)
            cell = f"{mean}, {mean.range}"
            if arm != before:
                cell += f"; {change(found, rows[before], name).difference:+.3f}"
            cells.append(cell)
        table.append(cells)
    return ["arm", *(LABELS[name] for name in RATES)], table


def rates_as_json(found: Mapping[Any, Mapping[str, Sequence[RequestRates]]], before: str) -> Json:
    """Split -> arm -> rate -> the seeds' values, their mean with its interval, and the paired change."""
    from firsthand.interp.alignment.request_rates import RATES, change, over_seeds
    from firsthand.interp.alignment.seed_statistics import change_as_json

    body: Json = {}
    for split, rows in found.items():
        for arm, each in rows.items():
            cells: Json = {}
            for name in RATES:
                cells[name] = over_seeds(each, name).to_json()
                if arm != before:
                    cells[name]["change"] = change_as_json(change(each, rows[before], name))
            body.setdefault(split, {})[arm] = cells
    return body


def shown_rates(value: float) -> str:
    """A rate with three digits; a dash for none."""
    return "-" if math.isnan(value) else f"{value:.3f}"
