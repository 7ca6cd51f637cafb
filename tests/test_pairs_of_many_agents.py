"""All pairs of agents are compared up to a number of agents, since a run may name thousands."""

from __future__ import annotations

import pytest

from firsthand.errors import ConfigError
from firsthand.stats import multiple_comparisons
from firsthand.stats.multiple_comparisons import MAX_AGENTS, all_pairs


def test_pairs_of_more_agents_than_are_compared_are_refused_before_any_is(monkeypatch: pytest.MonkeyPatch):
    agents = {f"a{i}": {"1": [1.0], "2": [0.0]} for i in range(MAX_AGENTS + 1)}
    with pytest.raises(ConfigError, match=rf"^more agents \({MAX_AGENTS + 1}\) than the {MAX_AGENTS} whose"):
        all_pairs(agents)
    monkeypatch.setattr(multiple_comparisons, "MAX_AGENTS", 3)
    few = {name: agents[name] for name in ("a0", "a1", "a2")}
    assert list(all_pairs(few)) == [("a0", "a1"), ("a0", "a2"), ("a1", "a2")]
