"""Models by name: what each is called, what decides its answers, where its key goes, and whose adapter answers."""

import asyncio
from dataclasses import replace

import pytest

from firsthand.errors import ConfigError, ModelError, ModelFileError, StoreError
from firsthand.loop.concurrency import Branch, enter_branch
from firsthand.loop.prompt_size import size_key
from firsthand.loop.request_key import request_key
from firsthand.message import Message, Sampled, Text, assistant, user
from firsthand.model import Completion, Delta, Likelihood, Sampling, Scored, ToolSpec, Usage
from firsthand.providers import agents, cached, embedder, ollama
from firsthand.providers.agents import AgentsModel, adapter_folders, agent_of
from firsthand.providers.anthropic import AnthropicModel
from firsthand.providers.cached import Cached, MemoryStore, Replay, Replies
from firsthand.providers.endpoint_clients import environment_headers
from firsthand.providers.google import GoogleModel
from firsthand.providers.openai import OpenAIModel
from firsthand.providers.scripted import Scripted

VARIABLES = (
    "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "GOOGLE_API_KEY", "GEMINI_API_KEY",
    "GOOGLE_GEMINI_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL",
)  # fmt: skip


@pytest.fixture
def bare(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_anthropics_key_goes_to_its_own_address_or_the_environments(bare):
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY is not set"):
        AnthropicModel("m")
    bare.setenv("ANTHROPIC_AUTH_TOKEN", "token")
    assert AnthropicModel("m")._key == "token"
    bare.setenv("ANTHROPIC_API_KEY", " key ")
    plain = AnthropicModel("m")
    assert (plain._key, plain.name, plain.fingerprint) == (
        "key",
        "anthropic:m",
        "anthropic:m@https://api.anthropic.com",
    )
    named = AnthropicModel("m", "https://api.anthropic.com/v1/")
    assert (named._key, named.name) == ("key", "anthropic:m@https://api.anthropic.com")
    other = AnthropicModel("m", "http://me:pw@host:8/v1")
    assert (other._key, other._trusted, other.name) == ("", False, "anthropic:m@http://host:8")
    assert AnthropicModel("m", "http://api.anthropic.com")._key == ""  # not by https
    assert AnthropicModel("m", "http://host", api_key="given")._key == "given"
    bare.setenv("ANTHROPIC_BASE_URL", "http://proxy/v1")
    proxied = AnthropicModel("m")
    assert (proxied._key, proxied.name, proxied.fingerprint) == ("key", "anthropic:m", "anthropic:m@http://proxy")
    bare.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-key: a:b\nnone\n y : c")
    assert environment_headers("ANTHROPIC_CUSTOM_HEADERS") == ["x-key", "y"]


def test_googles_key_goes_to_its_own_address_or_the_environments(bare):
    google = "https://generativelanguage.googleapis.com"
    with pytest.raises(ConfigError, match="GOOGLE_API_KEY is not set"):
        GoogleModel("m")
    bare.setenv("GEMINI_API_KEY", "second")
    assert GoogleModel("m")._key == "second"
    bare.setenv("GOOGLE_API_KEY", "first")
    plain = GoogleModel("tuned/m-1.5")
    assert (plain._key, plain.name, plain.fingerprint) == (
        "first",
        "google:tuned/m-1.5",
        f"google:tuned/m-1.5@{google}",
    )
    assert GoogleModel("m", google)._key == "first" and GoogleModel("m", google).name == f"google:m@{google}"
    assert GoogleModel("m", "http://host/")._key == GoogleModel("m", google.replace("https", "http"))._key == ""
    given = [GoogleModel("m", url, api_key=" \tgiven\r\n")._key for url in (None, "http://host")]
    assert given == ["given", "given"], "a key from a file ends with a line"
    bare.setenv("GOOGLE_API_KEY", " first\n")
    assert GoogleModel("m")._key == "first" == GoogleModel("m", api_key="")._key
    bare.setenv("GOOGLE_GEMINI_BASE_URL", "http://proxy/")
    assert (GoogleModel("m")._key, GoogleModel("m").fingerprint) == ("first", "google:m@http://proxy")
    for name in ("", "a/../b", "a b", "a//b", "é", "/a"):
        with pytest.raises(ConfigError, match="names no model: give google:MODEL"):
            GoogleModel(name)


def test_openais_key_is_needed_at_openai_alone(bare):
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        OpenAIModel("m")
    local = OpenAIModel("m", " http://me:pw@host/v1/ ")
    assert (local.name, local.fingerprint, local._key) == ("openai:m@http://host/v1",) * 2 + ("",)
    assert local._faults.secrets == ("", "pw", "bWU6cHc=")
    bare.setenv("OPENAI_API_KEY", "key")
    assert (OpenAIModel("m").name, OpenAIModel("m").fingerprint) == ("openai:m", "openai:m@https://api.openai.com/v1")
    assert OpenAIModel("m")._official and not OpenAIModel("m", "http://host")._official
    bare.setenv("OPENAI_BASE_URL", "http://proxy/v1")
    assert (OpenAIModel("m").name, OpenAIModel("m").fingerprint) == ("openai:m", "openai:m@http://proxy/v1")


@pytest.mark.parametrize("kind", [OpenAIModel, AnthropicModel, GoogleModel])
def test_times_and_sizes_are_above_0(kind, bare):
    for options in ({"timeout_s": 0}, {"timeout_s": -1.0}, {"timeout_s": float("nan")}, {"max_reply_bytes": 0}):
        with pytest.raises(ConfigError, match="give numbers above 0"):
            kind("m", "http://host", **options)
    assert kind("m", "http://host", timeout_s=0.001, max_reply_bytes=1)._timeout_s == 0.001
    if kind is not GoogleModel:
        for name in ("", "a\nb"):
            with pytest.raises(ConfigError, match="names no model: give"):
                kind(name, "http://host")


def test_what_a_vendor_has_no_field_for_is_refused_before_a_run(bare):
    claude, gemini = AnthropicModel("m", "http://host"), GoogleModel("m", "http://host")
    for temperature in (0, 1):
        claude.check_request(Sampling(temperature=temperature, seed=3, stop=("a",)))
    with pytest.raises(ConfigError, match=r"temperature is 0.5, and anthropic:m@http://host takes none"):
        claude.check_request(Sampling(temperature=0.5))
    gemini.check_request(Sampling(temperature=0.5, top_k=2, top_p=0.5, seed=1))
    for model in (claude, gemini):
        for asked in ({"scores": True}, {"chats": False}):
            with pytest.raises(ConfigError):
                model.check_request(Sampling(), **asked)
        with pytest.raises(ModelError, match="gives no log-probs"):
            asyncio.run(model.score([user("a")], ["b"]))
        with pytest.raises(ConfigError, match="has no min_p"):
            model.check_request(Sampling(min_p=0.1))


def test_an_ollama_model_is_named_by_its_own_address(monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "box")
    elsewhere = ollama.open_model("llama3@http://other:1/v1/")
    assert (elsewhere.name, elsewhere.fingerprint) == (
        "ollama:llama3@http://other:1",
        "openai:llama3@http://other:1/v1",
    )
    assert elsewhere._key == "ollama" and ollama.open_model("m").fingerprint == "openai:m@http://box:11434/v1"
    assert ollama.open_model("m@https://other").fingerprint == "openai:m@https://other/v1"
    with pytest.raises(
        ConfigError, match=r"^ollama:m@host has no address after the @: write ollama:m@http://localhost:11434$"
    ):
        ollama.open_model("m@host")


def test_an_embedder_has_the_fingerprint_of_its_vectors(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    model = embedder.open_model(str(folder))
    assert model.name == f"embedder:{folder}" and model.fingerprint == model.embedder.fingerprint
    assert model.fingerprint.startswith("embedder:") and len(model.fingerprint) == 25
    with pytest.raises(ConfigError, match="embedder: names no embedder: write embedder:minilm, or embedder:FOLDER"):
        embedder.open_model("")
    said = f"embedder:{folder} embeds texts and does not write: attempt embedding tasks by --pattern embed"
    for ask in (
        lambda: asyncio.run(model.complete("a", Sampling())),
        lambda: model.stream("a", Sampling()),
        lambda: asyncio.run(model.score("a", ["b"])),
    ):
        with pytest.raises(ModelError) as refused:
            ask()
        assert str(refused.value) == said


# -- an adapter for each agent --


def test_a_branch_belongs_to_the_agent_it_is_called_after():
    names = ("lead", "worker", "worker 2.1", "a b")
    for branch, agent in (
        ("", "lead"), ("worker", "worker"), ("worker 3", "worker"), ("worker 2.1", "worker 2.1"), ("worker 2", "worker"),
        ("a b 1 2", "a b"), ("a", None), ("other", None), ("lead 1", "lead"),
    ):  # fmt: skip
        assert agent_of(branch, names) == agent
    assert agent_of("", ("worker",)) is None


def test_adapters_are_folders_by_the_name_of_their_agent(tmp_path):
    for name in ("b", "a", "none"):
        (tmp_path / "adapters" / name).mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "adapters" / name / agents.CONFIG_FILE).write_text("{}")
    found = {"a": tmp_path / "adapters" / "a", "b": tmp_path / "adapters" / "b"}
    assert adapter_folders(tmp_path) == adapter_folders(tmp_path / "adapters") == found
    assert list(adapter_folders(tmp_path)) == ["a", "b"]
    with pytest.raises(ModelFileError, match="holds no adapters of agents: give a run of `firsthand train"):
        adapter_folders(tmp_path / "adapters" / "a")
    with pytest.raises(ConfigError, match=r"^agents:'m' has no folder of adapters: write agents:MODEL@FOLDER$"):
        agents.open_model("m")


def test_a_model_of_agents_is_opened_with_an_adapter_for_each(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    for name in ("worker", "lead"):
        (tmp_path / "run" / "adapters" / name).mkdir(parents=True)
        (tmp_path / "run" / "adapters" / name / agents.CONFIG_FILE).write_text("{}")
        (tmp_path / "run" / "adapters" / name / "adapter_model.safetensors").write_bytes(b"x")
    folder = tmp_path / "m@x"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    model = agents.open_model(f"{folder}@{tmp_path / 'run'}")
    assert model.name == f"agents:{folder}@{tmp_path / 'run'}" and model.base.name == str(folder)
    assert [(name, view.chosen) for name, view in model.views.items()] == [("lead", "lead"), ("worker", "worker")]
    assert dict(model.base.adapters) == {name: tmp_path / "run" / "adapters" / name for name in ("lead", "worker")}
    assert model.base._shared.given == ("lead", "worker") and model.base.chosen is None


def test_each_branch_is_answered_by_its_agent_who_signs_the_tokens():
    def voice(text):
        sampled = Sampled((1,), (-0.5,)) if text != "plain" else None
        return Scripted(lambda *_: Message("assistant", (Text(text),), sampled), score=lambda p, c: -len(text),
                        fingerprint=text)  # fmt: skip

    model = AgentsModel(voice("base"), {"worker": voice("work"), "quiet": voice("plain")}, name="agents:x")

    async def asked(branch):
        enter_branch(Branch(name=branch))
        (whole,) = await model.complete("q", Sampling())
        *_, last = [delta async for delta in model.stream("q", Sampling())]
        assert last.completion.message == whole.message
        return whole.message, (await model.score("q", ["c"])).likelihoods[0].logprob

    for branch, text, sampled in (
        ("", "base", Sampled((1,), (-0.5,))),
        ("worker 2", "work", Sampled((1,), (-0.5,), adapter="worker")),
        ("quiet", "plain", None),
        ("other", "base", Sampled((1,), (-0.5,))),
    ):
        assert asyncio.run(asked(branch)) == (Message("assistant", (Text(text),), sampled), -len(text))
    assert model.name == "agents:x" and AgentsModel(voice("base"), {}).name == "scripted"
    prints = {
        model.fingerprint,
        AgentsModel(voice("base"), {"worker": voice("work")}).fingerprint,
        AgentsModel(voice("base"), {"worker": voice("work"), "other": voice("plain")}).fingerprint,
        AgentsModel(voice("base2"), {"worker": voice("work"), "quiet": voice("plain")}).fingerprint,
    }
    assert len(prints) == 4 and all(each.startswith("agents:") and len(each) == 23 for each in prints)


# -- replies from a store --

TOOL = ToolSpec("add", "Adds.", {})


def turn(text, prompt_ids, token_ids):
    return Completion(
        Message("assistant", (Text(text),), Sampled(token_ids, (-1.0,) * len(token_ids))), "stop", Usage(1), (),
        prompt_ids=prompt_ids,
    )  # fmt: skip


def test_a_conversation_is_kept_by_what_each_turn_adds(monkeypatch):
    store = MemoryStore()
    replies = Replies(store)
    first, second = turn("a", (1, 2), (3,)), turn("b", (1, 2, 3, 4), (5, 6))
    prompt = [user("q")]
    replies.keep("k1", prompt, [turn("z", (1, 2), (9,)), first])
    later = [user("q"), first.message, user("r")]
    replies.keep("k2", later, [second])
    kept = store.replies["k2"]["prompt"]
    assert (kept["ids"], kept["after"], kept["sample"], kept["kept"]) == ([4], "k1", 1, 3)
    fresh = Replies(store)  # another process: it learns the first turn by the way
    assert fresh.find("k2", 1) == [second]
    assert fresh.find("k1", 2) == [turn("z", (1, 2), (9,)), first] and fresh.find("none", 1) is None
    with pytest.raises(StoreError, match="a stored reply holds 1 answers where 2 were asked for: the store is damaged"):
        fresh.find("k2", 2)
    store.replies["bad"] = {"completions": 3}
    with pytest.raises(StoreError, match=r"a stored reply is not what was expected .*: the store is damaged"):
        fresh.find("bad", 1)
    del store.replies["k1"]
    (alone,) = Replies(store).find("k2", 1)
    assert alone == replace(second, prompt_ids=None)
    monkeypatch.setattr(cached, "MAX_KNOWN", 1)
    small = Replies(MemoryStore())
    small.keep("k1", prompt, [first])
    small.keep("x", [user("other")], [turn("c", (7,), (8,))])
    small.keep("k2", later, [second])
    assert small.store.replies["k2"]["prompt"]["ids"] == [1, 2, 3, 4]  # the first turn is forgotten


def test_a_replay_answers_what_was_recorded_and_quotes_what_was_not():
    store = MemoryStore()
    model = Scripted(["one", "two"], score=lambda p, c: -1.5)
    source = Cached(model, store)
    assert (source.name, source.fingerprint) == (model.name, model.fingerprint)
    asyncio.run(source.complete("a", Sampling(), tools=[TOOL], n=1))
    asyncio.run(source.score("a", ["b"]))
    assert set(store.replies) == {
        request_key(model.fingerprint, "a", Sampling(), [TOOL], 1),
        request_key(model.fingerprint, "a", continuations=["b"]),
    }
    replay = Replay(store, name="x", fingerprint=model.fingerprint)
    (answer,) = asyncio.run(replay.complete("a", Sampling(), tools=[TOOL]))
    assert answer.message == assistant("one")
    assert asyncio.run(replay.score("a", ["b"])) == Scored((Likelihood("b", -1.5, 1, False),), Usage(2))

    async def streamed(each):
        return [delta async for delta in each.stream("a", Sampling(), tools=[TOOL])]

    assert asyncio.run(streamed(replay)) == asyncio.run(streamed(source)) == [Delta("one", answer)]
    assert len(model.asked) == 2
    store.keep(size_key(model.fingerprint, "a", [TOOL], ["b"]), {"size": 77})
    assert asyncio.run(replay.count_tokens("a", [TOOL], ["b"])) == 77
    assert asyncio.run(source.count_tokens("a b")) == 2
    with pytest.raises(ModelError) as missing:
        asyncio.run(replay.complete([user("a"), user("q" * 90)], Sampling(max_tokens=9, seed=4), tools=[TOOL], n=2))
    assert str(missing.value) == (
        f"the replay of x holds no reply to {'q' * 80!r} with max_tokens=9, seed=4, tools ['add'], n=2: it answers only "
        "what was recorded, so keep the tasks, the pattern, the sampling and the seed as they were, or run without replay"
    )
    with pytest.raises(ModelError, match="holds no reply to 'a' with the continuations"):
        asyncio.run(replay.score("a", ["c" * 50] * 9))
    store.keep(request_key(model.fingerprint, "a", continuations=["b"]), {"no": 1})
    with pytest.raises(StoreError, match="the store is damaged"):
        asyncio.run(replay.score("a", ["b"]))


def test_a_store_that_only_reads_is_asked_and_never_written():
    class Shelf:
        def reply(self, request):
            return None

    found = Cached(Scripted(["one", "two"], score=lambda p, c: -1.0), Shelf())
    assert [asyncio.run(found.complete("a", Sampling()))[0].message.text for _ in range(2)] == ["one", "two"]
    assert asyncio.run(found.score("a", ["b"])).likelihoods[0].logprob == -1.0
