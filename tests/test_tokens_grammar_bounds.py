"""Bounds of compiling a grammar: threads that cannot start, automata of a size, servers that die, owners that rest."""

from __future__ import annotations

import json
import resource
import threading
import time
from pathlib import Path
from typing import Any

import llguidance
import pytest

from firsthand.errors import ConfigError, TransientError
from firsthand.grammar import Grammar, choice, regex
from firsthand.tokens import compile_slots, grammar_compiler, isolated_grammar
from firsthand.tokens.compile_slots import CompileSlots
from firsthand.tokens.grammar_checks import accepts
from firsthand.tokens.grammar_compiler import in_bounds
from firsthand.tokens.grammar_cost import is_cheap
from firsthand.tokens.isolated_grammar import GrammarLimits, GrammarProcesses, _Server
from firsthand.tokens.llguidance_grammar import byte_vocabulary, matcher_of
from forked_process import forked
from served import until


def test_a_thread_that_cannot_be_started_leaves_its_place_to_the_next_grammar() -> None:
    def crowded() -> None:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before, hard = threading.stack_size(), resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 27), hard))
        told = set()
        for _ in range(6):
            try:
                in_bounds(lambda: 1, "the x grammar", most_s=0.02)
            except TransientError as error:
                told.add(str(error))
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        print(json.dumps([sorted(told), threading.stack_size() == before, in_bounds(lambda: 7, "it")]))

    status, said, errors = forked(crowded)
    assert (status, errors) == (0, "") and json.loads(said) == [
        ["the x grammar cannot be compiled now: no memory for a thread with a large stack (can't start new thread)"],
        True, 7,
    ]  # fmt: skip


def test_a_grammar_is_compiled_on_a_thread_and_its_errors_come_as_they_are_or_as_a_sentence() -> None:
    before = threading.stack_size()
    assert in_bounds(lambda: (threading.current_thread().name, threading.current_thread().daemon), "it") == (
        "firsthand-grammar", True,
    )  # fmt: skip
    assert threading.stack_size() == before and grammar_compiler._STACK_BYTES == 1 << 29
    for error in (ConfigError("wrong"), ImportError("no llguidance"), KeyboardInterrupt(), SystemExit(3)):

        def fails(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)) as found:
            in_bounds(fails, "it")
        assert found.value is error
    for other, told in ((ValueError("x" * 301), "x" * 300), (GeneratorExit("panic"), "panic")):

        def breaks(error: BaseException = other) -> None:
            raise error

        with pytest.raises(ConfigError) as found:
            in_bounds(breaks, "the x grammar")
        assert str(found.value) == f"the x grammar cannot be compiled: {told}"


def test_no_more_than_four_are_compiled_together_and_each_gives_its_place_back() -> None:
    leave, begun = threading.Event(), threading.Semaphore(0)
    for step in ("acquire", "release"):  # what another test gave up may still be running
        for _ in range(4):
            getattr(grammar_compiler._READERS, step)()

    def waits() -> int:
        begun.release()
        assert leave.wait(20)
        return 5

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(in_bounds(waits, "it"))) for _ in range(3)]
    for thread in threads:
        thread.start()
        assert begun.acquire(timeout=10)
    with pytest.raises(ConfigError) as slow:
        in_bounds(waits, "the y grammar", most_s=0.01)
    assert str(slow.value) == "the y grammar takes more than 0.01 s to compile: make it simpler"
    with pytest.raises(TransientError) as late:
        in_bounds(lambda: 1, "the z grammar", most_s=0.01)
    assert str(late.value) == "the z grammar waited 0.01 s for 4 others that are being compiled: try again"
    leave.set()
    for thread in threads:
        thread.join(10)
    assert found == [5] * 3 and [in_bounds(lambda: 4, "it") for _ in range(5)] == [4] * 5


def test_an_automaton_is_as_large_as_it_may_be_where_the_first_token_is_looked_up() -> None:
    long = regex("(?s:.*)a(?s:.{20})")
    with pytest.raises(
        ConfigError, match=r"^the regex grammar cannot be used: lexer error: too many states: \d+ >= 10$"
    ):
        matcher_of(long, byte_vocabulary(), states=10)
    assert matcher_of(long, byte_vocabulary(), states=10, flexible=True).try_consume_tokens([]) == 0, (
        "a text is checked"
    )
    for more in ({"states": 1000}, {}):
        assert not matcher_of(long, byte_vocabulary(), **more).is_error()
    with pytest.raises(ConfigError, match=r"^the regex grammar cannot be used: "):
        matcher_of(regex("a(?=b)"), byte_vocabulary(), flexible=True)
    for grammar, text, whole, fits in (
        (choice(["yes", "yet"]), "ye", True, False), (choice(["yes", "yet"]), "ye", False, True),
        (choice(["yes", "yet"]), "yet", True, True), (choice(["yes"]), "yess", False, False),
        (regex("ab+"), "ab", True, True), (regex("ab+"), "a", True, False), (regex("ab+"), "a", False, True),
        (regex("ab+"), "abc", False, False), (regex("é"), "é", True, True), (regex(".*"), "\ud800", True, False),
        (regex("a"), " a ", True, False), (Grammar("json_schema", '{"type": "null"}'), " null\n", True, True),
        (Grammar("json_schema", '{"type": "array"}'), "[1 , 2", True, False),
        (Grammar("json_schema", '{"type": "array"}'), "[1 , 2", False, True),
    ):  # fmt: skip
        assert accepts(grammar, text, whole=whole) is fits, (grammar, text, whole)


SERVER = """
import os, sys
seen = [os.environ.get(name) for name in {names}]
open({path!r}, "w").write(repr([*seen, os.getsid(0) == os.getpid(), sys.flags.utf8_mode]))
{then}
"""


@pytest.mark.slow
def test_a_server_has_its_own_settings_and_may_be_tried_again_however_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "seen"
    names = ("MALLOC_ARENA_MAX", "TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS", "MY_OWN")
    for name in names:
        monkeypatch.setenv(name, "9")

    def told(then: str, tokenizer: Any) -> str:
        monkeypatch.setattr(isolated_grammar, "_PROGRAM", SERVER.format(path=str(path), names=names, then=then))
        with pytest.raises(TransientError) as error:
            _Server(tokenizer)
        start, end = "the process that compiles grammars did not start (", "): try again"
        assert str(error.value).startswith(start) and str(error.value).endswith(end)
        return str(error.value)[len(start) : -len(end)]

    assert told("", {"a": "x" * (1 << 22)}) in ("[Errno 32] Broken pipe", "[Errno 104] Connection reset by peer")
    assert path.read_text() == repr(["1", "false", "1", "9", True, 1]), "the user's settings of threads do not count"
    monkeypatch.setattr(isolated_grammar, "_START_S", 0.3)
    assert told("import time; time.sleep(60)", {}) == "timed out"


def test_who_rests_is_told_how_long_and_compiles_again_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = GrammarProcesses(None, GrammarLimits(rest_s=30.0))
    monkeypatch.setattr(processes, "_start", lambda *given: pytest.fail("no process is started"))
    now = time.monotonic()
    processes._resting.update(me=now + 5.0, done=now - 0.001)
    with pytest.raises(TransientError) as error:
        processes.compile(Grammar("lark", "x"), owner="me")
    assert 0 < (error.value.retry_after_s or 0) <= 5.0 and "me" in processes._resting
    assert str(error.value) == (
        "the lark grammar was not compiled, because another one of yours held up everyone's answers: try again later"
    )

    class StartedError(Exception):
        pass

    def start(*given: Any) -> Any:
        raise StartedError

    monkeypatch.setattr(processes, "_start", start)
    for owner in ("done", "other", ""):
        with pytest.raises(StartedError):
            processes.compile(Grammar("lark", "x"), owner=owner)
    assert list(processes._resting) == ["me"], "whose rest is over is forgotten"
    processes._rest("other")
    assert 29 < processes._resting["other"] - now < 40


def test_a_grammar_that_is_read_forces_its_only_text_unless_asked_not_to() -> None:
    def forced(grammar: Grammar, **options: bool) -> list[int]:
        found: list[int] = grammar_compiler.read(grammar, byte_vocabulary(), **options).compute_ff_tokens()
        return found

    for grammar, only in ((choice(["yes"]), b"yes"), (regex("ab(c|d)"), b"ab")):
        assert forced(grammar) == forced(grammar, forcing=True) == list(only)
        assert forced(grammar, forcing=False) == []
    null = Grammar("json_schema", '{"type": "null"}')
    assert forced(null) == list(b"null") and forced(null, forcing=False) == []
    array = Grammar("json_schema", '{"type": "array"}')
    fitting = {
        flexible: matcher_of(array, byte_vocabulary(), flexible=flexible).try_consume_tokens(list(b"[1 ,2]"))
        for flexible in (False, True)
    }
    assert fitting == {False: 2, True: 6}, "white space is taken where a text from elsewhere is checked"


@pytest.mark.slow
def test_white_space_fits_where_json_has_it_however_dear_the_grammar_is() -> None:
    dear = {"type": "string", "pattern": "^[ab]+$", "maxLength": 3}
    schema = {"type": "object", "properties": {"a": dear}, "required": ["a"], "additionalProperties": False}
    grammar = Grammar("json_schema", json.dumps(schema))
    assert not is_cheap(grammar)
    for text, whole, fits in (
        ('{"a":"ab"}', True, True), ('{\n  "a": "ab"\n}', True, True), (' {"a" : "b"}\n', True, True),
        ('{\n  "a": "ab"\n', True, False), ('{\n  "a": "ab"\n', False, True), ('{\n "a": "abc"', False, False),
        ('{"a": "ab"} {', False, False), ("", True, False), ("", False, True),
    ):  # fmt: skip
        assert accepts(grammar, text, whole=whole) is fits, (text, whole)


def test_a_slot_that_comes_free_goes_at_once_to_whoever_may_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """All who wait look: the one who waited longest may hold all that one may already."""
    monkeypatch.setattr(compile_slots, "_LOOK_S", 60.0)
    slots, got = CompileSlots(2), {name: threading.Event() for name in ("again", "other")}
    leave = {name: threading.Event() for name in ("one", "two", *got)}

    def hold(owner: str, name: str) -> None:
        with slots.taken(owner, "the grammar", 20):
            got.setdefault(name, threading.Event()).set()
            leave[name].wait(20)

    threads = []
    for owner, name, running, waiting in (
        ("a", "one", 1, 0), ("b", "two", 2, 0), ("a", "again", 2, 1), ("c", "other", 2, 2)
    ):  # fmt: skip
        threads.append(threading.Thread(target=hold, args=(owner, name), daemon=True))
        threads[-1].start()
        until(lambda r=running, w=waiting: (len(slots._running), len(slots._waiting)) == (r, w))  # type: ignore[misc]
    leave["two"].set()
    assert got["other"].wait(5) and not got["again"].is_set()
    leave["one"].set()
    assert got["again"].wait(5)
    for each in leave.values():
        each.set()
    for thread in threads:
        thread.join(10)
    assert slots._running == slots._waiting == []


@pytest.mark.parametrize(("stopped", "accepting"), [(True, True), (True, False), (False, False), (False, True)])
def test_a_grammar_is_refused_where_its_matcher_stops_before_a_text_may_end(
    stopped: bool, accepting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    class Begun:
        """A matcher at the start of a text, as another version of llguidance may give it."""

        grammar_from_regex = staticmethod(llguidance.LLMatcher.grammar_from_regex)

        def __init__(self, *words: Any, **named: Any) -> None:
            given.append((words[0], sorted(named)))

        def is_error(self) -> bool:
            return False

        def compute_ff_tokens(self) -> list[int]:
            return []

        def compute_bitmask(self) -> bytes:
            given.append("mask")
            return b""

        def is_stopped(self) -> bool:
            return stopped

        def is_accepting(self) -> bool:
            return accepting

    monkeypatch.setattr(llguidance, "LLMatcher", Begun)
    long = regex("a" * 101)
    if stopped and not accepting:
        with pytest.raises(ConfigError) as refused:
            matcher_of(long, "vocabulary")
        assert str(refused.value) == f"no text fits the regex grammar: {'a' * 100!r}"
    else:
        assert isinstance(matcher_of(long, "vocabulary"), Begun)
    assert given == [("vocabulary", ["limits", "log_level"]), "mask"]


@pytest.mark.parametrize("forcing", [True, False])
@pytest.mark.parametrize("source", ['start: ""', "start: ", "start: //"])
def test_a_grammar_that_only_the_empty_text_fits_ends_at_once(source: str, forcing: bool) -> None:
    matcher = matcher_of(Grammar("lark", source), byte_vocabulary(), forcing=forcing)
    assert matcher.is_accepting() and matcher.compute_ff_tokens() == [] and not matcher.try_consume_tokens([97])
    for nothing in ("[^\\x00-\\U0010ffff]", "(?:[^\\s\\S])a"):
        with pytest.raises(ConfigError, match=r"^the regex grammar cannot be used: no text fits it \(NoExt"):
            matcher_of(regex(nothing), byte_vocabulary())
