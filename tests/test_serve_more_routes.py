"""Routes beside the chat: models, adapters, tokens and embeddings, whole and refused."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ConfigError, ModelError, ModelFileError, PromptTooLong
from firsthand.message import ToolCall, assistant, user
from firsthand.model import CallDelta, Completion, Delta, Sampling, Usage
from firsthand.serve.admission.api_keys import Client
from firsthand.serve.anthropic.anthropic_messages import count_tokens, messages
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.models.served_models import ServedModel, ServedModels
from firsthand.serve.openai import openai_app
from firsthand.serve.openai.adapter_routes import inside, load_adapter, unload_adapter, without_root
from firsthand.serve.openai.embeddings import embeddings
from spelled_model import SpelledModel, answered, request_with, state_of

HI = [{"role": "user", "content": "Hi"}]


ASKED = {"model": "demo", "max_tokens": 9, "messages": HI}


GO = {"name": "go", "input_schema": {"type": "object"}}


def thoughtful(*, streamed: bool = False) -> SpelledModel:
    one, two = ToolCall("0", "go", {"to": "Ö"}), ToolCall("1", "go", {}, "{broken")
    whole = Completion(
        assistant("<think>\nso\n</think>\n\nYes", one, two), "tool_calls", Usage(9, 2, 3, cache_write_tokens=4)
    )
    begun = (Delta("", call=CallDelta(0, "0", "go", "")), Delta("", call=CallDelta(0, arguments='{"to":"Ö"}')))
    return SpelledModel(
        Delta("<think>\ns"),
        Delta("o\n</think>\n\nY"),
        Delta("es"),
        *(begun if streamed else ()),
        Delta("", whole),
        thinks=True,
    )


USAGE = {"input_tokens": 3, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 2, "output_tokens": 3}


def test_a_whole_message_has_a_thought_a_text_and_calls() -> None:
    body = answered(messages, state_of(thoughtful()), {**ASKED, "tools": [GO]})
    ids = [block.pop("id") for block in body["content"][2:]]
    assert len(set(ids)) == 2 and all(id.startswith("toolu_") and len(id) == 30 for id in ids)
    assert body == {
        "id": "msg_r1", "type": "message", "role": "assistant", "model": "demo", "stop_reason": "tool_use",
        "stop_sequence": None, "usage": {**USAGE, "service_tier": "standard"},
        "content": [
            {"type": "thinking", "thinking": "so", "signature": ""}, {"type": "text", "text": "Yes", "citations": None},
            {"type": "tool_use", "name": "go", "input": {"to": "Ö"}},
            {"type": "tool_use", "name": "go", "input": {"INVALID_JSON": "{broken"}},
        ],
    }  # fmt: skip


def test_a_streamed_message_tells_blocks_in_order_and_its_counts_twice() -> None:
    events = answered(messages, state_of(thoughtful(streamed=True)), {**ASKED, "tools": [GO], "stream": True})
    begun = events[0].pop("message")
    assert (
        begun["content"] == [] and begun["stop_reason"] is None and begun["usage"]["input_tokens"] == len("u:Hi;[go]")
    )
    blocks = [each["content_block"] for each in events if each["type"] == "content_block_start"]
    ids = [block.pop("id") for block in blocks[2:]]
    assert len(set(ids)) == 2
    assert blocks == [
        {"type": "thinking", "thinking": "", "signature": ""}, {"type": "text", "text": "", "citations": None},
        {"type": "tool_use", "name": "go", "input": {}}, {"type": "tool_use", "name": "go", "input": {}},
    ]  # fmt: skip
    told = [(each["type"], each.get("index"), each.get("delta")) for each in events if "start" not in each["type"]]
    assert told == [
        ("content_block_delta", 0, {"type": "thinking_delta", "thinking": "s"}),
        ("content_block_delta", 0, {"type": "thinking_delta", "thinking": "o"}),
        ("content_block_stop", 0, None),
        ("content_block_delta", 1, {"type": "text_delta", "text": "Y"}),
        ("content_block_delta", 1, {"type": "text_delta", "text": "es"}),
        ("content_block_stop", 1, None),
        ("content_block_delta", 2, {"type": "input_json_delta", "partial_json": '{"to":"Ö"}'}),
        ("content_block_stop", 2, None),
        ("content_block_delta", 3, {"type": "input_json_delta", "partial_json": '{"INVALID_JSON":"{broken"}'}),
        ("content_block_stop", 3, None),
        ("message_delta", None, {"stop_reason": "tool_use", "stop_sequence": None}),
        ("message_stop", None, None),
    ]
    assert events[-2]["usage"] == USAGE
    assert [each["index"] for each in events if each["type"] == "content_block_start"] == [0, 1, 2, 3]
    empty = SpelledModel(Delta("", Completion(assistant(""), "stop", Usage())))
    assert [each["type"] for each in answered(messages, state_of(empty), {**ASKED, "stream": True})] == [
        "message_start", "message_delta", "message_stop",
    ]  # fmt: skip
    *_, error = answered(messages, state_of(SpelledModel(Delta("x"))), {**ASKED, "stream": True})
    assert error["error"]["message"] == "the model ended without an answer"


def test_tokens_of_a_prompt_are_counted_and_thinking_is_switched_off_where_there_is_any() -> None:
    state = state_of(SpelledModel())
    counted = {"model": "demo", "messages": HI, "tools": [GO], "chat_template_kwargs": {"a": 1}}
    assert answered(count_tokens, state, counted) == {"input_tokens": len("u:Hi;[go]{'a': 1}")}
    for thinks, thinking, template in (
        (True, {"type": "disabled"}, {"a": 1, "enable_thinking": False}), (False, {"type": "disabled"}, {"a": 1}),
        (True, {"type": "adaptive"}, {"a": 1}), (True, None, {"a": 1}),
    ):  # fmt: skip
        model = SpelledModel(Delta("", Completion(assistant("x"), "stop", Usage())), thinks=thinks)
        answered(messages, state_of(model), {**ASKED, "chat_template_kwargs": {"a": 1}, "thinking": thinking})
        assert model.asked[0]["template"] == template
    for thinking in ({"type": "enabled"}, {"type": "adaptive", "budget_tokens": 5}):
        with pytest.raises(Refusal, match=r"thinking\.budget_tokens is not supported") as caught:
            answered(messages, state, {**ASKED, "thinking": thinking})
        assert (caught.value.param, caught.value.code) == ("thinking", "unsupported_parameter")
    with pytest.raises(Refusal) as caught:
        answered(messages, state, {**ASKED, "stop_sequences": ["x" * 2000]})
    assert caught.value.param == "stop_sequences"


class Embedder:
    """Gives a vector of each text's length, and counts its letters as tokens."""

    name, fingerprint = "vec", "f"

    async def embed(self, texts: Any) -> Any:
        return (await self.embed_counted(texts)).vectors

    async def embed_counted(self, texts: Any, *, whole: bool = False) -> Any:
        counts = [len(text) for text in texts]
        for index, count in enumerate(counts):
            if whole and count > 4:
                raise PromptTooLong(f"input {index} has more tokens than the model takes ({count}): split it")
        return SimpleNamespace(
            vectors=[[float(n), -0.5] for n in counts], num_tokens=counts, truncated=[n > 4 for n in counts]
        )


def test_texts_become_vectors_as_numbers_or_base64_and_none_is_cut() -> None:
    state = state_of(None)
    state.models.embedder = Embedder()  # type: ignore[assignment]
    state.models.name = "vec"
    request = request_with({"input": ["ab", "abcd"], "model": "vec"})
    assert answered(embeddings, state, request) == {
        "object": "list", "model": "vec", "usage": {"prompt_tokens": 6, "total_tokens": 6},
        "data": [{"object": "embedding", "index": 0, "embedding": [2.0, -0.5]},
                 {"object": "embedding", "index": 1, "embedding": [4.0, -0.5]}],
    }  # fmt: skip
    assert request.notes == {"inputs": 2, "prompt_tokens": 6} and state.telemetry.metrics.tokens["prompt"] == 6
    (one,) = answered(embeddings, state, {"input": "abc", "encoding_format": "base64"})["data"]
    assert base64.b64decode(one["embedding"]) == struct.pack("<2f", 3.0, -0.5)
    named: list[str] = []
    request = request_with({"input": "a"})
    request.span = SimpleNamespace(model=named.append)  # type: ignore[assignment]
    assert answered(embeddings, state, request)["model"] == "vec" and named == ["vec"], "also where none is asked for"
    for body, said in (
        ({"input": ["ab", "abcde"]}, "input 1 has more tokens than the model takes (5): split it"),
        ({"input": ["ab", ""]}, "an input is empty"),
        ({"input": "a" * (1 << 20)}, "input 0 has more tokens than the model takes (1048576)"),
        ({"input": ["a" * (1 << 20), "b"]}, "the inputs have more than 1048576 characters together"),
    ):
        with pytest.raises(Refusal) as caught:
            answered(embeddings, state, body)
        assert said in caught.value.message and caught.value.param == "input"

    class Careless(Embedder):
        async def embed_counted(self, texts: Any, *, whole: bool = False) -> Any:
            return await super().embed_counted(texts)

    state.models.embedder = Careless()  # type: ignore[assignment]
    with pytest.raises(Refusal) as caught:
        answered(embeddings, state, {"input": ["ab", "abcde"]})
    assert caught.value.message == "input 1 has more tokens than the model takes (5): split it"
    with pytest.raises(Refusal, match="no model for embeddings") as caught:
        answered(embeddings, state_of(SpelledModel()), {"input": "a"})
    assert caught.value.status == 501


class Adapted(SpelledModel):
    """A model with adapters, which notes what is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.adapters = {"ad": Path("/x/folder")}
        self.did: list[Any] = []

    def put_adapter(self, name: str, folder: Any) -> None:
        raise NotImplementedError

    def with_adapter(self, name: str) -> Any:
        made = SpelledModel()
        made.name, made.fingerprint = name, f"fp {name}"
        return made

    async def load_adapter(self, name: str, folder: Any, *, version: int = 0, replace: bool = False) -> None:
        self.did.append(("load", name, folder, replace))
        if name.startswith("bad"):
            raise {"bad": ModelFileError, "badder": ConfigError}[name](f"{folder}/adapter_config.json is wrong")
        self.adapters = {**self.adapters, name: folder}

    async def unload_adapter(self, name: str) -> None:
        self.did.append(("unload", name))


def test_models_and_adapters_are_found_by_name_and_listed_with_their_parent() -> None:
    state = state_of(Adapted())
    models = state.models
    models.created = 86400
    assert models.names == {"demo": None, "ad": "demo"}
    assert (models.find(None).name, models.find("demo").name, models.find("ad").name) == ("demo", "demo", "ad")
    assert models.find("ad").model.fingerprint == "fp ad" and models.find("ad").facts is models.facts
    prints = {models.find(name).system_fingerprint for name in (None, "demo", "ad")}
    assert len(prints) == 2
    with pytest.raises(Refusal, match="there is no model 'none' here: ad and demo") as caught:
        models.find("none")
    assert (caught.value.status, caught.value.param, caught.value.code) == (404, "model", "model_not_found")
    base = {"object": "model", "created": 86400, "owned_by": "firsthand", "type": "model",
    "created_at": "1970-01-02T00:00:00Z",
            "max_model_len": 100}  # fmt: skip
    listed = answered(openai_app.list_models, state, {})
    assert listed == {
        "object": "list", "has_more": False, "first_id": "demo", "last_id": "ad",
        "data": [{**base, "id": "demo", "display_name": "demo"},
                 {**base, "id": "ad", "display_name": "ad", "parent": "demo", "root": "folder"}],
    }  # fmt: skip
    request = request_with({})
    request.path_params = {"id": "ad"}
    assert answered(openai_app.get_model, state, request) == listed["data"][1]


def test_a_model_that_is_loading_or_has_failed_says_so_without_its_folders() -> None:
    models = ServedModels(SpelledModel(), Embedder(), name="demo")  # type: ignore[arg-type]
    assert models.names == {"demo": None, "vec": None} and not models.is_ready
    with pytest.raises(Refusal, match="being loaded") as caught:
        models.check_ready()
    assert (caught.value.status, caught.value.code, caught.value.headers) == (503, "loading", {"retry-after": "2"})
    models.state = "ready"
    models.check_ready()
    models.tokens = SimpleNamespace(is_alive=False)  # type: ignore[assignment]
    with pytest.raises(Refusal, match="the model has failed: its engine stopped") as caught:
        models.check_ready()
    assert (caught.value.code, caught.value.headers) == ("failed", {"retry-after": "5"})
    models.state, models.problem = "failed", "/nowhere/models/x.gguf and /home/me/y are bad, see http://a/b/c"
    with pytest.raises(Refusal) as caught:
        models.check_ready()
    assert caught.value.message == "the model has failed: x.gguf and y are bad, see http://a/b/c"
    written: list[Any] = []

    async def load(model: Any, embedder: Any) -> ServedModels:
        made = ServedModels(model, embedder)
        await made.load(lambda event, **fields: written.append((event, fields)))
        return made

    class Broken(Embedder):
        error: Exception = ModelError("no")

        async def embed(self, texts: Any) -> Any:
            raise self.error

    made = asyncio.run(load(None, Embedder()))
    assert (made.state, made.name, written) == ("ready", "vec", [("ready", {"model": "vec"})])
    made = asyncio.run(load(None, Broken()))
    assert (made.state, made.problem, written[-1]) == ("failed", "no", ("failed", {"error": "no"}))
    Broken.error = KeyError("x")
    made = asyncio.run(load(None, Broken()))
    assert made.problem == "KeyError: 'x'" and "traceback" in written[-1][1]
    with pytest.raises(Refusal, match="a model for embeddings only"):
        made.find(None)
    remote = ServedModel("r", SpelledModel(), None, None)
    assert remote.system_fingerprint is None and not remote.thinks
    with pytest.raises(Refusal, match="echo needs a model that runs here, and r does not") as caught:
        remote.token_model("echo")
    assert (caught.value.param, caught.value.code) == ("echo", "unsupported_parameter")


def test_a_model_under_two_names_has_one_system_fingerprint() -> None:
    model = SpelledModel()
    names = [ServedModel(name, model, model, model.facts) for name in ("demo", "other")]
    digest = hashlib.sha256(f"{model.fingerprint}|{model.facts.computed_by}".encode()).hexdigest()
    assert [each.system_fingerprint for each in names] == [f"fp_{digest[:10]}"] * 2
    elsewhere = replace(names[0], facts=replace(model.facts, computed_by="cuda"))
    assert elsewhere.system_fingerprint not in (None, names[0].system_fingerprint)
    changed = SpelledModel()
    changed.fingerprint = "other files"
    assert replace(names[0], model=changed).system_fingerprint not in (None, names[0].system_fingerprint)


def test_several_answers_of_a_model_elsewhere_come_whole_one_after_another() -> None:
    ends = [Completion(assistant(text), "stop", Usage()) for text in ("a", "", "c")]
    model = SpelledModel(*(Delta("p", end) for end in ends))
    served = ServedModel("r", model, None, None)

    async def run(n: int) -> list[Any]:
        return [
            (each.text, each.index, each.completion is not None)
            async for each in served.stream([user("q")], Sampling(), n=n)
        ]

    assert asyncio.run(run(3)) == [("a", 0, False), ("", 0, True), ("", 1, True), ("c", 2, False), ("", 2, True)]
    assert asyncio.run(run(1)) == [("p", 0, True)] * 3


def test_adapters_are_loaded_from_within_their_folder_by_those_who_may(tmp_path: Path) -> None:
    root = tmp_path / "adapters"
    for name in ("one", "half"):
        (root / name).mkdir(parents=True)
        (root / name / "adapter_config.json").write_text("{}")
    (root / "one" / "adapter_model.safetensors").write_text("x")
    (tmp_path / "outside").symlink_to(root / "one")
    (root / "link").symlink_to(root / "one")
    (root / "away").symlink_to(tmp_path)
    assert inside(root, "one") == inside(root, "link") == inside(root, str(root / "one")) == (root / "one").resolve()
    assert inside(root, "../outside") == (root / "one").resolve()
    for path in ("half", "none", "..", "away", "/", "a\0b", "."):
        with pytest.raises(Refusal, match="give a folder with an adapter within") as caught:
            inside(root, path)
        assert caught.value.param == "lora_path" and caught.value.status == 400
    with pytest.raises(Refusal, match="without --adapter-root"):
        inside(None, "one")
    assert without_root(f"{root}/one and {root}x", root) == f"one and {root}x" and without_root("a", None) == "a"
    model = Adapted()
    state = state_of(model, adapter_root=root)
    may = Client("ann", request_with({}).client.limits, load_adapters=True)

    def asked(handler: Any, body: Any, who: Client = may) -> Any:
        request = request_with(body)
        request.client = who
        return answered(handler, state, request)

    load = {"lora_name": "new", "lora_path": "one"}
    assert asked(load_adapter, load) == {"status": "loaded", "id": "new"}
    assert model.did == [("load", "new", (root / "one").resolve(), False)]
    assert asked(load_adapter, {**load, "load_inplace": True})["id"] == "new" and model.did[-1][3] is True
    for body, param, said in (
        (load, "lora_name", "the adapter 'new' is loaded already"),
        ({**load, "lora_name": "demo"}, "lora_name", "that is the model's own name"),
        ({**load, "lora_name": "bad"}, "lora_path", "one/adapter_config.json is wrong"),
        ({**load, "lora_name": "badder"}, "lora_name", "one/adapter_config.json is wrong"),
    ):
        with pytest.raises(Refusal) as caught:
            asked(load_adapter, body)
        assert caught.value.param == param and said in caught.value.message and str(root) not in caught.value.message
    assert asked(unload_adapter, {"lora_name": "new"}) == {"status": "unloaded", "id": "new"}
    with pytest.raises(Refusal, match="there is no adapter 'x' here") as caught:
        asked(unload_adapter, {"lora_name": "x"})
    assert caught.value.status == 404
    for handler in (load_adapter, unload_adapter):
        with pytest.raises(Refusal, match="the key of 'ann' is not for loading adapters") as caught:
            answered(handler, state, request_with(load))
        assert caught.value.status == 403
    with pytest.raises(Refusal, match="does not run here, or takes no adapters") as caught:
        request = request_with(load)
        request.client = may
        answered(load_adapter, state_of(SpelledModel(), adapter_root=root), request)
    assert caught.value.status == 501
