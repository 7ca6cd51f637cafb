"""The sign-flip test asks for the same evidence whatever the unit of the scores."""

import pytest

from firsthand.stats.paired import EXACT_FLIPS, LARGE_N, sign_flip

BETTER = [0.1, 0.2, 0.3, 0.4, 0.7, 0.9, 1.1, 1.3, 0.8, 0.77]
MIXED = [0.1, 0.2, -0.3, 0.4, 0.7, -0.1, 0.3, 0.3]


@pytest.mark.parametrize("scale", [1e-10, 1e-9, 1e-6, 1.0, 1e3, 1e7, 1e16, 1e30])
def test_the_p_value_is_that_of_any_scale(scale: float) -> None:
    assert sign_flip([scale * each for each in BETTER]) == 2 / 2**10
    assert sign_flip([scale * each for each in MIXED]) == sign_flip(MIXED), "signs that give an equal sum are ties"
    many = [each * scale for each in MIXED * 3]
    assert len(many) > EXACT_FLIPS and sign_flip(many) == sign_flip(MIXED * 3)
    assert sign_flip([scale * each for each in BETTER * LARGE_N]) < 1e-9


def test_sums_that_differ_by_rounding_are_ties() -> None:
    assert sign_flip([0.1, 0.2, 0.3]) == 2 / 8 and sign_flip([0.1, 0.2, -0.3]) == 1
    assert sign_flip([0.3, 0.3, -0.1, 0.1]) == sign_flip([3.0, 3.0, -1.0, 1.0]) == 6 / 16
