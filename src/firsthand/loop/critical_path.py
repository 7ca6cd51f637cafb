"""The critical path of an attempt: its longest chain of calls, each of which waited for the one before.

Call ids name a place in the tree of branches. The calls of one branch run in order, and of branches started together the
longest counts, so the number does not depend on how many calls of other attempts the machine ran meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from firsthand.trace import Call, Trace


def critical_calls(trace: Trace) -> int:
    """The number of calls on the critical path."""
    return round(_longest(trace, lambda call: 1.0))


def critical_seconds(trace: Trace) -> float:
    """The seconds of the calls on the critical path."""
    return _longest(trace, lambda call: call.duration_s)


def _longest(trace: Trace, weight: Callable[[Call], float]) -> float:
    if all(call.id.startswith(":") for call in trace.calls):  # one branch
        seconds = 0.0
        for call in trace.calls:
            seconds += weight(call)
        return seconds
    own: dict[str, float] = defaultdict(float)
    children: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for call in trace.calls:
        path = call.id.rpartition(":")[0]
        own[path] += weight(call)
        while path:  # "0.3/1.2" is child 2 of group 1 of the branch "0.3"
            parent, _, place = path.rpartition("/")
            children[parent][place.partition(".")[0]].add(path)
            path = parent
    total: dict[str, float] = {}
    for path in sorted({*own, *children, ""}, key=lambda path: path.count("/") + bool(path), reverse=True):
        groups = children[path].values() if path in children else ()
        total[path] = own.get(path, 0.0) + sum(max(total.get(child, 0.0) for child in group) for group in groups)
    return total[""]
