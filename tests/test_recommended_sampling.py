"""A bare request gets the sampling that a model's authors recommend, and a stated one gets what it states."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import tiny
from firsthand.cli import main
from firsthand.commands.chat import Config, sampling_of
from firsthand.commands.serve import tell_base_model
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.hub.model_lookup import KNOWN, card_sampling
from firsthand.model import ModelFacts
from firsthand.providers.local import Local
from firsthand.sampling import Sampling
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.models.served_models import ServedModels
from firsthand.serve.openai.request_parsing import sampling
from firsthand.serve.openai.request_schema import ChatRequest, read
from firsthand.tokens.recommended_sampling import FOLDER, GGUF, recommended

CONFIG = EngineConfig(kv_memory_bytes=8 << 20, threads=1)
FACTS = ModelFacts(64, 100, None, False, "", {"temperature": 0.2, "top_p": 0.9, "top_k": 20, "max_tokens": 300})


def parsed(facts: ModelFacts | None = FACTS, most: int = 4096, **stated: Any) -> Sampling:
    body = read(ChatRequest, {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **stated})
    limits = ClientLimits(max_tokens=most)
    return sampling(body, limits, max_tokens=body.max_tokens, top_logprobs=0, grammar=None, facts=facts)


@pytest.mark.parametrize(
    ("values", "keys", "found"),
    [
        ({"temperature": 0.6, "top_k": 20.0, "max_new_tokens": 9, "do_sample": True}, FOLDER,
         {"temperature": 0.6, "top_k": 20, "max_tokens": 9}),
        ({"general.sampling.temp": 0.5, "general.sampling.penalty_repeat": 1.05}, GGUF,
         {"temperature": 0.5, "repetition_penalty": 1.05}),
        ({"temperature": "hot", "top_p": 7, "top_k": -1, "min_p": None, "repetition_penalty": True}, FOLDER, {}),
        ({"temperature": float("nan"), "max_new_tokens": 0}, FOLDER, {}),
        ({}, FOLDER, {}),
    ],
)  # fmt: skip
def test_files_recommend_what_a_sampling_takes_and_nothing_else(
    values: dict[str, Any], keys: dict[str, str], found: dict[str, float]
) -> None:
    assert recommended(values, keys) == found


def test_a_bare_chat_gets_what_is_recommended() -> None:
    bare = parsed()
    assert (bare.temperature, bare.top_p, bare.top_k, bare.max_tokens) == (0.2, 0.9, 20, 300)
    assert parsed(most=100).max_tokens == 100 and parsed(max_tokens=7).max_tokens == 7


def test_a_request_that_states_something_gets_openais_defaults_for_the_rest() -> None:
    greedy = parsed(temperature=0)
    assert (greedy.temperature, greedy.top_p, greedy.top_k, greedy.max_tokens) == (0, 1.0, 0, 300)
    assert parsed(top_p=0.5).temperature == 1.0 and parsed(top_p=0.5).top_p == 0.5
    assert (parsed(None).temperature, parsed(None).max_tokens) == (1.0, 4096)


STATED: list[tuple[str, Any, str, Any]] = [
    ("max_tokens", 31, "max_tokens", 31), ("max_tokens", 0, "max_tokens", 1), ("temperature", 0.25, "temperature", 0.25),
    ("top_p", 0.75, "top_p", 0.75), ("top_k", 12, "top_k", 12), ("top_k", -1, "top_k", 0), ("min_p", 0.125, "min_p", 0.125),
    ("repetition_penalty", 1.5, "repetition_penalty", 1.5), ("presence_penalty", 0.5, "presence_penalty", 0.5),
    ("frequency_penalty", -0.5, "frequency_penalty", -0.5), ("seed", -13, "seed", -13), ("stop", "end", "stop", ("end",)),
    ("stop", ["a", "", "b"], "stop", ("a", "b")), ("logit_bias", {"14": -1.5, "3": 2}, "logit_bias", ((14, -1.5), (3, 2.0))),
    ("stop_token_ids", [15, 16], "stop_ids", (15, 16)), ("ignore_eos", True, "ignore_eos", True),
    ("min_tokens", 17, "min_tokens", 17), ("allowed_token_ids", [18, 19], "allowed_token_ids", (18, 19)),
    ("bad_words", ["x", "y z"], "bad_words", ("x", "y z")), ("skip_special_tokens", False, "skip_special_tokens", False),
    ("include_stop_str_in_output", True, "include_stop_str_in_output", True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "field", "found"), STATED)
def test_each_field_of_a_request_sets_its_own_setting_and_no_other(
    name: str, given: Any, field: str, found: Any
) -> None:
    bare = parsed(None)
    assert parsed(None, **{name: given}) == replace(bare, **{field: found})
    assert parsed(None, **{name: None}) == bare


def test_every_setting_of_a_sampling_can_be_asked_for() -> None:
    reached = {field for _, _, field, _ in STATED} | {"top_logprobs", "grammar"}  # those two are arguments
    reached |= {"tool_choice", "parallel_tool_calls", "strict_tools"}  # of the tools
    assert reached == {each.name for each in fields(Sampling)}
    first = {name: (given, field, found) for name, given, field, found in reversed(STATED)}
    together = parsed(None, **{name: given for name, (given, _, _) in first.items()})
    assert together == Sampling(**{field: found for _, field, found in first.values()})


@pytest.mark.parametrize(
    ("fits", "over", "field"),
    [
        ({"max_tokens": 50}, {"max_tokens": 51}, "max_tokens"),
        ({"n": 3}, {"n": 4}, "n"),
        ({"stop": ["x" * 1024]}, {"stop": ["a", "x" * 1025]}, "stop"),
        ({"min_tokens": 50}, {"min_tokens": 51}, "min_tokens"),
        ({"min_tokens": 20, "max_tokens": 20}, {"min_tokens": 21, "max_tokens": 20}, "min_tokens"),
        ({"logit_bias": {"123456789": 1.0}}, {"logit_bias": {"1234567890": 1.0}}, "logit_bias"),
        ({"logit_bias": {}}, {"logit_bias": {"-1": 1.0}}, "logit_bias"),
        ({"stream": True, "stream_options": {}}, {"stream": False, "stream_options": {}}, "stream_options"),
    ],
)
def test_a_request_is_taken_up_to_each_limit_and_refused_one_beyond(
    fits: dict[str, Any], over: dict[str, Any], field: str
) -> None:
    def ask(facts: ModelFacts | None, body: ChatRequest) -> Sampling:
        limits = ClientLimits(max_tokens=50, max_answers=3)
        return sampling(body, limits, max_tokens=body.max_tokens, top_logprobs=0, grammar=None, facts=facts)

    chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    for facts in (None, FACTS):  # a recommendation above the limit raises it for nobody
        assert ask(facts, read(ChatRequest, {**chat, **fits})).max_tokens <= 50
        with pytest.raises(Refusal) as caught:
            ask(facts, read(ChatRequest, {**chat, **over}))
        assert (caught.value.status, caught.value.param) == (400, field)


def test_a_model_tells_its_recommendation_and_whether_it_has_a_template(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "model")
    path = folder / "generation_config.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, "temperature": 0.25, "top_k": 11}))
    model = Local(folder, name="tiny", config=CONFIG)
    try:
        facts = asyncio.run(model.load())
    finally:
        model.close()
    assert facts.recommended == {"temperature": 0.25, "top_k": 11}
    template = (folder / "chat_template.jinja").is_file() or "chat_template" in json.loads(
        (folder / "tokenizer_config.json").read_text()
    )
    assert facts.has_template is template


def test_the_catalog_recommends_for_a_model_whose_file_does_not() -> None:
    file = KNOWN["smollm2"].file
    assert card_sampling(Path("/elsewhere") / file)["temperature"] == 0.2
    assert card_sampling(Path("other.gguf")) == {}
    assert all(Sampling(**{**entry.sampling}) for entry in KNOWN.values())  # type: ignore[arg-type]


def test_chat_takes_the_recommendation_unless_a_temperature_is_given() -> None:
    given = {"temperature": 0.2, "top_p": 0.9, "max_tokens": 512}
    assert sampling_of(Config(), given) == Sampling(512, 0.2, 0, 0.9)
    assert sampling_of(Config(temperature=0.0), given) == Sampling(512, 0.0)
    assert sampling_of(Config(max_tokens=5), {}) == Sampling(5, 0.7)
    assert sampling_of(Config(), {}) == Sampling(1024, 0.7)


@pytest.mark.slow
def test_a_base_model_is_said_to_be_one_by_chat_and_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    folder = tiny.write_model(tmp_path / "model")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["chat", str(folder), "Hi", "--max-tokens", "2"]) == 0
    assert "has no chat template" in capsys.readouterr().err
    models = ServedModels(model := Local(folder, name="base", config=CONFIG))
    models.on_facts = lambda facts: tell_base_model(models.name, facts)
    try:
        asyncio.run(models.load())
    finally:
        model.close()
    assert "base has no chat template" in capsys.readouterr().err
