"""Open the Studio: every run, attempt, comparison and curve in the browser, live while runs go on."""

from __future__ import annotations

import gc
import math
import socket
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.commands.studio_intake import Receiving, open_intake
from firsthand.config import refuse_given
from firsthand.errors import ConfigError, MissingExtra
from firsthand.hub.fetch_model import fetch_named
from firsthand.model import Sampling
from firsthand.patterns.reply import reply
from firsthand.system.home import data_home
from firsthand.system.option_spec import parse_spec
from firsthand.system.terminal import complain, printable

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

EXAMPLES = """
firsthand studio
firsthand studio --demo                            # look around without runs of your own
firsthand studio --port 8900 --no-open
firsthand studio --home /data/firsthand
firsthand studio --port 4318 --keep 30d --redact 'ACME-[0-9]+'    # traces of other programs, kept for 30 days
firsthand studio --port 4318 --score 'rubric:judge=smollm2' --sample 0.1 --alert 'errors>0.1/1h' --alert-to alerts.jsonl
firsthand studio export last --filter is:wrong     # one HTML file, which opens anywhere
firsthand studio account add ada --role editor     # then: firsthand studio --host 0.0.0.0 --name studio.example.org
firsthand studio account role ada --role viewer --project vision --database postgresql://user@host/name
firsthand studio import logs/                      # .eval logs of Inspect, samples_*.jsonl of lm-eval
firsthand studio --model smollm2,hf:Qwen/Qwen2.5-0.5B-Instruct    # an arena and a playground with these models
firsthand studio --sae sae                         # the features of a sparse autoencoder, live on a text
"""


ACTIONS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("export",), 2),
    (("import",), 2),
    (("account", "add"), 3),
    (("account", "role"), 3),
    (("account", "remove"), 3),
    (("account", "key"), 3),
    (("account", "list"), 2),
)
"""The first words of actions, with the number of all their words."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Config:
    """The address of the Studio, and the folder it shows."""

    action: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Nothing to open the Studio; `export RUN` writes an HTML file; `import PATH` reads logs of Inspect and lm-eval;
    `account add|role|remove|key NAME` and `account list` are for a Studio that others reach."""
    port: int = 0
    """The port; 0 takes any free one."""
    home: Path | None = None
    """The data home whose runs are shown; by default the one that all commands use."""
    host: str = "127.0.0.1"
    """The address to listen on; any other than this machine's own needs accounts."""
    name: tuple[str, ...] = ()
    """Names by which browsers reach it, such as studio.example.org; with --host."""
    https: bool = False
    """A proxy in front speaks TLS: cookies go over it alone."""
    proxy: tuple[str, ...] = ()
    """Addresses of proxies in front, such as 127.0.0.1, which say in X-Forwarded-For for whom they ask; with --host. Without
    it wrong passwords of all who come through a proxy count as those of one address."""
    database: str = ""
    """Keep accounts, views, queues, data sets and prompts in PostgreSQL: postgresql://user@host/name."""
    project: str = ""
    """With database: the name of the project that this data home is, where several share the database. Accounts have a role
    in each; views, queues, data sets, prompts and the audit log are the project's own."""
    role: str = "viewer"
    """With account add and account role: viewer, annotator, editor or admin, or none to take a role away."""
    demo: bool = False
    """Show a recorded example instead of your runs: patterns of SmolLM2 at sums, and two training runs."""
    to: Path | None = None
    """With export: the file to write; by default RUN.html in this folder."""
    filter: str = ""
    """With export: only these attempts, by a filter such as `is:wrong agent=cot`."""
    open: bool = True
    """Open a browser."""
    receive: bool = True
    """Take spans by OTLP over HTTP at the same address, under /v1/traces."""
    grpc_port: int | None = None
    """Take spans by OTLP over gRPC too, at this port of 127.0.0.1; 0 takes any free one."""
    ingest_key: str = ""
    """A key that programs must show to send spans; by default $FIRSTHAND_INGEST_KEY, and without it none is needed."""
    keep: str = ""
    """Remove traces that have been quiet for longer, such as 30d."""
    keep_size: str = ""
    """Remove the oldest traces while all take more, such as 10GB."""
    cold: str = ""
    """Seal traces that have been quiet for longer, such as 1d, into Parquet files; needs the extra `cold`."""
    redact: tuple[str, ...] = ()
    """Regular expressions whose matches are replaced in received spans before they are kept, besides the built-in rules."""
    score: tuple[str, ...] = ()
    """Scorers or judges of received traces, as in `firsthand score --with`."""
    sample: float = 1.0
    """Share of the received traces that are scored, 0 to 1."""
    alert: tuple[str, ...] = ()
    """Rules such as errors>0.1/1h (a bound) or seconds~3/5m (3 sigmas on a control chart)."""
    alert_to: str = ""
    """The file or the webhook that alerts are sent to."""
    alert_allow: str = ""
    """Addresses and names, with + between them, that a webhook may have although they are not public."""
    alert_ports: str = "80+443"
    """Ports that a webhook may have."""
    model: tuple[str, ...] = ()
    """Models that answer in the arena and the playground, by name or path; two or more for battles."""
    device: str = "cpu"
    """Device for models that run here: cpu, cuda, cuda:N, or auto."""
    temperature: float = 0.7
    """Sampling temperature of their answers; 0 is greedy."""
    max_tokens: int = 400
    """At most this many new tokens in an answer."""
    sae: tuple[str, ...] = ()
    """Folders of sparse autoencoders, or of several, whose features are shown; `FOLDER:model=MODEL` names the model where
    the folder names none that is here, `:texts=TEXTS` the texts to show, and `:trust=true` reads those that a run from
    elsewhere names. Those in the folder `saes` of the data home are shown too."""

    def __post_init__(self) -> None:
        if not 0 <= self.sample <= 1:
            raise ConfigError(f"sample is {self.sample}: give a share from 0 to 1")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"temperature is {self.temperature}: give 0 (greedy) or more")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}: give 1 or more")
        if self.database and not self.database.startswith(("postgresql://", "postgres://")):
            raise ConfigError("database is no address of PostgreSQL: write postgresql://user@host/name")
        if self.action and not any(len(self.action) == size and self.action[: len(a)] == a for a, size in ACTIONS):
            raise ConfigError(
                f"{' '.join(self.action)[:80]!r} is no action: write `studio`, `studio export RUN`, `studio import PATH`, "
                "or `studio account add|role|remove|key NAME` and `studio account list`"
            )
        if self.role != Config.role and self.action[:2] not in (("account", "add"), ("account", "role")):
            raise ConfigError("role goes with `studio account add NAME` and `studio account role NAME`: leave it out")
        if self.project and not self.database:
            raise ConfigError("project goes with --database: without one a data home keeps its own accounts")
        if self.host in LOOPBACK and (self.name or self.https or self.proxy):
            raise ConfigError("name, https and proxy are for a wider address: give --host too, such as --host 0.0.0.0")
        for text in self.proxy:
            if not _is_address(text):
                raise ConfigError(f"proxy is {text[:60]!r}: give an address as a socket has it, such as 127.0.0.1")
        if (self.to is not None or self.filter) and self.action[:1] != ("export",):
            raise ConfigError("to and filter go with `studio export RUN`")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port is {self.port}: give 0 (any free one) to 65535")
        if self.home is not None and not self.home.is_dir():
            raise ConfigError(f"no folder {str(self.home)!r}: give a data home, which holds a folder `runs`")
        if self.grpc_port is not None and not 0 <= self.grpc_port < 65536:
            raise ConfigError(f"grpc_port is {self.grpc_port}: give 0 (any free one) to 65535")
        needs = ("grpc_port", "ingest_key", "keep", "keep_size", "cold", "redact", "score", "alert")
        if not self.receive and (
            given := next((name for name in needs if getattr(self, name) not in (None, "", ())), None)
        ):
            raise ConfigError(f"{given} and no-receive do not go together: it is about received traces")
        for text in self.sae:
            if not Path(parse_spec(text).name).expanduser().is_dir():
                raise ConfigError(f"no folder {text!r}: give the folder of an autoencoder, or one that holds several")
        if self.demo and self.home is not None:
            raise ConfigError("demo and home do not go together: the demo has runs of its own")
        if len(set(self.model)) < len(self.model):
            raise ConfigError(f"model is {','.join(self.model)}: name each model once")


def _is_address(text: str) -> bool:
    try:
        return str(ip_address(text)) == text
    except ValueError:
        return False


OF_ACTIONS = {
    "export": {"home", "to", "filter"},
    "import": {"home"},
    "account": {"home", "database", "project", "role"},
}
"""The flags that each action takes."""
OF_PARENTS = {
    "model": ("device", "temperature", "max_tokens"),
    "score": ("sample",),
    "alert": ("alert_to", "alert_allow", "alert_ports"),
}
"""Flags that say how something is done, by the flag that asks for it."""


def refuse_unused(config: Config) -> None:
    """ConfigError for flags that have no effect on the action, or without the flag that they belong to."""
    if config.action:
        action = config.action[0]
        others = {each.name for each in fields(config)} - OF_ACTIONS[action] - {"action"}
        refuse_given(config, others, f"studio {action} does not take it")
    for parent, children in OF_PARENTS.items():
        if not getattr(config, parent):
            refuse_given(config, children, f"it goes with --{parent}")


def main(config: Config) -> int:
    """Serve until Ctrl-C, or export or import."""
    refuse_unused(config)
    if config.action:
        from firsthand.commands.studio_transfer import export_run, import_logs, manage_accounts, store_of

        home = config.home or data_home()
        if config.action[0] == "account":
            kept = store_of(home, config.database, config.project)
            return manage_accounts(config.action[1:], config.role, kept, config.project)
        if config.action[0] == "import":
            return import_logs(Path(config.action[1]), home)
        return export_run(config.action[1], config.to, config.filter, home)
    try:
        import uvicorn  # noqa: F401

        from firsthand.studio.demo_home import demo_home
    except ImportError:
        raise MissingExtra("uvicorn", "studio", "the Studio") from None
    agents = {agent.name: agent for agent in (_agent(config, name) for name in config.model)}
    with ExitStack() as stack:
        home = stack.enter_context(demo_home()) if config.demo else config.home or data_home()
        return _serve(config, home, agents)


def _serve(config: Config, home: Path, agents: dict[str, Agent]) -> int:
    from firsthand.commands.studio_transfer import store_of
    from firsthand.interp.sae_shelf import SaeShelf
    from firsthand.studio.access import Access
    from firsthand.studio.accounts import Accounts
    from firsthand.studio.studio_app import create_app
    from firsthand.studio.views.feature_views import features_page

    kept = store_of(home, config.database, config.project)
    saes = SaeShelf((*config.sae, *([str(home / "saes")] if (home / "saes").is_dir() else ())))
    accounts = None
    if config.host not in LOOPBACK:
        accounts = Accounts(kept, project=config.project)
        if not accounts.all():
            raise ConfigError(
                f"host is {config.host}, which others reach, and there are no accounts: make one with `firsthand studio "
                f"account add NAME --role admin{' --project ' + config.project if config.project else ''}`"
            )
    names = tuple(dict.fromkeys(("127.0.0.1", "localhost", "[::1]", *_names(config))))
    access = Access(names, accounts, is_https=config.https, proxies=config.proxy)
    listening = _listen(config.port, config.host)
    access.port = listening.getsockname()[1]
    receiving = None
    if config.receive:
        receiving = open_intake(config, home, is_wide=accounts is not None)
    writer, key = (None, None) if receiving is None else (receiving.intake.writer, receiving.key)
    app = create_app(home, access, agents, kept, writer=writer, ingest_key=key, pages=(features_page(saes),))
    server = server_of(app)

    if accounts is not None:
        where = (*_names(config), "127.0.0.1")[0]
        scheme, port = ("https", "") if config.https else ("http", f":{access.port}")
        _say(f"The Studio: {scheme}://{where}{port}/sign-in, for {len(accounts.all())} accounts.")
        if not _names(config):
            complain(
                f"others cannot open it yet: give --name, the name or address by which they reach {config.host}, "
                "such as --name studio.example.org"
            )
        if config.https and not config.proxy:
            complain(
                "https without proxy: 30 wrong passwords by anybody close signing in for all; name the proxy's address"
            )
        _run(server, listening, receiving)
        return 0

    def tell() -> str:
        url = f"http://127.0.0.1:{access.port}/enter?code={access.new_code()}"
        _say(f"The Studio: {url}")
        return url

    url = tell()
    if receiving is not None:
        _say(receiving.told(access.port))
    _say("This address opens one browser; press Enter for another, Ctrl-C to stop.")
    if config.open:
        _browse(url)
    if sys.stdin is not None and sys.stdin.isatty():
        threading.Thread(target=_tell_on_enter, args=(tell,), daemon=True).start()
    _run(server, listening, receiving)
    return 0


def _say(text: str) -> None:
    """Print a line at once. rich, which takes 50 ms to import, has nothing to add to it."""
    print(printable(text), flush=True)


def server_of(app: Starlette) -> uvicorn.Server:
    """uvicorn with the bounds of `firsthand serve` on connections, heads and bodies, before any check of who asks."""
    import uvicorn

    from firsthand.serve.http.bounded_protocol import HEADER_BYTES, BoundedProtocol
    from firsthand.serve.http.connection_room import ConnectionRoom

    class Bounded(BoundedProtocol):
        room = ConnectionRoom()

    return uvicorn.Server(
        uvicorn.Config(
            app,
            ws="none",
            lifespan="on",
            loop="asyncio",
            http=Bounded,
            access_log=False,
            log_level="critical",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=HEADER_BYTES,
        )
    )


_COLLECT_AFTER = 20_000
"""Objects between two collections: a request of 512 spans makes ten thousand, and nearly none of them are in circles."""


def _run(server: uvicorn.Server, listening: socket.socket, receiving: Receiving | None) -> None:
    """Serve until Ctrl-C, then write what was received."""
    gc.freeze()  # what was imported stays: the collector need not go through it again
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    try:
        server.run(sockets=[listening])
    finally:
        if receiving is not None:
            receiving.close()


def _agent(config: Config, name: str) -> Agent:
    fetch_named(name)
    sampling = Sampling(temperature=config.temperature, max_tokens=config.max_tokens)
    return Agent(name, catalog.model(name, device=config.device), reply, {}, (), sampling)


def _names(config: Config) -> tuple[str, ...]:
    """The names that a Host header may have besides this machine's own."""
    return (*config.name, config.host) if config.host not in (*LOOPBACK, "0.0.0.0", "::") else config.name


def _listen(port: int, host: str = "127.0.0.1") -> socket.socket:
    """A socket on an address."""
    # asyncio sends at once only where TCP is named: else each page waits 40 ms for an acknowledgement
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigError(f"{host}:{port} cannot be opened: {error.strerror or error}; give another --port") from None
    return listening


def _browse(url: str) -> None:
    """Open a browser, if there is one that is not of the terminal."""
    import os
    import webbrowser

    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _tell_on_enter(tell: object) -> None:
    for _ in sys.stdin:
        tell()  # type: ignore[operator]
