"""A model of ours behind the server: what only a model whose tokens are known can give. One server for the whole file."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ModelError
from firsthand.model import ModelFacts
from firsthand.providers.local import Local
from firsthand.providers.scripted import Scripted
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.server import serve
from firsthand.serve.models.served_models import ServedModels
from served import Running, server_app, serving, until
from tiny import write_model

HTTP = httpx.Client(verify=False, timeout=60)
"""One client for all: making one takes longer than most requests."""

HI = [{"role": "user", "content": "Hi there"}]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = write_model(tmp_path_factory.mktemp("model") / "m", max_position=2048)
    with serving(Local(folder, config=EngineConfig(kv_memory_bytes=1 << 23, threads=1)), name="tiny") as running:
        yield running


@cache
def client(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0)


def ask(running: Running, messages: Any = HI, **options: Any) -> Any:
    return client(running).chat.completions.create(model="tiny", messages=messages, **options)


def complete(running: Running, **options: Any) -> Any:
    return client(running).completions.create(model="tiny", **options)


def post(running: Running, path: str, **body: Any) -> Any:
    return HTTP.post(running.url + path, json=body, timeout=60)


def test_a_model_of_ours_is_served_with_logprobs_and_the_same_tokens_streamed(local: Running) -> None:
    options: dict[str, Any] = dict(max_tokens=8, temperature=0, logprobs=True, top_logprobs=2, seed=3)
    whole = ask(local, **options)
    content = whole.choices[0].logprobs.content
    assert 1 <= len(content) <= 8 and all(len(token.top_logprobs) == 2 for token in content)
    assert all(token.logprob <= token.top_logprobs[0].logprob + 1e-6 for token in content)
    assert all(bytes(token.bytes).decode("utf-8", "replace") == token.token for token in content)
    pieces = list(ask(local, stream=True, **options))
    assert "".join(p.choices[0].delta.content or "" for p in pieces) == whole.choices[0].message.content
    streamed = [token for p in pieces if p.choices[0].logprobs for token in p.choices[0].logprobs.content]
    assert [(token.token, token.logprob) for token in streamed] == [(token.token, token.logprob) for token in content]


def test_every_answer_tells_the_same_system_fingerprint(local: Running) -> None:
    pieces = [*ask(local, max_tokens=3, stream=True), *complete(local, prompt="Hi", max_tokens=3, stream=True)]
    answers = [ask(local, max_tokens=3, seed=1), complete(local, prompt="Hi", max_tokens=3), *pieces]
    (found,) = {each.system_fingerprint for each in answers}
    assert re.fullmatch(r"fp_[0-9a-f]{10}", found)


def test_the_system_fingerprint_is_what_decides_tokens_and_nothing_else(tmp_path: Path) -> None:
    folder, other = write_model(tmp_path / "m"), write_model(tmp_path / "other", seed=1)

    def told(path: Path = folder, computed_by: str = "compiled for vnni512", **settings: Any) -> str | None:
        models = ServedModels(Local(path, config=EngineConfig(**settings)))
        models.facts = ModelFacts(64, 100, None, False, computed_by)
        return models.find(None).system_fingerprint

    assert told() == told(threads=1, kv_memory_bytes=1 << 22, max_sequences=3, speculation="prompt_lookup")
    others = [told(other), told(computed_by="compiled for avx2"), told(weights="float32"), told(kv_cache="int8")]
    assert len({told(), *others} - {None}) == 5
    assert told(tmp_path / "gone") is None
    assert ServedModels(Scripted(["hi"])).find(None).system_fingerprint is None, "it does not run here"


def test_a_second_turn_finds_the_first_in_memory(local: Running) -> None:
    first = ask(local, [{"role": "user", "content": "What is 12 + 30? The answer is what"}], max_tokens=4)
    again = ask(local, [{"role": "user", "content": "What is 12 + 30? The answer is what"}], max_tokens=4)
    assert again.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens - 1


@pytest.mark.parametrize("stream", [False, True])
def test_the_next_turn_computes_its_new_tokens_and_nothing_else(local: Running, stream: bool) -> None:
    """Whatever the model babbled, its text encoded anew would be other tokens."""
    asked: list[Any] = [{"role": "user", "content": f"Tell me more. {stream}"}]
    options: dict[str, Any] = dict(max_tokens=24, temperature=0, extra_body={"ignore_eos": True})
    if stream:
        pieces = list(ask(local, asked, stream=True, stream_options={"include_usage": True}, **options))
        said, usage = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices), pieces[-1].usage
    else:
        whole = ask(local, asked, **options)
        said, usage = whole.choices[0].message.content, whole.usage
    assert usage.completion_tokens == 24
    asked += [{"role": "assistant", "content": said}, {"role": "user", "content": "And then?"}]
    again = ask(local, asked, **options).usage
    assert again.prompt_tokens_details.cached_tokens >= usage.prompt_tokens + usage.completion_tokens - 1
    count = post(local, "/tokenize", messages=asked).json()["count"]
    assert (
        count != again.prompt_tokens
    )  # encoded anew it would have been other tokens, so the memory made the difference


def test_a_seed_gives_the_same_answer_and_n_different_ones(local: Running) -> None:
    texts = [[c.message.content for c in ask(local, n=3, seed=7, max_tokens=6).choices] for _ in range(2)]
    assert texts[0] == texts[1] and len(set(texts[0])) > 1


def test_a_completion_echoes_its_prompt_with_the_logprobs_that_scoring_gives(local: Running) -> None:
    text = "What is 12 + 30?"
    found = complete(local, prompt=text, echo=True, logprobs=2, max_tokens=0).choices[0]
    assert found.text == text and found.finish_reason == "length"
    told = found.logprobs
    assert "".join(told.tokens) == text and told.token_logprobs[0] is None and told.top_logprobs[0] is None
    assert [text[at : at + len(t)] for at, t in zip(told.text_offset, told.tokens, strict=True)] == told.tokens
    model = local.models.model
    ids = asyncio.run(model.tokenize(text))
    rest = model._loaded.tokenizer.decode(ids[1:])
    scored = asyncio.run(model.score(model._loaded.tokenizer.decode(ids[:1]), [rest]))
    assert sum(told.token_logprobs[1:]) == pytest.approx(scored.likelihoods[0].logprob, abs=1e-4)
    for best, logprob in zip(told.top_logprobs[1:], told.token_logprobs[1:], strict=True):
        assert max(best.values()) >= logprob and 2 <= len(best) <= 3


def test_completions_take_texts_and_ids_and_several_of_both(local: Running) -> None:
    ids = post(local, "/tokenize", prompt="The answer").json()["tokens"]
    one = complete(local, prompt="The answer", max_tokens=4, temperature=0)
    same = complete(local, prompt=ids, max_tokens=4, temperature=0)
    assert one.choices[0].text == same.choices[0].text
    both = complete(local, prompt=[ids, ids], max_tokens=4, temperature=0, n=2)
    assert [choice.text for choice in both.choices] == [one.choices[0].text] * 4
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert both.usage.prompt_tokens == 2 * len(ids) and both.usage.completion_tokens == 4 * 4


def test_one_prompt_of_several_that_cannot_be_answered_is_a_refusal(local: Running) -> None:
    answer = post(local, "/v1/completions", prompt=["12", "word " * 3000])
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded"
    found = complete(local, prompt="12", logprobs=0, max_tokens=3).choices[0].logprobs
    assert len(found.token_logprobs) <= 3 and found.top_logprobs is None
    until(lambda: local.admission.in_flight == 0)


def test_a_stream_of_several_prompts_keeps_them_apart(local: Running) -> None:
    whole = complete(local, prompt=["12", "The answer"], max_tokens=5, temperature=0)
    texts = ["", ""]
    stream = complete(local, prompt=["12", "The answer"], max_tokens=5, temperature=0, stream=True)
    for piece in stream:
        texts[piece.choices[0].index] += piece.choices[0].text
    assert texts == [choice.text for choice in whole.choices]


def test_tokens_and_texts_are_turned_into_each_other(local: Running) -> None:
    found = post(local, "/tokenize", prompt="The answer is 42.", return_token_strs=True).json()
    assert found["count"] == len(found["tokens"]) and "".join(found["token_strs"]) == "The answer is 42."
    assert found["max_model_len"] == 2048
    assert post(local, "/detokenize", tokens=found["tokens"]).json() == {"prompt": "The answer is 42."}
    chat = post(local, "/tokenize", messages=HI).json()
    assert ask(local, max_tokens=1).usage.prompt_tokens == chat["count"]
    assert post(local, "/detokenize", tokens=[10**6]).status_code == 400


@pytest.mark.slow
def test_routes_that_tokenise_refuse_what_is_longer_than_the_context(local: Running) -> None:
    text = "7" * 1_000_000
    bodies: dict[str, Any] = {
        "/tokenize": {"prompt": text},
        "/v1/completions": {"prompt": text},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": text}]},
        "/v1/responses": {"input": text},
    }
    for path, body in bodies.items():
        found = post(local, path, **body)
        error = found.json()["error"]
        assert (found.status_code, error["code"]) == (400, "context_length_exceeded"), path
        assert "2048 tokens" in error["message"] and len(error["message"]) < 300
    assert post(local, "/tokenize", prompt="7" * 2048).json()["count"] == 2048
    over = post(local, "/tokenize", prompt="7" * 2049)
    assert over.status_code == 400 and "2049 tokens" in over.json()["error"]["message"]


def test_prompt_logprobs_are_vllms(local: Running) -> None:
    body = post(local, "/v1/chat/completions", messages=HI, max_tokens=1, prompt_logprobs=1).json()
    told, count = body["prompt_logprobs"], body["usage"]["prompt_tokens"]
    assert told[0] is None and len(told) == count
    assert all(any(each["rank"] == 1 for each in place.values()) and len(place) <= 2 for place in told[1:])


def test_a_bias_forbids_and_demands_tokens(local: Running) -> None:
    plain = complete(
        local, prompt="The answer", max_tokens=6, temperature=0, logprobs=0, extra_body={"return_token_ids": True}
    )
    (first, *_) = plain.choices[0].token_ids
    options: dict[str, Any] = dict(
        prompt="The answer", max_tokens=6, temperature=0, extra_body={"return_token_ids": True}
    )
    assert first not in complete(local, logit_bias={str(first): -100}, **options).choices[0].token_ids
    assert set(complete(local, logit_bias={str(first): 100}, **options).choices[0].token_ids) == {first}


def test_answers_end_at_given_tokens_and_strings_and_go_on_past_the_models_end(local: Running) -> None:
    base: dict[str, Any] = dict(prompt="The answer", max_tokens=8, temperature=0)
    ids = complete(local, **base, extra_body={"return_token_ids": True, "ignore_eos": True}).choices[0].token_ids
    assert len(ids) == 8
    cut = complete(local, **base, extra_body={"return_token_ids": True, "stop_token_ids": [ids[2]]}).choices[0]
    assert cut.finish_reason == "stop" and cut.token_ids == ids[: ids.index(ids[2]) + 1]
    text = complete(local, **base, extra_body={"ignore_eos": True}).choices[0].text
    stop = text[3:5]
    found = complete(local, **base, stop=[stop], extra_body={"ignore_eos": True}).choices[0]
    assert found.text == text[: text.index(stop)] and found.finish_reason == "stop"


@pytest.mark.parametrize(
    ("form", "fits"),
    [
        ({"structured_outputs": {"choice": ["yes", "no"]}}, lambda t: t in ("yes", "no")),
        ({"structured_outputs": {"regex": "[0-9]{3}"}}, lambda t: t.isdigit() and len(t) == 3),
        ({"guided_choice": ["left", "right"]}, lambda t: t in ("left", "right")),
        ({"guided_grammar": 'root ::= "a" "b"'}, lambda t: t == "ab"),
        ({"structured_outputs": {"grammar": 'start: "x" | "y"'}}, lambda t: t in "xy"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"type": "object", "properties": {"ok": {"type": "boolean"}},
                                                            "required": ["ok"], "additionalProperties": False}},
                }
            },
            lambda t: t in ('{"ok": true}', '{"ok": false}'),
        ),
    ],
)  # fmt: skip
def test_answers_have_the_form_that_was_asked_for(local: Running, form: Any, fits: Any) -> None:
    text = ask(local, max_tokens=40, extra_body=form).choices[0].message.content
    assert fits(text), text


def test_tool_choice_makes_the_model_call(local: Running) -> None:
    def spec(name: str) -> Any:
        schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
                  "required": ["n"], "additionalProperties": False}  # fmt: skip
        return {"type": "function", "function": {"name": name, "parameters": schema}}

    tools = [spec("first"), spec("second")]
    named = {"type": "function", "function": {"name": "second"}}
    for choice, names in ((named, {"second"}), ("required", {"first", "second"})):
        found = ask(local, tools=tools, tool_choice=choice, parallel_tool_calls=False, max_tokens=200).choices[0]
        assert found.finish_reason == "tool_calls" and len(found.message.tool_calls) == 1
        assert found.message.tool_calls[0].function.name in names
        streamed = list(
            ask(local, tools=tools, tool_choice=choice, parallel_tool_calls=False, max_tokens=200, stream=True)
        )
        calls = [call for piece in streamed for call in piece.choices[0].delta.tool_calls or ()]
        assert calls[0].function.name in names and {call.index for call in calls} == {0}
        assert 0 <= json.loads("".join(call.function.arguments for call in calls))["n"] <= 9
        assert not any(piece.choices[0].delta.content for piece in streamed)
    assert ask(local, tools=tools, tool_choice="none", max_tokens=4).choices[0].message.tool_calls is None


def test_the_metrics_tell_what_happened(local: Running) -> None:
    ask(local, max_tokens=3)
    lines = HTTP.get(f"{local.url}/metrics").text.splitlines()
    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    assert values['firsthand_requests_total{route="/v1/chat/completions",code="200"}'] > 0
    assert values["firsthand_time_to_first_token_seconds_count"] > 0
    assert values["firsthand_inter_token_latency_seconds_count"] > 0
    assert values['firsthand_tokens_total{kind="completion"}'] > 0
    assert values["firsthand_engine_num_blocks"] > 0 and values["firsthand_engine_running"] == 0
    assert 0 < values["firsthand_engine_cache_hit_ratio"] < 1 and values["firsthand_ready"] == 1


def test_a_server_whose_model_does_not_load_says_so_and_is_not_ready(tmp_path: Path) -> None:
    with serving(Local(tmp_path / "none.gguf"), name="gone") as running:
        health = HTTP.get(f"{running.url}/health")
        assert health.status_code == 503 and health.json() == {"status": "failed"}
        answer = post(running, "/v1/chat/completions", messages=HI)
        assert answer.status_code == 503 and "none.gguf" in answer.json()["error"]["message"]


@pytest.mark.slow
def test_a_bug_while_the_model_is_loaded_is_told_and_logged_with_its_traceback(tmp_path: Path) -> None:
    class Buggy(Local):
        async def load(self) -> ModelFacts:
            raise ZeroDivisionError("no facts")

    model = Buggy(write_model(tmp_path / "m"))
    with serving(model, name="tiny", log=tmp_path / "log.jsonl") as running:
        assert HTTP.get(f"{running.url}/health").json() == {"status": "failed"}
        answer = post(running, "/v1/chat/completions", messages=HI)
        assert answer.status_code == 503 and "ZeroDivisionError: no facts" in answer.json()["error"]["message"]
    (event,) = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines() if "traceback" in line]
    assert event["event"] == "failed" and "in load" in event["traceback"]
    app = server_app(model, drain_s=1)
    with pytest.raises(ModelError, match="could not be served: ZeroDivisionError: no facts"):
        serve(app, ListenAddress(port=0))


@pytest.mark.slow
def test_a_client_that_leaves_gives_back_its_place_and_memory_in_the_engine(local: Running) -> None:
    def load() -> tuple[float, float, float]:
        found = asyncio.run(local.models.model.counters())
        return found["running"], found["waiting"], found["used_blocks"]

    until(lambda: load() == (0, 0, 0))
    for kind in ("stream", "whole", "scored"):
        body: dict[str, Any] = {"prompt": ["The answer"] * 16, "max_tokens": 1900, "n": 16, "ignore_eos": True}
        body |= {"stream": kind == "stream"} | ({"echo": True, "logprobs": 1} if kind == "scored" else {})
        with httpx.Client(timeout=0.3) as session, pytest.raises(httpx.ReadTimeout):
            answer = session.send(session.build_request("POST", f"{local.url}/v1/completions", json=body), stream=True)
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            assert load()[0] > 0
            answer.close()
            raise httpx.ReadTimeout("enough")
        until(lambda: load() == (0, 0, 0), 20)
    until(lambda: local.admission.in_flight == 0)


@pytest.mark.slow
def test_requests_beyond_the_engines_room_wait_and_all_are_answered(local: Running) -> None:
    async def load() -> list[int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=120) as session:
            body = {"prompt": "The answer", "max_tokens": 3, "temperature": 0, "ignore_eos": True}
            asked = [session.post(f"{local.url}/v1/completions", json=body) for _ in range(100)]
            answers = await asyncio.gather(*asked)
            assert len({answer.json()["choices"][0]["text"] for answer in answers}) == 1
            return [answer.status_code for answer in answers]

    assert asyncio.run(load()) == [200] * 100


def test_a_server_whose_engine_ends_is_not_ready_any_more(tmp_path: Path) -> None:
    model = Local(write_model(tmp_path / "m"), config=EngineConfig(kv_memory_bytes=1 << 22, threads=1))
    with serving(model, name="tiny") as running:
        assert HTTP.get(f"{running.url}/health").status_code == 200
        model._loaded.worker.close()  # type: ignore[union-attr]
        assert HTTP.get(f"{running.url}/health").json() == {"status": "failed"}
        assert post(running, "/v1/chat/completions", messages=HI).status_code == 503
        assert "firsthand_ready 0" in HTTP.get(f"{running.url}/metrics").text


def test_a_stream_tells_the_tokens_and_log_probs_of_the_whole_answer_for_every_stop_string(local: Running) -> None:
    base: dict[str, Any] = dict(prompt="The answer", max_tokens=12, temperature=0, logprobs=2)
    extra = {"return_token_ids": True, "ignore_eos": True}
    text = complete(local, **base, extra_body=extra).choices[0].text
    fewer = 0
    for at in range(len(text) - 3):
        for stop in (text[at], text[at : at + 4]):
            whole = complete(local, **base, stop=[stop], extra_body=extra)
            (one,) = whole.choices
            assert len(one.token_ids) == len(one.logprobs.tokens)
            fewer += len(one.token_ids) < whole.usage.completion_tokens
            chunks = [each.choices[0] for each in complete(local, **base, stop=[stop], extra_body=extra, stream=True)]
            told = [each.logprobs for each in chunks if each.logprobs is not None]
            assert "".join(each.text for each in chunks) == one.text
            for name in ("tokens", "token_logprobs", "text_offset"):
                assert [item for each in told for item in getattr(each, name)] == getattr(one.logprobs, name)
            ids = [id for each in chunks for id in (getattr(each, "token_ids", None) or ())]
            assert ids == one.token_ids
    assert fewer


def test_an_answer_has_at_least_the_tokens_that_were_asked_for(local: Running) -> None:
    base: dict[str, Any] = dict(prompt="The answer", max_tokens=12, temperature=0)
    free = complete(local, **base, extra_body={"return_token_ids": True, "ignore_eos": True}).choices[0]
    first = free.token_ids[0]
    for temperature in (0, 1.5):
        options = base | {"temperature": temperature, "seed": 5}
        more = {"return_token_ids": True, "stop_token_ids": [first], "min_tokens": 5}
        ids = complete(local, **options, extra_body=more).choices[0].token_ids
        assert len(ids) >= 5 and first not in ids[:5]
    stop = free.text[0]
    assert complete(local, **base, stop=[stop], extra_body={"ignore_eos": True}).choices[0].text == ""
    late = complete(local, **base, stop=[stop], extra_body={"min_tokens": 4, "return_token_ids": True}).choices[0]
    assert len(late.token_ids) >= 4 and late.text.startswith(stop)
    with pytest.raises(openai.BadRequestError, match="at most 12"):
        complete(local, **base, extra_body={"min_tokens": 13})
