"""Files that a user names: pipes, lists that are not there, options that nothing would read, and what reading leaves."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from firsthand.cli import main
from firsthand.system.ordinary_file import MAX_TEXT_BYTES

ROOT = Path(sys.modules["firsthand"].__path__[0])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path


NAMED = (
    "board FILE", "tokens ./FILE", "run math:data=FILE --model scripted:echo", "train sft FILE",
    "serve smollm2 --keys FILE", "serve smollm2 --keys=FILE", "run gsm8k,math:data=FILE --model sim:game24",
    "run arithmetic --model scripted:FILE", "run ./FILE", "run arithmetic --config FILE",
)  # fmt: skip
"""The places in which a command line names a file."""


def test_a_named_pipe_is_refused_and_not_waited_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(here / "pipe.csv")
    said = "is a named pipe, and opening it waits for a writer: give an ordinary file"
    command = [sys.executable, "-m", "firsthand", "board", "pipe.csv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr
    for line in NAMED:
        code = main(line.replace("FILE", "pipe.csv").split())
        assert (code, said in capsys.readouterr().err) == (2, True), line


def test_a_device_without_an_end_is_refused_and_not_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "zero.json").symlink_to("/dev/zero")
    for line in NAMED:
        code = main(line.replace("FILE", "zero.json").split())
        assert (code, "which has no end: give an ordinary file" in capsys.readouterr().err) == (2, True), line
    assert main(["list", "models", "--json", "/dev/null"]) == 2  # a word too many, not a device
    assert "which has no end" not in capsys.readouterr().err


def test_files_that_other_files_name_are_read_up_to_their_bound(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "zero.json").symlink_to("/dev/zero")
    (here / "nightly.toml").write_text('model = ["scripted:zero.json"]\n')
    assert main(["run", "arithmetic", "--config", "nightly.toml"]) == 2
    assert "of at most 16777216 bytes" in capsys.readouterr().err
    with (here / "large.py").open("wb") as file:
        file.truncate(1 << 30)
    assert main(["run", "arithmetic", "--model", "scripted:echo", "--pattern", "large.py"]) == 2
    assert "has 1,073,741,824 bytes, and a Python file of at most 16,777,216 is read" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["arena scripted:echo sim:game24 --prompts large", "tokens large", "memory import new.db large"]
)
def test_a_text_of_gigabytes_is_refused_and_not_read(line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (here / "large").open("wb") as file:
        file.truncate(MAX_TEXT_BYTES + 1)
    assert main(line.split()) in (1, 2)
    assert "large cannot be read: it is larger than 256 MiB" in capsys.readouterr().err.replace("'", "")


def test_a_toml_file_may_begin_with_a_byte_order_mark_and_its_faults_name_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "rows.csv").write_text("question,answer\n2+2?,4\n")
    about = 'data = "rows.csv"\nprompt = "{question}"\ntarget = "{answer}"\nscorer = "exact"\n'
    (here / "own.toml").write_bytes(b"\xef\xbb\xbf" + about.encode())
    assert main(["run", "./own.toml", "--model", "scripted:echo"]) == 0
    for text, said in (
        (about + "shots = 'two'\n", "./own.toml: shots is 'two'"),
        ('data = "rows.csv"\n', "own.toml: prompt is empty"),
        ("x = " + "[" * 5000 + "]" * 5000, "'own.toml' is not valid TOML: it is nested too deep"),
    ):
        (here / "own.toml").write_text(text)
        assert main(["run", "./own.toml", "--model", "scripted:echo"]) == 2
        assert said.removeprefix("./") in capsys.readouterr().err


def test_a_pipe_that_has_its_writer_and_a_word_that_is_no_file_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    read, write = os.pipe()
    os.write(write, b"model,maths\nada,0.5\n")
    os.close(write)
    main(["board", f"/dev/fd/{read}"])
    os.close(read)
    assert main(["list", "--json", "x" * 5000]) == 2 and main(["list", "a\0b"]) == 2
    assert "named pipe" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("agentbench_hh:data=.:lists=none.json", "none.json cannot be read as JSON: No such file or directory"),
        ("agentbench_kg:data=nowhere", "graph and data are for the paper's questions: give split=std or split=dev"),
        (
            "needles:data=nowhere",
            "data is 'nowhere', and the haystack world is generated: give haystack=essays with it",
        ),
    ],
)
def test_data_that_is_not_there_or_not_read_is_told(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", line, "--model", "scripted:echo", "--limit", "1"]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and "Errno" not in error


@pytest.mark.slow
def test_no_sentence_about_a_file_shows_the_number_of_an_error() -> None:
    """A handler of OSError that shows the error as it is writes `[Errno 2]` and the file's name twice."""
    no_files = {
        "zip_parts.py": "archives in memory", "grpc_door.py": "an address", "isolated_grammar.py": "a process",
        "fetch.py": "a connection", "webhook.py": "an address",
    }  # fmt: skip
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        source = path.read_text()
        if "OSError" not in source:  # parsing the rest takes seconds
            continue
        for handler in ast.walk(ast.parse(source)):
            if not isinstance(handler, ast.ExceptHandler) or handler.type is None or handler.name is None:
                continue
            if "OSError" not in ast.unparse(handler.type):
                continue
            shown = [ast.unparse(each.value) for each in ast.walk(handler) if isinstance(each, ast.FormattedValue)]
            if path.name not in no_files and any(
                text == handler.name or text.startswith(f"str({handler.name})") for text in shown
            ):
                found.append(f"{path.relative_to(ROOT)}:{handler.lineno}")
    assert found == []


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("model,maths\nada,150%\nbob,50%\n", "t.csv, line 2: maths is '150%': a percentage is at most 100%"),
        (
            "model,benchmark,score\nada,maths,100.5 %\n",
            "t.csv, line 2: score is '100.5 %': a percentage is at most 100%",
        ),
    ],
)
def test_a_score_above_a_hundred_percent_is_refused(
    table: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "t.csv").write_text(table)
    assert main(["board", "t.csv"]) == 1
    assert said in capsys.readouterr().err
    (here / "t.csv").write_text("model,maths\nada,100%\nbob,50%\n")
    assert main(["board", "t.csv"]) == 0 and "1.000" in capsys.readouterr().out


def test_reading_an_index_leaves_no_files_beside_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "notes").mkdir()
    (here / "notes" / "a.md").write_text("Tea is hot.\n")
    assert main(["rag", "index", "notes", "--model", "none", "--index", "i.sqlite"]) == 0
    before = sorted(path.name for path in here.glob("i.sqlite*"))
    for line in ("rag ask tea? --index i.sqlite --model none", "rag status i.sqlite", "rag verify i.sqlite"):
        assert main(line.split()) == 0
        assert sorted(path.name for path in here.glob("i.sqlite*")) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('prompt = 5\ntarget = "{answer}"\n', "the prompt '5' names no column and asks the same of every row"),
        ('prompt = "Why?"\ntarget = "{answer}"\n', "the prompt 'Why?' names no column"),
        ('prompt = ["{question}"]\ntarget = "{answer}"\n', "prompt is ['{question}']: a text was expected"),
        ('prompt = true\ntarget = "{answer}"\n', "prompt is True: a text was expected"),
    ],
)
def test_a_prompt_that_asks_no_row_is_refused(
    text: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "rows.csv").write_text("question,answer\n1+1?,2\n")
    (here / "own.toml").write_text('data = "rows.csv"\n' + text)
    assert main(["run", "./own.toml", "--model", "scripted:echo"]) == 2
    assert said in capsys.readouterr().err


def test_a_settings_file_that_is_no_text_and_a_script_too_deep_are_told_plainly(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "image.toml").write_bytes(b"\x89PNG\r\n")
    (here / "deep.json").write_text("[" * 100_000)
    for line, said in (
        ("--config image.toml", "'image.toml' is not valid TOML: it is not UTF-8 text"),
        ("--model scripted:deep.json", "the script 'deep.json' is not valid JSON: it is nested too deep"),
    ):
        assert main(["run", "arithmetic", *line.split()]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("m,gsm8k,0.5\nm,gsm8k,0.9\n", "m has 2 different numbers on gsm8k, 0.5 (t.csv, line 2) and 0.9"),
        ("m,gsm8k,nan\n", "each cell is empty."),
    ],
)
def test_a_table_without_a_score_that_counts_says_why(
    table: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "t.csv").write_text(f"model,benchmark,score\n{table}")
    assert main(["board", "t.csv"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "the results hold no score that can be used: " in error and said in error
