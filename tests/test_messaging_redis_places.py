"""Offsets in Redis: messages and writes come after whatever another program has put into their streams."""

from __future__ import annotations

import pytest

from firsthand.messaging.redis_messaging import RedisMessaging
from messaging_servers import redis_address

__all__ = ["redis_address"]
pytest.importorskip("redis")


def test_an_ordinary_message_of_another_program_does_not_end_publishing(redis_address: str) -> None:
    import redis

    with RedisMessaging(redis_address, name="times") as shared, redis.Redis.from_url(redis_address) as other:
        shared.subscribe("g", "a.>", after=0)
        assert shared.publish("a.b", ["one", "two"]) == [1, 2]
        id = other.xadd("{times}:messages", {"topic": "a.x", "payload": "hello"})  # its id is the time
        at = int(id.split(b"-")[0])
        assert shared.publish("a.b", ["three", "four"], once="n") == [at + 1, at + 2]
        assert shared.publish("a.b", ["three", "four"], once="n") == [at + 1, at + 2]
        given = shared.fetch("g")
        assert [each.message.payload for each in given] == ["one", "two", "hello", "three", "four"]
        assert shared.acknowledge("g", [each.message.offset for each in given]) == 5 and shared.lag("g") == 0
        assert shared.publish("a.b", ["five"]) == [at + 3] and shared.lag("g") == 1
        shared.subscribe("later", "a.>")
        assert shared.fetch("later") == [] and [each.message.payload for each in shared.fetch("g")] == ["five"]


def test_a_write_comes_after_another_programs_entry(redis_address: str) -> None:
    import redis

    with RedisMessaging(redis_address, name="writes") as shared, redis.Redis.from_url(redis_address) as other:
        assert shared.write("k", "1", writer="a").sequence == 1
        other.xadd("{writes}:changes", {"key": "k"}, id="200000000000000-7")
        entry = shared.write("k", "2", writer="a", expected=1)
        assert (entry.sequence, entry.version) == (200_000_000_000_001, 2) and shared.read("k") == entry
        assert [each.value for each in shared.changes()] == ["1", "2"] == [each.value for each in shared.history("k")]


@pytest.mark.parametrize("id", [999_999_999_999_999, 2**53 - 2])
def test_large_ids_are_read_to_the_last_digit(redis_address: str, id: int) -> None:
    import redis

    name = f"large{id}"
    with RedisMessaging(redis_address, name=name) as shared, redis.Redis.from_url(redis_address) as other:
        shared.subscribe("g", "a.>", after=0)
        shared.publish("a.b", ["one"])
        other.xadd(f"{{{name}}}:messages", {"topic": "a.x", "payload": "hello"}, id=f"{id}-0")
        assert [each.message.offset for each in shared.fetch("g", lease_s=0)] == [1, id]
        assert [each.count for each in shared.fetch("g", lease_s=0)] == [2, 2], "leases that ran out come again"
        assert shared.publish("a.b", ["two"]) == [id + 1]
        assert [each.message.offset for each in shared.fetch("g", lease_s=60)] == [1, id, id + 1]
        assert shared.fetch("g") == [] and [each.offset for each in shared.replay("a.>")] == [1, id, id + 1]
        shared.subscribe("h", "a.>", after=-1)
        assert shared.lag("h") == 3


def test_messages_of_other_programs_make_no_room_beyond_what_a_group_may_be_behind(redis_address: str) -> None:
    import redis

    with (
        RedisMessaging(redis_address, name="room", max_lag=2) as shared,
        redis.Redis.from_url(redis_address) as other,
    ):
        shared.subscribe("g", "a.>", after=0)
        for place in range(5):
            other.xadd("{room}:messages", {"topic": "a.x"}, id=f"{place + 1}-0")
        shared.acknowledge("g", [each.message.offset for each in shared.fetch("g")])
        assert shared.lag("g") == 0, "they were not counted, and are not counted off"


def test_messages_that_somebody_trimmed_hold_no_publisher_back_once_the_group_has_read_the_rest(
    redis_address: str,
) -> None:
    import redis

    with (
        RedisMessaging(redis_address, name="trimmed", max_lag=10) as shared,
        redis.Redis.from_url(redis_address) as other,
    ):
        shared.subscribe("g", "a.>", after=0)
        shared.publish("a.b", list("12345678"))
        other.xtrim("{trimmed}:messages", maxlen=3, approximate=False)
        given = shared.fetch("g", 2)
        assert [each.message.payload for each in given] == ["6", "7"] and shared.lag("g") == 8, "there is more to read"
        given += shared.fetch("g", 1)
        shared.acknowledge("g", [each.message.offset for each in given])
        assert shared.fetch("g") == [] and shared.lag("g") == 0
        assert shared.publish("a.b", list("abcdefghij"))[0] == 9 and shared.lag("g") == 10


def test_a_group_beyond_the_last_message_is_behind_only_what_comes_after_its_place(redis_address: str) -> None:
    with RedisMessaging(redis_address, name="ahead", max_lag=4) as shared:
        shared.publish("a.b", ["1", "2"])
        shared.subscribe("g", "a.>", after=6)
        shared.subscribe("begun", "a.>", after=1)
        for payloads, lag in ((["3", "4"], 0), ([], 0), (["5", "6", "7"], 1), (["8"], 2)):
            shared.publish("a.b", payloads)
            assert shared.lag("g") == lag
            shared.acknowledge("begun", [each.message.offset for each in shared.fetch("begun")])
        assert [each.message.payload for each in shared.fetch("g")] == ["7", "8"] and shared.lag("g") == 2
