"""The pieces of a remote agent's answer as they are shown, and what is kept and said at its end."""

import asyncio
import hashlib
from dataclasses import replace

import pytest
from a2a.types.a2a_pb2 import Part
from google.protobuf.json_format import ParseDict

from firsthand.errors import ConfigError, ModelError
from firsthand.message import assistant, system, user
from firsthand.model import Completion, Delta, Sampling, ToolSpec, Usage
from firsthand.providers import a2a as provider
from firsthand.providers.a2a import RemoteAgent, _Thread
from firsthand.providers.a2a_answer import text_of

NAME = "a2a:http://h:80/x"


class Told(RemoteAgent):
    """An agent whose answer takes these states, one after the other."""

    def __init__(self, *states, **given):
        super().__init__("http://h:80/x//", key="", **given)
        self.states, self.sent = states, []

    async def _asked(self, thread, text, answer):
        self.sent.append((thread, text))
        for fields in self.states:
            if isinstance(fields, float):
                await asyncio.sleep(fields)
                continue
            shown = fields.pop("shown", True)
            for artifact, whole in fields.pop("artifacts", {}).items():
                answer.put(artifact, whole, append=False)
            vars(answer).update(fields)
            if shown:
                yield


def read(agent, prompt="p", sampling=None, **given):
    async def all_of():
        return [each async for each in agent.stream(prompt, sampling or Sampling(max_tokens=3), **given)]

    return asyncio.run(all_of())


def end(text):
    return Delta("", Completion(assistant(text), "stop", Usage()))


def test_a_piece_is_what_an_answer_has_grown_by_and_a_change_of_what_was_shown_is_in_the_whole():
    grown = Told({"artifacts": {"a": "One"}}, {}, {"artifacts": {"a": "One two", "b": "x"}}, {"state": "message"})
    assert read(grown) == [Delta("One"), Delta(" two\n\nx"), end("One two\n\nx")]
    changed = Told({"artifacts": {"a": "One"}}, {"artifacts": {"a": "Other"}}, {"artifacts": {"a": "One b"}})
    assert read(changed) == [Delta("One"), Delta(" b"), end("One b")], "what was shown holds again"
    replaced = Told({"artifacts": {"a": "One"}}, {"artifacts": {"a": "Other"}, "state": "TASK_STATE_COMPLETED"})
    assert read(replaced) == [Delta("One"), Delta("\n\nOther"), replace(end("Other"), is_revised=True)]
    late = Told({"said": "Only at the end", "state": "message", "shown": False})
    assert read(late) == [Delta("Only at the end"), end("Only at the end")]
    assert read(Told({"state": "TASK_STATE_COMPLETED"})) == [end("")]


def test_the_task_of_an_answer_that_waits_for_input_is_kept_for_the_next_turn():
    talk = [system("s"), user("u")]
    for state, task in (("TASK_STATE_INPUT_REQUIRED", "t1"), ("TASK_STATE_COMPLETED", ""), ("message", "")):
        agent = Told({"said": "a", "state": state, "context": "c", "task": "t1"})
        read(agent, talk)
        read(agent, [*talk, assistant(" a\n"), user("v")])
        whole = "The conversation so far:\n\nsystem: s\n\nThe message to answer:\n\nu"
        assert agent.sent == [(_Thread(), whole), (_Thread("c", task), "v")], state
    plain = Told({"said": "a", "state": "message", "context": "c"})
    read(plain, "text")
    read(plain, [user("u")])
    read(plain, [user("u"), assistant(""), user("v")])
    whole = "The conversation so far:\n\nuser: u\n\nThe message to answer:\n\nv"
    assert plain.sent == [(_Thread(), "text"), (_Thread(), "u"), (_Thread(), whole)]


def test_an_answer_that_fails_or_does_not_come_is_told_with_its_task():
    def refused(agent, kind=ModelError, **given):
        with pytest.raises(kind) as raised:
            read(agent, **given)
        return str(raised.value)

    for state, words in (
        ("FAILED", "failed"), ("REJECTED", "rejected"), ("CANCELED", "canceled"), ("AUTH_REQUIRED", "auth required"),
    ):  # fmt: skip
        said = Told({"said": "no \n" + "x" * 500, "state": f"TASK_STATE_{state}", "artifacts": {"a": "b"}})
        assert refused(said) == f"{NAME} ended with {words}: no {'x' * 497}..."
        assert refused(Told({"state": f"TASK_STATE_{state}"})) == f"{NAME} ended with {words}: it gives no reason"
    slow = Told({"task": "t7"}, 5.0, timeout_s=0.01)
    assert refused(slow) == f"{NAME} gave no answer within 0.01 s: its task is t7"
    assert refused(Told(5.0, timeout_s=0.01)) == f"{NAME} gave no answer within 0.01 s: it gave no task"
    untouched = Told()
    tools = [ToolSpec("add", "", {})]
    told = f"{NAME} is an agent with tools of its own and takes none: leave out tools"
    assert refused(untouched, ConfigError, tools=tools) == told
    assert refused(untouched, ConfigError, sampling=Sampling(top_k=3)).startswith(f"{NAME} has no top_k (3)")
    with pytest.raises(ConfigError, match=f"^{NAME} gives no log-probs"):
        asyncio.run(untouched.score("p", ["a"]))
    assert untouched.sent == [] and untouched.name == NAME
    assert untouched.fingerprint == f"a2a:{hashlib.sha256(b'http://h:80/x').hexdigest()[:16]}"


def test_as_many_conversations_are_kept_as_are_allowed_and_the_oldest_goes(monkeypatch):
    monkeypatch.setattr(provider, "_MOST_THREADS", 2)
    agent = Told({"said": "a", "state": "message", "context": "c"})
    for name in ("1", "2", "3"):
        read(agent, [user(name)])
    agent.sent.clear()
    assert len(agent._threads) == 2
    for name in ("1", "2", "3"):
        assert agent._message("", "", [user(name), assistant("a"), user("v")])[0] == _Thread(
            *(["c"] * (name != "1"))
        ), name
    assert agent._message("", "", [assistant("a"), user("v")])[0] == _Thread()


def test_parts_of_a_message_are_text_data_and_files_by_what_names_them():
    parts = [
        {"text": "a"}, {"data": {"b": [1], "a": None}}, {"url": "http://f", "filename": "é.txt"}, {"url": "http://f"},
        {"raw": "AAA=", "mediaType": "image/png"}, {},
    ]  # fmt: skip
    wired = [ParseDict(each, Part()) for each in parts]
    assert text_of(wired) == ('a\n{"a":null,"b":[1.0]}\n[file é.txt]\n[file http://f]\n[file image/png]')
    assert text_of([]) == ""
