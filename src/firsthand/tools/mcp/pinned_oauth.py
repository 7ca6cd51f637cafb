"""The SDK's OAuth flow, held to what the user declared: the issuer of a client, and the scopes.

An MCP server names its authorization server itself. A client belongs to the one that registered it, so its id, its secret
and its codes go to the endpoints that this issuer's own metadata name, and to no other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.auth.oauth2 import OAuthContext
from mcp.client.auth.utils import issuers_match
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata
from pydantic import AnyUrl

from firsthand.errors import ToolError
from firsthand.tools.mcp.server_declaration import ServerDeclaration


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
        storage: TokenStorage,
        redirect: Callable[[str], Awaitable[None]],
        answer: Callable[[], Awaitable[AuthorizationCodeResult]],
    ):
        scopes = " ".join(declaration.scopes) or None
        metadata = (OAuthClientMetadata if scopes is None else DeclaredScopes)(
            client_name="firsthand", redirect_uris=[AnyUrl(redirect_uri)], scope=scopes
        )
        document = declaration.client_metadata_url or None
        super().__init__(declaration.url, metadata, storage, redirect, answer, client_metadata_url=document)
        self.context: PinnedContext = PinnedContext(
            declaration.url, metadata, storage, redirect, answer, document,
            origin=declaration.origin, issuer=declaration.issuer,
        )  # fmt: skip

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
