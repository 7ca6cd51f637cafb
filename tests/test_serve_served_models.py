"""The models of a server by name, loaded, used and counted; embeddings, tokens and adapters as routes, called directly."""

from __future__ import annotations

import asyncio
import base64
import selectors
import struct
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from firsthand.cluster.replicas.replicated_model import ReplicatedModel
from firsthand.errors import ModelError, PromptTooLong
from firsthand.message import Message, Text, assistant, user
from firsthand.model import Completion, Delta, Sampling, ToolSpec, Usage
from firsthand.serve.admission.api_keys import Client
from firsthand.serve.anthropic.anthropic_messages import count_tokens, messages
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.models import served_models
from firsthand.serve.models.served_models import ServedModel, ServedModels
from firsthand.serve.openai import embeddings as vectors
from firsthand.serve.openai.adapter_routes import inside, load_adapter, unload_adapter
from firsthand.serve.openai.chat_completions import chat_completions
from firsthand.serve.openai.completions import completions
from firsthand.serve.openai.responses import responses
from firsthand.serve.openai.tokenize import detokenize, tokenize
from replica_scripted import Adaptable, Echo
from spelled_model import SpelledModel, answered, request_with, state_of

GO = {"type": "function", "function": {"name": "go"}}


class Vectors:
    """An embedder that notes what it is given."""

    name, fingerprint = "vec", "f"

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def embed(self, texts: Any) -> Any:
        self.asked.append(list(texts))
        return [np.asarray([len(text), 0.1], np.float64) for text in texts]


class Counting(Vectors):
    async def embed_counted(self, texts: Any, *, whole: bool = False) -> Any:
        counts = [len(text) for text in texts]
        cut = [n for n in counts if n > 3]
        if whole and cut:
            raise PromptTooLong(
                f"input {counts.index(cut[0])} has more tokens than the model takes ({cut[0]}): split it"
            )
        return SimpleNamespace(vectors=await self.embed(texts), num_tokens=counts, truncated=[n > 3 for n in counts])


def refused(work: Any, *given: Any) -> tuple[int, str, str | None, str | None]:
    with pytest.raises(Refusal) as caught:
        work(*given)
    return caught.value.status, caught.value.message, caught.value.param, caught.value.code


def test_models_are_loaded_used_once_and_then_ready() -> None:
    written: list[Any] = []
    told: list[Any] = []
    model, embedder = Adaptable("base"), Vectors()
    model.put_adapter("ad", "/x/ad")
    before = int(time.time())
    models = ServedModels(model, embedder, name="demo")  # type: ignore[arg-type]
    assert before <= models.created <= time.time()
    assert (models.tokens, models.adapter_model, models.state, models.facts) == (model, model, "loading", None)
    models.on_facts = told.append
    assert asyncio.run(models.counters()) == {}, "before it is loaded nothing is asked"
    asyncio.run(models.load(lambda event, **fields: written.append((event, fields))))
    facts = models.facts
    assert facts is not None and told == [facts] and facts.context == 64
    assert written == [("ready", {"model": "demo"})] and models.state == "ready" and models.is_ready
    assert embedder.asked == [["Hello"]] and {each[0] for each in model.asked} >= {"stream_many", "rate", "tokenize"}
    assert asyncio.run(models.counters()) == {"num_blocks": 9.0, "prompt_tokens": 4.0}
    assert models.names == {"ad": "demo", "demo": None, "vec": None} and list(models.names) == ["ad", "demo", "vec"]
    adapted = models.find("ad")
    assert (adapted.name, adapted.model.name, adapted.tokens) == ("ad", "base+ad@/x/ad", adapted.model)
    assert adapted.facts is facts and models.find("demo") == models.find(None) == ServedModel(
        "demo", model, model, facts
    )
    assert refused(models.find, "vec") == (
        400, "vec makes embeddings and answers nothing: use /v1/embeddings, or the model demo", "model", None,
    )  # fmt: skip
    model.put_adapter("demo", "/x/other")
    assert models.find("demo").model is model, "an adapter does not hide the model"
    assert refused(models.find, "other") == (
        404, "there is no model 'other' here: ad and demo and vec", "model", "model_not_found",
    )  # fmt: skip
    model.is_alive = False  # type: ignore[misc]
    assert not models.is_ready and refused(models.check_ready)[:2] == (503, "the model has failed: its engine stopped")

    class Silent(Echo):
        async def counters(self) -> Any:
            raise ModelError("gone")

    silent = ServedModels(Silent())
    silent.facts = facts
    assert asyncio.run(silent.counters()) == {} and silent.name == "echo" and silent.adapters == {}
    assert ServedModels(None, embedder).name == "vec" and ServedModels(None).name == ""  # type: ignore[arg-type]
    bare = ServedModels(SpelledModel(), name="x")
    asyncio.run(bare.load())
    assert bare.state == "ready" and bare.adapter_model is None

    class Missing(Echo):
        path = Path("/home/me/models/m.gguf")

        async def load(self) -> Any:
            raise OSError(2, "No such file", "/home/me/models/m.gguf")

    only = ServedModels(None, SimpleNamespace(name="e", path=Path("/home/my me/emb/v.bin")))  # type: ignore[arg-type]
    only.state, only.problem = "failed", "/home/my me/emb/v.bin is no /home/x/model: see https://a.example/b/c"
    told_of = "the model has failed: v.bin is no model: see https://a.example/b/c"
    assert refused(only.check_ready)[1] == told_of
    fleet: Any = SimpleNamespace(problem="no replica answers: /srv/log is full", is_alive=False)
    replicas = ServedModels(ReplicatedModel(fleet, "m"))
    replicas.state = "ready"
    replicas.tokens = SimpleNamespace(is_alive=False)  # type: ignore[assignment]
    assert refused(replicas.check_ready)[1] == "the model has failed: no replica answers: log is full"

    class Fingerprinted(Adaptable):
        threads: ClassVar[list[bool]] = []

        @property
        def fingerprint(self) -> str:
            self.threads.append(threading.current_thread() is threading.main_thread())
            return "f"

        @fingerprint.setter
        def fingerprint(self, value: str) -> None: ...

    asyncio.run(ServedModels(Fingerprinted()).load())
    assert Fingerprinted.threads == [False], "it is there before the first answer, and nobody waited for it"

    lost = ServedModels(Missing())
    written.clear()
    asyncio.run(lost.load(lambda event, **fields: written.append((event, fields))))
    assert lost.state == "failed" and written == [
        ("failed", {"error": "[Errno 2] No such file: '/home/me/models/m.gguf'"})
    ]
    assert refused(lost.check_ready) == (503, "the model has failed: [Errno 2] No such file: 'm.gguf'", None, "failed")


def test_a_model_here_gets_every_option_and_one_elsewhere_what_it_knows() -> None:
    here, tool = SpelledModel(Delta("a")), ToolSpec("go", "", {})
    sampling = Sampling(max_tokens=3)

    async def pieces(served: ServedModel, prompt: Any, **options: Any) -> list[str]:
        return [each.text async for each in served.stream(prompt, sampling, **options)]

    served = ServedModel("demo", here, here, here.facts)  # type: ignore[arg-type]
    options = {"tools": [tool], "n": 2, "priority": 3, "run": "r", "cache_salt": "s"}
    assert asyncio.run(pieces(served, [1, 2], **options)) == ["a"]
    assert here.asked == [{"prompt": [1, 2], "sampling": sampling, **options}]
    seen: list[Any] = []
    closed: list[str] = []

    class Elsewhere(SpelledModel):
        async def stream(self, prompt: Any, sampling: Any, *, tools: Any = ()) -> AsyncGenerator[Delta, None]:
            seen.append((prompt, sampling, tools))
            try:
                yield Delta("x")
                yield Delta("y")
            finally:
                closed.append("closed")

        async def complete(self, prompt: Any, sampling: Any, *, tools: Any = (), n: int = 1) -> Any:
            seen.append((prompt, sampling, tools, n))
            return []

    away = replace(served, model=Elsewhere(), tokens=None)
    said = [user("q"), Message("assistant", (Text("a"),))]
    assert asyncio.run(pieces(away, said, tools=[tool], priority=9)) == ["x", "y"]
    assert asyncio.run(pieces(away, "text")) == ["x", "y"] and asyncio.run(pieces(away, said, n=3, tools=[tool])) == []
    assert seen == [(said, sampling, [tool]), ("text", sampling, ()), (said, sampling, [tool], 3)]

    async def left() -> None:
        stream = away.stream("text", sampling)
        await anext(stream)
        await stream.aclose()
        assert closed == ["closed"], "at once, and not when somebody collects it"

    closed.clear()
    asyncio.run(left())
    assert served_models._folder_of(here) == Path("/nowhere/models") and served_models._folder_of(Vectors()) is None


def test_ids_and_settings_of_another_vocabulary_are_refused_by_their_field() -> None:
    model = SpelledModel()
    served = ServedModel("demo", model, model, model.facts)
    for ids in ([], [0], [255]):
        served.check_ids(ids, "prompt")
    assert refused(served.check_ids, [1, 256, 300, 2], "prompt")[1:3] == (
        "prompt holds 300: the model's tokens go from 0 to 255", "prompt",
    )  # fmt: skip
    replace(served, facts=None).check_ids([999], "prompt")
    served.check_sampling(Sampling(stop_ids=(255,), logit_bias=((255, 1.0),), allowed_token_ids=(255,)))
    for sampling, field in ((Sampling(stop_ids=(1, 256)), "stop_token_ids"), (Sampling(allowed_token_ids=(256,)),
                            "allowed_token_ids"), (Sampling(logit_bias=((256, 1.0),)), "logit_bias")):  # fmt: skip
        assert refused(served.check_sampling, sampling)[2] == field
    assert not served.thinks and ServedModel("t", model, model, SpelledModel(thinks=True).facts).thinks
    assert ServedModel("s", SimpleNamespace(thinks=True), None, None).thinks  # type: ignore[arg-type]
    assert refused(replace(served, tokens=None).token_model, "echo") == (
        400, "echo needs a model that runs here, and demo does not", "echo", "unsupported_parameter",
    )  # fmt: skip


def test_a_vector_of_each_text_is_told_with_its_tokens_where_they_are_counted() -> None:
    def state_with(embedder: Any) -> Any:
        state = state_of(None)
        state.models.embedder, state.models.name = embedder, "vec"
        return state

    state = state_with(Counting())
    named: list[str] = []
    request = request_with({"input": ["abc", "é"], "model": "vec"})
    request.span = SimpleNamespace(model=named.append)  # type: ignore[assignment]
    assert answered(vectors.embeddings, state, request) == {
        "object": "list", "model": "vec", "usage": {"prompt_tokens": 4, "total_tokens": 4},
        "data": [{"object": "embedding", "index": 0, "embedding": [3.0, 0.1]},
                 {"object": "embedding", "index": 1, "embedding": [1.0, 0.1]}],
    }  # fmt: skip
    assert request.notes == {"inputs": 2, "prompt_tokens": 4} and named == ["vec"]
    assert state.telemetry.metrics.tokens == {"prompt": 4, "cached": 0, "completion": 0}
    assert answered(vectors.embeddings, state, {"input": "ab"})["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert state.telemetry.metrics.tokens["prompt"] == 6, "of all requests"
    plain = state_with(Vectors())
    body = answered(vectors.embeddings, plain, {"input": "ab", "encoding_format": "base64"})
    assert body["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert base64.b64decode(body["data"][0]["embedding"]) == struct.pack("<2f", 2.0, 0.1)
    assert plain.models.embedder.asked == [["ab"]]
    for given, told in (
        ({"input": ["abc", "abcd", "abcde"]}, (
            400, "input 1 has more tokens than the model takes (4): split it", "input", "context_length_exceeded")),
        ({"input": ["a", ""]}, (400, "an input is empty: give some text", "input", None)),
        ({"input": ["a" * vectors.MAX_CHARS, "b"]}, (
            400, "the inputs have more than 1048576 characters together: send fewer at a time", "input", None)),
        ({"input": "a", "model": "no"}, (404, "there is no model 'no' here: vec", "model", "model_not_found")),
    ):  # fmt: skip
        assert refused(answered, vectors.embeddings, state, given) == told
    assert refused(answered, vectors.embeddings, state_of(SpelledModel()), {"input": "a"})[:2] == (
        501, "this server has no model for embeddings: start it with --embedder minilm",
    )  # fmt: skip
    fits = answered(vectors.embeddings, plain, {"input": ["a" * (vectors.MAX_CHARS - 1), "b"]})
    assert len(fits["data"]) == 2


def test_an_embedder_and_a_model_answer_to_their_own_names_alone() -> None:
    state = state_of(SpelledModel(Delta("A"), Delta("", Completion(assistant("A"), "stop", Usage()))))
    state.models.embedder = Vectors()  # type: ignore[assignment]
    chat, text = {"messages": [{"role": "user", "content": "q"}]}, {"prompt": "q"}
    message, count = {**chat, "max_tokens": 9}, chat
    for route, body in ((chat_completions, chat), (completions, text), (tokenize, text), (detokenize, {"tokens": [1]}),
                        (responses, {"input": "q"}), (messages, message), (count_tokens, count)):  # fmt: skip
        assert answered(route, state, {**body, "model": "demo"})
        assert refused(answered, route, state, {**body, "model": "vec"})[::2] == (400, "model"), route
    for named in ({}, {"model": "vec"}):
        assert answered(vectors.embeddings, state, {"input": "ab", **named})["model"] == "vec"
    assert refused(answered, vectors.embeddings, state, {"input": "ab", "model": "demo"}) == (
        400, "demo makes no embeddings here: give the model vec", "model", None,
    )  # fmt: skip
    state.models.name = "vec"  # one decoder as both
    assert answered(chat_completions, state, {**chat, "model": "vec"})["model"] == "vec"
    assert answered(vectors.embeddings, state, {"input": "ab", "model": "vec"})["model"] == "vec"
    alone = ServedModels(None, Vectors(), name="index")  # type: ignore[arg-type]
    assert alone.find_embedder("index") is alone.find_embedder("vec") is alone.find_embedder(None) is alone.embedder


@pytest.mark.parametrize("ids", [[7592, 2088], [[7592], [2088]], [0]])
def test_token_ids_of_another_vocabulary_are_not_embedded(ids: Any) -> None:
    state = state_of(None)
    state.models.embedder, state.models.name = Vectors(), "vec"  # type: ignore[assignment]
    status, told, param, code = refused(answered, vectors.embeddings, state, {"input": ids})
    assert (status, param, code) == (400, "input", "unsupported_parameter")
    assert told.startswith("input holds token ids, which are not those of this embedder: send texts")


def test_tokens_of_a_text_or_a_chat_and_back() -> None:
    state = state_of(SpelledModel(thinks=True))
    assert answered(tokenize, state, {"prompt": "aé", "return_token_strs": True}) == {
        "count": 3, "max_model_len": 100, "tokens": [97, 195, 169], "token_strs": ["a", "\ufffd", "\ufffd"],
    }  # fmt: skip
    assert answered(tokenize, state, {"prompt": ""}) == {"count": 0, "max_model_len": 100, "tokens": []}
    said = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning": "r"}],
            "tools": [GO], "chat_template_kwargs": {"x": 1}}  # fmt: skip
    shown = "u:q;a:<think>\nr\n</think>\n\na;[go]{'x': 1}"
    assert bytes(answered(tokenize, state, said)["tokens"]).decode() == shown
    for body, message, param in (
        ({}, "give either prompt, a text, or messages, a chat", "prompt"),
        ({"prompt": "a", "messages": said["messages"]}, "give either prompt, a text, or messages, a chat", "prompt"),
        ({"prompt": "a", "tools": [GO]}, "tools are rendered in a chat: give messages", "tools"),
    ):
        assert refused(answered, tokenize, state, body) == (400, message, param, None)
    assert answered(detokenize, state, {"tokens": [97, 98]}) == {"prompt": "ab"}
    assert answered(detokenize, state, {"tokens": []}) == {"prompt": ""}
    assert refused(answered, detokenize, state, {"tokens": [256]})[1:3] == (
        "tokens holds 256: the model's tokens go from 0 to 255", "tokens",
    )  # fmt: skip
    away = state_of(SpelledModel())
    away.models.tokens = None
    for handler, body, field in ((tokenize, {"prompt": "a"}, "prompt"), (detokenize, {"tokens": [1]}, "tokens")):
        assert refused(answered, handler, away, body)[1] == f"{field} needs a model that runs here, and demo does not"
    for handler, body in ((tokenize, {"prompt": "a", "model": "no"}), (detokenize, {"tokens": [1], "model": "no"})):
        assert refused(answered, handler, state, body)[0] == 404


def test_adapters_are_loaded_replaced_and_unloaded_by_who_may(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("one", "gone"):
        (root / name).mkdir(parents=True)
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (root / name / file).write_text("{}")

    class Breaks(Adaptable):
        async def load_adapter(self, name: str, folder: Any, *, version: int = 0, replace: bool = False) -> None:
            if Path(folder).name == "gone":
                raise FileNotFoundError(2, "No such file or directory", str(folder))
            await super().load_adapter(name, folder, version=version, replace=replace)

    model = Breaks()
    state = state_of(model, adapter_root=root)
    may = Client("ann", request_with({}).client.limits, load_adapters=True)

    def ask(handler: Any, **body: Any) -> Any:
        request = request_with(body)
        request.client = may
        return answered(handler, state, request)

    assert ask(load_adapter, lora_name="n", lora_path="one") == {"status": "loaded", "id": "n"}
    assert refused(lambda: ask(load_adapter, lora_name="n", lora_path="one")) == (
        400, "the adapter 'n' is loaded already: unload it, or set load_inplace", "lora_name", None,
    )  # fmt: skip
    assert ask(load_adapter, lora_name="n", lora_path="one", load_inplace=True) == {"status": "loaded", "id": "n"}
    one = str((root / "one").resolve())
    assert model.given == [("n", one, 0, False), ("n", one, 0, True)] and not state.adapter_lock.locked()
    assert refused(lambda: ask(load_adapter, lora_name="m", lora_path="gone")) == (
        400, "the adapter cannot be read: No such file or directory", "lora_path", "invalid_adapter",
    )  # fmt: skip
    assert refused(lambda: ask(load_adapter, lora_name="demo", lora_path="one")) == (
        400, "lora_name is 'demo': that is the model's own name", "lora_name", None,
    )  # fmt: skip
    state.models.embedder = Vectors()  # type: ignore[assignment]
    assert refused(lambda: ask(load_adapter, lora_name="vec", lora_path="one", load_inplace=True))[1:3] == (
        "lora_name is 'vec': that is the model's own name", "lora_name",
    )  # fmt: skip
    assert refused(lambda: ask(unload_adapter, lora_name="demo")) == (
        404, "there is no adapter 'demo' here", "lora_name", "model_not_found",
    )  # fmt: skip
    assert ask(unload_adapter, lora_name="n") == {"status": "unloaded", "id": "n"} and model.beside == {}
    for handler, body in ((load_adapter, {"lora_name": "n", "lora_path": "one"}), (unload_adapter, {"lora_name": "n"})):
        assert refused(answered, handler, state, body) == (
            403, "the key of 'ann' is not for loading adapters: ask the server's operator", None, "adapters_not_allowed",
        )  # fmt: skip
    (tmp_path / "above").symlink_to(tmp_path)
    for linked in (tmp_path / "above" / "root", root / "one" / ".."):
        for path in ("one", "../root/one", str(linked / "one"), str(root / "one")):
            assert str(inside(linked, path)) == one, "links are followed on both sides"
        for path in ("..", ".", "two", "a\0b", str(tmp_path), "one/adapter_config.json"):
            assert refused(inside, linked, path) == (
                400, f"lora_path is {path!r}: give a folder with an adapter within the server's folder of adapters",
                "lora_path", None,
            )  # fmt: skip
    state = state_of(SpelledModel(), adapter_root=root)
    for handler, fields in ((load_adapter, {"lora_path": "one"}), (unload_adapter, {})):
        assert refused(lambda: ask(handler, lora_name="n", **fields)) == (  # noqa: B023
            501, "demo does not run here, or takes no adapters", None, "no_adapters",
        )  # fmt: skip


class Skipping(selectors.DefaultSelector):
    """One that adds up what it should wait, and does not."""

    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None:
            self.skipped_s += max(0.0, timeout)
        return super().select(None if timeout is None else 0)


class Quick(asyncio.SelectorEventLoop):
    """A loop whose waits take no time."""

    def __init__(self) -> None:
        self.waits = Skipping()
        super().__init__(self.waits)

    def time(self) -> float:
        return super().time() + self.waits.skipped_s


def test_the_numbers_of_an_engine_that_does_not_answer_are_none_after_five_seconds() -> None:
    class Failing(Echo):
        def __init__(self, error: BaseException | None) -> None:
            super().__init__()
            self.error = error

        async def counters(self) -> Any:
            if self.error is not None:
                raise self.error
            await asyncio.Event().wait()

    async def counted(error: BaseException | None) -> tuple[Any, float]:
        models = ServedModels(Failing(error))
        models.facts = SimpleNamespace()  # type: ignore[assignment]
        began = asyncio.get_running_loop().time()
        return await models.counters(), asyncio.get_running_loop().time() - began

    with asyncio.Runner(loop_factory=Quick) as runner:
        found, took_s = runner.run(counted(None))
        assert found == {} and 5 <= took_s < 15
        for error in (ModelError("gone"), TimeoutError()):
            assert runner.run(counted(error))[0] == {}
        with pytest.raises(KeyError):
            runner.run(counted(KeyError("a fault of ours")))
