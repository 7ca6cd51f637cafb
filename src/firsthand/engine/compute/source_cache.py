"""Keys and values of the source texts of an encoder-decoder's requests, for as long as their requests live."""

from __future__ import annotations

from collections import abc

from firsthand.engine.core.request_checks import check_ids
from firsthand.engine.core.sequence import SequenceChunk, Source
from firsthand.errors import ConfigError, PromptTooLong
from firsthand.nn.blocks.attention import Attend
from firsthand.nn.decoder import Decoder
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


def check_source(source: abc.Sequence[int], model: Decoder) -> None:
    """Raise PromptTooLong, ModelError or ConfigError unless a source fits the model: encoder-decoders alone read one."""
    if not isinstance(model, SourcedDecoder):
        if source:
            raise ConfigError("a source is given, and the model is no encoder-decoder: give its text as the prompt")
        return
    if not source:
        raise ConfigError("the model is an encoder-decoder and the request has no source: give the text that it reads")
    most = model.architecture.max_position
    if len(source) > most:
        raise PromptTooLong(f"the source has {len(source)} tokens: the model reads at most {most}, so shorten it")
    check_ids(source, "the source", model.architecture)


def check_replaceable(model: Decoder) -> None:
    """Raise ConfigError if a model's weights cannot be replaced while its engine runs."""
    if isinstance(model, SourcedDecoder):
        raise ConfigError(
            "the weights of an encoder-decoder cannot be replaced in an engine: open the new files instead"
        )
