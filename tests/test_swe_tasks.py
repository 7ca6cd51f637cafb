"""Records of the software benchmarks as tasks, and the options that benchmarks of them pass on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmarks import swe_bench_lite, swe_bench_verified, swe_records
from firsthand.benchmarks.swe.swe_environment import Checkout
from firsthand.benchmarks.swe.swe_tasks import (
    Records,
    _clones,
    _oracle_files,
    agent_task,
    check,
    oracle_task,
    read_records,
    swe_benchmark,
)
from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.scorers.resolved import TaskWorkplaces
from swe_local import BROKEN, COMMAND, GOOD, adds, make_repository, write


def a_record(**changes: Any) -> dict[str, Any]:
    row = {
        "instance_id": "calc-1",
        "repo": "somebody/calc",
        "base_commit": "c" * 40,
        "problem_statement": " half fails\n",
        "patch": GOOD,
        "test_patch": adds("tests/test_h.py", "def test():\n    pass\n"),
        "FAIL_TO_PASS": '["a", "b"]',
        "PASS_TO_PASS": [],
        "test_cmd": COMMAND,
        "ignored": 1,
    }
    return {**row, **changes}


def test_a_software_benchmark_says_how_it_is_judged_and_hides_what_judges_it(tmp_path: Path) -> None:
    record = check(a_record(), "here")
    assert record["FAIL_TO_PASS"] == ["a", "b"] and "ignored" not in record and "test_cmd" not in record
    assert check(a_record(base_commit="c" * 64, log_parser="parse_log_pytest"), "")["base_commit"] == "c" * 64
    for changed in ({"base_commit": "c" * 63}, {"base_commit": "C" * 40}, {"log_parser": "parse_log_parse_log_pytest"}):
        with pytest.raises(DataError, match=rf"^here: {next(iter(changed))} is "):
            check(a_record(**changed), "here")
    records = Records((record,), "my file, 1 items", tmp_path, "5ha")
    places = TaskWorkplaces(folder=tmp_path, test_s=90.5)
    made = swe_benchmark("mine", records, protocol="", description="Mine.", places=places)
    assert (made.name, made.description) == ("mine", "Mine.")
    assert made.licence == "MIT (the records); the repositories have their own"
    how = "resolved: all fail-to-pass tests pass and all pass-to-pass tests still do, by the record's script"
    ends = "the worse result of a test counts, and a canary must fail"
    tools = "the agent works in the repository with shell, view, edit, create and submit"
    assert made.protocol == f"my file, 1 items; {tools}; {how}, without a network, 90.5 s; {ends}"
    assert made.options == {"data": "my file, 1 items", "sha256": "5ha", "protocol": "agent", "network": False}
    (task,) = made.tasks(0)
    assert task == agent_task(record, places)
    assert task.prompt == (
        "The repository calc is checked out in /testbed. Resolve the issue below by changing its files; do not change its "
        "tests, hidden ones will be run. There is no network. When you are done, call submit.\n\n"
        "<issue>\nhalf fails\n</issue>"
    )
    about = {"repo": "somebody/calc", "base_commit": "c" * 40, "image": "", "cluster": "somebody/calc"}
    assert (task.id, task.hint, task.metadata) == ("calc-1", "a sentence on what was changed", about)
    hidden = ("patch", "test_patch", "FAIL_TO_PASS", "PASS_TO_PASS", "eval_script", "log_parser", "eval_type")
    assert task.secret == {key: record[key] for key in hidden}
    assert made.environment is not None
    environment = made.environment(task)
    assert isinstance(environment, Checkout) and (environment.task, environment.places) == (task, places)
    asked = check(a_record(text="The whole prompt {issue}"), "here")
    online = TaskWorkplaces(network=True)
    other = swe_benchmark(
        "mine",
        Records((asked,), "o", tmp_path, "5"),
        protocol="oracle",
        description="",
        places=online,
        licence="own",
    )
    one = "one answer with a patch, given the files that the reference patch changes"
    assert (other.name, other.licence, other.environment) == ("mine@oracle", "own", None)
    assert other.protocol == f"o; {one}; {how}, with a network, 1800 s; {ends}"
    assert other.options == {"data": "o", "sha256": "5", "protocol": "oracle", "network": True}
    (task,) = other.tasks(0)
    assert task.prompt == "The whole prompt {issue}" and task.verbatim and task.sampling == {"max_tokens": 4096}
    with pytest.raises(UnknownName, match=r"protocol of mine"):
        swe_benchmark("mine", records, protocol="agents", description="", places=places)


def test_the_oracle_shows_the_changed_files_that_there_were_with_numbered_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    clones = tmp_path / "clones"
    base = make_repository(clones / "somebody__calc")
    patch = adds("a_new.py", "x = 1\n") + GOOD + GOOD.replace("calc/__init__", "tests/test_calc")
    record = check(a_record(base_commit=base, patch=patch), "here")
    numbered = "\n".join(f"{number} {line}" for number, line in enumerate(BROKEN.split("\n"), 1))
    shown = f"[start of calc/__init__.py]\n{numbered}\n[end of calc/__init__.py]\n[start of tests/test_calc.py]\n"
    found = _oracle_files(record, TaskWorkplaces(folder=clones))
    assert found.startswith(shown) and found.endswith("6 \n[end of tests/test_calc.py]") and "a_new" not in found
    prompt = oracle_task(record, TaskWorkplaces(folder=clones)).prompt
    assert f"<issue>\nhalf fails\n</issue>\n\n<code>\n{found}\n</code>\n" in prompt
    with pytest.raises(DataError, match=r"^calc-1: the protocol oracle needs the files of somebody/calc: give repos="):
        _oracle_files(record, TaskWorkplaces(folder=tmp_path))
    with pytest.raises(DataError, match=r"^calc-1: the protocol oracle shows .* and the record has no patch$"):
        _oracle_files({**record, "patch": ""}, TaskWorkplaces(folder=clones))


def test_clones_packages_and_repositories_may_lie_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    data = str(write(tmp_path, a_record()))
    for make in (swe_bench_lite.swe_bench_lite, swe_bench_verified.swe_bench_verified, swe_records.swe_records):
        made = make(data=data, repos="~/r")
        assert made.environment is not None
        assert made.environment(made.tasks(0)[0]).places == TaskWorkplaces(folder=tmp_path / "r"), make  # type: ignore[attr-defined]
    made = swe_records.swe_records(data=data, packages=("~/p", str(tmp_path / "q")))
    assert made.environment is not None
    places = made.environment(made.tasks(0)[0]).places  # type: ignore[attr-defined]
    assert places == TaskWorkplaces(folder=tmp_path, packages=(str(tmp_path / "p"), str(tmp_path / "q")))
    assert _clones("~/c", tmp_path / "x")[0] == tmp_path / "c"
    assert _clones("o/n", tmp_path) == [tmp_path / each for each in ("o/n", "o__n", "n", "n.git")]
    with pytest.raises(DataError) as none:
        swe_records.from_commit("~/mine", "a" * 40)
    assert f"{tmp_path / 'mine'}" in str(none.value)


@pytest.mark.parametrize("room", [swe_bench_lite, swe_bench_verified])
def test_the_published_sets_pass_their_options_on(room: Any, tmp_path: Path) -> None:
    name = room.__name__.rpartition(".")[2]
    make = getattr(room, name)
    file = write(tmp_path, a_record())
    made = make(data=str(file))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert made.name == name and made.options == {
        "data": "data folder, 1 items", "sha256": digest, "protocol": "agent", "network": False,
    }  # fmt: skip
    (task,) = made.tasks(0)
    assert made.environment(task).places == TaskWorkplaces(folder=tmp_path)
    there = make(data=str(file), repos=str(tmp_path / "r"), network=True, test_s=7.0, engine="podman")
    given = TaskWorkplaces(folder=tmp_path / "r", network=True, test_s=7.0, engine="podman")
    assert there.environment(task).places == given
    assert make(protocol="oracle", data=str(write(tmp_path, a_record(text="x")))).name == f"{name}@oracle"
    assert room.SOURCE.rows == {"swe_bench_lite": 300, "swe_bench_verified": 500}[name]


def test_own_records_are_read_with_their_options(tmp_path: Path) -> None:
    write(tmp_path, a_record(), a_record(instance_id="calc-2"))
    made = swe_records.swe_records(data=str(tmp_path))
    assert made.name == "swe_records" and made.licence == "that of the repositories"
    assert made.options["data"] == "tasks.jsonl, 2 items"
    first, second = made.tasks(0)
    assert (first.id, second.id) == ("calc-1", "calc-2")
    assert made.environment is not None and made.environment(first).places == TaskWorkplaces(folder=tmp_path)
    given = {"repos": str(tmp_path / "r"), "packages": (str(tmp_path / "p" / ".." / "q"),), "test_s": 5.0}
    other = swe_records.swe_records(data=str(tmp_path / "tasks.jsonl"), network=True, engine="docker", **given)
    packages = (str(tmp_path.resolve() / "q"),)
    expected = TaskWorkplaces(folder=tmp_path / "r", packages=packages, network=True, test_s=5.0, engine="docker")
    assert other.environment is not None and other.environment(first).places == expected
    write(tmp_path, a_record(), a_record(instance_id="x"), a_record())
    with pytest.raises(
        DataError, match=r"tasks.jsonl, line 3: the instance_id 'calc-1' came before, at .*tasks.jsonl, line 1$"
    ):
        read_records(tmp_path / "tasks.jsonl", "o")
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(DataError, match=r"which holds 2 files of records: name one$"):
        swe_records.swe_records(data=str(tmp_path))
    with pytest.raises(ConfigError, match=r"^swe_records needs data=FILE"):
        swe_records.swe_records()


def test_a_container_engine_is_docker_podman_or_an_absolute_path() -> None:
    for engine in ("", "docker", "podman", "/opt/bin/nerdctl"):
        assert TaskWorkplaces(engine=engine).engine == engine
    for engine in ("bash", "./docker", "Docker"):
        with pytest.raises(
            ConfigError, match=f"^engine is '{engine}': give docker, podman, or the absolute path of such"
        ):
            TaskWorkplaces(engine=engine)
