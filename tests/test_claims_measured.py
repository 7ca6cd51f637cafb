"""What cheap claims measure at seed 0, number by number: a formula, a count or a default that changes is seen here.

`tests/data/claims_measured.json` holds the numbers. Where a claim is meant to measure something else, write its new ones.
Claims that read data sets or models, or that measure time or memory, are not among them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.claims.all_claims import all_claims
from firsthand.claims.lab import Lab

KEPT: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "claims_measured.json").read_text())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if kept["slow"] else []) for name, kept in KEPT.items()]
)
def test_a_claim_measures_the_numbers_that_are_kept(name: str, tmp_path: Path) -> None:
    claim, kept = all_claims()[name], KEPT[name]
    assert claim.measure is not None
    measured = claim.measure(Lab(0, tmp_path))
    found = measured.to_json()
    for part in ("value", "low", "high"):
        assert found[part] == (
            kept.get(part) if kept.get(part) is None else pytest.approx(kept[part], rel=1e-4, abs=1e-9)
        )
    assert found["n"] == kept.get("n", 1) and len(found["rows"]) == len(kept.get("rows", []))
    for row, wanted in zip(found["rows"], kept.get("rows", []), strict=True):
        assert list(row) == [
            each if isinstance(each, str) else pytest.approx(each, rel=1e-4, abs=1e-9) for each in wanted
        ]
    assert claim.judge(measured).word == kept["verdict"]
    for part in () if kept["slow"] else ("what", "unit", "columns", "axes"):
        assert found[part] == kept[part], part
    assert kept["slow"] or found["curves"] == {
        line: [pytest.approx(point, rel=1e-4, abs=1e-9) for point in points] for line, points in kept["curves"].items()
    }
