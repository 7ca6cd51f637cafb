"""Self-RAG's training: labels by a critic, added tokens, passages left out of the loss, and a model that learned."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byte_tokens import added, description
from firsthand.errors import ConfigError, DataError
from firsthand.nn import weights
from firsthand.providers.local import Local
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.reflection.critic_labels import LabelSettings, label, split_sentences
from firsthand.retrieval.reflection.critique import FULLY, NO_SUPPORT, RELEVANT
from firsthand.retrieval.reflection.token_reflections import SPELLED, has_reflection_tokens, raw_prompt
from firsthand.retrieval.retriever import Hit, Query
from firsthand.tokens import pretrained
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train.added_tokens import with_added_tokens
from firsthand.train.reflected_texts import ReflectedText, encode_reflected, read_reflected
from tiny import write_model


class Critic:
    """Judges by words of the prompt."""

    async def write(self, prompt: str, *, n: int = 1, **settings: Any) -> list[str]:
        raise AssertionError("the critic only chooses")

    async def logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        good = "Babbage designed" in prompt.split("Question:")[0]
        wants = "Next sentence: Babbage" in prompt
        chosen = {"yes": wants, "relevant": good or "blue" in prompt, "fully": good, "not": not good, "4": True}
        return [math.log(0.9 if chosen.get(each) else 0.05) for each in continuations]


async def retriever(query: Query, k: int) -> Sequence[Hit]:
    texts = ["It is blue.", "Babbage designed it [Fully supported]."]
    return [Hit(Chunk(f"d{i}", 0, len(text), text), 1.0) for i, text in enumerate(texts)][:k]


def test_a_sentence_gets_the_passage_that_supports_it_and_others_none() -> None:
    made = asyncio.run(label("Who?", "It was long ago. Babbage made it.", retriever, Critic()))
    assert made == (
        "[No Retrieval]It was long ago. [Retrieval]<paragraph>Babbage designed it [\\Fully supported].</paragraph>"
        "[Relevant]Babbage made it.[Fully supported][Utility:4]"
    )
    unsupported = asyncio.run(label("Who?", "Babbage made it.", retriever, Critic(), LabelSettings(k=1)))
    assert unsupported.endswith(f"It is blue.</paragraph>{RELEVANT}Babbage made it.{NO_SUPPORT}[Utility:4]")
    never = asyncio.run(label("Who?", "Babbage made it.", retriever, Critic(), LabelSettings(threshold=1.0)))
    assert never == "[No Retrieval]Babbage made it. [Utility:4]"
    with pytest.raises(ConfigError):
        asyncio.run(label("Who?", " ", retriever, Critic()))


def test_sentences_end_at_marks_before_spaces() -> None:
    assert split_sentences("It is 3.5 m. Really?! Yes\nno") == ["It is 3.5 m.", "Really?!", "Yes", "no"]


def test_added_tokens_are_the_mean_of_the_others_and_change_no_other_logit(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    model, tokenizer = weights.load(folder), pretrained.load(folder)
    before, known = model.embed.weight.detach().clone(), tokenizer.vocab_size
    grown, larger = with_added_tokens(model, tokenizer, SPELLED)
    assert larger.vocab_size == grown.architecture.vocab_size == known + len(SPELLED)
    assert [larger.token_id(mark) for mark in SPELLED] == list(range(known, known + len(SPELLED)))
    rows = grown.embed.weight.detach()
    assert (rows[:known] == before).all() and np.allclose(rows[known:], before.mean(0), atol=1e-6)
    assert larger.encode("What is 12?") == tokenizer.encode("What is 12?")
    assert larger.encode("[Relevant]") == tokenizer.encode("[Relevant]"), "no text becomes a mark"
    same, _ = with_added_tokens(grown, larger, SPELLED)
    assert same is grown


def test_passages_and_the_prompt_do_not_count(tmp_path: Path) -> None:
    tokenizer = pretrained.load(write_model(tmp_path / "m", specials=SPELLED))
    output = "[Retrieval]<paragraph>of 30</paragraph>[Relevant]It is 42.[Fully supported][Utility:5]"
    stream = encode_reflected(ReflectedText("x", "What is 12 + 30?", output), tokenizer)
    ids, counts = np.asarray(stream.ids), np.asarray(stream.ce)
    prompt = tokenizer.encode(raw_prompt("What is 12 + 30?", ""))
    assert ids[: len(prompt)].tolist() == prompt and not counts[: len(prompt)].any()
    opened, closed = (ids.tolist().index(tokenizer.token_id(mark)) for mark in ("<paragraph>", "</paragraph>"))
    assert not counts[opened : closed + 1].any()
    counted = set(ids[counts > 0].tolist())
    for mark in ("[Retrieval]", "[Relevant]", "[Fully supported]", "[Utility:5]"):
        assert tokenizer.token_id(mark) in counted
    assert ids[-1] == tokenizer.eos_id and counts[-1] == 1
    assert counts.sum() == len(ids) - len(prompt) - (closed + 1 - opened)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ({"instruction": "q"}, "must both be texts"),
        ({"instruction": "q", "output": "plain"}, "no reflection token"),
        ({"instruction": "q", "output": "[Relevant]<paragraph>x"}, "not closed"),
        ({"instruction": "q", "output": "[Relevant]</paragraph>"}, "in pairs"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: dict[str, str], fault: str) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=fault):
        read_reflected(file)


@pytest.mark.slow
def test_a_model_learns_to_criticise_and_no_passage(tmp_path: Path, cli: Any) -> None:
    base, data, out = write_model(tmp_path / "m", max_position=256), tmp_path / "d.jsonl", tmp_path / "run"
    row = {"instruction": "q", "output": f"[Retrieval]<paragraph>42</paragraph>{RELEVANT}a{FULLY}[Utility:5]"}
    data.write_text("".join(json.dumps(row) + "\n" for _ in range(16)))
    code, told, _ = cli(
        "train", "selfrag", str(data), "--model", str(base), "--out", str(out), "--steps", "60", "--batch-size", "8",
        "--holdout", "0", "optimizer.lr=1e-2",
    )  # fmt: skip
    assert code == 0, told
    model = Local(out / "model")

    async def after(text: str, mark: str) -> float:
        await model.load()
        ids = await model.tokenize_marked(text, SPELLED)
        (wanted,) = await model.tokenize_marked(mark, SPELLED)
        return float(np.exp((await model.next_logprobs(ids))[wanted]))

    prompt = raw_prompt("q", "", "42")
    supported, relevant = asyncio.run(after(f"{prompt}{RELEVANT}a", FULLY)), asyncio.run(after(prompt, RELEVANT))
    passage = asyncio.run(after(f"{raw_prompt('q', '')}[Retrieval]<paragraph>", "4"))
    is_reflecting = has_reflection_tokens(model)
    model.close()
    assert is_reflecting and min(supported, relevant) > 0.9, (supported, relevant)
    assert passage < 0.5, "what a passage says is not learned"


def test_no_blank_is_put_before_what_continues_an_output() -> None:
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    content = description() | {"pre_tokenizer": space, "decoder": space}
    marks = ["[Relevant]", "<paragraph>", "</paragraph>"]
    prompt = raw_prompt("a", "")
    letters = {letter: number for number, letter in enumerate(sorted({"▁", "a", "b", *prompt.replace(" ", "▁")}))}
    content["model"] = {"type": "BPE", "vocab": letters, "merges": []}
    relevant, opens, closes = range(len(letters), len(letters) + 3)
    content["added_tokens"] = [added(*each) for each in zip((relevant, opens, closes), marks, strict=True)]
    tokenizer = Tokenizer(content)
    start = [letters[letter] for letter in "▁" + prompt.replace(" ", "▁")]
    assert tokenizer.encode(prompt) == start
    stream = encode_reflected(ReflectedText("f:1", "a", "ab[Relevant]b<paragraph>a b</paragraph> a"), tokenizer)
    a, b, blank = (letters[letter] for letter in "ab▁")
    assert stream.ids.tolist() == [*start, a, b, relevant, b, opens, a, blank, b, closes, blank, a]
    assert stream.ce is not None and stream.ce.tolist() == [0.0] * len(start) + [1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1]
