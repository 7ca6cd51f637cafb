"""Logs of Inspect field by field, what a compose file requires, and the callback of a Trainer; none needs Inspect."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.bridges.inspect import eval_logs
from firsthand.bridges.inspect.eval_logs import _json, _message, _scores, _text, _usage, _whole, attempt_of, import_eval
from firsthand.bridges.inspect.sandbox_requirements import (
    RequiredSandbox,
    _built,
    _bytes,
    _service,
    _services,
    _variables,
)
from firsthand.errors import ConfigError, DataError
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult, user
from firsthand.model import Usage
from firsthand.runs.store import open_run
from firsthand.sandbox.dockerfile import BuildStep
from firsthand.system import zip_members
from firsthand.system.zip_members import BoundedZipFile
from firsthand.task import Task
from firsthand.trace import Failure, Score


def test_scores_are_numbers_letters_and_truth_values_by_scorer_and_part() -> None:
    scores = {
        "match": {"value": "C", "answer": "a" * 4001, "explanation": 0, "other": "x"}, "none": {"value": "N"},
        "wrong": {"value": "I"}, "part": {"value": "P", "explanation": "é"}, "word": {"value": "yes"}, "lost": 3,
        "huge": {"value": 1e300}, "low": {"value": -1e300}, "least": {"value": -1e299},
        "list": {"value": [1]}, "number": {"value": 2}, "flag": {"value": False},
        "parts": {"value": {"x": 0.5, "y": "C", "z": None, "": 4}, "answer": "b"},
    }  # fmt: skip
    assert list(_scores(scores)) == [
        Score("match", 1.0, {"answer": "a" * 4000}), Score("none", 0.0), Score("wrong", 0.0),
        Score("part", 0.5, {"explanation": "é"}), Score("word", 1.0), Score("least", -1e299), Score("number", 2.0),
        Score("flag", 0.0),
        Score("parts.x", 0.5, {"answer": "b"}), Score("parts.y", 1.0, {"answer": "b"}), Score("parts", 4.0, {"answer": "b"}),
    ]  # fmt: skip
    assert list(_scores([])) == list(_scores(None)) == []


def test_usage_is_the_sum_over_models_with_cached_tokens_in_the_prompt() -> None:
    one = {"input_tokens": 100, "output_tokens": 5, "input_tokens_cache_read": 30, "input_tokens_cache_write": 7}
    assert _usage({"a": one, "b": {"input_tokens": 1, "output_tokens": 2.9}, "c": 4, "d": {"input_tokens": None}}) == (
        Usage(138, 30, 7, 0.0, 7)
    )
    assert _usage(None) == _usage([]) == _usage({}) == Usage()


def test_texts_that_a_log_keeps_apart_come_back_at_any_depth_up_to_twelve() -> None:
    attached = {"h1": "long", "h2": ["kept"]}
    given = {"a": "attachment://h1", "b": ["x", "attachment://h2", {"c": "attachment://none"}], "d": 5}
    assert _whole(given, attached) == {"a": "long", "b": ["x", ["kept"], {"c": "attachment://none"}], "d": 5}
    deep: Any = "attachment://h1"
    for _ in range(13):
        deep = [deep]
    found = json.dumps(_whole(deep, attached))
    assert "long" in found and "attachment" in json.dumps(_whole([deep], attached))
    assert [_text(each) for each in ("é", None, [{"text": "a"}, 5, {"content": [{"text": "b"}]}, {"text": ""}], {})] == [
        "é", "", "a\nb", "",
    ]  # fmt: skip


def test_each_message_of_a_log_keeps_its_role_and_parts() -> None:
    made: list[tuple[dict[str, Any], Message]] = [
        ({"role": "system", "content": "S"}, Message("system", (Text("S"),))),
        ({"role": "odd", "content": "x"}, user("x")), ({"content": ""}, Message("user", ())),
        ({"role": "tool", "tool_call_id": "c", "function": "f", "content": [{"text": "a"}, {"text": "b"}]},
         Message("tool", (ToolResult("c", "f", "a\nb"),))),
        ({"role": "tool", "content": "ok", "error": {"message": "no"}}, Message("tool", (ToolResult("", "", "no", True),))),
        ({"role": "tool", "content": "ok", "error": "no"}, Message("tool", (ToolResult("", "", "ok"),))),
        ({"role": "assistant", "content": [{"type": "reasoning", "reasoning": None}, {"type": "text", "text": "a"}, "raw",
                                           {"type": "i" * 50}, {"other": 1}, {"type": "text", "text": None}, {"text": 5}],
          "tool_calls": [{"id": 7, "function": "f", "arguments": {"x": 1}}, "bad", {"arguments": "{}"}]},
         Message("assistant", (Reasoning("", {}), Text("a"), Text(f"[{'i' * 40}]"), Text("5"), ToolCall("7", "f", {"x": 1}),
                               ToolCall("", "", {})))),
    ]  # fmt: skip
    assert [_message(body) for body, _ in made] == [expected for _, expected in made]


def test_a_sample_is_an_attempt_whose_calls_share_its_time_and_whose_first_has_its_usage() -> None:
    sample: dict[str, Any] = {
        "id": 4, "epoch": 2.0, "uuid": "u", "input": "Q?", "target": "t", "choices": ["a", 2], "total_time": 6.0,
        "metadata": {"n": 1, "l": [], "f": 0.5, "s": "é", "none": None, "yes": True, "d": {"n": 2}},
        "messages": [{"role": "assistant", "content": "a0"}, 5, {"role": "user", "content": "q"},
                     {"role": "assistant", "content": "a2"}, {"role": "assistant", "content": "a3"}],
        "model_usage": {"m": {"input_tokens": 9, "output_tokens": 4}}, "output": {"completion": ""},
        "error": {"message": "e" * 4001}, "limit": {"type": "time"}, "scores": {"s": {"value": 1}},
    }  # fmt: skip
    task, trace = attempt_of(sample, "b", "m")
    assert task == Task(
        "4", "Q?", ("a", "2"), secret={"answer": "t"}, metadata={"n": 1, "f": 0.5, "s": "é", "yes": True}
    )
    assert [(call.id, call.at, call.started_s, call.duration_s, call.usage, call.nodes) for call in trace.calls] == [
        (":0", None, 0.0, 2.0, Usage(9, 0, 4), (0,)), (":1", 1, 2.0, 2.0, Usage(), (2,)), (":2", 2, 4.0, 2.0, Usage(), (3,)),
    ]  # fmt: skip
    assert [node.parent for node in trace.nodes] == [None, 0, 1, 2] and len({call.request for call in trace.calls}) == 3
    assert (trace.answer, trace.epoch, trace.duration_s, trace.scores) == ("", 1, 6.0, (Score("s", 1.0),))
    assert (trace.stop_reason, trace.error) == ("error", Failure("InspectError", "e" * 4000))
    for choices, ended in (
        ([{"stop_reason": "max_tokens"}], "length"), ([{"stop_reason": "model_length"}, {}], "length"), (None, "stop"),
        ([{"stop_reason": "content_filter"}], "content_filter"), ([{"stop_reason": "stop"}], "stop"), ([], "stop"),
        ([{"stop_reason": ["max_tokens"]}], "stop"), (["max_tokens"], "stop"), ({"0": 1}, "stop"),
    ):  # fmt: skip
        told = attempt_of({**sample, "output": {"completion": "", "choices": choices}}, "b", "m")[1]
        assert [call.detail["finish_reasons"] for call in told.calls] == [["stop"], ["stop"], [ended]]
    limited = attempt_of({**sample, "error": None, "output": {"completion": None}}, "b", "m")[1]
    assert (limited.stop_reason, limited.answer, limited.error) == ("time", "a3", None)
    assert attempt_of({**sample, "error": None, "limit": {}}, "b", "m")[1].stop_reason == "limit"
    told = attempt_of({**sample, "error": "text", "limit": None}, "b", "m")[1]
    assert (told.error, told.stop_reason) == (None, "error")
    bare_task, bare = attempt_of({"id": "i" * 501, "epoch": -3, "target": [1], "output": []}, "b", "m")
    assert bare_task == Task("i" * 500, "", secret={"answer": "[1]"}) and (bare.epoch, bare.answer) == (0, None)
    assert bare.started_at == "1970-01-01T00:00:00+00:00" and bare.stop_reason == "done"
    targets = (["t"], {"answers": ["t"]}), (None, {}), ([], {}), (5, {"answer": "5"})
    assert [attempt_of({**sample, "target": each}, "b", "m")[0].secret for each, _ in targets] == [
        to for _, to in targets
    ]
    assert attempt_of({**sample, "target": ["t", "u"], "choices": []}, "b", "m")[0].secret == {"answers": ["t", "u"]}
    right = {"answer": "B", "gold": 1}
    letters = (
        ("B", right), (" B ", right), (["B"], right), (["B", "B"], right), ("A", {"answer": "A", "gold": 0}),
        ("C", {"answer": "C"}), ("AB", {"answer": "AB"}), (["A", "u"], {"answers": ["A", "u"]}),
        (["B", "A"], {"answers": ["B", "A"], "match": "all"}), (["A", 1], {"answer": '["A", 1]'}), ("", {"answer": ""}),
    )  # fmt: skip
    for target, secret in letters:
        assert attempt_of({**sample, "target": target}, "b", "m")[0].secret == secret, target
    assert attempt_of({**sample, "target": "B", "choices": None}, "b", "m")[0].secret == {"answer": "B"}
    many = {**sample, "choices": ["x"] * 40}
    found = [attempt_of({**many, "target": each}, "b", "m")[0].secret for each in ("Z", "[")]
    assert found == [{"answer": "Z", "gold": 25}, {"answer": "["}]
    ids = {attempt_of({**sample, **more}, benchmark, "m")[1].id for more, benchmark in (
        ({}, "b"), ({"uuid": "v"}, "b"), ({"epoch": 1}, "b"), ({"id": 5}, "b"), ({}, "c"))}  # fmt: skip
    assert len(ids) == 5


def write_log(path: Path, **members: Any) -> Path:
    with zipfile.ZipFile(path, "w") as log:
        for name, body in members.items():
            log.writestr(name.replace("__", "/") + ".json", body if isinstance(body, str) else json.dumps(body))
        log.writestr("samples/", "")
    return path


def test_a_log_is_a_run_of_its_samples_in_order_with_each_task_once(tmp_path: Path) -> None:
    samples = {"samples__b": {"id": 2, "input": "B"}, "samples__a": {"id": 1, "input": "A", "epoch": 1},
               "samples__c": {"id": 1, "input": "C", "epoch": 2}}  # fmt: skip
    spec = {"eval": {"task": "ns/sums", "model": "m"}}
    path = write_log(
        tmp_path / "x.eval", header=spec, _journal__start={"eval": {"task": "older"}}, notes="{", **samples
    )
    id, count = import_eval(path, tmp_path)
    assert count == 3 and "inspect-sums" in id
    with open_run(id, tmp_path) as run:
        about = {"kind": "import", "imported": "inspect", "model": "m", "benchmarks": ["ns/sums"], "file": "x.eval"}
        assert {key: run.config[key] for key in about} == about and run.status == "done"
        assert run.agents() == {"m": {"name": "m", "model": "m"}}
        assert [(each.task_id, each.epoch) for each in run.traces()] == [("1", 0), ("2", 0), ("1", 1)]
        first = run.task("ns/sums", "1")
        assert first is not None and first.prompt == "A"
    unnamed, _ = import_eval(write_log(tmp_path / "y.eval", header={"eval": None}, **samples), tmp_path)
    with open_run(unnamed, tmp_path) as run:
        assert (run.config["model"], run.config["benchmarks"]) == ("unknown", ["y"])
    for members, said in (
        ({"header": {"eval": [1]}, **samples}, "is no log of Inspect: it has no samples, or its header is no object"),
        ({"header": spec}, "is no log of Inspect"), ({**samples}, "has no _journal/start.json, or it has more than 256 MiB"),
        ({"header": "[1]", **samples}, "header.json holds no object, or more than its size says"),
        ({"header": spec, "samples__a": "{"}, "samples/a.json is no JSON: "),
        ({"header": spec, "samples__a": "[" * 100_000}, "z.eval: samples/a.json is no JSON: it is nested too deep"),
        ({"header": '{"eval":' * 100_000, **samples}, "z.eval: header.json is no JSON: it is nested too deep"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=said):
            import_eval(write_log(tmp_path / "z.eval", **members), tmp_path)
    with BoundedZipFile(path) as log:
        assert _json(log, "samples/b.json", path) == {"id": 2, "input": "B"}
        with pytest.raises(DataError, match=r"x\.eval has no header, or"):
            _json(log, "header", path)


def test_a_log_is_refused_for_what_its_zip_says_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = {f"samples__{n}": {"id": n, "input": "x" * 300} for n in range(3)}
    path = write_log(tmp_path / "x.eval", header={"eval": {"task": None, "model": ""}}, **samples)
    raw, place = path.read_bytes(), len(b"PK\1\2")
    with BoundedZipFile(path) as log:
        size = sum(info.file_size for info in log.infolist())
    monkeypatch.setattr(zip_members, "MOST_A_BYTE", 0)
    too_many = f"{path} has 3 samples, and at most 2 are read: part the log"
    too_large = f"{path} cannot be read as a log of Inspect: it has {len(raw):,} bytes and unpacks to more than "
    for module, name, most, told in (
        (eval_logs, "MAX_SAMPLES", 3, too_many), (zip_members, "FREE_BYTES", size, too_large),
    ):  # fmt: skip
        with monkeypatch.context() as lower:
            lower.setattr(module, name, most)
            id, count = import_eval(path, tmp_path)
            with open_run(id, tmp_path) as run:
                assert (run.config["model"], run.config["benchmarks"], count) == ("unknown", ["x"], 3), (
                    "named in no header"
                )
            lower.setattr(module, name, most - 1)
            with pytest.raises(DataError) as refused:
                import_eval(path, tmp_path)
            assert str(refused.value).startswith(told)
    monkeypatch.undo()
    name, _ = import_eval(
        write_log(tmp_path / "y.eval", header={"eval": {"task": "n/" + "s" * 50}}, **samples), tmp_path
    )
    assert "inspect-" + "s" * 32 in name and "s" * 33 not in name
    with zipfile.ZipFile(tmp_path / "z.eval", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("header.json", "{}")
        packed.writestr("samples/a.json", json.dumps({"id": "a" * (1 << 20)}))
    monkeypatch.setattr(eval_logs, "MAX_SAMPLE_BYTES", 1 << 20)
    with pytest.raises(
        DataError, match=r"has no samples/a\.json, or it has more than 1 MiB: is it a log of Inspect\?$"
    ):
        import_eval(tmp_path / "z.eval", tmp_path)
    # the flags of a file stand 4 bytes after the mark of its entry in the zip's directory, its method 2 bytes further
    entry = raw.index(b"PK\1\2") + place
    for at, value, why in ((4, 1, "header.json is encrypted, or its archive is closed"), (6, 99, "is packed with AES")):
        path.write_bytes(raw[: entry + at] + bytes([value]) + raw[entry + at + 1 :])
        with pytest.raises(DataError, match=why):
            import_eval(path, tmp_path)


def asked(**given: Any) -> Any:
    names = ("image", "build", "command", "entrypoint", "working_dir", "environment", "mem_limit", "network_mode")
    values = {**dict.fromkeys(names), "x_default": None, **given}
    return SimpleNamespace(**values, model_dump=lambda exclude_none: {k: v for k, v in values.items() if v is not None})


def test_a_sample_of_more_json_values_than_are_decoded_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eval_logs, "MAX_SAMPLE_VALUES", 100)
    with zipfile.ZipFile(tmp_path / "a.eval", "w") as log:
        log.writestr("header.json", json.dumps({"x": [0] * 98, "y": ",[{" * 100}))
        log.writestr("more.json", json.dumps({"x": [0] * 100}))
    with BoundedZipFile(tmp_path / "a.eval") as log:
        assert len(_json(log, "header.json", tmp_path)["x"]) == 98
        with pytest.raises(DataError, match=r"more\.json holds more than 100 JSON values: import the log without it"):
            _json(log, "more.json", tmp_path)


def test_a_service_says_where_it_works_with_what_and_what_is_not_there() -> None:
    file = Path("/c/compose.yaml")
    plain = asked(image="python:3.12", working_dir="/w", environment=["A=1=2", "B"], mem_limit="1.5g", command="sleep 5",
                  ports=[], cap_add=False, network_mode="bridge", x_default=True)  # fmt: skip
    assert _service("s", plain, file) == (
        RequiredSandbox("s", "/w", (), {"A": "1=2", "B": ""}, 3 * 2**29, (), "/c/compose.yaml"), [],
    )  # fmt: skip
    assert _service("s", asked(), file) == (RequiredSandbox("s", source="/c/compose.yaml"), [])
    wants = asked(image="postgres:16@sha256:ab", ports=["80"], odd=1, network_mode="host", command=["serve", "x" * 70],
                  entrypoint="sh -c 'tail -f /dev/null'")  # fmt: skip
    assert _service("s", wants, file)[1] == [
        "listens on a port", "asks for odd", "is on the network 'host'", f"keeps `serve {'x' * 54}` running",
        "is the image 'postgres:16'",
    ]  # fmt: skip
    for idle in (
        "/bin/sh -c 'sleep infinity'",
        'sh -c "exec tail -f /dev/null"',
        ["/bin/sh", "-c", "sleep 5"],
        "cat",
        [],
    ):
        assert _service("s", asked(command=idle), file)[1] == [], idle
    assert _service("s", asked(user="", devices={}, privileged=False, labels=["a"]), file)[1] == [
        "runs as another user", "asks for labels",
    ]  # fmt: skip
    assert _service("s", asked(entrypoint=["python3", "-m", "http.server"]), file)[1] == [
        "keeps `python3 -m http.server` running"
    ]
    assert _variables({"a": 1, "b": None, 3: "c"}) == {"a": "1", "b": "", "3": "c"} and _variables(None) == {}
    sizes = {"512": 512, "5b": 5, "1k": 1024, "2KB": 2048, "1.5m": 3 * 2**19, "1 gb": 2**30, "": 0, "x": 0, "5t": 0}
    assert {text: _bytes(text) for text in sizes} == sizes and _bytes(None) == 0


def test_what_each_of_several_services_lacks_is_told_six_at_most_in_their_order() -> None:
    file = Path("/c/compose.yaml")

    def told(**services: Any) -> str:
        with pytest.raises(ConfigError) as error:
            _services(SimpleNamespace(services=services), file, False)
        return str(error.value)

    begins, ends = "/c/compose.yaml needs what the sandbox does not have: service ", (
        ". To run it, install Docker, so that Inspect builds the image, or add :sandbox=firsthand to run without these"
    )  # fmt: skip
    bad, good = asked(image="redis", ports=["80"]), asked()
    two = f"{begins}'a' listens on a port; service 'a' is the image 'redis'"
    assert told(a=bad) == told(a=bad, b=good) == told(b=good, a=bad) == two + ends
    assert told(a=bad, b=good, c=asked(user="me")) == f"{two}; service 'c' runs as another user{ends}"
    assert told(c=asked(user="me"), a=bad) == f"{begins}'c' runs as another user; {two.removeprefix(begins[:-8])}{ends}"
    six = "; service ".join(
        f"{name!r} {why}" for name in "abc" for why in ("listens on a port", "is the image 'redis'")
    )
    assert told(a=bad, b=bad, c=bad) == f"{begins}{six}{ends}"
    assert told(a=bad, b=bad, c=bad, d=asked(user="me")) == f"{begins}{six}; and 1 more{ends}"
    assert told(a=bad, b=bad, c=bad, d=bad) == f"{begins}{six}; and 2 more{ends}"
    first, second, default = (RequiredSandbox(name, source=str(file)) for name in ("a", "b", "default"))
    several = SimpleNamespace(services={"a": bad, "b": good, "default": asked()})
    assert _services(several, file, True) == [default, first, second]
    several.services = {"a": good, "b": asked(x_default=True)}
    assert _services(several, file, False) == [second, first]
    with pytest.raises(ConfigError, match=r"^/c/compose\.yaml has no services: a sandbox needs one$"):
        _services(SimpleNamespace(services={}), file, True)


def test_a_dockerfile_adds_its_folder_steps_and_variables_to_those_of_its_service(tmp_path: Path) -> None:
    context = tmp_path / "ctx"
    context.mkdir()
    (context / "a.txt").write_text("é")
    (context / "Dockerfile").write_text(
        "FROM python:3.12\nENV A=docker B=2\nWORKDIR /made\nCOPY a.txt /made/\nRUN echo 1\n"
    )
    (context / "Other").write_text("FROM postgres:16\n")
    service = RequiredSandbox("s", environment={"A": "mine"}, memory_bytes=7)
    made, lacks = _built(service, context / "Dockerfile", context)
    assert (made.name, made.folder, made.environment, made.memory_bytes, lacks) == (
        "s", "/made", {"A": "mine", "B": "2"}, 7, [],
    )  # fmt: skip
    assert made.source == str(context / "Dockerfile") and "/made" in made.folders
    assert [(step.command, [path for path, _, _ in step.files]) for step in made.steps] == [
        ("", ["/made/a.txt"]), ("echo 1", []),
    ] and isinstance(made.steps[0], BuildStep)  # fmt: skip
    assert _built(RequiredSandbox("s", "/own"), context / "Dockerfile", context)[0].folder == "/own"
    file = tmp_path / "compose.yaml"
    by_text, none = _service("s", asked(build="ctx", image="postgres", environment={"A": "mine"}), file)
    assert (by_text.folder, by_text.environment, none) == ("/made", {"A": "mine", "B": "2"}, [])
    named = asked(build=SimpleNamespace(context="ctx", dockerfile="Other"), command="serve")
    other, lacks = _service("s", named, file)
    assert other.source == str(context / "Other") and lacks[0] == "keeps `serve` running" and len(lacks) == 2
    assert "postgres:16" in lacks[1]


class Track:
    """What a track was told, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def rewind(self, step: int) -> None:
        self.told.append(("rewind", step))

    def log(self, numbers: dict[str, float], *, step: int) -> None:
        self.told.append(("log", numbers, step))

    def flush(self) -> None:
        self.told.append("flush")

    def artifact(self, file: Path, *, name: str, step: int) -> None:
        self.told.append(("artifact", file, name, step))


def test_a_trainers_first_process_alone_logs_numbers_rewinds_and_keeps_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(
        sys.modules, "transformers", SimpleNamespace(TrainerCallback=object)
    )  # its import takes seconds
    from firsthand.bridges.huggingface.trainer_callback import track_callback

    track: Any = Track()
    callback = track_callback(track)
    args = SimpleNamespace(output_dir=str(tmp_path))
    folder = tmp_path / "checkpoint-12"
    folder.mkdir()
    for name in ("b.safetensors", "a.safetensors", "c.bin"):
        (folder / name).touch()
    for first in (False, True):
        for step in (0, 12):
            state = SimpleNamespace(is_world_process_zero=first, global_step=step)
            callback.on_train_begin(args, state, None, model=None)
            callback.on_log(args, state, None, logs={"loss": 0.5, "epoch": step, "note": "text", "flag": True})
            callback.on_log(args, state, None)
            callback.on_save(args, state, None)
    numbers = {"loss": 0.5, "flag": True}
    assert track.told == [
        ("log", {**numbers, "epoch": 0}, 0), ("log", {}, 0), "flush",
        ("rewind", 12), ("log", {**numbers, "epoch": 12}, 12), ("log", {}, 12), "flush",
        ("artifact", folder / "a.safetensors", "checkpoint-12/a.safetensors", 12),
        ("artifact", folder / "b.safetensors", "checkpoint-12/b.safetensors", 12),
    ]  # fmt: skip
