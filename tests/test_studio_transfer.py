"""Runs as one HTML file, and logs of Inspect and lm-eval as runs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import make_run
from firsthand.bridges.inspect.eval_logs import import_eval
from firsthand.bridges.lm_eval.sample_lines import import_samples
from firsthand.errors import DataError
from firsthand.message import assistant, user
from firsthand.runs import store
from firsthand.runs.track import Track
from firsthand.studio.run_export import exported
from firsthand.system.zip_members import BoundedZipFile, read_member
from firsthand.task import Task
from firsthand.trace import Node, Score, Trace

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202egnp\ud800</style></pre>"

# -- export --


@pytest.mark.slow
def test_an_export_is_one_file_without_script_under_its_own_policy(tmp_path: Path) -> None:
    make_run.make(tmp_path)
    with store.open_run("last", tmp_path) as run:
        text, count, left_out = exported(run)
        some, fewer, _ = exported(run, "agent=react benchmark=plain")
    assert (count, left_out, fewer) == (80, 0, 4) and some.count('<details id="a') == 4
    assert "vs. direct" in text and "\u2206" not in text and text.count('<details id="a') == 80
    assert not re.search(
        r"<(script|link|iframe|img|object|form|input)\b|\bsrc=|url\(|@import|https?://(?!www.w3)", text
    )
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = re.search(r'content-security-policy" content="([^"]+)"', text)
    assert policy is not None and f"sha256-{digest}" in policy[1] and policy[1].startswith("default-src &#39;none&#39;")
    assert not re.search(r'\sstyle="', text), "the policy allows no inline style"


def test_hostile_text_is_text_in_an_export_and_protected_text_is_left_out(tmp_path: Path) -> None:
    with store.create(tmp_path, {"note": HOSTILE}, "evil", command=[HOSTILE]) as run:
        run.add_tasks(
            "quiz", [Task("t", HOSTILE), Task("p", "do not print", metadata={"protected": "its authors ask"})]
        )
        for task in ("t", "p"):
            nodes = (Node(None, user(HOSTILE)), Node(0, assistant("never shown" if task == "p" else HOSTILE)))
            trace = Trace(task, "quiz", task, {"name": HOSTILE}, 0, 0, "2026-11-27T00:00:00+00:00", 1.0, nodes,
                          answer="never shown" if task == "p" else HOSTILE, scores=(Score("exact", 1.0),))  # fmt: skip
            from firsthand.trace import Event

            run.append(
                trace if task == "t" else make_protected(trace, Event("protected", 0.0, {"why": "its authors ask"}))
            )
        track = Track(run)
        for step in range(5):
            track.log({HOSTILE[:20]: float("nan") if step == 2 else step}, step=step)
        track.flush()
        text, _, _ = exported(run)
    assert "<script" not in text and "<img" not in text and "\u202e" not in text and "</style></pre>" not in text
    assert "never shown" not in text and "do not print" not in text
    assert text.count("<polyline") == 2, "a curve is drawn in two parts around a value that is no number"


def make_protected(trace: Trace, event: Any) -> Trace:
    from dataclasses import replace

    return replace(trace, events=(event,))


@pytest.mark.slow
def test_the_command_writes_a_new_file_alone(
    tmp_path: Path, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    make_run.make(tmp_path)
    target = tmp_path / "run.html"
    assert cli("studio", "export", "last", "--to", str(target), "--filter", "agent=cot")[0] == 0
    code, _, err = cli("studio", "export", "last", "--to", str(target))
    assert code == 2 and "is there already" in err
    code, _, err = cli("studio", "export", "last", "--to", str(tmp_path / "none.html"), "--filter", "score>1e9")
    assert code == 2 and "matches the filter 'score>1e9': nothing was written" in err
    assert not (tmp_path / "none.html").exists()
    for words in (("export",), ("burn", "x"), ("import", str(tmp_path / "no"))):
        assert cli("studio", *words)[0] == 2
    assert cli("studio", "--filter", "x")[0] == 2


@pytest.mark.parametrize("name", ["../evil", "runs/../../evil", "/etc/passwd", "..", "%2e%2e/evil", "a\x00b"])
def test_an_export_of_a_path_is_refused_and_writes_nothing(
    name: str, tmp_path: Path, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Path traversal: runs are named, and the file's name is the run's id."""
    (tmp_path / "evil").mkdir()
    (tmp_path / "home" / "runs").mkdir(parents=True)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home")
    before = sorted(tmp_path.rglob("*"))
    code, _, err = cli("studio", "export", name)
    assert code == 2 and err.startswith("firsthand: ") and sorted(tmp_path.rglob("*")) == before


def test_an_export_writes_through_no_link_and_its_name_is_the_runs(
    tmp_path: Path, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with store.create(tmp_path, {"benchmarks": ["../../up"]}, "../../up") as run:
        place = ("../up", "../../up", "../../t", {"name": "../a"}, 0, 0, "2026-11-27T00:00:00+00:00", 1.0)
        run.append(Trace(*place, answer="x", scores=(Score("exact", 1.0),)))
        run.finish("done")
    (tmp_path / "link.html").symlink_to(tmp_path / "elsewhere.html")
    code, _, err = cli("studio", "export", "last", "--to", "link.html")
    assert code == 2 and "is there already" in err and not (tmp_path / "elsewhere.html").exists()
    assert cli("studio", "export", "last")[0] == 0
    assert [each.name for each in tmp_path.glob("*.html") if not each.is_symlink()] == [f"{run.id}.html"]
    assert run.path.parent == tmp_path / "runs", "a run's hint is no path"


# -- imports --

SAMPLE = {
    "id": 7,
    "epoch": 1,
    "input": [{"role": "user", "content": "2 + 2?"}],
    "target": "4",
    "metadata": {"level": 2, "nested": {}},
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2?"},
        {
            "role": "assistant",
            "content": [{"type": "reasoning", "reasoning": "add"}, {"type": "text", "text": "Let me see."}],
            "tool_calls": [{"id": "c1", "function": "add", "arguments": {"a": 2, "b": 2}}],
        },
        {"role": "tool", "tool_call_id": "c1", "function": "add", "content": "4"},
        {"role": "assistant", "content": "attachment://long"},
    ],
    "attachments": {"long": "It is 4."},
    "output": {"completion": "4"},
    "scores": {"match": {"value": "C", "explanation": "equal"}, "parts": {"value": {"x": 0.5}}},
    "model_usage": {"m": {"input_tokens": 10, "output_tokens": 5, "input_tokens_cache_read": 3}},
    "total_time": 2.0,
    "uuid": "u",
}


def eval_log(path: Path, *samples: dict[str, Any], header: Any = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as log:
        log.writestr("header.json", json.dumps(header or {"eval": {"task": "sums", "model": "openai/m"}}))
        for number, sample in enumerate(samples):
            log.writestr(f"samples/{number}.json", json.dumps(sample))
    return path


def test_a_log_of_inspect_is_a_run(tmp_path: Path) -> None:
    failed = {**SAMPLE, "id": "b", "error": {"message": "gone"}, "scores": None, "messages": [], "output": {}}
    second = {**SAMPLE, "epoch": 2, "uuid": "v", "scores": {"match": {"value": "I"}}, "limit": {"type": "token"}}
    id, count = import_eval(eval_log(tmp_path / "x.eval", SAMPLE, failed, second), tmp_path / "home")
    assert count == 3
    with store.open_run(id, tmp_path / "home") as run:
        assert run.status == "done" and list(run.agents()) == ["openai/m"]
        names = [(7, 0), ("b", 0), (7, 1)]
        right, broken, wrong = (run.trace(f"sums/{task}/openai/m/{epoch}") for task, epoch in names)
        task = run.task("sums", "7")
    assert task is not None and task.secret == {"answer": "4"} and task.metadata == {"level": 2}
    assert [node.message.role for node in right.nodes] == ["system", "user", "assistant", "tool", "assistant"]
    assert right.nodes[2].message.tool_calls[0].arguments == {"a": 2, "b": 2} and right.answer == "4"
    assert right.nodes[4].message.text == "It is 4." and right.nodes[3].message.parts[0].content == "4"  # type: ignore[union-attr]
    assert [(score.name, score.value) for score in right.scores] == [("match", 1.0), ("parts.x", 0.5)]
    assert (right.usage.prompt_tokens, right.usage.cached_tokens, right.usage.completion_tokens) == (13, 3, 5)
    assert broken.error is not None and broken.error.message == "gone" and broken.stop_reason == "error"
    assert wrong.scores[0].value == 0.0 and wrong.stop_reason == "token" and wrong.epoch == 1


def test_what_is_no_log_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (tmp_path / "a.eval").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="cannot be read"):
        import_eval(tmp_path / "a.eval", home)
    with pytest.raises(DataError, match="no samples"):
        import_eval(eval_log(tmp_path / "b.eval"), home)
    with zipfile.ZipFile(tmp_path / "c.eval", "w") as log:
        log.writestr("samples/1.json", "{}")
    with pytest.raises(DataError, match="has no _journal"):
        import_eval(tmp_path / "c.eval", home)
    monkeypatch.setattr("firsthand.system.zip_members.FREE_BYTES", 1000)
    monkeypatch.setattr("firsthand.system.zip_members.MOST_A_BYTE", 1)
    with pytest.raises(DataError, match="unpacks to more"):
        import_eval(eval_log(tmp_path / "d.eval", {**SAMPLE, "pad": "x" * 1000}), home)
    assert not (home / "runs").exists() or store.list_runs(home) == []


def with_zstandard(path: Path, members: dict[str, bytes]) -> Path:
    """A zip as Inspect writes it: each file compressed by method 93, which Python's zipfile has from 3.14 on."""
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed")
    body, central = b"", b""
    for name, data in members.items():
        packed = zstandard.ZstdCompressor(write_content_size=False).compress(data)
        facts = struct.pack("<HHHHHIIIHH", 20, 0, 93, 0, 33, zlib.crc32(data), len(packed), len(data), len(name), 4)
        central += b"PK\1\2" + struct.pack("<H", 20) + facts[:-2] + struct.pack("<HHHHII", 0, 0, 0, 0, 0, len(body))
        central += name.encode()
        body += b"PK\3\4" + facts + name.encode() + b"\0\0\0\0" + packed
    count = len(members)
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, len(central), len(body), 0)
    path.write_bytes(body + central + end)
    return path


@pytest.mark.slow
def test_a_log_that_is_compressed_with_zstandard_is_read_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(eval_log(tmp_path / "plain.eval", SAMPLE)) as plain:
        members = {name: plain.read(name) for name in plain.namelist()}
    log = with_zstandard(tmp_path / "z.eval", members)
    assert import_eval(log, tmp_path / "home")[1] == 1
    with store.open_run("last", tmp_path / "home") as run:
        assert [trace.task_id for trace in run.traces()] == [str(SAMPLE["id"])]
    whole = log.read_bytes()
    name = next(name for name in members if name.startswith("samples/"))
    place = whole.index(name.encode()) + len(name) + 4 + 12
    for damaged in (
        whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :],
        whole.replace(b"PK\3\4", b"PK\3\5"),
    ):
        log.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot be read|is no JSON"):
            import_eval(log, tmp_path / "home")
    other = struct.pack("<I", zlib.crc32(members[name]))
    log.write_bytes(whole.replace(other, b"\0\0\0\1"))
    with pytest.raises(DataError, match="Bad CRC"):
        import_eval(log, tmp_path / "home")
    bomb = with_zstandard(tmp_path / "bomb.eval", members | {name: b" " * 50_000_000})
    small = bomb.read_bytes().replace(struct.pack("<I", 50_000_000), struct.pack("<I", 10))  # sizes that say less
    bomb.write_bytes(small)
    with BoundedZipFile(bomb) as opened:
        assert len(read_member(opened, opened.getinfo(name), 1000)) == 1001, "no more than was asked for"
    monkeypatch.setattr("firsthand.bridges.inspect.eval_logs.MAX_SAMPLE_BYTES", 1 << 20)
    with pytest.raises(DataError, match="more than its size says"):
        import_eval(bomb, tmp_path / "home")


def lm_eval_lines(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "samples_gsm8k_2026-11-27T10-00-00.123456.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(number: int, **rest: Any) -> dict[str, Any]:
    return {
        "doc_id": number, "doc": {"question": f"{number}?", "level": number % 2, "long": "x" * 200}, "target": "4",
        "arguments": {"gen_args_0": {"arg_0": f"Q: {number}?", "arg_1": {}}}, "resps": [["so 4"]], "filtered_resps": ["4"],
        "filter": "strict", "metrics": ["exact_match"], "exact_match": 1.0, "doc_hash": "h",
    } | rest  # fmt: skip


def test_samples_of_lm_eval_are_a_run(tmp_path: Path) -> None:
    (tmp_path / "results_2026.json").write_text(json.dumps({"model_name": "org/model"}))
    rows = [row(0), row(1, exact_match=0.0), row(0, filter="flexible", filtered_resps=["5"], exact_match=0)]
    id, count = import_samples(lm_eval_lines(tmp_path, *rows), tmp_path / "home")
    assert count == 3
    with store.open_run(id, tmp_path / "home") as run:
        assert list(run.agents()) == ["org/model:strict", "org/model:flexible"]
        trace = run.trace("gsm8k/0/org/model:strict/0")
        assert [node.message.text for node in trace.nodes] == ["Q: 0?", "so 4"] and trace.answer == "4"
        values = {(t.task_id, t.agent_name.partition(":")[2]): t.value() for t in run.traces()}
        task = run.task("gsm8k", "1")
    assert values == {("0", "strict"): 1.0, ("1", "strict"): 0.0, ("0", "flexible"): 0.0}
    assert task is not None and task.metadata == {"question": "1?", "level": 1}


def test_choices_scored_by_logprob_and_old_arguments_are_read(tmp_path: Path) -> None:
    old = row(0, arguments=[["Q: 0?", " yes"], ["Q: 0?", " no"]], resps=[[[-1.0, True]], [[-2.0, False]]])
    old |= {"filtered_resps": [[-1.0, True], [-2.0, False]], "acc": True}
    del old["metrics"], old["exact_match"]
    id, _ = import_samples(lm_eval_lines(tmp_path, old), tmp_path / "home")
    with store.open_run(id, tmp_path / "home") as run:
        (trace,) = run.traces()
    assert trace.answer == "[[-1.0, true], [-2.0, false]]" and trace.nodes[0].message.text == "Q: 0?"
    assert [(score.name, score.value) for score in trace.scores] == [("acc", 1.0)]


@pytest.mark.parametrize("text", ["", "not json\n", '{"doc_id": 1}\n', "[]\n"])
def test_lines_that_are_no_samples_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "samples_x.jsonl"
    path.write_text(text)
    with pytest.raises(DataError):
        import_samples(path, tmp_path / "home")
    assert not (tmp_path / "home" / "runs").exists()


@pytest.mark.slow
def test_a_log_that_inspect_itself_wrote_is_read(tmp_path: Path) -> None:
    inspect = pytest.importorskip("inspect_ai", reason="inspect_ai is not installed")
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ChatMessageAssistant, ModelOutput
    from inspect_ai.scorer import match
    from inspect_ai.solver import solver

    @solver
    def fixed():  # type: ignore[no-untyped-def]
        async def solve(state, generate):  # type: ignore[no-untyped-def]
            state.messages.append(ChatMessageAssistant(content="It is four."))
            state.output = ModelOutput.from_content("fixed", "It is four.")
            return state

        return solve

    samples = [Sample("2+2?" + "x" * 200, target="four", id="a"), Sample("3+3?", target="six", id="b")]
    task = inspect.Task(dataset=samples, solver=fixed(), scorer=match("any"), name="tiny")
    inspect.eval(
        task, model="mockllm/model", log_dir=str(tmp_path / "logs"), log_format="eval", display="none", epochs=2
    )
    # another process, for Inspect teaches this one's zipfile its compression
    command = [sys.executable, "-m", "firsthand", "studio", "import", str(tmp_path / "logs"), "--home", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.startswith("4 samples in run "), ran.stderr
    with store.open_run(ran.stdout.split()[-1], tmp_path) as run:
        values = {(trace.task_id, trace.epoch): trace.value() for trace in run.traces()}
    assert values == {("a", 0): 1.0, ("a", 1): 1.0, ("b", 0): 0.0, ("b", 1): 0.0}
