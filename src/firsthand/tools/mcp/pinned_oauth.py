"""The SDK's OAuth flow, held to what the user declared: the issuer of a client, and the scopes.

An MCP server names its authorization server itself. A client belongs to the one that registered it, so its id, its secret
and its codes go to the endpoints that this issuer's own metadata name, and to no other.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthRegistrationError, TokenStorage
from mcp.client.auth.oauth2 import OAuthContext
from mcp.client.auth.utils import issuers_match
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthMetadata,
    ProtectedResourceMetadata,
)
from pydantic import AnyUrl, BaseModel

from firsthand.errors import ToolError
from firsthand.tools.mcp.server_declaration import ServerDeclaration

_OF_THE_GRANT = ("invalid_grant", "invalid_request", "invalid_scope", "invalid_target", "unsupported_grant_type")
"""Errors of a token endpoint that say nothing of the client (RFC 6749, 5.2; RFC 8707)."""


class Issuer(BaseModel):
    """An issuer of tokens by its own metadata, and that of the resource they are for."""

    metadata: OAuthMetadata
    resource: ProtectedResourceMetadata | None = None


class KeptSignIn(TokenStorage, Protocol):
    """Keeps the tokens of an endpoint."""

    issuer: Issuer | None

    def get_expiry(self) -> float | None: ...

    def get_issuer(self) -> Issuer | None: ...

    def forget_client(self, client_id: str) -> bool: ...

    def turn(self) -> AbstractAsyncContextManager[None]: ...


class DeclaredScopes(OAuthClientMetadata):
    """Asks for the declared scopes alone: the SDK would put those of the server's challenge in their place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "scope":
            super().__setattr__(name, value)


@dataclass
class PinnedContext(OAuthContext):
    """The state of a flow, which sends what proves the client to its own issuer alone."""

    origin: str = ""
    """The MCP server, for errors."""
    issuer: str = ""
    """The declared issuer; empty if the server may name one."""

    def is_at_home(self) -> bool:
        """True if the endpoints are those of the client's issuer, or if the client is no issuer's."""
        client = self.client_info
        is_document = client is not None and client.client_id == self.client_metadata_url  # every issuer reads it
        home = self.issuer or (client.issuer if client is not None and not is_document else None)
        # without metadata the SDK takes the MCP server's own origin
        found = self.oauth_metadata
        return home is None or (found is not None and issuers_match(str(found.issuer), home))

    def check_home(self) -> None:
        """ToolError unless the endpoints are those of the client's issuer."""
        if not self.is_at_home():
            home = self.issuer or (self.client_info.issuer if self.client_info is not None else "")
            raise ToolError(
                f"{self.origin} asks to sign in, and {home}, which the client is registered at, gives no metadata of "
                "its endpoints: nothing was sent; try again later, or correct `issuer`"
            )

    def can_refresh_token(self) -> bool:
        """True if there is a token to refresh, and its issuer is known."""
        return super().can_refresh_token() and self.is_at_home()

    def prepare_token_auth(
        self, data: dict[str, str], headers: dict[str, str] | None = None
    ) -> tuple[dict[str, str], dict[str, str]]:
        """The request for a token, with the client's secret: every one passes here."""
        self.check_home()
        return super().prepare_token_auth(data, headers)


class PinnedOAuth(OAuthClientProvider):
    """The OAuth flow of a declared server."""

    def __init__(
        self,
        declaration: ServerDeclaration,
        redirect_uri: str,
        storage: KeptSignIn,
        redirect: Callable[[str], Awaitable[None]],
        answer: Callable[[], Awaitable[AuthorizationCodeResult]],
        *,
        registers_anew: bool = False,
    ):
        """As the SDK's; with `registers_anew` a person signs in as a client that is registered for it, if it is none of the
        declaration's: an issuer that has forgotten the kept one shows an error on its page, and never answers.
        """
        scopes = " ".join(declaration.scopes) or None
        metadata = (OAuthClientMetadata if scopes is None else DeclaredScopes)(
            client_name="firsthand", redirect_uris=[AnyUrl(redirect_uri)], scope=scopes
        )
        document = declaration.client_metadata_url or None
        self._kept = storage
        self._registers_anew = registers_anew and not declaration.client_id
        self._spare: OAuthClientInformationFull | None = None
        """The kept registration, while another is asked for."""
        super().__init__(declaration.url, metadata, storage, redirect, answer, client_metadata_url=document)
        self.context: PinnedContext = PinnedContext(
            declaration.url, metadata, storage, redirect, answer, document,
            origin=declaration.origin, issuer=declaration.issuer,
        )  # fmt: skip

    async def _initialize(self) -> None:
        await super()._initialize()
        self.context.token_expiry_time = self._kept.get_expiry()

    async def _auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """The SDK's flow, before which tokens that expired, or were refused, are renewed with the refresh token."""
        context, refused = self.context, ""
        if not self._initialized:
            await self._initialize()
        while True:
            if self._can_renew() and (refused or not context.is_token_valid()):
                async with aclosing(self._renewal(refused)) as renewal:
                    async for sent in renewal:
                        await self._handle_refresh_response((yield sent))
            given = "" if context.current_tokens is None else context.current_tokens.access_token
            async with aclosing(super()._auth_flow(request)) as flow:
                sent = await anext(flow)
                while True:
                    response = yield sent
                    if sent is request and response.status_code == 401 and given and not refused and self._can_renew():
                        refused = given
                        break
                    if sent is request and response.status_code == 401:
                        self._leave_kept_client()
                    try:
                        sent = await flow.asend(response)
                    except StopAsyncIteration:
                        return
                    except OAuthRegistrationError:
                        if not self._take_kept_client():
                            raise
                        break

    async def _renewal(self, refused: str) -> AsyncGenerator[httpx2.Request]:
        """The request that renews the tokens at their issuer, unless another connection has renewed them in the meantime."""
        context = self.context
        async with self._kept.turn():
            await self._initialize()
            tokens = context.current_tokens
            if not self._can_renew() or (context.is_token_valid() and tokens and tokens.access_token != refused):
                return
            known = context.oauth_metadata, context.protected_resource_metadata
            if (kept := self._kept.get_issuer()) is not None:
                context.oauth_metadata, context.protected_resource_metadata = kept.metadata, kept.resource
            try:
                if context.can_refresh_token():
                    yield await self._refresh_token()
            finally:  # a sign-in looks for the metadata itself
                context.oauth_metadata, context.protected_resource_metadata = known

    def _leave_kept_client(self) -> None:
        """Have the flow register a client, once, if it is to sign in with a new one."""
        if self._registers_anew:
            self._registers_anew = False
            self._spare, self.context.client_info = self.context.client_info, None

    def _take_kept_client(self) -> bool:
        """Go on with the kept registration, as the issuer takes no new one. False if there is none."""
        self.context.client_info, self._spare = self._spare, None
        return self.context.client_info is not None

    def _can_renew(self) -> bool:
        """True if there is a refresh token whose issuer is known."""
        tokens = self.context.current_tokens
        return tokens is not None and bool(tokens.refresh_token) and self._kept.get_issuer() is not None

    async def _handle_token_response(self, response: httpx2.Response) -> None:
        self._note_issuer()
        if await _is_of_client(response) and self._forget_client():
            raise ToolError(
                f"{self.context.origin} asks to sign in, and its authorization server no longer knows the client that was "
                "registered there: the registration is forgotten; sign in again"
            )
        await super()._handle_token_response(response)

    async def _handle_refresh_response(self, response: httpx2.Response) -> bool:
        self._note_issuer()
        renewed = await super()._handle_refresh_response(response)
        if await _is_of_client(response) and self._forget_client():
            await self._initialize()  # another connection may have signed in by now
        return renewed

    def _forget_client(self) -> bool:
        """Forget the client that its issuer does not know. False if it is a declared one."""
        client = self.context.client_info
        if client is None or not self._kept.forget_client(str(client.client_id)):
            return False
        self.context.client_info = None
        return True

    def _note_issuer(self) -> None:
        found = self.context.oauth_metadata
        self._kept.issuer = (
            None if found is None else Issuer(metadata=found, resource=self.context.protected_resource_metadata)
        )

    def _select_authorization_server(self, advertised: list[str]) -> str:
        home = self.context.issuer
        return next((each for each in advertised if home and issuers_match(each, home)), advertised[0])

    def _expected_issuer(self) -> str:
        named, home = super()._expected_issuer(), self.context.issuer
        if home and not issuers_match(named, home):
            raise ToolError(
                f"{self.context.origin} asks to sign in at {named[:200]}, and its declaration has issuer = {home!r}: "
                "nothing was sent; if the server has moved, register a client there and change `issuer`"
            )
        return named

    async def _perform_authorization_code_grant(self) -> tuple[str, str]:
        self.context.check_home()  # before a person is asked for anything
        return await super()._perform_authorization_code_grant()


async def _is_of_client(response: httpx2.Response) -> bool:
    """True if a token endpoint refuses the client itself: by its error, or by a 401 that names no other one."""
    if response.status_code not in (400, 401):
        return False
    try:
        body = json.loads(await response.aread())
    except (ValueError, RecursionError):
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    return error == "invalid_client" or (response.status_code == 401 and error not in _OF_THE_GRANT)
