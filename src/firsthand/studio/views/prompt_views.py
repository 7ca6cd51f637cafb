"""Prompts: their versions with what changed, the runs of each and their scores."""

from __future__ import annotations

from itertools import pairwise

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from firsthand.errors import ConfigError
from firsthand.show.answer_diff import PairBudget, word_difference
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.prompt_library import PromptLibrary, compared_first, tried_in
from firsthand.studio.rendering import page, part
from firsthand.studio.studio_store import StudioStore
from firsthand.studio.task_collection import TaskCollections
from firsthand.studio.views.arena_views import voter_of
from firsthand.studio.views.form_fields import posted

MAX_FORM = 256 << 10


def routes(runs: OpenRuns, store: StudioStore) -> list[Route]:
    """The list, a prompt, and new versions."""
    prompts = PromptLibrary(store)

    def show(request: Request) -> Response:
        found = [(name, prompts.versions(name)) for name in prompts.names()]
        return page(request, "prompts", title="Prompts", found=found)

    def one(request: Request) -> Response:
        name = request.path_params["name"]
        versions = prompts.versions(name)
        budget = PairBudget()
        changes = {
            new.number: word_difference(old.text, new.text, budget)
            for old, new in reversed([*pairwise(versions)])  # the newest have the pairs first
        }
        tried = tried_in(name, runs.infos())
        return page(
            request,
            "prompt",
            title=name,
            prompt=name,
            versions=list(reversed(versions)),
            changes=changes,
            tried=tried,
            compared=compared_first(tried),
            sets=[each.name for each in TaskCollections(store).all()],
        )

    def add(request: Request, form: dict[str, str]) -> Response:
        name, after = form.get("name", "").strip(), form.get("after", "")
        if after and not (after.isascii() and after.isdecimal() and len(after) < 9):
            raise ConfigError(f"after is {after[:40]!r}: a whole number was expected")
        text = form.get("text", "").replace("\r\n", "\n")
        prompts.add(name, text, voter_of(request), form.get("note", ""), after=int(after) if after else None)
        return RedirectResponse(f"/prompts/{part(name)}", 303)

    return [
        Route("/prompts", show),
        Route("/prompts", posted(add, MAX_FORM), methods=["POST"]),
        Route("/prompts/{name}", one),
    ]
