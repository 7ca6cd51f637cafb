"""Linear probes with a control task: what a probe reads out, less what it can memorise (Hewitt and Liang, 2019)."""

# N rows, D inputs

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from firsthand.errors import DataError
from firsthand.stats.intervals import Interval, mean_interval

MIN_ROWS = 20


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A logistic regression on standardised activations."""

    direction: Tensor
    """D: in units of the activations."""
    bias: float

    def scores(self, x_ND: Tensor) -> Tensor:
        """Log-odds of the positive class: N."""
        return x_ND.float() @ self.direction + self.bias


@dataclass(frozen=True)
class ProbeStudy:
    """Accuracies on held-out rows."""

    accuracy: Interval
    control: Interval
    """With a random label for each type of input: what the probe memorises. NaN where the rows are of one type."""
    shuffled: Interval
    """With labels in random order: chance."""
    majority: float
    """Share of the more frequent class."""
    probe: LinearProbe

    @property
    def selectivity(self) -> float:
        """Accuracy less the control's; a probe that memorises types has none. NaN without a control."""
        return self.accuracy.value - self.control.value


def fit_probe(x_ND: Tensor, labels: Sequence[bool] | Tensor, *, ridge: float = 1e-2, steps: int = 60) -> LinearProbe:
    """Logistic regression by L-BFGS with a ridge on standardised inputs. DataError without rows of both classes."""
    x_ND, y_N = x_ND.float(), torch.as_tensor(labels).float()
    if len(x_ND) != len(y_N) or not 0 < float(y_N.sum()) < len(y_N):
        raise DataError(
            f"{len(x_ND)} rows with {int(y_N.sum())} positives of {len(y_N)} labels came: a probe needs rows of both classes"
        )
    if not x_ND.isfinite().all():
        raise DataError("the activations hold values that are not finite: a probe on them would mean nothing")
    mean_D, deviation_D = x_ND.mean(0), x_ND.std(0).clamp_min(1e-6)
    z_ND = (x_ND - mean_D) / deviation_D
    weights = torch.zeros(z_ND.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        odds_N = z_ND @ weights[:-1] + weights[-1]
        value = functional.binary_cross_entropy_with_logits(odds_N, y_N) + ridge * weights[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    found = weights.detach()
    direction_D = found[:-1] / deviation_D
    return LinearProbe(direction_D, float(found[-1] - mean_D @ direction_D))


def probe_study(
    x_ND: Tensor, labels: Sequence[bool], types: Sequence[Hashable], *, held_out: float = 0.3, seed: int = 0
) -> ProbeStudy:
    """Trains the probe, the control and chance on one split. `types` are what a control task labels at random: token ids.

    Each class is split alike, so that both are trained on. The control is NaN where no labels tell types of the training
    rows apart, as with one type. DataError for fewer than 20 rows, or fewer than 2 of either class.
    """
    if not len(x_ND) == len(labels) == len(types) or len(labels) < MIN_ROWS:
        raise DataError(
            f"{len(x_ND)} rows, {len(labels)} labels and {len(types)} types came: expected as many of each, "
            f"{MIN_ROWS} or more"
        )
    kinds = [[i for i, label in enumerate(labels) if bool(label) is kind] for kind in (True, False)]
    if min(map(len, kinds)) < 2:
        raise DataError(
            f"{len(kinds[0])} of {len(labels)} labels are positive: a probe needs 2 rows of either class or more"
        )
    rng = Random(seed)
    test: list[int] = []
    training: list[int] = []
    for rows in kinds:
        rng.shuffle(rows)
        cut = min(len(rows) - 1, max(1, round(len(rows) * held_out)))
        test += rows[:cut]
        training += rows[cut:]
    drawn = _drawn_labels([types[i] for i in training], types, rng)
    mixed = list(labels)
    for part in (test, training):
        for i, label in zip(part, rng.sample([labels[i] for i in part], len(part)), strict=True):
            mixed[i] = label
    tasks = {"accuracy": list(labels), "shuffled": mixed}
    if drawn:
        tasks["control"] = [drawn[each] for each in types]
    found: dict[str, Interval] = {"control": mean_interval([])}
    probes: dict[str, LinearProbe] = {}
    for name, wanted in tasks.items():
        probes[name] = fit_probe(x_ND[training], [wanted[i] for i in training])
        right = (probes[name].scores(x_ND[test]) > 0).tolist()
        found[name] = mean_interval([float(said == wanted[i]) for said, i in zip(right, test, strict=True)])
    share = sum(map(bool, labels)) / len(labels)
    return ProbeStudy(majority=max(share, 1 - share), probe=probes["accuracy"], **found)


def _drawn_labels(trained: Sequence[Hashable], types: Sequence[Hashable], rng: Random) -> dict[Hashable, bool]:
    """A random label for each type, with both labels among the trained ones; none if the trained rows are of one type."""
    known = sorted(set(trained), key=repr)
    drawn = {each: rng.random() < 0.5 for each in sorted(set(types), key=repr)}
    if len(known) > 1 and len({drawn[each] for each in known}) == 1:
        other = rng.choice(known)
        drawn[other] = not drawn[other]
    return drawn if len(known) > 1 else {}
