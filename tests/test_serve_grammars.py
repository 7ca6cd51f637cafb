"""Hostile grammars before a whole server: memory stays, everyone else is answered, and the refusal says why."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.decoding.constraint import Grammars
from firsthand.providers.local import Local
from firsthand.tokens.isolated_grammar import GrammarLimits
from grammar_tiny import LATE
from served import Running, serving, until
from tiny import write_model

HTTP = httpx.Client(verify=False, timeout=60)
HI = [{"role": "user", "content": "Hi"}]
NUMBERS = range(99_999_989, 99_999_989 - 100, -2)
MEMORY = 48 << 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = write_model(tmp_path_factory.mktemp("model") / "m", max_position=2048)
    model = Local(folder, config=EngineConfig(kv_memory_bytes=1 << 22, threads=1))
    with serving(model, name="tiny") as found:
        loaded = model._shared.loaded
        limits = GrammarLimits(compile_s=0.5, step_s=0.2, memory_bytes=MEMORY, rest_s=0)
        model._shared.loaded = replace(loaded, grammars=Grammars(loaded.tokenizer, limits=limits))
        yield found


@pytest.fixture
def running(shared: Running) -> Iterator[Running]:
    """The server; whatever was asked of it, it answers afterwards, plainly and under grammars."""
    yield shared
    assert ask(shared).status_code == 200
    until(lambda: shared.admission.in_flight == 0)


def ask(running: Running, **body: Any) -> httpx.Response:
    body = {"messages": HI, "max_tokens": 12, "temperature": 1.0, "seed": 3, **body}
    return HTTP.post(running.url + "/v1/chat/completions", json=body, timeout=60)


def said(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["message"])


def started(parent: int) -> list[int]:
    """A process and all that it started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found = [parent]
    for each in found:
        found += children.get(each, [])
    return found


def held_bytes() -> int:
    """Memory of the server, which is this process, and of every process that it started, without what they share."""
    total = 0
    for process in started(os.getpid()):
        with suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))
    return total


@pytest.mark.slow
def test_a_grammar_that_compiles_without_end_is_refused_while_others_are_answered(running: Running) -> None:
    answers: list[httpx.Response] = []
    attack = {"guided_json": {"type": "integer", "multipleOf": NUMBERS[30]}}
    thread = threading.Thread(target=lambda: answers.append(ask(running, **attack)))
    thread.start()
    assert ask(running, guided_regex="a[bc]d").status_code == 200
    assert ask(running, guided_json={"type": "string", "pattern": "^[ef]+$", "maxLength": 3}).status_code == 200
    thread.join(60)
    assert answers[0].status_code == 400 and "make it simpler" in said(answers[0])
    assert answers[0].json()["error"]["type"] == "invalid_request_error"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs the kernel's account of memory")
def test_grammars_that_take_memory_without_end_leave_it_as_it_was(running: Running) -> None:
    bounded = {"type": "string", "pattern": "^[ab]{2,5}$", "maxLength": 4}
    assert ask(running, guided_json=bounded).status_code == 200  # the processes have started
    before, others = held_bytes(), len(started(os.getpid()))
    answers: list[httpx.Response] = []

    def attack(number: int) -> None:
        answers.append(ask(running, guided_json={"type": "integer", "multipleOf": number}))

    threads = [threading.Thread(target=attack, args=(number,)) for number in NUMBERS[:5]]
    for thread in threads:
        thread.start()
    most, innocent = 0, 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, held_bytes())
        innocent += 1
        assert ask(running, guided_regex=f"ab{{{innocent}}}").status_code == 200
        assert ask(running, guided_json={**bounded, "maxLength": 5 + innocent}).status_code == 200
    for thread in threads:
        thread.join(60)
    assert innocent > 0 and most < before + 4 * (MEMORY + (64 << 20))
    for answer in answers:
        assert answer.status_code in (400, 503), answer.text
        assert "grammar" in said(answer) and ("make it simpler" in said(answer) or "try again" in said(answer))
    assert {answer.status_code for answer in answers} >= {400}
    assert len(started(os.getpid())) < others + 30
    until(lambda: held_bytes() < before + (160 << 20), 30)


@pytest.mark.slow
def test_a_token_that_would_take_minutes_ends_its_own_request(running: Running) -> None:
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(ask(running, max_tokens=60)))
    thread.start()
    hostile = ask(running, guided_grammar=LATE.source)
    thread.join(60)
    assert hostile.status_code == 400 and "for one token: make it simpler" in said(hostile)
    assert answers[0].status_code == 200
    assert "for one token" in said(ask(running, guided_grammar=LATE.source))


@pytest.mark.slow
@pytest.mark.parametrize("field", ["guided_json", "response_format"])
def test_a_schema_of_two_thousand_properties_is_refused_with_a_reason_or_works(running: Running, field: str) -> None:
    schema = {"type": "object", "properties": {f"property_{i}": {"type": "string"} for i in range(2000)}}
    body = schema if field == "guided_json" else {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    running.models.model._shared.loaded = replace(
        loaded := running.models.model._shared.loaded, grammars=Grammars(loaded.tokenizer)
    )
    try:
        answer = ask(running, **{field: body})
    finally:
        running.models.model._shared.loaded = loaded
    assert answer.status_code == 200 or (answer.status_code == 400 and "grammar is too complex: " in said(answer))


@pytest.mark.slow
def test_a_tool_with_a_hostile_schema_may_be_called_with_any_arguments(running: Running) -> None:
    tools = [
        {"type": "function", "function": {"name": f"t{place}", "parameters": {"properties": {"x": schema}}}}
        for place, schema in enumerate([{"type": "integer", "multipleOf": NUMBERS[40]}, {"type": "string"}])
    ]
    answer = ask(running, tools=tools, max_tokens=3)
    assert answer.status_code == 200, answer.text
