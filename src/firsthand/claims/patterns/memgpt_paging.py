"""Paging of memory."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote="MemGPT: OS-inspired memory management with paging",
    source="Packer et al. 2023, arXiv:2310.08560",
    kind="sim",
    cost_s=1,
)
HOPS, EXAMPLES, KEYS, WINDOW = 4, 20, 140, 70
"""The paper's 140 pairs, 0 to 4 nested look-ups, and a window that holds half of the pairs."""
KEY = r"[0-9a-f]{8}-[0-9a-f-]{27}"


def measure(lab: Lab) -> Measurement:
    """A scripted reader that errs never, at the paper's nested key-value task: with pages of ten, and with its window."""
    import re
    from collections.abc import Sequence
    from statistics import fmean
    from typing import Any

    from firsthand.agent import Agent
    from firsthand.benchmarks.nested_kv import nested_kv, no_paging_accuracy
    from firsthand.message import Message, ToolCall, ToolResult, assistant
    from firsthand.model import Sampling
    from firsthand.patterns.direct import direct
    from firsthand.patterns.heartbeats import heartbeats
    from firsthand.providers.scripted import Scripted

    def reads(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
        said = messages[-1].text
        pairs: dict[str, str] = dict(re.findall(f'"({KEY})": "({KEY})"', said))
        key: str = re.findall(KEY, said.split("following key")[1])[0]
        while key in pairs:
            key = pairs[key]
        return key

    def pages(messages: Sequence[Message], sampling: Sampling, index: int) -> Any:
        calls = [call for message in messages for call in message.tool_calls]
        wanted = calls[-1].arguments["query"] if calls else ""
        told = [part.content for part in messages[-1].parts if isinstance(part, ToolResult)]
        if calls and not (values := re.findall(f"key = {wanted}, value = ({KEY})", told[-1])):
            return str(wanted)
        asked = values[0] if calls else re.findall(KEY, messages[-1].text.split("following key")[1])[0]
        return assistant("", ToolCall(str(len(calls)), "archival_memory_search", {"query": asked}))

    scores: dict[str, list[float]] = {}
    for name, reply, pattern, options in (
        ("paging", pages, heartbeats, {"paging": True}),
        ("window", reads, direct, {"paging": False, "shown": WINDOW}),
    ):
        benchmark = nested_kv(hops=f"0-{HOPS}", examples=EXAMPLES, keys=KEYS, **options)
        traces = lab.attempt(Agent(name, Scripted(reply), pattern), benchmark, (HOPS + 1) * EXAMPLES)
        scores[name] = [trace.value() or 0.0 for trace in traces]
    curves = {
        name: [(float(hops), fmean(each[hops * EXAMPLES : (hops + 1) * EXAMPLES])) for hops in range(HOPS + 1)]
        for name, each in scores.items()
    }
    rows = tuple(
        (str(hops), curves["paging"][hops][1], curves["window"][hops][1], no_paging_accuracy(KEYS, WINDOW, hops))
        for hops in range(HOPS + 1)
    )
    gain = paired(scores["paging"], scores["window"])
    return Measurement(
        gain.difference,
        f"accuracy with pages of ten less that with {WINDOW} of {KEYS} pairs in the window",
        gain.low,
        gain.high,
        len(scores["window"]),
        columns=("look-ups after the first", "paging", "window", "window, expected"),
        rows=rows,
        curves=curves,
        axes=("look-ups after the first", "accuracy"),
    )


def judge(m: Measurement) -> Verdict:
    """Fixed before measuring: above 0.5 at the lower end holds; any gain beyond chance is a part."""
    told = f"{m.value:+.0%} for a reader that pages rightly, over a window that holds half of the pairs"
    if m.bounds[0] > 0.5:
        return ruling(
            "holds here", f"{told}; whether a model pages by itself is what `firsthand run nested_kv` measures"
        )
    if m.bounds[0] > 0:
        return ruling("holds in part", told)
    return ruling("does not hold here", f"{told}, which is within chance")
