"""Texts that come several times are one text: none is trained on and measured too."""

from __future__ import annotations

from random import Random

import pytest
import torch

from firsthand.errors import DataError
from firsthand.interp.answer_pairs import distinct as distinct_pairs
from firsthand.interp.monitor_fitting import distinct, fit_monitor
from firsthand.interp.steering import Answered, Pair
from firsthand.train.toy_tasks.toy_models import toy_model


def test_a_monitor_of_repeated_texts_is_that_of_each_text_once() -> None:
    model, _ = toy_model(list("abcdefghijklmnopqrstuvwxyz "), seed=0, context=64)
    rng = Random(1)
    positive, negative = ([[rng.randrange(2, 29) for _ in range(6)] for _ in range(24)] for _ in range(2))
    once = fit_monitor(model.eval(), positive, negative, "blocks.1.resid.post", name="x")
    for copies in ((5, 1), (1, 5)):
        again = fit_monitor(model, positive * copies[0], negative * copies[1], "blocks.1.resid.post", name="x")
        assert (again.study.accuracy, again.separation, again.caught, again.false_alarms) == (
            once.study.accuracy, once.separation, once.caught, once.false_alarms,
        )  # fmt: skip
        assert torch.equal(again.monitor.direction, once.monitor.direction)
    with pytest.raises(DataError, match=r"19 positive and 24 negative texts came: .* equal texts count once"):
        fit_monitor(model, positive[:19] * 2, negative, "blocks.1.resid.post", name="x")


def test_of_equal_texts_and_pairs_the_first_is_used() -> None:
    assert distinct([[2], (1, 2), [2], [1, 2], [2, 1]]) == [[2], (1, 2), [2, 1]]
    one, other = Answered([1, 2], 1), Answered([1, 3], 1)
    assert distinct_pairs([Pair(one, other), Pair(other, one), Pair(one, one), Pair(Answered((1, 2), 1), other)]) == [
        Pair(one, other), Pair(other, one), Pair(one, one),
    ]  # fmt: skip
