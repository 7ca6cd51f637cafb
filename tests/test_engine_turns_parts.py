"""Owners' turns, plans, merged outputs, pools, memory, adapters and settings of the engine, to the last number."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine_tiny import tiny_model
from firsthand.engine.compute.adapter_slots import AdapterSlots, check_adapter_name
from firsthand.engine.compute.devices import explain_out_of_memory, kv_bytes_on, pick_device
from firsthand.engine.compute.packing import fitting_state, kv_dtype
from firsthand.engine.core.engine_config import EngineConfig, default_kv_bytes
from firsthand.engine.core.outputs import Output, join_outputs, score_output
from firsthand.engine.core.request_queue import Heap, WaitingQueue
from firsthand.engine.core.sequence import Sequence, SequenceChunk
from firsthand.engine.core.step_plan import StepPlan
from firsthand.engine.memory.available_memory import free_bytes
from firsthand.engine.memory.blocks import BlockCopy, BlockPool
from firsthand.engine.memory.pinned_prefixes import PinnedPrefixes
from firsthand.engine.memory.window_pool import divide, open_pool
from firsthand.errors import ConfigError, ModelError


def sequence(id: int, count: int = 4, **fields: Any) -> Sequence:
    return Sequence(id, 0, list(range(count)), count, **fields)


def test_the_least_served_owner_is_first_and_a_pause_earns_nothing() -> None:
    queue = WaitingQueue()
    a, b, c = (sequence(id, owner=owner) for id, owner in ((1, "a"), (2, "b"), (3, "a")))
    for each in (a, c, b):
        queue.add(each)
    assert queue.first() is a and len(queue) == 3 and b in queue
    queue.start(a)
    queue.charge(a, 4)
    queue.charge(a, 3)
    assert a not in queue and queue.num_running(c) == 1 and a.num_charged == 4
    assert queue.order(c) == (0, 4, 3, 3, 0) and queue.order(b) == (0, 0, 2, 2, 0)
    assert queue.first() is b
    queue.start(b)
    queue.charge(b, 9)
    assert queue.first() is c
    d = sequence(4, owner="d")
    queue.add(d)
    assert queue.order(d)[1] == 4, "a newcomer is credited with the least served waiting owner"
    queue.stop(b)
    e = sequence(5, owner="b")
    queue.add(e)
    assert queue.order(e)[1] == 9, "what it had beyond its share is remembered"
    queue.discard(c)
    queue.discard(c)
    queue.put_back(a)
    assert queue.num_running(a) == 0 and a in queue and set(queue) == {a, d, e}
    urgent = sequence(6, owner="z", priority=-1)
    queue.add(urgent)
    assert queue.first() is urgent


def test_a_heap_gives_the_smallest_key_that_is_still_there() -> None:
    heap: Heap[str] = Heap()
    for item, key in (("a", 3.0), ("b", 2.0), ("c", 4.0)):
        heap.push(item, (key,))
    heap.push("b", (5.0,))
    assert (heap.first(), heap.key("b"), len(heap), "c" in heap, sorted(heap)) == (
        "a",
        (5.0,),
        3,
        True,
        ["a", "b", "c"],
    )
    heap.remove("a")
    heap.remove("a")
    assert heap.first() == "c"
    for _ in range(300):
        heap.push("c", (9.0,))
    assert heap.first() == "b" and len(heap._entries) <= 2 * 2 + 65
    for item in ("b", "c"):
        heap.remove(item)
    assert heap.first() is None and len(heap) == 0


def test_a_plan_loses_a_preempted_sequence_and_keeps_its_copies() -> None:
    plan, one, two = StepPlan(), sequence(0), sequence(1)
    plan.add(SequenceChunk(one, 0, 4), [BlockCopy(1, 2)])
    plan.add(SequenceChunk(two, 1, 4), [])
    plan.add(SequenceChunk(one, 4, 5), [BlockCopy(3, 4)])
    assert plan.num_tokens == 8
    plan.drop(one)
    assert [chunk.sequence for chunk in plan.chunks] == [two] and plan.num_tokens == 3
    assert plan.copies == [BlockCopy(1, 2), BlockCopy(3, 4)]


def test_outputs_of_one_answer_in_a_row_are_one() -> None:
    def out(id: int, index: int, *tokens: int, greedy: bool = True, **more: Any) -> Output:
        logprobs = tuple(-float(token) for token in tokens)
        return Output(id, index, tokens, logprobs, greedy, behaviour_logprobs=logprobs, **more)

    error = ModelError("x")
    parts = [
        out(0, 0, 1, top_logprobs=(((1, -1.0),),)),
        out(0, 0, 2, greedy=False, top_logprobs=(((2, -2.0),),), finish_reason="stop"),
        out(0, 1, 3), out(1, 1, 4), out(1, 1, error=error), out(0, 0, 5),
    ]  # fmt: skip
    joined = join_outputs(parts)
    assert joined[0] == Output(
        0, 0, (1, 2), (-1.0, -2.0), False, (((1, -1.0),), ((2, -2.0),)), "stop", behaviour_logprobs=(-1.0, -2.0)
    )
    assert joined[1:] == parts[2:] and join_outputs([]) == []
    scored = score_output(
        Output(
            0,
            0,
            (1,),
            (-0.5,),
            True,
            (((1, -0.5),),),
            "stop",
            prompt_tokens=4,
            cached_tokens=3,
            version=2,
            distribution=np.zeros(2),
        )
    )
    assert (scored.logprobs, scored.is_greedy, scored.prompt_tokens, scored.cached_tokens) == ((-0.5,), True, 4, 3)
    assert (scored.top_logprobs, scored.version) == ((((1, -0.5),),), 2) and scored.distribution is not None
    with pytest.raises(ModelError, match="x"):
        score_output(parts[4])
    assert [each.is_last for each in (parts[0], parts[1], parts[4])] == [False, True, True]


def test_the_pools_are_divided_to_the_last_block() -> None:
    small = EngineConfig(max_batch_tokens=8, max_sequences=4)

    def opened(windows: Any, memory: int, config: EngineConfig | None = None, **more: Any) -> Any:
        options = {"layer_bytes": 100, "extra_bytes": 10, "max_position": 256, **more}
        made = open_pool(windows, config or EngineConfig(), memory_bytes=memory, **options)
        return tuple((part.num_blocks, part.window) for part in made.pools)

    assert opened((None, 32), 100_000) == ((740, None), (185, 32))
    assert opened((None, 32), 100_000, small) == ((879, None), (33, 32))
    assert opened((None, 32), 420, small) == ((2, None), (2, 32))
    assert opened((None, 64, 32), 100_000, small)[1] == (2 * 4 * (4 + 2) + 1, 64), "the widest window counts"
    assert opened((32, 16), 2100) == ((10, 32),) and opened((None, None), 2100) == ((10, None),)
    assert [window for _, window in opened((256, 255), 2100)] == [None, 255] and opened((256, None), 2100) == (
        (10, None),
    )
    assert opened((None, None), 2100, free_bytes=2100) == ((10, None),)
    for memory, more, said in (
        (419, {}, "a block of 16 tokens takes 210 bytes, and the engine needs two or more"),
        (2100, {"free_bytes": 2099}, "kv_memory_bytes is 2,100 and 2,099 bytes of memory are free"),
    ):
        with pytest.raises(ConfigError, match=said):
            opened((None, 32), memory, **more)
    assert divide(1000, 10, 5, alone=3, useful=100) == (89, 22) and divide(1000, 10, 5, alone=30, useful=100) == (
        85,
        30,
    )
    assert divide(1000, 10, 5, alone=30, useful=7) == (96, 7) and divide(60, 10, 5, alone=30, useful=70) == (4, 4)


def test_blocks_are_counted_by_what_they_need_and_what_is_left() -> None:
    pool = BlockPool(8, 4)
    table: list[int] = []
    assert pool.extend(table, 0, 9) == [] and len(table) == 3 and pool.blocks_for(8) == 2 and pool.blocks_for(9) == 3
    pool.commit(list(range(9)), table, 0, 9)
    pool.keep(list(range(9)), table, 9, note=5)
    fork = pool.fork(table)
    assert pool.needed(fork, 8, 9) == 1 and pool.needed(fork, 4, 13) == 2 + 1 and pool.num_used == 3
    assert pool.extend(fork, 0, 8 * 4 + 1) is None and pool.num_used == 3
    copies = pool.extend(fork, 9, 10)
    assert copies == [BlockCopy(table[2], fork[2])] and fork[2] not in table
    pool.release(fork)
    pool.release(table)
    assert (pool.num_cached, pool.num_available, pool.num_used) == (3, 8, 0)
    found = pool.find(range(9))
    assert (found.num_tokens, found.note, len(found.blocks)) == (9, 5, 3) and pool.match(range(9)) == table[:2]
    assert pool.find([*range(8), 99]).note is None and pool.find(range(6)).num_tokens == 6
    assert pool.num_available_without(found.blocks) == 5
    pins = PinnedPrefixes(pool)
    prefix = pins.add(list(range(9)))
    assert (prefix.num_tokens, pins.num_blocks, len(pins)) == (9, 3, 1)
    again = pins.add(list(range(4)), None)
    assert (pins.num_blocks, len(pins)) == (3, 2), "a block is counted once"
    pins.release(prefix)
    assert (pins.num_blocks, prefix.is_pinned, again.is_pinned) == (1, False, True)
    pins.drop_adapter(3)
    assert again.is_pinned and pins.drop_oldest() and not pins.drop_oldest()
    pool.check()


def test_memory_is_what_the_tightest_group_leaves(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    write("proc/meminfo", "MemTotal: 900 kB\nMemFree: 5 kB\nMemAvailable: 700 kB\n")
    assert free_bytes(tmp_path) == 700 * 1024
    write("proc/self/cgroup", "0::/a/b\n")
    write("sys/fs/cgroup/a/b/memory.max", "max")
    write("sys/fs/cgroup/a/memory.max", "500000")
    write("sys/fs/cgroup/a/memory.current", "200000")
    write("sys/fs/cgroup/a/memory.stat", "active_file 7\ninactive_file 1000\n")
    assert free_bytes(tmp_path) == 301_000
    write("sys/fs/cgroup/a/memory.current", "600000")
    assert free_bytes(tmp_path) == 0
    write("proc/self/cgroup", "5:cpu,memory:/x\n4:cpu:/a\n")
    write("sys/fs/cgroup/memory/x/memory.limit_in_bytes", str(1 << 60))
    write("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "1")
    assert free_bytes(tmp_path) == 700 * 1024, "a number that large is no limit"
    write("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "400000")
    write("sys/fs/cgroup/memory/x/memory.stat", "total_inactive_file 11\ninactive_file 99\n")
    assert free_bytes(tmp_path) == 400_010
    assert 0 < default_kv_bytes() <= 2 << 30


def test_memory_on_a_gpu_is_half_of_what_is_free_and_devices_are_named() -> None:
    import torch

    class Gpu:
        def mem_get_info(self, device: Any) -> tuple[int, int]:
            return 1001, 5000

    assert kv_bytes_on(torch.device("cuda"), Gpu()) == 500
    assert pick_device("cpu") == "cpu" and pick_device("auto") in ("cpu", "cuda")
    for raised, expected in ((MemoryError("no\nmore"), ModelError), (RuntimeError("DefaultCPUAllocator: no"), ModelError),
                             (RuntimeError("other"), RuntimeError), (MemoryError(), ModelError)):  # fmt: skip
        with pytest.raises(expected) as caught, explain_out_of_memory("a cache"):
            raise raised
        if expected is ModelError:
            said = str(raised).partition("\n")[0] or "MemoryError"
            assert str(caught.value) == f"there is no memory for a cache: {said}"


def test_keys_and_values_are_rounded_where_the_weights_are() -> None:
    import torch

    embed, half = torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16)
    auto = EngineConfig()
    assert kv_dtype(auto, "float16", embed) == kv_dtype(auto, "int8", embed) == torch.float16
    assert kv_dtype(auto, "float32", embed) == torch.float32 and kv_dtype(auto, "float16", half) == torch.bfloat16
    for name in ("float32", "float16", "int8"):
        assert kv_dtype(EngineConfig(kv_cache=name), "float32", half) == getattr(torch, name)  # type: ignore[arg-type]
    model = tiny_model()
    state = dict(model.state_dict())
    state.pop("lm_head.weight", None)
    fitted = fitting_state(state, model)
    assert fitted["lm_head.weight"] is state["embed.weight"] and "lm_head.weight" not in state
    for change, said in (
        ({"extra": embed}, "1 tensors are missing, unknown or of another shape, the first is 'extra'"),
        ({"embed.weight": embed}, "2 tensors .*'embed.weight'"),
    ):
        with pytest.raises(ConfigError, match=said):
            fitting_state({**state, **change}, model)


def packed(size: int) -> Any:
    return SimpleNamespace(size_bytes=size)


def test_adapters_have_room_by_number_and_bytes_and_leave_with_their_last_sequence() -> None:
    room = EngineConfig(max_adapters=2, adapter_memory_bytes=10)
    slots = AdapterSlots(None, room, tiles_of=None)  # type: ignore[arg-type]
    assert slots.add("a", packed(6), 3) is None and slots.versions == {"a": 3} and slots.size_bytes == 6
    with pytest.raises(ConfigError, match="'b' of 5 bytes: 1 take 6 bytes; unload one"):
        slots.add("b", packed(5), 0)
    assert slots.add("b", packed(4), 0) is None
    with pytest.raises(ConfigError, match="an adapter 'a' is loaded already"):
        slots.add("a", packed(1), 0)
    with pytest.raises(
        ConfigError, match=r"no room for the adapter 'c' of 0 bytes: 2 take 10 bytes.*max_adapters \(2\)"
    ):
        slots.add("c", packed(0), 0)
    old = slots.get("a")
    assert slots.add("a", packed(6), 4, replace=True) is old and old.is_leaving and len(slots) == 2
    used = slots.get("a")
    assert (used.id, used.version, slots.get("b").id) == (3, 4, 2)
    slots.enter(used, 2)
    with pytest.raises(ConfigError, match="no room"):
        slots.add("a", packed(0), 5, replace=True)
    assert slots.remove("b") is not None and slots.size_bytes == 6
    assert slots.add("a", packed(4), 5, replace=True) is None and (len(slots), slots.size_bytes) == (2, 10)
    with pytest.raises(ConfigError, match="2 take 10 bytes, 1 of them unloaded but in use by requests"):
        slots.add("d", packed(0), 0)
    assert slots.leave(used) is None and slots.leave(used) is used and len(slots) == 1
    with pytest.raises(ConfigError, match="no adapter 'b' is loaded: there are a"):
        slots.get("b")
    new = slots.get("a")
    slots.enter(new, 1)
    assert slots.leave(new) is None and slots.remove("a") is new and len(slots) == 0
    for name, fine in (
        ("a.B_1@:/+-", True),
        ("x" * 256, True),
        ("x" * 257, False),
        ("", False),
        ("a b", False),
        (3, False),
        ("é", False),
    ):
        if fine:
            check_adapter_name(name)
        else:
            with pytest.raises(ConfigError, match="an adapter's name is"):
                check_adapter_name(name)


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("block_size", (1, 1024), (0, 1025)), ("max_batch_tokens", (65,), (64,)), ("max_waiting", (1,), (0,)),
        ("max_live_tokens", (1,), (0,)), ("kv_memory_bytes", (None, 1), (0,)),
        ("device", ("cpu", "cuda", "cuda:0"), ("gpu", "cuda:")),
        ("threads", (None, 1, 1024), (0, 1025)), ("draft_tokens", (1, 256), (0, 257)), ("max_adapters", (0,), (-1,)),
        ("max_adapter_rank", (1, 4096), (0, 4097)), ("adapter_memory_bytes", (1, (1 << 62) - 1), (0, 1 << 62)),
        ("speculate_below", (0,), (-1,)),
    ],
)  # fmt: skip
def test_a_setting_of_the_engine_is_checked_at_both_ends(name: str, good: Any, bad: Any) -> None:
    for value in good:
        assert getattr(EngineConfig(**{name: value}), name) == value
    for value in bad:
        with pytest.raises(ConfigError, match=f"{name} is "):
            EngineConfig(**{name: value})
