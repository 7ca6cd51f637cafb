"""Counters, gauges and histograms in Prometheus's text format, version 0.0.4. For one event loop; no locks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIRST_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
BETWEEN_S = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
WHOLE_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Histogram:
    """Counts values by upper bound."""

    def __init__(self, bounds: Sequence[float]):
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str) -> Iterable[str]:
        """Its lines in the text format."""
        running = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            running += count
            yield f'{name}_bucket{{le="{"+Inf" if bound == float("inf") else f"{bound:g}"}"}} {running}'
        yield f"{name}_sum {self.total:.9g}"
        yield f"{name}_count {running}"


class Metrics:
    """The counters and histograms of a server."""

    def __init__(self) -> None:
        self.first_token = Histogram(FIRST_S)
        self.between_tokens = Histogram(BETWEEN_S)
        self.whole = Histogram(WHOLE_S)
        self.requests: dict[tuple[str, str], int] = {}
        """By route and status."""
        self.tokens = {"prompt": 0, "cached": 0, "completion": 0}
        self.disconnects = 0
        self.log_failures = 0

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that ended."""
        key = (route, str(status))
        self.requests[key] = self.requests.get(key, 0) + 1
        self.whole.observe(seconds)

    def mean_request_s(self) -> float:
        """The mean duration of a request, in seconds; 1 before the first has ended."""
        count = sum(self.whole.counts)
        return self.whole.total / count if count else 1.0

    def text(self, engine: Mapping[str, float], *, ready: bool, in_flight: int) -> str:
        """All series. `engine` holds the engine's numbers by name, `in_flight` counts requests without a whole answer."""
        out: list[str] = []

        def put(name: str, kind: str, help: str, lines: Iterable[str]) -> None:
            out.extend([f"# HELP firsthand_{name} {help}", f"# TYPE firsthand_{name} {kind}", *lines])

        def single(name: str, kind: str, help: str, value: float) -> None:
            put(name, kind, help, [f"firsthand_{name} {value:.9g}"])

        def histogram(name: str, help: str, values: Histogram) -> None:
            put(name, "histogram", help, values.lines(f"firsthand_{name}"))

        histogram("time_to_first_token_seconds", "From the whole request to its first token.", self.first_token)
        histogram("inter_token_latency_seconds", "Between two tokens of one answer.", self.between_tokens)
        histogram("request_seconds", "From the first byte to the end of the answer.", self.whole)
        counts = [
            f'firsthand_requests_total{{route="{route}",code="{code}"}} {count}'
            for (route, code), count in sorted(self.requests.items())
        ]
        put("requests_total", "counter", "Requests that ended, by route and status code.", counts)
        counts = [f'firsthand_tokens_total{{kind="{kind}"}} {count}' for kind, count in self.tokens.items()]
        put("tokens_total", "counter", "Tokens of answered requests; cached ones are among those of prompts.", counts)
        single("requests_in_flight", "gauge", "Requests that have no whole answer yet.", in_flight)
        single("disconnects_total", "counter", "Clients that left before their answer ended.", self.disconnects)
        single("log_failures_total", "counter", "Lines that the log could not write.", self.log_failures)
        single("ready", "gauge", "1 if requests are answered.", int(ready))
        for name, (kind, help) in _ENGINE.items():
            if name in engine:
                single(f"engine_{name}" + "_total" * (kind == "counter"), kind, help, engine[name])
        if engine.get("num_blocks"):
            share = engine["used_blocks"] / engine["num_blocks"]
            single("engine_kv_usage_ratio", "gauge", "Share of the KV cache's blocks that running answers use.", share)
        if engine.get("prompt_tokens"):
            rate = engine["cached_tokens"] / engine["prompt_tokens"]
            single("engine_cache_hit_ratio", "gauge", "Share of prompt tokens not computed again.", rate)
        return "\n".join(out) + "\n"


_ENGINE = {
    "running": ("gauge", "Answers being computed."),
    "waiting": ("gauge", "Answers waiting for the engine."),
    "oldest_wait_s": ("gauge", "Seconds that the oldest waiting answer has waited."),
    "num_blocks": ("gauge", "Blocks of the KV cache."),
    "adapters": ("gauge", "Adapters in memory."),
    "used_blocks": ("gauge", "Blocks of running answers."),
    "cached_blocks": ("gauge", "Blocks of cached prefixes that no answer uses."),
    "requests": ("counter", "Requests that the engine accepted."),
    "refused": ("counter", "Requests refused because too many waited."),
    "steps": ("counter", "Steps computed."),
    "prompt_tokens": ("counter", "Prompt tokens of started requests."),
    "cached_tokens": ("counter", "Prompt tokens found in the prefix cache."),
    "prefill_tokens": ("counter", "Prompt tokens computed."),
    "decode_tokens": ("counter", "Answer tokens computed."),
    "forced_tokens": ("counter", "Answer tokens that a grammar forced."),
    "preemptions": ("counter", "Answers that were preempted."),
}
