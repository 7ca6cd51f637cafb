"""Encoder-decoders in the engine and behind the server: the greedy outputs and log-probs of transformers."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from encoder_decoders import MODELS, reference
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from engine_tiny import drain, logprobs, tiny_engine, tokens
from firsthand.engine.compute.device_weights import load_weights
from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.errors import ConfigError, ModelError, ModelFileError, PromptTooLong
from firsthand.grammar import choice
from firsthand.message import user
from firsthand.model import Sampling, ToolSpec
from firsthand.providers.local import Local
from firsthand.providers.local_loading import load_model
from served import serving

torch.set_num_threads(1)
CONFIG = EngineConfig(
    kv_memory_bytes=1 << 20, kv_cache="float32", weights="float32", max_sequences=4, max_batch_tokens=16, threads=1
)
SOURCES = [(5, 17, 44, 9, 30, 1), (3, 3, 58), (40, 41, 42, 43, 44, 45, 46, 47, 48), (3, 3, 57)]
LONG = 18


@cache
def theirs(name: str) -> Any:
    return reference(name)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each model, with a tokenizer of words that ends each text by token 1."""
    made = {}
    for name in MODELS:
        made[name] = tmp_path_factory.mktemp("models") / name
        theirs(name).save_pretrained(made[name])
        pieces = [("<pad>", 0.0), ("</s>", 0.0), *((f"▁w{i}", -3.0) for i in range(2, 61))]
        tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.add_special_tokens(["<pad>", "</s>"])
        tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
        tokenizer.save(str(made[name] / "tokenizer.json"))
        (made[name] / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return made


def engine(folder: Path, **changes: Any) -> Engine:
    config = replace(CONFIG, **changes)
    return Engine(load_weights(folder, config), config)


@cache
def expected(name: str, source: tuple[int, ...], start: int, max_tokens: int) -> tuple[list[int], list[float]]:
    """Greedy tokens and their log-probs by `generate`, without an end token."""
    with torch.no_grad():
        made = theirs(name).generate(
            torch.tensor([source]), max_new_tokens=max_tokens, do_sample=False, num_beams=1, output_logits=True,
            return_dict_in_generate=True, decoder_start_token_id=start, eos_token_id=None, forced_eos_token_id=None,
            bad_words_ids=None, use_cache=False,
        )  # fmt: skip
    ids = made.sequences[0, 1:].tolist()
    rows = [logits[0].log_softmax(-1) for logits in made.logits]
    return ids, [float(row[token]) for row, token in zip(rows, ids, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_outputs_of_a_batch_are_those_of_transformers(name: str, folders: dict[str, Path]) -> None:
    made = engine(folders[name])
    start = made.runner.model.inner.architecture.decoder_start
    assert made.stats().not_compiled == "it is an encoder-decoder"
    for index, source in enumerate((*SOURCES, SOURCES[0])):
        settings = Sampling(max_tokens=LONG - 2 * index, temperature=0.0)
        made.add(Request((start,), settings, source=source, n=2 if index == 1 else 1))
    found = drain(made)
    assert len(found) == 6
    ordered = sorted(found)
    for (request, _), outputs in zip(ordered, (found[key] for key in ordered), strict=True):
        source = SOURCES[request % len(SOURCES)]
        ids, scores = expected(name, source, start, LONG - 2 * request)
        assert list(tokens(outputs)) == ids
        assert logprobs(outputs) == pytest.approx(scores, abs=1e-4)
    assert len(made.runner.modules.sources) == 0, "a source outlives its request"


def test_a_source_is_encoded_once_for_all_answers_of_its_request(folders: dict[str, Path]) -> None:
    made, encoded = engine(folders["bart"]), list[int]()
    made.runner.modules.sources._model.inner.encoder.register_forward_hook(lambda *_: encoded.append(1))
    request = made.add(Request((2,), Sampling(max_tokens=6, temperature=0.0), source=SOURCES[0], n=2))
    for _ in range(3):
        made.step()
    sources = made.runner.modules.sources
    assert len(sources) == 1
    made.abort(request, 0)
    assert len(sources) == 1, "the other answer still reads it"
    assert len(drain(made)) == len(encoded) == 1 and len(sources) == 0


@pytest.mark.slow
def test_a_preempted_output_goes_on_with_its_source(folders: dict[str, Path]) -> None:
    made = engine(folders["bart"], kv_memory_bytes=1 << 16)
    for source in SOURCES:
        made.add(Request((2,), Sampling(max_tokens=LONG, temperature=0.0), source=source))
    found = drain(made)
    assert made.stats().preemptions > 0
    for (request, _), outputs in found.items():
        assert list(tokens(outputs)) == expected("bart", SOURCES[request], 2, LONG)[0]


def test_continuations_are_scored_after_a_source(folders: dict[str, Path]) -> None:
    made = engine(folders["t5"])
    output = (7, 8, 50, 33)
    for source in SOURCES[:2]:
        made.add_score((0,), [output, output[:1]], source=source)
        found = drain(made)
        with torch.no_grad():
            logits = theirs("t5")(
                input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[0, *output[:-1]]])
            ).logits
        scores = logits[0].log_softmax(-1)[range(4), output].tolist()
        by_index = {index: logprobs(outputs) for (_, index), outputs in found.items()}
        assert by_index[0] == pytest.approx(scores, abs=1e-4)
        assert by_index[1] == pytest.approx(scores[:1], abs=1e-4)


def test_outputs_of_one_source_share_blocks_and_those_of_another_do_not(folders: dict[str, Path]) -> None:
    made = engine(folders["bart"])
    begun = (2, *range(3, 36))
    cached = []
    for source in (SOURCES[0], SOURCES[0], SOURCES[1]):
        made.add(Request(begun, Sampling(max_tokens=2, temperature=0.0), source=source))
        [outputs] = drain(made).values()
        cached.append(outputs[-1].cached_tokens)
    assert cached[0] == cached[2] == 0 < cached[1]


def test_requests_without_their_source_and_sources_without_an_encoder_say_so(folders: dict[str, Path]) -> None:
    made = engine(folders["bart"])
    with pytest.raises(ConfigError, match="the request has no source"):
        made.add(Request((2,)))
    with pytest.raises(ConfigError, match="the request has no source"):
        made.add_score((2,), [(3,)])
    with pytest.raises(PromptTooLong, match="the source has 65 tokens: the model reads at most 64"):
        made.add(Request((2,), source=(5,) * 65))
    with pytest.raises(ModelError, match="token 1 of the source is 61"):
        made.add(Request((2,), source=(5, 61)))
    with pytest.raises(ConfigError, match="cannot be replaced"):
        made.load({}, 1)
    with pytest.raises(ConfigError, match="an encoder-decoder has no sites"):
        made.add(Request((2,), source=(5,), taps=RequestTaps({"norm": lambda tokens, values: None})))
    assert made.runner.not_compiled == "it is an encoder-decoder"
    with pytest.raises(ConfigError, match="an encoder-decoder has no sites"):
        made.runner.tap({"norm": lambda values: None})
    with pytest.raises(ConfigError, match="the model is no encoder-decoder"):
        tiny_engine().add(Request((2,), source=(5,)))
    with pytest.raises(ConfigError, match="in place of int8"):
        load_weights(folders["bart"], replace(CONFIG, weights="int8"))
    with pytest.raises(ConfigError, match="takes no LoRA adapters"):
        load_weights(folders["bart"], CONFIG, Path("adapter"))


def test_a_tokenizer_of_another_model_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["t5"], tmp_path / "mixed")
    load_model(tmp_path / "mixed", CONFIG).worker.close()
    file = tmp_path / "mixed" / "tokenizer.json"
    described = json.loads(file.read_text())
    described["model"]["vocab"].append(["▁more", -3.0])
    file.write_text(json.dumps(described))
    with pytest.raises(ModelFileError, match="62 tokens in its tokenizer and 61 in its weights"):
        load_model(tmp_path / "mixed", CONFIG)


def test_weights_in_float16_are_packed_and_near(folders: dict[str, Path]) -> None:
    pytest.importorskip("numba")
    made = engine(folders["t5_gated"], weights="float16")
    assert type(made.runner.model.lm_head).__name__ == "DenseLinear"
    made.add(Request((0,), Sampling(max_tokens=1, temperature=0.0), source=SOURCES[0]))
    [outputs] = drain(made).values()
    assert logprobs(outputs) == pytest.approx(expected("t5_gated", SOURCES[0], 0, 1)[1], abs=0.02)


@pytest.mark.slow
def test_the_server_completes_source_texts_and_answers_messages(folders: dict[str, Path]) -> None:
    text, ids = "w5 w17 w44", (5, 17, 44, 1)
    wanted = " ".join(f"w{token}" for token in expected("t5", ids, 0, 6)[0])
    with serving(Local(folders["t5"], config=CONFIG), name="t5") as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0)
        whole = client.completions.create(model="t5", prompt=text, max_tokens=6, temperature=0)
        pieces = client.completions.create(model="t5", prompt=text, max_tokens=6, temperature=0, stream=True)
        said = client.chat.completions.create(
            model="t5", messages=[{"role": "user", "content": text}], max_tokens=6, temperature=0
        )
        streamed = "".join(piece.choices[0].text for piece in pieces if piece.choices)
    assert whole.choices[0].text == streamed == said.choices[0].message.content == wanted
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (4, 6)


def test_a_local_encoder_decoder_scores_continuations_and_takes_no_tools(folders: dict[str, Path]) -> None:
    model = Local(folders["t5"], config=CONFIG)
    try:
        scored = asyncio.run(model.score("w5 w17 w44", ["w7 w8", "w9"]))
        with torch.no_grad():
            logits = theirs("t5")(
                input_ids=torch.tensor([[5, 17, 44, 1]]), decoder_input_ids=torch.tensor([[0, 7]])
            ).logits
        rows = logits[0].log_softmax(-1)
        found = [each.logprob for each in scored.likelihoods]
        assert found == pytest.approx([float(rows[0, 7] + rows[1, 8]), float(rows[0, 9])], abs=1e-4)
        tool = ToolSpec("look", "Looks.", {"type": "object"})
        with pytest.raises(ConfigError, match="takes no tools"):
            asyncio.run(model.complete([user("w5")], Sampling(max_tokens=2), tools=[tool]))
    finally:
        model.close()


def test_outputs_have_no_token_that_the_generation_config_forbids(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, source = tmp_path / "marian", (5, 17, 44, 1)
    shutil.copytree(folders["transformer_2017"], folder)
    start = int(json.loads((folder / "config.json").read_text())["decoder_start_token_id"])
    first = expected("transformer_2017", source, start, 6)[0]
    banned = [[token] for token in dict.fromkeys(first[:2])] + [[60]]
    stated = {"bad_words_ids": banned, "encoder_no_repeat_ngram_size": 3, "pad_token_id": start, "num_beams": 1}
    (folder / "generation_config.json").write_text(json.dumps(stated))
    with torch.no_grad():
        made = theirs("transformer_2017").generate(
            torch.tensor([source]), max_new_tokens=6, do_sample=False, num_beams=1, decoder_start_token_id=start,
            eos_token_id=None, forced_eos_token_id=None, bad_words_ids=[*banned, [start]], use_cache=False,
        )  # fmt: skip
    model = Local(folder, config=CONFIG)
    try:
        plain = Sampling(max_tokens=6, temperature=0.0, ignore_eos=True)
        [found] = asyncio.run(model.complete("w5 w17 w44", plain))
        formed = Sampling(max_tokens=12, temperature=0.0, grammar=choice([" w7 w8", " w9"]))
        [chosen] = asyncio.run(model.complete("w5 w17 w44", formed))
    finally:
        model.close()
    assert list(found.message.sampled.token_ids) == made[0, 1:].tolist() != first
    assert chosen.message.text.strip() in ("w7 w8", "w9"), "a grammar forces no token that may be forbidden"
    [told] = [each.getMessage() for each in caplog.records if "does not apply" in each.getMessage()]
    assert told.startswith(
        f"{folder} asks for encoder_no_repeat_ngram_size 3, which the engine does not apply: outputs may"
    )


@pytest.mark.slow
def test_outputs_begin_with_the_forced_token_of_the_generation_config(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "bart"
    folder.mkdir()
    for file in folders["bart"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "generation_config.json").write_text('{"forced_bos_token_id": 0}')
    model = Local(folder, config=CONFIG)
    try:
        [found] = asyncio.run(model.complete("w5 w17", Sampling(max_tokens=5, temperature=0.0)))
    finally:
        model.close()
    ids = [2, 0]
    while len(ids) < 7:
        with torch.no_grad():
            logits = theirs("bart")(input_ids=torch.tensor([[5, 17, 1]]), decoder_input_ids=torch.tensor([ids])).logits
        ids.append(int(logits[0, -1].argmax()))
    assert list(found.message.sampled.token_ids) == ids[2:]
    (folder / "generation_config.json").write_text('{"forced_bos_token_id": 61}')
    with pytest.raises(ModelFileError, match="begins outputs with the tokens"):
        asyncio.run(Local(folder, config=CONFIG).load())
