"""Our engine, tokenizer and template as one Model: from files on disk to messages."""

import asyncio
import gc
import json
import math
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, ModelError, ModelFileError, PromptTooLong
from firsthand.experiment.named_agents import open_models
from firsthand.experiment.settings import RunSettings
from firsthand.hub.content_hash import content_hash
from firsthand.message import system, user
from firsthand.model import Model, Sampling
from firsthand.providers.local import Local
from firsthand.providers.local_completions import encode_pair
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tokens.templates.chat_template import ChatTemplate

CONFIG = EngineConfig(kv_memory_bytes=8 << 20, threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(folder):
    local = Local(folder, name="tiny", config=CONFIG)
    yield local
    local.close()


def sampled(n_tokens: int = 24, **settings) -> Sampling:
    return Sampling(max_tokens=n_tokens, **{"temperature": 1.0, "seed": 7, **settings})


async def one(model: Model, prompt, sampling, **rest):
    return (await model.complete(prompt, sampling, **rest))[0]


def test_an_answer_keeps_its_tokens_and_its_cost(model):
    completion = asyncio.run(one(model, [user("What is 12 + 30?")], sampled()))
    born = completion.message.sampled
    assert born is not None and len(born.token_ids) == len(born.logprobs) == completion.usage.completion_tokens
    assert all(-50 < logprob <= 0 for logprob in born.logprobs)
    assert completion.usage.prompt_tokens > 10 and completion.finish_reason in ("stop", "length")
    assert completion.message.text


def test_samples_share_their_prompt_and_differ(model):
    completions = asyncio.run(model.complete([user("What is 12 + 30?")], sampled(), n=4))
    assert len({each.message.sampled.token_ids for each in completions}) == 4
    assert [each.usage.prompt_tokens > 0 for each in completions] == [True, False, False, False]


@pytest.mark.parametrize("n", [0, -3, "2", 1.0, 10**12])
def test_a_number_of_answers_that_cannot_be_is_refused_before_anything_is_made(model, n):
    async def streamed():
        return [delta async for delta in model.stream_many("Hi", sampled(4), n=n)]

    for asked in (model.complete("Hi", sampled(4), n=n), streamed()):
        with pytest.raises(ConfigError, match=f"n is {n!r}: give 1 to 1024"):
            asyncio.run(asked)


class WatchedTemplate(ChatTemplate):
    """A chat template that records which threads render it."""

    threads: set[int]

    def encode(self, *args, **options):
        self.threads.add(threading.get_ident())
        return super().encode(*args, **options)


def test_streamed_chats_are_rendered_outside_the_event_loop(model):
    async def stream() -> set[int]:
        await model.load()
        loaded = model._shared.loaded
        chat = WatchedTemplate(loaded.tokenizer, tiny.CHATML)
        chat.threads = set()
        model._shared.loaded = replace(loaded, chat=chat)
        assert [each async for each in model.stream_many([user("Hi")], sampled(2))]
        return chat.threads

    rendered = asyncio.run(stream())
    assert rendered and threading.get_ident() not in rendered


@pytest.mark.slow
def test_the_same_seed_gives_the_same_tokens_among_any_others(model):
    questions = [f"What is {i} + {i * i}?" for i in range(12)]

    async def alone(question):
        return (await one(model, [user(question)], sampled())).message

    async def together():
        return await asyncio.gather(*(alone(question) for question in questions))

    in_company = asyncio.run(together())
    assert in_company == [asyncio.run(alone(question)) for question in questions]


@pytest.mark.slow
@pytest.mark.parametrize("is_live", [True, False])
def test_a_live_context_keeps_its_conversation_and_a_dead_one_frees_it(folder, is_live):
    crowded = Local(folder, name="tiny", config=EngineConfig(kv_memory_bytes=256 << 10, kv_cache="float32", threads=1))

    async def two_turns(task, ctx):
        stats = (await crowded._ready()).worker.stats
        ctx = await ctx.say(task.question).generate()
        if not is_live:
            ctx = replace(ctx, lease=None)
            gc.collect()
        until = time.monotonic() + 60  # the engine's thread is told, and looks when it has time
        while ((await stats()).pinned_blocks > 0) != is_live:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        for number in range(12):
            await crowded.complete([user(f"Something else, number {number}: " + "word " * 20)], sampled(8))
        return (await ctx.say("And 1 more?").generate(max_tokens=4)).text

    trace = asyncio.run(
        rollout(Agent("two", crowded, two_turns, sampling=sampled(16)), Task("sum", "12 + 30?"), seed=0)
    )
    assert trace.error is None
    first, second = (call.usage for call in trace.calls)
    known = first.prompt_tokens + first.completion_tokens - 1  # the last token was sampled and never fed
    assert (second.cached_tokens >= known) == is_live
    gc.collect()
    stats = asyncio.run(crowded._loaded.worker.stats())
    assert (stats.pinned_prefixes, stats.used_blocks) == (0, 0)
    crowded.close()


@pytest.mark.slow
def test_a_salted_conversation_is_held_too_and_known_to_its_salt_alone(folder):
    crowded = Local(folder, name="tiny", config=EngineConfig(kv_memory_bytes=256 << 10, kv_cache="float32", threads=1))

    async def ask(messages, salt, count=8):
        found = [each async for each in crowded.stream_many(messages, sampled(count), cache_salt=salt)]
        return found[-1].completion

    async def two_turns():
        first = await ask([user("What is 12 + 30?")], "mine", 16)
        assert (await crowded._loaded.worker.stats()).pinned_prefixes == 1
        for number in range(12):
            await ask([user(f"Something else, number {number}: " + "word " * 20)], "")
        messages = [user("What is 12 + 30?"), first.message, user("And 1 more?")]
        other, mine = await ask(messages, "other", 4), await ask(messages, "mine", 4)
        known = first.usage.prompt_tokens + first.usage.completion_tokens - 1
        assert mine.usage.cached_tokens >= known > other.usage.cached_tokens

    asyncio.run(two_turns())
    gc.collect()
    stats = asyncio.run(crowded._loaded.worker.stats())
    assert (stats.pinned_prefixes, stats.used_blocks) == (0, 0)
    crowded.close()


def test_a_second_turn_computes_its_new_tokens_only(model):
    async def chat():
        messages = [system("Be brief."), user("What is 12 + 30?")]
        first = await one(model, messages, sampled(40))
        again = await one(model, [*messages, first.message, user("And 1 more?")], sampled(4))
        return first, again

    first, again = asyncio.run(chat())
    known = first.usage.prompt_tokens + first.usage.completion_tokens
    block = CONFIG.block_size
    assert (
        again.usage.cached_tokens >= (known - 1) // block * block
    )  # all full blocks of the first turn, its answer included


def test_stop_strings_cut_the_text_exactly(model):
    free = asyncio.run(one(model, [user("hi")], sampled(60))).message
    stop = free.text[10:12]
    cut = asyncio.run(one(model, [user("hi")], sampled(60, stop=(stop,))))
    assert cut.message.text == free.text[: free.text.index(stop)] and cut.finish_reason == "stop"
    kept = cut.message.sampled.token_ids
    assert free.sampled.token_ids[: len(kept)] == kept


@pytest.mark.slow
def test_a_stream_says_what_a_completion_says(model):
    async def streamed(sampling):
        deltas = [delta async for delta in model.stream([user("hi")], sampling)]
        return "".join(delta.text for delta in deltas), deltas[-1].completion, len(deltas)

    for sampling in (sampled(40), sampled(40, stop=("a",)), Sampling(max_tokens=40)):
        text, completion, pieces = asyncio.run(streamed(sampling))
        whole = asyncio.run(one(model, [user("hi")], sampling))
        assert text == whole.message.text and completion.message == whole.message
        assert pieces > 2 or sampling.stop


def test_a_stream_that_is_left_is_aborted(model):
    async def leave():
        stream = model.stream([user("hi")], sampled(400))
        async for _ in stream:
            break
        await stream.aclose()
        loaded = await model._ready()
        for _ in range(3000):
            stats = await loaded.worker.stats()
            if stats.running == stats.waiting == 0:
                return True
            await asyncio.sleep(0.02)
        return False

    assert asyncio.run(leave())


def test_a_cancelled_answer_is_aborted_and_others_go_on(model):
    async def cancel():
        long = asyncio.create_task(model.complete([user("long")], sampled(400)))
        short = asyncio.create_task(model.complete([user("short")], sampled(8)))
        worker = (await model._ready()).worker
        while (await worker.stats()).running < 2 and not short.done():  # both are under way
            await asyncio.sleep(0.001)
        assert not long.done()
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        return await short

    assert len(asyncio.run(cancel())) == 1


def test_scores_are_the_log_probs_of_sampling(model):
    async def both():
        completion = await one(model, "The answer is", Sampling(max_tokens=6))
        scored = await model.score("The answer is", [completion.message.text, " 42.", " 42. The", "x"])
        return completion, scored

    completion, scored = asyncio.run(both())
    greedy, *others = scored.likelihoods
    if greedy.num_tokens == len(completion.message.sampled.token_ids):
        assert math.isclose(greedy.logprob, sum(completion.message.sampled.logprobs), abs_tol=1e-4)
        assert greedy.is_greedy
    assert not all(each.is_greedy for each in others)
    assert others[1].logprob < others[0].logprob  # a longer text is never more probable than its beginning


def test_a_space_at_the_end_of_a_prompt_counts_to_the_continuation(model):
    async def score(prompt, text):
        return (await model.score(prompt, [text])).likelihoods[0].logprob

    assert asyncio.run(score("The answer is", " 42")) == asyncio.run(score("The answer is ", "42"))


def test_scoring_is_charged_and_credited_for_every_prefix(model):
    prompt, continuations = "The number is twenty " * 3 + "fo", [" and more", "ur", "rty", " or less"]

    async def usages():
        await model.score(prompt, continuations)
        by_prefix = {}
        for text in continuations:  # a text that merges with the prompt's last token has a prefix of its own
            by_prefix.setdefault(encode_pair(model._shared.loaded, prompt, text)[0], []).append(text)
        together = (await model.score(prompt, continuations)).usage
        return together, [(await model.score(prompt, texts)).usage for texts in by_prefix.values()]

    together, apart = asyncio.run(usages())
    assert len(apart) > 1 and min(each.cached_tokens for each in apart) >= CONFIG.block_size
    assert together.cached_tokens == sum(each.cached_tokens for each in apart)
    assert together.prompt_tokens == sum(each.prompt_tokens for each in apart)


def test_top_logprobs_are_texts_in_order(model):
    completion = asyncio.run(one(model, [user("hi")], sampled(5, top_logprobs=3)))
    assert len(completion.top_logprobs) == completion.usage.completion_tokens
    for alternatives in completion.top_logprobs:
        assert len(alternatives) == 3
        assert [p for _, p in alternatives] == sorted((p for _, p in alternatives), reverse=True)


def test_a_prompt_longer_than_the_context_is_one_sentence(model):
    with pytest.raises(PromptTooLong, match="512"):
        asyncio.run(model.complete([user("12 + 30 " * 400)], sampled()))
    assert asyncio.run(one(model, [user("hi")], sampled(4))).message.text is not None


def test_an_empty_prompt_and_an_empty_continuation(model):
    assert asyncio.run(one(model, "", sampled(4))).usage.prompt_tokens == 1
    with pytest.raises(ModelError, match="has no tokens"):
        asyncio.run(model.score("x", [""]))
    assert asyncio.run(model.score("", ["12"])).likelihoods[0].num_tokens >= 1


def test_many_tasks_load_the_model_once(folder):
    local = Local(folder, config=CONFIG)

    async def load():
        return await asyncio.gather(*(local._ready() for _ in range(8)))

    assert len({id(loaded) for loaded in asyncio.run(load())}) == 1
    local.close()
    local.close()


def test_a_fingerprint_is_the_content_and_what_is_done_with_it(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    first = Local(folder).fingerprint
    assert Local(folder).fingerprint == first
    assert Local(folder, config=EngineConfig(weights="float32")).fingerprint != first
    changed = Local(folder)
    assert changed.fingerprint == first
    changed.config = EngineConfig(kv_cache="int8")
    assert changed.fingerprint != first, "of the settings that it has now"
    other = tiny.write_model(tmp_path / "other", seed=1)
    assert Local(other).fingerprint != first
    template = tmp_path / "template"
    tiny.write_model(template, template="{{ messages[0]['content'] }}")
    assert Local(template).fingerprint != first
    assert content_hash(folder / "config.json") == content_hash(folder / "config.json")


def test_broken_folders_say_what_is_missing(folder, tmp_path):
    bare = tmp_path / "bare"
    tiny.write_model(bare)
    (bare / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match="tokenizer"):
        asyncio.run(Local(bare).complete("hi", Sampling()))
    small = tmp_path / "small"
    tiny.write_model(small)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"vocab_size": 10}))
    with pytest.raises(ModelFileError):
        asyncio.run(Local(small).complete("hi", Sampling()))
    with pytest.raises(ModelFileError, match="neither"):
        _ = Local(tmp_path / "nothing").fingerprint


def test_a_hostile_template_is_an_error_of_its_own(tmp_path):
    from firsthand.errors import TemplateError

    for index, template in enumerate(["{{ ''.__class__.__mro__ }}", "{% for i in range(10**9) %}x{% endfor %}"]):
        hostile = tiny.write_model(tmp_path / str(index), template=template)
        local = Local(hostile, config=CONFIG)
        with pytest.raises(TemplateError):
            asyncio.run(local.complete([user("hi")], Sampling(max_tokens=2)))
        local.close()


@pytest.mark.weights
def test_smollm2_speaks_english_and_knows_paris(smollm2):
    model = Local(smollm2, name="smollm2")
    messages = [user("What is the capital of France?")]

    async def talk():
        first = await one(model, messages, Sampling(max_tokens=32))
        second = await one(
            model, [*messages, first.message, user("In which country is that?")], Sampling(max_tokens=32)
        )
        scored = await model.score("The capital of France is", [" Paris", " London", " banana"])
        return first, second, scored

    first, second, scored = asyncio.run(talk())
    model.close()
    assert first.message.text == "The capital of France is Paris." and first.finish_reason == "stop"
    assert second.usage.cached_tokens >= 32 and "France" in second.message.text
    paris, london, banana = (each.logprob for each in scored.likelihoods)
    assert paris > london > banana


@pytest.mark.weights
def test_the_catalog_finds_smollm2_by_name(smollm2):
    model = catalog.model("smollm2")
    assert model.name == "smollm2" and model.fingerprint.startswith("local:")


def test_a_run_chooses_the_format_of_the_weights(folder):
    chosen = catalog.model(str(folder), weights="float32")
    assert (
        chosen.config.weights == "float32"
        and chosen.fingerprint != catalog.model(str(folder), weights="int8").fingerprint
    )
    assert catalog.model(str(folder)).config.weights == "auto"
    with pytest.raises(ConfigError, match="a format is for local models"):
        catalog.model("sim:game24", weights="float32")
    (opened,) = open_models(RunSettings(model=(str(folder),), weights="float16"))
    assert opened.config.weights == "float16"


def test_a_device_that_is_not_there_is_one_sentence(folder):
    with pytest.raises(ConfigError, match="cpu, cuda or cuda:N"):
        EngineConfig(device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA here"):
            asyncio.run(one(Local(folder, config=EngineConfig(device="cuda")), "1", sampled()))
