"""What cheap claims measure at seed 0, number by number: a formula, a count or a default that changes is seen here.

`tests/data/claims_measured.json` holds the numbers. Where a claim is meant to measure something else, write its new ones.
Claims that read models, or that measure time or memory, are not among them; those whose data set is not here are skipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.claims.all_claims import all_claims
from firsthand.claims.lab import Lab
from firsthand.errors import DataError
from thorough import part

KEPT: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "claims_measured.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [*(name for name in KEPT if not KEPT[name]["slow"]), *part([name for name in KEPT if KEPT[name]["slow"]], 8)],
)
def test_a_claim_measures_the_numbers_that_are_kept(name: str, tmp_path: Path) -> None:
    claim, kept = all_claims()[name], KEPT[name]
    assert claim.measure is not None
    try:
        measured = claim.measure(Lab(0, tmp_path))
    except DataError:
        pytest.skip("the claim's data set is not on this machine")
    found = measured.to_json()
    for each in ("value", "low", "high"):
        assert found[each] == (None if kept.get(each) is None else near(kept[each]))
    assert found["n"] == kept["n"] and found["columns"] == kept.get("columns", [])
    assert (found["what"], found["unit"]) == (kept.get("what", ""), kept.get("unit", ""))
    assert list(found["axes"]) == kept.get("axes", ["", ""])
    assert [list(row) for row in found["rows"]] == [list(map(near, row)) for row in kept.get("rows", [])]
    curves = {name: [list(point) for point in points] for name, points in found["curves"].items()}
    assert curves == {
        name: [list(map(near, point)) for point in points] for name, points in kept.get("curves", {}).items()
    }
    assert claim.judge(measured).word == kept["verdict"]


def near(value: float | str) -> Any:
    """A number that may differ in its last digits, and by the rounding of float32 where it is next to 0."""
    return value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=2e-6)
