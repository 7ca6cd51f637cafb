"""The playground: a prompt put to models, or a stored attempt continued from a message or made again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from firsthand.errors import ConfigError
from firsthand.loop.protection import shareable
from firsthand.studio.branch_conversation import message_blocks
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.playground import MAX_EPOCHS, MAX_TOKENS, PLAYGROUND, Playground, PlaygroundTrial
from firsthand.studio.rendering import address, page, part
from firsthand.studio.views.form_fields import fields_of
from firsthand.studio.views.query_values import number_of, text_of

MOST_SHOWN = 20
MAX_FORM = 512 << 10


def routes(runs: OpenRuns, playground: Playground) -> list[Route]:
    """The page, the trials that it starts, and replays of stored attempts."""

    def show(request: Request) -> Response:
        values: dict[str, Any] = {"run": None, "trace": None, "at": 0, "message": None, "blocks": ()}
        if name := text_of(request, "run"):
            run = runs.get(name)
            trace = shareable(run.trace(text_of(request, "attempt")))
            at = number_of(request, "at", 0)
            if at >= len(trace.nodes):
                raise ConfigError(f"the attempt has no message {at}: it has {len(trace.nodes)}")
            message = trace.nodes[at].message
            values = {"run": run, "trace": trace, "at": at, "message": message, "blocks": message_blocks(message, 4000)}
        told = ((info, told_trial(info.config.get(PLAYGROUND))) for info in runs.infos() if PLAYGROUND in info.config)
        made = list(islice(((info, trial) for info, trial in told if trial is not None), MOST_SHOWN))
        return page(
            request,
            "playground",
            title="Playground",
            agents=playground.agents,
            made=made,
            problems=playground.problems,
            chosen=text_of(request, "model"),
            prompt=text_of(request, "prompt"),
            max_epochs=MAX_EPOCHS,
            max_tokens=MAX_TOKENS,
            **values,
        )

    async def start(request: Request) -> Response:
        fields = await fields_of(request, MAX_FORM)
        given = dict(fields)
        trial = PlaygroundTrial(
            models=tuple(dict.fromkeys(value for name, value in fields if name == "model")),
            prompt=given.get("prompt", ""),
            system=given["system"] if given.get("system", "").strip() else None,
            temperature=_decimal(given, "temperature"),
            max_tokens=_whole(given, "max_tokens"),
            alternatives=_whole(given, "alternatives"),
            seed=_whole(given, "seed"),
            epochs=_whole(given, "epochs") or 1,
            run=given.get("run", ""),
            attempt=given.get("attempt", ""),
            at=_whole(given, "at") or 0,
            say=given.get("say", "").strip(),
            is_plain=given.get("pattern") == "reply",
        )
        parents = await run_in_threadpool(runs.get, trial.run) if trial.attempt else None
        made = await playground.start(trial, parents)
        return RedirectResponse(f"/runs/{part(made)}", 303)

    async def replay(request: Request) -> Response:
        attempt = request.path_params["attempt"]
        parents = await run_in_threadpool(runs.get, request.path_params["run"])
        made, place = await playground.replay(parents, attempt)
        is_made = await run_in_threadpool(lambda: runs.get(made).info.num_traces > 0)
        both = address("/compare/attempts", run_a=parents.id, a=attempt, run_b=made, b=place)
        return RedirectResponse(both if is_made else f"/runs/{part(made)}", 303)

    return [
        Route("/playground", show),
        Route("/playground", start, methods=["POST"]),
        Route("/runs/{run}/attempts/{attempt}/replay", replay, methods=["POST"]),
    ]


@dataclass(frozen=True)
class ToldTrial:
    """The settings of the trial that made a run."""

    models: str
    asked: str


def told_trial(settings: Any) -> ToldTrial | None:
    """The trial of a run's settings; None for settings that the playground does not write."""
    if not isinstance(settings, dict):
        return None
    models, prompt, run = settings.get("models", []), settings.get("prompt") or "", settings.get("run") or ""
    if not isinstance(models, list) or not all(isinstance(each, str) for each in (prompt, run, *models)):
        return None
    return ToldTrial(
        ", ".join(models), (prompt or f"{'replays' if settings.get('replays') else 'continues'} {run}")[:200]
    )


def _whole(given: dict[str, str], name: str) -> int | None:
    text = given.get(name, "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 12:
        raise ConfigError(f"{name} is {text[:40]!r}: a whole number was expected")
    return int(text)


def _decimal(given: dict[str, str], name: str) -> float | None:
    text = given.get(name, "").strip()
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} is {text[:40]!r}: a number was expected") from None
