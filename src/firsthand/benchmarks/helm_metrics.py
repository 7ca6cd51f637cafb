"""Any benchmark with HELM's seven metrics: its tasks, perturbed copies of them, and figures that compare the two.

firsthand run gsm8k --metrics helm --limit 20
firsthand run "helm_metrics:of=gsm8k;protocol=cot-8shot:items=20:perturbations=typos,dialect"
"""

from __future__ import annotations

from firsthand import catalog
from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError
from firsthand.perturbations.helm_figures import with_helm_metrics
from firsthand.perturbations.perturbed_benchmark import PERTURBATIONS


def helm_metrics(*, of: str = "arithmetic", items: int = 0, perturbations: str = "", seed: int = 0) -> Benchmark:
    """Return the benchmark `of` with copies and figures; `items` of 0 are all tasks.

    The options of `of` follow semicolons.
    """
    if of.startswith("helm_metrics"):
        raise ConfigError("of names helm_metrics itself: name the benchmark to perturb")
    if items < 0:
        raise ConfigError(f"items is {items}: give a number of tasks, or 0 for all")
    names = tuple(each.strip() for each in perturbations.split(",")) if perturbations else tuple(PERTURBATIONS)
    return with_helm_metrics(catalog.benchmark(of.replace(";", ":")), names, seed=seed, items=items or None)
