"""What local models ask of their engine, argument by argument, with an engine thread that records."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.engine.core.outputs import Output, ScoreOutput
from firsthand.errors import ConfigError, ModelError, ModelFileError, PromptTooLong
from firsthand.hub import model_lookup
from firsthand.message import user
from firsthand.model import Likelihood, ModelFacts, Sampling, TokenRating, ToolSpec, Usage
from firsthand.providers import local_completions as parts
from firsthand.providers import local_scoring
from firsthand.providers.local import Local
from firsthand.providers.local_loading import source_format
from firsthand.providers.local_shared import SavedAdapter, SharedModel
from firsthand.system import request_owner
from hub_site import known

SOURCES = parts.SourceFormat((90,), (91, 92), (80, 81))


def done(value: Any = None) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


class Worker:
    """Records what an engine thread is asked, and answers scores by their length."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.is_alive = True
        self.engine = SimpleNamespace(
            adapters=SimpleNamespace(read=lambda which: f"packed {which}"),
            architecture=SimpleNamespace(max_position=12, vocab_size=128),
            runner=SimpleNamespace(computed_by="AVX9"),
        )

    def add_adapter(self, name: str, packed: Any, **more: Any) -> Future[Any]:
        self.calls.append(("add", name, packed, more))
        return done()

    async def load_adapter(self, name: str, folder: Path, **more: Any) -> None:
        self.calls.append(("load", name, folder, more))

    async def unload_adapter(self, name: str) -> None:
        self.calls.append(("unload", name))

    async def find_adapter(self, name: str) -> Any:
        return SimpleNamespace(packed=f"old {name}", version=7)

    async def score(self, starts: Any, continued: Any, **more: Any) -> list[ScoreOutput]:
        self.calls.append(("score", tuple(starts), [list(each) for each in continued], more))
        found = []
        for index, each in enumerate(continued):
            logprobs = tuple(-float(at + 1) for at in range(len(each)))
            tops = tuple(((7, -0.5),) for _ in each) if more.get("top") else ()
            vector = np.arange(3.0) if more.get("distribution") else None
            found.append(ScoreOutput(logprobs, index == 0, 50, 3, tops, distribution=vector))
        return found

    async def load(self, state: Any, version: int, *, recompute: bool) -> None:
        self.calls.append(("weights", state, version, recompute))

    def lease(self, ids: Any, **more: Any) -> Any:
        return ("lease", tuple(ids), more)

    def close(self) -> None:
        self.calls.append(("close",))


class Letters:
    """A tokenizer of one token for each character, its code's last two digits."""

    add_bos, bos_id, eos_id, vocab_size = True, 70, 71, 100
    eos_ids = frozenset({71})
    chat_template = "{{ '<think>' }}"
    hidden_ids, strips_leading_space = frozenset({71, 70}), True

    def __init__(self) -> None:
        self.recommended = {"temperature": 0.6}

    def encode(self, text: str, most: int | None = None) -> list[int]:
        if most is not None and len(text) > 10 * most:
            raise PromptTooLong("long")
        return [ord(each) % 100 for each in text]

    def encode_prompt(self, text: str, *, most: int | None = None) -> list[int]:
        return [self.bos_id, *self.encode(text, most)]

    def decode(self, ids: Any, skip_special: bool = True) -> str:
        return "".join(chr(each) for each in ids)

    def has_control(self, ids: Any, *, calls: bool = False) -> bool:
        return False


class Chat:
    markup, has_channels = "hermes", False

    def encode(self, messages: Any, tools: Any) -> list[int]:
        return [60, len(messages), len(tools)]

    def with_variables(self, template: Any) -> Any:
        made = Chat()
        made.told = dict(template)  # type: ignore[attr-defined]
        return made


def loaded_with(worker: Worker, sources: parts.SourceFormat | None = None) -> Any:
    return parts.Loaded(worker, Letters(), Chat(), SimpleNamespace(), sources)  # type: ignore[arg-type]


# -- adapters of a shared model --


def test_an_adapter_comes_in_is_replaced_kept_and_restored_with_its_version() -> None:
    shared, worker = SharedModel(), Worker()
    loaded = loaded_with(worker)
    red, blue = Path("/red"), Path("/blue")
    with pytest.raises(ConfigError, match=r"^the adapter 'red' was unloaded: load it again$"):
        shared.folder("red")
    shared.adapters["red"] = red
    assert shared.folder("red") == red
    shared.read(loaded, "red")
    shared.read(loaded, "red")
    assert worker.calls == [("add", "red", "packed /red", {})] and shared.present == {"red"}
    assert shared.loadings["red"] == 0, "it came with the model"

    async def main() -> None:
        worker.calls.clear()
        await shared.load_adapter(loaded, "blue", blue)
        await shared.load_adapter(loaded, "red", blue, version=4, replace=True)
        assert worker.calls == [
            ("load", "blue", blue, {"version": 0, "replace": False}),
            ("load", "red", blue, {"version": 4, "replace": True}),
        ]
        assert shared.adapters == {"red": blue, "blue": blue} and shared.loadings == {"blue": 1, "red": 1}
        worker.calls.clear()
        fresh = SimpleNamespace(path=Path("/made"))
        await shared.update_adapter(loaded, "red", fresh, 9)  # type: ignore[arg-type]
        first = shared.from_memory["red"]
        await shared.update_adapter(loaded, "red", fresh, 10)  # type: ignore[arg-type]
        assert len(first) == 32 and shared.from_memory["red"] != first and shared.loadings["red"] == 3
        assert [(call[1], call[3]) for call in worker.calls] == [
            ("red", {"version": 9, "replace": True}), ("red", {"version": 10, "replace": True}),
        ]  # fmt: skip
        assert worker.calls[0][2] == f"packed {fresh}" and shared.adapters["red"] == Path("/made")
        kept = await shared.kept_adapter(loaded, "red")
        assert isinstance(kept, SavedAdapter) and (kept.folder, kept.adapter.version) == (Path("/made"), 7)
        assert await shared.kept_adapter(loaded, "green") is None
        worker.calls.clear()
        await shared.restore_adapter(loaded, "red", kept)
        assert worker.calls == [("add", "red", "old red", {"version": 7, "replace": True})]
        assert "red" not in shared.from_memory and shared.loadings["red"] == 4
        worker.calls.clear()
        await shared.restore_adapter(loaded, "none", None)
        await shared.restore_adapter(loaded, "blue", None)
        shared.adapters["waiting"] = blue
        await shared.unload_adapter(loaded, "waiting")
        assert worker.calls == [("unload", "blue")] and shared.adapters == {"red": Path("/made")}
        assert shared.present == {"red"}
        with pytest.raises(KeyError):
            await shared.unload_adapter(loaded, "blue")

    asyncio.run(main())
    shared.loaded = loaded
    worker.calls.clear()
    shared.close()
    shared.close()
    assert worker.calls == [("close",)] and shared.loaded is None and shared.present == set()
    assert shared.adapters == {"red": Path("/made")}, "its folders are known still"


# -- scores --


def test_continuations_of_one_prefix_are_scored_by_one_request() -> None:
    worker = Worker()
    taps: Any = object()
    with request_owner.set_owner("me"):
        found = asyncio.run(
            local_scoring.likelihoods(loaded_with(worker), "ab ", ["c", "", "de"], "red", taps)
        )  # the space goes to the continuation
    a, b, space, c, d, e = (ord(each) % 100 for each in "ab cde")
    rest = {"owner": "me", "adapter": "red", "source": (), "taps": taps}
    assert worker.calls == [("score", (70, a, b), [[space, c], [space], [space, d, e]], rest)]
    assert found.likelihoods == (
        Likelihood("c", -3.0, 2, True), Likelihood("", -1.0, 1, False), Likelihood("de", -6.0, 3, False),
    )  # fmt: skip
    assert found.usage == Usage(3 + 2 + 1 + 3, 3)
    with pytest.raises(ModelError, match=r"^the continuation '' has no tokens: give some text to score$"):
        asyncio.run(local_scoring.likelihoods(loaded_with(Worker()), "ab", ["c", ""], None))
    assert asyncio.run(local_scoring.likelihoods(loaded_with(Worker()), "ab", [], None)).usage == Usage(0, 0)


def test_an_encoder_decoder_reads_the_prompt_and_begins_its_outputs_with_its_own_tokens() -> None:
    worker = Worker()
    loaded = loaded_with(worker, SOURCES)
    ids = lambda text: [ord(each) % 100 for each in text]  # noqa: E731
    source = (90, *ids("ab "), 91, 92)
    found = asyncio.run(local_scoring.likelihoods(loaded, "ab ", ["c"], None))
    rest = {"owner": request_owner.current(), "adapter": None, "source": source, "taps": None}
    assert worker.calls == [("score", (80, 81), [ids("c")], rest)]
    assert found.usage == Usage(len(source) + 1, 3)
    assert SOURCES.encode(loaded.tokenizer, [user("a"), user(""), user("b")], 12) == (90, *ids("a\n\n\n\nb"), 91, 92)
    with pytest.raises(PromptTooLong):
        SOURCES.encode(loaded.tokenizer, "x" * 121, 12)
    assert parts.encode(loaded, "a") == (90, *ids("a"), 91, 92)
    with pytest.raises(ConfigError, match="an encoder-decoder takes no tools: leave them out, or ask a chat model"):
        parts.encode(loaded, "a", [ToolSpec("t", "", {})])
    tokenizer = loaded.tokenizer
    tokenizer.token_bytes = tokenizer.token_id = None
    request, _ = parts.new_request(loaded, "ab", Sampling(seed=3), (), 2, None, "red", 5, "me", "salt")
    assert (request.prompt, request.source, request.n) == ((80, 81), (90, *ids("ab"), 91, 92), 2)
    assert (request.adapter, request.priority, request.owner, request.salt) == ("red", 5, "me", "salt")
    answer = SimpleNamespace(
        last=Output(0, 0, (5,), (-1.0,), True, finish_reason="stop", prompt_tokens=2, cached_tokens=1), text="x",
        kept=1, token_ids=[5, 6], logprobs=[-1.0, -2.0], behaviour_logprobs=[-3.0, -4.0], versions=[8, 9],
        top_logprobs=[(("a", -1.0),), (("b", -2.0),)], stop=SimpleNamespace(stopped=None),
    )  # fmt: skip
    whole = parts.completion(loaded, request, answer, (), True)  # type: ignore[arg-type]
    assert (whole.usage, whole.lease, whole.prompt_ids) == (Usage(5, 1, 2), None, request.source)
    assert whole.message.sampled is not None and whole.message.sampled.token_ids == (5,)
    assert (whole.message.sampled.behaviour_logprobs, whole.message.sampled.versions) == ((-3.0,), (8,))
    assert whole.top_logprobs == ((("a", -1.0),),)
    plain, _ = parts.new_request(loaded_with(worker), "ab", Sampling(), (), 1, None, "red", salt="salt")
    written = parts.completion(loaded_with(worker), plain, answer, (), False)  # type: ignore[arg-type]
    assert written.lease == ("lease", (70, *ids("ab"), 5), {"adapter": "red", "salt": "salt"})
    assert (written.usage, written.prompt_ids) == (Usage(0, 0, 2), (70, *ids("ab")))


def test_the_tokens_around_a_source_are_those_of_its_files(tmp_path: Path) -> None:
    model: Any = SimpleNamespace(
        inner=SimpleNamespace(architecture=SimpleNamespace(decoder_start=2)), architecture=SimpleNamespace(vocab_size=9)
    )
    tokenizer: Any = SimpleNamespace(vocab_size=9)
    steps = {"type": "BertProcessing", "cls": ["a", 3], "sep": ["b", 4]}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"post_processor": steps}))
    assert source_format(tmp_path, tokenizer, model) == parts.SourceFormat((3,), (4,), (2,))
    (tmp_path / "config.json").write_text('{"forced_bos_token_id": 8}')
    assert source_format(tmp_path, tokenizer, model).starts == (2, 8)
    (tmp_path / "generation_config.json").write_text('{"forced_bos_token_id": 0}')
    assert source_format(tmp_path, tokenizer, model).starts == (2, 0), "what is for generation counts"
    for forced, start in ((9, 2), (1, 9), (1, -1)):
        (tmp_path / "generation_config.json").write_text(json.dumps({"forced_bos_token_id": forced}))
        model.inner.architecture.decoder_start = start
        said = rf"begins outputs with the tokens \({start}, {forced}\): expected tokens of its vocabulary"
        with pytest.raises(ModelFileError, match=said):
            source_format(tmp_path, tokenizer, model)


# -- a local model --


def local_over(worker: Worker, sources: parts.SourceFormat | None = None) -> Local:
    made = Local("/none", name="m", adapters=None)
    made._shared.loaded = loaded_with(worker, sources)
    return made


def test_ratings_and_next_tokens_are_asked_for_with_their_adapter_owner_and_salt() -> None:
    worker = Worker()
    model = local_over(worker)
    model.chosen = "red"
    model._shared.present.add("red")
    owner = request_owner.current()
    found = asyncio.run(model.rate([4, 5, 6], 1, priority=3, run="me", cache_salt="s"))
    assert found == [TokenRating(5, -1.0, ((7, -0.5),)), TokenRating(6, -2.0, ((7, -0.5),))]
    assert asyncio.run(model.rate([4, 5])) == [TokenRating(5, -1.0, ())]
    assert asyncio.run(model.rate([4])) == asyncio.run(model.rate([])) == []
    nexts = asyncio.run(model.next_logprobs([4, 5]))
    assert nexts.tolist() == [0.0, 1.0, 2.0]
    rest = {"adapter": "red", "taps": None}
    assert worker.calls == [
        ("score", (4,), [[5, 6]], {"top": 1, "priority": 3, "owner": "me", "salt": "s", **rest}),
        ("score", (4,), [[5]], {"top": 0, "priority": 0, "owner": owner, "salt": "", **rest}),
        ("score", (4, 5), [[4]], {"owner": owner, "distribution": True, "source": (), **rest}),
    ]
    worker.calls.clear()
    reads = local_over(worker, SOURCES)
    asyncio.run(reads.next_logprobs([4, 5], run="me"))
    rest = {"owner": "me", "adapter": None, "distribution": True, "source": [4, 5], "taps": None}
    assert worker.calls == [("score", (80, 81), [[80]], rest)]
    with pytest.raises(ConfigError, match="an encoder-decoder does not rate the text it reads: leave out echo"):
        asyncio.run(reads.rate([4, 5]))


def test_a_loaded_model_tells_its_facts_and_takes_new_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    model = local_over(worker)
    facts = asyncio.run(model.load())
    assert facts == ModelFacts(12, 100, "hermes", True, "AVX9", {"temperature": 0.6}, True)
    assert (facts.hidden_ids, facts.strips_space) == ((70, 71), True)
    monkeypatch.setitem(model_lookup.KNOWN, "tiny", known(file="none", sampling={"temperature": 0.1, "top_p": 0.8}))
    both = {"temperature": 0.6, "top_p": 0.8}  # the model's own files go before its card
    assert asyncio.run(model.load()) == ModelFacts(12, 100, "hermes", True, "AVX9", both, True)
    bare = model._shared.loaded.tokenizer  # type: ignore[union-attr]
    bare.chat_template, bare.recommended = "{{ 'think' }}", {}  # type: ignore[assignment, misc]
    card = {"temperature": 0.1, "top_p": 0.8}
    assert asyncio.run(model.load()) == ModelFacts(12, 100, "hermes", False, "AVX9", card, True)
    bare.chat_template = "{{ text.split('</think>')[-1] }}"  # type: ignore[assignment]
    assert asyncio.run(model.load()).thinks, "DeepSeek-R1's first template has the end of a thought alone"
    bare.chat_template = None  # type: ignore[assignment]
    assert asyncio.run(model.load()) == ModelFacts(12, 100, "hermes", False, "AVX9", card, False)
    assert asyncio.run(model.tokenize("x" * 11)) == [70, *[20] * 11]
    with pytest.raises(PromptTooLong, match="the prompt has 13 tokens: the model's context is 12, so shorten it"):
        asyncio.run(model.tokenize("x" * 12))
    assert asyncio.run(model.tokenize([user("a")], [ToolSpec("t", "", {})])) == [60, 1, 1]
    asyncio.run(model.update({"w": 1}, 5, recompute=False, digest="d"))  # type: ignore[dict-item]
    assert model._shared.weights == "d"
    asyncio.run(model.update({}, 6))
    assert worker.calls == [("weights", {"w": 1}, 5, False), ("weights", {}, 6, True)]
    assert len(model._shared.weights) == 32
    told = loaded_with(worker).with_variables({"enable_thinking": False})
    assert told.chat.told == {"enable_thinking": False} and told.context == 12
    same = loaded_with(worker)
    assert same.with_variables({}) is same and same.with_variables(None) is same
    assert model.is_alive
    worker.is_alive = False
    assert not model.is_alive
    later = model.expect_adapter("new")
    assert later.chosen == "new" and model.adapters == {"new": Path("new")}
    model._shared.adapters["new"] = Path("/there")
    assert model.expect_adapter("new") is not later and model.adapters == {"new": Path("/there")}
    with pytest.raises(ConfigError):
        model.expect_adapter("")
