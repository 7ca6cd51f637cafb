"""What `firsthand tokens`, `tour`, `sessions` and `contamination` print of small cases, and what they pass on."""

from __future__ import annotations

import getpass
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand import catalog
from firsthand.benchmark import Benchmark
from firsthand.commands import tokens, tour
from firsthand.contamination import contamination_tests, ngram_overlap
from firsthand.contamination.leak_evidence import ContaminationReport, Evidence
from firsthand.loop.form import FormField
from firsthand.reading import tour_progress, tour_steps
from firsthand.runs.run_names import DATABASE
from firsthand.serve.agents.session_store import SessionStore
from firsthand.task import Task
from firsthand.tokens import fertility
from printed_tables import widen, words

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables have all their columns side by side."""
    widen(monkeypatch)


# -- tokens --


class Letters:
    """A token for each byte."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def token_bytes(self, id: int) -> bytes:
        return bytes([id])


class Pairs(Letters):
    """A token for every two letters."""

    def encode(self, text: str) -> list[int]:
        return super().encode(text)[::2]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """The tokenizers `a` and `b`, and what was opened."""
    asked: list[tuple[str, bool]] = []

    def give(name: str, *, shown: bool) -> Letters:
        asked.append((name, shown))
        return {"a": Letters(), "b": Pairs()}[name]

    monkeypatch.setattr(tokens, "_open", give)
    return asked


def test_a_text_is_shown_in_its_pieces_with_counts_and_costs(opened: list[tuple[str, bool]], cli: Cli) -> None:
    code, out, _ = cli("tokens", "a\tb\n dé", "--model", "a,b,a", "--price", "a=2,b=1e6")
    assert code == 0 and opened == [("a", True), ("b", True)] and words(out) == [
        "a: a|\\t|b|\\n| |d|\\xc3|\\xa9", "b: a|b| |\\xc3", "7 characters",
        "model tokens per word characters per token cost, USD", "a 8 2.67 0.88 0.000016", "b 4 1.33 1.75 4.000000",
    ]  # fmt: skip
    out = cli("tokens", "ab", "--model", "a,b", "--price", "b=0")[1]
    assert words(out)[-2:] == ["a 2 2.00 1.00 not given", "b 1 1.00 2.00 0.000000"]
    out = cli("tokens", "ab", "--model", "b,a")[1]
    assert [line.split()[0] for line in words(out)[-2:]] == ["b", "a"], "in the order that they are named in"
    out = cli("tokens", "é" * 101, "--model", "a")[1]
    assert out.splitlines()[0] == "a: " + "|".join(["\\xc3", "\\xa9"] * 100) + " ... 2 more"
    assert words(out)[-2:] == ["model tokens per word characters per token", "a 202 202.00 0.50"]
    assert cli("tokens", "x" * 200, "--model", "a")[1].splitlines()[0] == "a: " + "|".join("x" * 200)
    assert words(cli("tokens", "x" * 1200, "--model", "a")[1])[-1] == "a 1,200 1200.00 1.00"


def test_tokens_are_printed_as_json_with_their_ids(opened: list[tuple[str, bool]], cli: Cli) -> None:
    body = json.loads(cli("tokens", "hi ho", "--model", "a,b", "--price", "b=2", "--json")[1])
    assert body == {"characters": 5, "words": 2, "models": [
        {"model": "a", "tokens": 5, "ids": [104, 105, 32, 104, 111], "pieces": list("hi ho"), "cost_usd": None},
        {"model": "b", "tokens": 3, "ids": [104, 32, 111], "pieces": list("h o"), "cost_usd": 6e-6},
    ]} and opened == [("a", False), ("b", False)]  # fmt: skip


def test_a_text_comes_from_the_line_a_file_or_standard_input(
    opened: list[tuple[str, bool]], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def characters(text: str) -> int:
        return int(json.loads(cli("tokens", text, "--model", "a", "--json")[1])["characters"])

    (tmp_path / "text.txt").write_text("from a file")
    assert characters(str(tmp_path / "text.txt")) == 11 and characters("no/such file") == 12
    (tmp_path / "link").symlink_to("text.txt")
    (tmp_path / "gone").symlink_to("nowhere")
    assert characters(str(tmp_path / "link")) == 11
    assert characters(str(tmp_path / "gone")) == len(str(tmp_path / "gone")), "a link to nothing is a text"
    deep = tmp_path / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    (deep / "t").write_text("deep")
    assert 400 < len(str(deep)) < 1000 and characters(str(deep / "t")) == 4
    assert characters("/" * 1024) == 1024, "no path is as long as that"
    monkeypatch.setattr(sys, "stdin", io.StringIO("piped"))
    assert characters("-") == 5
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name, said in [("bytes", "is no text in UTF-8"), ("", "is a folder: give a file, or pipe the text")]:
        code, _, err = cli("tokens", str(tmp_path / name), "--model", "a")
        assert code == 2 and said in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x --price a", "price is 'a': write MODEL=DOLLARS for a million tokens, of one of a, b"),
        ("x --price c=1", "price is 'c=1'"), ("x --price a=-1", "price is 'a=-1'"), ("x --price a=1e9", "price is 'a=1e9'"),
        ("x --price a=x", "price is 'a=x'"), ("--train f", "--train and --out belong together"),
        ("x --out f", "--train and --out belong together"), ("x --train f --out o", "--train takes no text to show"),
        ("--languages --train f --out o", "--train takes no text"), ("x --kind unigram", "--kind goes with --train"),
        ("x --vocab-size 9", "--vocab-size goes with --train"), ("x --cut gpt-2", "--cut goes with --train"),
        ("x --languages", "--languages counts a text of its own"), ("", "a text is missing, as in"),
    ],
)  # fmt: skip
def test_words_of_tokens_that_make_no_sense_are_refused(
    opened: list[tuple[str, bool]], cli: Cli, line: str, said: str
) -> None:
    code, out, err = cli("tokens", *line.split(), "--model", "a,b")
    assert code == 2 and said in err and not out and not opened


def test_languages_are_counted_beside_english(
    opened: list[tuple[str, bool]], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fertility, "ARTICLE_1", {"English": "ab cd", "Thai": "abcdefgh"})
    monkeypatch.setattr(fertility, "_UNSPACED", {"Thai"})
    assert words(cli("tokens", "--languages", "--model", "a")[1]) == [
        "a: article 1 of the Declaration of Human Rights", "language tokens per word vs. English",
        "English 5 2.50 1.00", "Thai 8 no blanks 1.60",
    ]  # fmt: skip
    thai = {"language": "Thai", "tokens": 4, "words": None, "premium": 4 / 3, "tokens_per_word": None}
    assert json.loads(cli("tokens", "--languages", "--model", "b", "--json")[1])["b"][1] == thai


def test_a_vocabulary_is_trained_on_the_lines_of_a_file(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from firsthand.train import vocabulary

    asked: list[Any] = []

    def trained(lines: Any, folder: Path, **named: Any) -> SimpleNamespace:
        asked.append((list(lines), folder, named))
        return SimpleNamespace(vocab_size=1234)

    monkeypatch.setattr(vocabulary, "train_vocabulary", trained)
    corpus = tmp_path / "corpus.txt"
    corpus.write_bytes(b"one\r\ntwo\n")
    line = ["tokens", "--train", str(corpus), "--out", "o"]
    assert cli(*line)[:2] == (0, "o: bpe vocabulary of 1,234 tokens\n")
    out = cli(*line, "--kind", "unigram", "--vocab-size", "50", "--cut", "gpt-2", "--json")[1]
    assert json.loads(out) == {"folder": "o", "kind": "unigram", "vocab_size": 1234}
    assert asked == [
        (["one\r\n", "two\n"], Path("o"), {"kind": "bpe", "vocab_size": 32_000, "cut": "llama-3"}),
        (["one\r\n", "two\n"], Path("o"), {"kind": "unigram", "vocab_size": 50, "cut": "gpt-2"}),
    ]
    corpus.write_bytes(b"\xff\xff")
    for file, said in [(corpus, "is no text in UTF-8"), (tmp_path / "none", "cannot be read: No such file")]:
        code, _, err = cli("tokens", "--train", str(file), "--out", "o")
        assert code == 2 and f"{file} {said}" in err


# -- tour --


def step(number: int, id: str, **more: Any) -> tour_steps.TourStep:
    return tour_steps.TourStep(
        number, id, f"Title {id}", "An idea.", f"firsthand power '{id} 1'", "A look.", "react", "p.md", **more
    )


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three steps, and the folder of the tour."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    three = (step(1, "one", makes="made"), step(2, "two", weights=True), step(3, "three", after="one"))
    for module in (tour_steps, tour_progress):
        monkeypatch.setattr(module, "tour_steps", lambda: three)
    return tmp_path / "tour"


def test_the_tour_lists_its_steps_and_says_which_is_next(steps: Path, cli: Cli) -> None:
    head = ["A tour through the reading list", "step title state needs"]
    rows = ["1 Title one", "2 Title two SmolLM2", "3 Title three"]
    code, out, _ = cli("tour")
    assert code == 0 and words(out) == [*head, *rows, "`firsthand tour 1` is the next step."]
    assert cli("tour", "--page")[0] == cli("tour", "--json")[0] == cli("tour", "2")[0] == 0
    tour_progress.mark_done(tour_steps.tour_step("one"))
    rows[0] += " done"
    assert words(cli("tour")[1]) == [*head, *rows, "`firsthand tour 2` is the next step."]
    body = json.loads(cli("tour", "--json")[1])
    assert [each["id"] for each in body] == ["one", "two", "three"] and body[0]["done"] and body[1]["done"] is None
    tour_progress.mark_done(tour_steps.tour_step("2")), tour_progress.mark_done(tour_steps.tour_step("3"))
    assert words(cli("tour")[1])[-1] == "All steps are done."
    said = "All steps are done. `firsthand claims` tells, line by line, what of the reading list holds here.\n"
    assert cli("tour", "next")[:2] == (0, said)
    assert words(cli("tour", "--reset")[1])[-1] == "`firsthand tour 1` is the next step."
    tour_progress.mark_done(tour_steps.tour_step("two"))
    assert "step 3 uses what step 1 made" in cli("tour", "3", "--yes")[2], "another step's end is not enough"


def test_a_steps_command_runs_in_the_tours_folder_without_what_it_made_before(
    steps: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, codes = [], iter([0, 3, -2])

    def run(words: list[str], *, cwd: Path, check: bool) -> SimpleNamespace:
        ran.append((words, cwd, check, sorted(each.name for each in cwd.iterdir())))
        return SimpleNamespace(returncode=next(codes))

    monkeypatch.setattr(subprocess, "run", run)
    assert cli("tour", "3", "--yes")[2].strip().endswith("step 3 uses what step 1 made: run `firsthand tour 1` first")
    steps.mkdir()
    for name in ("made-wal", "made-shm", "made.lock", "kept"):
        (steps / name).touch()
    (steps / "made").mkdir()
    (steps / "made" / "inside").touch()
    code, out, _ = cli("tour", "next", "--yes")
    assert code == 0 and out.startswith("1. Title one\n\nAn idea.\n\n    firsthand power 'one 1'\n\nA look.\n\nNext: ")
    assert out.endswith(f"\nin {steps}:\n$ firsthand power 'one 1'\n\n") and list(tour_progress.steps_done()) == ["one"]
    (steps / "made").touch()
    code, _, err = cli("tour", "three", "--yes")
    assert code == 3 and err == "\nthe command ended with 3: step 3 is not done\n"
    assert cli("tour", "2", "--yes")[0] == 130 and list(tour_progress.steps_done()) == ["one"]
    line = [sys.executable, "-P", "-m", "firsthand", "power"]
    assert ran == [
        ([*line, "one 1"], steps, False, ["kept"]),
        ([*line, "three 1"], steps, False, ["kept", "made", "progress.json"]),
        ([*line, "two 1"], steps, False, ["kept", "made", "progress.json"]),
    ]


def test_enter_alone_runs_a_step_and_only_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def agreed(answer: str | None, *, stdin: bool = True, stdout: bool = True) -> bool:
        def give(prompt: str) -> str:
            asked.append(prompt)
            if answer is None:
                raise EOFError
            return answer

        with monkeypatch.context() as patch:
            patch.setattr("builtins.input", give)
            patch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: stdin))
            patch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: stdout))
            return tour._agreed()

    assert [agreed(each) for each in ("", "  ", "n", "yes", None)] == [True, True, False, False, False]
    assert asked == ["\nEnter runs the command, anything else leaves: "] * 5
    assert not agreed("", stdin=False) and not agreed("", stdout=False) and len(asked) == 5


# -- sessions --


def test_sessions_are_listed_and_their_questions_answered_once(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    store = SessionStore(tmp_path, create=True)
    (tmp_path / DATABASE).touch()
    first, second = store.open_session("x", "s1"), store.open_session("y", "s2")
    done, failed = store.add_turn(first.id, "What\n is  it?", id="t1"), store.add_turn(first.id, "q" * 61, id="t2")
    store.move(done.id, "completed", answer="a" * 60), store.move(failed.id, "failed", error="no\tmodel")
    waits = store.add_turn(second.id, "book", id="t3")
    store.move(waits.id, "input_required")
    leave = store.asked("t3", "c1", "pay", "writes", {"sum": 3}, "Pay 3?\nNow?")
    form = store.asked("t3", "c2", "fly", "writes", {}, "Where to?", [FormField("city", "string", required=True)])
    listed = [
        "client session turn state question answer", f"x s1 1 completed What is it? {'a' * 60}",
        f"x s1 2 failed {'q' * 59}… no model", "y s2 1 input_required book",
    ]  # fmt: skip
    folder = str(tmp_path)
    assert words(cli("sessions", folder)[1]) == [
        *listed, "2 approvals waiting", f"{leave.id} y", "Pay 3?", "Now?", f"{form.id} y", "Where to?",
    ]  # fmt: skip
    body = json.loads(cli("sessions", folder, "--json")[1])
    assert [each["id"] for each in body["sessions"]] == [first.id, second.id]
    assert list(body["sessions"][0]) == ["id", "owner", "context", "turns"] and body["sessions"][1]["owner"] == "y"
    assert [each["id"] for each in body["sessions"][0]["turns"]] == ["t1", "t2"]
    assert [each["id"] for each in body["approvals"]] == [leave.id, form.id]
    code, _, err = cli("sessions", folder, "--approve", form.id, "--answers", "[1]")
    assert code == 2 and "answers is '[1]': give a JSON object, such as '{\"city\": \"Oslo\"}'" in err
    assert cli("sessions", folder, "--approve", form.id, "--answers", "{oops")[0] == 2 and len(store.pending()) == 2
    said = cli("sessions", folder, "--approve", form.id, "--answers", '{"city": "Oslo"}', "--reason", "why not")
    assert said[:2] == (0, "fly is approved\n") and cli("sessions", folder, "--deny", leave.id)[1] == "pay is denied\n"
    answered = store.approval(form.id)
    assert (answered.state, answered.answered_by, answered.reason) == ("allowed", "ada at a terminal", "why not")
    assert answered.content == {"city": "Oslo"} and store.approval(leave.id).state == "denied"
    code, _, err = cli("sessions", folder, "--approve", leave.id)
    assert code == 2 and f"{leave.id} was denied, or its turn is over: it is answered once" in err
    assert words(cli("sessions", folder)[1]) == [*listed, "0 approvals waiting"]
    store.close()
    for line, what in [
        (["--approve", "a", "--deny", "b"], "approve and deny do not go together: answer one call at a time"),
        (["--reason", "r"], "reason goes with approve or deny: name the call"),
        (["--deny", "a", "--answers", "{}"], "answers fill in a form: name it with approve"),
    ]:
        code, _, err = cli("sessions", folder, *line)
        assert code == 2 and what in err


# -- contamination --


def test_evidence_of_a_leak_is_printed_with_its_limits(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, asked, closed = [Task(str(at), f"q{at}") for at in range(3)], [], []
    seeds: list[int] = []
    monkeypatch.setattr(catalog, "benchmark", lambda name: Benchmark("own", lambda s: (seeds.append(s), tasks)[1], ()))
    monkeypatch.setattr(
        catalog,
        "model",
        lambda name, device: SimpleNamespace(name=name, device=device, close=lambda: closed.append(name)),
    )
    evidence = (
        Evidence("order", "asks", 1.0, 0.0004, 9, "8 of 9 in order", limits="Not paraphrases."),
        Evidence("canary", "asks", detail="no canary", limits="Nothing."),
        Evidence("min-k%", "asks", 1.0, 0.5, 9, "5 of 9", limits="Not paraphrases."),
    )

    async def contamination(*given: Any, **named: Any) -> ContaminationReport:
        asked.append((given, named))
        return ContaminationReport("own", "m", evidence)

    monkeypatch.setattr(contamination_tests, "contamination", contamination)
    overlap = []
    monkeypatch.setattr(
        ngram_overlap, "overlap_evidence", lambda tasks, **named: overlap.append((len(tasks), named)) or None
    )
    code, out, _ = cli("contamination", "b", "--model", "m", "--limit", "2", "--seed", "5", "--canary", "C")
    assert code == 3 and not overlap and seeds == [5] and closed == ["m"]
    assert words(out)[:5] == [
        "own: m", "test p p corrected evidence", "order 0.0004 0.0008 8 of 9 in order", "canary - - no canary",
        "min-k% 0.5 0.5 5 of 9",
    ]  # fmt: skip
    assert words(out)[5].startswith("m behaves as if it had been trained on items of own: order (p 0.0008)")
    assert out.endswith("\nLimits:\n- Not paraphrases.\n")
    given, named = asked[0]
    assert given[:2] == ("own", tasks[:2]) and (given[2].name, given[2].device) == ("m", "cpu")
    tests = ["min-k%", "min-k%++", "order", "canary", "completion", "options"]
    assert sorted(named.pop("tests")) == sorted(tests)
    assert named == {"reference": None, "canary": "C", "guided": False, "seed": 5}
    evidence = evidence[1:2]
    line = [
        "--model",
        "m",
        "--reference",
        "r",
        "--guided",
        "--tests",
        "order,n-grams",
        "--corpus",
        "c",
        "--device",
        "cuda",
    ]
    code, out, _ = cli("contamination", "b", *line, "--json")
    assert code == 0 and json.loads(out)["verdict"] == "untested" and json.loads(out)["corpus"] == "c"
    given, named = asked[1]
    assert given[1] == tasks and (named["reference"].name, named["reference"].device) == ("r", "cuda")
    assert named["guided"] and named["tests"] == ["order"] and closed[1:] == ["m", "r"]
    cli("contamination", "b", "--index", "i")
    assert overlap == [(3, {"corpus": Path("c"), "index": None}), (3, {"corpus": None, "index": Path("i")})]
    assert asked[2][0][2] is None
    built: list[object] = []
    monkeypatch.setattr(ngram_overlap.CorpusIndex, "build", lambda *paths: built.append(paths))
    cli("contamination", "b", "--corpus", "c", "--build-index", "i")
    assert built == [(Path("c"), Path("i"))] and overlap[2][1] == {"corpus": Path("c"), "index": Path("i")}
    for line, said in [
        (["--tests", "order", "--corpus", "c"], "the test order asks a model: name one with --model"),
        (["--tests", "n-grams", "--model", "m"], "the test n-grams searches texts: give --corpus or --index"),
        (["--reference", "r", "--corpus", "c"], "reference is a control for a model: name it with --model"),
    ]:
        code, _, err = cli("contamination", "b", *line)
        assert code == 2 and said in err
