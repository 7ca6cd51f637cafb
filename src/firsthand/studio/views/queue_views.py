"""Annotation queues: made from a filtered list, worked through by keys, with agreement where several people rate."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from firsthand.errors import ConfigError, StoreError
from firsthand.show.expected import expected_answer
from firsthand.studio.annotation_queue import MAX_ITEMS, Queues, queue_of_form
from firsthand.studio.attempt_query import AttemptQuery
from firsthand.studio.branch_conversation import conversation
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.rendering import address, page, part
from firsthand.studio.studio_store import StudioStore
from firsthand.studio.views.arena_views import voter_of
from firsthand.studio.views.attempt_views import add_note, check_note
from firsthand.studio.views.form_fields import posted, version_of
from firsthand.studio.views.query_values import text_of

LEVELS = ((0.0, "no"), (0.5, "partly"), (1.0, "yes"))
MOST_SHOWN = 50


def routes(runs: OpenRuns, store: StudioStore) -> list[Route]:
    """The list of queues, a queue, its items and what is said of them."""
    queues = Queues(store)

    def show(request: Request) -> Response:
        found = [queues.state(name) for name in queues.names()]
        run, filter_text = text_of(request, "run"), text_of(request, "filter")
        count = AttemptQuery.parse(filter_text).page(runs.get(run).database, limit=1).total if run else 0
        return page(
            request, "queues", title="Annotation queues", states=found, run=run, filter=filter_text, count=count,
            infos=[info for info in runs.infos() if info.num_traces],
        )  # fmt: skip

    def make(request: Request, form: dict[str, str]) -> Response:
        check_note(form.get("score", "").strip(), "1", "")
        run = runs.get(form.get("run", ""))
        rows = AttemptQuery.parse(form.get("filter", "")).page(run.database, limit=MAX_ITEMS + 1).rows
        queue = queue_of_form({**form, "run": run.id}, [row.place for row in rows])
        queues.make(queue)
        return RedirectResponse(f"/queues/{part(queue.name)}", 303)

    def one(request: Request) -> Response:
        state = queues.state(request.path_params["queue"])
        rows = {row.place: row for row in AttemptQuery().page(runs.get(state.queue.run).database, limit=MAX_ITEMS).rows}
        return page(
            request, "queue", title=state.queue.name, state=state, rows=rows, rater=rater_of(request), most=MOST_SHOWN
        )

    def following(request: Request) -> Response:
        name, rater = request.path_params["queue"], rater_of(request)
        skipped = request.query_params.getlist("skip")[-50:]
        place = queues.next_item(name, rater, skip=skipped)
        base, who = f"/queues/{part(name)}", text_of(request, "as")
        if place is None:
            return RedirectResponse(address(base, **{"as": who}), 303)
        return RedirectResponse(address(f"{base}/items/{part(place)}", **{"as": who}), 303)

    def item(request: Request) -> Response:
        return item_page(request, request.path_params["place"], rater_of(request), text_of(request, "as"))

    def item_page(
        request: Request, place: str, rater: str, who: str, *, problem: str = "", words: str | None = None,
        status: int = 409,
    ) -> Response:  # fmt: skip
        """The page of an item; after a refused change with its problem and the words that were not kept."""
        queue = queues.get(request.path_params["queue"])
        run = runs.get(queue.run)
        trace = runs.traces.get(run, place).trace
        task = run.task(trace.benchmark, trace.task_id)
        said = queues.label(queue.name, place, rater)
        return page(
            request,
            "queue_item",
            status=status if problem else 200,
            title=f"{queue.name}: {trace.task_id}",
            queue=queue,
            run=run,
            trace=trace,
            place=place,
            question="" if task is None or task.protected is not None else task.question,
            expected=expected_answer(task),
            said=conversation(trace),
            label=said,
            words=words if words is not None else "" if said is None else said.text,
            problem=problem,
            version=0 if said is None else said.version,
            levels=LEVELS,
            rater=rater,
            who=who,
            mine=queues.num_rated(queue.name, rater),
            num_items=len(queue.items),
        )

    def rate(request: Request, form: dict[str, str]) -> Response:
        name, place = request.path_params["queue"], request.path_params["place"]
        who = form.get("as", "")
        queue, rater = queues.get(name), rater_of(request, who)
        if not form.get("value"):
            names = ", ".join(f"{number} ({level})" for number, (_, level) in enumerate(LEVELS, 1))
            problem = f"Your words are not kept yet: choose a label with them, {names}."
            return item_page(request, place, rater, who, problem=problem, words=form.get("text", ""), status=400)
        value, text = check_note(queue.score, form.get("value", ""), form.get("text", ""))
        version = version_of(form)
        run = runs.get(queue.run)
        each = runs.traces.get(run, place)

        def note() -> None:
            add_note(run, each.trace, each.number, queue.score, str(value), text, by=rater)

        try:
            queues.rate(name, place, rater, value, text, version=version, keep_too=note)
        except ConfigError:
            kept = queues.label(name, place, rater)
            if kept is None or kept.version == version:
                raise
            problem = (
                f"Another tab has rated this attempt {kept.value:g} meanwhile, and your {value:g} was not kept: "
                "rate it again here to replace that."
            )
            return item_page(request, place, rater, who, problem=problem, words=text)
        except StoreError as error:
            problem = f"Your {value:g} was not kept, and can be given again: {error}."
            return item_page(request, place, rater, who, problem=problem, words=text)
        return RedirectResponse(address(f"/queues/{part(name)}/next", **{"as": who}), 303)

    base = "/queues/{queue}"
    return [
        Route("/queues", show),
        Route("/queues", posted(make), methods=["POST"]),
        Route(base, one),
        Route(f"{base}/next", following),
        Route(f"{base}/items/{{place}}", item),
        Route(f"{base}/items/{{place}}", posted(rate), methods=["POST"]),
    ]


def rater_of(request: Request, name: str = "") -> str:
    """The person who rates: the account; without accounts the name in the address, or the user of this machine."""
    name = name or text_of(request, "as")
    if request.scope.get("firsthand.user") is not None or not name:
        return voter_of(request)
    if len(name) > 60 or not name.isprintable():
        raise ConfigError(f"{name[:60]!r} is no name of a rater: give up to 60 characters on one line")
    return f"human:{name}"
