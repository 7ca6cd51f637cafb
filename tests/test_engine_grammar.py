"""Answers under a grammar: always valid, always the same, and what it costs when a grammar is hopeless."""

import json
import random
import re
import time

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator, FormatChecker

from engine_tiny import VOCAB, drain, logprobs, plain_logprobs, tiny_engine, tiny_model, tokens
from firsthand import grammar as g
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.engine.decoding.constraint import Grammars
from firsthand.engine.decoding.sampler import choose
from firsthand.engine.decoding.speculative import DraftRequest
from firsthand.errors import ConfigError, ModelError
from firsthand.grammar import Grammar
from firsthand.model import Sampling
from firsthand.nn.quant import best_mode
from firsthand.tokens import grammar_compiler as reading
from firsthand.tokens.grammar_checks import accepts
from grammar_schemas import SCHEMAS, obj
from grammar_tiny import answers, engine, grammars, request, text, tokenizer

ENDS = tokenizer().eos_ids
FORMATS = FormatChecker(["email", "ipv4", "ipv6", "uuid", "regex"])
"""Not dates: the grammar lets 29 February be in any year, and has a year 0000."""
PERSON = g.json_schema(
    obj({"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 120}})
)
LONG = g.json_schema(
    obj(
        {
            "a_long_name_of_a_property": {"enum": ["one of the values", "another"]},
            "the_second_property": {"type": "boolean"},
        }
    )
)


def hot(seed: int = 1, **settings) -> Sampling:
    return Sampling(**{"max_tokens": 300, "temperature": 1.0, "seed": seed, **settings})


def check_corpus(seeds: range) -> None:
    work = [request(g.json_schema(schema), hot(seed, max_tokens=200)) for seed in seeds for schema in SCHEMAS.values()]
    found = answers(engine(max_sequences=128), work)
    finished = 0
    for place, ((answer, last),) in enumerate(found):
        name, schema = list(SCHEMAS.items())[place % len(SCHEMAS)]
        assert last.error is None, (name, last.error)
        if last.finish_reason == "stop":
            finished += 1
            Draft202012Validator(schema, format_checker=FORMATS).validate(json.loads(answer))
        else:
            assert len(answer) > 50, name
    assert finished > 0.9 * len(work)


@pytest.mark.slow
def test_a_random_model_says_only_what_a_schema_allows():
    assert len(SCHEMAS) >= 60
    check_corpus(range(1))


@pytest.mark.slow
def test_a_random_model_says_only_what_a_schema_allows_often():
    check_corpus(range(1, 13))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "pattern", [r"[0-9]{3}-[a-z]{1,9}", r"(yes|no), because .{5,30}\.", r"(?i)[é日]{2}x?", r"a?b?c?d"]
)
def test_answers_match_their_regular_expression(pattern, temperature):
    found = answers(engine(), [request(g.regex(pattern), hot(temperature=temperature), n=5)])[0]
    assert all(last.finish_reason == "stop" and re.fullmatch(pattern, answer) for answer, last in found)


def test_a_choice_is_one_of_the_texts_and_a_model_may_take_any():
    options = ["yes", "no", "no way", "(a|b)*", 'a "quoted" text', "line\nbreak", "日本", ""]
    found = answers(engine(max_sequences=128), [request(g.choice(options), hot(seed)) for seed in range(60)])
    said = {answer for ((answer, _),) in found}
    assert said <= set(options) and len(said) >= 5 and all(last.finish_reason == "stop" for ((_, last),) in found)


def test_lark_and_gbnf_are_followed():
    work = [
        request(g.lark('start: "<" NAME ">"\nNAME: /[a-z]{2,4}/'), hot()),
        request(g.gbnf('root ::= "x"{2,3} [0-9]'), hot()),
    ]
    ((angle, _),), ((digits, _),) = answers(engine(), work)
    assert re.fullmatch("<[a-z]{2,4}>", angle) and re.fullmatch("x{2,3}[0-9]", digits)


def test_the_draw_is_from_the_allowed_tokens_in_their_proportions():
    logits = torch.randn(50, generator=torch.Generator().manual_seed(3))
    allowed = np.array([1 << 3 | 1 << 7 | 1 << 8, 1 << 9], dtype=np.uint32)
    expected = logits[[3, 7, 8, 41]].softmax(0)
    counts = dict.fromkeys([3, 7, 8, 41], 0)
    for i in range(4000):
        counts[
            choose(
                logits, Sampling(temperature=1.0), number=(i + 0.5) / 4000, prompt=(), counts={}, allowed=allowed
            ).token
        ] += 1
    assert all(abs(count / 4000 - float(p)) < 1e-3 for count, p in zip(counts.values(), expected, strict=True))
    ids = [
        choose(logits.double(), Sampling(temperature=1.0), number=n / 99, prompt=(), counts={}, allowed=allowed).token
        for n in range(99)
    ]
    assert set(ids) == set(counts), "the path without compiled kernels"
    greedy = choose(logits, Sampling(repetition_penalty=1.5), number=0.5, prompt=(3,), counts={}, allowed=allowed)
    assert greedy.token in counts and greedy.logprob == 0
    cut = {
        choose(logits, Sampling(temperature=1.0, top_k=1), number=n / 9, prompt=(), counts={}, allowed=allowed).token
        for n in range(9)
    }
    assert cut == {[3, 7, 8, 41][int(expected.argmax())]}


# -- jump-ahead, and what changes no answer --


def run(work: list[Request], **settings: object) -> tuple[list[list[tuple]], Engine]:
    """Tokens, log-probs and reason of each answer."""
    runner = engine(**settings)
    ids = [runner.add(each) for each in work]
    found = drain(runner)
    outputs = [[found[id, index] for index in range(each.n)] for id, each in zip(ids, work, strict=True)]
    assert all(out.error is None for answer in outputs for line in answer for out in line)
    return [[(tokens(line), logprobs(line), line[-1].finish_reason) for line in answer] for answer in outputs], runner


def test_forced_text_is_computed_at_a_stretch_with_its_own_logprobs():
    (((ids, given, reason),),), runner = run([request(LONG, hot())], weights="float32")
    stats = runner.stats()
    assert json.loads(text(ids)) and reason == "stop"
    assert stats.forced_tokens > 15 and stats.steps <= len(ids) - stats.forced_tokens + 1
    prompt = list(request(None, hot()).prompt)
    expected = plain_logprobs(runner.runner.model, [*prompt, *ids])
    for place, (token, logprob) in enumerate(zip(ids, given, strict=True)):
        assert abs(float(expected[len(prompt) + place - 1, token]) - logprob) < 1e-4


def test_forced_text_is_written_in_the_tokenizers_own_tokens():
    (((ids, _, _),),), _ = run([request(LONG, hot())])
    begun = grammars().compile(LONG).forced
    assert len(begun) > 3 and list(begun) == tokenizer().encode(text(ids))[: len(begun)]


def mixed(count: int) -> list[Request]:
    """Constrained requests of all kinds and free ones, greedy and sampled."""
    rng = random.Random(5)
    kinds: list[Grammar | None] = [PERSON, LONG, g.regex("[a-z ]{5,25}[.]"), g.choice(["yes", "no"]), None]
    ways = [
        lambda i: Sampling(max_tokens=60),
        lambda i: Sampling(max_tokens=60, temperature=1.0, seed=i),
        lambda i: Sampling(max_tokens=25, temperature=0.7, top_p=0.9, seed=i, repetition_penalty=1.2, top_logprobs=2),
    ]
    prompts = ["Question: what?\n", "Thought: I need the sum.\n" * 4]
    return [
        request(
            rng.choice(kinds), rng.choice(ways)(i), n=rng.choice([1, 1, 3]), prompt=rng.choice(prompts) + str(i % 3)
        )
        for i in range(count)
    ]


@pytest.mark.slow
@pytest.mark.skipif(best_mode() != "float16", reason="needs the packed float16 kernels")
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("roomy", {}),
        ("chunked prompts, little room to jump ahead", {"max_batch_tokens": 2, "max_sequences": 1}),
        ("preempted", {"kv_memory_bytes": 16 * 512 * 10, "max_sequences": 8}),
        ("guessing", {"speculation": "prompt_lookup", "speculate_below": 40}),
    ],
)
def test_company_chunking_memory_and_guesses_change_no_bit(name, settings):
    work = mixed(12)
    found, runner = run(work, weights="float16", **settings)
    stats = runner.stats()
    assert (stats.preemptions > 0) == (name == "preempted")
    assert (stats.drafted_tokens > 0) == (name == "guessing")
    assert stats.forced_tokens > 0
    for each, answer in zip(work, found, strict=True):
        ((alone, *_), _) = run([each], weights="float16")
        assert alone == answer


class Wild:
    """Guesses anything, mostly what no grammar allows."""

    def propose(self, asks: list[DraftRequest]) -> list[list[int]]:
        return [[(len(line.tokens) * 31 + i) % tokenizer().vocab_size for i in range(most)] for line, most in asks]

    def forget(self, line: object) -> None:
        pass


def test_wild_guesses_break_no_grammar():
    work = mixed(12)
    runner = Engine(
        tiny_model(0, vocab_size=tokenizer().vocab_size + 7, max_position=1024),
        EngineConfig(weights="float32"),
        draft=Wild(),
    )
    ids = [runner.add(each) for each in work]
    found = drain(runner)
    assert runner.stats().drafted_tokens > 0
    for id, each in zip(ids, work, strict=True):
        for index in range(each.n):
            outputs = found[id, index]
            assert outputs[-1].error is None
            if each.grammar is not None and outputs[-1].finish_reason == "stop":
                assert accepts(each.grammar.grammar, text(tokens(outputs)))


# -- ends --


def test_an_answer_cut_by_max_tokens_says_length_and_begins_a_valid_one():
    ((answer, last),) = answers(engine(), [request(PERSON, hot(max_tokens=9))])[0]
    assert last.finish_reason == "length"
    assert accepts(PERSON, answer, whole=False) and not accepts(PERSON, answer)


def test_an_answer_may_end_only_where_the_grammar_does():
    found = answers(
        engine(max_sequences=64), [request(g.regex("(ab)+"), hot(seed, max_tokens=40)) for seed in range(40)]
    )
    assert all(re.fullmatch("(ab)+", answer) for ((answer, last),) in found if last.finish_reason == "stop")
    (((ids, _, _),),), _ = run([request(g.regex("[a-z]{1,200}"), hot())])
    assert ids[-1] in ENDS and not ENDS & set(ids[:-1])
    (((whole, _, reason),),), _ = run([request(g.regex("abc"), hot())])
    assert reason == "stop" and not ENDS & set(whole), "nothing can follow, so no end token is asked for"


def test_a_stop_string_ends_a_constrained_answer_too():
    class Stop:
        def __init__(self):
            self.said = b""

        def feed(self, token: int) -> bool:
            self.said += tokenizer().token_bytes(token)
            return b'", ' in self.said

    ((answer, last),) = answers(engine(), [request(PERSON, hot(), stopper=Stop)])[0]
    assert last.finish_reason == "stop" and '", ' in answer and not answer.endswith("}")


def test_max_tokens_inside_forced_text():
    (((ids, _, reason),),), _ = run([request(LONG, hot(max_tokens=7))])
    assert len(ids) == 7 and reason == "length"


def test_aborted_and_failing_neighbours_leave_constrained_answers_alone():
    (((expected, _, _),),), _ = run([request(PERSON, hot())])
    runner = engine()
    gone = [runner.add(request(each, hot(9, max_tokens=90))) for each in (PERSON, LONG, None)]
    kept = runner.add(request(PERSON, hot()))
    found = []
    for step in range(400):
        found += runner.step()
        if step in (1, 2, 4):
            runner.abort(gone.pop())
        if not runner.has_work:
            break
    runner.pool.check()
    assert tokens([output for output in found if output.request_id == kept]) == expected


def test_a_grammar_that_comes_to_nothing_ends_its_own_request():
    """Rule `b` never ends, which only shows when the answer gets there."""
    bad = g.lark('start: ("x" | "y") "z" b\nb: b "w"')
    try:
        compiled = grammars().compile(bad)
    except ConfigError:
        pytest.skip("found out while it was read")
    runner = engine()
    other = runner.add(request(PERSON, hot()))
    broken = runner.add(Request((1, 2, 3), hot(), grammar=compiled))
    found = drain(runner)
    assert isinstance(found[broken, 0][-1].error, ModelError)
    assert found[other, 0][-1].finish_reason == "stop"


# -- what is refused --


def test_a_sampling_whose_grammar_was_not_compiled_is_refused():
    with pytest.raises(ConfigError, match="was not compiled"):
        tiny_engine().add(Request((1, 2), Sampling(grammar=PERSON)))
    with pytest.raises(ConfigError, match="own tokenizer"):
        tiny_engine().add(Request(tuple(range(VOCAB))[:4], Sampling(), grammar=grammars().compile(PERSON)))


def chain(count: int) -> dict:
    link = {
        f"r{i}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/r{i + 1}"}}, "required": ["a"]}
        for i in range(count)
    }
    return {"$ref": "#/$defs/r0", "$defs": {**link, f"r{count}": {"type": "null"}}}


HOSTILE = {
    "cycle of references": lambda: g.json_schema({"$ref": "#/a", "a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}}),
    "reference to itself": lambda: g.json_schema({"$ref": "#"}),
    "remote reference": lambda: g.json_schema({"$ref": "http://localhost:1/schema"}),
    "nested 5000 deep": lambda: Grammar("json_schema", '{"items":' * 5000 + "{}" + "}" * 5000),
    "a hundred thousand properties": lambda: g.json_schema(obj({f"p{i}": {} for i in range(100_000)})),
    "product of unions": lambda: g.json_schema(
        {"allOf": [{"anyOf": [{"properties": {f"a{i}": {"const": k}}} for k in range(4)]} for i in range(12)]}
    ),
    "not": lambda: g.json_schema({"not": {"type": "string"}}),
    "if": lambda: g.json_schema({"if": {"type": "string"}, "then": {"minLength": 3}}),
    "uniqueItems": lambda: g.json_schema({"type": "array", "uniqueItems": True}),
    "overlapping oneOf": lambda: g.json_schema({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
    "unknown format": lambda: g.json_schema({"type": "string", "format": "shoe-size"}),
    "no value at all": lambda: g.json_schema({"type": "integer", "minimum": 5, "maximum": 3}),
    "false": lambda: g.json_schema(False),
    "a list": lambda: g.json_schema([1]),  # type: ignore[arg-type]
    "no JSON": lambda: Grammar("json_schema", "{"),
    "a set": lambda: g.json_schema({"enum": {1, 2}}),
    "look-ahead": lambda: g.regex("(?=a)b"),
    "unclosed": lambda: g.regex("("),
    "brackets without end": lambda: g.regex("(" * 100_000),
    "no character": lambda: g.regex(r"[^\s\S]"),
    "repeated without measure": lambda: g.regex("((a{1000}){1000}){1000}"),
    "half a surrogate pair": lambda: g.regex("\ud800"),
    "empty": lambda: g.regex(""),
    "no choices": lambda: g.choice([]),
    "a string of choices": lambda: g.choice("yes"),
    "numbers as choices": lambda: g.choice([1, 2]),  # type: ignore[list-item]
    "unknown rule": lambda: g.lark("start: nothing"),
    "endless rule": lambda: g.lark("start: start"),
    "garbage": lambda: g.lark("\x00\x01 start %%% {{"),
    "deep brackets": lambda: g.lark("start: " + "(" * 50_000 + '"a"' + ")" * 50_000),
    "too long": lambda: g.lark("start: " + " | ".join(f'"x{i}"' for i in range(100_000))),
    "deep GBNF": lambda: g.gbnf("root ::= " + "(" * 5000 + '"a"' + ")" * 5000),
    "unknown GBNF rule": lambda: g.gbnf("root ::= nothing"),
    "unknown kind": lambda: Grammar("xml", "<a/>"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_grammar_is_refused_by_name(name):
    with pytest.raises(ConfigError) as caught:
        grammars().compile(HOSTILE[name]())
    assert 20 < len(str(caught.value)) < 700


@pytest.mark.slow
@pytest.mark.parametrize("make", [
    lambda: g.json_schema(chain(2500)),
    lambda: g.lark("start: r0\n" + "\n".join(f'r{i}: "x" r{i + 1}' for i in range(9000)) + '\nr9000: "end"'),
    lambda: g.regex("(a+)+(a+)+(a+)+b"),
    lambda: g.json_schema({"type": "string", "minLength": 10**9}),
], ids=["chain of schemas", "chain of rules", "catastrophic elsewhere", "a string that never ends"])  # fmt: skip
def test_what_would_overflow_a_stack_or_a_backtracker_just_works(make):
    ((_, last),) = answers(engine(), [request(make(), hot(max_tokens=20))])[0]
    assert last.error is None and last.finish_reason in ("length", "stop")


def test_a_grammar_is_read_once_and_old_ones_are_forgotten():
    own = Grammars(tokenizer(), cache_bytes=1 << 20)
    first = own.compile(PERSON)
    assert own.compile(g.json_schema(json.loads(PERSON.source))) is first
    for i in range(12):
        own.compile(g.regex(f"a{i}"))
    assert own.find(PERSON) is None and own.find(g.regex("a11")) is not None


def test_a_wrong_grammar_is_wrong_at_once_the_second_time():
    own, wrong = Grammars(tokenizer()), g.lark("start: nothing")
    messages = []
    for attempt in (own.compile, own.compile, own.find):
        with pytest.raises(ConfigError) as caught:
            attempt(wrong)
        messages.append(str(caught.value))
    assert len(set(messages)) == 1


def test_reading_that_takes_too_long_is_given_up():
    with pytest.raises(ConfigError, match="takes more than"):
        reading.in_bounds(lambda: time.sleep(0.3), "the lark grammar", most_s=0.05)
