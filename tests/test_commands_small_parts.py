"""Parts of commands, each by itself: rounds of a benchmark of the machine, words of `firsthand train`, pairs, protocols."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.commands import bench_decoder, bench_rounds, pairwise, train
from firsthand.commands.bench_config import Config as BenchConfig
from firsthand.commands.interp_steer import check_out, multiples, print_study
from firsthand.commands.print_run import print_json, print_protocols, protocol_lines, report_facts
from firsthand.errors import ConfigError
from firsthand.experiment.foreign_recipe import LOADED, _texts
from firsthand.measure import machine, machine_speeds
from firsthand.measure.machine_speeds import Speeds
from firsthand.measure.measurements import DECODE, Measured
from firsthand.measure.workloads import Metric, Workload, WorkloadSizes
from firsthand.stats.intervals import Interval
from firsthand.stats.paired import PairedDifference
from printed_tables import widen, words


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables have all their columns side by side."""
    widen(monkeypatch, pairwise)


# -- bench --


class Machine:
    """Seconds of a clock, workloads that take some of them, and memory that grows by a byte at each look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.bytes = 0.0, 100
        self.asked: list[tuple[str, object, int]] = []
        monkeypatch.setattr(bench_rounds.time, "monotonic", lambda: self.seconds)
        monkeypatch.setattr(machine, "memory_in_use", self.memory)

    def memory(self) -> int:
        self.bytes += 1
        return self.bytes

    def workload(self, name: str, seconds: float, **sizes: Any) -> Workload[Any]:
        def measure(subject: object, turn: int) -> list[float]:
            self.asked.append((name, subject, turn))
            self.seconds += seconds
            return [10.0 * turn, 10.0 * turn + 1]

        metrics = (Metric(name, "s", f"about {name}"), Metric(f"{name} too", "ms", "more"))
        return Workload(metrics, sizes.pop("positions", 1), sizes.pop("longest", 1), measure, **sizes)


def test_the_first_round_of_all_does_not_count_and_slow_ones_end_early(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Machine(monkeypatch)
    chosen = [here.workload("fast", 1), here.workload("slow", 3)]
    figures, steady = bench_rounds.repeat("subject", chosen, BenchConfig("m", rounds=3, seconds=5, json="-"))
    assert figures == [
        Measured("fast", "s", "about fast", (10, 20, 30)), Measured("fast too", "ms", "more", (11, 21, 31)),
        Measured("slow", "s", "about slow", (10,)), Measured("slow too", "ms", "more", (11,)),
    ]  # fmt: skip
    turns = [("fast", 0), ("slow", 0), ("fast", 1), ("slow", 1), ("fast", 2), ("fast", 3)]
    assert here.asked == [(name, "subject", turn) for name, turn in turns]
    assert steady == 101 == here.bytes
    here.asked.clear()
    figures, _ = bench_rounds.repeat(0, chosen[1:], BenchConfig("m", rounds=3, quick=True, json="-"))
    assert [each.values for each in figures] == [(10,), (11,)] and [turn for *_, turn in here.asked] == [0, 1]
    here.asked.clear()  # a figure is measured again as long as its time is not over
    figures, _ = bench_rounds.repeat(0, chosen[1:], BenchConfig("m", rounds=3, seconds=6, json="-"))
    assert [each.values for each in figures] == [(10, 20), (11, 21)]


@pytest.mark.parametrize("once", [False, True])
def test_the_machine_is_measured_around_the_work_and_its_best_speeds_are_kept(
    monkeypatch: pytest.MonkeyPatch, once: bool
) -> None:
    order: list[object] = []
    found = iter([Speeds(2, 50.0, 7.0)] * (not once) + [Speeds(2, 40.0, 8.0, int8_gop_s=3.0)])

    def measure(threads: int, *, ours: bool = False) -> Speeds:
        order.append((threads, ours))
        return next(found)

    monkeypatch.setattr(machine_speeds, "measure", measure)
    monkeypatch.setattr(machine_speeds, "save_speeds", order.append)
    made, speeds = bench_rounds.with_machine_speeds(lambda: order.append("work") or "made", 2, once=once, ours=True)  # type: ignore[func-returns-value]
    assert made == "made" and (speeds.read_gb_s, speeds.float32_gflop_s) == (40 if once else 50, 8)
    assert speeds.int8_gop_s == 3 and order == [(2, False)] * (not once) + ["work", (2, True), speeds]


def test_workloads_are_wanted_by_words_in_the_names_of_their_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    each = Machine(monkeypatch).workload("Decode 8", 1)
    wanted = [(), ("decode",), ("DECODE 8 TOO",), ("prefill", "too"), ("prefill",), ("decode  8",)]
    assert [bench_rounds.is_wanted(each, only) for only in wanted] == [True, True, True, True, False, False]


def test_workloads_that_do_not_fit_a_model_are_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    here, asked = Machine(monkeypatch), []
    known = [
        here.workload("fits", 1, positions=1800, longest=4000), here.workload("long", 1, longest=4001),
        here.workload("wide", 1, positions=1801), here.workload("kernels", 1, needs_kernels=True),
        here.workload("other", 1),
    ]  # fmt: skip
    engine = SimpleNamespace(
        architecture=SimpleNamespace(vocab_size=9, max_position=4000),
        pool=SimpleNamespace(num_blocks=20, block_size=100), runner=SimpleNamespace(fused=None),
    )  # fmt: skip
    sizes = WorkloadSizes()
    monkeypatch.setattr(
        bench_decoder, "decoder_workloads", lambda *given, **named: asked.append((given, named)) or known
    )
    wanted, left_out = bench_decoder.choose(engine, sizes, ("fits", "long", "wide", "kernels"))  # type: ignore[arg-type]
    assert [each.name for each in wanted] == ["fits"] and left_out == [
        "long: a sequence of it has 4,001 tokens, and the model's context is 4,000",
        "wide: it needs a KV cache of 1,801 tokens, and the engine's holds 1,800",
        "kernels: the model does not run in the compiled step, so its attention is torch's own",
    ]
    assert asked == [((sizes,), {"vocab": 9, "context": 900})]
    engine.runner.fused, engine.architecture.max_position = object(), 500
    wanted, left_out = bench_decoder.choose(engine, sizes, ("kernels",))  # type: ignore[arg-type]
    assert (
        [each.name for each in wanted] == ["kernels"] and left_out == [] and asked[1][1] == {"vocab": 9, "context": 500}
    )


def test_decoding_is_told_as_a_share_of_the_memorys_speed_and_memory_in_megabytes() -> None:
    figures = [Measured(DECODE, "tokens/s", "", (50.0, 80.0)), Measured("decode 8", "tokens/s", "", (300.0,))]
    [made] = bench_decoder.bounded(figures, 1_000_000_000, Speeds(2, 100.0, 1.0))
    assert (made.name, made.unit, made.values) == ("memory's speed reached by decode 1", "%", (50, 80))
    assert made.meaning == "weights alone, vs. the fastest memory read seen in this run, this one included"
    [made] = bench_decoder.bounded(figures, 2_000_000_000, Speeds(2, 100.0, 1.0))
    assert made.values == (62.5, 100)  # what decoding itself has read was faster than any other read
    engine = SimpleNamespace(stats=lambda: SimpleNamespace(num_blocks=1200, used_blocks=3))
    assert bench_decoder.memory(engine, (1_000_000, 4_500_000, 5_000_000, 5_250_000)) == [  # type: ignore[arg-type]
        Measured("memory: model and cache", "MB", "used by loading", (3.5,)),
        Measured("memory: in use at the end", "MB", "of the whole process, prefix cache included", (5.25,)),
        Measured("memory: growth", "MB",
                 "from the first round to the last: pages of the KV cache used for the first time", (0.25,)),
        Measured("memory: blocks not freed", "blocks", "of 1,200", (3,)),
    ]  # fmt: skip


# -- train --


@pytest.mark.parametrize(
    ("line", "own", "rest"),
    [
        ("sft a.jsonl --steps 3", train.Config("sft"), "a.jsonl --steps 3"),
        ("sft a --out o --steps 3", train.Config("sft", out=Path("o")), "a --steps 3"),
        ("sft --out=o a", train.Config("sft", out=Path("o")), "a"),
        ("sft a --out o --out p", train.Config("sft", out=Path("o")), "a --out p"),
        ("sft --trust", train.Config("sft"), "--trust"),
        ("--resume r", train.Config(resume=Path("r")), ""),
        ("--resume=r --steps 9 --trust", train.Config(resume=Path("r"), trust=True), "--steps 9"),
        ("--resume r --trust loop.steps=9", train.Config(resume=Path("r"), trust=True), "loop.steps=9"),
    ],
)  # fmt: skip
def test_the_words_of_train_are_parted_into_its_own_and_the_recipes(
    monkeypatch: pytest.MonkeyPatch, line: str, own: train.Config, rest: str
) -> None:
    monkeypatch.setattr(train, "_train", lambda config, words: (config, " ".join(words)))
    assert train.dispatch(line.split()) == (own, rest)


def test_words_of_train_without_a_recipe_are_refused_or_answered_with_the_recipes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "examine_run", lambda config: (config.run, config.json))
    assert train.dispatch(["doctor", "r", "--json"]) == ("r", True) and train.dispatch(["doctor"]) == ("last", False)
    with pytest.raises(ConfigError, match="'--steps' came before a recipe: the recipe is the first word"):
        train.dispatch(["--steps", "3"])
    with pytest.raises(ConfigError, match="--resume needs the folder of a training run"):
        train.dispatch(["--resume"])
    for line in ([], ["--help"], ["-h"]):
        with pytest.raises(SystemExit) as ended:
            train.dispatch(line)
        assert ended.value.code == 0 and "recipes:\n" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="a recipe is needed; `firsthand train --help` shows all"):
        train.main(train.Config())


def test_what_a_recipes_settings_load_is_gathered_from_all_its_tables() -> None:
    settings = {
        "model": "m", "steps": 3, "tools": ["a", "b", ""], "sampler": None,
        "rollout": {"benchmark": "gsm8k", "teacher": "t", "inner": {"pattern": ["cot"], "model": "n", "name": "x"}},
        "loop": {"lr": 1},
    }  # fmt: skip
    named: dict[str, list[str]] = {}
    for name, text in _texts(settings):
        if name in LOADED:
            named.setdefault(LOADED[name], []).append(text)
    assert named == {
        "model": ["m", "t", "n"], "tool": ["a", "b"], "benchmark": ["gsm8k"], "pattern": ["cot"],
    }  # fmt: skip
    assert list(_texts({})) == []


def test_the_end_of_a_training_names_the_model_or_the_agents_adapters(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "a").mkdir(parents=True)
    said = f"the model is in {model}: try `firsthand chat {model}` or `firsthand serve {model}`"
    assert train._outcome(model, tmp_path) == said
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "notes.txt").touch()
    assert train._outcome(adapters, tmp_path).startswith(f"the model is in {adapters}: ")
    for name in ("solver", "critic"):
        (adapters / name).mkdir()
    assert train._outcome(adapters, tmp_path) == (
        f"the adapters of critic, solver are in {adapters}: try `firsthand run BENCHMARK --model agents:BASE@{tmp_path}` "
        "with the pattern they were trained in"
    )
    blank, adapters = tmp_path / "a b", tmp_path / "a b" / "adapters"
    (adapters / "x").mkdir(parents=True)
    assert train._outcome(blank, blank) == (
        f"the model is in {blank}: try `firsthand chat '{blank}'` or `firsthand serve '{blank}'`"
    )
    assert f"--model 'agents:BASE@{blank}'` with" in train._outcome(adapters, blank)


# -- compare, and what is printed of a run --


def test_all_pairs_are_printed_with_the_correction_of_their_number(capsys: pytest.CaptureFixture[str]) -> None:
    one = PairedDifference(0.25, 0.05, 0.45, 0.0004, 20, 7, 2, 11, "better", 0.3)
    other = PairedDifference(-0.1, -0.3, 0.1, 0.25, 1, 0, 0, 0, "no difference found", 0.3)  # type: ignore[arg-type]
    config = SimpleNamespace(confidence="90%", correct="holm")
    pairs = {("a", "b"): one, ("a", "c"): other}
    rows = [
        "b a 20 +0.250 [+0.050, +0.450] <0.001 7 / 2 / 11 better",
        "c a 1 -0.100 [-0.300, +0.100] 0.250 - no difference found",
    ]
    head = ["gsm8k, exact: all pairs", "agent vs. tasks difference (90% CI) p better / worse / same verdict"]
    last = {
        "holm": ["p-values are corrected for 2 comparisons (Holm); 90% CIs hold jointly (Bonferroni)."],
        "bh": [
            "p-values are corrected for 2 comparisons (Benjamini and Hochberg); 90% CIs are wide enough for those "
            "found (Benjamini and Yekutieli)."
        ],
    }
    for correct in ("holm", "bh", "none"):
        config.correct = correct
        pairwise.print_pairs("gsm8k, exact", pairs, config)  # type: ignore[arg-type]
        assert words(capsys.readouterr().out) == [*head, *rows, *last.get(correct, [])]
    config.correct = "holm"
    pairwise.print_pairs("gsm8k, exact", {("a", "b"): one}, config)  # type: ignore[arg-type]
    assert words(capsys.readouterr().out) == head + rows[:1]


def test_protocols_are_printed_a_line_each_and_a_slice_has_one_more(capsys: pytest.CaptureFixture[str]) -> None:
    protocols = {"a": "0 shots\nexact", "none": "", "b": "packaged slice, 1,000 of 14,042 items; chat"}
    lines = [
        "protocol  a: 0 shots\\nexact",
        "protocol  b: packaged slice, 1,000 of 14,042 items; chat",
        "slice     b: 1,000 of 14,042 items ship with the package; for all of them run b:data=hub, or b:data=FOLDER with "
        "your copy",
    ]
    assert protocol_lines(protocols) == lines and protocol_lines({}) == []
    print_protocols(protocols)
    assert capsys.readouterr().out == "".join(f"{line}\n" for line in lines)


def test_the_facts_of_a_report_leave_out_what_is_not_known() -> None:
    agents = {"x": {"model": "m", "fingerprint": "f1"}, "y": {"model": "n"}}
    run = SimpleNamespace(about={"firsthand": "0.16", "commit": None}, agents=lambda: agents)
    facts = report_facts(run, SimpleNamespace(seed=0), {"a": "0 shots", "b": ""})  # type: ignore[arg-type]
    assert facts == {"firsthand": "0.16", "seed": "0", "model m": "f1", "protocol of a": "0 shots"}
    run.about, agents = {"commit": "c0ffee"}, {}
    assert report_facts(run, SimpleNamespace(seed=3), {}) == {"commit": "c0ffee", "seed": "3"}  # type: ignore[arg-type]


def test_a_run_is_printed_as_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    run = SimpleNamespace(id="r1", path=Path("runs/r1"), status="done")
    boards = [SimpleNamespace(to_json=lambda: {"rows": 1})]
    print_json(SimpleNamespace(run=run, protocols={"a": "p"}, boards=lambda: boards))  # type: ignore[arg-type]
    body = {"run": "r1", "path": "runs/r1", "status": "done", "protocols": {"a": "p"}, "boards": [{"rows": 1}]}
    assert json.loads(capsys.readouterr().out) == body


def interval(value: float) -> Interval:
    return Interval(value, value - 0.25, value + 0.25, 4, "t")


# -- steering --


def test_a_steering_study_is_printed_with_the_use_of_its_file(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    row = SimpleNamespace(
        strength=0.5, effect=interval(1.0), random_effect=interval(0.0), cost=interval(0.5), random_cost=interval(-0.5)
    )
    print_study([row], "a title", "m", tmp_path / "v.st", as_json=False)  # type: ignore[list-item]
    assert words(capsys.readouterr().out) == [
        "a title", "strength effect a random vector's cost, nats a token a random vector's cost",
        "0.5 +1.000 [+0.750, +1.250] +0.000 [-0.250, +0.250] +0.500 [+0.250, +0.750] -0.500 [-0.750, -0.250]",
        "An effect counts where it is outside of the random vector's; the cost is that on unrelated texts.",
        f"Written to {tmp_path}/v.st: m+steer:{tmp_path}/v.st@0.5 adds half of it at every token.",
    ]  # fmt: skip
    print_study([row], "a title", "m", None, as_json=True)  # type: ignore[list-item]
    [body] = json.loads(capsys.readouterr().out)
    assert (
        list(body) == ["strength", "effect", "random_effect", "cost", "random_cost"]
        and body["cost"] == interval(0.5).to_json()
    )
    assert multiples(("0.5", "-1", "2e1")) == [0.5, -1.0, 20.0]
    with pytest.raises(ConfigError, match="strengths are 1,x: give numbers"):
        multiples(("1", "x"))
    (tmp_path / "file").touch()
    check_out(None), check_out(tmp_path / "new")
    for parent in ("no", "file"):
        with pytest.raises(ConfigError, match=f"no folder '{tmp_path}/{parent}' for the vector's file"):
            check_out(tmp_path / parent / "v")
