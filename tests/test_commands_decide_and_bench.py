"""`rag decide` and the decoder's part of `bench` pass on every option, and print whole lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine_tiny import tiny_engine
from firsthand.commands import rag_decide
from firsthand.commands.bench_decoder import bounded, choose, decoder_workloads, memory
from firsthand.commands.rag_decide import Config, read_questions
from firsthand.errors import ConfigError, DataError
from firsthand.experiment.rag_decision import ArmResult, FactChange, FactQuestion
from firsthand.measure.machine_speeds import Speeds
from firsthand.measure.measurements import Measured
from firsthand.measure.workloads import QUICK
from firsthand.retrieval.corpus import close_corpora
from firsthand.runs.store import open_run
from firsthand.stats.intervals import Interval
from firsthand.stats.paired import PairedDifference
from firsthand.system import terminal

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "home"
    close_corpora()


# -- rag decide --


FACTS = {
    "alder": ("Where is alder?", "Oslo"),
    "birch": ("Who leads birch?", "Maria"),
    "cedar": ("What is cedar?", "violet"),
}


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "docs").mkdir()
    for name, (question, answer) in FACTS.items():
        (tmp_path / "docs" / f"{name}.md").write_text(f"{question} {answer}.\n")
    rows = [{"question": q, "answer": a, "document": f"{name}.md"} for name, (q, a) in FACTS.items()]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "docs"), str(tmp_path / "q.jsonl")


@pytest.mark.slow
def test_seed_limits_and_sizes_reach_both_runs_and_their_agents(cli: Cli, home: Path, files: Any) -> None:
    flags = ["--k", "2", "--max-chars", "777", "--limit", "2", "--concurrency", "3", "--seed", "9", "--change", "100%"]
    words = [
        "rag",
        "decide",
        *files,
        "--model",
        "scripted:echo",
        "--embedder",
        "none",
        "--arms",
        "RAG",
        *flags,
        "--json",
    ]
    code, out, err = cli(*words)
    assert (code, err) == (0, "")
    body = json.loads(out)
    assert list(body) == ["arms", "diagnosis", "run", "changed", "index_s", "trained_s", "changed_run"]
    assert [each["arm"] for each in body["arms"]] == ["closed book", "RAG"] and body["changed"] == 2
    assert body["trained_s"] == 0.0 < body["index_s"] and body["run"] != body["changed_run"]
    indexes = []
    for name in ("run", "changed_run"):
        with open_run(body[name], home) as run:
            assert (run.config["seed"], run.config["concurrency"]) == (9, 3)
            assert [task.prompt for task in run.tasks().values()] == [q for q, _ in list(FACTS.values())[:2]]
            options = run.agents()["RAG"]["options"]
            assert (options["k"], options["max_chars"]) == (2, 777)
            indexes.append(Path(options["index"]).name)
            answers = sorted(task.secret["answer"] for task in run.tasks().values())
            assert answers == ["Maria", "Oslo"]
            assert [task.metadata["documents"] for task in run.tasks().values()] == [["alder.md"], ["birch.md"]]
    assert indexes[1] == f"changed-{indexes[0]}" and indexes[0].startswith("decide-")
    code, out, _ = cli(*[each if each != "100%" else "0" for each in words])
    assert code == 0 and "changed_run" not in json.loads(out) and json.loads(out)["changed"] == 0


def test_what_was_found_is_printed_row_by_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = terminal.console

    def console(**options: bool) -> Any:
        found = made(**options)
        found.width = 300
        return found

    monkeypatch.setattr(terminal, "console", console)
    monkeypatch.setattr(rag_decide, "console", console)

    def at(value: float) -> Interval:
        return Interval(value, value - 0.125, value + 0.25, 4)

    versus = PairedDifference(0.5, 0.25, 0.75, 0.01, 4, 2, 0, 2, "better", 0.1)
    bare = ArmResult("closed book", at(0.25), None, 0.125, 0.0, None, None, None, None, 1234.4, 56.6, 0.0, 0)
    full = ArmResult("RAG", at(0.75), versus, 0.5, 0.625, 0.875, at(0.5), 0.375, 1.25, 9876.0, 3.2, 1.5, 1)
    tuned = replace(full, arm="LoRA", update_s=None, retrieved=None)
    rag_decide._print([bare, full, tuned], ["[b]One.", "Two."], {"run": "[b]A", "changed": 2, "changed_run": "B"}, 4)
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines() if line.strip(" ─")]
    assert lines[:4] == [
        "arm quality vs. closed book freshness stale update per 1k answers style cited found",
        "closed book 0.25 [0.12, 0.50] 1,234 tokens, 57 s 0.12 0.00",
        "RAG 0.75 [0.62, 1.00] +0.50 [+0.25, +0.75] better 0.50 [0.38, 0.75] 0.38 1.2 s 9,876 tokens, 3 s, $1.50 0.50 "
        "0.62 0.88",
        "LoRA 0.75 [0.62, 1.00] +0.50 [+0.25, +0.75] better 0.50 [0.38, 0.75] 0.38 train again 9,876 tokens, 3 s, $1.50 "
        "0.50 0.62",
    ]
    assert lines[4:6] == ["[b]One.", "Two."] and lines[6].startswith(
        "4 questions, 2 facts changed. Quality: the answer"
    )
    assert lines[-2:] == ["runs [b]A", "B"]
    rag_decide._print([bare], [], {"run": "A", "changed": 0}, 4)
    assert capsys.readouterr().out.rstrip().endswith("\nruns      A")


def test_an_arm_takes_changes_in_by_its_own_way() -> None:
    costs = {arm: rag_decide._update(arm, 2.0, 7.0) for arm in
             ("closed book", "RAG", "long context", "oracle context", "LoRA", "LoRA + RAG")}  # fmt: skip
    assert costs == {
        "closed book": None, "RAG": 2.0, "long context": 0.0, "oracle context": 0.0, "LoRA": 7.0, "LoRA + RAG": 2.0,
    }  # fmt: skip
    change = FactChange(FactQuestion("line-0003", "Q?", "old", ("a", "b")), "b", "new")
    assert rag_decide._with_answer(change) == FactQuestion("line-0003", "Q?", "new", ("b",))


def test_closed_book_comes_first_and_the_oracle_needs_documents(capsys: pytest.CaptureFixture[str]) -> None:
    known, unknown = FactQuestion("1", "q", "a", ("d",)), FactQuestion("2", "r", "b", ())

    def arms(*questions: FactQuestion, **given: Any) -> list[str]:
        return rag_decide._arms(Config(Path("d"), Path("q"), **given), questions)

    assert arms(known, arms=("RAG", "closed book", "oracle context")) == ["closed book", "RAG", "oracle context"]
    assert arms(known, arms=("RAG",), lora=True) == ["closed book", "RAG", "LoRA", "LoRA + RAG"]
    assert capsys.readouterr().err == ""
    assert arms(unknown, arms=("oracle context", "RAG")) == ["closed book", "RAG"]
    assert " ".join(capsys.readouterr().err.split()) == (
        "No question names its document, so there is no oracle and no diagnosis."
    )
    assert arms(known, unknown, arms=("RAG",)) == ["closed book", "RAG"]
    with pytest.raises(ConfigError, match="some questions name their document and others do not"):
        arms(known, unknown)
    rag_decide._check_documents([known, unknown], {"d": ""})
    with pytest.raises(DataError, match="question 'q' names the document 'd', which was not indexed"):
        rag_decide._check_documents([unknown, known], {"e": ""})


def test_questions_keep_their_line_and_bad_ones_are_told_whole(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "a", "answer": "b"}\n\n{"question": "ä", "answer": "d", "document": ["x", "y"]}\n'
                    '{"question": "e", "answer": "f", "document": "z"}\n')  # fmt: skip
    assert read_questions(file) == [
        FactQuestion("line-0001", "a", "b", ()), FactQuestion("line-0003", "ä", "d", ("x", "y")),
        FactQuestion("line-0004", "e", "f", ("z",)),
    ]  # fmt: skip
    for text, told in (
        ('{"question": "a", "answer": "b"}\n', f"{file} has 1 question: intervals need two or more"),
        ("\n[1]\n", f"{file}, line 2: a JSON object was expected, not '[1]'"),
        ('{"question": "a"}\n', f"{file}, line 1: the field 'answer' is missing, and text was expected"),
        ('{"question": " ", "answer": "b"}', f"{file}, line 1: the field 'question' holds ' ', and text was expected"),
        ('{"question": "a", "answer": 5}', f"{file}, line 1: the field 'answer' holds '5', and text was expected"),
        ('{"question": "a", "answer": "b", "document": [1]}',
         f"{file}, line 1: 'document' is '[1]', and a path or a list of paths was expected"),
    ):  # fmt: skip
        file.write_text(text)
        with pytest.raises(DataError) as refused:
            read_questions(file)
        assert str(refused.value) == told
    file.write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"is not UTF-8 text \(byte 2\): give a \.jsonl file"):
        read_questions(file)
    with pytest.raises(DataError, match="cannot be read: No such file or directory"):
        read_questions(tmp_path / "gone.jsonl")


def test_shares_and_counts_of_the_settings_have_their_limits() -> None:
    def made(**given: Any) -> Config:
        return Config(Path("d"), Path("q"), **given)

    shares = {"0": 0.0, " 20% ": 0.2, "0.25": 0.25, "100%": 1.0, "1": 1.0}
    assert {text: made(change=text).changed_share() for text in shares} == shares
    for change in ("101%", "1.01", "-1%", "x", "nan"):
        with pytest.raises(ConfigError, match=r"give a share such as 20% or 0\.2, or 0 for none"):
            made(change=change)
    for name in ("k", "max_chars", "concurrency", "limit"):
        made(**{name: 1})
        with pytest.raises(ConfigError, match=f"{name} is 0: give 1 or more"):
            made(**{name: 0})


# -- bench of a decoder --


def engine_of(*, context: int, blocks: int, block: int = 1, fused: object = None) -> Any:
    return SimpleNamespace(
        architecture=SimpleNamespace(vocab_size=96, max_position=context),
        pool=SimpleNamespace(num_blocks=blocks, block_size=block), runner=SimpleNamespace(fused=fused),
    )  # fmt: skip


def test_a_workload_is_left_out_for_its_context_its_cache_or_its_kernels_at_the_limit() -> None:
    known = decoder_workloads(QUICK, vocab=96, context=1 << 14)
    assert len({each.name for each in known}) == len(known)
    each = next(work for work in known if work.name.startswith("decode ") and work.positions > work.longest)
    only = (each.name,)
    assert each.longest > 1
    blocks = next(n for n in range(each.positions, 2 * each.positions) if int(0.9 * n) == each.positions)

    def chosen(**given: Any) -> tuple[list[str], list[str]]:
        wanted, left_out = choose(engine_of(**given), QUICK, only)
        return [work.name for work in wanted], left_out

    assert chosen(context=each.longest, blocks=blocks) == ([each.name], [])
    assert chosen(context=each.longest - 1, blocks=blocks) == (
        [], [f"{each.name}: a sequence of it has {each.longest:,} tokens, and the model's context is {each.longest - 1:,}"],
    )  # fmt: skip
    assert chosen(context=each.longest, blocks=blocks - 2) == (
        [],
        [f"{each.name}: it needs a KV cache of {each.positions:,} tokens, and the engine's holds "
         f"{int(0.9 * (blocks - 2)):,}"],
    )  # fmt: skip
    kernels = next(work for work in known if work.needs_kernels)
    for fused, wanted in ((None, 0), (object(), 1)):
        found, left_out = choose(engine_of(context=1 << 14, blocks=1 << 20, fused=fused), QUICK, (kernels.name,))
        assert len(found) == wanted and left_out == [
            f"{kernels.name}: the model does not run in the compiled step, so its attention is torch's own"
        ] * (1 - wanted)


def test_decoding_is_a_share_of_the_fastest_reading_and_memory_is_told_by_differences() -> None:
    figures = [
        Measured("decode 1", "tokens/s", "m", (50.0, 100.0, 25.0)),
        Measured("decode 8", "tokens/s", "m", (9.0,)),
    ]
    (share,) = bounded(figures, 100_000_000, Speeds(threads=2, read_gb_s=20.0, float32_gflop_s=1.0))
    # 20 GB/s read 100 MB 200 times a second; nothing here was faster
    assert share.values == (25.0, 50.0, 12.5) and (share.name, share.unit) == (
        "memory's speed reached by decode 1",
        "%",
    )
    (share,) = bounded(figures, 100_000_000, Speeds(threads=2, read_gb_s=5.0, float32_gflop_s=1.0))
    assert share.values == (50.0, 100.0, 25.0), "decoding at 100 is faster than 50, which was read"
    engine = tiny_engine()
    stats = engine.stats()
    found = memory(engine, (1_000_000, 4_000_000, 9_000_000, 16_000_000))
    assert [(each.name, each.unit, each.values) for each in found] == [
        ("memory: model and cache", "MB", (3.0,)), ("memory: in use at the end", "MB", (16.0,)),
        ("memory: growth", "MB", (7.0,)), ("memory: blocks not freed", "blocks", (0,)),
    ]  # fmt: skip
    assert found[3].meaning == f"of {stats.num_blocks:,}"
