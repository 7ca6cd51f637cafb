"""Grammars that would take any time or memory: each ends alone, within its limits, and what it held is given back."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from pathlib import Path

import pytest

from firsthand import grammar as g
from firsthand.engine.decoding.constraint import Grammars, ids_of
from firsthand.engine.decoding.grammar_cache import GrammarCache, Growth
from firsthand.errors import ConfigError, TransientError
from firsthand.grammar import Grammar
from firsthand.model import Sampling, ToolSpec
from firsthand.tokens import grammar_checks, grammar_compiler
from firsthand.tokens.calls.call_grammar import action_grammar, tool_grammar
from firsthand.tokens.compile_slots import CompileSlots
from firsthand.tokens.grammar_cost import MAX_COUNT, is_cheap
from firsthand.tokens.isolated_grammar import GrammarLimits, GrammarProcesses, IsolatedMatcher
from firsthand.tokens.tokenizer import Tokenizer
from grammar_schemas import SCHEMAS, obj
from grammar_tiny import LATE, answers, engine, request, tokenizer
from served import until

LIMITS = GrammarLimits(compile_s=0.5, step_s=0.2, memory_bytes=256 << 20, rest_s=0)
ENDLESS = g.json_schema({"type": "integer", "multipleOf": 99_999_989})
BOUNDED = g.json_schema({"type": "string", "pattern": "^[ab]+$", "maxLength": 9})
"""Harmless, but not known to be cheap."""


@pytest.fixture(scope="module")
def own():
    return Grammars(tokenizer(), limits=LIMITS)


def pid_of(matcher: IsolatedMatcher) -> int:
    return matcher._process.pid


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# -- what is known to be cheap --


@pytest.mark.parametrize(
    "grammar",
    [
        g.choice(["yes", "no"]),
        g.regex("[a-z]+@[a-z]+[.]com"),
        g.json_schema({"type": "object"}),
        g.json_schema(SCHEMAS["weather"]),
        g.json_schema({"$ref": "#/$defs/a", "$defs": {"a": {"type": ["string", "null"], "description": "a & b ~ c"}}}),
        g.json_schema({"type": "object", "properties": {"pattern": {"type": "integer", "multipleOf": 15}}}),
        tool_grammar([ToolSpec("t", "", obj({"x": {"type": "string", "description": 'R&D "~" // /x'}}))]),
        action_grammar([ToolSpec("t", "", obj({"x": {"type": "string"}}))]),
        g.lark('start: "a & b" X // & ~\nX: /[&~]+/'),
        g.gbnf('root ::= "yes" | "no"'),
    ],
)
def test_small_grammars_without_intersections_are_cheap(grammar):
    assert is_cheap(grammar)


@pytest.mark.parametrize(
    "grammar",
    [
        ENDLESS,
        BOUNDED,
        LATE,
        g.json_schema({"type": "integer", "multipleOf": MAX_COUNT + 1}),
        g.json_schema({"type": "number", "multipleOf": 0.25}),
        Grammar("json_schema", '{"anyOf": [{"multiple\\u004ff": 97}, {"multiple\\u004ff": 89}]}'),
        g.json_schema({"anyOf": [{"type": "integer", "multipleOf": each} for each in (97, 89, 83)]}),
        g.json_schema({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}),
        g.json_schema({"pattern": "a", "anyOf": [{"pattern": "b"}]}),
        g.json_schema({"patternProperties": {"a": {}}}),
        g.json_schema({"type": "array", "items": {"propertyNames": {"pattern": "a"}}}),
        g.json_schema({"type": "array", "prefixItems": [{}], "maxItems": 10**9}),
        g.json_schema({"$ref": "#/properties/a", "properties": {"a": {}}}),
        g.json_schema({"type": "string", "x-guidance": {"whitespace_pattern": "a{99999}"}}),
        g.json_schema({"type": "object", "properties": {f"p{i}": {} for i in range(2000)}}),
        g.regex("a" * 9000),
        g.regex("(a{1001})"),
        g.lark("start: T\nT: /a/ & /b/"),
        g.lark('start: T\nT: ~/"/ /"/'),
        g.lark('start: T // "\nT: /a/ & /b/ // "'),
        g.lark('start: T\nT: /"/ & /"/'),
        g.lark('start: %json {"multipleOf": 99999989}'),
        g.lark('start: %regex {"substring_chars": "abc"}'),
        g.lark("start: @other"),
        g.gbnf("root ::= a & b"),
    ],
)
def test_what_narrows_a_value_twice_or_is_large_is_not_cheap(grammar):
    assert not is_cheap(grammar)


# -- compiling --


@pytest.mark.slow
def test_a_grammar_that_compiles_without_end_is_ended(own):
    for _ in range(2):  # the second time at once
        with pytest.raises(ConfigError, match=r"takes more than 0\.5 s to compile: make it simpler"):
            own.compile(ENDLESS)
    assert own.compile(BOUNDED).allowed.any()


def test_a_grammar_that_takes_memory_without_end_is_ended():
    processes = GrammarProcesses(limits=GrammarLimits(compile_s=60, memory_bytes=8 << 20))
    with pytest.raises(ConfigError, match="needs more than 8 MiB of memory: make it simpler"):
        processes.compile(ENDLESS)
    assert processes.compile(BOUNDED).compute_bitmask()


def test_texts_are_checked_against_hostile_grammars_elsewhere():
    assert grammar_checks.accepts(BOUNDED, '"abba"') and not grammar_checks.accepts(BOUNDED, '"abbc"')
    assert grammar_checks.accepts(BOUNDED, '"ab', whole=False) and not grammar_checks.accepts(BOUNDED, '"ab')


def test_an_invalid_grammar_says_the_same_in_a_process(own):
    broken = {"type": "string", "pattern": "(?=a)b", "maxLength": 3}
    with pytest.raises(ConfigError, match=r"cannot be used: .*look-around"):
        own.compile(g.json_schema(broken))


@pytest.mark.slow
def test_a_killed_server_of_compilers_is_replaced():
    own = Grammars(tokenizer(), limits=LIMITS)
    own.compile(BOUNDED)
    os.kill(own._processes._server._process.pid, signal.SIGKILL)
    own._processes._server._process.wait()
    assert own.compile(g.json_schema({"type": "string", "pattern": "^c+$", "maxLength": 5})).allowed.any()


@pytest.mark.parametrize("name", ["sql", "allOf", "patternProperties", "halves", "several constraints"])
def test_a_grammar_says_the_same_in_a_process_as_here(own, name):
    grammar = g.json_schema(SCHEMAS[name])
    assert not is_cheap(grammar)
    there = own.compile(grammar).guide()
    here = grammar_compiler.read(grammar, own._vocabulary())
    rng = random.Random(name)
    for token in there.forced:
        assert here.consume_token(token)
    there.forced.clear()
    for _ in range(60):
        if there.is_done:
            break
        assert there.allowed.tobytes() == bytes(here.compute_bitmask())
        token = int(rng.choice(ids_of(there.allowed)))
        there.advance(token)
        assert here.consume_token(token)
        forced = here.compute_ff_tokens()
        assert list(there.forced) == forced and here.consume_tokens(forced)
        there.forced.clear()
        assert (there.matcher.is_stopped(), there.matcher.is_accepting()) == (here.is_stopped(), here.is_accepting())
        if token in tokenizer().eos_ids:
            break


def test_a_tokenizer_built_again_encodes_the_same():
    again = Tokenizer(**json.loads(json.dumps(tokenizer().settings())))
    assert again.vocab_size == tokenizer().vocab_size and again.eos_ids == tokenizer().eos_ids
    assert (again.eos_id, again.bos_id, again.add_bos) == (tokenizer().eos_id, tokenizer().bos_id, tokenizer().add_bos)
    for text in ('{"name": "get_weather"}', " é 日本 <|im_end|>", "Action: calculator[12 + 30]\n"):
        assert again.encode(text) == tokenizer().encode(text)


# -- following --


@pytest.mark.slow
def test_a_token_that_takes_too_long_ends_its_own_answers_alone(own):
    def asked(grammar: Grammar, seed: int):
        made = request(None, Sampling(max_tokens=12, temperature=1.0, seed=seed))
        return (
            made
            if grammar is None
            else type(made)(**{**made.__dict__, "sampling": made.sampling, "grammar": own.compile(grammar)})
        )

    found = answers(engine(), [asked(LATE, 1), asked(BOUNDED, 2), asked(g.regex("[ab]{4}"), 3), asked(None, 4)])
    errors = [last.error for ((_, last),) in found]
    assert isinstance(errors[0], ConfigError) and "more than 0.2 s for one token" in str(errors[0])
    assert errors[1:] == [None] * 3
    with pytest.raises(ConfigError, match="for one token"):
        own.compile(LATE)


@pytest.mark.slow
def test_whose_grammar_held_up_a_step_rests_and_others_do_not():
    own = Grammars(tokenizer(), limits=GrammarLimits(step_s=0.1, rest_s=60))
    guide, rng = own.compile(LATE, owner="hostile").guide(), random.Random(1)
    with pytest.raises(ConfigError, match="for one token"):
        for _ in range(3):
            guide.advance(int(rng.choice([id for id in ids_of(guide.allowed) if len(tokenizer().decode([id])) == 1])))
    with pytest.raises(TransientError, match="held up everyone's answers") as caught:
        own.compile(BOUNDED, owner="hostile")
    assert 50 < caught.value.retry_after_s <= 60
    assert own.compile(BOUNDED, owner="another").allowed.any()
    assert own.compile(g.regex("[ab]"), owner="hostile").allowed.any()


@pytest.mark.slow
def test_a_process_that_was_ended_from_outside_blames_no_grammar():
    own = Grammars(tokenizer())
    guide = own.compile(BOUNDED).guide()
    os.kill(own._processes._server._process.pid, signal.SIGKILL)
    until(lambda: is_gone(pid_of(guide.matcher)))
    with pytest.raises(TransientError, match="ended from outside: try again"):
        guide.advance(int(ids_of(guide.allowed)[0]))
    assert own.find(BOUNDED) is None and own.compile(BOUNDED).guide().allowed.any()


@pytest.mark.slow
def test_a_grammar_that_outgrew_this_process_has_one_of_its_own_for_the_next_answer():
    own = Grammars(tokenizer())
    grammar = g.regex("(?s:.*)a(?s:.{200})")
    guide, rng = own.compile(grammar).guide(), random.Random(1)
    with pytest.raises(ConfigError, match=r"too complex to follow: .*make it simpler"):
        for _ in range(2000):
            guide.advance(int(rng.choice(ids_of(guide.allowed))))
    assert own.find(grammar) is None
    again = own.compile(grammar)
    assert isinstance(again.matcher, IsolatedMatcher) and again.guide().allowed.any()


# -- the cache --


def test_the_cache_holds_bytes_and_drops_what_was_used_longest_ago():
    own = Grammars(tokenizer(), cache_bytes=800_000)
    grammars = [g.regex(f"[ab]{{{i}}}") for i in range(1, 12)]
    for grammar in grammars:
        own.compile(grammar)
        own.compile(grammars[0])
    assert own.num_bytes <= 800_000
    kept = [own.find(grammar) is not None for grammar in grammars]
    assert kept[0] and kept[-1] and not kept[1] and 3 <= sum(kept) <= 6


def test_what_answers_make_of_a_grammar_counts():
    own = Grammars(tokenizer(), cache_bytes=24 << 20)
    grammar = g.regex("(?s:.*)a(?s:.{200})")
    compiled, rng = own.compile(grammar), random.Random(1)
    before, guide = compiled.num_bytes, compiled.guide()
    for _ in range(20):
        guide.advance(int(rng.choice(ids_of(guide.allowed))))
    assert compiled.num_bytes > before + (1 << 19)  # by processor time, of which a fast machine needs less
    compiled.growth.seconds += 10
    assert own.find(grammar) is compiled and own.find(grammar) is None, "it outgrew the cache"


def test_a_grammar_larger_than_the_cache_is_used_and_not_kept():
    own = Grammars(tokenizer(), cache_bytes=1 << 20)
    compiled = own.compile(BOUNDED)
    assert compiled.num_bytes > 1 << 20 and own.find(BOUNDED) is None
    assert compiled.guide().allowed.any()


def test_the_memory_of_a_forgotten_grammar_is_given_back():
    own = Grammars(tokenizer(), cache_bytes=64 << 20)
    pid = pid_of(own.compile(BOUNDED).matcher)
    assert not is_gone(pid)
    assert own._free() and not own._free()
    until(lambda: is_gone(pid), 10)


def test_a_grammar_that_an_answer_follows_is_not_given_up_for_another():
    own = Grammars(tokenizer(), limits=LIMITS)
    guide = own.compile(BOUNDED).guide()
    while own._free():
        pass
    assert own.find(BOUNDED) is not None
    del guide
    assert own._free() and own.find(BOUNDED) is None


def test_sizes_are_estimated_from_above_and_bounded():
    assert Growth(0.0).estimate("x" * 1000) < Growth(0.1).estimate("x" * 1000) < Growth(10**9).estimate("x") < 1 << 27
    cache: GrammarCache[int, object] = GrammarCache(10_000)
    for key in range(100):
        cache.put(key, "wrong" * 100)
    assert 1 <= len(cache) <= 3 and cache.get(99) and cache.get(0) is None


# -- who compiles --


def test_one_owner_leaves_a_slot_to_others():
    slots, entered, leave = CompileSlots(3), threading.Semaphore(0), threading.Event()

    def hold() -> None:
        with slots.taken("greedy", "the grammar", 30):
            entered.release()
            leave.wait(30)

    threads = [threading.Thread(target=hold) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert entered.acquire(timeout=10) and entered.acquire(timeout=10)
    until(lambda: len(slots._waiting) == 3)
    with slots.taken("other", "the grammar", 0.0):
        assert not entered.acquire(blocking=False)
    with pytest.raises(TransientError, match="waited 0 s"), slots.taken("greedy", "the grammar", 0.0):
        pass
    leave.set()
    for thread in threads:
        thread.join(10)
    assert not slots._running and not slots._waiting


def test_who_holds_a_slot_for_long_is_ended_when_another_waits():
    slots, ended = CompileSlots(1, quick_s=0.05), threading.Event()

    def hold() -> None:
        with slots.taken("slow", "the grammar", 30) as slot:
            slot.end = ended.set
            assert ended.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    until(lambda: bool(slots._running))
    assert not ended.is_set()
    with slots.taken("quick", "the grammar", 30):
        assert ended.is_set()
    thread.join(10)


def test_too_many_that_wait_are_refused():
    slots, leave = CompileSlots(1), threading.Event()

    def hold() -> None:
        with slots.taken("one", "the grammar", 30):
            leave.wait(30)

    threads = [threading.Thread(target=hold) for _ in range(17)]
    for thread in threads:
        thread.start()
    until(lambda: len(slots._waiting) == 16)
    with pytest.raises(TransientError, match="16 others wait"), slots.taken("one", "the grammar", 30):
        pass
    leave.set()
    for thread in threads:
        thread.join(10)


@pytest.mark.slow
def test_a_compiler_that_gives_way_to_others_says_so_and_may_be_tried_again():
    own = Grammars(tokenizer(), limits=GrammarLimits(compile_s=60))
    failures: list[Exception] = []

    def compile_endless() -> None:
        try:
            own.compile(ENDLESS)
        except Exception as error:
            failures.append(error)

    own.compile(BOUNDED)
    own._processes._slots = CompileSlots(1, quick_s=0.1)
    thread = threading.Thread(target=compile_endless)
    thread.start()
    until(lambda: bool(own._processes._slots._running))
    assert own.compile(g.json_schema({"type": "string", "pattern": "^d+$", "maxLength": 5})).allowed.any()
    thread.join(20)
    assert isinstance(failures[0], TransientError) and "because others wait" in str(failures[0])
    assert own.find(ENDLESS) is None, "it is not known to be wrong"
