"""Figures of a machine and of a benchmark by hand: bounds, ages, records on disk, sentences and tables."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from firsthand.errors import StoreError
from firsthand.measure import machine, machine_speeds
from firsthand.measure.machine import Machine, is_busy
from firsthand.measure.machine_speeds import Speeds, best_of, counts, faster_of, is_below, save_speeds, torch_threads
from firsthand.measure.measurements import (
    BenchResult,
    Measured,
    markdown_table,
    number,
    save_result,
    saved_results,
    spread,
)
from firsthand.measure.speed_bounds import benchmarked_speeds, known_products, speed_limits

MACHINE = Machine("A CPU", 3, ("avx2", "fma"), (9 << 28) + 5, "Linux 6", (("Python", "3.11"), ("torch", "2.9")), 0.26)
SPEEDS = Speeds(2, 20.25, 100.4, 200.6, None, "2026-01-02", 0.5)


def test_a_machine_is_told_whole_and_its_key_is_of_its_hardware() -> None:
    key = hashlib.sha256(b"A CPU|3|avx2|fma|9").hexdigest()[:16]
    assert MACHINE.key == key
    assert MACHINE.line() == "A CPU, 3 cores (avx2, fma), 2 GiB, Linux 6; Python 3.11, torch 2.9; load 0.3"
    bare = replace(MACHINE, flags=(), memory_bytes=7 << 29, versions=(("Python", "3"),), load=1.5)
    assert bare.line() == "A CPU, 3 cores, 4 GiB, Linux 6; Python 3; load 1.5" and not bare.is_busy
    assert replace(bare, load=1.51).is_busy
    for size, shown in ((64 << 30, "64 GiB"), (15 << 29, "8 GiB"), ((15 << 29) - (1 << 28), "7 GiB"), (0, "0 GiB")):
        assert replace(bare, memory_bytes=size).line() == f"A CPU, 3 cores, {shown}, Linux 6; Python 3; load 1.5"
    assert MACHINE.to_json() == {
        "cpu": "A CPU",
        "cores": 3,
        "flags": ["avx2", "fma"],
        "memory_bytes": (9 << 28) + 5,
        "system": "Linux 6",
        "versions": {"Python": "3.11", "torch": "2.9"},
        "load": 0.26,
        "key": key,
    }
    cores = len(os.sched_getaffinity(0))
    assert is_busy(1.0, 2) is False and is_busy(1.01, 2) and not is_busy(0.5 * cores) and is_busy(0.5 * cores + 0.1)


def test_this_machine_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1.236, 5.0, 9.0))
    here = machine.describe()
    assert here.load == 1.24 and here.cores == machine.usable_cores() == len(os.sched_getaffinity(0))
    facts = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    words = {name.strip().lower(): value.split() for name, _, value in reversed(facts)}
    known = {"avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8"}
    known |= {"asimd", "asimddp", "i8mm", "bf16", "sve"}
    assert here.flags == tuple(sorted(known & {*words.get("flags", []), *words.get("features", [])}))
    assert here.cpu and ("model name" not in words or here.cpu.split() == words["model name"])
    page = os.sysconf("SC_PAGE_SIZE")
    assert here.memory_bytes == os.sysconf("SC_PHYS_PAGES") * page and here.system.split()[0] == os.uname().sysname
    assert here.system == f"{os.uname().sysname} {os.uname().release} {os.uname().machine}"
    assert [name for name, _ in here.versions][:2] == ["Python", "firsthand"]
    assert dict(here.versions)["numpy"] == np.__version__
    assert abs(machine.free_bytes() - os.sysconf("SC_AVPHYS_PAGES") * page) < 0.2 * here.memory_bytes
    resident = int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) * 1024
    assert abs(machine.memory_in_use() - resident) < 1 << 26
    monkeypatch.setattr(os, "sysconf_names", {"SC_PHYS_PAGES": 1})
    assert machine.free_bytes() == here.memory_bytes
    monkeypatch.setattr(os, "sysconf_names", {})
    assert machine.free_bytes() == 1 << 30 and machine.describe().memory_bytes == 0
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", {0: {3, 7, 9}}.__getitem__)
    assert machine.usable_cores() == machine.describe().cores == 3, "of 64 cores this process may use three"
    assert [is_busy(load) for load in (1.5, 1.51)] == [False, True]
    monkeypatch.setattr(os, "sched_getaffinity", {0: {5}}.__getitem__)
    assert machine.usable_cores() == 1
    monkeypatch.delattr(os, "getloadavg")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.describe().load == 0 and machine.usable_cores() == machine.describe().cores == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.usable_cores() == 1


def test_speeds_are_one_sentence_and_sound_or_not() -> None:
    assert SPEEDS.line() == "with 2 threads: 20.2 GB/s read, 10^9 operations/s multiplied: float32 100, bfloat16 201"
    one = Speeds(1, 1.0, 2.0, int8_gop_s=3.6)
    assert one.line() == "with 1 thread: 1.0 GB/s read, 10^9 operations/s multiplied: float32 2, int8 4"
    assert SPEEDS.is_sound and one.is_sound and replace(one, load=0, read_gb_s=5).is_sound
    for name in ("threads", "read_gb_s", "float32_gflop_s", "bfloat16_gflop_s", "int8_gop_s"):
        for wrong in (0, -1.0, math.nan, math.inf, "1", True):
            assert not replace(SPEEDS, **{name: wrong}).is_sound
    for load in (-0.1, math.nan, math.inf, None, "0"):
        assert not replace(SPEEDS, **{"load": load}).is_sound
    assert not replace(SPEEDS, **{"date": 5}).is_sound


def test_the_greater_of_each_speed_is_kept_with_the_quieter_date() -> None:
    one, other = Speeds(2, 1.0, 6.0, None, 4.0, "one", 0.7), Speeds(2, 2.0, 5.0, 3.0, None, "other", 0.6)
    both = Speeds(2, 2.0, 6.0, 3.0, 4.0, "other", 0.6)
    assert faster_of(one, other) == both == faster_of(other, one)
    assert faster_of(one, replace(one, date="later")) == one
    assert faster_of(Speeds(1, 1.0, 1.0), Speeds(1, 1.0, 1.0)) == Speeds(1, 1.0, 1.0)
    low, high = Speeds(2, 1.0, 2.0, 3.0, 8.0, "low", 0.1), Speeds(2, 1.5, 1.9, 4.0, 7.0, "high", 0.2)
    assert faster_of(low, high) == faster_of(high, low) == Speeds(2, 1.5, 2.0, 4.0, 8.0, "low", 0.1)
    low, high = replace(low, bfloat16_gflop_s=5.0, int8_gop_s=6.0), replace(high, load=0.05)
    assert faster_of(low, high) == faster_of(high, low) == Speeds(2, 1.5, 2.0, 5.0, 7.0, "high", 0.05)
    assert is_below(one, {"read_gb_s": 1.1}) and not is_below(one, {"read_gb_s": 1.0}) and not is_below(one, {})
    assert is_below(one, {"read_gb_s": 0.5, "bfloat16_gflop_s": 0.1}) and not is_below(other, {"bfloat16_gflop_s": 3.0})


def test_speeds_are_measured_again_after_an_hour_if_they_are_doubtful(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def measure(threads: int) -> Speeds:
        asked.append(threads)
        return Speeds(threads, 2.0 + len(asked), 5.0, date=str(len(asked)))

    monkeypatch.setattr(machine_speeds, "measure", measure)  # which takes seconds
    here = machine.describe()
    path = tmp_path / "machine" / f"{here.key}-5.json"
    first = machine_speeds.speeds(5, home=tmp_path)
    assert first == Speeds(5, 3.0, 5.0, date="1") and machine_speeds.speeds(5, home=tmp_path) == first and asked == [5]
    body = json.loads(path.read_text())
    assert (body["version"], body["speeds"]) == (2, asdict(first)) and body["machine"]["key"] == here.key
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    now = round(time.time())
    monkeypatch.setattr(machine_speeds, "time", SimpleNamespace(time=lambda: float(now)))
    for age, at_least, load, is_measured in (
        (3599, {"read_gb_s": 1e9}, 0.0, False),
        (3600, {"read_gb_s": 1e9}, 0.0, True),
        (3590, {"read_gb_s": 1e9}, 0.0, False),
        (3610, {"read_gb_s": 1e9}, 0.0, True),
        (3610, {"read_gb_s": 1.0}, 0.0, False),
        (3610, None, 0.5 * here.cores, False),
        (3610, None, 0.5 * here.cores + 0.1, True),
        (3590, None, 1e9, False),
    ):
        machine_speeds._write(path, here, replace(first, load=load))
        os.utime(path, (now - age, now - age))
        before = len(asked)
        again = machine_speeds.speeds(5, at_least=at_least, home=tmp_path)
        assert (len(asked) - before, again.read_gb_s) == ((1, 3.0 + before) if is_measured else (0, 3.0))
        assert machine_speeds.save_speeds(again, home=tmp_path) == again
    assert machine_speeds.speeds(home=tmp_path).threads == here.cores and asked[-1] == here.cores
    assert machine_speeds.speeds(0, home=tmp_path).threads == here.cores
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    assert save_speeds(Speeds(7, 1.0, 9.0)).float32_gflop_s == 9.0
    assert (tmp_path / "home" / "machine" / f"{here.key}-7.json").is_file()
    assert machine_speeds._age_s(tmp_path / "none") == math.inf


def test_a_measurement_has_its_date_its_load_and_both_kinds_of_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def products(threads: int, *, ours: bool) -> dict[str, float]:
        asked.append((threads, ours))
        return {"float32_gflop_s": 5.0, "int8_gop_s": 7.0}

    monkeypatch.setattr(machine_speeds, "measure_bandwidth", lambda threads: asked.append(threads) or 2.5)
    monkeypatch.setattr(machine_speeds, "measure_products", products)  # both take seconds
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 0.0, 0.0))
    found = machine_speeds.measure(3, ours=True)
    assert found == Speeds(3, 2.5, 5.0, None, 7.0, found.date, 1.5) and asked == [3, (3, True)]
    assert len(found.date) == 25 and found.date.endswith("+00:00") and found.date[10] == "T"
    assert machine_speeds.measure(2).threads == 2 and asked[2:] == [2, (2, False)]
    slow, fast = Speeds(1, 1.0, 1.0, date="a"), Speeds(1, 2.0, 2.0, date="b")
    assert faster_of(slow, fast).date == "a", "of equally quiet ones the first"


class Ticks:
    """A clock whose calls take 4, 3, 9, 5 and then 7 seconds."""

    def __init__(self) -> None:
        self.now, self.left, self.is_end = 0.0, [4.0, 3.0, 9.0, 5.0], False

    def perf_counter(self) -> float:
        if self.is_end:
            self.now += self.left.pop(0) if self.left else 7.0
        self.is_end = not self.is_end
        return self.now


def test_a_speed_is_that_of_the_best_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(machine_speeds, "time", Ticks())
    assert best_of(lambda: calls.append(1), 1) == 4 and len(calls) == 2
    assert best_of(lambda: calls.append(1), 3) == 3 and len(calls) == 6
    monkeypatch.setattr(machine_speeds, "time", Ticks())
    assert machine_speeds.measure_bandwidth(2, size_bytes=3 << 20, trials=2) == (3 << 20) / 3 / 1e9
    monkeypatch.setattr(machine_speeds, "time", Ticks())
    assert machine_speeds.measure_bandwidth(1, size_bytes=5, trials=1) == (1 << 20) / 3 / 1e9
    monkeypatch.setattr(machine_speeds, "time", Ticks())
    # with one thread float32, bfloat16 and int8 take 4, 3 and 9 seconds; with two 5, 7 and 7 for twice the work
    found = machine_speeds.measure_products(2, size=32, trials=1)
    work = 2 * 32**3 / 1e9
    expected = {"float32_gflop_s": 2 * work / 5, "bfloat16_gflop_s": work / 3, "int8_gop_s": 2 * work / 7}
    assert found == pytest.approx({name: expected[name] for name in found}) and len(found) >= 2
    monkeypatch.setattr(machine_speeds, "time", Ticks())
    assert machine_speeds._numpy_seconds(8, 2) == 3


def test_each_thread_that_multiplies_has_one_thread_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    told: list[tuple[bool, int]] = []

    def set_num_threads(count: int) -> None:
        told.append((threading.current_thread() is threading.main_thread(), count))

    monkeypatch.setattr(torch, "set_num_threads", set_num_threads)
    machine_speeds.measure_products(2, size=8, trials=1)
    assert told[0] == (True, 1) and told[-1] == (True, torch.get_num_threads())
    assert set(told[1:-1]) == {(False, 1)} and len(told) >= 2 + 2, "a pool for one thread, and one for two"


def test_all_parts_are_done_at_once_and_torch_keeps_its_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    together = threading.Barrier(3, timeout=20)
    with ThreadPoolExecutor(3) as pool:
        work = machine_speeds._spread(pool, lambda part: (together.wait(), part * 2)[1], [1, 2, 3])
        assert work() == [2, 4, 6]
    assert [counts(threads) for threads in (1, 2, 5, 8)] == [[1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 8]]
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), torch_threads(before + 2):
        assert torch.get_num_threads() == before + 2
        raise ZeroDivisionError
    assert torch.get_num_threads() == before
    for name, multiply in machine_speeds._torch_products(32):
        assert (multiply(0) == 32).all(), name


def test_where_torch_has_no_int8_product_the_two_others_are_measured() -> None:
    names = ["float32_gflop_s", "bfloat16_gflop_s", "int8_gop_s"]
    assert [(name, way(0).dtype) for name, way in machine_speeds._torch_products(32)] == [
        (names[0], torch.float32), (names[1], torch.bfloat16), (names[2], torch.int32),
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for error in (RuntimeError, NotImplementedError, AttributeError):

            def lacks(*_: Any, error: type[Exception] = error) -> None:
                raise error("no int8 here")

            patch.setattr(torch, "_int_mm", lacks)
            found = machine_speeds._torch_products(24)
            assert [name for name, _ in found] == names[:2]
            assert [(product.dtype, bool((product == 24).all())) for product in (way(0) for _, way in found)] == [
                (torch.float32, True), (torch.bfloat16, True),
            ]  # fmt: skip


def result(**changes: Any) -> BenchResult:
    figures = (
        Measured("prefill 512", "tokens/s", "a | prompt", (700.0, 800.0, 960.0)),
        Measured("decode 1", "tokens/s", "one", (90.0, 100.0, 120.0, 110.0)),
    )
    made = BenchResult(
        *("m", "/m.gguf", "2026-01-01", "firsthand bench m", {"key": "k"}, "a machine"),
        *(SPEEDS, "int8", 50_000_000, 130_000_000, 0.25, figures),
    )
    return replace(made, **changes)


def test_a_result_tells_its_best_rounds_and_its_table() -> None:
    made = result()
    assert made.figure("decode 1") is made.figures[1] and made.figure("decode") is None
    assert made.figures[1].median == 105 and made.read_gb_s == 120 * 0.05 and made.products_gop_s == 960 * 0.25
    assert not made.is_encoder and made.weights_line == "weights: int8, 50.0 MB read in each step of decoding"
    none = result(figures=())
    assert none.read_gb_s == none.products_gop_s == 0
    encoder = result(
        figures=(Measured("embeddings", "", "", (7.0,)), Measured("embeddings: tokens", "", "", (8.0, 9.0)))
    )
    assert encoder.is_encoder and encoder.products_gop_s == 9 * 0.25 and encoder.read_gb_s == 0
    assert replace(encoder, weight_bytes=1_234_560_000).weights_line == (
        "weights: int8, 1,234.6 MB read for each pack of texts"
    )
    lines = [
        "# m",
        "",
        "A quick run: its numbers mean little.",
        "",
        "| figure | median (range) | what it is |",
        "| --- | --- | --- |",
        "| prefill 512 | 800 (700-960) tokens/s | a \\| prompt |",
        "| decode 1 | 105 (90-120) tokens/s | one |",
        "",
        "- left out: x",
        "- left out: y",
        "",
        "- command: `firsthand bench m`",
        "- date: 2026-01-01",
        "- machine: a machine",
        f"- the machine {SPEEDS.line()}",
        "- weights: int8, 50.0 MB read in each step of decoding",
    ]
    assert result(quick=True, left_out=("x", "y")).markdown() == "\n".join(lines) + "\n"
    assert made.markdown() == "\n".join([*lines[:2], *lines[4:9], *lines[12:]]) + "\n"
    numbers = (1204.4, 100, 99.96, 12.25, 10.0, 9.996, 0.853, -150.5, -12.25, 3.0, 0.0, 123456.7)
    assert [number(value) for value in numbers] == [
        *("1,204", "100", "100.0", "12.2", "10", "10.00", "0.85", "-150", "-12.2", "3", "0", "123,457"),
    ]
    assert spread([3.0, 1.0, 2.5]) == "2.50 (1-3)" and spread([2.0, 2.0]) == "2" and spread([1.0, 2.0]) == "1.50 (1-2)"
    assert markdown_table(["a", "b"], [["1|", "2"]]) == "| a | b |\n| --- | --- |\n| 1\\| | 2 |"


def test_a_result_is_kept_by_its_model_and_machine_and_checked_field_by_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = result(left_out=("x",), quick=True)
    assert made.to_json() == {"version": 1, **asdict(made)}
    assert BenchResult.from_json(json.loads(json.dumps(made.to_json()))) == made
    path = save_result(made, home=tmp_path)
    assert path == tmp_path / "bench" / "k" / f"{hashlib.sha256(b'm').hexdigest()[:12]}.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(made.to_json()))
    save_result(result(model="n", date="2026-02-01"), home=tmp_path)
    (path.parent / "latin.json").write_bytes(b"\xff")
    (path.parent / "folder.json").mkdir()
    assert [each.model for each in saved_results("k", home=tmp_path)] == ["n", "m"] and saved_results(
        "", home=tmp_path
    ) == []
    assert len(list(path.parent.iterdir())) == 4
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    assert save_result(made).parent == tmp_path / "home" / "bench" / "k" and saved_results("k") == [made]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as refused:
        save_result(made, home=tmp_path / "file")
    said = tmp_path / "file" / "bench" / "k" / path.name
    assert str(refused.value) == f"{said} could not be written: Not a directory"

    for version in (0, 2):
        with pytest.raises(StoreError, match="this version's format: run the command again"):
            BenchResult.from_json({**made.to_json(), "version": version})
    unversioned = {name: value for name, value in made.to_json().items() if name != "version"}
    for body in ([], "x", None, {}, unversioned, {**unversioned, "version": None}, {**unversioned, "version": "1"}):
        with pytest.raises(StoreError) as refused:
            BenchResult.from_json(body)  # type: ignore[arg-type]
        assert str(refused.value) == (
            "this is not a result of `firsthand bench` in this version's format: run the command again"
        )
    whole = json.loads(json.dumps(made.to_json()))
    for name in whole.keys() - {"version"}:
        without = {key: value for key, value in whole.items() if key != name}
        if name == "quick":
            assert BenchResult.from_json(without) == replace(made, quick=False)
            continue
        with pytest.raises(
            StoreError, match=r"^this result .* is damaged \(.*\b" + name + r"\b.*\): run the command again$"
        ):
            BenchResult.from_json(without)
    for changes, reason in (
        ({"weight_bytes": True}, "a number is not finite"),
        ({"parameters": math.inf}, "a number is not finite"),
        ({"prefill_gflop": 0}, "a number is missing or not above 0"),
        ({"weight_bytes": -1}, "a number is missing or not above 0"),
        ({"figures": [{**whole["figures"][0], "values": [1, math.nan]}]}, "a number is not finite"),
        (
            {"figures": [whole["figures"][0], {**whole["figures"][1], "values": []}]},
            "a number is missing or not above 0",
        ),
        ({"figures": [{**whole["figures"][0], "name": 5}]}, "a text is missing"),
        ({"speeds": {**whole["speeds"], "load": -1}}, "a speed is not a number above 0"),
        ({"machine": []}, "a text is missing"),
        *(({name: None}, "a text is missing") for name in ("model", "path", "date", "weights")),
        ({"left_out": None}, "not iterable"),
    ):
        with pytest.raises(StoreError, match=rf"^this result .* is damaged \(.*{reason}.*\): run the command again$"):
            BenchResult.from_json({**whole, **changes})


def test_bounds_are_raised_by_what_benchmarks_reached() -> None:
    fast = result()  # reads 6 GB/s, multiplies 240
    slow = replace(SPEEDS, read_gb_s=4.0, float32_gflop_s=100.0, bfloat16_gflop_s=None, int8_gop_s=150.0)
    limits = speed_limits(slow, [fast, result(weights="float32", prefill_gflop=0.5, speeds=slow)])
    assert limits.speeds == faster_of(slow, SPEEDS) and len(limits.results) == 2
    bounds = speed_limits(slow, [])
    bounds = replace(bounds, results=(fast, result(weights="float32", prefill_gflop=0.5)))
    assert [bounds.read_gb_s(size) for size in (49_999_999, 50_000_000, 50_000_001)] == [6, 6, 4]
    assert [bounds.products_gop_s(kind) for kind in ("int8", "q4", "float16", "int16")] == [240, 240, 480, 100]
    assert speed_limits(slow, []).products_gop_s("int8") == 150
    assert benchmarked_speeds([]) == {}
    assert benchmarked_speeds(
        [fast, result(weights="float16", prefill_gflop=0.5, weight_bytes=10**7), result(figures=())]
    ) == {
        "read_gb_s": 6,
        "int8_gop_s": 240,
        "float32_gflop_s": 480,
    }
    whole = replace(slow, int8_gop_s=250.0)
    for speeds, expected in (
        (slow, [100, 100, 150, 100, 150]),
        (whole, [100, 100, 250, 125, 250]),
        (replace(slow, int8_gop_s=None), [100] * 5),
    ):
        kinds = ("float32", "float16", "int8", "int16", "q8_0")
        assert [known_products(speeds, kind) for kind in kinds] == expected
