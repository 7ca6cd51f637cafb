"""The parts of a local model: how texts become tokens and tokens answers, its names, its adapters and its scores."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import adapters_tiny
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.errors import ConfigError, ModelError, ModelFileError, PromptTooLong
from firsthand.grammar import Grammar
from firsthand.message import Message, Sampled, Text, assistant, user
from firsthand.model import Completion, Likelihood, Sampling, ToolSpec, Usage
from firsthand.providers import local
from firsthand.providers import local_completions as parts
from firsthand.providers.local import Local
from firsthand.providers.local_calls import answer_grammar
from firsthand.providers.local_loading import load_model
from firsthand.providers.monitored_requests import MonitoredRequest, model_taps
from firsthand.providers.request_preparation import bad_sequences
from firsthand.system import request_owner
from firsthand.tokens.incremental_decoding import StopStrings
from tiny import CHATML, write_tokenizer

CONFIG = EngineConfig(kv_memory_bytes=8 << 20, threads=1)
ADD = ToolSpec("add", "Adds.", {"type": "object"})


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("house")
    adapters_tiny.write_house(found)
    return found


@pytest.fixture(scope="module")
def model(house):
    found = Local(house / "model", name="tiny", config=CONFIG)
    yield found
    found.close()


@pytest.fixture(scope="module")
def loaded(model):
    return asyncio.run(model._ready())


def test_a_folder_is_loaded_with_its_own_tokenizer_template_adapter_and_config(house, loaded, tmp_path):
    engine, tokenizer = loaded.worker.engine, loaded.tokenizer
    assert engine.config is CONFIG and loaded.context == engine.architecture.max_position == 512
    assert tokenizer.vocab_size == engine.architecture.vocab_size and tokenizer.chat_template == CHATML
    assert (loaded.chat._tokenizer, loaded.chat._max_tokens, loaded.sources) == (tokenizer, 512, None)
    assert loaded.grammars._tokenizer is tokenizer and loaded.worker.is_alive
    wrong = tmp_path / "wrong"
    shutil.copytree(house / "model", wrong)
    size = write_tokenizer(wrong, specials=["<|more|>"])
    assert size == tokenizer.vocab_size + 1
    with pytest.raises(ModelFileError) as raised:
        load_model(wrong, CONFIG)
    assert str(raised.value) == (
        f"{wrong} has {size} tokens in its tokenizer and {size - 1} in its weights: the files are from different models"
    )
    padded = tmp_path / "padded"
    shutil.copytree(house / "model", padded)
    less = json.loads((padded / "tokenizer.json").read_text())
    last = less["model"]["merges"].pop()
    assert less["model"]["vocab"].pop("".join(last)) == size - 2
    (padded / "tokenizer.json").write_text(json.dumps(less))
    fitting = load_model(padded, CONFIG)
    fitting.worker.close()
    assert fitting.tokenizer.vocab_size == size - 2, "weights may have rows for tokens that are not there"
    with pytest.raises(ModelFileError, match=f"^{tmp_path} has no adapter_config.json"):
        load_model(house / "model", CONFIG, tmp_path)
    with pytest.raises(ConfigError, match="cuda:77"):
        load_model(house / "model", replace(CONFIG, device="cuda:77"))


def outputs(ids, *, reason=None, **fields):
    logprobs = tuple(-float(at + 1) for at in range(len(ids)))
    return Output(0, 0, tuple(ids), logprobs, True, finish_reason=reason, behaviour_logprobs=logprobs, **fields)


def begun(loaded, *, stop=(), hidden=(), **settings):
    return parts.AnswerInProgress(StopStrings(loaded.tokenizer, stop, continuing=True, **settings), frozenset(hidden))


def test_an_answer_grows_by_outputs_and_hides_the_token_that_ends_it(loaded):
    tokenizer = loaded.tokenizer
    ids, end = tokenizer.encode("Hi you"), tokenizer.token_id("<|im_end|>")
    answer = begun(loaded, hidden=[end])
    assert answer.add(outputs(ids[:2], version=3), tokenizer) == tokenizer.decode(ids[:2])
    tops = (((ids[2], -0.5), (end, -1.5)),)
    last = outputs([*ids[2:], end], reason="stop", version=4, top_logprobs=tops)
    assert answer.add(last, tokenizer) == tokenizer.decode(ids)[len(tokenizer.decode(ids[:2])) :]
    assert (answer.text, answer.token_ids, answer.last) == ("Hi you", [*ids, end], last)
    assert answer.versions == [3, 3] + [4] * (len(ids) - 1)
    assert answer.logprobs == answer.behaviour_logprobs == [-1.0, -2.0, *(-float(at) for at in range(1, len(ids)))]
    assert answer.ends[-1] == 6 and len(answer.ends) == len(ids) + 1 and answer.kept == len(ids) + 1
    assert answer.top_logprobs == [((tokenizer.decode([ids[2]]), -0.5), ("<|im_end|>", -1.5))]
    with pytest.raises(ModelError, match="broken"):
        answer.add(replace(outputs([]), error=ModelError("broken")), tokenizer)
    cut = begun(loaded, hidden=[end], skip_special=False)
    assert cut.add(outputs([*ids, end], reason="length"), tokenizer) == "Hi you<|im_end|>"


def test_a_stop_string_keeps_the_tokens_before_it_or_all_if_it_cut_one(loaded):
    tokenizer = loaded.tokenizer
    one = {text: tokenizer.encode(text) for text in "abX"}
    assert all(len(ids) == 1 for ids in one.values())
    answer = begun(loaded, stop=["X"])
    assert answer.add(outputs([*one["a"], *one["b"], *one["X"]], reason="stop"), tokenizer) == "ab"
    assert (answer.kept, answer.ends, answer.stop.stopped) == (2, [1, 2, 2], "X")
    (inside,) = (ids for ids in ([each] for each in range(tokenizer.vocab_size)) if tokenizer.decode(ids) == " is")
    cut = begun(loaded, stop=["s"])
    cut.add(outputs([*one["a"], *inside, *one["b"]], reason="stop"), tokenizer)
    assert cut.text == "a i" and cut.kept == 2  # both tokens ended at the same place


def test_only_the_last_token_of_an_answer_that_stopped_is_hidden_and_held_text_comes_at_the_end(loaded):
    tokenizer = loaded.tokenizer
    (a,), (b,) = tokenizer.encode("a"), tokenizer.encode("b")
    for ids, reason, text in (
        ([a, b], "stop", "a"), ([a, b], "length", "ab"), ([b, a, b], "stop", "ba"), ([b, a], "stop", "ba"),
        ([b], "stop", ""), ([a, b], None, "ab"),
    ):  # fmt: skip
        answer = begun(loaded, hidden=[b])
        assert answer.add(outputs(ids, reason=reason), tokenizer) == text == answer.text, (ids, reason)
        assert answer.token_ids == ids and len(answer.ends) == len(ids) and answer.ends[-1] == len(text)
    held = begun(loaded, stop=["ab"])
    assert held.add(outputs([b, a]), tokenizer) == "b" and held.text == "b" and held.ends == [1, 1]
    assert held.add(outputs([a], reason="length"), tokenizer) == "aa" and held.text == "baa" and held.kept == 3
    stopped = begun(loaded, stop=["ab"])
    assert [stopped.add(outputs([each]), tokenizer) for each in (b, a)] == ["b", ""]
    assert stopped.add(outputs([b], reason="stop"), tokenizer) == "" and (stopped.text, stopped.kept) == ("b", 1)
    assert stopped.stop.stopped == "ab" and begun(loaded).kept == 0


def test_a_chat_with_tools_is_encoded_with_them_and_its_end_is_shown_where_that_is_asked_for(loaded):
    talk = [user("Hi")]
    bare, _ = parts.new_request(loaded, talk, Sampling(), (), 1, None)
    with_tools, _ = parts.new_request(loaded, talk, Sampling(), [ADD], 1, None)
    assert bare.prompt == tuple(loaded.chat.encode(talk, ()))
    assert with_tools.prompt == tuple(loaded.chat.encode(talk, [ADD])) != bare.prompt
    end = loaded.tokenizer.token_id("<|im_end|>")
    for sampling, hidden in (
        (Sampling(stop_ids=(7,)), True), (Sampling(stop_ids=(7,), include_stop_str_in_output=True), False),
    ):  # fmt: skip
        request, new = parts.new_request(loaded, talk, sampling, (), 1, None)
        assert {7, end} <= request.stop_ids and new().hidden == (request.stop_ids if hidden else frozenset())
    eager, new = parts.new_request(loaded, talk, Sampling(ignore_eos=True, stop_ids=(7,)), (), 1, None)
    assert eager.stop_ids == new().hidden == {7}


def test_a_request_holds_what_the_engine_needs(loaded):
    tokenizer = loaded.tokenizer
    ends = {tokenizer.token_id("<|im_end|>"), tokenizer.token_id("<|endoftext|>")}  # a text's end is a turn's too
    sampling = Sampling(stop_ids=(7,), stop=("X",), bad_words=("no",), min_tokens=2)
    engine = SimpleNamespace(architecture=SimpleNamespace(vocab_size=tokenizer.vocab_size, max_position=64))
    loaded = replace(loaded, worker=SimpleNamespace(engine=engine))
    request, new = parts.new_request(loaded, "Hi", sampling, (), 2, None, "red", 3, "me", "salt")
    assert request == Request(
        prompt=tuple(tokenizer.encode("Hi")), sampling=sampling, n=2, stop_ids=frozenset({7, *ends}),
        stopper=request.stopper, bad_sequences=bad_sequences(tokenizer, ("no",)), priority=3, owner="me",
        adapter="red", salt="salt", token_filter=request.token_filter,
    )  # fmt: skip
    assert request.token_filter.min_tokens == 2 and request.token_filter.binds(9, 1)
    assert request.stopper is not None and new().hidden == {7, *ends}
    plain, shown = parts.new_request(
        loaded, [5, 6], Sampling(ignore_eos=True, include_stop_str_in_output=True), (), 1, None
    )
    assert (plain.prompt, plain.stop_ids, plain.stopper, plain.bad_sequences) == ((5, 6), frozenset(), None, ())
    assert plain.owner == request_owner.current() and shown().hidden == frozenset()
    for n in (0, 1025):
        with pytest.raises(ConfigError, match=f"n is {n}: give 1 to 1024"):
            parts.new_request(loaded, "Hi", Sampling(), (), n, None)


def test_forbidden_words_have_every_spelling(loaded):
    tokenizer = loaded.tokenizer
    found = bad_sequences(tokenizer, ["what", " what"])
    assert set(found) == {tuple(tokenizer.encode("what")), tuple(tokenizer.encode(" what"))}
    assert bad_sequences(tokenizer, [" "]) == tuple(
        sorted({tuple(tokenizer.encode(" ")), tuple(tokenizer.encode("  "))})
    )
    with pytest.raises(ConfigError, match="the word '' of bad_words has no tokens in this model's vocabulary"):
        bad_sequences(tokenizer, ["a", ""])


def test_prompts_and_continuations_are_split_where_the_prompt_ends(loaded):
    tokenizer, start = loaded.tokenizer, loaded.tokenizer.bos_id
    ids = tokenizer.encode
    assert parts.encode(loaded, "Hi") == tuple(ids("Hi")) and parts.encode(loaded, "") == (start,)
    chat = parts.encode(loaded, [user("Hi")])
    assert chat == tuple(loaded.chat.encode([user("Hi")], ()))
    assert parts.encode_pair(loaded, "The answer", " is 4") == (tuple(ids("The answer")), ids(" is 4"))
    assert parts.encode_pair(loaded, "The answer  ", "is 4") == parts.encode_pair(loaded, "The answer", "  is 4")
    assert parts.encode_pair(loaded, "", "is") == (parts.encode_pair(loaded, " ", "is")[0], ids("is"))
    assert parts.encode_pair(loaded, "", "is") == ((start,), ids("is"))
    assert parts.encode_pair(loaded, [user("Hi")], " is") == (chat, ids(" is"))
    assert parts._ids("Hi") is parts._ids([user("Hi")]) is parts._ids([]) is None and parts._ids([3]) == (3,)


def test_long_texts_and_conversations_are_encoded_elsewhere():
    for prompt, expected in (
        ("x" * 2048, False), ("x" * 2049, True), ([user("a")], True), ([1, 2], False), ([], False),
    ):  # fmt: skip
        assert parts.is_long(prompt) is expected


def test_a_finished_answer_is_charged_for_its_own(loaded):
    tokenizer = loaded.tokenizer
    ids = tokenizer.encode("abX")
    request, new = parts.new_request(loaded, "Hi", Sampling(stop=("X",)), (), 1, None)

    def finished(reason="stop", **fields):
        answer = new()
        answer.add(outputs(ids, reason=reason, prompt_tokens=9, cached_tokens=4, version=2, **fields), tokenizer)
        return answer

    whole = parts.completion(loaded, request, finished(), (), True)
    sampled = Sampled(tuple(ids[:2]), (-1.0, -2.0), (-1.0, -2.0), (2, 2))
    assert whole == Completion(
        Message("assistant", (Text("ab"),), sampled), "stop", Usage(9, 4, 3), (), whole.lease, prompt_ids=request.prompt,
        stop_string="X",
    )  # fmt: skip
    assert parts.completion(loaded, request, finished(), (), False).usage == Usage(0, 0, 3)
    assert parts.completion(loaded, request, finished("length"), (), True).finish_reason == "length"


def test_a_local_model_knows_itself(model, loaded):
    facts = asyncio.run(model.load())
    assert (facts.context, facts.vocab_size) == (512, loaded.tokenizer.vocab_size)
    assert model.is_alive and model.end_ids == loaded.tokenizer.eos_ids
    ids = loaded.tokenizer.encode("Hi you")
    assert model.spell(ids) == [loaded.tokenizer.token_bytes(each) for each in ids]
    assert asyncio.run(model.tokenize("Hi you")) == ids and asyncio.run(model.detokenize(ids)) == "Hi you"
    assert model.token_id("<|im_end|>") in model.end_ids and model.token_id("<none>") is None
    long = "z" * 512
    assert len(asyncio.run(model.tokenize(long))) == 512
    with pytest.raises(PromptTooLong, match="the prompt has 513 tokens: the model's context is 512, so shorten it"):
        asyncio.run(model.tokenize(long + "z"))
    with pytest.raises(ModelError, match="token 0 of tokens is 1000000: expected a whole number from 0 to"):
        asyncio.run(model.detokenize([10**6]))
    marked = asyncio.run(model.tokenize_marked("Hi<|im_end|>you<|im_start|>", ["<|im_end|>"]))
    assert marked.count(model.token_id("<|im_end|>")) == 1 and model.token_id("<|im_start|>") not in marked
    counters = asyncio.run(model.counters())
    assert counters and all(isinstance(value, int | float) for value in counters.values())


def test_ratings_scores_and_the_next_tokens_agree(model, loaded):
    ids = loaded.tokenizer.encode("The answer is")
    ratings = asyncio.run(model.rate(ids, top=2))
    assert [each.token_id for each in ratings] == ids[1:] and all(len(each.top) == 2 for each in ratings)
    assert asyncio.run(model.rate(ids[:1])) == [] and asyncio.run(model.rate(ids))[0].top == ()
    nexts = asyncio.run(model.next_logprobs(ids[:-1]))
    assert abs(nexts[ids[-1]] - ratings[-1].logprob) < 1e-4 and abs(float(torch.tensor(nexts).exp().sum()) - 1) < 1e-4
    scored = asyncio.run(model.score("The answer", [" is", " is 4", " is"]))
    first, longer, again = scored.likelihoods
    (own,) = asyncio.run(model.score("The answer", [" is"])).likelihoods
    assert first == again == Likelihood(" is", own.logprob, 1, own.is_greedy) and longer.num_tokens > 1
    prefix = len(loaded.tokenizer.encode("The answer"))
    assert scored.usage.prompt_tokens == prefix + 2 + longer.num_tokens  # the prompt once, each continuation
    with pytest.raises(ModelError, match="the continuation '' has no tokens: give some text to score"):
        asyncio.run(model.score("The answer", [" is", ""]))


# -- names, adapters, vectors --


def test_marks_in_a_name_open_adapters(house, monkeypatch, tmp_path):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    base, red, blue = house / "model", house / "adapters" / "red", house / "adapters" / "blue"
    names = [str(base), f"{base}+lora:{red}", f"{base}+adapter:{red}", f"{base}+adapter:{blue}"]
    plain, merged, beside, other = map(local.open_model, names)
    assert [each.name for each in (plain, merged, beside, other)] == names
    assert plain.adapter is None and merged.adapter == red and merged.chosen is None
    assert beside._shared is other._shared is not plain._shared and beside.adapters[beside.chosen] == red.resolve()
    assert beside.chosen.startswith("red@") and len(beside.chosen) == 12
    assert len({each.fingerprint for each in (plain, merged, beside, other)}) == 4
    assert local.open_model(names[2]).fingerprint == beside.fingerprint
    assert all(each.fingerprint.startswith("local:") and len(each.fingerprint) == 22 for each in (plain, beside))
    with pytest.raises(ModelFileError, match=r"has no adapter_config.json"):
        local.open_model(f"{base}+adapter:{base}")


def test_adapters_are_beside_a_model_under_their_names(house):
    red, blue = house / "adapters" / "red", house / "adapters" / "blue"
    model = Local(house / "model", name="m", config=CONFIG, adapters={"red": red})
    model.put_adapter("blue", blue)
    assert model.adapters == {"red": red, "blue": blue} and model._shared.given == ("red", "blue")
    view = model.with_adapter("blue")
    assert (view.name, view.chosen, model.chosen) == ("blue", "blue", None)
    with pytest.raises(ConfigError, match="no adapter 'green' is beside m: there are red, blue"):
        model.with_adapter("green")
    with pytest.raises(ConfigError, match="no adapter 'x' is beside y: there are none"):
        Local(house, name="y").with_adapter("x")
    with pytest.raises(ConfigError, match="two adapters have the name 'red': give each its own"):
        model.put_adapter("red", blue)
    prints = [model.fingerprint, view.fingerprint, model.with_adapter("red").fingerprint]
    assert len(set(prints)) == 3

    async def live():
        ask = lambda which: which.complete("Hi", Sampling(max_tokens=4))  # noqa: E731
        before = (await ask(view))[0].message.text
        assert model._shared.present == {"red", "blue"}
        kept = await model.kept_adapter("blue")
        assert kept.folder == blue and await model.kept_adapter("green") is None
        await model.load_adapter("blue", red, replace=True)
        assert view.fingerprint != prints[1] and model.adapters["blue"] == red
        assert (await ask(view))[0].message.text == (await ask(model.with_adapter("red")))[0].message.text
        await model.restore_adapter("blue", kept)
        assert (await ask(view))[0].message.text == before and model.adapters["blue"] == blue
        await model.load_adapter("green", house / "adapters" / "green")
        await model.restore_adapter("green", None)
        await model.restore_adapter("green", None)
        assert set(model.adapters) == {"red", "blue"}
        await model.unload_adapter("blue")
        with pytest.raises(ConfigError, match="the adapter 'blue' was unloaded: load it again"):
            _ = view.fingerprint
        with pytest.raises(ConfigError, match="no adapter 'blue' is beside m"):
            await model.unload_adapter("blue")

    asyncio.run(live())
    model.close()
    assert not model.is_alive and model._shared.present == set()
    waiting = model.expect_adapter("later")
    assert (waiting.name, waiting.chosen) == ("later", "later")


def test_weights_and_what_is_added_to_them_are_in_the_fingerprint(house):
    model = Local(house / "model", name="m", config=CONFIG)
    plain = model.fingerprint
    assert Local(house / "model", config=CONFIG, free_calls=True).fingerprint != plain
    vector = SimpleNamespace(digest="d1", site="s")
    steered = model.steered_by(vector, name="m+s")
    assert (steered.name, steered.fingerprint, model.steering) == ("m+s", f"{plain}+modules+steer:d1", None)
    with pytest.raises(ConfigError, match=r"^m\+s has a steering vector already: give one$"):
        steered.steered_by(vector, name="x")
    watched = model.monitored_by(SimpleNamespace(site="s"), name="m+w")
    assert (watched.name, watched.fingerprint, model.fingerprint) == ("m+w", f"{plain}+modules", plain)
    model._shared.weights = "new"
    changed = model.fingerprint
    assert changed != plain
    model.hold_weights_in("float16")
    assert model.config.weights == "float16" and model.fingerprint != changed
    model.put_on("cpu")
    assert model.config.device == "cpu"


def test_taps_add_the_vector_and_read_what_was_added():
    class Watch:
        site = "s"

        def scores(self, values):
            return [float(value) for value in values]

    seen = MonitoredRequest(Watch())
    vector = SimpleNamespace(site="s", added=lambda values: [value + 10 for value in values])
    assert model_taps(None, None) is None
    reading = model_taps(None, seen)
    assert (set(reading.taps), reading.edits) == ({"s"}, False)
    reading.taps["s"]([1, 2], range(4, 6), 1)
    both = model_taps(vector, seen)
    assert both.edits and both.taps["s"]([3], range(3, 4), 0) == [13]
    assert seen.found == {1: {4: 1.0, 5: 2.0}, 0: {3: 13.0}}
    apart = model_taps(SimpleNamespace(site="t", added=vector.added), seen)
    assert set(apart.taps) == {"s", "t"} and apart.taps["t"]([5], range(9, 10), 0) == [15] and 9 not in seen.found[0]
    request = SimpleNamespace(prompt=(1, 2, 3, 4))
    message = Message("assistant", (Text("x"),), Sampled((7, 8, 9, 6), (-1.0,) * 4))
    scored = seen.scored(Completion(message, "stop", Usage()), request, 1)
    # the activation a token was sampled from: the shared prompt's last, two of its own, and one that is not known
    assert scored.message.sampled.monitor == (13.0, 1.0, 2.0, 0.0)
    text = Completion(assistant("x"), "stop", Usage())
    assert seen.scored(text, request, 0) is text


def test_tools_are_constrained_where_the_model_has_a_markup(model, loaded):
    async def grammar(sampling, tools, which=model):
        return await answer_grammar(loaded, sampling, tools, free=which.free_calls, owner="")

    assert asyncio.run(grammar(Sampling(), ())) is None
    chosen = asyncio.run(grammar(Sampling(grammar=Grammar("regex", "a+")), [ADD]))
    assert chosen is not None and asyncio.run(grammar(Sampling(grammar=Grammar("regex", "a+")), ())) is chosen
    found = asyncio.run(grammar(Sampling(), [ADD]))
    assert (found is None) == (loaded.chat.markup is None)
    free = Local(model.path, free_calls=True)
    assert asyncio.run(grammar(Sampling(), [ADD], free)) is None
