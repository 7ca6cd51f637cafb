"""The verdict of every judge, word and sentence, at each of its limits, just below and just above, and far from them.

`tests/data/claims_verdicts.json` holds measurements (value, interval, table) and what the claim's judge must say of each.
"""

import json
from pathlib import Path

import pytest

from firsthand.claims.all_claims import all_claims
from firsthand.claims.claim import Measurement

VERDICTS = json.loads((Path(__file__).parent / "data" / "claims_verdicts.json").read_text(encoding="utf-8"))


def test_every_claim_that_is_measured_has_its_verdicts_listed():
    assert list(VERDICTS) and set(VERDICTS) == {name for name, each in all_claims().items() if each.measure}


@pytest.mark.parametrize("name", VERDICTS)
def test_a_judge_says_its_word_and_its_sentence_at_below_and_above_its_limits(name):
    judge = all_claims()[name].judge
    found = [[given, *judge(Measurement(**given))] for given, _, _ in VERDICTS[name]]
    assert found == VERDICTS[name]


def test_a_claim_that_cannot_be_tested_says_why_whatever_was_measured():
    closed = [each for each in all_claims().values() if each.claim.cannot]
    assert len(closed) > 1 and all(each.measure is None for each in closed)
    for each in closed:
        for value in (0.0, 1.0, -3.5):
            assert each.judge(Measurement(value)) == ("cannot be tested here", each.claim.cannot)
