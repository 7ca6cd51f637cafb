"""The card of a served agent: what it can do and where, signed if the operator has a key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentProvider,
    AgentSkill,
    HTTPAuthSecurityScheme,
    SecurityRequirement,
    SecurityScheme,
    StringList,
)

from firsthand import __version__
from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.system.ordinary_file import read_bounded

JSONRPC_PATH, REST_PATH = "/a2a", "/a2a/rest"
TEXT_MODES = ("text/plain", "application/json")


@dataclass(frozen=True)
class CardFacts:
    """The words of a card beyond the agent itself."""

    description: str = ""
    examples: tuple[str, ...] = ()
    needs_key: bool = False
    pushes: bool = True
    grpc: str = ""
    """Host and port of the gRPC door; empty without one."""


def make_card(agent: Agent, url: str, facts: CardFacts) -> AgentCard:
    """The public card of an agent served at `url`."""
    bindings = [("JSONRPC", url + JSONRPC_PATH), ("HTTP+JSON", url + REST_PATH)]
    bindings += [("GRPC", facts.grpc)] if facts.grpc else []
    interfaces = [
        AgentInterface(url=where, protocol_binding=binding, protocol_version="1.0") for binding, where in bindings
    ]
    description = facts.description or f"{agent.name}, an agent served by firsthand"
    skill = AgentSkill(
        id="answer", name=agent.name, description=description, tags=["agent"], examples=list(facts.examples)
    )
    card = AgentCard(
        name=agent.name,
        description=description,
        version=__version__,
        provider=AgentProvider(organization="firsthand", url=url),
        supported_interfaces=interfaces,
        capabilities=AgentCapabilities(streaming=True, push_notifications=facts.pushes, extended_agent_card=True),
        default_input_modes=list(TEXT_MODES),
        default_output_modes=list(TEXT_MODES),
        skills=[skill],
    )
    if facts.needs_key:
        bearer = SecurityScheme(http_auth_security_scheme=HTTPAuthSecurityScheme(scheme="Bearer"))
        card.security_schemes["bearer"].CopyFrom(bearer)
        card.security_requirements.append(SecurityRequirement(schemes={"bearer": StringList(list=[])}))
    return card


def extended_card(card: AgentCard, agent: Agent) -> AgentCard:
    """The card for clients with a key: the agent's tools are listed as skills."""
    extended = AgentCard()
    extended.CopyFrom(card)
    for tool in sorted(agent.own_tools, key=lambda tool: tool.name):
        skill = AgentSkill(
            id=f"tool:{tool.name}", name=tool.name, description=tool.spec.description, tags=["tool", tool.effect]
        )
        extended.skills.append(skill)
    return extended


def read_signing_key(path: Path) -> bytes:
    """The PEM private key of a file; ConfigError if it holds none of elliptic curve P-256."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        pem = read_bounded(path, 1 << 20)
        key = load_pem_private_key(pem, None)
    except OSError as error:
        raise ConfigError(f"the key {str(path)!r} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError):
        raise ConfigError(f"{str(path)!r} holds no private key in PEM without a password") from None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise ConfigError(
            f"{str(path)!r} holds a key of another kind: make one with openssl ecparam -name prime256v1 -genkey"
        )
    return pem


def sign(card: AgentCard, pem: bytes, *, key_id: str) -> None:
    """Sign a card with ES256 (JWS over RFC 8785's canonical JSON)."""
    from a2a.utils.signing import create_agent_card_signer

    create_agent_card_signer(pem, {"kid": key_id, "alg": "ES256", "jku": None, "typ": "JOSE"})(card)
