"""Banking77's test questions as MTEB's type clustering: do the clusters of vectors follow the 77 intents?

No clustering set of MTEB's own: those are too large to be at hand. The procedure is MTEB's.
"""

from __future__ import annotations

from random import Random

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.mteb.labelled_texts import banking77, spec_with
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.scorers.embedded import cluster_v_measure
from firsthand.task import Task

SEED = 42


def mteb_banking77_clusters(*, data: str = "", samples: int = 10, size: int = 2048) -> Benchmark:
    """Return `samples` tasks, each to cluster `size` questions that were drawn with replacement."""
    if samples < 1 or size < 2:
        raise ConfigError(f"{samples} samples of {size} texts were asked for: give 1 or more of 2 or more")
    texts, labels = banking77("test", data)
    draw, spec = Random(SEED), spec_with("mteb_banking77_clusters", data=data)
    tasks = []
    for sample in range(samples):
        places = draw.choices(range(len(texts)), k=size)
        known = [labels[place] for place in places]
        about = {"type": "cluster", "places": places, "clusters": len(set(labels)), "shared": spec}
        tasks.append(
            Task(
                f"sample-{sample:02d}",
                "Cluster the questions.",
                metadata={"embedding": about},
                secret={"labels": known},
            )
        )
    return Benchmark(
        name="mteb_banking77_clusters",
        tasks=lambda seed: tasks,
        scorers=(cluster_v_measure,),
        description="Clusters of bank customers' questions, against their intents.",
        protocol=(
            f"{samples} samples of {size} texts drawn with replacement (seed {SEED}), mini-batch k-means with k = the "
            "number of labels and batches of 512, V-measure: MTEB's procedure since version 1.14; no published number"
        ),
        licence="CC-BY-4.0",
        options={"samples": samples, "size": size},
    )


def shared(*, data: str = "") -> Json:
    """Return all texts, from which samples are drawn."""
    return {"texts": banking77("test", data)[0]}
