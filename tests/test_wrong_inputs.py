"""Wrong command lines over all commands: one sentence, the right exit code, no run left, and nothing loaded before.

Each row was tried by hand at 40, 80 and 120 columns, and stands for a class: the words of a sentence are those of the flag
that was typed, and what can be refused is refused before a model is loaded or fetched.
"""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from firsthand.cli import main
from firsthand.hub import model_lookup
from firsthand.runs import store
from firsthand.system.terminal import progress

FILES = {
    "chats.jsonl": '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n',
    "latin.jsonl": "\udcff",
    "text.txt": "hello\n",
    "points.csv": "parameters,tokens,loss\n100,1000,3.0\n",
    "bad.csv": "parameters,tokens,loss\n100,1000,x\n",
    "votes.csv": "model_a,model_b,winner\na,b,model_a\nb,a,model_a\n",
    "results.csv": "model,benchmark,score\nm,gsm8k,0.5\n",
    "notes/a.md": "# A\nResume a run with --resume.\n",
    "empty/none": "",
    "counted.toml": "limit = true\n",
    "plain.py": "def plain(task, ctx) -> str:\n    return 'x'\n",
    "alone.py": "async def alone():\n    return 'x'\n",
}
ROWS: tuple[tuple[str, int, str], ...] = (
    ("train", 0, "usage"),
    ("train nope", 2, "no recipe 'nope'"),
    ("train grpo arithmetic --group-size 1", 2, "group_size is 1: rollouts of a task are compared, so give 2 or more"),
    ("train rloo arithmetic --group-size 1", 2, "group_size is 1"),
    ("train distill chats.jsonl", 2, "--teacher MODEL"),
    ("train distill chats.jsonl --teacher smollm2", 2, "--model MODEL"),
    ("train sft chats.jsonl --lr fast", 2, "lr is 'fast': a number was expected"),
    ("scaling fit points.csv", 1, "1 point came: the law has 5 parameters"),
    ("scaling fit points.csv --drop -1", 2, "drop is -1"),
    ("scaling fit bad.csv", 1, "bad.csv:2: loss is 'x'"),
    ("scaling plan points.csv --flops -1", 2, "flops is -1: expected a number above 0"),
    ("scaling plan points.csv --hours nan", 2, "hours is nan"),
    ("scaling plan points.csv --hours 1 --utilisation 2", 2, "utilisation is 2"),
    ("scaling sweep nowhere/p.csv --widths 8,16", 2, "the folder of 'nowhere/p.csv' does not exist"),
    ("scaling fit latin.jsonl", 1, "latin.jsonl is no CSV file: it is not UTF-8 text"),
    ("serve counted.toml", 2, "model is 'counted.toml': an agent's file goes with --agent, and settings with --config"),
    ("sweep", 2, "give a command for a new sweep"),
    ("sweep true --set lr=log:0:1", 2, "two numbers above 0"),
    ("sweep nope --set lr=1,2", 2, "there is no program 'nope'"),
    ("data last --as foo", 2, "as is 'foo': one of sft, pairs, kto, reward, tasks was expected"),
    ("data nope", 2, "no run 'nope'"),
    ("track nope", 2, "no run 'nope'"),
    ("models pull nope", 2, "no model 'nope'"),
    ("models pull ollama:llama3.2", 2, "`ollama pull llama3.2`"),
    ("models pull openai:gpt-4", 2, "'openai:gpt-4' has no files here"),
    ("bench scripted:echo", 2, "'scripted:echo' has no files here"),
    ("models pull hf:a/b/c", 2, "is not a repository"),
    ("models inspect text.txt", 1, "text.txt is no model"),
    ("rag index empty", 2, "empty: no file there can be indexed (none: "),
    ("rag index notes --include *.pdf", 2, "no file there can be indexed"),
    ("rag index nowhere", 2, "no folder or file 'nowhere'"),
    ("rag ask q --index text.txt", 1, "text.txt is no index"),
    ("rag ask q --index notes --model none --variant nope", 2, "--variant is for a model's answers"),
    ("rag ask q --index notes --model none --device tpu", 2, "--device is for a model's answers"),
    ("rag serve --index notes --model none --form quoted", 2, "--form is for a model's answers"),
    ("rag ask q --index notes --floor 2", 2, "floor is 2.0: give a cosine, from -1 to 1"),
    ("rag decide notes chats.jsonl", 1, "the field 'question' is missing, and text was expected"),
    ("rag decide notes empty/none", 1, "has 0 questions"),
    ("rag label chats.jsonl --index notes", 2, "label needs two files"),
    ("arena scripted:echo sim:game24 --prompts nope.txt", 2, "'nope.txt' cannot be read: No such file or directory"),
    ("board votes.csv --anchor z=1000", 2, "the anchor 'z' is not among the models"),
    ("board votes.csv --confidence 95", 2, "confidence is '95'"),
    ("board text.txt", 2, "text.txt is no table of votes"),
    ("board votes.csv --export board.html", 2, "--export is for results: leave it out for votes"),
    ("board votes.csv --models a", 2, "--models is for results"),
    ("board votes.csv --watch", 2, "--watch is for runs and results"),
    ("board votes.csv --anchor a=nan", 2, "anchor is 'a=nan': write MODEL=RATING"),
    ("board votes.csv --cap -1 --checks", 2, "cap is -1"),
    ("board votes.csv --cap 3", 2, "give --checks too"),
    ("board results.csv --export board.pdf", 2, "export is 'board.pdf': a board is written as .html, .md"),
    ("board results.csv --export nowhere/b.html", 2, "the folder of 'nowhere/b.html' does not exist"),
    ("board results.csv --climb climb.png", 2, "ends in .svg"),
    ("board results.csv --save all.csv", 2, "ends in .results"),
    ("contamination arithmetic --corpus notes --tests order", 2, "the test order asks a model"),
    ("contamination arithmetic --model scripted:echo --tests n-grams", 2, "the test n-grams searches texts"),
    ("contamination arithmetic --corpus notes --build-index text.txt", 2, "text.txt is a file: give a new folder"),
    ("contamination arithmetic --index nowhere", 1, "or is damaged: No such file or directory; build it again"),
    ("interp steer smollm2", 2, "interp steer needs --towards, --away, --prompts, --answer, --other, --unrelated"),
    ("interp patch smollm2 --clean a", 2, "interp patch needs --corrupted, --answer, --other"),
    ("interp probe smollm2", 2, "interp probe needs --positive, --negative"),
    ("interp sae smollm2 --kind lasso", 2, "kind is 'lasso': one of relu"),
    ("interp sae smollm2 --k 0", 2, "k is 0: give 1 or more"),
    ("interp sae smollm2 --layer -1", 2, "layer is -1: give 0 or more"),
    ("interp sae smollm2 --tokens 0", 2, "tokens is 0: give 2048 (a batch) or more"),
    ("interp sae smollm2 --lr nan", 2, "lr is nan"),
    ("interp sae smollm2 --texts nowhere", 2, "no file or folder 'nowhere'"),
    ("interp sae smollm2 --out text.txt", 2, "text.txt is a file: give a folder"),
    ("interp dashboard nowhere", 1, "cfg.json cannot be read: No such file or directory: give the folder"),
    ("interp dashboard notes --pieces 1", 2, "pieces is 1: give 2 or more"),
    ("interp induction --half 0", 2, "half is 0: give 4 or more"),
    ("interp toy --seeds 0", 2, "seeds is 0: give 1 or more"),
    ("memory import new.db nowhere.jsonl", 1, "nowhere.jsonl cannot be read: No such file or directory"),
    ("memory import new.db votes.csv", 1, "line 1: a JSON object was expected"),
    ("mcp --port 9000 --tools calculator", 2, "are for --http"),
    ("mcp --tools calculator --keys text.txt", 2, "are for --http"),
    ("mcp --tools calculator --pattern cot", 2, "an agent needs a model"),
    ("mcp --sign-in example.org", 2, "give the server's URL"),
    ("mcp --http --tools calculator --port 0 --tls-cert text.txt --tls-key text.txt", 2, "give a chain and its key in PEM"),
    ("serve scripted:echo --port 0 --tls-cert text.txt --tls-key text.txt", 2, "give a chain and its key in PEM"),
    ("studio --no-open --sample 2", 2, "sample is 2.0: give a share from 0 to 1"),
    ("studio --no-open --sample -0.1", 2, "sample is -0.1"),
    ("studio --no-open --temperature -1", 2, "temperature is -1"),
    ("studio --no-open --max-tokens 0", 2, "max_tokens is 0: give 1 or more"),
    ("studio --no-open --database mysql://x", 2, "write postgresql://user@host/name"),
    ("models plan smollm2 --train dora", 2, "train is 'dora': one of full, lora, qlora was expected"),
    ("models quantize smollm2 --to AWQ --out q --calibration nowhere.txt", 2, "as UTF-8 text: No such file or directory"),
    ("data traces --answers", 2, "answers is for runs: traces of the Studio are taken whole"),
    ("interp dashboard nowhere --prompt=", 2, "the prompt to steer is empty: give a few words, or --steer 0"),
    ("data last --min-score nan", 2, "min_score is nan: give a number"),
    ("data last --scorer exact", 2, "scorer is for tasks of traces"),
    ("data last --as pairs --best-of 2", 2, "best_of is for sft and kto"),
    ("power", 2, "give a run to plan from, or --disagreement or --between-sd without one"),
    ("run arithmetic --model openai:x@localhost:1/v1", 2, "where an address was expected"),
    ("serve scripted:echo --port 70000", 2, "port is 70000"),
    ("bench smollm2 --out nowhere/x.md", 2, "the folder of 'nowhere/x.md' does not exist"),
    ("quickstart --limit 0", 2, "limit is 0"),
    ("run arithmetic --limit 100000000000000000000000000", 2, "at most 9,223,372,036,854,775,807 is taken"),
    ("run arithmetic --model scripted:echo --seed -9223372036854775808", 2, "at most 9,223,372,036,854,775,807"),
    ("run arithmetic --model scripted:echo --epochs 100001", 2, "the most is 100,000, each an attempt at every task"),
    ("run arithmetic --model scripted:echo --config counted.toml", 2, "limit is True: a whole number was expected"),
    ("run arithmetic --model scripted:echo --pattern plain.py", 2, "plain.py is no async function: write it as async def"),
    ("run arithmetic --model scripted:echo --pattern alone.py", 2, "does not take a task and a context"),
    ("run arithmetic --model scripted:echo --pattern self_consistency:samples=100001", 2, "at most 100,000 chains vote"),
    ("Run", 2, "did you mean 'run'?"),
    ("models plan smollm2 --context -5", 2, "context is -5: give 0 or more"),
    ("models plan smollm2 --batch 0", 2, "batch is 0: give 1 or more"),
    ("models plan smollm2 --dtype float7", 2, "dtype is 'float7': expected one of float32"),
    ("models list extra", 2, "list takes no model"),
    ("models look smollm2 ", 2, "the text is empty"),
    ("tokens hi --kind unigram", 2, "--kind goes with --train"),
    ("tokens hi --vocab-size 10", 2, "--vocab-size goes with --train"),
    ("tokens hi --languages", 2, "counts a text of its own"),
    ("studio --no-open --role admin", 2, "role goes with `studio account add NAME`"),
    ("claims run kv_memory_formula --page text.txt/x.html", 2, "page is 'text.txt/x.html': give a file"),
    ("claims run kv_memory_formula --markdown notes", 2, "markdown is 'notes': give a file"),
    ("memory import new.db latin.jsonl", 1, "latin.jsonl cannot be read: it is not UTF-8 text"),
    ("tour 0", 2, "no step of the tour 0: give a number from 1 to 20, an id, or next"),
    ("tour -- -1", 2, "give a number from 1 to"),
    ("tour attenton", 2, "did you mean 'attention'?"),
    ("train dpo chats.jsonl --model smollm2 --beta -1", 2, "beta is -1.0: expected a number above 0"),
    ("train ipo chats.jsonl --model smollm2 --beta 0", 2, "beta is 0.0: expected a number above 0"),
    ("train kto chats.jsonl --model smollm2 --beta nan", 2, "beta is nan"),
    ("train simpo chats.jsonl --model smollm2 --beta -2", 2, "beta is -2.0"),
    ("train dpo chats.jsonl --model smollm2 --label-smoothing 0.5", 2, "expected from 0 to below 0.5"),
    ("board ", 2, "sources is empty: `firsthand board --help`"),
    ("compare ", 2, "runs is empty"),
    ("track ", 2, "runs is empty"),
    ("claims ", 2, "names is empty"),
    ("arena ", 2, "models is empty"),
    ("board mtab", 2, "did you mean 'mteb'?"),
    ("arena scripted:echo sim:game24 --prompts text.txt --judge nope", 2, "no model 'nope'"),
    ("rag label latin.jsonl --index notes --out o.jsonl", 2, "latin.jsonl cannot be read: it is not UTF-8 text"),
    ("rag label nowhere.jsonl --index notes --out o.jsonl", 2, "nowhere.jsonl cannot be read: No such file"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FIRSTHAND_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("line", "code", "expected"), ROWS)
def test_a_wrong_line_is_one_sentence(
    line: str, code: int, expected: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        ended = main(line.split(" "))
    except SystemExit as exit_:  # --help
        ended = exit_.code if isinstance(exit_.code, int) else 99
    said = capsys.readouterr()
    assert ended == code
    if code:
        assert said.out == "" and said.err.startswith("firsthand: ") and said.err.count("\n") == 1
        assert expected in said.err and "Traceback" not in said.err and "Errno" not in said.err
        assert not re.search(r"\b1 (points|items|conversations|questions)\b", said.err)
    else:
        assert expected in said.out
    assert not (here / "home" / "runs").exists()
    assert not list(here.rglob(".firsthand-index*")) and not list(here.rglob("new.*"))


class Terminal(io.StringIO):
    """Standard error of a person; put there in the test itself, as pytest's capture would replace a fixture's."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    return stream


@pytest.mark.slow
@pytest.mark.parametrize("out", [(), ("--out", "mine"), ("--out", "empty")])
def test_training_a_model_that_there_is_not_leaves_no_folder(out: tuple[str, ...], here: Path) -> None:
    assert main(["train", "sft", "chats.jsonl", "--model", "nope", "--steps", "2", *out]) == 2
    assert not list(here.glob("home/runs/2*")) and not (here / "mine").exists()
    assert (here / "empty" / "none").exists()  # a folder that was there is the user's


def test_a_schedule_that_is_refused_names_no_run_that_there_is_not(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "toy_reasoner", "--steps", "2", "--out", "mine"]) == 2
    assert capsys.readouterr().err.startswith("firsthand: the schedule's warm-up and decay take 20 of 2 steps")
    assert not (here / "mine").exists()


@pytest.mark.parametrize("name", sorted(model_lookup.KNOWN))
def test_a_name_that_is_refused_leaves_no_bar_on_the_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["models", "inspect", "--pull", f"{name}x"]) == 2
    said = stream.getvalue()
    assert said.startswith("firsthand: no model") and said.count("firsthand: ") == 1
    assert said.endswith("`firsthand models` shows\nall\n")  # 80 columns: folded at a word, a command whole


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_bar_stays_on_one_line(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(columns))
    with progress("fetching hf:HuggingFaceTB/SmolLM2-360M-Instruct", None, unit="bytes") as update:
        update(0, 98_000_000)
        update(49_000_000, 98_000_000)
    rows = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()))
    drawn = [row for row in rows if "fetching" in row]
    assert drawn and "49.0/98.0 MB" in drawn[-1] and [row for row in rows if row.strip() and row not in drawn] == []
    assert all(len(row) <= columns for row in rows)


def run_of_arithmetic() -> None:
    assert main(["run", "arithmetic", "--model", "scripted:echo", "--limit", "2"]) == 0


@pytest.mark.slow
def test_training_data_of_what_no_run_has_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    run_of_arithmetic()
    capsys.readouterr()
    for flag, expected in (
        ("--benchmark", "no run has the benchmark 'nope': expected one of arithmetic"),
        ("--agent", "no run has the agent 'nope': expected one of direct"),
        ("--score", "no run has the score 'nope': expected one of exact, numeric"),
    ):
        assert main(["data", "last", flag, "nope"]) == 2
        assert expected in capsys.readouterr().err
    assert main(["data", "last", "--out", "nowhere/x.jsonl"]) == 1
    assert capsys.readouterr().err.endswith("firsthand: nowhere/x.jsonl cannot be written: No such file or directory\n")


def test_a_run_without_scores_is_no_run_to_plan_from(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.create(here / "home", {"kind": "track"}, "other").close()
    assert main(["power", "last"]) == 2
    assert "last has no scores to plan from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("package", "scorer", "extra"), [("sacrebleu", "bleu", "text"), ("rouge_score", "rouge_l", "text")]
)
def test_a_scorer_whose_package_is_missing_is_refused_before_the_run(
    package: str,
    scorer: str,
    extra: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (here / "own.csv").write_text("q,a\nOne?,1\n")
    (here / "own.toml").write_text(f'data = "own.csv"\nprompt = "{{q}}"\ntarget = "{{a}}"\nscorer = "{scorer}"\n')
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"{package}.scoring", None)
    assert main(["run", "./own.toml", "--model", "scripted:echo"]) == 1
    assert f"pip install 'firsthand[{extra}]'" in capsys.readouterr().err
    assert not (here / "home" / "runs").exists()


def test_every_figure_of_ifeval_needs_its_detector_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without langdetect a run scored 506 prompts of 541 and counted the others as errors."""
    from firsthand.errors import MissingExtra
    from firsthand.scorers import instructions

    monkeypatch.setitem(sys.modules, "langdetect", None)
    for name in ("prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose"):
        with pytest.raises(MissingExtra, match="langdetect"):
            getattr(instructions, name).ready()


def test_a_package_that_went_missing_is_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from firsthand.commands import tour

    def broken(config: object) -> int:
        raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")

    monkeypatch.setattr(tour, "main", broken)
    assert main(["tour"]) == 1
    assert capsys.readouterr().err == "firsthand: the package 'torch' is not installed: pip install torch\n"


@pytest.mark.slow
def test_runs_without_metrics_are_compared_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    run_of_arithmetic()
    capsys.readouterr()
    assert main(["track", "last", "last"]) == 0
    assert capsys.readouterr().out.endswith(" have no metrics.\n")


@pytest.mark.slow
def test_a_run_of_another_command_says_which_goes_on_with_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for config, expected in (
        ({"arena": {"models": ["a", "b"]}}, "is an arena: `firsthand arena a b --continue "),
        ({"kind": "train"}, "is a training run: `firsthand train --resume "),
        ({"kind": "track"}, "holds metrics that a program logged"),
    ):
        store.create(here / "home", config, "other").close()
        for flag in ("--resume", "--replay"):
            assert main(["run", flag, "last"]) == 2
            assert expected in capsys.readouterr().err


@pytest.mark.slow
def test_an_arena_in_which_nothing_was_asked_keeps_no_run(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "prompts.txt").write_text("Hello\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["arena", "scripted:echo", "sim:game24"]) == 0
    assert "Nothing was asked, so nothing is kept." in capsys.readouterr().out
    assert main(["run", "--resume", "last"]) == 2 and "no runs" in capsys.readouterr().err
    assert main(["arena", "scripted:echo", "sim:game24", "--prompts", "prompts.txt"]) == 0
    assert "No vote was given; the answers are kept in run " in capsys.readouterr().out


@pytest.mark.slow
def test_labels_of_which_none_came_leave_no_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rag", "index", "notes", "--model", "none"]) == 0
    words = ["rag", "label", "chats.jsonl", "--index", "notes", "--model", "scripted:echo", "--out", "out.jsonl"]
    for _ in range(2):  # the second try is not refused for what the first left
        assert main(words) == 3
        assert "0 answers labelled, 1 failed" in capsys.readouterr().out
    assert not (here / "out.jsonl").exists()


@pytest.mark.slow
def test_an_index_elsewhere_does_not_name_the_folders_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rag", "index", "notes", "--model", "none"]) == 0
    capsys.readouterr()
    assert main(["rag", "index", "notes", "--model", "none", "--index", "other.index", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["added"] == ["a.md"] and body["notes"] == []


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["naive", "naive:search=dense", "self_rag", "rag_token"])
def test_a_search_for_vectors_that_an_index_lacks_is_refused_before_the_run(
    pattern: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rag", "index", "notes", "--model", "none"]) == 0
    capsys.readouterr()
    name, _, options = pattern.partition(":")
    words = ["run", "arithmetic", "--limit", "1", "--model", "scripted:echo", "--pattern"]
    assert main([*words, ":".join(filter(None, (name, "index=notes", options)))]) == 2
    assert "the index of notes has no vectors: search its terms" in capsys.readouterr().err
    assert not (here / "home" / "runs").exists()


def test_settings_of_a_graph_are_named_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rag", "index", "notes", "--model", "none"]) == 0
    capsys.readouterr()
    for words, expected in (
        (["--gleanings", "-1"], "gleanings -1"),
        (["--max-cluster-size", "0"], "max_cluster_size is 0"),
    ):
        assert main(["rag", "graph", "notes", "--extractor", "noun_phrases", *words]) == 2
        said = capsys.readouterr().err
        assert expected in said and "Settings(" not in said
