"""Any task of lm-evaluation-harness: its prompts, few-shot examples, filters and metrics on our engine and our patterns.

    firsthand run lm_eval:task=arc_easy:num_fewshot=5 --limit 100
    firsthand run lm_eval:task=tasks/capitals.yaml

The harness (extra `lm-eval`) loads the task and renders its requests; each document becomes a Task that fixes its own
request, and the harness's own functions judge what came back (`lm_eval_results.py`). Names are the harness's.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from firsthand.benchmark import Benchmark, Figure
from firsthand.bridges.lm_eval.results import Entry, failed, figures_of, scores_of
from firsthand.bridges.lm_eval.task_files import code_in, names_in, read_yaml, sandbox_templates
from firsthand.errors import ConfigError, DataError, FirsthandError, MissingExtra, unknown
from firsthand.message import Message, Text
from firsthand.task import Task
from firsthand.trace import Score, Trace, as_json

SEED = 1234
"""The harness's own default for drawing examples."""
MAX_TOKENS = 256
"""What the harness lets a model write where a task says nothing."""
_CHAT = "\x00firsthand-chat\x00"
_KNOWN = {"until", "do_sample", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "num_beams"}
_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_ROLES = ("system", "user", "assistant")


def lm_eval(
    *,
    task: str = "",
    num_fewshot: int | None = None,
    limit: int | None = None,
    seed: int = SEED,
    apply_chat_template: bool = False,
    fewshot_as_multiturn: bool = False,
    system_instruction: str = "",
    include: str = "",
    trust: bool = False,
) -> Benchmark:
    """The task or group of that name, or of a YAML file, as a Benchmark.

    `limit` is per task, as the harness counts. `include` is a folder with more task files. A file that names Python
    (`!function`, `class`) runs that Python with your rights, so it is loaded only with `trust`. With `apply_chat_template`
    the requests are messages, which the model's own template renders.
    """
    if not task:
        raise ConfigError("lm_eval was given no task: write lm_eval:task=arc_easy, or lm_eval:task=FILE.yaml")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}: give 1 or more")
    if fewshot_as_multiturn and not apply_chat_template:
        raise ConfigError("fewshot_as_multiturn needs apply_chat_template: there are no turns without a template")
    tasks, groups = _load(task, include, trust)
    entries: dict[str, Entry] = {}
    for name, each in tasks.items():
        _prepare(name, each, num_fewshot, seed)
        with _sentences(name), _quiet():
            each.build_all_requests(
                limit=limit,
                system_instruction=system_instruction or None,
                apply_chat_template=apply_chat_template,
                fewshot_as_multiturn=fewshot_as_multiturn,
                chat_template=_as_marker if apply_chat_template else None,
            )
            entries |= {entry.ours.id: entry for entry in _entries(name, each)}
    ours = [entry.ours for entry in entries.values()]
    changed = [  # what makes other requests of the same documents, so that a run can hold both
        *([f"num_fewshot={num_fewshot}"] if num_fewshot is not None else []),
        *([f"seed={seed}"] if seed != SEED else []),
        *(["chat"] if apply_chat_template else []),
        *(["multiturn"] if fewshot_as_multiturn else []),
        *([f"system={hashlib.sha256(system_instruction.encode()).hexdigest()[:6]}"] if system_instruction else []),
    ]

    def lm_eval_metrics(task: Task, trace: Trace) -> tuple[Score, ...]:
        if task.id not in entries:
            raise DataError(f"{task.id} is no document of this task: was it run with another limit?")
        try:
            return scores_of(entries[task.id], trace)
        except Exception as error:  # of a task's own code, too: whatever it is, the table counts it
            return failed(entries[task.id], error)

    def figures(traces: Any) -> list[Figure]:
        return figures_of(entries, groups, traces)

    return Benchmark(
        name=":".join(["lm_eval", Path(task).stem if _is_file(task) else task, *changed]),
        tasks=lambda seed: ours,
        scorers=(lm_eval_metrics,),
        description=f"{task}, as lm-evaluation-harness has it.",
        protocol=_words(tasks, seed, apply_chat_template, fewshot_as_multiturn, system_instruction),
        figures=figures,
        options={"task": task, "limit": limit, "seed": seed},
    )


def _load(task: str, include: str, trust: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tasks and groups that the name or file stands for."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise MissingExtra("lm-eval", "lm-eval", f"the benchmark lm_eval:task={task}") from None
    sandbox_templates()
    with _sentences(task), _quiet():
        if _is_file(task):
            manager, name = _of_file(Path(task).expanduser().resolve(), include, trust, TaskManager)
        else:
            manager, name = _installed(include), task
            if task not in manager.task_index:
                raise unknown("task of lm-evaluation-harness", task, manager.all_tasks, see="lm_eval ls tasks")
            _check(task, manager, trust)
        loaded = manager.load(name)
    return dict(loaded["tasks"]), dict(loaded.get("groups", {}))


@lru_cache(maxsize=4)
def _installed(include: str) -> Any:
    """The harness's own tasks, thousands of files that take many seconds to list, and those of a folder."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include or None)


def _of_file(path: Path, include: str, trust: bool, manager: Any) -> tuple[Any, str]:
    """What loads the file, and by which name: a task by its path, a group by its name, among its neighbours.

    The harness's own tasks, thousands of files, are looked at only where a group names one of them.
    """
    _refuse(path.name, code_in(path), trust)
    body = read_yaml(path)
    if "group" not in body:
        return manager(include_defaults=False, include_path=include or None), str(path)
    folders = [str(path.parent), *([include] if include else [])]
    made = manager(include_defaults=False, include_path=folders)
    if any(name not in made.task_index for name in names_in(path)):
        made = manager(include_path=folders)
    name = str(body["group"])
    if name not in made.task_index or Path(made.task_index[name].yaml_path).resolve() != path:
        raise DataError(f"another file beside it has a group or task named {name!r}: name it otherwise")
    _check(name, made, trust)
    return made, name


def _check(name: str, manager: Any, trust: bool) -> None:
    """ConfigError if a file of the user's, not of the installed harness, would run code and is not trusted."""
    import lm_eval as package

    installed = Path(package.__file__).resolve().parent
    pending, seen = [name], set[str]()
    while pending:
        entry = manager.task_index.get(each := pending.pop())
        if entry is None or each in seen:
            continue
        seen.add(each)
        pending += sorted(entry.tags) if entry.yaml_path is None else []
        if entry.yaml_path is not None and not Path(entry.yaml_path).resolve().is_relative_to(installed):
            _refuse(entry.yaml_path.name, code_in(Path(entry.yaml_path)), trust)
        if entry.yaml_path is not None and "group" in read_yaml(Path(entry.yaml_path)):
            pending += names_in(Path(entry.yaml_path))


def _refuse(name: str, code: list[str], trust: bool) -> None:
    if code and not trust:
        raise ConfigError(
            f"{name} runs code of its author with your rights: {', '.join(code[:3])}. "
            "Read it, then add :trust=true to run it"
        )


def _prepare(name: str, task: Any, num_fewshot: int | None, seed: int) -> None:
    """Set what the harness's evaluator sets before it makes requests, by its rules."""
    if getattr(task, "UNSAFE_CODE", False):
        raise ConfigError(
            f"{name} runs code that the model wrote in this process: it is not run here, with or without trust. "
            "Take a benchmark that runs it in the sandbox, such as humaneval"
        )
    if getattr(task, "MULTIMODAL", False):
        raise ConfigError(f"{name} shows images or sound, and models are given text only: take another task")
    default = task.get_config("num_fewshot")
    if num_fewshot is not None and default != 0:
        task.set_config(key="num_fewshot", value=num_fewshot)
    elif default is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=seed)


def _entries(name: str, task: Any) -> Iterator[Entry]:
    """Each document with its requests."""
    by_doc: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_doc.setdefault(instance.doc_id, []).append(instance)
    for doc_id, instances in by_doc.items():
        instances.sort(key=lambda instance: instance.idx)
        doc = instances[0].doc
        ours = _task(f"{name}-{doc_id:04d}", name, task, doc, instances)
        yield Entry(name, task, doc, tuple(instances), ours)


def _task(id: str, name: str, task: Any, doc: Any, instances: list[Any]) -> Task:
    """The document as a Task with the requests that the harness made of it."""
    kinds = {instance.request_type for instance in instances}
    kind = instances[0].request_type
    if len(kinds) > 1 or (kind != "loglikelihood" and len(instances) > 1):
        raise DataError(f"it asks {len(instances)} requests of the kinds {', '.join(sorted(kinds))} of one document")
    about: dict[str, Any] = {
        "id": id,
        "metadata": {"lm_eval_task": name, "request": kind},
        "secret": {"doc": as_json(doc), "target": as_json(task.doc_to_target(doc))},
    }
    if kind == "generate_until":
        before, settings = instances[0].args[:2]
        conversation, last = _read(before)
        context = None if last is not None else before
        prompt = last if last is not None else _asked(task, doc)
        about |= {"prompt": prompt, "context": context, "conversation": conversation}
        return Task(**about, sampling=_sampling(settings), verbatim=True)
    if kind == "loglikelihood_rolling":
        return Task(**about, prompt="", requests=(("", str(instances[0].args[0])),))
    listed = [str(each) for each in task.doc_to_choice(doc)] if _has_choices(task) else []
    pairs = [(before, str(text)) for before, text in (instance.args[:2] for instance in instances)]
    asked = pairs[: len(listed)] if listed else pairs
    rest = pairs[len(asked) :]
    if [text for _, text in rest] != [text for _, text in asked][: len(rest)] or any(before for before, _ in rest):
        raise DataError("it scores other texts without the question than with it")
    read = [_read(before) for before, _ in asked]
    spoken = [each for each in read if each[1] is not None]
    if spoken and any(each != spoken[0] for each in read):
        raise DataError("its choices stand in different conversations: leave out apply_chat_template")
    conversation, last = read[0]
    return Task(
        **about,
        prompt=last if last is not None else _asked(task, doc),
        choices=tuple(listed),
        requests=tuple((None if last is not None else before, text) for before, text in asked),
        conversation=conversation,
        baseline="" if rest else None,
        hint="a letter" if listed else None,
    )


def _has_choices(task: Any) -> bool:
    return task.get_config("doc_to_choice") is not None


def _asked(task: Any, doc: Any) -> str:
    """The question without examples, for patterns that ask in their own way."""
    text = task.doc_to_text(doc)
    return text if isinstance(text, str) else f"Which of these comes before: {task.doc_to_target(doc)}"


def _sampling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The task's generation settings as ours, by the harness's rules: greedy unless it says a temperature."""
    until = settings.get("until", [])
    stop = tuple(str(each) for each in (until if isinstance(until, list | tuple) else [until]) if str(each or ""))
    tokens = next((int(settings[key]) for key in _TOKENS if settings.get(key) is not None), MAX_TOKENS)
    temperature = 0.0 if settings.get("do_sample") is False else float(settings.get("temperature") or 0.0)
    if settings.get("do_sample") and "temperature" not in settings:
        temperature = 1.0
    if int(settings.get("num_beams") or 1) > 1:
        raise DataError(f"it asks for a beam search with {settings['num_beams']} beams, which no model here makes")
    more = {key: settings[key] for key in ("top_p", "top_k", "min_p", "repetition_penalty") if key in settings}
    return {"stop": stop, "max_tokens": tokens, "temperature": temperature, **more}


def _as_marker(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """A conversation in place of rendered text: which template renders it is the model's business."""
    if not add_generation_prompt:
        raise DataError("its answers begin with a prefix (gen_prefix), which a chat template here cannot continue")
    return _CHAT + json.dumps(messages)


def _read(context: Any) -> tuple[tuple[Message, ...], str | None]:
    """The conversation before the last message, and the last message's words; None if the context is text."""
    if not isinstance(context, str) or not context.startswith(_CHAT):
        return (), None
    messages = json.loads(context.removeprefix(_CHAT))
    *before, last = messages
    if last["role"] != "user" or any(each["role"] not in _ROLES for each in before):
        raise DataError(f"its conversation ends with a message of {last['role']}: one of the user was expected")
    return tuple(Message(each["role"], (Text(each["content"]),)) for each in before), str(last["content"])


def _words(tasks: Mapping[str, Any], seed: int, chat: bool, turns: bool, system: str) -> str:
    """How it was asked, for the record."""
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


def _is_file(task: str) -> bool:
    return task.endswith((".yaml", ".yml"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness's progress bars and notices; its errors come as exceptions."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _sentences(name: str) -> Iterator[None]:
    """What the harness, or a task's own code, raises as a DataError that says which task it was."""
    try:
        yield
    except FirsthandError as error:
        if isinstance(error, DataError):
            raise DataError(f"the task {name!r} cannot be run here: {error}") from None
        raise
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())[:300]
        raise DataError(
            f"lm-evaluation-harness could not make the task {name!r} ({type(error).__name__}: {said}): "
            "check the file, its columns and whether its data is on this machine"
        ) from error
