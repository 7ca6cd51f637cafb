"""A local model named by the bytes of its files, watched while it answers, and let go of."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand import __version__
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.outputs import Output
from firsthand.errors import ConfigError, ModelFileError
from firsthand.hub.content_hash import content_hash
from firsthand.message import user
from firsthand.model import Sampling, ToolSpec
from firsthand.nn.quant import best_mode
from firsthand.providers import local
from firsthand.providers.local import Local
from firsthand.providers.local_completions import Loaded
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from tiny import write_tokenizer

CONFIG = EngineConfig(kv_memory_bytes=8 << 20, threads=1)
ADD = ToolSpec("add", "Adds.", {"type": "object"})


# -- its fingerprint --


def test_the_fingerprint_is_of_the_files_the_arithmetic_and_the_version_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    folders = {}
    for name in ("model", "merged", "beside"):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (folders[name] / file).write_text(f"{name} {file}")
    files = {name: [content_hash(each) for each in sorted(folder.iterdir())] for name, folder in folders.items()}
    config = EngineConfig(device="cpu", weights="int8", kv_cache="float16")
    end = ["cpu", "int8", "float16", best_mode("cpu"), str(find_spec("numba") is not None)]

    def named(*parts: str) -> str:
        return f"local:{hashlib.sha256('|'.join([*parts, __version__]).encode()).hexdigest()[:16]}"

    model = Local(folders["model"], config=config, adapters={"b": folders["beside"]})
    plain = named(*files["model"], *end)
    assert model.fingerprint == plain
    view = model.with_adapter("b")
    besides = named(*files["model"], "beside", *files["beside"], *end)
    assert view.fingerprint == besides and model.fingerprint == plain, "the view's is not the model's"
    free = Local(folders["model"], config=config, free_calls=True, adapter=folders["merged"])
    assert free.fingerprint == named(*files["model"], "lora", *files["merged"], *end, "free calls")
    model._shared.weights = "w7"
    assert model.fingerprint == named(*files["model"], *end, "w7")
    assert view.fingerprint == named(*files["model"], "beside", *files["beside"], *end, "w7")
    model._shared.weights = ""
    assert view.fingerprint == besides
    model._shared.from_memory["b"] = "m1"
    assert view.fingerprint == besides, "nothing came in since it was asked"
    model._shared.loadings["b"] += 1
    assert view.fingerprint == named(*files["model"], "beside", "m1", *end) and model.fingerprint == plain
    model.hold_weights_in("float32")
    assert model.fingerprint == named(*files["model"], "cpu", "float32", *end[2:])


# -- loading once, and letting go --


class Worker:
    """An engine thread that notes what is done to it, tells outputs, and lets the taps read before each."""

    is_alive = True

    def __init__(self, done: list[Any], *told: Output, error: BaseException | None = None) -> None:
        self.done, self.told, self.error = done, told, error
        self.requests: list[Any] = []
        self.engine = SimpleNamespace(
            adapters=SimpleNamespace(read=lambda folder: f"packed {folder}"),
            architecture=SimpleNamespace(max_position=64, vocab_size=400),
        )

    def add_adapter(self, name: str, packed: str) -> Any:
        def result() -> None:
            if self.error is not None:
                raise self.error

        self.done.append((name, packed))
        return SimpleNamespace(result=result)

    def close(self) -> None:
        self.done.append("closed")

    async def submit(self, request: Any) -> Any:
        self.requests.append(request)
        for at, each in enumerate(self.told):
            if request.taps is not None:
                begin = len(request.prompt) - 1 + at // 2
                for tap in request.taps.taps.values():
                    tap([float(10 * at + each.index)], range(begin, begin + 1), each.index)
            yield each

    def lease(self, ids: Any, **given: Any) -> Any:
        return tuple(ids)


def test_a_model_that_nobody_holds_is_unloaded_and_one_whose_loading_was_broken_off_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "adapter_files", lambda folder: [])
    done: list[Any] = []
    errors: list[BaseException | None] = [None, KeyboardInterrupt(), ModelFileError("bad"), None]
    monkeypatch.setattr(
        local, "load_model", lambda *given: SimpleNamespace(worker=Worker(done, error=errors.pop(0)), given=given)
    )
    config = replace(CONFIG, weights="float32")
    model = Local("/m", config=config, adapters={"red": "/red"})
    view = model.with_adapter("red")
    first: Any = model._load()
    assert view._load() is first and first.given == (Path("/m"), config, None) and done == [("red", "packed /red")]
    del model
    assert done == [("red", "packed /red")], "a view still holds it"
    del view
    assert done[1:] == ["closed"]
    for kind in (KeyboardInterrupt, ModelFileError):
        done.clear()
        broken = Local("/m", adapters={"red": "/red", "blue": "/blue"})
        with pytest.raises(kind):
            broken._load()
        assert done == [("red", "packed /red"), "closed"] and broken._shared.loaded is None
        assert broken._shared.present == set()
    done.clear()
    late = broken.with_adapter("blue")
    again = late._load()
    assert done == [("red", "packed /red"), ("blue", "packed /blue")] and late._load() is again and len(done) == 2
    broken._shared.present.discard("blue")
    assert late._load() is again and done[2:] == [("blue", "packed /blue")], "one that was dropped is read again"
    broken.close()
    broken.close()
    assert done[3:] == ["closed"] and broken._shared.present == set()


# -- answers that are watched, steered, and streamed with calls --


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("spoken")
    write_tokenizer(folder)
    tokenizer = pretrained.load(folder)
    return Loaded(None, tokenizer, ChatTemplate(tokenizer, tokenizer.chat_template), SimpleNamespace())  # type: ignore[arg-type]


def told(spoken: Any, *outputs: Output) -> tuple[Local, Worker]:
    model, worker = Local("/none", name="m", free_calls=True), Worker([], *outputs)
    model._shared.loaded = replace(spoken, worker=worker)
    return model, worker


def piece(index: int, ids: list[int], **fields: Any) -> Output:
    logprobs = (-1.0,) * len(ids)
    return Output(0, index, tuple(ids), logprobs, False, behaviour_logprobs=logprobs, **fields)


class Watch:
    site = "s"

    def __init__(self) -> None:
        self.fits: list[Any] = []

    def expect_fits(self, architecture: Any) -> None:
        self.fits.append(architecture)

    def scores(self, values: Any) -> list[float]:
        return [float(each) for each in values]


def test_a_watched_answers_tokens_have_the_scores_of_what_they_were_sampled_from(spoken: Any) -> None:
    a, b = (spoken.tokenizer.encode(each)[0] for each in "ab")
    outputs = (
        piece(0, [a]), piece(1, [b]), piece(0, [b], finish_reason="length"), piece(1, [a], finish_reason="length"),
    )  # fmt: skip
    base, worker = told(spoken, *outputs)
    watch: Any = Watch()
    vector: Any = SimpleNamespace(site="t", digest="d", added=lambda values: [each + 100 for each in values])
    watched = base.monitored_by(watch, name="w")

    async def streamed() -> list[Any]:
        return [each.completion async for each in watched.stream_many("Hi", Sampling(), n=2) if each.completion]

    answers = asyncio.run(watched.complete("Hi", Sampling(), n=2))
    assert watch.fits == [worker.engine.architecture] and worker.requests[0].taps.edits is False
    assert [each.message.sampled.monitor for each in answers] == [(0.0, 20.0), (11.0, 31.0)]  # type: ignore[union-attr]
    assert [each.message.sampled.monitor for each in asyncio.run(streamed())] == [(0.0, 20.0), (11.0, 31.0)]
    steered = base.steered_by(vector, name="s")
    (first, _) = asyncio.run(steered.complete("Hi", Sampling(), n=2))
    assert first.message.sampled is not None and not first.message.sampled.monitor and len(watch.fits) == 2
    assert set(worker.requests[-1].taps.taps) == {"t"} and worker.requests[-1].taps.edits
    (both, _) = asyncio.run(steered.monitored_by(watch, name="b").complete("Hi", Sampling(), n=2))
    assert set(worker.requests[-1].taps.taps) == {"s", "t"} and both.message.sampled.monitor == (0.0, 20.0)  # type: ignore[union-attr]
    asyncio.run(base.complete("Hi", Sampling(), n=2))
    assert worker.requests[-1].taps is None

    def misfit(architecture: Any) -> None:
        raise ConfigError("it is of another model")

    watch.expect_fits = misfit
    with pytest.raises(ConfigError, match="another model"):
        asyncio.run(watched.complete("Hi", Sampling()))
    assert len(worker.requests) == 5


def test_scores_and_ratings_of_a_steered_model_are_of_the_steered_one(spoken: Any) -> None:
    model, worker = told(spoken)
    asked: list[Any] = []

    async def score(starts: Any, continued: Any, **more: Any) -> list[Any]:
        asked.append(more["taps"])
        found = SimpleNamespace(
            logprobs=(-1.0,), is_greedy=True, cached_tokens=0, top_logprobs=(), distribution=[0.5], owner=""
        )
        return [found] * len(continued)

    worker.score = score  # type: ignore[attr-defined]
    steered = model.steered_by(SimpleNamespace(site="t", digest="d", added=list), name="s")  # type: ignore[arg-type]

    async def all_of(which: Local) -> None:
        await which.score("a", ["b"])
        await which.rate([1, 2])
        await which.next_logprobs([1])

    asyncio.run(all_of(steered))
    assert [set(each.taps) for each in asked] == [{"t"}] * 3
    asked.clear()
    asyncio.run(all_of(model))
    assert asked == [None] * 3


def test_pieces_of_calls_carry_the_tokens_and_alternatives_of_each_output_once(spoken: Any) -> None:
    wire = 'So <tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call> ok'
    ids = spoken.tokenizer.encode(wire)
    cuts = [0, 1, len(ids) - 1, len(ids)]
    outputs = [
        piece(0, ids[low:high], top_logprobs=tuple(((each, -0.5),) for each in ids[low:high]))
        for low, high in pairwise(cuts)
    ]
    model, _ = told(spoken, *outputs, piece(0, [], finish_reason="length", waited_s=0.25))

    async def streamed() -> list[Any]:
        return [each async for each in model.stream_many([user("x")], Sampling(max_tokens=99), tools=[ADD])]

    found = asyncio.run(streamed())
    carried = [(each.token_ids, each.top_logprobs) for each in found if each.token_ids or each.top_logprobs]
    spelled = lambda some: tuple(((spoken.tokenizer.decode([each]), -0.5),) for each in some)  # noqa: E731
    assert carried == [(tuple(each.token_ids), spelled(each.token_ids)) for each in outputs]
    assert [each.waited_s for each in found if each.completion is not None] == [0.25]
    (call,) = found[-1].completion.message.tool_calls
    assert (call.name, call.arguments) == ("add", {"a": 1}) and len(found[-1].completion.top_logprobs) == len(ids)
    ended = "".join(each.text for each in found)
    assert ended.split() == ["So", "ok"], "what the parser held back comes with the end, whatever the reason"
