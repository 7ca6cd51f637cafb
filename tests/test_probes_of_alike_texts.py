"""Probes of texts that end alike, and of rare classes: they are fitted, and a control that cannot be made is NaN."""

from __future__ import annotations

import math

import pytest
import torch

from firsthand.errors import DataError
from firsthand.interp.selective_probes import probe_study

ROWS = 40
LABELS = [i % 2 == 0 for i in range(ROWS)]


def activations(labels: list[bool]) -> torch.Tensor:
    x_ND = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(0))
    x_ND[:, 0] += torch.tensor(labels).float() * 8
    return x_ND


def test_rows_of_one_type_have_a_probe_and_no_control() -> None:
    study = probe_study(activations(LABELS), LABELS, [7] * ROWS)
    assert study.accuracy.value > 0.9 and study.control.n == 0
    assert math.isnan(study.control.value) and math.isnan(study.selectivity)


@pytest.mark.parametrize("seed", range(8))
def test_two_types_always_have_a_control_with_both_labels(seed: int) -> None:
    study = probe_study(activations(LABELS), LABELS, [i // 2 % 2 for i in range(ROWS)], seed=seed)
    assert study.control.n == study.accuracy.n == study.shuffled.n == 12 and study.accuracy.value > 0.9


@pytest.mark.parametrize("seed", range(8))
def test_a_rare_class_is_in_both_parts_of_the_split(seed: int) -> None:
    rare = [i < 2 for i in range(ROWS)]
    assert probe_study(activations(rare), rare, range(ROWS), seed=seed).accuracy.value > 0.8  # type: ignore[arg-type]
    with pytest.raises(DataError, match="1 of 40 labels are positive"):
        probe_study(activations(rare), [i < 1 for i in range(ROWS)], range(ROWS), seed=seed)  # type: ignore[arg-type]
