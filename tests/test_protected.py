"""GPQA and HLE: read from the user's own copy, encrypted or not, and kept out of everything that is printed or exported."""

import asyncio
import binascii
import csv
import hashlib
import io
import json
import math
import random
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from firsthand import catalog, cli
from firsthand.agent import Agent
from firsthand.benchmarks import gpqa as gpqa_file
from firsthand.benchmarks import hle as hle_file
from firsthand.errors import ConfigError, DataError, DownloadError, ModelError, UnknownName
from firsthand.loop.protection import shareable
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.store import open_run
from firsthand.scorers.model_judge import judged_by
from firsthand.show.board import leaderboard
from firsthand.show.html_report import report_html
from firsthand.stats.corpus_formulas import rms_calibration_error
from firsthand.stats.figures import figures
from firsthand.system.home import data_home
from firsthand.task import Task
from firsthand.trace import Score, Trace
from loopback import serve

CANARY = "gpqa:0000:made-up-canary"
ROWS = [
    {
        "Record ID": f"rec{i}",
        "Question": f"Which zyx{i} quux does the made-up particle number {i} emit when it is left alone?",
        "Correct Answer": f" the right emission {i}\n",
        **{f"Incorrect Answer {j}": f"a wrong  emission {j} of {i}" for j in (1, 2, 3)},
        "Canary String": CANARY,
    }
    for i in range(6)
]


def table(rows=ROWS):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def encrypted(data, password):
    """PKWARE's traditional encryption, as APPNOTE.TXT 6.1 describes it."""
    keys = [0x12345678, 0x23456789, 0x34567890]

    def crc(value, byte):
        return (zlib.crc32(bytes([byte]), value ^ 0xFFFFFFFF) ^ 0xFFFFFFFF) & 0xFFFFFFFF

    def update(byte):
        keys[0] = crc(keys[0], byte)
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = crc(keys[2], keys[1] >> 24)

    for byte in password:
        update(byte)
    out = bytearray()
    for byte in data:
        key = (keys[2] | 2) & 0xFFFF
        out.append(byte ^ (((key * (key ^ 1)) >> 8) & 0xFF))
        update(byte)
    return bytes(out)


def archive(text, name="dataset/gpqa_diamond.csv", password=gpqa_file.PASSWORD, method=8):
    """A zip file with one encrypted member, in the layout of the authors' file."""
    packer = zlib.compressobj(wbits=-15)
    packed, crc = packer.compress(text) + packer.flush(), binascii.crc32(text)
    body = encrypted(bytes(11) + bytes([crc >> 24]) + packed, password)
    fields = struct.pack("<HHHHHIII", 20, 1, method, 0, 33, crc, len(body), len(text))
    local = b"PK\x03\x04" + fields + struct.pack("<HH", len(name), 0) + name.encode() + body
    central = (
        b"PK\x01\x02"
        + struct.pack("<H", 20)
        + fields
        + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0)
        + name.encode()
    )
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end


@pytest.fixture(autouse=True)
def a_clean_place(monkeypatch, tmp_path):
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def copy(tmp_path):
    (tmp_path / "dataset.zip").write_bytes(archive(table()))
    return tmp_path / "dataset.zip"


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


# -- GPQA --


def test_the_authors_zip_is_read_in_memory_and_asked_as_simple_evals_asks(copy, tmp_path):
    made = catalog.benchmark(f"gpqa:data={copy}")
    tasks = made.tasks(0)
    assert len(tasks) == 6 and made.name == "gpqa" and "6 of 198 items" in made.protocol
    assert made.options["sha256"] == hashlib.sha256(copy.read_bytes()).hexdigest(), "of the file that the user has"
    rng = random.Random(0)
    for row, task in zip(ROWS, tasks, strict=True):
        listed = [row["Correct Answer"], *(row[f"Incorrect Answer {j}"] for j in (1, 2, 3))]
        order = [listed[i] for i in rng.sample(range(4), 4)]
        options = "\n".join(f"{letter}) {text}" for letter, text in zip("ABCD", order, strict=True))
        assert task.prompt.endswith(f"Think step by step before answering.\n\n{row['Question']}\n\n{options}")
        assert task.secret["answer"] == "ABCD"[order.index(row["Correct Answer"])]
        assert CANARY not in json.dumps(task.to_json()) and "rec" not in task.prompt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.zip"]  # nothing was unpacked


def test_repeats_have_orders_of_their_own_and_are_clusters(copy):
    once, four = (
        catalog.benchmark(f"gpqa:data={copy}").tasks(0),
        catalog.benchmark(f"gpqa:data={copy}:repeats=4").tasks(0),
    )
    assert len(four) == 24 and [task.prompt for task in four[:6]] == [task.prompt for task in once]
    assert len({task.prompt for task in four}) > 12 and len({task.id for task in four}) == 24
    assert {task.cluster for task in four} == {f"diamond-{i:04d}" for i in range(6)}
    with pytest.raises(ConfigError, match="repeats is 0"):
        catalog.benchmark(f"gpqa:data={copy}:repeats=0")


def test_the_harness_protocol_scores_letters_after_its_own_cleaning(copy):
    tasks = catalog.benchmark(f"gpqa@lm-eval-0shot:data={copy}").tasks(0)
    before, letter = tasks[0].scored[0]
    question = ROWS[0]["Question"]
    assert before.startswith(f"What is the correct answer to this question:{question}\nChoices:\n(A) ")
    assert before.endswith("\nAnswer:") and letter == " (A)" and "(B) " in before
    assert "  emission" not in before and "the right emission 0\n" in before
    assert tasks[0].choices[tasks[0].secret["gold"]] == " the right emission 0"


def test_letters_are_found_as_simple_evals_finds_them(copy):
    made = catalog.benchmark(f"gpqa:data={copy}")
    task = made.tasks(0)[0]
    right = task.secret["answer"]
    wrong = "ABCD"[("ABCD".index(right) + 1) % 4]
    cases = {
        f"So. Answer: {right}": 1,
        f"answer : ${right.lower()}$": 1,
        f"Answer: {wrong}\nAnswer: {right}": 0,
        right: 0,
    }
    for said, value in cases.items():
        trace = asyncio.run(rollout(Agent("a", Scripted([said]), direct), task, benchmark=made))
        assert trace.scores[0].value == value, said


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (archive(table(), name="dataset/other.csv"), "holds no gpqa_diamond.csv: it has dataset/other.csv"),
        (archive(table(), password=b"guess"), "does not open with the password|not a complete zip file"),
        (archive(table(), method=99), "AES"),
        (archive(table())[:-40], "not a complete zip file"),
        (archive(table())[:200] + b"\x00" * 50 + archive(table())[250:], "not a complete zip file"),
        (archive(b"\xff\xfe\x00bad"), "not CSV in UTF-8"),
        (archive(b"Question,Answer\nx,y\n"), "no column 'Correct Answer'"),
        (archive(table([{**ROWS[0], "Incorrect Answer 2": " "}])), "line 3: the column 'Incorrect Answer 2' is empty"),
        (b"PK", "not a complete zip file"),
        (b"", "holds no rows"),
    ],
)
def test_a_wrong_copy_is_one_sentence_that_quotes_no_question(tmp_path, raw, why):
    (tmp_path / "dataset.zip").write_bytes(raw)
    with pytest.raises(DataError, match=why) as error:
        catalog.benchmark(f"gpqa:data={tmp_path}")
    assert "zyx" not in str(error.value)


def test_a_plain_csv_of_yours_is_read_too_and_there_is_no_packaged_one(tmp_path):
    (tmp_path / "gpqa_main.csv").write_bytes(table())
    assert catalog.benchmark(f"gpqa:subset=main:data={tmp_path}").name == "gpqa-main"
    with pytest.raises(DataError, match="not packaged"):
        catalog.benchmark("gpqa:data=packaged")
    with pytest.raises(UnknownName, match="did you mean 'diamond'"):
        catalog.benchmark("gpqa:subset=diamand")


def test_the_hub_is_asked_with_the_token_and_nothing_is_kept():
    page = {"rows": [{"row_idx": at, "row": row} for at, row in enumerate(ROWS)], "num_rows_total": 6}
    with serve() as site:
        site.files["/rows"] = json.dumps(page).encode()
        rows = gpqa_file.read_rows("diamond", "hub", url=f"{site.url}/rows")
        assert len(rows.rows) == 6 and "Canary String" not in rows.rows[0]
        assert site.asked[0][2] == "Bearer hf_mine"
        site.statuses["/rows"] = 403
        del site.files["/rows"]
        with pytest.raises(DownloadError, match="agree to the set's terms on its page there, and set HF_TOKEN"):
            gpqa_file.read_rows("diamond", "hub", url=f"{site.url}/rows")
    assert not list(data_home().rglob("*gpqa*"))


# -- what others may see --


@pytest.mark.slow
def test_no_word_of_a_question_is_printed_exported_or_lies_in_the_run_in_plain_text(copy, tmp_path, capsys):
    script = tmp_path / "script.json"
    script.write_text(
        json.dumps({"particle number 3": "Which zyx3 quux, you ask. Answer: A", "": "zyx and more. Answer: B"})
    )
    assert cli.main(["run", f"gpqa:data={copy}", "--model", f"scripted:{script}", "--limit", "5"]) == 0
    assert cli.main(["score", "last", "--with", "rubric:judge=scripted:echo"]) == 0
    with open_run("last", data_home()) as run:
        trace = run.trace("gpqa/diamond-0000")
        assert "zyx0" in trace.nodes[0].message.text  # it is all there, for scorers
        assert trace.protected == gpqa_file.WHY
        assert "zyx0" in run.tasks()["gpqa", "diamond-0000"].prompt
        assert "zyx0" in json.dumps(trace.score("rubric").detail)
        folder, ref = run.path, trace.place
    shown = ["show", "last", ref]
    for command in (shown, [*shown, "--full"], [*shown, "--json"], ["runs", "last"]):
        assert cli.main(command) == 0
    compared = ["compare", "last", "last", "--diff", "--only", "all", "--html", str(tmp_path / "diff.html")]
    assert cli.main(compared) in (0, 2)
    printed = capsys.readouterr()
    assert "zyx" not in printed.out + printed.err and "[withheld: " in printed.out
    kept = everything_in(folder)
    assert b"zyx" not in kept and b"quux" not in kept and (folder / "report.html").is_file()
    assert not (tmp_path / "diff.html").exists() or b"zyx" not in (tmp_path / "diff.html").read_bytes()
    assert cli.main(["show", "last", ref, "--reveal"]) == 0
    assert "zyx0" in capsys.readouterr().out  # your own eyes may see it
    assert cli.main(["run", f"gpqa:data={copy}", "--model", f"scripted:{script}", "--watch"]) == 2


def test_an_error_that_quotes_the_question_is_withheld(copy):
    made = catalog.benchmark(f"gpqa:data={copy}")
    task = made.tasks(0)[0]
    model = Scripted(error=ModelError(f"no reply to {task.prompt[-90:]!r}"))
    trace = asyncio.run(rollout(Agent("a", model, direct), task, benchmark=made))
    assert trace.error is not None and "emission" in trace.error.message
    seen = shareable(trace)
    assert seen.error is not None and seen.error.message.startswith("[withheld") and seen.error.kind == "ModelError"
    html = report_html(leaderboard([trace]), title="t", command="c", machine={}, run_path="r", traces=[trace])
    assert "emission" not in html and "withheld" in html
    plain = asyncio.run(
        rollout(Agent("a", Scripted(["hello"]), direct), Task("1", "What is this particle thing here?"))
    )
    assert shareable(plain) is plain


# -- HLE --

HLE = [
    {
        "id": f"q{i}",
        "question": f"Hard wug{i} question?",
        "answer": f"{i}",
        "image": "",
        "category": "Math",
        "canary": "c",
    }
    for i in range(4)
]


@pytest.fixture
def exam(tmp_path):
    rows = [*HLE, {**HLE[0], "id": "seen", "image": "data:image/png;base64,AAAA"}]
    rows[1]["rationale"] = "a separator \u2028 inside a line"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "hle_test.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def verdicts(messages, sampling, index):
    """A judge in words: right if the response ends with the reference."""
    text = messages[-1].text
    answer = text.split("[response]: ")[1].split("\n")[0]
    right = text.split("[correct_answer]: ")[1].split("\n")[0] in answer.split("Confidence")[0]
    stated = answer.partition("Confidence: ")[2].rstrip("%")
    said = {"extracted_final_answer": answer[:9], "reasoning": "r", "correct": "yes" if right else "no"}
    return json.dumps({**said, "confidence": int(stated or 100)})


def test_questions_in_text_are_asked_with_the_exams_system_prompt_and_judged(exam):
    made = catalog.benchmark(f"hle:data={exam}:judge=scripted:echo")
    tasks = made.tasks(0)
    assert [task.id for task in tasks] == ["q0", "q1", "q2", "q3"] and "4 of them without an image" in made.protocol
    made = replace(made, scorers=(judged_by(made.scorers[0], Scripted(verdicts)),))
    model = Scripted(["Answer: 0 Confidence: 90%", "Answer: 9 Confidence: 60%", "Answer: 2", ""])
    agent = Agent("a", model, direct)
    traces = [asyncio.run(rollout(agent, task, benchmark=made)) for task in tasks]
    first = model.asked[0].prompt
    assert first[0].role == "system" and first[0].text == hle_file.SYSTEM and first[1].text == "Hard wug0 question?"
    assert not [trace.scores[0].detail for trace in traces if trace.scores[0].failed]
    assert [trace.scores[0].value for trace in traces] == [1, 0, 1, 0]
    assert [trace.scores[0].detail.get("confidence") for trace in traces] == [
        0.9,
        0.6,
        1.0,
        None,
    ]  # none: 100, as published
    assert traces[3].scores[0].detail["by"] == "rule: the answer is empty"
    assert all(trace.protected for trace in traces) and "wug" not in json.dumps(shareable(traces[0]).to_json())
    (board,) = leaderboard(traces)
    assert board.metric == "hle" and board.rows[0].score.value == 0.5
    error = board.rows[0].secondary["rms_calibration_error"]
    assert error.value == pytest.approx(abs((0.9 + 0.6 + 1.0) / 3 - 2 / 3)) and error.method == "percentile bootstrap"


def test_an_exam_can_be_judged_later_and_needs_a_judge_named(exam):
    assert catalog.benchmark(f"hle:data={exam}:judge=none").scorers == ()
    with pytest.raises(ConfigError, match="hle is judged by a model: name it"):
        catalog.benchmark(f"hle:data={exam}")
    assert cli.main(["run", f"hle:data={exam}:judge=none", "--model", "scripted:echo"]) == 0
    with open_run("last", data_home()) as run:
        assert all(trace.scores == () for trace in run.traces())


def test_a_wrong_exam_is_one_sentence(exam):
    file = exam / "hle_test.jsonl"
    for rows, why in (
        ([{**HLE[0], "answer": ""}], "the field 'answer' is empty"),
        ([{**HLE[0], "id": None}], "the field 'id'"),
        ([{**HLE[0], "image": "x"}], "no question without an image"),
    ):
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        with pytest.raises(DataError, match=why) as error:
            catalog.benchmark(f"hle:data={exam}:judge=none")
        assert "wug" not in str(error.value)
    with pytest.raises(DataError, match="not packaged"):
        catalog.benchmark("hle:data=packaged:judge=none")


# -- calibration --


def test_calibration_error_in_closed_form():
    assert rms_calibration_error([0.8] * 100, [1] * 80 + [0] * 20) == pytest.approx(0, abs=1e-12)
    assert rms_calibration_error([1.0] * 50, [0] * 50) == 1
    low, high = ([0.2] * 100, [0] * 100), ([0.9] * 100, [1] * 50 + [0] * 50)  # gaps 0.2 and 0.4
    both = rms_calibration_error(low[0] + high[0], low[1] + high[1])
    assert both == pytest.approx(math.sqrt((0.2**2 + 0.4**2) / 2))
    # the published script sums all bins but the last, and divides by all attempts
    assert rms_calibration_error(low[0] + high[0], low[1] + high[1], published=True) == pytest.approx(
        math.sqrt(0.2**2 / 2)
    )
    assert rms_calibration_error([0.5] * 30, [1] * 30, published=True) == 0
    assert math.isnan(rms_calibration_error([], []))
    with pytest.raises(ConfigError, match="2 confidences and 1 verdicts"):
        rms_calibration_error([0.1, 0.2], [1])


def test_what_does_not_fill_a_bin_belongs_to_the_last_one():
    confidences = [0.1] * 100 + [0.9] * 150
    correct = [0] * 100 + [1] * 75 + [0] * 75
    assert rms_calibration_error(confidences, correct) == pytest.approx(math.sqrt(0.4 * 0.1**2 + 0.6 * 0.4**2))


def test_scores_without_a_confidence_have_no_calibration():
    trace = Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 1.0, scores=(Score("exact", 1.0),))
    assert figures({"a": [trace]}) == {}
    assert figures({"a": [trace.scored((Score("exact", 1.0, {"confidence": "high"}),))]}) == {}
