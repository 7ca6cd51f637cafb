"""Fits an activation monitor to two sets of texts, and sets its threshold by a false alarm rate on texts of its own.

The score of a text is the mean over its tokens; that is linear, so the probe is trained on mean activations. The first token
is left out, since much attention rests there and its activation is an outlier. The threshold comes from one half of the
held-out negative texts, and the other half says how many false alarms it really makes.
"""

# N texts, D hidden

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from firsthand.errors import DataError
from firsthand.interp.activations import expect_vectors, read_activations, sites_matching
from firsthand.interp.selective_probes import ProbeStudy, fit_probe, probe_study
from firsthand.interp.separation import Separation, separation
from firsthand.loop.concurrency import derive_seed
from firsthand.nn.activation_monitor import ActivationMonitor, write_monitor
from firsthand.nn.decoder import Decoder
from firsthand.stats.intervals import Interval, mean_interval

MIN_TEXTS = 20


@dataclass(frozen=True)
class FittedMonitor:
    """A monitor, and its rates on texts that neither its probe nor its threshold saw."""

    monitor: ActivationMonitor
    study: ProbeStudy
    separation: Separation
    caught: Interval
    """The share of positive texts at or above the threshold."""
    false_alarms: Interval

    def write(self, file: Path) -> None:
        """Writes the monitor's file; `+monitor:FILE` after a model's name reads it."""
        write_monitor(self.monitor, file)


def distinct(texts: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """The token ids of each text, of equal ones the first, in their order."""
    found: dict[tuple[int, ...], Sequence[int]] = {}
    for text in texts:
        found.setdefault(tuple(text), text)
    return list(found.values())


def expect_texts(positive: Sequence[object], negative: Sequence[object]) -> None:
    """DataError for fewer texts than a monitor is fitted to; the texts are distinct."""
    if min(len(positive), len(negative)) < MIN_TEXTS:
        raise DataError(
            f"{len(positive)} positive and {len(negative)} negative texts came: a probe needs {MIN_TEXTS} of each or "
            "more, and equal texts count once"
        )


def fit_monitor(
    model: Decoder, positive: Sequence[Sequence[int]], negative: Sequence[Sequence[int]], site: str, *, name: str,
    false_alarms: float = 0.05, held_out: float = 0.3, seed: int = 0,
) -> FittedMonitor:  # fmt: skip
    """The monitor of token ids of two kinds of texts, equal ones once. DataError for fewer than 20 texts of either kind.

    A text that came several times would be trained on and measured, and would count as several measurements.
    """
    positive, negative = distinct(positive), distinct(negative)
    expect_texts(positive, negative)
    (site,) = sites_matching(model, site)
    expect_vectors(model, site)
    training: list[list[Sequence[int]]] = []
    tests: list[list[Sequence[int]]] = []
    for kind, texts in (("positive", positive), ("negative", negative)):
        order = list(range(len(texts)))
        Random(derive_seed("monitor split", seed, kind)).shuffle(order)
        cut = max(4, round(len(texts) * held_out))
        tests.append([texts[index] for index in order[:cut]])
        training.append([texts[index] for index in order[cut:]])
    rows_ND: list[Tensor] = []
    labels: list[bool] = []
    last: list[int] = []
    for is_positive, texts in ((True, training[0]), (False, training[1])):
        rows_ND += [mean_activation(model, text, site) for text in texts]
        labels += [is_positive] * len(texts)
        last += [text[-2] if len(text) > 1 else text[-1] for text in texts]
    x_ND = torch.stack(rows_ND)
    study = probe_study(x_ND, labels, last, seed=seed)
    probe = fit_probe(x_ND, labels)
    monitor = ActivationMonitor(site, probe.direction, probe.bias, name=name)
    found = [text_scores(model, monitor, texts) for texts in tests]
    half = len(found[1]) // 2
    threshold = threshold_at(found[1][:half], false_alarms)
    alarms = [float(score >= threshold) for score in found[1][half:]]
    monitor = replace(monitor, threshold=threshold, false_alarms=sum(alarms) / len(alarms))
    return FittedMonitor(
        monitor, study, separation(*found), mean_interval([float(score >= threshold) for score in found[0]]),
        mean_interval(alarms),
    )  # fmt: skip


def text_scores(model: Decoder, monitor: ActivationMonitor, texts: Sequence[Sequence[int]]) -> list[float]:
    """The mean score over the tokens of each text after its first."""
    return monitor.scores(torch.stack([mean_activation(model, text, monitor.site) for text in texts]))


def mean_activation(model: Decoder, text: Sequence[int], site: str) -> Tensor:
    """The mean activation over the tokens of a text after its first: D."""
    values_TD = read_activations(model, text, site)[site]
    return values_TD[1 if len(values_TD) > 1 else 0 :].float().mean(0)


def threshold_at(negative: Sequence[float], false_alarms: float) -> float:
    """The smallest score above all but a share of these: with few of them, above all."""
    ordered = sorted(negative)
    allowed = math.floor(false_alarms * len(ordered))
    return math.nextafter(ordered[len(ordered) - 1 - allowed], math.inf)
