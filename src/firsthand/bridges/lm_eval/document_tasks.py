"""Turns the harness's documents into Tasks that fix their own requests, character for character."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from firsthand.bridges.lm_eval.document_scores import DocumentRequests
from firsthand.errors import DataError
from firsthand.message import Message, Text
from firsthand.task import Task
from firsthand.trace import as_json

MAX_TOKENS = 256
"""The harness's limit on generated tokens where a task sets none."""
_CHAT = "\x00firsthand-chat\x00"
_KNOWN = {"until", "do_sample", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "num_beams"}
_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_ROLES = ("system", "user", "assistant")


def entries_of(name: str, task: Any, *, of_several: bool = False) -> Iterator[DocumentRequests]:
    """Yield each document with its requests; of several tasks, each is a stratum, as the subjects of `mmlu` are."""
    by_doc: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_doc.setdefault(instance.doc_id, []).append(instance)
    for doc_id, instances in by_doc.items():
        instances.sort(key=lambda instance: instance.idx)
        doc = instances[0].doc
        ours = _task(f"{name}-{doc_id:04d}", name, task, doc, instances)
        if of_several:
            ours = replace(ours, metadata={**ours.metadata, "stratum": name})
        yield DocumentRequests(name, task, doc, tuple(instances), ours)


def _task(id: str, name: str, task: Any, doc: Any, instances: list[Any]) -> Task:
    """Return the document as a Task with the requests that the harness built from it."""
    kinds = {instance.request_type for instance in instances}
    kind = instances[0].request_type
    if len(kinds) > 1 or (kind != "loglikelihood" and len(instances) > 1):
        raise DataError(f"it makes {len(instances)} requests of the kinds {', '.join(sorted(kinds))} for one document")
    about: dict[str, Any] = {
        "id": id,
        "metadata": {"lm_eval_task": name, "request": kind},
        "secret": {"doc": as_json(doc), "target": as_json(task.doc_to_target(doc))},
    }
    if kind == "generate_until":
        before, settings = instances[0].args[:2]
        conversation, last = _read(before)
        context = None if last is not None else before
        prompt = last if last is not None else _question(task, doc)
        about |= {"prompt": prompt, "context": context, "conversation": conversation}
        return Task(**about, sampling=_sampling(settings), verbatim=True)
    if kind == "loglikelihood_rolling":
        return Task(**about, prompt="", requests=(("", str(instances[0].args[0])),))
    listed = [str(each) for each in task.doc_to_choice(doc)] if _has_choices(task) else []
    pairs = [(before, str(text)) for before, text in (instance.args[:2] for instance in instances)]
    with_question = pairs[: len(listed)] if listed else pairs
    rest = pairs[len(with_question) :]
    if [text for _, text in rest] != [text for _, text in with_question][: len(rest)] or any(
        before for before, _ in rest
    ):
        raise DataError("it scores other texts without the question than with it")
    read = [_read(before) for before, _ in with_question]
    conversations = [each for each in read if each[1] is not None]
    if conversations and any(each != conversations[0] for each in read):
        raise DataError("its choices stand in different conversations: leave out apply_chat_template")
    conversation, last = read[0]
    return Task(
        **about,
        prompt=last if last is not None else _question(task, doc),
        choices=tuple(listed),
        requests=tuple((None if last is not None else before, text) for before, text in with_question),
        conversation=conversation,
        baseline="" if rest else None,
        hint="a letter" if listed else None,
    )


def _has_choices(task: Any) -> bool:
    return task.get_config("doc_to_choice") is not None


def _question(task: Any, doc: Any) -> str:
    """Return the question without few-shot examples, for patterns that write their own prompts."""
    text = task.doc_to_text(doc)
    return text if isinstance(text, str) else f"Which of these comes before: {task.doc_to_target(doc)}"


def _sampling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the task's generation settings by the harness's rules: greedy unless a temperature is set."""
    until = settings.get("until", [])
    stop = tuple(str(each) for each in (until if isinstance(until, list | tuple) else [until]) if str(each or ""))
    tokens = next((int(settings[key]) for key in _TOKENS if settings.get(key) is not None), MAX_TOKENS)
    temperature = 0.0 if settings.get("do_sample") is False else float(settings.get("temperature") or 0.0)
    if settings.get("do_sample") and "temperature" not in settings:
        temperature = 1.0
    if int(settings.get("num_beams") or 1) > 1:
        raise DataError(f"it asks for beam search with {settings['num_beams']} beams, which no model here supports")
    more = {key: settings[key] for key in ("top_p", "top_k", "min_p", "repetition_penalty") if key in settings}
    return {"stop": stop, "max_tokens": tokens, "temperature": temperature, **more}


def as_marker(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """Return the messages, marked, in place of rendered text: the model's own template renders them later."""
    if not add_generation_prompt:
        raise DataError("its answers begin with a prefix (gen_prefix), which no chat template here can continue")
    return _CHAT + json.dumps(messages)


def _read(context: Any) -> tuple[tuple[Message, ...], str | None]:
    """Return the conversation before the last message, and the last message's text; None in its place if there are none."""
    if not isinstance(context, str) or not context.startswith(_CHAT):
        return (), None
    messages = json.loads(context.removeprefix(_CHAT))
    *before, last = messages
    if last["role"] != "user" or any(each["role"] not in _ROLES for each in before):
        raise DataError(f"its conversation ends with a {last['role']} message: a user message was expected")
    return tuple(Message(each["role"], (Text(each["content"]),)) for each in before), str(last["content"])


def protocol_text(tasks: Mapping[str, Any], seed: int, chat: bool, turns: bool, system: str) -> str:
    """Return the protocol description that a run records."""
    from importlib.metadata import version

    shots = sorted({task.get_config("num_fewshot") or 0 for task in tasks.values()})
    ignored = sorted(
        {
            key
            for task in tasks.values()
            for key in (task.get_config("generation_kwargs") or {})
            if key not in _KNOWN and key not in _TOKENS
        }
    )
    parts = [
        f"lm-evaluation-harness {version('lm-eval')}, {len(tasks)} task{'s' if len(tasks) > 1 else ''}",
        f"{'/'.join(map(str, shots))}-shot, examples by seed {seed}",
        *(["as messages" + (", examples as turns" if turns else "")] if chat else []),
        *([f"system {system!r}"] if system else []),
        *([f"ignored: {', '.join(ignored)}"] if ignored else []),
        *(f"{name} asks {task.config.repeats} times: run it with --epochs {task.config.repeats}"
          for name, task in tasks.items() if (task.get_config("repeats") or 1) > 1),
    ]  # fmt: skip
    return "; ".join(parts)
