"""Reflections as numbers at their edges: weights that are none, shares without probability, segments without passages."""

from __future__ import annotations

import math

import pytest

from firsthand.errors import ConfigError
from firsthand.retrieval.reflection.critique import (
    FULLY,
    IRRELEVANT,
    NO_SUPPORT,
    PARTIALLY,
    RELEVANCE_WORTH,
    RELEVANT,
    SUPPORT_WORTH,
    Critique,
    CritiqueWeights,
    check_weights,
    expected_worth,
    retrieval_probability,
    segment_score,
)


@pytest.mark.parametrize("name", ["relevance", "support", "utility"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_are_finite(name: str, value: float) -> None:
    given = {"relevance": 1.0, "support": 1.0, "utility": 0.5, name: value}
    with pytest.raises(ConfigError) as refused:
        check_weights(CritiqueWeights(**given))
    assert str(refused.value) == f"the weights {given} are not finite: give numbers, such as 1, 1 and 0.5"
    check_weights(CritiqueWeights())
    check_weights(CritiqueWeights(**given | {name: -1e300}))
    check_weights(CritiqueWeights(**given | {name: 0}))


def test_tokens_of_another_group_or_without_probability_have_no_share() -> None:
    assert expected_worth({RELEVANT: -math.inf, IRRELEVANT: -math.inf}, RELEVANCE_WORTH) == 0.0
    assert expected_worth({RELEVANT: -1.0, IRRELEVANT: -1.0, FULLY: 0.0, "word": 9.0}, RELEVANCE_WORTH) == 0.5
    assert expected_worth({PARTIALLY: 0.0, NO_SUPPORT: -math.inf, RELEVANT: 0.0}, SUPPORT_WORTH) == 0.5
    assert retrieval_probability({}) == 0.0


def test_a_segment_is_scored_by_each_reflection_and_its_own_weight() -> None:
    weights = CritiqueWeights(2.0, 4.0, 8.0)
    assert segment_score(0.25, Critique(), weights) == 0.25
    assert segment_score(0.25, Critique(relevance=0.5), weights) == 1.25
    assert segment_score(0.25, Critique(support=0.5), weights) == 2.25
    assert segment_score(0.25, Critique(utility=-0.5), weights) == -3.75
    assert segment_score(0.25, Critique(0.0, 0.0, 0.0), weights) == 0.25
    assert segment_score(0.25, Critique(1.0, 0.5, 0.25), weights) == 6.25
