"""A fetch with a limit or a lease that no store can keep is refused alike by all of them, before a server is asked."""

import math

import pytest

from firsthand.errors import ConfigError
from firsthand.messaging.memory_board import MemoryBoard
from firsthand.messaging.message_bus import MAX_LEASE_S, check_fetch
from firsthand.messaging.nats_messaging import NatsMessaging
from firsthand.messaging.redis_messaging import RedisMessaging
from firsthand.messaging.sqlite_messaging import SqliteMessaging


@pytest.mark.parametrize("store", [NatsMessaging, RedisMessaging, SqliteMessaging])
def test_a_fetch_that_cannot_be_is_refused_by_each_store(store):
    bus = object.__new__(store)
    for lease_s in (math.inf, -math.inf, math.nan, 1e300, MAX_LEASE_S + 1, -MAX_LEASE_S - 1):
        with pytest.raises(ConfigError, match=r"^lease_s is .*: give a number of seconds, at most 315,360,000$"):
            bus.fetch("g", lease_s=lease_s)
    with pytest.raises(ConfigError, match=r"^limit is 0: give 1 or more$"):
        bus.fetch("g", 0)


def test_a_lease_may_be_ten_years_or_be_over():
    for lease_s in (MAX_LEASE_S, 0.0, -5.0, -MAX_LEASE_S):
        check_fetch(1, lease_s)


@pytest.mark.parametrize("store", [MemoryBoard, NatsMessaging, RedisMessaging, SqliteMessaging])
def test_changes_of_a_board_with_a_limit_below_one_are_refused_by_each_store(store):
    board = object.__new__(store)
    for limit in (0, -1):
        with pytest.raises(ConfigError, match=rf"^limit is {limit}: give 1 or more$"):
            board.changes(limit=limit)
