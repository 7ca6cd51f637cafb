"""Relevance of texts to queries by a cross-encoder: pairs are tokenised, sorted by length, and packed without padding.

Runs in the compiled kernels where they fit and are faster, else in torch. A pair's score does not depend on the others
(bit for bit with the compiled kernels). Left out: heads of several classes, decoders as rerankers.
"""

# N packed tokens, D hidden, P pairs

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from firsthand.embed.embedding import Floats, encode_start, packs_of
from firsthand.embed.embedding_config import model_folder
from firsthand.embed.pair_config import PairConfig, read_pair_config
from firsthand.errors import ConfigError, ModelError, ModelFileError
from firsthand.nn import weights
from firsthand.nn.compiled_encoder import CompiledEncoder, can_compile, is_fast_here
from firsthand.nn.encoder import Together
from firsthand.nn.pair_classifier import PairClassifier
from firsthand.tokens import pretrained
from firsthand.tokens.tokenizer import Tokenizer

_Pair = tuple[list[int], list[int]]
"""Ids and token types."""


class RelevanceModel:
    """A cross-encoder with its tokenizer and config. Thread-safe; `close` ends its threads."""

    def __init__(
        self,
        model: PairClassifier,
        tokenizer: Tokenizer,
        config: PairConfig,
        *,
        compiled: bool | None = None,
        threads: int | None = None,
    ):
        """`compiled`: True or False forces or forbids the compiled kernels; None uses them where they are faster."""
        if tokenizer.vocab_size > model.architecture.vocab_size:
            raise ModelFileError(
                f"the tokenizer has {tokenizer.vocab_size} tokens and the weights {model.architecture.vocab_size}: the "
                "files are from different models"
            )
        fits = can_compile(model.architecture)
        if compiled and not fits:
            raise ConfigError(
                "compiled kernels were asked for: they take BERT encoders whose widths are multiples of 32"
            )
        self.tokenizer, self.config, self.model = tokenizer, config, model
        self.is_compiled = fits and (compiled or (compiled is None and is_fast_here()))
        self._compiled = CompiledEncoder(model.encoder) if self.is_compiled else None
        workers = (threads or torch.get_num_threads()) if self.is_compiled else 1  # torch uses its own threads
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="firsthand-rerank")
        self._workers = workers

    def score(
        self, query: str, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False
    ) -> NDArray[np.float64]:
        """Returns the score of each text for the query, shape (P,): the logit, or its sigmoid if the model's files say so.

        `stopped` is called before each pack; when it returns True, raises ModelError.
        """
        if isinstance(texts, str):
            raise ConfigError("score takes a list of texts, not one text: put it in a list")
        pairs = self.pairs(query, texts)
        if not pairs:
            return np.zeros(0)
        order = sorted(range(len(pairs)), key=lambda place: len(pairs[place][0]), reverse=True)
        counts = packs_of([len(pairs[place][0]) for place in order], self._workers)
        ends = np.cumsum(counts)
        futures = [
            self._pool.submit(self._pack, [pairs[place] for place in order[end - count : end]], stopped)
            for count, end in zip(counts, ends, strict=True)
        ]
        try:
            logits = np.concatenate([future.result() for future in futures]).astype(np.float64)
        finally:
            for future in futures:
                future.cancel()
        if not np.isfinite(logits).all():
            raise ModelError("the reranker gave numbers that are not finite: its weights may be damaged")
        scores = np.empty(len(pairs))
        scores[order] = logits if self.config.activation == "identity" else 1 / (1 + np.exp(-logits.clip(-700, 700)))
        return scores

    def pairs(self, query: str, texts: Sequence[str]) -> list[_Pair]:
        """The ids and token types of each text with the query. No text can forge a control token."""
        for text in (query, *texts):
            if not isinstance(text, str):
                raise ConfigError(f"a text to score is {type(text).__name__} {str(text)[:80]!r}: give a str")
        most = self.config.max_pair_tokens
        asked = encode_start(self.tokenizer, query, most)
        return [self.config.ids(asked, encode_start(self.tokenizer, text, most)) for text in texts]

    def close(self) -> None:
        """End the threads and drop work that has not started."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _pack(self, pairs: Sequence[_Pair], stopped: Callable[[], bool]) -> Floats:
        """The logits of pairs that are computed together."""
        if stopped():
            raise ModelError("reranking was stopped before all texts were scored")
        lengths = [len(ids) for ids, _ in pairs]
        ids_N = np.concatenate([np.asarray(ids, np.int64) for ids, _ in pairs])
        types_N = np.concatenate([np.asarray(types, np.int64) for _, types in pairs])
        first_P = np.cumsum([0, *lengths[:-1]])
        with torch.inference_mode():
            if self._compiled is not None:
                hidden_PD = self._compiled.forward(ids_N, lengths, types_N)[first_P]
                # one row at a time: a product's bits may depend on its number of rows
                logits = [self.model.logits(row[None]) for row in torch.from_numpy(hidden_PD)]
                return torch.cat(logits).numpy()
            device = next(self.model.parameters()).device
            positions = torch.cat([torch.arange(length, device=device) for length in lengths])
            ids, types, first = (torch.from_numpy(each).to(device) for each in (ids_N, types_N, first_P))
            values: Floats = self.model(ids, positions, Together(lengths), types, first).float().cpu().numpy()
        return values


def load_relevance(
    path: Path | str, *, compiled: bool | None = None, threads: int | None = None, device: str = "cpu"
) -> RelevanceModel:
    """Returns the cross-encoder in a folder; ModelFileError if it is invalid or something else."""
    path = Path(path)
    if not path.is_dir():
        raise ModelFileError(f"{path} is no folder: a reranker is a folder with config.json and safetensors")
    folder = model_folder(path)
    model = weights.load_pair_classifier(folder, device=device)
    tokenizer = pretrained.load(folder)
    config = read_pair_config(folder, tokenizer, model.architecture.max_tokens, model.architecture.num_types)
    return RelevanceModel(model, tokenizer, config, compiled=compiled if device == "cpu" else False, threads=threads)
