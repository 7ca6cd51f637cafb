"""Data sets: tasks collected from attempts and received traces, listed, run with any model, and downloaded."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from firsthand.errors import ConfigError
from firsthand.ingest.task_rows import task_row
from firsthand.message import Json
from firsthand.runs.run_folder import Run
from firsthand.show.expected import expected_answer
from firsthand.studio.answer_checks import OfferedChecks, check_of
from firsthand.studio.attempt_query import AttemptQuery
from firsthand.studio.incoming_query import IncomingQuery
from firsthand.studio.incoming_traces import IncomingTraces
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.playground import Playground
from firsthand.studio.prompt_library import PromptLibrary
from firsthand.studio.regression_test import as_regression_test
from firsthand.studio.rendering import page, part
from firsthand.studio.studio_store import StudioStore
from firsthand.studio.task_collection import MAX_TASKS, TaskCollections, as_lines
from firsthand.studio.views.form_fields import fields_of, posted


def routes(runs: OpenRuns, traces_in: IncomingTraces, store: StudioStore, playground: Playground) -> list[Route]:
    """The list, a data set, and what adds to it, takes from it and runs it."""
    collections, prompts, offered = TaskCollections(store), PromptLibrary(store), OfferedChecks()

    def show(request: Request) -> Response:
        return page(request, "collections", title="Data sets", found=collections.all())

    def one(request: Request) -> Response:
        found = collections.get(request.path_params["name"])
        own = [info for info in runs.infos() if info.config.get("data_set") == found.name]
        return page(
            request,
            "collection",
            title=found.name,
            found=found,
            agents=playground.agents,
            own=own,
            prompts=prompts.references(),
            expected=expected_answer,
            checks=offered.of(found.name, [each.task for each in found.tasks]) if playground.agents else (),
        )

    def add(request: Request, form: dict[str, str]) -> Response:
        name = form.get("name", "").strip()
        if "trace" in form or "traces" in form:
            collections.add_received(name, received(form))
            return RedirectResponse(f"/data-sets/{part(name)}", 303)
        run = runs.get(form.get("run", ""))
        if place := form.get("attempt", ""):
            traces = [run.trace(place)]
        else:
            traces = [run.trace(place) for place in first_attempts(AttemptQuery.parse(form.get("filter", "")), run)]
        collections.add(name, run, traces)
        return RedirectResponse(f"/data-sets/{part(name)}", 303)

    def received(form: dict[str, str]) -> Iterator[Json]:
        """A task for each trace whose words are whole: the one that the form names, or those that its filter finds."""
        if "trace" in form:
            ids = [form["trace"]]
        else:
            query, store = IncomingQuery.parse(form["traces"]), traces_in.store
            found = query.page(store, 0, MAX_TASKS + 1).rows if store is not None else ()
            if not found:
                raise ConfigError("the filter finds no trace: choose another")
            if len(found) > MAX_TASKS:
                raise ConfigError(f"the filter finds more than {MAX_TASKS:,} traces: choose one that finds fewer")
            ids = [each.trace for each in found]
        num_whole = 0
        for id in ids:
            row = task_row(id, traces_in.get(id).spans)
            if "is_cut" not in row:
                num_whole += 1
                yield row
        if not num_whole:
            which = "this trace" if "trace" in form else "each trace that the filter finds"
            raise ConfigError(f"the question or the answer of {which} was cut when it was recorded: choose another")

    def remove(request: Request, form: dict[str, str]) -> Response:
        name = request.path_params["name"]
        collections.remove(name, form.get("benchmark", ""), form.get("task", ""), form.get("key", ""))
        is_left = any(each.name == name for each in collections.all())
        return RedirectResponse(f"/data-sets/{part(name)}" if is_left else "/data-sets", 303)

    async def start(request: Request) -> Response:
        fields = await fields_of(request)
        check = check_of(dict(fields).get("check", "numeric"))
        models = tuple(dict.fromkeys(value for name, value in fields if name == "model"))
        wanted = dict(fields).get("prompt", "")
        found = await run_in_threadpool(collections.get, request.path_params["name"])
        prompt = await run_in_threadpool(prompts.text, wanted) if wanted else None
        made = await playground.start_tasks(found.name, found.to_put(), models, check, prompt)
        return RedirectResponse(f"/runs/{part(made)}", 303)

    def lines(request: Request) -> Response:
        found = collections.get(request.path_params["name"])
        return PlainTextResponse(as_lines(found), headers={"content-disposition": 'attachment; filename="tasks.jsonl"'})

    def test_file(request: Request) -> Response:
        text = as_regression_test(collections.get(request.path_params["name"]))
        return PlainTextResponse(text, headers={"content-disposition": 'attachment; filename="test_data_set.py"'})

    base = "/data-sets/{name}"
    return [
        Route("/data-sets", show),
        Route("/data-sets", posted(add), methods=["POST"]),
        Route(base, one),
        Route(f"{base}/remove", posted(remove), methods=["POST"]),
        Route(f"{base}/run", start, methods=["POST"]),
        Route(f"{base}/tasks.jsonl", lines),
        Route(f"{base}/test.py", test_file),
    ]


def first_attempts(query: AttemptQuery, run: Run) -> list[str]:
    """Return the place of the first attempt at each task of those that are found; ConfigError for none or too many tasks."""
    first: dict[tuple[str, str], str] = {}
    start = 0
    while rows := query.page(run.database, start, MAX_TASKS).rows:
        for row in rows:
            first.setdefault((row.benchmark, row.task_id), row.place)
        if len(first) > MAX_TASKS:
            raise ConfigError(f"the filter finds more than {MAX_TASKS:,} tasks: choose one that finds fewer")
        start += len(rows)
    if not first:
        raise ConfigError("the filter finds no attempt: choose another")
    return list(first.values())
