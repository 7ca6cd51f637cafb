"""Signing in and out, and the audit log; these pages are there where the Studio has accounts."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from firsthand.studio.access import Access
from firsthand.studio.accounts import Accounts
from firsthand.studio.rendering import page
from firsthand.studio.views.form_fields import posted
from firsthand.studio.views.query_values import number_of

MOST_SHOWN = 1000
MAX_FORM = 8 << 10


def routes(access: Access, accounts: Accounts) -> list[Route]:
    """The pages."""

    def show(request: Request) -> Response:
        return page(request, "sign_in", title="Sign in", problem="")

    def sign_in(request: Request, form: dict[str, str]) -> Response:
        name, where = form.get("name", ""), access.address_of(request)
        session = accounts.sign_in(name, form.get("password", ""), where)
        if session is None:
            accounts.audit_refusal(name, where)
            problem = "The name or the password is wrong, or there were too many attempts: wait a quarter of an hour."
            return page(request, "sign_in", title="Sign in", problem=problem, status=403)
        accounts.audit(name, "signed in", address=where)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            access.cookie,
            session,
            httponly=True,
            samesite="strict",
            path="/",
            secure=access.is_https,
            max_age=12 * 3600,
        )
        return answer

    def sign_out(request: Request) -> Response:
        accounts.sign_out(access.session_of(request.headers) or "")
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(access.cookie, path="/")
        return answer

    def audit(request: Request) -> Response:
        entries = accounts.store.logged("audit", number_of(request, "limit", 200, 1, MOST_SHOWN))
        return page(request, "audit", title="Audit log", entries=entries, users=accounts.all())

    return [
        Route("/sign-in", show),
        Route("/sign-in", posted(sign_in, MAX_FORM), methods=["POST"]),
        Route("/sign-out", sign_out, methods=["POST"]),
        Route("/audit", audit),
    ]
