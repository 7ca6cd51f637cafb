"""Beam search over segments of an answer: the best `beam` beginnings survive each step (Asai et al., 2023, §3.3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from firsthand.retrieval.reflection.critique import Combine, Critique, path_score
from firsthand.retrieval.retriever import Hit


@dataclass(frozen=True)
class Segment:
    """A part of an answer, with the passage it was written from and its score."""

    text: str
    score: float
    critique: Critique = field(default_factory=Critique)
    hit: Hit | None = None
    marks: str = ""
    """The reflection tokens that follow it, for models that have them."""
    is_last: bool = False
    """True if the model ended the answer with it."""


@dataclass(frozen=True)
class SegmentPath:
    """An answer, or the beginning of one."""

    segments: tuple[Segment, ...] = ()
    is_ended: bool = False

    @property
    def text(self) -> str:
        """The segments joined."""
        return " ".join(each.text.strip() for each in self.segments if each.text.strip())

    def score(self, combine: Combine) -> float:
        """The score of the whole."""
        return path_score(tuple(each.score for each in self.segments), combine)

    def followed_by(self, segment: Segment) -> SegmentPath:
        """The path with one more segment; an empty one ends it without counting."""
        kept = (*self.segments, segment) if segment.text.strip() else self.segments
        return SegmentPath(kept, segment.is_last or not segment.text.strip())


Expand = Callable[[SegmentPath], Awaitable[Sequence[Segment]]]
"""The possible next segments of a path."""
Together = Callable[[Sequence[Awaitable[Sequence[Segment]]]], Awaitable[Sequence[Sequence[Segment]]]]
"""Runs several expansions at once, such as `ctx.group`."""


async def segment_beam(
    expand: Expand, together: Together, *, beam: int = 2, depth: int = 7, combine: Combine = "mean"
) -> list[SegmentPath]:
    """At most `beam` answers of at most `depth` segments, best first. Ended ones compete with those that go on.

    Ties go to the answer that was found first.
    """
    kept = [SegmentPath()]
    for _ in range(depth):
        live = [path for path in kept if not path.is_ended]
        if not live:
            break
        grown = await together([expand(path) for path in live])
        found = [path for path in kept if path.is_ended]
        for path, segments in zip(live, grown, strict=True):
            found += [path.followed_by(segment) for segment in segments] or [SegmentPath(path.segments, True)]
        kept = sorted(_distinct(found), key=lambda path: -path.score(combine))[:beam]
    return kept


def _distinct(paths: Sequence[SegmentPath]) -> list[SegmentPath]:
    """Each path once: an answer may end in several ways."""
    found: dict[object, SegmentPath] = {}
    for path in paths:
        told = tuple((each.text, None if each.hit is None else each.hit.chunk.id) for each in path.segments)
        found.setdefault((told, path.is_ended), path)
    return list(found.values())
