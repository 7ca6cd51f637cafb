"""Delivery by publish and subscribe."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Publish/subscribe: Agents emit events, others react asynchronously",
    source="the list's communication kinds",
    kind="ours",
    cost_s=1,
)
GROUPS = ("buyers", "sellers")
EVENTS = 50


def measure(lab: Lab) -> Measurement:
    """Events are published before anybody asks for them."""
    import tempfile
    from pathlib import Path

    from firsthand.messaging.sqlite_messaging import SqliteMessaging

    with tempfile.TemporaryDirectory() as folder, SqliteMessaging(Path(folder) / "bus.db") as bus:
        for group in GROUPS:
            bus.subscribe(group, "news.*", after=0)
        bus.publish("news.prices", [str(number) for number in range(EVENTS)], sender="market")
        got = {}
        for group in GROUPS:
            items = bus.fetch(group, EVENTS)
            bus.acknowledge(group, [item.message.offset for item in items])
            got[group] = len(items) if not bus.fetch(group, EVENTS) else 0
    rows = tuple((group, float(count)) for group, count in got.items())
    return Measurement(
        min(got.values()) / EVENTS,
        "events that each group of subscribers got once",
        n=EVENTS,
        columns=("group", "events"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """Every event, once."""
    if m.value == 1:
        return ruling("holds here", "each group gets each event once, whenever it asks")
    return ruling("does not hold here", f"a group gets only {m.value:.0%} of the events once")
