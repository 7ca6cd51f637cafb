"""What a server tells of its replicas: a line for each in /health, and series with the label `replica` in /metrics."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.replica_slots import GAUGES, Status
from firsthand.message import Json
from firsthand.model import Embedder, Model


def statuses(part: Model | Embedder | None) -> Sequence[Status]:
    """The replicas, if a model or an embedder has any."""
    fleet = getattr(part, "fleet", None)
    return fleet.statuses() if isinstance(fleet, Fleet) else ()


def health(part: Model | Embedder | None) -> Json:
    """What /health says of them besides the server's own state. Everybody may ask, so it names no machine."""
    told = [{"replica": each.number, "state": each.state, "restarts": each.restarts} for each in statuses(part)]
    return {"replicas": told} if told else {}


def metrics(part: Model | Embedder | None) -> str:
    """Their series in Prometheus's text format; those named `firsthand_engine_...` are the sums."""
    found = statuses(part)
    if not found:
        return ""
    out: list[str] = []

    def put(name: str, kind: str, help: str, values: Sequence[tuple[Status, float]]) -> None:
        out.extend([f"# HELP firsthand_replica_{name} {help}", f"# TYPE firsthand_replica_{name} {kind}"])
        out.extend(f'firsthand_replica_{name}{{replica="{each.number}"}} {value:.9g}' for each, value in values)

    put("ready", "gauge", "1 if the replica answers.", [(each, int(each.state == "ready")) for each in found])
    put("restarts_total", "counter", "How often it was started again.", [(each, each.restarts) for each in found])
    put("answers", "gauge", "Answers it has under way.", [(each, each.answers) for each in found])
    for name in dict.fromkeys(name for each in found for name in each.counters):
        kind = "gauge" if name in GAUGES else "counter"
        shown = [(each, each.counters[name]) for each in found if name in each.counters]
        put(f"engine_{name}" + "_total" * (kind == "counter"), kind, f"{name} of the replica's engine.", shown)
    return "\n".join(out) + "\n"
