"""Programs under the real instrumentations of OpenInference, OpenLLMetry and Langfuse, unchanged, show up in the store.

They run in an environment of their own (FIRSTHAND_TRACED_VENV, or one that is made here) against our OpenAI-compatible
server with a scripted model.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from firsthand.ingest.as_trace import trace_of
from firsthand.ingest.trace_store import TraceStore
from firsthand.ingest.trace_summary import COLUMNS, TraceSummary, summaries_of
from firsthand.message import Message, ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.trace import Trace
from served import serving
from thorough import THOROUGH
from traces_server import started

pytestmark = pytest.mark.slow
PROGRAMS = Path(__file__).parent / "traced_programs"
NAMES = ("openinference_openai", "openinference_langchain", "openllmetry_openai", "langfuse_sdk")
MORE = ("openinference_llama_index", "openai_agents", "inspect_eval")
QUESTION = "Is it raining in Paris?"
Sent = tuple[TraceStore, dict[str, TraceSummary], dict[str, str]]
"""The store, the trace of each program, and why the others failed."""


def python_with(requirements: str, suffix: str = "") -> str | None:
    """The Python of an environment that has these SDKs, which is made if it is not there; None if it cannot be."""
    place = os.environ.get("FIRSTHAND_TRACED_VENV") or Path(tempfile.gettempdir()) / f"firsthand-traced-{os.getuid()}"
    folder = Path(f"{place}{suffix}")
    made = folder / "bin" / "python"
    ready = folder / f"{requirements}.ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        asked = ["-r", str(PROGRAMS / f"{requirements}.txt")]
        if subprocess.run([str(made), "-m", "pip", "install", "-q", *asked], capture_output=True).returncode:
            return None
        ready.touch()
    return str(made)


@pytest.fixture(scope="module")
def pythons() -> dict[str, str]:
    """Program -> the Python that runs it."""
    main = python_with("requirements-thorough" if THOROUGH else "requirements")
    if main is None:
        pytest.skip("the SDKs for traces cannot be installed")
    found = dict.fromkeys(NAMES + (MORE if THOROUGH else ()), main)
    if THOROUGH:
        other = python_with("requirements-llama-index", "-llama-index")
        assert other is not None, "the requirements of LlamaIndex contradict each other"
        found["openinference_llama_index"] = other
    return found


@pytest.fixture(scope="module")
def sent(pythons: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    """The store after all programs ran, and the trace of each."""
    home = tmp_path_factory.mktemp("sdks")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))}
    call = Message("assistant", (ToolCall("c1", "weather", {"city": "Paris"}),))

    found: dict[str, TraceSummary] = {}
    failed = {}
    with started(home) as studio:
        for name, python in pythons.items():
            replies = [call, "yes"] if name in ("openinference_openai", "openai_agents") else ["yes", "yes"]
            with serving(Scripted(replies), name="scripted") as models:
                command = [python, str(PROGRAMS / f"{name}.py"), studio.url, models.url]
                named = environment | {"OTEL_SERVICE_NAME": name}
                try:
                    subprocess.run(command, capture_output=True, text=True, timeout=120, env=named, check=True)
                except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                    failed[name] = f"{error}: {str(error.stderr)[-2000:]}"
    store = TraceStore(home)
    for one in summaries_of(store.database.read(f"SELECT {', '.join(COLUMNS)} FROM traces ORDER BY first_ns")):
        assert one.service in pythons and one.service not in found, "one trace each"
        found[one.service] = one
    yield store, found, failed
    store.close()


def trace(sent: Sent, name: str) -> Trace:
    store, found, _ = sent
    return trace_of(found[name].trace, store.spans(found[name].trace))


@pytest.mark.parametrize("name", NAMES + MORE)
def test_a_program_shows_up_unchanged(sent: Sent, name: str) -> None:
    if name in MORE and not THOROUGH:
        pytest.skip("the SDKs for traces are installed by FIRSTHAND_THOROUGH alone")
    assert name not in sent[2], sent[2][name]
    one = sent[1][name]
    assert one.has_root and one.num_errors == 0 and one.model == "scripted" and one.output.startswith("yes")
    assert QUESTION in one.input and one.prompt_tokens > 0 and one.completion_tokens > 0
    made = trace(sent, name)
    said = next(iter(made.branches()))
    assert made.answer == "yes" and any(each.role == "user" and QUESTION in each.text for each in said)
    assert said[-1].role == "assistant" and said[-1].text == "yes"


def test_sessions_users_tags_and_costs_are_read(sent: Sent) -> None:
    found = sent[1]
    for name in ("openinference_openai", "langfuse_sdk"):
        assert (found[name].session, found[name].user) == ("chat-7", "ada")
    langfuse = found["langfuse_sdk"]
    assert (langfuse.tags, langfuse.cost_usd) == ("|test|", 0.25)
    assert (langfuse.prompt_tokens, langfuse.completion_tokens) == (12, 3)


def test_a_tool_call_and_its_result_are_in_one_conversation(sent: Sent) -> None:
    made = trace(sent, "openinference_openai")
    (said,) = made.branches()
    assert [each.role for each in said] == ["user", "assistant", "tool", "assistant"]
    assert said[1].tool_calls[0].name == "weather" and said[1].tool_calls[0].arguments == {"city": "Paris"}
    assert "rain" in said[2].text


def test_the_key_of_the_client_is_in_no_span(sent: Sent) -> None:
    store = sent[0]
    store.database.read("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"sk-not-a-real-key" not in store.database.path.read_bytes()
