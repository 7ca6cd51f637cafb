"""Keys and values of the source texts of an encoder-decoder's requests, for as long as their requests live."""

from __future__ import annotations

from collections import abc

from firsthand.engine.core.sequence import SequenceChunk, Source
from firsthand.nn.blocks.attention import Attend
from firsthand.nn.encoder_decoder import Sources
from firsthand.nn.sourced_decoder import SourcedAttend, SourcedDecoder, joined


class SourceCache:
    """The encoded sources of live requests."""

    def __init__(self, model: SourcedDecoder):
        self._model = model
        self._encoded: dict[Source, Sources] = {}
        self._latest: tuple[list[Source], Sources] | None = None
        """The sources of the step before, packed: decode steps of one batch have the same ones."""

    def __len__(self) -> int:
        """Returns how many sources are in memory."""
        return len(self._encoded)

    def forget(self, source: Source) -> None:
        """Free a source; one that was never computed is ignored."""
        self._encoded.pop(source, None)
        self._latest = None

    def over(self, chunks: abc.Sequence[SequenceChunk], own: Attend) -> SourcedAttend:
        """The attention of a step: `own` to the outputs so far, and to each chunk's source. New sources are encoded."""
        wanted = [chunk.sequence.source for chunk in chunks]
        sources = [source for source in wanted if source is not None]
        assert len(sources) == len(wanted), "each request to an encoder-decoder has a source"
        new = [source for source in dict.fromkeys(sources) if source not in self._encoded]
        if new:
            made = self._model.encoded([source.ids for source in new])
            self._encoded.update(zip(new, made, strict=True))
        if self._latest is None or self._latest[0] != sources:
            self._latest = sources, joined([self._encoded[source] for source in sources])
        return SourcedAttend(own, self._latest[1], [chunk.end - chunk.start for chunk in chunks])
