"""Joins the taps of the requests of one step: each sees a copy of its own rows, and edits no other's."""

# N packed tokens of a step's tapped requests, T tokens of one request in it

from __future__ import annotations

from collections import abc

from torch import Tensor

from firsthand.engine.core.sequence import SequenceChunk
from firsthand.errors import ConfigError
from firsthand.nn.sites import Tap


def taps_of_step(chunks: abc.Sequence[SequenceChunk], engine_taps: abc.Mapping[str, Tap] | None) -> dict[str, Tap]:
    """The taps of a step over packed chunks, in their order; the engine's own come before those of the requests."""
    sites = dict.fromkeys(site for chunk in chunks if chunk.sequence.taps for site in chunk.sequence.taps.taps)
    found = dict(engine_taps or {})
    for site in sites:
        found[site] = _of_site(site, chunks, found.get(site))
    return found


def _of_site(site: str, chunks: abc.Sequence[SequenceChunk], before: Tap | None) -> Tap:
    def tap(values_N: Tensor) -> Tensor | None:
        earlier = None if before is None else before(values_N)
        now_N = values_N if earlier is None else earlier
        edited_N, start = earlier, 0
        for chunk in chunks:
            rows = slice(start, start := start + chunk.end - chunk.start)
            taps = chunk.sequence.taps
            if taps is None or site not in taps.taps:
                continue
            new_T = taps.taps[site](now_N[rows].clone(), range(chunk.start, chunk.end), chunk.sequence.index)
            if new_T is None:
                continue
            if not taps.edits:
                raise ConfigError(f"a tap on {site} that only reads returned values: return None, or say edits=True")
            if new_T.shape != now_N[rows].shape or new_T.dtype != now_N.dtype:
                raise ConfigError(
                    f"the request's tap on {site} returned {tuple(new_T.shape)} {new_T.dtype}: expected "
                    f"{tuple(now_N[rows].shape)} {now_N.dtype}, or None to leave it as it is"
                )
            if edited_N is None or edited_N is earlier:
                edited_N = now_N.clone()
            edited_N[rows] = new_T
        return edited_N

    return tap
