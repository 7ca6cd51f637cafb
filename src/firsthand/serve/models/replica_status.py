"""The status of a server's replicas: a line for each in /health, and series with the label `replica` in /metrics."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.replica_slots import GAUGES, ReplicaStatus
from firsthand.cluster.replicas.replicated_model import ReplicatedEmbedder, ReplicatedModel
from firsthand.message import Json
from firsthand.model import Embedder, Model


def fleet_of(part: Model | Embedder | None) -> Fleet | None:
    """The fleet behind a model or an embedder; None if it has no replicas."""
    return part.fleet if isinstance(part, ReplicatedModel | ReplicatedEmbedder) else None


def health(part: Model | Embedder | None) -> Json:
    """The replicas' part of /health. Anybody may ask for it, so it names no machine."""
    replicas = [{"replica": each.number, "state": each.state, "restarts": each.restarts} for each in _statuses(part)]
    return {"replicas": replicas} if replicas else {}


def metrics(part: Model | Embedder | None) -> str:
    """The replicas' series in Prometheus's text format; those named `firsthand_engine_...` are their sums."""
    statuses = _statuses(part)
    if not statuses:
        return ""
    out: list[str] = []

    def put(name: str, kind: str, help: str, values: Sequence[tuple[ReplicaStatus, float]]) -> None:
        out.extend([f"# HELP firsthand_replica_{name} {help}", f"# TYPE firsthand_replica_{name} {kind}"])
        out.extend(f'firsthand_replica_{name}{{replica="{each.number}"}} {value:.9g}' for each, value in values)

    put("ready", "gauge", "1 if the replica answers.", [(each, int(each.state == "ready")) for each in statuses])
    put("restarts_total", "counter", "How often it was restarted.", [(each, each.restarts) for each in statuses])
    put("answers", "gauge", "Answers it has under way.", [(each, each.answers) for each in statuses])
    for name in dict.fromkeys(name for each in statuses for name in each.counters):
        kind = "gauge" if name in GAUGES else "counter"
        values = [(each, each.counters[name]) for each in statuses if name in each.counters]
        put(f"engine_{name}" + "_total" * (kind == "counter"), kind, f"{name} of the replica's engine.", values)
    return "\n".join(out) + "\n"


def _statuses(part: Model | Embedder | None) -> Sequence[ReplicaStatus]:
    fleet = fleet_of(part)
    return fleet.statuses() if fleet else ()
