"""`data` and `export` on runs and received traces of a few attempts: every line, file and word on errors."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import otlp_requests as otlp
from firsthand.commands import data, export
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.ingest.cold_segments import read_sealed
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.runs.store import Run
from firsthand.runs.training_data import DataFilter, TrainingRows
from scored_runs import scored_run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


# -- training data --


@pytest.fixture
def runs(home: Path) -> tuple[Run, Run]:
    first = scored_run(home, "one", {
        "ada": {"sums": {"s0": [{"exact": 1.0, "style": 0.25}, {"exact": 0.5, "style": 1.0}], "s1": [None]},
                "words": {"w0": [{"exact": 1.0}]}},
        "bob": {"sums": {"s0": [{"exact": 0.0, "style": 0.5}]}},
    })  # fmt: skip
    return first, scored_run(home, "two", {"ada": {"sums": {"s0": [{"exact": 0.75}]}}})


def answers(text: str) -> list[str]:
    return [json.loads(line)["messages"][-1]["content"] for line in text.splitlines()]


def test_lines_are_printed_or_written_and_what_was_left_out_is_told(
    runs: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    def made(*names: str, **more: Any) -> tuple[list[str], str]:
        assert data.main(data.Config(names, **more)) == 0
        out, err = capsys.readouterr()
        return answers(out), err

    a, b = (run.id for run in runs)
    every, err = made(a, b)
    assert sorted(every) == ["ada s0 0", "ada s0 0", "ada s0 1", "ada w0 0", "bob s0 0"] and err.startswith(
        "5 lines of sft data"
    )
    assert sorted(made(a, min_score=0.5)[0]) == ["ada s0 0", "ada s0 1", "ada w0 0"]
    assert sorted(made(a, score="style", min_score=0.5)[0]) == ["ada s0 1", "bob s0 0"]
    assert sorted(made(a, best_of=1)[0]) == ["ada s0 0", "ada w0 0"]
    assert sorted(made(a, agent="bob")[0]) == ["bob s0 0"] and sorted(made(a, benchmark="words")[0]) == ["ada w0 0"]
    assert made(a, benchmark="words")[1].startswith("1 line of sft data")
    assert data.main(data.Config((a,), as_="sft", min_score=1.0, out="d.jsonl")) == 0
    out, err = capsys.readouterr()
    assert out == "" and sorted(answers(Path("d.jsonl").read_text())) == ["ada s0 0", "ada w0 0"]
    assert err.startswith("2 lines of sft data; left out: ") and "2 below the least score" in err
    assert not Path("d.jsonl.part").exists()
    with pytest.raises(ConfigError, match=r"^nothing is left to train on: loosen the filters, or name other runs$"):
        data.main(data.Config((a,), min_score=2.0, out="e.jsonl"))
    assert capsys.readouterr().err.startswith("0 lines of sft data") and not Path("e.jsonl").exists()
    with pytest.raises(ConfigError, match="nothing is left to train on"):
        data.main(data.Config((a,), min_score=2.0))
    with pytest.raises(StoreError) as refused:
        data.main(data.Config((a,), out="none/e.jsonl"))
    assert str(refused.value) == "none/e.jsonl cannot be written: No such file or directory"


def test_every_filter_of_data_reaches_its_rows(
    runs: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def rows(found: Sequence[Run], kind: str, chosen: DataFilter) -> TrainingRows:
        asked.append(([run.id for run in found], kind, chosen))
        return TrainingRows([{"x": "é"}], Counter({"why": 1, "because": 2, "never": 0}))

    monkeypatch.setattr(data, "training_rows", rows)
    a, b = (run.id for run in runs)
    assert (
        data.main(
            data.Config((b, a), "kto", score="s", min_score=0.5, best_of=2, benchmark="x", agent="y", answers=True)
        )
        == 0
    )
    assert data.main(data.Config((a,), "pairs", all_branches=True)) == 0
    assert asked == [
        ([b, a], "kto", DataFilter("s", 0.5, 2, "x", "y", answers=True)), ([a], "pairs", DataFilter(all_branches=True))
    ]  # fmt: skip
    out, err = capsys.readouterr()
    assert out == '{"x": "\\u00e9"}\n' * 2
    assert err.splitlines() == [f"1 line of {kind} data; left out: 2 because, 1 why" for kind in ("kto", "pairs")]


def test_a_run_that_is_named_twice_counts_once(runs: tuple[Run, Run], capsys: pytest.CaptureFixture[str]) -> None:
    first, second = runs
    assert data.main(data.Config((first.id, "last", str(first.path), second.id))) == 0
    assert sorted(answers(capsys.readouterr().out)) == ["ada s0 0", "ada s0 0", "ada s0 1", "ada w0 0", "bob s0 0"]


def test_settings_of_data_that_do_not_go_together(tmp_path: Path) -> None:
    Path("there").write_text("")
    tasks = "tasks are made of traces into a file, as in: firsthand data traces --as tasks --out set.toml"
    alone = "traces stand alone, and give tasks or sft: firsthand data traces --as tasks --out set.toml"
    for given, told in (
        ({"runs": ()}, "data needs a run, as in: firsthand data last --as sft"),
        ({"runs": ("traces",), "as_": "tasks"}, tasks), ({"as_": "tasks", "out": "x"}, tasks),
        ({"runs": ("traces", "r")}, alone), ({"runs": ("traces",), "as_": "kto"}, alone),
        ({"runs": ("traces",), "answers": True}, "answers is for runs: traces of the Studio are taken whole"),
        ({"filter": "a"}, "filter is for traces: firsthand data traces --filter has:error"),
        ({"scorer": "exact"},
         "scorer is for tasks of traces: firsthand data traces --as tasks --scorer exact --out set.toml"),
        ({"best_of": 1, "as_": "pairs"}, "best_of is for sft and kto: leave it out with pairs"),
        ({"best_of": 1, "as_": "tasks", "runs": ("traces",), "out": "o"},
         "best_of is for sft and kto: leave it out with tasks"),
        ({"min_score": math.inf}, "min_score is inf: give a number"),
        ({"min_score": math.nan}, "min_score is nan: give a number"),
        ({"max_score": math.inf}, "max_score is inf: give a number"),
        ({"limit": 0}, "limit is 0: give 1 or more"),
        ({"limit": 1000}, "limit is for traces: firsthand data traces --limit 100; best_of takes some of a run"),
        *(
            ({"runs": ("traces",), **given},
             f"{next(iter(given))} is for runs: choose traces with filter, as in --filter 'score.helpful>0.5'")
            for given in ({"score": "x"}, {"min_score": 0.0}, {"max_score": 0.0}, {"best_of": 1}, {"benchmark": "b"},
                          {"agent": "a"}, {"agent": "a", "as_": "tasks", "out": "o"})
        ),
        ({"out": "there"}, "there is there already: give another file, or remove it"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            data.Config(**{"runs": ("r",), **given})  # type: ignore[arg-type]
        assert str(refused.value) == told
    good = data.Config(("traces",), "tasks", "set.toml", filter="a", scorer="exact", limit=1)
    assert good.best_of == 0 and data.Config(("r",), "kto", best_of=2, min_score=0.0, answers=True).min_score == 0


@pytest.fixture
def received(home: Path) -> Iterator[None]:
    """Three received traces; the second has a question and no answer."""
    kept = TraceStore(home, create=True)
    for number, (question, answer) in enumerate(
        (("What is 2 + 2?", "4"), ("Well?", " "), ("Wie heißt er?", "Jörg")), 1
    ):
        said = {"role": "assistant", "content": answer} if answer.strip() else {}
        decoded, _ = decode_json(otlp.as_json(otlp.span(
            number, 1, 0, "ask", start_s=float(number),
            **{"openinference.span.kind": "LLM", "input.value": question, "llm.input_messages.0.message.role": "user",
               "llm.input_messages.0.message.content": question,
               **{f"llm.output_messages.0.message.{key}": each for key, each in said.items()}},
        )))  # fmt: skip
        kept.add(SpanPreparer(Redactor()).prepared(decoded))
    kept.close()
    yield


def test_tasks_and_conversations_are_made_of_received_traces(
    received: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def of(**more: Any) -> str:
        assert data.main(data.Config(("traces",), **more)) == 0
        out, err = capsys.readouterr()
        return out + err

    without = "; left out: 1 trace without a question or an answer"
    assert of(as_="tasks", out="set.toml", scorer="exact") == f"2 lines of tasks data{without}\n"
    rows = [json.loads(line) for line in Path("set.jsonl").read_text().splitlines()]
    assert [(row["question"], row["answer"]) for row in rows] == [("Wie heißt er?", "Jörg"), ("What is 2 + 2?", "4")]
    assert 'scorer = ["exact"]' in Path("set.toml").read_text()
    assert of(as_="tasks", out="one.jsonl", limit=1) == "1 line of tasks data\n"
    assert "J\\u00f6rg" in Path("one.jsonl").read_text()
    printed = of(filter=f"id:{1:032x}").splitlines()
    assert answers(printed[0]) == ["4"] and printed[1:] == ["1 line of sft data"]
    told = of(out="sft.jsonl", filter=f"-id:{2:032x}")
    assert told == "2 lines of sft data\n" and answers(Path("sft.jsonl").read_text()) == ["Jörg", "4"]
    assert Path("sft.jsonl").read_bytes().isascii()
    with pytest.raises(ConfigError) as refused:
        data.main(data.Config(("traces",), as_="tasks", out="no.toml", filter=f"id:{2:032x}"))
    assert str(refused.value) == "none of 1 trace has a question and an answer: give another --filter"
    assert not Path("no.toml").exists()


@pytest.mark.parametrize(
    "said",
    [
        {"gen_ai.response.finish_reasons": ["length"]},
        {"gen_ai.response.finish_reasons": '["max_tokens"]'},
        {"gen_ai.completion.0.finish_reason": "content_filter"},
        {"llm.finish_reason": "MAX_TOKENS"},
        {"ai.response.finishReason": "content-filter"},
        {"ai.response.finishReason": "tool-calls"},
        {"ai.response.finishReason": "stop"},
        {},
    ],
)
def test_an_answer_of_a_received_trace_that_was_cut_is_no_example(
    said: dict[str, Any], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = TraceStore(home, create=True)
    for number, how in ((1, {}), (2, said)):
        decoded, _ = decode_json(otlp.as_json(otlp.span(
            number, 1, 0, "ask", start_s=float(number),
            **{"openinference.span.kind": "LLM", "llm.input_messages.0.message.role": "user",
               "llm.input_messages.0.message.content": "What is 2 + 2?",
               "llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": f"4 {number}",
               **how},
        )))  # fmt: skip
        kept.add(SpanPreparer(Redactor()).prepared(decoded))
    kept.close()
    is_cut = not ("stop" in said.values() or "tool-calls" in said.values() or not said)
    assert data.main(data.Config(("traces",))) == 0
    out, err = capsys.readouterr()
    assert answers(out) == (["4 1"] if is_cut else ["4 2", "4 1"])
    assert ("; left out: 1 trace without a question or a whole answer" in err) is is_cut
    if is_cut:
        with pytest.raises(
            ConfigError, match=r"^none of 1 trace has a question and a whole answer: give another --filter"
        ):
            data.main(data.Config(("traces",), filter=f"id:{2:032x}"))


def test_traces_are_read_from_cold_segments_too_and_the_store_is_closed(
    received: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = []
    spans, close = TraceStore.spans, TraceStore.close

    def closing(self: TraceStore) -> None:
        told.append("closed")
        close(self)

    monkeypatch.setattr(TraceStore, "spans", lambda self, id: told.append(self.read_sealed) or spans(self, id))
    monkeypatch.setattr(TraceStore, "close", closing)
    assert data.main(data.Config(("traces",), limit=2)) == 0
    assert told == [read_sealed, read_sealed, "closed"]


def test_data_of_traces_needs_some_and_a_scorer_that_is_known(home: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        data.main(data.Config(("traces",)))
    assert str(refused.value) == "no traces have been received: `firsthand studio` receives them, see docs/traces.md"
    with pytest.raises(UnknownName, match="no scorer 'nope'"):
        data.main(data.Config(("traces",), "tasks", "x.toml", scorer="nope"))
    assert not home.exists()


# -- export --


def test_an_export_needs_a_destination_and_one_that_answers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"^export needs a destination: give --otlp, with the URL of a collector or alone$"
    ):
        export.Config()


@pytest.mark.slow
def test_a_whole_run_or_one_attempt_is_sent_with_its_words_or_without(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from collector import collecting

    monkeypatch.delenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", raising=False)
    closed: list[Any] = []
    close = export.Telemetry.close
    monkeypatch.setattr(export.Telemetry, "close", lambda self: closed.append(self) or close(self))
    run = scored_run(home, "sent", {"ada": {"sums": {"s0": [{"exact": 1.0}], "s1": [{"exact": 0.0}]}}})
    empty = scored_run(home, "empty", {"ada": {}})
    with collecting() as collector:
        assert export.main(export.Config(run.id, otlp=collector.url)) == 0
        sent = len(collector.spans)
        assert capsys.readouterr().out == f"sent: 2 attempts as {sent} spans\n" and sent == 4
        assert b"ada s1 0" not in b"".join(each.SerializeToString() for each in collector.spans)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        assert export.main(export.Config(run.id, "sums/s1", otlp="env", content=True)) == 0
        assert capsys.readouterr().out == "sent: 1 attempt as 2 spans\n"
        later = collector.spans[sent:]
        assert b"ada s1 0" in b"".join(each.SerializeToString() for each in later) and len(later) == 2
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
        assert export.main(export.Config(run.id, "sums/s0", otlp=f"{collector.url}/v1/traces")) == 0
        assert b"ada s0 0" in b"".join(each.SerializeToString() for each in collector.spans[sent + 2 :])
        capsys.readouterr()
        assert export.main(export.Config(empty.id, otlp=collector.url)) == 0
        assert capsys.readouterr().out == "sent: 0 attempts as 0 spans\n"
    asked: list[str] = []
    with monkeypatch.context() as patch, collecting() as collector:
        patch.setattr(export, "check_collector", asked.append)
        patch.setenv("OTEL_TRACES_EXPORTER", "console")
        export.main(export.Config(empty.id, otlp=collector.url))
        export.main(export.Config(empty.id, otlp="env"))
        assert asked == [f"{collector.url}/v1/traces"], "an address that is given is asked for spans in any case"
        patch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        export.main(export.Config(empty.id, otlp="env"))
        assert len(asked) == 2
    del closed[4:]
    with collecting(status=403) as collector, pytest.raises(ConfigError) as refused:
        export.main(export.Config(run.id, otlp=collector.url))
    assert str(refused.value).startswith(
        f"the collector at {collector.url}/v1/traces accepted 0 attempts and refused the next: "
    )
    assert len(closed) == 5, "also after a refusal"


def test_traces_in_which_no_model_was_recorded_are_named_as_such(
    received: None, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = TraceStore(home)
    for number, more in ((4, {"output.value": "4"}), (5, {"output.value": "4", "error": "down"}), (6, {})):
        error = more.pop("error", None)
        held = {"openinference.span.kind": "CHAIN", "input.value": "What?", **more}
        (made,), _ = decode_json(otlp.as_json(otlp.span(number, 1, 0, "add", start_s=float(number), **held)))
        made.error = error
        kept.add(SpanPreparer(Redactor()).prepared([made]))
    kept.close()
    assert data.main(data.Config(("traces",))) == 0
    assert capsys.readouterr().err == (
        "2 lines of sft data; left out: 3 traces without a question or a whole answer,"
        " 1 trace without an answer of a model\n"
    )
    for name, told in (
        ("add", 'none of 3 traces has a whole answer of a model, and sft data are what a model said: give another --filter,'
         ' or record the function that asks the model with @traced(kind="llm")'),
        ("add has:error", "none of 1 trace has a question and a whole answer: give another --filter"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            data.main(data.Config(("traces",), filter=name))
        assert str(refused.value) == told
    assert data.main(data.Config(("traces",), as_="tasks", out="t.toml", filter=f"id:{4:032x}")) == 0
