"""Communities of a graph by hierarchical Leiden (Traag et al., 2019), through graspologic-native.

Communities with `max_cluster_size` members or more are divided again, level by level. The whole graph is divided; the
reference takes its largest connected component alone, so that entities outside of it are in no report (an option here).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from firsthand.errors import ConfigError, MissingExtra

SEED = 0xDEADBEEF
Edge = tuple[str, str, float]


@dataclass(frozen=True)
class LeidenSettings:
    """Settings of the division; the defaults are GraphRAG's."""

    max_cluster_size: int = 10
    resolution: float = 1.0
    """Of modularity; higher makes smaller communities."""
    randomness: float = 0.001
    iterations: int = 1
    seed: int = SEED
    largest_component: bool = False
    """Divide the largest connected component alone, as the reference does."""

    def __post_init__(self) -> None:
        if self.max_cluster_size < 1 or self.iterations < 1 or not (self.resolution > 0 and self.randomness > 0):
            raise ConfigError(
                f"max_cluster_size is {self.max_cluster_size}, iterations {self.iterations}, resolution "
                f"{self.resolution} and randomness {self.randomness}: give the first two from 1, the others above 0"
            )


@dataclass(frozen=True)
class Community:
    """A set of names that are more connected with each other than with the rest."""

    id: int
    """Unique over all levels."""
    level: int
    """0 is the coarsest."""
    parent: int | None
    members: tuple[str, ...]
    """In alphabetical order."""


def communities(edges: Iterable[Edge], settings: LeidenSettings | None = None) -> list[Community]:
    """The communities of all levels, by id; none for no edges. Names without an edge are in none.

    Equal edges give equal communities, in whatever order they come.
    """
    settings = settings or LeidenSettings()
    weights: dict[tuple[str, str], float] = {}
    for source, target, weight in edges:
        if source != target and weight > 0:
            pair = (min(source, target), max(source, target))
            weights[pair] = weights.get(pair, 0.0) + weight
    if settings.largest_component:
        kept = max(components(weights), key=lambda names: (len(names), sorted(names)), default=frozenset())
        weights = {pair: weight for pair, weight in weights.items() if pair[0] in kept}
    if not weights:
        return []
    try:
        import graspologic_native
    except ImportError:
        raise MissingExtra("graspologic-native", "rag", "dividing a graph into communities") from None
    found = graspologic_native.hierarchical_leiden(
        [(*pair, weight) for pair, weight in sorted(weights.items())],
        starting_communities=None,
        resolution=settings.resolution,
        randomness=settings.randomness,
        iterations=settings.iterations,
        use_modularity=True,
        max_cluster_size=settings.max_cluster_size,
        seed=settings.seed,
    )
    members: dict[int, list[str]] = {}
    places: dict[int, tuple[int, int | None]] = {}
    for each in found:
        members.setdefault(each.cluster, []).append(each.node)
        places[each.cluster] = (each.level, each.parent_cluster)
    return [Community(id, *places[id], tuple(sorted(members[id]))) for id in sorted(members)]


def components(pairs: Iterable[tuple[str, str]]) -> list[frozenset[str]]:
    """The connected components of a graph, each as a set of names."""
    neighbours: dict[str, list[str]] = {}
    for source, target in pairs:
        neighbours.setdefault(source, []).append(target)
        neighbours.setdefault(target, []).append(source)
    found: list[frozenset[str]] = []
    seen: set[str] = set()
    for first in neighbours:
        if first in seen:
            continue
        reached, queue = {first}, [first]
        while queue:
            new = [name for name in neighbours[queue.pop()] if name not in reached]
            reached.update(new)
            queue += new
        seen |= reached
        found.append(frozenset(reached))
    return found


def at_level(found: Sequence[Community], level: int) -> list[Community]:
    """The communities that divide all names at a level: for each name its finest one that is no finer than `level`."""
    finest: dict[str, Community] = {}
    for community in sorted(found, key=lambda each: each.level):
        if community.level <= level:
            finest |= dict.fromkeys(community.members, community)
    return sorted(set(finest.values()), key=lambda each: each.id)
