"""Stored replies that go on from one another: what is put together for one request, and remembered, is bounded."""

from __future__ import annotations

import time
import zlib
from array import array
from dataclasses import replace

import pytest

from firsthand.errors import StoreError
from firsthand.message import Sampled, assistant
from firsthand.model import Completion, Usage
from firsthand.providers import cached
from firsthand.providers.cached import MemoryStore, Replies

ANSWER = Completion(
    replace(assistant("a"), sampled=Sampled(token_ids=(1,), logprobs=(0.0,))), "stop", Usage(1, 0, 1)
).to_json()


def chain(base: int, links: int) -> MemoryStore:
    """Replies `k0` to `k{links}`, each of which goes on from the one before; the first has `base` ids."""
    store, ids = MemoryStore(), array("q", [7]) * base
    store.replies["k0"] = {
        "completions": [ANSWER],
        "prompt": {"ids": ids.tolist(), "check": zlib.crc32(ids.tobytes())},
    }
    for link in range(1, links + 1):
        ids.append(1)
        prompt = {"ids": [], "check": zlib.crc32(ids.tobytes()), "after": f"k{link - 1}", "sample": 0, "kept": len(ids)}
        store.replies[f"k{link}"] = {"completions": [ANSWER], "prompt": prompt}
    return store


def test_the_last_turn_of_a_long_conversation_has_its_ids() -> None:
    [found] = Replies(chain(100, 60)).find("k60", 1) or []
    assert found.prompt_ids == (7,) * 100 + (1,) * 60


def test_ids_that_are_remembered_are_bounded_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "MAX_KNOWN_IDS", 1_000)
    replies = Replies(chain(100, 60))
    [found] = replies.find("k60", 1) or []
    assert found.prompt_ids == (7,) * 100 + (1,) * 60, "the chain is put together all the same"
    held = sum(map(len, replies._ids.values()))
    assert held == replies._count and 0 < held <= 1_000
    replies.find("k60", 1)
    assert sum(map(len, replies._ids.values())) == replies._count, "one that is remembered again counts once"


def test_a_chain_is_put_together_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sum(100 + link for link in range(60))
    for bound, is_known in ((whole, True), (whole - 1, False)):
        monkeypatch.setattr(cached, "MAX_CHAIN_IDS", bound)
        [found] = Replies(chain(100, 60)).find("k60", 1) or []
        assert (found.prompt_ids is not None) == is_known and found.message.text == "a"


def test_the_chains_of_a_store_have_a_bound_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sum(100 + link for link in range(60))
    for bound, is_known in ((2 * whole, True), (2 * whole - 1, False)):
        monkeypatch.setattr(cached, "MAX_STORE_IDS", bound)
        replies = Replies(chain(100, 60))
        for _ in range(2):
            replies._ids.clear()
            replies._count = 0
            [found] = replies.find("k60", 1) or []
        assert (found.prompt_ids is not None) == is_known and found.message.text == "a"


def test_links_that_keep_a_part_or_are_others_are_told_by_their_checksums() -> None:
    store = chain(5, 2)
    ids = array("q", [7] * 4 + [9])
    last = {"ids": [9], "check": zlib.crc32(ids.tobytes()), "after": "k2", "sample": 0, "kept": 4}
    store.replies["k3"] = {"completions": [ANSWER], "prompt": last}
    ids.append(1)
    on = {"ids": [], "check": zlib.crc32(ids.tobytes()), "after": "k3", "sample": 0, "kept": 6}
    store.replies["k4"] = {"completions": [ANSWER], "prompt": on}
    [found] = Replies(store).find("k4", 1) or []
    assert found.prompt_ids == (7, 7, 7, 7, 9, 1)
    store.replies["k0"]["prompt"]["ids"][4] = 8
    [found] = Replies(store).find("k4", 1) or []
    assert found.prompt_ids is None, "an earlier reply is another one"
    store = chain(5, 2)
    store.replies["k2"]["prompt"]["sample"] = 1
    [found] = Replies(store).find("k2", 1) or []
    assert found.prompt_ids is None, "no answer has this number"


def test_a_link_costs_the_ids_that_it_adds() -> None:
    began = time.process_time()
    [found] = Replies(chain(400_000, 60)).find("k60", 1) or []
    assert len(found.prompt_ids or ()) == 400_060 and time.process_time() - began < 3


def test_a_chain_has_a_number_of_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "MAX_KNOWN", 20)
    for links, is_known in ((20, True), (21, False)):
        [found] = Replies(chain(5, links)).find(f"k{links}", 1) or []
        assert (found.prompt_ids is not None) == is_known


def test_a_reply_that_keeps_fewer_than_no_ids_is_damaged() -> None:
    store = chain(5, 2)
    store.replies["k1"]["prompt"]["kept"] = -1
    with pytest.raises(StoreError, match="the store is damaged"):
        Replies(store).find("k2", 1)
