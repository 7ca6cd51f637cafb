"""One attempt: as a conversation, as a tree with its waterfall, and as JSON; notes of people; a test or an example of it."""

from __future__ import annotations

import json
from statistics import fmean
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from firsthand.errors import ConfigError, UnknownName
from firsthand.message import Json
from firsthand.runs.attempts import parsed
from firsthand.runs.run_folder import Run
from firsthand.show.expected import expected_answer
from firsthand.studio.attempt_facts import attempt_facts
from firsthand.studio.attempt_query import AttemptQuery
from firsthand.studio.branch_conversation import conversation
from firsthand.studio.kept_traces import KeptTrace
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.rendering import address, json_answer, page, part
from firsthand.studio.span_detail import span_detail
from firsthand.studio.span_search import refs_holding
from firsthand.studio.trace_copies import as_examples, as_test
from firsthand.studio.views.arena_views import voter_of
from firsthand.studio.views.form_fields import posted
from firsthand.studio.views.query_values import number_of, text_of
from firsthand.trace import NOTE, Score, Trace

VIEWS = ("conversation", "tree", "raw")
MAX_RAW_CHARS = 2_000_000
MAX_NOTE_CHARS = 4000
MAX_PEOPLE = 50
"""People whose scores of one attempt are kept under one name."""


def routes(runs: OpenRuns) -> list[Route]:
    """The page, its spans, its copies, and the notes that are sent."""

    def kept(request: Request) -> tuple[Run, KeptTrace]:
        run = runs.get(request.path_params["run"])
        return run, runs.traces.get(run, request.path_params["attempt"])

    def found(request: Request) -> tuple[Run, Trace]:
        run, each = kept(request)
        return run, each.trace

    def show(request: Request) -> Response:
        run, each = kept(request)
        view = text_of(request, "view") or "conversation"
        if view not in VIEWS:
            raise ConfigError(f"view is {view[:40]!r}: it is one of {', '.join(VIEWS)}")
        trace = each.head if view == "tree" else each.trace
        filter_text, sort = text_of(request, "filter"), text_of(request, "sort")
        query = AttemptQuery.parse(filter_text, sort)
        before, after = query.beside(run.database, trace.place)
        task = run.task(trace.benchmark, trace.task_id)
        raw = json.dumps(trace.to_json(), ensure_ascii=False, indent=1, default=str) if view == "raw" else ""
        colour = text_of(request, "colour")
        if colour not in ("", "logprob", "entropy"):
            raise ConfigError(f"colour is {colour[:40]!r}: it is logprob or entropy")
        leaf = number_of(request, "leaf", -1, least=-1)
        return page(
            request,
            "attempt",
            title=f"{trace.benchmark} / {trace.task_id}",
            run=run,
            trace=trace,
            view=view,
            views=VIEWS,
            told=attempt_facts(each.trace) if view == "conversation" else None,
            said=conversation(trace, None if leaf < 0 else leaf) if view == "conversation" else None,
            usage=each.usage,
            colour=colour,
            question="" if task is None or task.protected is not None else task.question,
            expected=expected_answer(task),
            before=before,
            after=after,
            filter=filter_text,
            sort=sort,
            raw=raw[:MAX_RAW_CHARS],
            raw_left_out=max(0, len(raw) - MAX_RAW_CHARS),
            notes=[score for score in trace.attempt_scores if score.name.startswith(NOTE)],
            scores=[score for score in trace.attempt_scores if not score.name.startswith(NOTE)],
            num_tries=each.number,
            has_messages=each.has_messages,
            first_spans=each.first_spans if view == "tree" else None,
        )

    def spans(request: Request) -> Response:
        _, each = kept(request)
        return Response(each.spans, media_type="application/json")

    def span(request: Request) -> Response:
        run, trace = found(request)
        detail = parsed(run.database, lambda trace: span_detail(trace, text_of(request, "ref")), trace)
        return page(request, "parts/span", detail=detail)

    def search(request: Request) -> Response:
        run, each = kept(request)
        return json_answer(parsed(run.database, lambda body: refs_holding(body, text_of(request, "words")), each.body))

    def copy(request: Request) -> Response:
        run, trace = found(request)
        kind = request.path_params["kind"]
        if kind not in ("test.py", "example.jsonl"):
            raise UnknownName(f"an attempt is copied as test.py or example.jsonl, not as {kind[:40]!r}")
        text = as_test(run.id, trace) if kind == "test.py" else as_examples(run.id, trace)
        return PlainTextResponse(text, headers={"content-disposition": f'attachment; filename="{kind}"'})

    def note(request: Request, form: dict[str, str]) -> Response:
        run, each = kept(request)
        trace = each.trace
        name, value, text = form.get("name", "").strip(), form.get("value", ""), form.get("text", "")
        add_note(run, trace, each.number, name, value, text, by=voter_of(request))
        here = f"/runs/{part(run.id)}/attempts/{part(trace.place)}"
        return RedirectResponse(address(here, view=form.get("view", "")), 303)

    base = "/runs/{run}/attempts/{attempt}"
    return [
        Route(base, show),
        Route(f"{base}/spans.json", spans),
        Route(f"{base}/spans/found", search),
        Route(f"{base}/span", span),
        Route(f"{base}/copy/{{kind:str}}", copy),
        Route(f"{base}/notes", posted(note), methods=["POST"]),
    ]


def add_note(run: Run, trace: Trace, number_of_try: int, name: str, value: str, text: str, *, by: str) -> None:
    """Keep a person's score of a try under `note.NAME`, as the mean of what each person said of it last.

    ConfigError if name or value is not what it should be, or more than MAX_PEOPLE would have scored it.
    """
    number, text = check_note(name, value, text)
    name = NOTE + name
    run.revise_score(
        trace, number_of_try, name, "a person in the Studio", lambda last: rated(name, last, by, number, text)
    )


def rated(name: str, last: Score | None, by: str, value: float, text: str) -> Score:
    """The score after a person has given this value and text: the mean of all people's, with each of theirs in `detail`."""
    given: dict[str, Json] = {} if last is None else _ratings(last)
    given = {**given, by: {"value": value} | ({"text": text} if text else {})}
    if len(given) == 1:
        return Score(name, value, {"by": by} | ({"text": text} if text else {}))
    if len(given) > MAX_PEOPLE:
        raise ConfigError(f"{MAX_PEOPLE} people have scored this attempt as {name[:70]}: choose another name")
    texts = [f"{who}: {each['text']}" for who, each in given.items() if each.get("text")]
    detail: Json = {"by": ", ".join(given)} | ({"text": "\n".join(texts)} if texts else {}) | {"ratings": given}
    return Score(name, fmean(each["value"] for each in given.values()), detail)


def _ratings(score: Score) -> dict[str, Json]:
    """What each person said in a note; of one from before 0.23.0, what its last writer said, if their name was kept."""
    by, text = score.detail.get("by"), score.detail.get("text")
    alone: Json = {"value": score.value} | ({"text": text} if text else {})
    found = score.detail.get("ratings", {by: alone} if isinstance(by, str) else {})
    if not isinstance(found, dict):
        return {}
    return {who: each for who, each in found.items() if who.startswith("human:") and _is_rating(each)}


def _is_rating(each: Any) -> bool:
    """True of a value from 0 to 1, with or without a text: a run's folder may come from anyone."""
    value = each.get("value") if isinstance(each, dict) else None
    return isinstance(value, int | float) and 0 <= value <= 1 and isinstance(each.get("text", ""), str)


def check_note(name: str, value: str, text: str) -> tuple[float, str]:
    """The number and text of a note; ConfigError if they or its name are not what they should be."""
    if not name or len(name) > 60 or not name.isprintable() or not all(c.isalnum() or c in "-_." for c in name):
        raise ConfigError(f"a note's name is {name[:60]!r}: use letters, digits and -_. (up to 60)")
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ConfigError(f"a note's score is {value[:40]!r}: a number from 0 to 1 was expected")
    if len(text) > MAX_NOTE_CHARS:
        raise ConfigError(f"the note has {len(text):,} characters: at most {MAX_NOTE_CHARS:,} are kept")
    return number, text
