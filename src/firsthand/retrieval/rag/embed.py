"""Attempt an embedding task with the vectors of the agent's model: similarity, neighbours, classes, clusters, rankings.

The model is an embedder (`--model embedder:minilm`); the answer is JSON, which the scorers of MTEB's task types read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.concurrency import in_thread
from firsthand.loop.pattern_options import checked
from firsthand.message import Json
from firsthand.model import Embedder
from firsthand.retrieval.embedding_tasks.linear_probes import cluster, fit_classifiers
from firsthand.retrieval.embedding_tasks.shared_vectors import (
    few_per_label,
    once,
    shared_data,
    shared_vectors,
    vectors_of,
)
from firsthand.task import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float64]

SEED = 42
"""MTEB's."""


def _check_task(task: Task, **options: Any) -> None:
    if "embedding" not in task.metadata:
        raise ConfigError(
            f"task {task.id} is no embedding task: give embed a benchmark such as mteb_stsb, and other tasks another pattern"
        )


@checked(task=_check_task)
async def embed(task: Task, ctx: Context) -> str:
    """The answer that the vectors of the task's texts give, as JSON; its form depends on the type of the task."""
    about: Json = task.metadata.get("embedding", {})
    kinds = {
        "pair": _pair,
        "rerank": _rerank,
        "nearest": _nearest,
        "classify": _classify,
        "cluster": _cluster,
        "summary": _summary,
    }
    model = ctx.attempt.agent.model
    if about.get("type") not in kinds:
        raise ConfigError(f"task {task.id} has the embedding type {about.get('type')!r}: one of {', '.join(kinds)}")
    if not callable(getattr(model, "embed", None)):
        raise ConfigError(f"{ctx.attempt.agent.name} answers in words: give an embedder, as in --model embedder:minilm")
    return await kinds[about["type"]](about, cast(Embedder, model), model.fingerprint, ctx)


async def _pair(about: Json, model: Embedder, fingerprint: str, ctx: Context) -> str:
    """Similarities of two texts; distances are negative, so that more is always more alike."""
    import numpy as np

    a_F, b_F = await vectors_of(model, about["texts"])
    lengths = np.linalg.norm(a_F) * np.linalg.norm(b_F)
    return json.dumps(
        {
            "cosine": float(a_F @ b_F / lengths) if lengths else 0.0,
            "dot": float(a_F @ b_F),
            "euclidean": -float(np.linalg.norm(a_F - b_F)),
            "manhattan": -float(np.abs(a_F - b_F).sum()),
        }
    )


async def _rerank(about: Json, model: Embedder, fingerprint: str, ctx: Context) -> str:
    """The candidates' ids by falling cosine with the query, ties by the order given."""
    ids, places = list(about["candidates"]), list(about["candidates"].values())
    vectors = await shared_vectors(model, fingerprint, shared_data(about["shared"])["texts"])
    cosines = _cosines(await vectors_of(model, [about["query"]]), vectors[places])[0]
    order = sorted(range(len(ids)), key=lambda place: (-cosines[place], place))
    documents = [ids[place] for place in order]
    ctx.note("ranking", documents=documents, scores=[float(cosines[place]) for place in order])
    return json.dumps(documents)


async def _nearest(about: Json, model: Embedder, fingerprint: str, ctx: Context) -> str:
    """The place of the most similar of all shared texts."""
    vectors = await shared_vectors(model, fingerprint, shared_data(about["shared"])["texts"])
    return str(int(_cosines(await vectors_of(model, [about["text"]]), vectors)[0].argmax()))


async def _classify(about: Json, model: Embedder, fingerprint: str, ctx: Context) -> str:
    """The label by each of several classifiers, which were fitted to few examples."""
    shared = shared_data(about["shared"])

    async def fit() -> Any:
        labels: Sequence[str] = shared["labels"]
        draws = few_per_label(labels, int(shared["per_label"]), int(shared["draws"]), SEED)
        used = sorted({place for chosen in draws for place in chosen})
        at = {place: row for row, place in enumerate(used)}
        vectors = await vectors_of(model, [shared["texts"][place] for place in used])
        rows = [[at[place] for place in chosen] for chosen in draws]
        return await in_thread(lambda: fit_classifiers(vectors, [labels[place] for place in used], rows, seed=SEED))

    classifiers = await once(f"classifiers {fingerprint} {about['shared']}", fit)
    return json.dumps(classifiers.predict((await vectors_of(model, [about["text"]]))[0]))


async def _cluster(about: Json, model: Embedder, fingerprint: str, ctx: Context) -> str:
    """The cluster of each text of a sample, drawn with replacement from the shared texts."""
    vectors = await shared_vectors(model, fingerprint, shared_data(about["shared"])["texts"])
    sample, clusters = list(about["places"]), int(about["clusters"])
    return json.dumps(await in_thread(lambda: cluster(vectors[sample], clusters, seed=SEED)))


async def _summary(about: Json, model: Embedder, fingerprint: str, ctx: Context) -> str:
    """For each machine summary its cosine with the most similar human summary."""
    human, machine = list(about["human"]), list(about["machine"])
    vectors = await vectors_of(model, [*machine, *human])
    return json.dumps([float(row.max()) for row in _cosines(vectors[: len(machine)], vectors[len(machine) :])])


def _cosines(a_NF: Vectors, b_MF: Vectors) -> Vectors:
    """Cosines of all pairs, shape (N, M); 0 with a vector of zeros."""
    import numpy as np

    def unit(rows: Vectors) -> Vectors:
        made: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return made

    cosines: Vectors = unit(a_NF) @ unit(b_MF).T
    return cosines
