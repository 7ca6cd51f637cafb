"""Opens the model and the texts of Toolformer, and makes its data: C* of the paper, texts with the calls that were kept."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from firsthand import catalog
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, DataError, StoreError, TrainingError
from firsthand.hub import model_lookup
from firsthand.message import Json
from firsthand.nn import weights
from firsthand.nn.decoder import Decoder
from firsthand.providers.local import Local
from firsthand.system import interruption
from firsthand.system.new_file import write_new
from firsthand.tokens import pretrained
from firsthand.tokens.calls.inline_call import InlineCall
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.tool import Tool
from firsthand.train.conversations import Conversation, encode_conversations
from firsthand.train.data_order import digest, split
from firsthand.train.documents import json_lines, text_field
from firsthand.train.processes import together
from firsthand.train.streams import Stream
from firsthand.train.toolformer.call_evaluation import held_out_calls
from firsthand.train.toolformer.call_filter import kept_calls, shuffled_results, with_calls
from firsthand.train.toolformer.call_proposals import Annotator
from firsthand.train.training_run import TrainingRun

CALLS = "calls.jsonl"


class ToolformerConfig(Protocol):
    """The settings of the recipe that are read here."""

    @property
    def data(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def tools(self) -> tuple[str, ...]: ...
    @property
    def places(self) -> int: ...
    @property
    def start_probability(self) -> float: ...
    @property
    def samples(self) -> int: ...
    @property
    def threshold(self) -> float: ...
    @property
    def most(self) -> int: ...
    @property
    def corrupt(self) -> bool: ...
    @property
    def holdout(self) -> float: ...


@dataclass
class OpenedTexts:
    """The model in training, the same in an engine, and the texts to annotate and those held out."""

    path: Path
    model: Decoder
    tokenizer: Tokenizer
    annotator: Annotator
    runner: interruption.Runner
    texts: list[Stream]
    held_out: list[Stream]
    updates: int = field(default=0, init=False)

    def evaluated(self) -> dict[str, float]:
        """The loss on the held-out texts with the weights of now, with and without calls."""
        self.updates += 1
        self.runner.run(self.annotator.local.update(self.model.state_dict(), self.updates))
        return self.runner.run(held_out_calls(self.annotator, [each.ids for each in self.held_out]))


@contextmanager
def opened_texts(config: ToolformerConfig, run: TrainingRun) -> Iterator[OpenedTexts]:
    """Open the model, its engine and the texts. ConfigError for a tool that does more than read."""
    if not config.data:
        raise ConfigError(
            "give a JSONL file of texts, as in `firsthand train toolformer texts.jsonl --tools calculator`"
        )
    tools = reading_tools(config.tools)
    path = model_lookup.resolve(config.model)
    tokenizer = pretrained.load(path)
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    read = [Conversation(where, text=text_field(body, where)) for body, where in json_lines(Path(config.data))]
    context = weights.open_checkpoint(path).architecture.max_position
    encoded = encode_conversations(read, tokenizer, chat, context=context)
    texts, held_out = split(encoded.streams, config.holdout, seed=run.loop.seed)
    print(f"{encoded}; {len(held_out)} of them held out")
    model = weights.load(path, device=str(run.device))
    local = Local(path, config=EngineConfig(weights="float32", kv_cache="float32", max_batch_tokens=2048))
    try:
        with interruption.Runner() as runner:
            annotator = Annotator(model, local, tokenizer, tools, micro_tokens=run.loop.micro_tokens)
            yield OpenedTexts(path, model, tokenizer, annotator, runner, texts, held_out)
    finally:
        local.close()


def reading_tools(given: Sequence[str]) -> dict[str, Tool]:
    """The tools by name. ConfigError for one that changes something, since calls are executed as a model samples them, and
    for `mcp:SERVER`, since no attempt opens a server.
    """
    found = {tool.name: tool for text in given for tool in catalog.tools(text)}
    for name, tool in found.items():
        if tool.effect != "read":
            raise ConfigError(
                f"the tool {name!r} has the effect {tool.effect!r}, and calls are executed as they are sampled: give tools "
                "that only read"
            )
    if not found:
        raise ConfigError("tools is empty: name one or more, such as `--tools calculator`")
    return found


def annotated(opened: OpenedTexts, config: ToolformerConfig, run: TrainingRun) -> list[Stream]:
    """The texts with calls that were kept, at most `most`, as streams of which all tokens count; a resumed run reads them.

    TrainingError if no call is kept.
    """
    file, context = run.folder / CALLS, opened.model.architecture.max_position
    texts = [each.ids for each in opened.texts]
    data = digest(texts)
    rows = _read(file, data) if run.is_resumed else None
    if rows is None and run.track is not None:  # of several processes, the first
        rows, counts = _judged(opened, config, run.loop.seed)
        _write([{"data": data}, *rows], file)
        run.track.log({**opened.evaluated(), **counts}, step=0)
        print("; ".join(f"{name.replace('_', ' ')} {number:,.0f}" for name, number in counts.items()))
    together()
    rows = _read(file, data) if rows is None else rows
    assert rows is not None
    calls: dict[int, dict[int, list[int]]] = defaultdict(dict)
    for row in rows:
        if row["kept"]:
            written = InlineCall(row["tool"], row["input"]).written(row["result"])
            calls[row["text"]][row["place"]] = opened.annotator.encoded(written)
    longer = [with_calls(texts[text], calls[text]) for text in sorted(calls)]
    streams = [Stream(ids, ce=np.ones(len(ids), np.float32)) for ids in longer if len(ids) <= context]
    if not streams:
        raise TrainingError(
            f"none of {len(rows)} calls lowers the loss by {config.threshold:g}, so there is nothing to train on: look at "
            f"the gains in {file}, lower --threshold, or sample more calls"
        )
    return streams[: config.most]


def _judged(opened: OpenedTexts, config: ToolformerConfig, seed: int) -> tuple[list[Json], dict[str, float]]:
    """Every judged call with its verdict, and the counts of each step."""
    annotator, texts = opened.annotator, [each.ids for each in opened.texts]
    places = annotator.places(texts, most=config.places, above=config.start_probability)
    proposed, counts = opened.runner.run(annotator.proposals(texts, places, count=config.samples, seed=seed))
    judged = annotator.judged(texts, shuffled_results(proposed, seed=seed) if config.corrupt else proposed)
    kept = kept_calls(judged, threshold=config.threshold)
    chosen = set(map(id, kept))
    rows = [each.to_json(kept=id(each) in chosen) for each in judged]
    return rows, counts | {"kept": float(len(kept)), "texts_with_calls": float(len({e.proposed.text for e in kept}))}


def _write(rows: Sequence[Json], file: Path) -> None:
    try:
        write_new(file, "".join(json.dumps(row) + "\n" for row in rows))
    except OSError as error:
        raise StoreError(f"{file} cannot be written ({error.strerror or error}): make room, then try again") from None


def _read(file: Path, data: str) -> list[Json] | None:
    """The judged calls of a run that is resumed; None if it was stopped before they were known."""
    if not file.exists():
        return None
    first, *rows = (body for body, _ in json_lines(file))
    if first.get("data") != data:
        raise DataError(f"the texts are not those of which {file} has the calls: give the same texts, or begin anew")
    return rows
