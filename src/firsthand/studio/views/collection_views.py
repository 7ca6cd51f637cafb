"""Data sets: tasks collected from attempts, listed, run with any model, and downloaded."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from firsthand.errors import ConfigError
from firsthand.studio.attempt_query import AttemptQuery
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.playground import Playground
from firsthand.studio.prompt_library import PromptLibrary
from firsthand.studio.rendering import page, part
from firsthand.studio.studio_store import StudioStore
from firsthand.studio.task_collection import MAX_TASKS, TaskCollections, as_lines, check_of
from firsthand.studio.views.form_fields import fields_of, form_of


def routes(runs: OpenRuns, store: StudioStore, playground: Playground) -> list[Route]:
    """The list, a data set, and what adds to it, takes from it and runs it."""
    collections, prompts = TaskCollections(store), PromptLibrary(store)

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
            prompts=prompts.names(),
        )

    async def add(request: Request) -> Response:
        form = await form_of(request)
        run = runs.get(form.get("run", ""))
        if place := form.get("attempt", ""):
            traces = [run.trace(place)]
        else:
            rows = AttemptQuery.parse(form.get("filter", "")).page(run.database, limit=MAX_TASKS + 1).rows
            if not rows:
                raise ConfigError("the filter finds no attempt: choose another")
            traces = [run.trace(row.place) for row in rows]
        name = form.get("name", "").strip()
        collections.add(name, run, traces)
        return RedirectResponse(f"/data-sets/{part(name)}", 303)

    async def remove(request: Request) -> Response:
        form = await form_of(request)
        name = request.path_params["name"]
        collections.remove(name, form.get("benchmark", ""), form.get("task", ""))
        is_left = any(each.name == name for each in collections.all())
        return RedirectResponse(f"/data-sets/{part(name)}" if is_left else "/data-sets", 303)

    async def start(request: Request) -> Response:
        fields = await fields_of(request)
        found = collections.get(request.path_params["name"])
        check = check_of(dict(fields).get("check", "numeric"))
        models = tuple(dict.fromkeys(value for name, value in fields if name == "model"))
        wanted = dict(fields).get("prompt", "")
        prompt = prompts.text(wanted) if wanted else None
        made = await playground.start_tasks(found.name, [each.task for each in found.tasks], models, check, prompt)
        return RedirectResponse(f"/runs/{part(made)}", 303)

    def lines(request: Request) -> Response:
        found = collections.get(request.path_params["name"])
        return PlainTextResponse(as_lines(found), headers={"content-disposition": 'attachment; filename="tasks.jsonl"'})

    base = "/data-sets/{name}"
    return [
        Route("/data-sets", show),
        Route("/data-sets", add, methods=["POST"]),
        Route(base, one),
        Route(f"{base}/remove", remove, methods=["POST"]),
        Route(f"{base}/run", start, methods=["POST"]),
        Route(f"{base}/tasks.jsonl", lines),
    ]
