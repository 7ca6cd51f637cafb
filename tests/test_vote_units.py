"""Units in votes that differ by case alone."""

from __future__ import annotations

import pytest

from firsthand.patterns.parts.voting import tallied

PAIRS = (
    "m M,mW MW,mWh MWh,mHz MHz,mV MV,mA MA,mJ MJ,mN MN,mPa MPa,meV MeV,b B,kb kB,MB Mb,Gb GB,Tb TB,KiB Kib,MBps mBps"
)


@pytest.mark.parametrize("pair", PAIRS.split(","))
def test_units_that_differ_by_case_are_two_answers(pair: str) -> None:
    small, large = pair.split()
    tally = tallied([f"5 {small}", f"5 {large}", f"5 {large}", "6 x"])
    assert (tally.winner, tally.most) == (f"5 {large}", 2)


@pytest.mark.parametrize("pair", ("KB kB", "KBs kB", "GBs GB", "hz Hz", "kg Kg"))
def test_other_spellings_of_a_unit_are_one(pair: str) -> None:
    assert tallied([f"5 {each}" for each in pair.split()]).most == 2
