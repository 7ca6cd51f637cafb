"""Serve tools, indexes, benchmarks and agents to any MCP client: Claude Desktop, an editor, another agent."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand import __version__
from firsthand.config import refuse_given, settings_of
from firsthand.errors import ConfigError, MissingExtra
from firsthand.experiment.settings import RunSettings
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings
from firsthand.system import interruption
from firsthand.system.plurals import count_of
from firsthand.tool import Tool

if TYPE_CHECKING:
    from firsthand.agent import Agent
    from firsthand.serve.mcp.agent_offer import CallRecord
    from firsthand.serve.mcp.mcp_server import McpServer, Offer

EXAMPLES = """
firsthand mcp --tools calculator,files:notes
firsthand mcp --index docs
firsthand mcp --model smollm2 --pattern react --tools calculator --benchmark arithmetic
firsthand mcp --http --port 8080 --index docs
firsthand mcp --http --port 8080 --model smollm2 --record calls
firsthand mcp --http --host 0.0.0.0 --keys keys.toml --tools calculator
firsthand mcp --sign-in https://mcp.example.org/mcp
firsthand mcp --sign-in servers.toml#weather
"""


@dataclass(frozen=True)
class Config:
    """The things to serve, and the way."""

    tools: tuple[str, ...] = ()
    """Tools by name: calculator,files:notes,sql:shop.db. With a model they are the agents' as well."""
    index: tuple[str, ...] = ()
    """Folders of documents, JSONL files or indexes to search; their documents are resources."""
    benchmark: tuple[str, ...] = ()
    """Benchmarks to describe as resources, and with a model to run."""
    model: str | None = None
    """The model of the agents; without one there are none."""
    pattern: tuple[str, ...] = ("react",)
    """Patterns of the agents; each is a tool that answers a question."""
    approve: tuple[str, ...] = ()
    """Approvals of the agents' own tool calls: what is asked is asked of the client's user."""
    answer_tokens: int = 512
    """Maximum new tokens of one generation of an agent."""
    budget_tokens: int | None = None
    """Maximum tokens of one call of an agent."""
    budget_seconds: float | None = 600.0
    """Maximum seconds of one call of an agent."""
    record: Path | None = None
    """A folder for the traces of agents' calls and for tasks, which go on when it is served again. By default a new run,
    and tasks end with the server."""
    http: bool = False
    """Listen on an address, at /mcp, instead of serving over standard input and output."""
    listen: ListenAddress = field(default_factory=ListenAddress)
    keys: Path | None = None
    """With --http: a TOML file of API keys and their limits (see docs/serve.md). $FIRSTHAND_API_KEY is a key too."""
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    limits: ClientLimits = field(default_factory=ClientLimits)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    sign_in: str | None = None
    """Serve nothing: sign in to the MCP server at this URL, or of FILE.toml#NAME, in the browser, and keep the tokens for
    `--tools mcp:`."""

    def __post_init__(self) -> None:
        if self.sign_in is None and not (self.tools or self.index or self.benchmark or self.model):
            raise ConfigError("nothing to serve: name tools, an index, benchmarks or a model, as in --tools calculator")
        if self.sign_in is not None and not re.match(r"https?://|[^#]+\.toml#.", self.sign_in):
            raise ConfigError(
                f"sign_in is {self.sign_in!r}: give the server's URL, which begins with https://, or FILE.toml#NAME"
            )
        if not self.http and (self.listen != ListenAddress() or self.keys is not None):
            raise ConfigError("an address, a certificate and keys are for --http: give it too, or leave them out")
        if self.model is None and self.pattern != Config.pattern:
            raise ConfigError("pattern is for agents, and an agent needs a model: give --model too")


def main(config: Config) -> int:
    """Serve until the client goes, or a signal comes."""
    try:
        from firsthand.serve.mcp.agent_offer import CallRecord
        from firsthand.serve.mcp.mcp_transports import serve_stdio
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in (
            "mcp",
            "mcp_types",
            "starlette",
            "uvicorn",
            "h11",
        ):
            raise
        raise MissingExtra(error.name.partition(".")[0], "mcp", "firsthand mcp") from None
    if config.sign_in is not None:
        others = {each.field.name for each in settings_of(Config)} - {"sign_in"}
        refuse_given(config, others, "--sign-in signs in and serves nothing: leave it out")
        return sign_in(config.sign_in)
    if config.model is None:
        of_agents = {"pattern", "answer_tokens", "budget_tokens", "budget_seconds"}
        refuse_given(config, of_agents, "it is for agents, and an agent needs a model: give --model too")
    record = CallRecord(folder=config.record)
    made = make_server(config, record)
    try:
        if config.http:
            serve_http(config, made)
        else:
            interruption.run(serve_stdio(made))
    except KeyboardInterrupt:
        return 0
    finally:
        record.close()
    return 0


def make_server(config: Config, record: CallRecord) -> McpServer:
    """The server of what the flags name."""
    from firsthand.experiment.named_agents import open_tools
    from firsthand.serve.mcp.mcp_server import McpServer, Offer
    from firsthand.serve.mcp.served_tool import served

    offer = Offer(version=__version__)
    agents = make_agents_of(config, offer)
    for tool in open_tools(config.tools, config.approve):
        if not isinstance(tool, Tool):
            raise ConfigError(
                "firsthand mcp passes no other MCP server on: leave mcp: out of --tools, or give a --model"
            )
        offer.tools.append(served(tool))
    if config.index:  # what is not served is not imported: a client waits for the server to start
        from firsthand.serve.mcp.index_offer import offer_index

        for path in config.index:
            offer_index(offer, path, only=len(config.index) == 1)
    if agents:
        from firsthand.serve.mcp.agent_offer import offer_agents

        offer_agents(offer, agents, record)
    if config.benchmark:
        from firsthand.serve.mcp.benchmark_offer import offer_benchmarks

        offer_benchmarks(offer, config.benchmark, agents)
    names = [tool.name for tool in offer.tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two of what is served are tools named {twice[0]!r}: leave one out")
    return McpServer(offer, record.tasks)


def make_agents_of(config: Config, offer: Offer) -> Sequence[Agent]:
    """The agents, one for each pattern; none without a model. Their shared sources are open once, until the offer ends."""
    if config.model is None:
        return ()
    from firsthand.experiment.named_agents import make_agents
    from firsthand.serve.agents.shared_sources import with_held_sources

    settings = RunSettings(
        benchmarks=(),
        model=(config.model,),
        pattern=config.pattern,
        tools=config.tools,
        approve=config.approve,
        max_tokens=config.answer_tokens,
        budget_tokens=config.budget_tokens,
        budget_seconds=config.budget_seconds,
    )
    agents, held = with_held_sources(make_agents(settings))
    offer.ends += [each.end for each in held]
    return agents


def serve_http(config: Config, made: McpServer) -> None:
    """Serve at /mcp until a signal comes."""
    from firsthand.serve.admission.admission_settings import check_binding
    from firsthand.serve.admission.api_keys import read_keys
    from firsthand.serve.admission.server_admission import Admission
    from firsthand.serve.http.app import ServerApp
    from firsthand.serve.http.server import serve
    from firsthand.serve.mcp.mcp_transports import PREFIX, mcp_app
    from firsthand.serve.models.served_models import ServedModels
    from firsthand.serve.telemetry.server_telemetry import ServerTelemetry

    keys = read_keys(config.keys, os.environ, config.limits)
    check_binding(config.listen.host, bool(keys.clients))
    telemetry = ServerTelemetry(config.telemetry)
    admission = Admission(keys, config.admission, mean_request_s=telemetry.metrics.mean_request_s)
    app = ServerApp(ServedModels(None, None, name="mcp"), admission, telemetry, [mcp_app(made, config.listen.host)])
    made.offer.charge = admission.charge_by_name
    try:
        telemetry.open_spans()
        serve(
            app,
            config.listen,
            on_open=lambda url: print(f"MCP is served at {url}{PREFIX} (Ctrl-C ends it)", flush=True),
        )
    finally:
        telemetry.close()


def sign_in(server: str) -> int:
    """Sign in to a server, and keep the tokens."""
    from firsthand.tools.mcp.oauth_sign_in import BrowserSignIn
    from firsthand.tools.mcp.remote_tools import RemoteTools
    from firsthand.tools.mcp.server_declaration import declarations

    (declared,) = declarations(server)
    if not declared.url:
        raise ConfigError(f"{server} declares a program: only a server with a url can be signed in to")
    wanted = replace(declared, oauth=True, opening_s=330.0)
    source = RemoteTools(wanted, sign_in=lambda: BrowserSignIn(wanted, registers_anew=True))

    async def connect() -> int:
        try:
            await source.open()
            return len(source.tools)
        finally:
            await source.close()

    print(f"signed in to {server}: {count_of(interruption.run(connect()), 'tool')}")
    return 0
