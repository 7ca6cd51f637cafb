"""A blackboard and a message bus in a file: races, leases, replays, back-pressure, dead letters, kills and hostile names."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ConfigError, FirsthandError, StoreError, UnknownName
from firsthand.loop.journal import MemoryJournal
from firsthand.message import ToolCall
from firsthand.messaging.blackboard import MAX_KEY_CHARS, MAX_VALUE_CHARS, Blackboard, BoardConflict, check_entry
from firsthand.messaging.memory_board import MemoryBoard
from firsthand.messaging.message_bus import MAX_PAYLOAD_CHARS, BusFull, Delivery, MessageBus
from firsthand.messaging.nats_messaging import NatsMessaging
from firsthand.messaging.open_messaging import open_messaging
from firsthand.messaging.redis_messaging import RedisMessaging
from firsthand.messaging.sqlite_messaging import SqliteMessaging
from firsthand.messaging.topic_names import check_topic, topic_pattern
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from jetstream_in_memory import JetStream, connecting
from messaging_servers import nats_address, nats_server, redis_address, redis_server  # noqa: F401

BOUNDS = {"max_lag": 50, "max_deliveries": 3, "kept_versions": 5}
STORES = ["sqlite", "nats in memory", *(pytest.param(name, marks=pytest.mark.slow) for name in ("redis", "nats"))]


class Shared(Blackboard, MessageBus, Protocol):
    """What every store is: a blackboard and a message bus."""

    def unsubscribe(self, group: str) -> None: ...


@pytest.fixture(params=STORES)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens the one store of the test, again with each call, as other processes would."""
    name, made = f"t{uuid4().hex}", list[Any]()
    if request.param == "nats in memory":
        request.getfixturevalue("monkeypatch").setattr(
            "firsthand.messaging.nats_client.connected", connecting(JetStream(), [])
        )

    def open_store(**bounds: int) -> Any:
        if request.param == "sqlite":
            made.append(SqliteMessaging(tmp_path / "shared.db", **bounds))
        elif request.param == "redis":
            made.append(RedisMessaging(request.getfixturevalue("redis_address"), name=name, **bounds))
        else:
            address = "nats://here" if "memory" in request.param else request.getfixturevalue("nats_address")
            made.append(NatsMessaging(address, name=name, **bounds))
        return made[-1]

    yield open_store
    for each in made:
        each.close()


@pytest.fixture
def shared(opened: Callable[..., Any]) -> Shared:
    store: Shared = opened(**BOUNDS)
    return store


def fetched(shared: Shared, group: str, **options: Any) -> list[Delivery]:
    """What a group gets, once there is something: a server needs a moment to see that a lease is over."""
    for _ in range(300):
        if found := list(shared.fetch(group, **options)):
            return found
        time.sleep(0.02)
    return []


# -- the blackboard --


def test_a_key_has_versions_writers_and_a_history(shared: Shared) -> None:
    first = shared.write("plan", "a", writer="ann", expected=0)
    second = shared.write("plan", "b", writer="bob", expected=1)
    assert (first.version, second.version, second.writer) == (1, 2, "bob")
    assert shared.read("plan") == second and shared.read("nothing") is None
    assert [(each.version, each.value) for each in shared.history("plan")] == [(1, "a"), (2, "b")]
    shared.write("plain", "c", writer="ann")
    shared.write("%", "d", writer="ann")
    assert [each.key for each in shared.entries()] == ["%", "plain", "plan"]
    assert [each.key for each in shared.entries("plan")] == ["plan"] and [each.key for each in shared.entries("%")] == [
        "%"
    ]


@pytest.mark.parametrize("expected", [0, 2, 3])
def test_a_write_that_expected_another_version_changes_nothing(shared: Shared, expected: int) -> None:
    entry = shared.write("k", "a", writer="ann")
    with pytest.raises(BoardConflict, match="it is at version 1, written by 'ann'") as told:
        shared.write("k", "b", writer="bob", expected=expected)
    assert told.value.entry == entry == shared.read("k")
    with pytest.raises(BoardConflict, match="it is not there"):
        shared.write("new", "b", writer="bob", expected=1)


def test_false_is_the_version_of_a_new_key_and_a_place_before_the_first_is_the_beginning(shared: Shared) -> None:
    assert shared.write("a", "x", writer="one", expected=False).version == 1
    with pytest.raises(BoardConflict):
        shared.write("a", "y", writer="one", expected=False)
    assert [each.key for each in shared.changes(-5)] == ["a"] and len(shared.changes(-5, 1)) == 1
    shared.publish("t", ["one", "two"])
    assert [each.payload for each in shared.replay("t", -5)] == ["one", "two"]
    shared.subscribe("g", "t", after=-5)
    assert [each.message.payload for each in shared.fetch("g", lease_s=30.0)] == ["one", "two"]


def test_a_named_write_is_made_once(shared: Shared) -> None:
    first = shared.write("k", "a", writer="ann", once="w1")
    shared.write("k", "b", writer="bob")
    assert shared.write("k", "again", writer="ann", expected=99, once="w1") == first
    assert [each.value for each in shared.history("k")] == ["a", "b"]


def test_a_board_keeps_for_whom_an_entry_is(shared: Shared) -> None:
    own = shared.write("k", "1", writer="ann", readers="user", once="n")
    assert own.readers == "user" == shared.write("k", "2", writer="ann", once="n").readers
    assert shared.read("k") == own and list(shared.entries()) == [own] == list(shared.history("k")) == list(
        shared.changes()
    )
    with pytest.raises(BoardConflict) as lost:
        shared.write("k", "2", writer="bob", expected=0)
    assert lost.value.entry == own
    assert shared.write("k", "2", writer="bob", expected=1).readers == "public"
    assert [each.readers for each in shared.history("k")] == ["user", "public"]


def test_watchers_see_every_write_once_and_in_order(shared: Shared) -> None:
    seen, last = [], 0
    for number in range(12):
        shared.write(f"k{number % 3}", str(number), writer="w")
        if number % 4 == 3:
            new = shared.changes(last)
            seen += [each.value for each in new]
            last = new[-1].sequence
    assert seen == [str(number) for number in range(12)] and list(shared.changes(last)) == []
    assert [each.value for each in shared.changes(0, limit=2)] == ["0", "1"]


def test_a_history_is_bounded_and_the_latest_stays(shared: Shared) -> None:
    for number in range(20):
        shared.write("k", str(number), writer="w")
    assert [each.version for each in shared.history("k")] == [16, 17, 18, 19, 20]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("", "v", "the key is"), ("a\n", "v", "the key is"), ("k" * 201, "v", "the key is"),
     ("k", "v" * (MAX_VALUE_CHARS + 1), "1,000,001 characters")],
)  # fmt: skip
def test_what_a_board_cannot_hold_is_refused(shared: Shared, key: str, value: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        shared.write(key, value, writer="w")
    assert shared.entries() == []


def test_a_board_holds_keys_and_values_of_the_longest_size() -> None:
    check_entry("k" * MAX_KEY_CHARS, "v" * MAX_VALUE_CHARS)


def count_up(board: Any, times: int) -> None:
    for _ in range(times):
        while True:
            entry = board.read("count")
            try:
                board.write(
                    "count", str(int(entry.value) + 1 if entry else 1), writer=str(os.getpid()),
                    expected=entry.version if entry else 0,
                )  # fmt: skip
                break
            except BoardConflict:
                continue


def count_up_in_file(path: Path, times: int) -> None:
    with SqliteMessaging(path) as board:
        count_up(board, times)


def test_of_many_writers_none_overwrites_another(opened: Callable[..., Any]) -> None:
    boards = [opened() for _ in range(4)]
    threads = [threading.Thread(target=count_up, args=(board, 25)) for board in boards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entry = boards[0].read("count")
    assert entry is not None and (entry.value, entry.version) == ("100", 100)


# -- the bus --


def test_each_group_gets_every_message_of_its_topics_in_order(shared: Shared) -> None:
    shared.subscribe("all", ">")
    shared.subscribe("eu", "orders.*.eu")
    offsets = [*shared.publish("orders.paid.eu", ["1"]), *shared.publish("orders.paid.us", ["2"]),
               *shared.publish("orders.sent.eu", ["3", "4"], sender="shop")]  # fmt: skip
    assert offsets == [1, 2, 3, 4]
    assert [each.message.payload for each in shared.fetch("all")] == ["1", "2", "3", "4"]
    found = shared.fetch("eu")
    assert [(each.message.payload, each.message.sender, each.count) for each in found] == [
        ("1", "", 1), ("3", "shop", 1), ("4", "shop", 1),
    ]  # fmt: skip
    assert shared.fetch("all") == [] and shared.fetch("eu") == []
    assert (shared.lag("all"), shared.lag("eu")) == (4, 3)
    assert shared.acknowledge("all", [1, 2, 99]) == 2 and shared.lag("all") == 2
    assert shared.acknowledge("all", [1]) == 0


def test_what_is_not_acknowledged_in_time_comes_again_and_then_is_a_dead_letter(shared: Shared) -> None:
    shared.subscribe("g", ">")
    shared.publish("t", ["poison", "fine"])
    for count in (1, 2, 3):
        found = fetched(shared, "g", lease_s=0)
        assert [(each.message.payload, each.count) for each in found] == (
            [("poison", count), ("fine", 1)] if count == 1 else [("poison", count)]
        )
        shared.acknowledge("g", [2])
    for _ in range(300):
        assert shared.fetch("g") == []
        if letters := shared.dead_letters("g"):
            break
        time.sleep(0.02)
    (letter,) = letters
    assert shared.lag("g") == 0
    assert (letter.message.payload, letter.count, letter.reason) == ("poison", 3, "it was not acknowledged in time")


def test_what_is_let_go_of_comes_again_at_once(shared: Shared) -> None:
    shared.subscribe("g", ">")
    (offset,) = shared.publish("t", ["x"])
    for count in (1, 2):
        assert [each.count for each in fetched(shared, "g", lease_s=600)] == [count]
        shared.let_go("g", offset, "busy")
    assert [each.count for each in fetched(shared, "g", lease_s=600)] == [3] and shared.fetch("g") == []
    shared.let_go("g", offset, "it has no price")
    assert [each.reason for each in shared.dead_letters("g")] == ["it has no price"] and shared.fetch("g") == []
    with pytest.raises(UnknownName, match="holds no message 1"):
        shared.let_go("g", offset)


def test_what_is_let_go_of_or_held_too_long_comes_again_after_others_were_acknowledged(shared: Shared) -> None:
    shared.subscribe("g", ">")
    shared.publish("t", list("abcdef"))
    a, b, c, d, e, f = (each.message.offset for each in shared.fetch("g", lease_s=600))
    assert shared.acknowledge("g", [a, b, f]) == 3
    shared.let_go("g", d, "busy")
    assert [(each.message.payload, each.count) for each in fetched(shared, "g", lease_s=0)] == [("d", 2)]
    assert shared.acknowledge("g", [c]) == 1
    assert [(each.message.payload, each.count) for each in fetched(shared, "g", lease_s=600)] == [("d", 3)]
    assert shared.fetch("g") == []
    shared.let_go("g", e)
    assert [(each.message.payload, each.count) for each in fetched(shared, "g", lease_s=600)] == [("e", 2)]
    shared.let_go("g", d, "it has no price")
    assert [(each.message.payload, each.reason) for each in shared.dead_letters("g")] == [("d", "it has no price")]
    assert shared.lag("g") == 1 and shared.acknowledge("g", [e]) == 1 and shared.fetch("g") == []


def test_a_long_lease_holds_after_others_were_acknowledged(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.messaging.nats_client._LEASE_S", 0.2)
    shared.subscribe("g", ">")
    shared.publish("t", ["one", "two"])
    (one,) = shared.fetch("g", 1, lease_s=600)
    assert shared.acknowledge("g", [one.message.offset]) == 1
    (two,) = shared.fetch("g", 1, lease_s=600)
    time.sleep(0.5)
    assert shared.fetch("g") == [], "another subscriber gets none that is still held"
    shared.let_go("g", two.message.offset)
    assert [each.count for each in fetched(shared, "g", lease_s=600)] == [2]
    time.sleep(0.5)
    assert shared.fetch("g") == [] and shared.acknowledge("g", [two.message.offset]) == 1


def test_a_group_that_never_reads_holds_publishers_of_its_topics_back_and_no_others(shared: Shared) -> None:
    shared.subscribe("lazy", "slow.>")
    shared.publish("slow.a", ["x"] * 49)
    shared.publish("slow.a", ["x"])
    with pytest.raises(BusFull, match="the group 'lazy' is 50 behind"):
        shared.publish("slow.b", ["y"])
    assert shared.publish("fast.a", ["z"]) == [51], "what was refused has left nothing"
    shared.acknowledge("lazy", [each.message.offset for each in shared.fetch("lazy", limit=1)])
    assert shared.publish("slow.b", ["y"]) == [52]
    shared.unsubscribe("lazy")
    shared.publish("slow.b", ["y"] * 100)
    with pytest.raises(UnknownName, match="no group 'lazy'"):
        shared.fetch("lazy")


def test_messages_of_other_topics_do_not_count_as_a_groups_lag(shared: Shared) -> None:
    shared.subscribe("lazy", "slow.>")
    shared.publish("fast.a", ["x"] * 60)
    assert len(shared.publish("slow.a", ["y"] * 50)) == 50
    with pytest.raises(BusFull, match="the group 'lazy' is 50 behind"):
        shared.publish("slow.a", ["y"])


def test_messages_that_were_fetched_and_not_acknowledged_count_as_lag(tmp_path: Path) -> None:
    with SqliteMessaging(tmp_path / "held.db", max_lag=5) as bus:
        bus.subscribe("lazy", "t")
        bus.publish("t", ["x"] * 5)
        assert len(bus.fetch("lazy")) == 5
        with pytest.raises(BusFull, match="is 5 behind"):
            bus.publish("t", ["y"])


def test_a_group_begins_now_at_the_beginning_or_behind_an_offset_and_can_be_moved(shared: Shared) -> None:
    shared.publish("t", list("abcde"))
    for name, after in (("now", None), ("all", 0), ("late", 3)):
        shared.subscribe(name, ">", after=after)
    shared.publish("t", ["f"])

    def payloads(group: str) -> str:
        return "".join(each.message.payload for each in shared.fetch(group))

    assert (payloads("now"), payloads("all"), payloads("late")) == ("f", "abcdef", "def")
    shared.subscribe("now", ">")
    assert payloads("now") == "", "subscribing again keeps its place"
    shared.subscribe("now", ">", after=4)
    assert payloads("now") == "ef"
    with pytest.raises(ConfigError, match="give another name"):
        shared.subscribe("now", "other")
    assert "".join(each.payload for each in shared.replay("t", after=2, limit=3)) == "cde"
    assert shared.replay("nothing.*") == []


def test_a_named_publication_is_made_once(shared: Shared) -> None:
    assert shared.publish("t", ["a", "b"], once="p") == shared.publish("t", ["a", "b"], once="p") == [1, 2]
    assert shared.publish("t", ["c"]) == [3]


def test_members_of_a_group_share_the_work_and_get_no_message_twice(opened: Callable[..., Any]) -> None:
    bus = opened()
    bus.subscribe("workers", "jobs.>")
    bus.publish("jobs.new", [str(n) for n in range(300)])
    done: list[str] = []

    def work(mine: Any) -> None:
        while found := mine.fetch("workers", limit=7):
            done.extend(each.message.payload for each in found)
            mine.acknowledge("workers", [each.message.offset for each in found])

    threads = [threading.Thread(target=work, args=(opened(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(done) == Counter(str(n) for n in range(300))


def test_many_messages_of_other_topics_are_passed_over(shared: Shared) -> None:
    shared.subscribe("rare", "rare")
    shared.publish("common", ["x"] * 2500)
    shared.publish("rare", ["y"])
    assert [each.message.payload for each in shared.fetch("rare", limit=1)] == ["y"]
    assert shared.lag("rare") == 1


@pytest.mark.parametrize("topic", ["", ".", "a.", ".a", "a..b", "a b", "a.*", ">", "a/b", "ü ", "a" * 201])
def test_what_is_no_topic_is_refused(shared: Shared, topic: str) -> None:
    with pytest.raises(ConfigError, match="the topic is"):
        shared.publish(topic, ["x"])


@pytest.mark.parametrize("pattern", ["", "a.", ">.a", "a*", "**", "a.>b", "a b"])
def test_what_is_no_pattern_is_refused(shared: Shared, pattern: str) -> None:
    with pytest.raises(ConfigError, match="the pattern of topics"):
        shared.subscribe("g", pattern)


def test_a_message_that_is_too_long_is_refused_with_all_of_its_publication(shared: Shared) -> None:
    with pytest.raises(ConfigError, match="1,000,001 characters"):
        shared.publish("t", ["short", "x" * (MAX_PAYLOAD_CHARS + 1)])
    assert shared.replay(">") == []


words = st.text(alphabet="ab-_1", min_size=1, max_size=3)


@given(
    st.lists(words, min_size=1, max_size=4),
    st.lists(st.one_of(words, st.just("*")), min_size=1, max_size=4),
    st.booleans(),
)
def test_patterns_match_as_they_are_defined(topic: list[str], parts: list[str], is_open: bool) -> None:
    check_topic(".".join(topic))
    pattern = ".".join([*parts, *([">"] if is_open else [])])
    fits = len(topic) > len(parts) if is_open else len(topic) == len(parts)
    fits = fits and all(part in ("*", word) for part, word in zip(parts, topic, strict=False))
    assert (topic_pattern(pattern).fullmatch(".".join(topic)) is not None) == fits


@given(st.text(max_size=30))
def test_any_text_is_a_topic_or_one_error(text: str) -> None:
    for check in (check_topic, topic_pattern):
        try:
            check(text)
        except FirsthandError as error:
            assert "is expected" in str(error) or "are expected" in str(error)


# -- files --

PUBLISHER = """
import sys
from firsthand.messaging.sqlite_messaging import SqliteMessaging
with SqliteMessaging(sys.argv[1]) as bus:
    for number in range(10**9):
        bus.publish("t", [str(number), "again"])
        bus.write("k", str(number), writer="w")
        print(number, flush=True)
"""


@pytest.mark.slow
def test_a_publisher_that_is_killed_loses_nothing_that_was_told_and_half_of_nothing(tmp_path: Path) -> None:
    path, rng = tmp_path / "killed.db", random.Random(3)
    told = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", PUBLISHER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = list(itertools.islice(process.stdout, rng.randrange(5, 60)))
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
        told += sum(line.endswith("\n") for line in lines)
        with SqliteMessaging(path) as bus:
            messages = bus.replay(">", limit=10**6)
            assert [each.offset for each in messages] == list(range(1, len(messages) + 1))
            assert len(messages) >= 2 * told and len(messages) % 2 == 0
            entry = bus.read("k")
            assert entry is not None and entry.version >= told


def test_a_file_of_something_else_or_cut_short_is_one_sentence(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError):
        SqliteMessaging(other)
    cut = tmp_path / "cut.db"
    with SqliteMessaging(cut) as bus:
        bus.publish("t", ["x" * 1000] * 200)
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError), SqliteMessaging(cut) as bus:
        bus.replay(">", limit=10**6)
    for bounds in ({"max_lag": 0}, {"max_deliveries": 0}, {"kept_versions": 0}):
        with pytest.raises(ConfigError, match="give 1 or more"):
            SqliteMessaging(tmp_path / "new.db", **bounds)


# -- agents --


def test_agents_write_a_board_by_tools_and_the_loser_of_a_race_sees_the_winners_entry(tmp_path: Path) -> None:
    tools = catalog.tools(f"shared_board:{tmp_path / 'team.db'}")
    assert [tool.name for tool in tools] == ["board_read", "board_list", "board_write"]

    async def act(task: Task, ctx: object) -> str:
        said = []
        for name, arguments in task.metadata["calls"]:
            said.append((await ctx.call(ToolCall("c", name, arguments))).content)  # type: ignore[attr-defined]
        assert all(each.startswith('<untrusted from="the blackboard">') for each in said)
        return "\n".join(line for each in said for line in each.splitlines()[1:-1])

    def attempt(name: str, *calls: tuple[str, dict[str, object]], journal: MemoryJournal | None = None) -> object:
        agent = Agent(name, Scripted([]), act, tools=tools)
        return asyncio.run(
            rollout(agent, Task("t", "?", metadata={"calls": calls}), journal=journal or MemoryJournal())
        )

    write = ("board_write", {"key": "plan", "value": "ann's plan", "version": 0})
    journal = MemoryJournal()
    assert attempt("ann", ("board_list", {}), write, journal=journal).answer == (  # type: ignore[attr-defined]
        "The board is empty.\nplan is at version 1."
    )
    late = attempt("bob", ("board_write", {"key": "plan", "value": "bob's", "version": 0}), ("board_list", {}))
    assert "it is at version 1, written by 'ann'" in late.answer and "ann's plan" in late.answer  # type: ignore[attr-defined]
    assert late.answer.endswith("plan (version 1, by ann)")  # type: ignore[attr-defined]
    again = attempt("ann", ("board_list", {}), write, journal=journal)
    assert again.answer.endswith("plan is at version 1."), "a resumed attempt finds its write in its journal"  # type: ignore[attr-defined]
    assert [call.replayed for call in again.calls] == [True, True]  # type: ignore[attr-defined]
    results = [call.detail.get("origin") for call in late.calls]  # type: ignore[attr-defined]
    assert results[1] == "the blackboard", "a model reads what others wrote between marks"
    with SqliteMessaging(tmp_path / "team.db") as board:
        assert [each.writer for each in board.history("plan")] == ["ann"]


@pytest.mark.slow
def test_processes_share_a_board(tmp_path: Path) -> None:
    path = tmp_path / "two.db"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=count_up_in_file, args=(path, 10)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    with SqliteMessaging(path) as board:
        entry = board.read("count")
        assert entry is not None and entry.value == "20"
        assert time.time() - entry.at < 60


def test_a_fetch_gives_no_more_than_was_asked_for_and_the_next_goes_on(shared: Shared) -> None:
    shared.subscribe("g", ">")
    shared.publish("t", [*"abcde", "\ud800"])
    found = ["".join(each.message.payload for each in shared.fetch("g", limit=2)) for _ in range(4)]
    assert found == ["ab", "cd", "e\\ud800", ""]


# -- a board in memory --


def test_a_board_in_memory_is_a_blackboard_too() -> None:
    board = MemoryBoard(clock=lambda: 7.0)
    first = board.write("plan", "a", writer="ann", expected=0, once="w")
    assert board.write("plan", "other", writer="ann", once="w") == first == board.read("plan")
    with pytest.raises(BoardConflict, match="it is at version 1"):
        board.write("plan", "b", writer="bob", expected=0)
    second = board.write("plan", "b", writer="bob", expected=1)
    board.write("fact", "c", writer="ann")
    assert board.history("plan") == [first, second] and (second.version, second.sequence, second.at) == (2, 2, 7.0)
    assert [each.key for each in board.entries()] == ["fact", "plan"] and board.entries("p") == [second]
    assert [each.value for each in board.changes(after=1)] == ["b", "c"] and len(board.changes(limit=1)) == 1
    with pytest.raises(ConfigError):
        board.write("", "x", writer="ann")


# -- servers --

NAMES = {"redis": "Redis", "nats": "NATS"}


@pytest.mark.slow
@pytest.mark.parametrize("server", ["redis", "nats"])
def test_what_a_server_acknowledged_is_there_when_it_was_killed(server: str, tmp_path: Path) -> None:
    serve = redis_server(tmp_path, "--appendfsync", "always") if server == "redis" else nats_server(tmp_path, "always")
    with serve as address, open_messaging(address) as shared:
        shared.subscribe("g", "t.>")
        shared.publish("t.a", ["1", "2"], once="first")
        shared.acknowledge("g", [each.message.offset for each in shared.fetch("g", limit=1)])
        shared.write("k", "v", writer="w", once="w1")
    with (
        redis_server(tmp_path) if server == "redis" else nats_server(tmp_path) as address,
        open_messaging(address) as shared,
    ):
        assert shared.publish("t.a", ["1", "2"], once="first") == [1, 2]
        assert shared.write("k", "other", writer="w", once="w1").value == "v" and len(shared.history("k")) == 1
        assert [each.payload for each in shared.replay("t.>")] == ["1", "2"]
        assert [each.message.payload for each in shared.fetch("g")] == ["2"]


@pytest.mark.slow
@pytest.mark.parametrize("server", ["redis", "nats"])
def test_a_server_that_goes_away_is_one_sentence(server: str, tmp_path: Path) -> None:
    with redis_server(tmp_path) if server == "redis" else nats_server(tmp_path) as address:
        shared = (RedisMessaging if server == "redis" else NatsMessaging)(address, timeout_s=0.5)
        shared.write("k", "v", writer="w")
    with pytest.raises(StoreError, match=f"the {NAMES[server]} server at .* failed"):
        shared.write("k", "v", writer="w")
    shared.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("redis://user:secret@127.0.0.1:9/0", "the Redis server at 127.0.0.1:9/0 failed"),
        ("nats://user:secret@127.0.0.1:9", "the NATS server at 127.0.0.1:9 failed"),
        ("redis://127.0.0.1:port/0", "is no address of a Redis server"),
        ("amqp://127.0.0.1", "amqp:// is no store of messages"),
    ],
)
def test_an_address_where_nothing_answers_is_one_sentence_without_the_password(address: str, says: str) -> None:
    with pytest.raises(FirsthandError, match=says) as told:
        open_messaging(address)
    assert "secret" not in str(told.value)


def test_bounds_and_names_that_a_server_cannot_keep_are_refused_before_it_is_asked() -> None:
    for made in (RedisMessaging, NatsMessaging):
        with pytest.raises(ConfigError, match="max_lag is 0"):
            made("redis://127.0.0.1:9", max_lag=0)
        with pytest.raises(ConfigError, match="the topic is"):
            made("redis://127.0.0.1:9", name="a b")
    with pytest.raises(ConfigError, match="at most 64 versions"):
        NatsMessaging("nats://127.0.0.1:9", kept_versions=65)
    with pytest.raises(ConfigError, match="without dots"):
        NatsMessaging("nats://127.0.0.1:9", name="a.b")


@pytest.mark.parametrize("text", ["\n", "\x00", "%d^$.-", "}{", "=", "\u202e", "'\"]]", "ü", "a" * 100_000])
def test_any_text_is_kept_as_it_is(shared: Shared, text: str) -> None:
    shared.subscribe("g-1", "t_1.>")
    shared.publish("t_1.a-b", [text], sender=text, once=text)
    (found,) = shared.fetch("g-1")
    assert (found.message.payload, found.message.sender) == (text, text)
    shared.let_go("g-1", found.message.offset, text)
    entry = shared.write("k", text, writer=text, once=text)
    assert shared.read("k") == entry and (entry.value, entry.writer) == (text, text)
    if text.isprintable() and len(text) < 200:
        shared.write(text, "v", writer="w")
        assert [each.key for each in shared.entries(text)] == [text]


def test_a_pattern_of_topics_is_no_pattern_of_the_store(shared: Shared) -> None:
    shared.subscribe("g", "a-b.*")
    shared.publish("axb.c", ["no"])
    shared.publish("a-b.c", ["yes"])
    shared.publish("a-b.c.d", ["no"])
    shared.publish("a-b", ["no"])
    assert [each.message.payload for each in shared.fetch("g")] == ["yes"] and shared.lag("g") == 1


@pytest.mark.slow
def test_what_other_programs_put_into_redis_stops_nobody(redis_address: str) -> None:  # noqa: F811
    import redis

    with RedisMessaging(redis_address, name="mixed") as shared, redis.Redis.from_url(redis_address) as other:
        shared.subscribe("g", ">", after=0)
        shared.write("k", "1", writer="a")
        other.xadd("{mixed}:messages", {"x": "y"}, id="5-0")
        other.xadd("{mixed}:messages", {"topic": "t", "payload": b"\xff", "at": "soon"}, id="6-0")
        other.xadd("{mixed}:messages", {"topic": "t", "payload": "between"}, id="7-3")
        other.xadd("{mixed}:changes", {"key": "k", "version": "many"}, id="1-1")
        other.set("{mixed}:offset", 7)
        shared.publish("t", ["ours"])
        given = shared.fetch("g")
        assert [(each.message.payload, each.message.at > 0) for each in given] == [("\ufffd", False), ("ours", True)]
        assert [each.payload for each in shared.replay("t")][-1] == "ours"
        assert [each.value for each in shared.changes()] == ["1"]
        other.xdel("{mixed}:messages", "8-0")  # one that is held is gone
        other.zadd("{mixed}:leases:g", {"8": 0})
        assert shared.fetch("g") == [] and shared.write("k", "2", writer="a").version == 2


@pytest.mark.slow
def test_what_other_programs_put_into_nats_stops_nobody(nats_address: str) -> None:  # noqa: F811
    import nats

    async def put() -> None:
        client = await nats.connect(nats_address)
        stream = client.jetstream()
        for data in (b"\xff", b"[" * 5000, b"{}", b'{"payload": 1, "sender": "", "at": 0.0}'):
            await stream.publish("mixed.messages.t", data)
        board = await stream.key_value("mixed_board")
        for data in (b"no JSON", b'{"key": "k"}'):
            await board.put("aw", data)
        await (await stream.key_value("mixed_groups")).put("aw", b"[]")
        await client.close()

    with NatsMessaging(nats_address, name="mixed") as shared:
        shared.subscribe("g", "t", after=0)
        asyncio.run(put())
        shared.publish("t", ["ours"])
        assert [each.message.payload for each in shared.fetch("g")][0::2] == ["\ufffd", "{}", "ours"]
        assert shared.read("k") is None and shared.entries() == [] and shared.history("k") == []
        assert shared.write("k", "1", writer="a").version == 1 and shared.changes()[0].value == "1"


@pytest.mark.slow
@pytest.mark.parametrize("too_early", ["nothing", "the first version"])
def test_a_history_that_natss_client_ends_too_early_is_asked_for_again(
    nats_address: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    too_early: str,
) -> None:
    """nats-py takes a history for complete when its messages were pushed before its question how many there are."""
    from nats.js.errors import NoKeysError
    from nats.js.kv import KeyValue

    whole, asked = KeyValue.history, []

    async def ends_early(bucket: Any, key: str) -> Any:
        asked.append(key)
        if len(asked) % 3 == 0:
            return await whole(bucket, key)
        if too_early == "nothing":
            raise NoKeysError
        return (await whole(bucket, key))[:1]

    with NatsMessaging(nats_address, name=f"early-{len(too_early)}") as shared:
        for version in range(3):
            shared.write("plan", str(version), writer="ann", expected=version)
        monkeypatch.setattr(KeyValue, "history", ends_early)
        assert [each.version for each in shared.history("plan")] == [1, 2, 3]
        assert shared.write("plan", "3", writer="ann", expected=3, once="last").version == 4
        assert shared.write("plan", "4", writer="ann", expected=4).version == 5 and len(asked) == 6
        monkeypatch.setattr(KeyValue, "history", lambda bucket, key: whole(bucket, "none"))
        with pytest.raises(StoreError, match="gives no whole history of 'plan'"):
            shared.history("plan")
