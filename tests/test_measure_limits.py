"""What is measured at the edges: memory where the system does not say, no torch, damaged files, KV blocks by hand."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from engine_tiny import drain, tiny_engine, tokens
from firsthand import __version__
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.errors import ModelError
from firsthand.measure import agent_workloads, choice_workload, machine, machine_speeds, workloads
from firsthand.measure.agent_workloads import answers, likelihoods
from firsthand.measure.attention_bench import Case, Shape
from firsthand.measure.choice_workload import questions, score_all
from firsthand.measure.machine_speeds import Speeds, save_speeds
from firsthand.measure.workloads import QUICK, KVWaste, ServingJob, Timing, raise_errors, run, weights_read
from firsthand.model import Sampling

SPEEDS = Speeds(2, 20.25, 100.4, 200.6, None, "2026-01-02", 0.5)


def test_memory_is_the_resident_one_and_where_the_system_does_not_say_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: Path, *given: Any, **named: Any) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", unreadable)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for system, unit in (("linux", 1024), ("darwin", 1)):  # macOS counts in bytes
        monkeypatch.setattr(sys, "platform", system)
        assert abs(machine.memory_in_use() - peak * unit) <= (1 << 14) * unit
    monkeypatch.setattr(Path, "read_text", lambda path: "100 7 3 1")
    monkeypatch.setattr(machine.os, "sysconf", {"SC_PAGE_SIZE": 4096}.__getitem__)
    assert machine.memory_in_use() == 7 * 4096, "the second number is the resident pages"
    for text in ("100", "a b c"):
        monkeypatch.setattr(Path, "read_text", lambda path, text=text: text)
        assert abs(machine.memory_in_use() - peak) <= 1 << 14
    monkeypatch.setitem(sys.modules, "resource", None)
    assert machine.memory_in_use() == 0


def test_a_processor_is_that_of_the_first_core_as_each_kind_of_machine_tells_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x86 = (
        "processor\t: 0\nmodel name\t: A: CPU\nflags\t\t: fma mmx avx2 avx512_vnni\n\n"
        "processor\t: 1\nmodel name\t: B\nflags\t: amx_int8\n"
    )
    arm = "processor\t: 0\nBogoMIPS\t: 50\nFeatures\t: fp sve asimd i8mm\nCPU part\t: 0xd40\n"
    names = iter(["one", "", ""])
    monkeypatch.setattr(machine.platform, "processor", lambda: next(names))
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    for text, flags, name in (
        (x86, ("avx2", "avx512_vnni", "fma"), "A: CPU"),
        (arm, ("asimd", "i8mm", "sve"), "one"),
        ("", (), "aarch64"),
    ):
        monkeypatch.setattr(Path, "read_text", lambda path, text=text, **how: text)
        assert machine._cpu() == (flags, name)
    (tmp_path / "cpuinfo").write_bytes(b"Model Name: A\xff CPU \xc3\xa9\nFLAGS : fma\n")
    with monkeypatch.context() as patched:  # bytes that are no text lose no fact
        patched.setattr(Path, "read_text", lambda path, **how: (tmp_path / "cpuinfo").open(**how).read())
        assert machine._cpu() == (("fma",), "A\ufffd CPU é")
    monkeypatch.setattr(Path, "read_text", lambda path, **how: (_ for _ in ()).throw(OSError()))
    monkeypatch.setattr(machine.platform, "machine", lambda: "")
    assert machine._cpu() == ((), "unknown CPU")


def test_without_torch_products_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    trials: list[Any] = []
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(machine_speeds, "best_of", lambda work, count: trials.append((work(), count)) or 0.5)
    assert machine_speeds.measure_products(3, size=4, trials=7) == {"float32_gflop_s": 2 * 4**3 / 1e9 / 0.5}
    ((product, count),) = trials
    assert (product.tolist(), str(product.dtype), count) == ([[4.0] * 4] * 4, "float32", 7)


def test_a_quarter_of_the_free_memory_is_read_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(machine_speeds, "free_bytes", lambda: 12 << 20)
    monkeypatch.setattr(machine_speeds, "best_of", lambda work, count: sizes.append(count) or 0.25)
    for asked, read in ((64 << 20, 3 << 20), (2 << 20, 2 << 20), (5, 1 << 20)):
        assert machine_speeds.measure_bandwidth(3, size_bytes=asked, trials=9) == read / 0.25 / 1e9
    assert sizes == [9] * 27, "three ways with 1, 2 and 3 threads"


def test_speeds_that_are_damaged_or_of_another_format_are_not_known(tmp_path: Path) -> None:
    here = machine.describe()
    path = tmp_path / "machine" / f"{here.key}-2.json"
    assert machine_speeds._path(here, 2, tmp_path) == path and machine_speeds._read(path) is None
    assert save_speeds(SPEEDS, home=tmp_path) == SPEEDS == machine_speeds._read(path)
    whole = {"version": 2, "machine": here.to_json(), "speeds": asdict(SPEEDS)}
    assert json.loads(path.read_text()) == {**whole, "machine": {**whole["machine"], "load": json.loads(path.read_text())[
        "machine"]["load"]}}  # fmt: skip
    for wrong in (
        {**whole, "version": 1},
        {**whole, "version": 3},
        {**whole, "speeds": {**whole["speeds"], "more": 1}},
        {**whole, "speeds": {**whole["speeds"], "read_gb_s": 0}},
        {**whole, "speeds": None},
        {"version": 2},
        {"speeds": whole["speeds"]},
        [],
    ):
        path.write_text(json.dumps(wrong))
        assert machine_speeds._read(path) is None
    for text in ("", "[" * 100_000, "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")):
        path.write_text(text)
        assert machine_speeds._read(path) is None
    slower = replace(SPEEDS, read_gb_s=1.0, float32_gflop_s=101.0, load=0.4, date="later")
    path.write_text(json.dumps(whole))
    best = replace(SPEEDS, float32_gflop_s=101.0, load=0.4, date="later")
    assert save_speeds(slower, home=tmp_path) == best == machine_speeds._read(path)
    (tmp_path / "file").touch()
    assert save_speeds(SPEEDS, home=tmp_path / "file") == SPEEDS, "a home that cannot be written is no error"


def test_waste_is_what_running_sequences_hold_and_have_not_computed() -> None:
    """Blocks of 16 positions. After its first step a prompt is computed, and its answer's first token is not."""
    for settings, held, used in (
        ({}, (1 + 5) * 16, 3 + 70),
        ({"window": 16, "only_windows": True}, None, None),
        ({"window": 16}, None, None),
    ):
        engine, waste = tiny_engine(**settings), KVWaste()  # type: ignore[arg-type]
        assert waste.percent == 0.0
        waste.look(engine)
        assert (waste.allocated, waste.used) == (0, 0), "nothing runs yet"
        for length in (3, 70):
            engine.add(Request(tuple(range(10, 10 + length)), Sampling(max_tokens=30)))
        engine.step()
        waste.look(engine)
        if held is None:  # of the blocks behind a window nothing is held
            held = used = 0
            for sequence in engine.scheduler.running:
                for part, blocks in engine.pool.split(sequence.table):
                    kept = [place for place, block in enumerate(blocks) if block != part.null_block]
                    held += 16 * len(kept)
                    used += sum(position // 16 in kept for position in range(sequence.num_computed))
            assert used < 2 * 73
        assert (waste.allocated, waste.used) == (held, used)
        assert waste.percent == pytest.approx(100 * (held - used) / held)
        waste.look(engine)
        assert (waste.allocated, waste.used) == (2 * held, 2 * used), "the ends of steps are summed"


def test_an_answer_that_ends_without_a_token_has_begun_too() -> None:
    class Steps:
        """Gives these outputs, step by step, for two prompts."""

        left = [  # noqa: RUF012
            [Output(4, 0, (), (), True, finish_reason="stop"), Output(5, 0, (7,), (-1.0,), True)],
            [Output(5, 0, (8, 9), (-1.0, -2.0), True, finish_reason="length")],
        ]

        def add(self, request: Request) -> None:
            assert request.sampling.max_tokens == {(1,): 2, (2,): 3}[tuple(request.prompt)]

        has_work = property(lambda self: bool(self.left))

        def step(self) -> list[Output]:
            return self.left.pop(0)

    engine: Any = Steps()
    timing = run(engine, ServingJob("", ((1,), (2,)), (2, 3)))
    assert (timing.output_tokens, timing.decode_tokens) == (3, 2) and 0 < timing.first_s < timing.total_s


class Failing:
    """An engine whose second step fails one of its requests; it gives the number of each request."""

    def __init__(self) -> None:
        self.steps, self.added = 0, 0
        self.stats = lambda: None

    def add(self, *given: Any) -> int:
        self.added += 1
        return self.added - 1

    add_score = add
    has_work = property(lambda self: self.steps < 3)

    def step(self) -> list[Output]:
        self.steps += 1
        wrong = Output(1, 0, (), (), True, error=ModelError(f"lost in step {self.steps}"))
        return [Output(0, 0, (5,), (-1.0,), False), *([wrong] if self.steps == 2 else [])]


def test_a_request_that_an_engine_fails_ends_each_measurement() -> None:
    asked = [Request((5, 6), Sampling(max_tokens=3)), Request((7,), Sampling(max_tokens=3))]
    for measure in (
        lambda engine: answers(engine, asked),
        lambda engine: likelihoods(engine, [(5, 6), (7,)], (8,)),
        lambda engine: score_all(engine, [((5, 6), ((8,),)), ((7,), ((8,),))]),
        lambda engine: run(engine, ServingJob("", ((5, 6), (7,)), (3, 3))),
    ):
        engine: Any = Failing()
        with pytest.raises(ModelError, match=r"^lost in step 2$"):
            measure(engine)
        assert (engine.added, engine.steps) == (2, 2)


def test_an_observer_s_time_after_a_step_is_not_the_engine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter(float(number**2) for number in range(1, 99))
    clock = SimpleNamespace(perf_counter=lambda: next(readings))
    monkeypatch.setattr(workloads, "time", clock)
    # the start reads 1; each of the four steps reads once, and its observer twice: steps end at 4, 25, 64 and 121
    looks: list[float] = []
    timing = run(
        tiny_engine(), ServingJob("", ((5, 6, 7),), (4,)), after_step=lambda: looks.extend(next(readings) for _ in "ab")
    )
    assert timing == Timing(4 - 1, 121 - 1, 4, 3) and timing.decode_s == 117
    assert looks == [9, 16, 36, 49, 81, 100, 144, 169]


def test_weights_that_a_step_reads_count_in_their_own_width() -> None:
    halves = nn.Linear(3, 5, dtype=torch.float16)
    model = nn.Sequential(
        nn.Embedding(7, 3), halves, nn.Sequential(nn.Linear(5, 2, bias=False), nn.Linear(2, 4, dtype=torch.bfloat16)),
        nn.Linear(4, 3, dtype=torch.float64), nn.LayerNorm(3),
    )  # fmt: skip
    engine: Any = SimpleNamespace(runner=SimpleNamespace(model=model))
    assert weights_read(engine) == (15 + 10 + 8 + 12, 15 * 2 + 10 * 4 + 8 * 2 + 12 * 8), "without biases and norms"
    empty: Any = SimpleNamespace(runner=SimpleNamespace(model=nn.Embedding(7, 3)))
    assert weights_read(empty) == (0, 0)


def test_the_longest_sequence_of_choices_is_that_of_any_choice_and_any_question() -> None:
    firsts = []
    for tasks in range(1, 7):
        sizes = replace(QUICK, examples=9, tasks=tasks, choices=3, choice_tokens=(1, 9), question_tokens=(2, 4))
        found = choice_workload.scoring(sizes, vocab=96)
        shape = [(len(prefix), [*map(len, choices)]) for prefix, choices in questions(sizes, vocab=96, seed=5)]
        whole = [[prefix + each for each in choices] for prefix, choices in shape]
        assert found.longest == max(max(each) for each in whole) and len(whole) == tasks
        assert found.positions == 9 + sum(prefix - 9 + each for prefix, choices in shape for each in choices)
        assert found.figures[1].meaning == f"{sum(sum(each) - 3 for each in whole)} if nothing were shared"
        firsts += [found.longest > max(each[0] for each in whole), found.longest > max(max(each) for each in whole[:1])]
    assert firsts[0] and any(firsts[1::2]), "a later choice is the longest, and a later question"


def test_pages_are_gathered_for_the_longest_sequence_whichever_it_is() -> None:
    shape = Shape(6, 2, 16)
    case = Case(shape, [[4], [0, 1, 2], [3, 5]], [(7, 8), (40, 41), (16, 17)], torch.float32, 1)
    ours = case.ours()  # which writes the new keys and values
    assert torch.allclose(case.gather()()[:, :, 0], ours, atol=1e-5)
    assert case.operations == 4 * (8 + 41 + 17) * 6 * 16 and len(case.pages.keys) == 6
    torch.manual_seed(1)
    call = case.contiguous()
    torch.manual_seed(1)
    k, v = (torch.randn(3, 2, 41, 16).repeat_interleave(3, 1) for _ in range(2))
    scores = case.q.reshape(3, 1, 6, 16).transpose(1, 2) @ k.transpose(2, 3) / 4
    assert torch.allclose(call(), scores.softmax(-1) @ v, atol=1e-5)


def test_versions_are_told_of_those_packages_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "1.a", "numba": "2.b", "numpy": "3.c"}

    def version(name: str) -> str:
        if name == missing:
            raise machine.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(machine.metadata, "version", version)
    for missing in ("", *versions):
        own = [("Python", machine.platform.python_version()), ("firsthand", __version__)]
        assert machine.describe().versions == (*own, *(pair for pair in versions.items() if pair[0] != missing))


def test_of_thoughts_that_are_as_likely_the_first_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[tuple[int, ...]]] = []

    def proposed(engine: Any, requests: list[Request]) -> list[list[tuple[tuple[int, ...], float]]]:
        asked.append([tuple(each.prompt)[3:] for each in requests])
        return [[((place,), 0.0) for place in range(each.n)] for each in requests]

    def valued(engine: Any, prefixes: list[tuple[int, ...]], verdict: Any) -> list[float]:
        return [{1: -3.0, 3: -0.5}.get(each[-2], -1.0) for each in prefixes]  # before the question's one token

    monkeypatch.setattr(agent_workloads, "answers", proposed)
    monkeypatch.setattr(agent_workloads, "likelihoods", valued)
    sizes = replace(QUICK, problem=3, question=1, steps=3, breadth=3, proposals=5, thought=1)
    alone = agent_workloads.tree_of_thoughts(None, sizes, vocab=64, seed=0)  # type: ignore[arg-type]
    assert asked == [[()], [(3,), (0,), (2,)], [(3, 3), (0, 3), (2, 3)]]
    assert alone == 5 * (3 + 3 * 4 + 3 * 5) + 5 * 5 + 15 * 6 + 15 * 7


def test_the_first_error_of_a_step_is_raised() -> None:
    fine = [Output(0, 0, (5,), (-1.0,), False), Output(1, 0, (), (), True)]
    assert raise_errors(fine) is fine
    wrong = [fine[0], *(Output(2, 0, (), (), True, error=ModelError(text)) for text in ("first", "second"))]
    with pytest.raises(ModelError, match="first"):
        raise_errors(wrong)


def test_answers_have_their_own_tokens_and_the_sum_of_their_log_probs() -> None:
    asked = [
        Request((5, 6, 7), Sampling(max_tokens=3, temperature=1.0, seed=4), n=2),
        Request((8, 9), Sampling(max_tokens=4)),
    ]
    engine = tiny_engine()
    ids = [engine.add(each) for each in asked]
    made = drain(engine)
    wanted = [[made[id, index] for index in range(each.n)] for id, each in zip(ids, asked, strict=True)]
    found = answers(tiny_engine(), iter(asked))
    assert [[ids for ids, _ in group] for group in found] == [[tokens(each) for each in group] for group in wanted]
    assert [[logprob for _, logprob in group] for group in found] == [
        pytest.approx([sum(value for output in each for value in output.logprobs) for each in group])
        for group in wanted
    ]
    assert [[len(ids) for ids, _ in group] for group in found] == [[3, 3], [4]] and found[0][0] != found[0][1]
    rated = likelihoods(tiny_engine(), iter([(5, 6), (9,)]), (20, 21, 22))
    assert rated == pytest.approx(
        [sum(tiny_engine().score(each, [[20, 21, 22]])[0].logprobs) for each in ((5, 6), (9,))]
    )
    assert rated[0] != rated[1] and max(rated) < 0
