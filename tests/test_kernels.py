import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from firsthand.kernels.attention.paged_attention import (
    PARALLEL_FROM,
    Layout,
    PackedChunk,
    Pages,
    attend_pages,
    can_compile,
    compiled_attention,
    gather_attention,
)

torch.set_num_threads(1)
SPANS = [(0, 50), (3, 4), (100, 117), (63, 64), (15, 17), (200, 201)]
HISTORY = 256


class Memory:
    """Sequences whose earlier keys and values lie in shuffled blocks; unused memory is NaN."""

    def __init__(self, spans: list[tuple[int, int]], *, heads: int, kv: int, dim: int, block: int = 16, seed: int = 0):
        random = torch.Generator().manual_seed(seed)
        self.block = block
        self.q = [torch.randn(HISTORY, heads, dim, generator=random) for _ in spans]
        self.k = [torch.randn(HISTORY, kv, dim, generator=random) for _ in spans]
        self.v = [torch.randn(HISTORY, kv, dim, generator=random) for _ in spans]
        each = -(-HISTORY // block)
        self.pages = Pages.empty(each * len(spans), kv, block, dim, torch.float32, torch.device("cpu"))
        self.pages.keys.fill_(torch.nan)
        self.pages.values.fill_(torch.nan)
        order = torch.randperm(each * len(spans), generator=torch.Generator().manual_seed(seed + 1)).tolist()
        self.tables = [order[i * each : (i + 1) * each] for i in range(len(spans))]

    def run(self, spans: list[tuple[int, int, int]], attend=attend_pages, window=None, threads=1) -> torch.Tensor:
        """Attend for (sequence, start, end) of each span, all packed together."""
        layout = Layout([PackedChunk(a, b, self.tables[i]) for i, a, b in spans], self.block, threads)
        q, k, v = (torch.cat([x[i][a:b] for i, a, b in spans]) for x in (self.q, self.k, self.v))
        return attend(q, k, v, self.pages, layout, scale=0.3, window=window)


SHAPES = [
    {"heads": 9, "kv": 3, "dim": 64},
    {"heads": 4, "kv": 4, "dim": 40},
    {"heads": 14, "kv": 2, "dim": 16, "block": 32},
    {"heads": 5, "kv": 1, "dim": 128},
]


@pytest.mark.parametrize("window", [None, 1, 7, 40])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_compiled_version_equals_the_plain_one(shape: dict[str, int], window: int | None) -> None:
    spans = [(i, a, b) for i, (a, b) in enumerate(SPANS)]
    results = []
    for attend in (compiled_attention, gather_attention):
        memory = Memory(SPANS, **shape)
        memory.run([(i, 0, a) for i, (a, _) in enumerate(SPANS) if a], attend, window)
        results.append(memory.run(spans, attend, window))
    assert torch.isfinite(results[0]).all()
    assert torch.allclose(*results, atol=2e-5)


def test_the_plain_version_is_softmax_attention() -> None:
    memory = Memory([(0, 20)], heads=2, kv=1, dim=8, block=4)
    got = memory.run([(0, 0, 20)], gather_attention, window=6)
    q, k, v = (x[0][:20].double() for x in (memory.q, memory.k, memory.v))
    for t in range(20):
        seen = slice(max(0, t - 5), t + 1)
        for head in range(2):
            weights = (k[seen, 0] @ q[t, head] * 0.3).softmax(0)
            assert torch.allclose(got[t, head].double(), weights @ v[seen, 0], atol=1e-6)


@pytest.mark.parametrize("window", [None, 21])
@pytest.mark.parametrize("shape", SHAPES)
def test_neither_company_nor_chunks_nor_blocks_nor_threads_change_a_bit(
    shape: dict[str, int], window: int | None
) -> None:
    whole = Memory([(0, 0)] * 3, **shape).run([(0, 0, 150)], window=window)
    for seed_of_tables in (0, 5):
        memory = Memory([(0, 0)] * 3, **shape)
        if seed_of_tables:
            memory.tables = [memory.tables[2][::-1], memory.tables[0], memory.tables[1]]
        parts, start = [], 0
        for size in (1, 1, 40, 3, 16, 17, 31, 1, 40):
            part = memory.run(
                [(1, 0, 2 + start), (0, start, start + size), (2, start, start + 1)],
                window=window,
                threads=1 + size % 3,
            )
            parts.append(part[2 + start : 2 + start + size])
            start += size
        assert torch.equal(torch.cat(parts), whole)


def test_work_shared_by_threads_gives_the_same_bits() -> None:
    shape = {"heads": 64, "kv": 2, "dim": 16}
    assert PARALLEL_FROM < 64 * 256 * 255 // 2
    one = Memory([(0, 0)], **shape).run([(0, 0, 256)], threads=1)
    three = Memory([(0, 0)], **shape).run([(0, 0, 256)], threads=3)
    assert torch.equal(one, three)


def test_large_and_small_scores_neither_overflow_nor_vanish() -> None:
    results = []
    for attend in (compiled_attention, gather_attention):
        memory = Memory([(0, 0)], heads=2, kv=1, dim=16)
        memory.k[0] *= torch.linspace(0, 200, HISTORY)[:, None, None]
        results.append(memory.run([(0, 0, 200)], attend))
    assert torch.isfinite(results[0]).all()
    assert torch.allclose(*results, atol=1e-4)


@pytest.mark.parametrize("where", ["q", "k", "v"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_shows_in_its_own_sequence_and_nowhere_else(where: str, value: float) -> None:
    spans = [(0, 0, 20), (1, 0, 20)]
    expected = Memory([(0, 0)] * 2, heads=4, kv=2, dim=16).run(spans)
    memory = Memory([(0, 0)] * 2, heads=4, kv=2, dim=16)
    getattr(memory, where)[0][10] = value
    got = memory.run(spans)
    assert not torch.isfinite(got[10]).any()
    assert torch.equal(got[:10], expected[:10]) and torch.equal(got[20:], expected[20:])


def test_other_caches_go_through_the_plain_version() -> None:
    cpu = torch.device("cpu")
    for dtype in (torch.float32, torch.float16, torch.int8):
        assert can_compile(Pages.empty(2, 1, 16, 8, dtype, cpu), 16)
    assert not can_compile(Pages.empty(2, 1, 16, 8, torch.bfloat16, cpu), 16)
    assert not can_compile(Pages.empty(2, 1, 8, 8, torch.float32, cpu), 8)


def test_compiled_code_lies_on_disk_before_the_index_names_it_and_old_code_goes(tmp_path: Path) -> None:
    jit = pytest.importorskip("firsthand.kernels.jit")

    class Watched(jit.CodeFiles):
        def _save_index(self, overloads: dict[str, str]) -> None:
            assert all((tmp_path / name).exists() for name in overloads.values())
            super()._save_index(overloads)

    one, other = (Watched(str(tmp_path), "run-1.py311", "today") for _ in range(2))  # two processes
    one.save("float32", b"code for float32")
    other.save("int8", b"code for int8")
    assert one.load("int8") == b"code for int8" and other.load("float32") == b"code for float32"
    assert len(list(tmp_path.glob("*.nbc"))) == 2
    new = Watched(str(tmp_path), "run-1.py311", "tomorrow")
    assert new.load("float32") is None, "code of another day is not run"
    new.save("float32", b"new code")
    assert new.load("float32") == b"new code" and len(list(tmp_path.glob("*.nbc"))) == 1


class Gone:
    """A class that cached code of an older version names."""


def test_a_cache_that_names_a_class_which_is_gone_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jit = pytest.importorskip("firsthand.kernels.jit")
    files = jit.CodeFiles(str(tmp_path), "run-1.py311", "today")
    files.save((Gone,), b"code")
    assert files.load((Gone,)) == b"code"
    monkeypatch.delattr(sys.modules[__name__], "Gone")
    assert files.load("int8") is None
    files.save("int8", b"new code")
    assert files.load("int8") == b"new code"


SIBLINGS = """
import sys
from firsthand.kernels import jit

def make(number):
    @jit.called
    @jit.named(f"add_{number}")
    def add(x):
        total = x
        for i in range(1000):
            for j in range(i, 1000):  # too much for LLVM to put it in place of its calls
                if total > i * j + x:
                    total = total // 3 + j + number
                elif total < -i:
                    total = total * 5 - j
        return total * 1000000 + x * 1000 + number
    return add

one, two = make(1), make(2)

@jit.kernel
def use_one(x):
    return one(x)

@jit.kernel
def use_two(x):
    return two(x)

print(*(globals()[name](10) for name in sys.argv[1:]))
"""


@pytest.mark.slow
def test_code_from_the_cache_of_another_process_calls_its_own_siblings(tmp_path: Path) -> None:
    """The second process compiles `two` as the first compiled `one`: first of all. Only names can tell them apart."""
    (tmp_path / "siblings.py").write_text(SIBLINGS)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run(*names: str) -> str:
        command = [sys.executable, "siblings.py", *names]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    [alone] = run("use_one").split()
    two, one = run("use_two", "use_one").split()
    assert one == alone and two != one


def test_functions_of_a_factory_must_be_named() -> None:
    jit = pytest.importorskip("firsthand.kernels.jit")

    def nameless(x: int) -> int:
        return x

    for make in (jit.called, jit.kernel):
        with pytest.raises(AssertionError, match="needs a name of its own"):
            make(nameless)
    jit.called(jit.named("a_name_of_its_own")(nameless))


def test_a_kernel_that_cannot_be_cached_is_compiled_all_the_same(caplog):
    from firsthand.kernels.jit import kernel

    there: dict = {}
    exec(compile("def doubled_without_a_file(x):\n    return 2 * x\n", "<no file>", "exec"), there)
    with caplog.at_level("INFO", logger="firsthand"):
        assert kernel(there["doubled_without_a_file"])(21) == 42
    assert "set NUMBA_CACHE_DIR" in caplog.text
