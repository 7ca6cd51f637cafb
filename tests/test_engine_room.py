"""Memory that is not there is told before it is taken: what an engine may have of this machine, and of a container in it."""

import os
import tracemalloc
from pathlib import Path

import pytest
import torch

from engine_tiny import tiny_engine, tiny_model
from firsthand.engine.compute.devices import explain_out_of_memory
from firsthand.engine.compute.runner import Runner
from firsthand.engine.memory.available_memory import free_bytes
from firsthand.errors import ConfigError, ModelError


def test_more_memory_than_is_free_is_refused_with_both_numbers_before_anything_is_made() -> None:
    free = free_bytes()
    assert free is not None
    for asked in (2 * free, 10**15, 10**18):  # a list with an entry for each block would end the process
        tracemalloc.start()
        try:
            with pytest.raises(ConfigError, match=rf"kv_memory_bytes is {asked:,} and [\d,]+ bytes of memory are free"):
                tiny_engine(kv_memory_bytes=asked)
            assert tracemalloc.get_traced_memory()[1] < 1 << 26
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_an_allocator_that_gives_no_memory_is_an_error_of_the_model_in_words(dtype: torch.dtype) -> None:
    with pytest.raises(ModelError, match=r"no memory for a KV cache of 1099511627776 blocks: .*allocate"):
        Runner(tiny_model(), num_blocks=1 << 40, block_size=16, kv_dtype=dtype)


def test_other_errors_of_torch_are_left_as_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"size mismatch|cannot be multiplied"), explain_out_of_memory("a product"):
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_control_groups_lower_what_is_free(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:   5000 kB\n")
    assert free_bytes(tmp_path) == 5000 * 1024
    write("proc/self/cgroup", "0::/pods/mine\n")
    assert free_bytes(tmp_path) == 5000 * 1024, "a group whose files are not here limits nothing"
    write("sys/fs/cgroup/pods/mine/memory.max", "max\n")
    write("sys/fs/cgroup/pods/mine/memory.current", "100\n")
    assert free_bytes(tmp_path) == 5000 * 1024
    write("sys/fs/cgroup/pods/memory.max", "3000\n")
    write("sys/fs/cgroup/pods/memory.current", "2900\n")
    write("sys/fs/cgroup/pods/memory.stat", "anon 500\ninactive_file 900\n")
    assert free_bytes(tmp_path) == 1000, "the group above has a limit, and lets go of files first"
    write("sys/fs/cgroup/pods/memory.max", "max\n")
    write("proc/self/cgroup", "0::/pods/mine/of/my/own\n")
    write("sys/fs/cgroup/pods/mine/memory.max", "800\n")
    assert free_bytes(tmp_path) == 700, "and one three groups above"
    write("sys/fs/cgroup/memory.max", "900\n")
    write("sys/fs/cgroup/memory.current", "350\n")
    assert free_bytes(tmp_path) == 550, "to the root, where a container's own group is mounted"
    write("sys/fs/cgroup/memory.max", "max\n")
    write("proc/self/cgroup", "4:cpu,memory:/old\n1:cpuset:/\n")
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "4000\n")
    assert free_bytes(tmp_path) == 5000 * 1024
    write("sys/fs/cgroup/memory/old/memory.limit_in_bytes", "4000\n")
    write("sys/fs/cgroup/memory/old/memory.usage_in_bytes", "9000\n")
    assert free_bytes(tmp_path) == 0
    write("sys/fs/cgroup/memory/old/memory.stat", "inactive_file 1\ntotal_inactive_file 5700\n")
    assert free_bytes(tmp_path) == 700, "version 1 counts the files of the groups below by another name"
    for damaged in ("", "\n", "x", "0:memory", "4:memory:/\0"):
        write("proc/self/cgroup", damaged)
        assert free_bytes(tmp_path) == 5000 * 1024
    write("proc/meminfo", "MemAvailable: many kB\n")
    assert (free_bytes(tmp_path) or 1) > 0, "then what POSIX says is taken"
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert 0 < (free_bytes(tmp_path) or 0) < whole, "of the pages those that are free"
