"""The parts of `firsthand bench`: a result's fields, its table and files, rounds, and workloads chosen by words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tiny
from embedder_tiny import write_embedder
from firsthand.commands import bench, bench_decoder, bench_rounds
from firsthand.commands.bench_config import Config
from firsthand.commands.bench_decoder import decoder_workloads, load, measure_decoder
from firsthand.commands.bench_encoder import check_encoder, measure_encoder
from firsthand.embed import embedding
from firsthand.engine.compute import devices
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, StoreError
from firsthand.hub.inspection import inspect
from firsthand.measure import machine, machine_speeds
from firsthand.measure.embedding_documents import documents
from firsthand.measure.machine_speeds import Speeds
from firsthand.measure.measurements import saved_results
from firsthand.measure.workloads import QUICK, Metric, Workload, WorkloadSizes
from printed_tables import widen, words
from test_commands_bench import result

SLOW = Speeds(threads=2, read_gb_s=20.0, float32_gflop_s=100.0, date="slow")
FAST = replace(SLOW, read_gb_s=30.0, date="fast")
SMALL = replace(QUICK, context=8, new_tokens=2, streams=(1, 2), documents=3, words=(2, 4))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    widen(monkeypatch, bench)
    return tmp_path / "home"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked of the machine, whose speeds take seconds to measure; its memory grows by known amounts."""
    told: list[tuple[Any, ...]] = []

    def measure(threads: int, *, ours: bool = False) -> Speeds:
        told.append(("speeds", threads, ours))
        return FAST if ours else SLOW

    in_use = iter((1_000_000, 4_000_000, 9_000_000, 16_000_000, 25_000_000, 36_000_000))
    monkeypatch.setattr(machine_speeds, "measure", measure)
    monkeypatch.setattr(machine_speeds, "save_speeds", lambda found: told.append(("kept", found)))
    monkeypatch.setattr(machine, "memory_in_use", lambda: next(in_use))
    return told


def test_a_decoder_is_measured_whole(
    tmp_path: Path, asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(bench_decoder, "load", lambda *given: opened.append(load(*given)) or opened[0])
    path = tiny.write_model(tmp_path / "model", max_position=64)
    config = Config(str(path), rounds=2, threads=1, weights="float32", only=("prefill", "decode 2"))
    found = measure_decoder(config, path, SMALL)
    facts = inspect(path)
    a = opened[0].architecture
    head = a.vocab_size * a.hidden_size
    assert (found.model, found.path, found.weights, found.quick) == (str(path), str(path.resolve()), "float32", False)
    assert found.command == f"firsthand bench {path} --rounds 2 --threads 1 --weights float32 --only 'prefill,decode 2'"
    here = machine.describe()
    assert found.machine["key"] == here.key and found.machine_line.startswith(here.line().split("; load")[0])
    # all matrices; the file has five norms besides
    assert (
        found.parameters == facts.decode_parameters - 5 * a.hidden_size and found.weight_bytes == 4 * found.parameters
    )
    # two operations a weight but the head's, four for each pair of the prompt's positions and channel
    pairs = 4 * a.num_layers * a.num_heads * a.head_dim
    assert found.prefill_gflop == pytest.approx((2 * (found.parameters - head) + pairs * (512 + 1) / 2) / 1e9)
    assert [(each.name, len(each.values)) for each in found.figures] == [
        ("decode 2", 2), ("memory: model and cache", 1), ("memory: in use at the end", 1), ("memory: growth", 1),
        ("memory: blocks not freed", 1),
    ]  # fmt: skip
    assert [each.values for each in found.figures[1:]] == [(3.0,), (16.0,), (7.0,), (0,)]
    assert found.left_out == ("prefill 128: a sequence of it has 130 tokens, and the model's context is 64",)
    ours = asked[1][2]
    assert asked == [("speeds", 1, False), ("speeds", 1, ours), ("kept", found.speeds)]
    assert found.speeds == (FAST if ours else SLOW) and found.date.endswith("+00:00")


def test_a_quick_run_of_a_decoder_measures_once_and_tells_the_share_of_the_memorys_speed(
    tmp_path: Path, asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.write_model(tmp_path / "model", max_position=64)
    opened: list[Any] = []
    monkeypatch.setattr(bench_decoder, "load", lambda *given: opened.append((*given, load(*given))) or opened[0][2])
    monkeypatch.setattr(devices, "device_line", lambda device: f"; on {device}")
    config = Config("m", quick=True, threads=1, kv_cache="float32", only=("decode 1",))
    found = measure_decoder(config, path, SMALL)
    [(file, settings, engine)] = opened
    assert (file, settings) == (path, EngineConfig(threads=1, kv_cache="float32", device="cpu"))
    assert found.weights == engine.weights != "auto", "the type that it took"
    assert asked[0] == ("speeds", 1, engine.runner.fused is not None), "our own products are timed where they run"
    assert (
        found.model == "m"
        and found.quick
        and found.left_out == ()
        and [each[0] for each in asked] == ["speeds", "kept"]
    )
    assert found.machine_line.endswith("; on cpu")
    by_name = {each.name: each for each in found.figures}
    assert list(by_name)[:2] == ["decode 1", "memory's speed reached by decode 1"]
    (speed,) = by_name["decode 1"].values
    most = max(speed, found.speeds.read_gb_s * 1e9 / found.weight_bytes)
    assert by_name["memory's speed reached by decode 1"].values == (pytest.approx(100 * speed / most),)


def test_a_decoder_is_loaded_as_the_flags_say_with_a_thread_for_each_core_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def load(path: Path, settings: EngineConfig) -> None:
        told.append((path, settings))
        raise KeyError

    monkeypatch.setattr(bench_decoder, "load", load)
    monkeypatch.setattr(devices, "pick_device", lambda name: {"cpu": "cuda:3", "auto": "cuda:1"}[name])
    for config in (Config("m"), Config("m", threads=3, weights="int8", kv_cache="float16", device="auto")):
        with pytest.raises(KeyError):
            measure_decoder(config, tmp_path, SMALL)
    assert told == [
        (tmp_path, EngineConfig(threads=machine.describe().cores, device="cuda:3")),
        (tmp_path, EngineConfig(threads=3, weights="int8", kv_cache="float16", device="cuda:1")),
    ]


@pytest.mark.slow
def test_an_encoder_is_measured_whole(
    tmp_path: Path, asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    whole = machine_speeds.torch_threads
    monkeypatch.setattr(machine_speeds, "torch_threads", lambda count: threads.append(count) or whole(count))
    path = write_embedder(tmp_path / "encoder")
    facts = inspect(path)
    config = Config("e", rounds=2, threads=1)
    closed: list[str] = []
    made = embedding.load(path, threads=1)
    closing = type(made).close
    monkeypatch.setattr(type(made), "close", lambda self: closed.append("closed") or closing(self))
    found = measure_encoder(config, path, facts, SMALL)
    assert closed == ["closed"]
    assert (found.model, found.path, found.command) == (
        "e",
        str(path.resolve()),
        "firsthand bench e --rounds 2 --threads 1",
    )
    assert [(each.name, each.unit, len(each.values)) for each in found.figures] == [
        ("embeddings", "texts/s", 2), ("embeddings: tokens", "tokens/s", 2), ("memory: model", "MB", 1)
    ]  # fmt: skip
    assert threads == [1]
    assert found.figures[2].values == (3.0,) and found.figures[2].meaning == "used by loading"
    assert found.parameters == facts.decode_parameters and not found.quick and found.left_out == ()
    assert found.weight_bytes == {"int16": 2, "float32": 4}[found.weights] * found.parameters
    attended = (found.prefill_gflop * 1e9 - 2 * found.parameters) / (4 * (facts.attention_width or 0))
    model = embedding.load(path, threads=1)
    assert found.weights == ("int16" if model.is_compiled else "float32")
    lengths = [len(model.tokenise(text)[0]) for text in documents(SMALL, seed=1)]
    model.close()
    assert len(set(lengths)) > 1 and attended == pytest.approx(sum(n * n for n in lengths) / sum(lengths))
    assert asked == [("speeds", 1, False), ("speeds", 1, False), ("kept", SLOW)] and found.speeds == SLOW
    compiled = type(made).__init__
    monkeypatch.setattr(type(made), "__init__", lambda self, *given, **more: compiled(self, *given, **more | {
        "compiled": False}))  # fmt: skip
    quick = measure_encoder(Config("e", quick=True), path, facts, SMALL)
    assert (quick.weights, quick.weight_bytes) == ("float32", 4 * facts.decode_parameters), (
        "as without our own products"
    )
    assert threads[1:] == [machine.describe().cores] and asked[3:] == [("speeds", threads[1], False), ("kept", SLOW)]
    assert quick.quick and [len(each.values) for each in quick.figures] == [1, 1, 1]


def test_an_encoder_has_one_kind_of_weights_cache_and_device() -> None:
    for good in (Config("e"), Config("e", device="auto"), Config("e", device="cpu")):
        check_encoder(good)
    for bad, told in (
        (Config("e", weights="int8"), "weights is 'int8': e is an encoder, for which it is always auto"),
        (Config("e", kv_cache="int8"), "kv_cache is 'int8': e is an encoder, for which it is always auto"),
        (Config("e", device="cuda:1"), "device is 'cuda:1': e is an encoder, for which it is always cpu"),
    ):
        with pytest.raises(ConfigError) as refused:
            check_encoder(bad)
        assert str(refused.value) == told


def counted(name: str, told: list[tuple[str, int]], *, seconds: float = 0.0) -> Workload[Any]:
    """A workload of two figures: its turn, and a hundred times that."""

    def measure(subject: Any, turn: int) -> Sequence[float]:
        told.append((f"{subject} {name}", turn))
        if seconds:
            bench_rounds.time.sleep(seconds)
        return [turn, 100.0 * turn]

    return Workload((Metric(name, "u", "m"), Metric(f"{name} 2", "v", "n")), 0, 0, measure)


def test_each_workload_runs_once_a_round_and_once_before(asked: list[tuple[Any, ...]]) -> None:
    told: list[tuple[str, int]] = []
    chosen = [counted("a", told), counted("b", told)]
    figures, steady = bench_rounds.repeat("s", chosen, Config("m", rounds=2, json="-"))
    assert told == [("s a", 0), ("s b", 0), ("s a", 1), ("s b", 1), ("s a", 2), ("s b", 2)] and steady == 1_000_000
    assert [(each.name, each.unit, each.meaning, each.values) for each in figures] == [
        ("a", "u", "m", (1, 2)), ("a 2", "v", "n", (100.0, 200.0)), ("b", "u", "m", (1, 2)),
        ("b 2", "v", "n", (100.0, 200.0)),
    ]  # fmt: skip
    told.clear()
    figures, _ = bench_rounds.repeat("s", chosen[:1], Config("m", rounds=5, quick=True, json="-"))
    assert [turn for _, turn in told] == [0, 1] and figures[1].values == (100.0,)
    told.clear()
    slow = [counted("slow", told, seconds=0.002), counted("quick", told)]
    figures, _ = bench_rounds.repeat("s", slow, Config("m", rounds=3, seconds=0.001, json="-"))
    # what has taken more than its seconds is not begun again, after its first counted round
    assert [turn for name, turn in told if "slow" in name] == [0, 1] and figures[0].values == (1,)
    assert [turn for name, turn in told if "quick" in name] == [0, 1, 2, 3]


def test_progress_counts_all_runs_of_all_workloads(
    asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    @contextmanager
    def progress(label: str, total: int, *, shown: bool) -> Iterator[Callable[..., None]]:
        told.append((label, total, shown))
        yield lambda completed, note: told.append((completed, note))

    monkeypatch.setattr(bench_rounds, "progress", progress)
    bench_rounds.repeat("s", [counted("a", []), counted("b", [])], Config("m", rounds=2))
    assert told == [("m", 6, True), (0, "a"), (1, "b"), (2, "a"), (3, "b"), (4, "a"), (5, "b")]
    bench_rounds.repeat("s", [counted("a", [])], Config("m", quick=True, json="-"))
    assert told[7:] == [("m", 2, False), (0, "a"), (1, "a")]


def test_the_machines_best_speeds_around_the_work_are_kept(asked: list[tuple[Any, ...]]) -> None:
    def work() -> str:
        asked.append(("work",))
        return "done"

    assert bench_rounds.with_machine_speeds(work, 3, once=False, ours=True) == ("done", FAST)
    assert asked == [("speeds", 3, False), ("work",), ("speeds", 3, True), ("kept", FAST)]
    asked.clear()
    assert bench_rounds.with_machine_speeds(work, 2, once=True, ours=False) == ("done", SLOW)
    assert asked == [("work",), ("speeds", 2, False), ("kept", SLOW)]


def test_words_choose_figures_in_any_case_and_by_any_name() -> None:
    workload = counted("Decode", [])
    for only, wanted in (
        ((), True),
        (("x", "dECO"), True),
        (("code 2",), True),
        (("x",), False),
        (("decode 3",), False),
    ):
        assert bench_rounds.is_wanted(workload, only) is wanted
    names = [each.name for each in decoder_workloads(replace(QUICK, streams=(1, 3)), vocab=96, context=64)]
    assert names[:4] == ["prefill 128", "decode 1", "decode 3", "8 chats"] and len(set(names)) == len(names) > 6


def test_long_contexts_take_half_of_the_room_at_most() -> None:
    def names(context: int) -> list[str]:
        return [each.name for each in decoder_workloads(QUICK, vocab=96, context=context)]

    def chosen(context: int, blocks: int) -> list[str]:
        engine: Any = SimpleNamespace(
            architecture=SimpleNamespace(vocab_size=96, max_position=context), runner=SimpleNamespace(fused=object()),
            pool=SimpleNamespace(num_blocks=blocks, block_size=2),
        )  # fmt: skip
        wanted, left_out = bench_decoder.choose(engine, QUICK, ())
        return sorted([*(each.name for each in wanted), *(each.split(": ")[0] for each in left_out)])

    def fits(context: int) -> tuple[int, int]:
        engine: Any = SimpleNamespace(
            architecture=SimpleNamespace(vocab_size=96, max_position=context), runner=SimpleNamespace(fused=object()),
            pool=SimpleNamespace(num_blocks=9000, block_size=2),
        )  # fmt: skip
        wanted, left_out = bench_decoder.choose(engine, QUICK, ("prefill 128",))
        return len(wanted), len(left_out)

    assert (fits(130), fits(129)) == ((1, 0), (0, 1)), "a prompt of 128 tokens and two more"
    assert names(180) != names(360) != names(150)
    # nine tenths of 400 positions are 360, half of which are 180
    assert chosen(1 << 14, 200) == sorted(names(180)) and chosen(150, 200) == sorted(names(150))


def test_words_that_no_figure_has_are_refused_with_the_names(tmp_path: Path) -> None:
    encoder, decoder = inspect(write_embedder(tmp_path / "e")), inspect(tiny.write_model(tmp_path / "d"))
    bench.check_words(("embed",), encoder, QUICK)
    bench.check_words(("nothing", "choices"), decoder, QUICK)
    with pytest.raises(ConfigError) as refused:
        bench.check_words(("decode", "x"), encoder, QUICK)
    assert str(refused.value) == ("only is 'decode,x': no figure has such a word in its name; there are embeddings")
    with pytest.raises(ConfigError, match=r"only is 'embed': .*; there are prefill 128, decode 1, "):
        bench.check_words(("embed",), decoder, QUICK)
    assert bench.chosen_sizes(Config(quick=True)) is QUICK and bench.chosen_sizes(Config()) == WorkloadSizes()


def test_an_encoder_and_a_decoder_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measure_encoder", lambda *given: ("encoder", *given))
    monkeypatch.setattr(bench, "measure_decoder", lambda *given: ("decoder", *given))
    encoder, decoder = write_embedder(tmp_path / "e"), tiny.write_model(tmp_path / "d")
    quick = Config("m", quick=True)
    assert bench.measure(quick, encoder) == ("encoder", quick, encoder, inspect(encoder), QUICK)
    assert bench.measure(Config("m"), decoder) == ("decoder", Config("m"), decoder, WorkloadSizes())
    with pytest.raises(ConfigError, match="no figure has such a word"):
        bench.measure(Config("m", only=("embed",)), decoder)


def test_a_result_is_shown_with_what_it_stands_on(capsys: pytest.CaptureFixture[str]) -> None:
    made = result(machine={"key": "k", "load": 0.0, "cores": 2}, speeds=SLOW)
    bench.show(made)
    told = words(capsys.readouterr().out)
    assert told == [
        "a", "figure median (range) description", "prefill 512 800 (700-900) tokens/s a prompt",
        "decode 1 100 (90-120) tokens/s one | answer", "left out: 32 chats: too little memory", "a machine", SLOW.line(),
        "weights: int8, 100.0 MB read in each step of decoding",
    ]  # fmt: skip
    bench.show(replace(made, machine={"key": "k", "load": 99.0, "cores": 2}, left_out=("x: y", "z: w")))
    told = words(capsys.readouterr().out)
    assert told[4:6] == ["left out: x: y", "left out: z: w"]
    assert told[-1] == "the machine was busy with other work: it can do better than these numbers"


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> Callable[[Config], tuple[int, list[Any]]]:
    """Runs the command on a result that is there already."""
    made = result(speeds=SLOW)

    def run(config: Config) -> tuple[int, list[Any]]:
        told: list[Any] = []
        monkeypatch.setattr(bench, "fetch_model", lambda name, *, shown: told.append((name, shown)) or Path("p"))
        monkeypatch.setattr(bench, "measure", lambda config, path: told.append((config, path)) or made)
        return bench.main(config), told

    return run


def test_a_result_is_printed_written_and_kept_where_it_is_whole(
    ready: Callable[[Config], tuple[int, list[Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = result(speeds=SLOW)
    text = json.dumps(made.to_json(), indent=2)
    config = Config("a", rounds=4, out=str(tmp_path / "b.md"), json=str(tmp_path / "b.json"))
    assert ready(config) == (0, [("a", True), (config, Path("p"))])
    assert "prefill 512" in capsys.readouterr().out
    assert (tmp_path / "b.md").read_text() == made.markdown() and (tmp_path / "b.json").read_text() == f"{text}\n"
    assert saved_results("0123456789abcdef") == [made]
    for file in (tmp_path / "home" / "bench").rglob("*.json"):
        file.unlink()
    assert ready(Config("a", json="-", quick=True)) == (
        0,
        [("a", False), (Config("a", json="-", quick=True), Path("p"))],
    )
    assert capsys.readouterr().out == f"{text}\n" and saved_results("0123456789abcdef") == []
    assert ready(Config("a", threads=2))[0] == 0 and saved_results("0123456789abcdef") == [], "planners expect defaults"
    for given in ({"out": "/none/x.md"}, {"json": "/none/x.json"}):
        with pytest.raises(ConfigError, match="the folder of '/none/x"):
            ready(Config("a", **given))  # type: ignore[arg-type]
    with pytest.raises(StoreError) as refused:
        bench.write(str(tmp_path), "x")
    assert str(refused.value) == f"{tmp_path} could not be written: Is a directory"


def test_files_may_be_in_the_home_folder_and_a_dash_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in (None, "", "-", "x.md", "~/x.md", str(tmp_path / "x")):
        bench.check_writable(path)
    with pytest.raises(
        ConfigError, match=r"^the folder of '~/no/x\.md' does not exist: make it, or name another file$"
    ):
        bench.check_writable("~/no/x.md")
    bench.write("~/x.md", "ü")
    assert (tmp_path / "x.md").read_bytes() == "ü".encode()


def test_the_command_of_a_config_names_what_is_not_the_default() -> None:
    given = Config("a b", 4, 0.5, "auto", 3, "int8", "int8", ("x y", "z"), quick=True, out="o", json="-")
    assert given.command() == (
        "firsthand bench 'a b' --rounds 4 --seconds 0.5 --device auto --threads 3 --weights int8 --kv-cache int8 "
        "--only 'x y,z' --quick --out o --json -"
    )
    assert Config("m").command() == "firsthand bench m"
    assert Config("m", seconds=0, rounds=1).command().endswith("--seconds 0")
    assert Config("m", 9, 1, out="o", json="-").is_whole
    for name, value in (("device", "auto"), ("threads", 1), ("weights", "int8"), ("kv_cache", "int8"), ("only", ("x",)),
                        ("quick", True)):  # fmt: skip
        assert not replace(Config("m"), **{name: value}).is_whole
    for name, value, told in (
        ("rounds", 0, "rounds is 0: give 1 or more"), ("seconds", -0.1, "seconds is -0.1: give 0 or more"),
        ("threads", 0, "threads is 0: give 1 to 1024"), ("threads", 1025, "threads is 1025: give 1 to 1024"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            Config("m", **{name: value})
        assert str(refused.value) == told
    assert Config("m", threads=1024, rounds=1, seconds=0).threads == 1024
