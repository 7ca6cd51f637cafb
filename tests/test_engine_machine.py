"""What this machine is and how fast: real measurements, short, and their memory on disk."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from firsthand.measure import machine, machine_speeds
from firsthand.measure.machine_speeds import Speeds, faster_of


def test_a_machine_is_described_the_same_each_time() -> None:
    first, second = machine.describe(), machine.describe()
    assert first.key == second.key and len(first.key) == 16
    assert first.cores == len(os.sched_getaffinity(0)) and first.memory_bytes > 1 << 28
    assert dict(first.versions)["torch"].partition("+")[0] == torch.__version__.partition("+")[0]  # of CUDA, `+cu130`
    assert first.cpu in first.line() and json.loads(json.dumps(first.to_json()))["key"] == first.key


def test_other_hardware_has_another_key() -> None:
    here = machine.describe()
    other = machine.Machine("other", here.cores, here.flags, here.memory_bytes, here.system, here.versions, here.load)
    same_but_busy = machine.Machine(here.cpu, here.cores, here.flags, here.memory_bytes, "x", (), 1e3)
    assert other.key != here.key == same_but_busy.key and same_but_busy.is_busy


@pytest.mark.slow
def test_more_bytes_take_longer_so_memory_is_truly_read() -> None:
    small, large = (machine_speeds.measure_bandwidth(1, size_bytes=size, trials=3) for size in (1 << 24, 1 << 27))
    assert 0.2 < small < 10_000 and 0.2 < large < 10_000  # GB/s; a pass that skips reading would be far beyond
    assert large < 20 * small


def test_products_are_measured_and_torch_keeps_its_threads() -> None:
    torch.set_num_threads(1)
    found = machine_speeds.measure_products(2, size=128, trials=2)
    assert found["float32_gflop_s"] > 0.01 and set(found) <= {"float32_gflop_s", "bfloat16_gflop_s", "int8_gop_s"}
    assert torch.get_num_threads() == 1


def test_a_product_that_would_take_long_is_measured_by_a_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []
    slow = {"float32_gflop_s": 0.007, "bfloat16_gflop_s": 0.008}  # of a quarter of the size: 64 of these, a whole one

    def products(size: int) -> list[tuple[str, Any]]:
        return [(name, lambda _, name=name: made.append((name, size))) for name in slow]

    def best_of(work: Callable[[], object], trials: int) -> float:
        work()
        name, size = made[-1]
        return slow[name] if size == 128 else 0.5

    monkeypatch.setattr(machine_speeds, "_torch_products", products)
    monkeypatch.setattr(machine_speeds, "best_of", best_of)
    found = machine_speeds.measure_products(1, size=512)
    assert made[-2:] == [("float32_gflop_s", 512), ("bfloat16_gflop_s", 128)]
    assert found == {
        "float32_gflop_s": pytest.approx(2 * 512**3 / 1e9 / 0.5), "bfloat16_gflop_s": 2 * 128**3 / 1e9 / 0.008,
    }  # fmt: skip
    made.clear()
    machine_speeds.measure_products(1, size=508)
    assert {size for _, size in made} == {508}, "small ones are quick in any case"


def test_our_own_products_count_too() -> None:
    pytest.importorskip("numba")
    values = machine_speeds._our_product(64)(None)
    assert isinstance(values, np.ndarray) and values.shape == (64, 64) and np.allclose(values, 64, rtol=0.01)
    assert machine_speeds.measure_products(1, size=128, trials=2, ours=True)["int8_gop_s"] > 0.01


def test_each_number_of_threads_has_its_try() -> None:
    assert [machine_speeds.counts(threads) for threads in (1, 2, 3, 4, 6)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4],
        [1, 2, 4, 6],
    ]


@pytest.mark.slow
def test_what_is_below_a_benchmarks_figure_is_measured_again(tmp_path: Path) -> None:
    here = machine.describe()
    path = tmp_path / "machine" / f"{here.key}-1.json"
    known = Speeds(1, read_gb_s=1e-6, float32_gflop_s=1e6, load=0.0)
    machine_speeds._write(path, here, known)
    assert machine_speeds.speeds(1, home=tmp_path) == known  # nothing speaks against it
    assert machine_speeds.speeds(1, at_least={"read_gb_s": 1e-7}, home=tmp_path) == known
    os.utime(path, (0, 0))
    again = machine_speeds.speeds(1, at_least={"read_gb_s": 1e-3}, home=tmp_path)
    assert again.read_gb_s > 1e-3 and again.float32_gflop_s == 1e6  # the better of each is kept
    assert machine_speeds.speeds(1, at_least={"int8_gop_s": 1e9}, home=tmp_path) == again  # asked again too soon


def test_what_is_remembered_only_grows(tmp_path: Path) -> None:
    slow, fast = Speeds(1, 1.0, 5.0, None, 7.0, load=0.1), Speeds(1, 2.0, 4.0, 3.0, None, load=9.0)
    assert machine_speeds.save_speeds(slow, home=tmp_path) == slow
    both = machine_speeds.save_speeds(fast, home=tmp_path)
    assert both == faster_of(slow, fast) == Speeds(1, 2.0, 5.0, 3.0, 7.0, load=0.1)
    assert machine_speeds.save_speeds(slow, home=tmp_path) == both


def test_the_best_trial_counts_and_the_first_does_not() -> None:
    calls: list[int] = []
    assert machine_speeds.best_of(lambda: calls.append(1), 4) >= 0 and len(calls) == 5


@pytest.mark.slow
def test_speeds_are_measured_once_and_damage_is_measured_again(tmp_path: Path) -> None:
    first = machine_speeds.speeds(1, home=tmp_path)
    [path] = (tmp_path / "machine").glob("*.json")
    assert first.read_gb_s > 0 and machine_speeds.speeds(1, home=tmp_path) == first
    body = json.loads(path.read_text())
    body["speeds"]["read_gb_s"] = 123_456.0
    path.write_text(json.dumps(body))
    assert machine_speeds.speeds(1, home=tmp_path).read_gb_s == 123_456.0  # so it was read, not measured
    path.write_text("{")
    assert machine_speeds.speeds(1, home=tmp_path).read_gb_s < 100_000


@pytest.mark.slow
def test_what_was_measured_beside_other_work_is_measured_again_and_the_better_kept(tmp_path: Path) -> None:
    here = machine.describe()
    path = tmp_path / "machine" / f"{here.key}-1.json"
    known = Speeds(1, read_gb_s=1e6, float32_gflop_s=1e-6, load=1e6)
    machine_speeds._write(path, here, known)
    assert machine_speeds.speeds(1, home=tmp_path) == known  # it is not an hour old
    os.utime(path, (0, 0))
    again = machine_speeds.speeds(1, home=tmp_path)
    assert again.read_gb_s == 1e6 and again.float32_gflop_s > 1e-3 and again.load < 1e6


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "nul",
        "[" * 100_000,
        '{"version": 9}',
        '{"version": 2, "speeds": {"threads": 1}}',
        '{"version": 2, "speeds": {"threads": 1, "read_gb_s": "fast", "float32_gflop_s": 1}}',
        '{"version": 2, "speeds": {"threads": 1, "read_gb_s": 0, "float32_gflop_s": 1}}',
        '{"version": 2, "speeds": {"threads": 1, "read_gb_s": 1, "float32_gflop_s": 1, "int8_gop_s": "fast"}}',
        '{"version": 2, "speeds": {"threads": 1, "read_gb_s": 1, "float32_gflop_s": 1, "bfloat16_gflop_s": NaN}}',
        '{"version": 2, "speeds": {"threads": 1, "read_gb_s": 1, "float32_gflop_s": 1, "load": null}}',
        '{"version": 2, "speeds": {"threads": 1, "read_gb_s": 1, "float32_gflop_s": 1, "load": -1, "date": 5}}',
        '{"version": 1, "speeds": {"threads": 1, "read_gb_s": 1, "float32_gflop_s": 1}}',
    ],
)
def test_a_file_that_we_did_not_write_counts_for_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "speeds.json"
    path.write_text(text)
    assert machine_speeds._read(path) is None


def test_a_file_that_we_wrote_counts(tmp_path: Path) -> None:
    known = Speeds(1, 2, 3.0, None, 4.0, "2026-11-25", 0.5)
    machine_speeds._write(tmp_path / "speeds.json", machine.describe(), known)
    assert machine_speeds._read(tmp_path / "speeds.json") == known


def test_a_home_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "machine").write_text("a file where the folder should be")
    path = tmp_path / "machine" / "x.json"
    machine_speeds._write(path, machine.describe(), Speeds(1, 1.0, 1.0))
    assert machine_speeds._read(path) is None
    assert (tmp_path / "machine").read_text() == "a file where the folder should be"
    assert [file.name for file in tmp_path.iterdir()] == ["machine"]


def test_memory_in_use_grows_with_what_is_taken() -> None:
    before = machine.memory_in_use()
    taken = torch.ones(1 << 24)
    assert machine.memory_in_use() - before > 0.8 * taken.nbytes


def test_nothing_heavy_is_imported_to_describe_a_machine() -> None:
    code = (
        "import sys; from firsthand.measure import speed_bounds, machine, measurements, machine_speeds; machine.describe();"
        "print([name for name in ('torch', 'numba', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_machine_is_one_sentence_with_its_memory_in_gib() -> None:
    versions = (("Python", "3.12.1"), ("firsthand", "0.1"))
    here = machine.Machine("A CPU", 8, ("avx2", "fma"), 16 << 30, "Linux 6.1 x86_64", versions, 1.26)
    rest = "Linux 6.1 x86_64; Python 3.12.1, firsthand 0.1; load 1.3"
    assert here.line() == f"A CPU, 8 cores (avx2, fma), 16 GiB, {rest}"
    for size, shown in ((0, 0), (1 << 29, 0), ((1 << 29) + 1, 1), (1 << 40, 1024), (16 * 10**9, 15)):
        assert replace(here, flags=(), memory_bytes=size).line() == f"A CPU, 8 cores, {shown} GiB, {rest}"
    body = here.to_json()
    assert body == {
        "cpu": "A CPU", "cores": 8, "flags": ["avx2", "fma"], "memory_bytes": 16 << 30, "system": "Linux 6.1 x86_64",
        "versions": {"Python": "3.12.1", "firsthand": "0.1"}, "load": 1.26,
        "key": hashlib.sha256(b"A CPU|8|avx2|fma|64").hexdigest()[:16],
    }  # fmt: skip
    assert [replace(here, load=load).is_busy for load in (0.0, 4.0, 4.01)] == [False, False, True]
    assert replace(here, memory_bytes=(16 << 30) - 1).key != here.key, "counted in whole quarters of a GiB"
    assert replace(here, memory_bytes=(16 << 30) + (1 << 28) - 1, load=9.0, system="", versions=()).key == here.key
