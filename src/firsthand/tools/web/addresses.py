"""Address checks: only public addresses unless more is allowed, and only the address that was checked is connected to.

A name is resolved once, here; every address it has is checked; and the connection goes to a checked address, so a name
whose answer changes between check and use gains nothing. What an IPv6 address stands for is unwrapped first (IPv4 mapped,
NAT64, ISATAP); the older wrappers (compatible, 6to4, Teredo) are refused whole. Spellings that some resolvers read as IPv4
(decimal, octal, hex, short) are read by us.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from firsthand.errors import ConfigError, ToolError
from firsthand.loop.concurrency import in_thread

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host name, as text."""

_REFUSED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(each)
    for each in (
        # IANA's special-purpose registries, and what cloud providers use for their metadata services
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
        "::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16",
        "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10",
        "fec0::/10", "ff00::/8",
    )
)  # fmt: skip
_WRAPPERS = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))
"""IPv6 networks whose addresses embed an IPv4 address: mapped, and NAT64."""
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")


@dataclass(frozen=True)
class Rules:
    """Allowed besides public addresses: networks such as 127.0.0.0/8, and host names such as wiki.local."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset((80, 443))
    ports_hint: str = ""
    """Names the setting that allows a port, as in `fetch:ports={ports}`; empty where none does."""

    def check_port(self, port: int) -> None:
        """ToolError if a port may not be used, with the setting that allows it."""
        if port not in self.ports:
            more = f": {self.ports_hint} allows it too" if self.ports_hint else ""
            ports = "+".join(map(str, sorted({*self.ports, port})))
            raise ToolError(
                f"port {port} may not be used: {', '.join(map(str, sorted(self.ports)))} may{more.format(ports=ports)}"
            )

    def refuses(self, address: Address, host: str) -> bool:
        """True if this address may not be reached under this name."""
        if host in self.hosts or any(address in net for net in self.networks):
            return False
        special = any(address in net for net in _REFUSED)
        return special or any(self.refuses(each, host) for each in embedded(address))


def parse_rules(allow: str, ports: str, *, ports_hint: str = "") -> Rules:
    """Parses rules: networks, addresses, host names and port numbers, with + between them."""
    networks: list[Network] = []
    hosts: set[str] = set()
    for word in filter(None, (each.strip().lower() for each in allow.split("+"))):
        try:
            networks.append(ipaddress.ip_network(word))
        except ValueError:
            if not _HOST.fullmatch(word):
                raise ConfigError(
                    f"allow has {word!r}: give networks or host names, as in 10.0.0.0/8+wiki.local"
                ) from None
            hosts.add(word)
    try:
        numbers = frozenset(int(each) for each in ports.split("+"))
    except ValueError:
        raise ConfigError(f"ports is {ports!r}: give numbers with + between them, as in 80+443+8080") from None
    return Rules(tuple(networks), frozenset(hosts), numbers, ports_hint)


def embedded(address: Address) -> Iterable[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    isatap = (int(address) >> 32) & 0xFDFFFFFF == 0x00005EFE
    if isatap or any(address in network for network in _WRAPPERS):
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def read_host(host: str) -> str | Address:
    """The host of a URL: an address however it is spelled, or a name in lower case; ToolError for what is neither."""
    bare = host.strip("[]").rstrip(".").lower()
    try:
        if ":" in bare:
            return ipaddress.IPv6Address(bare.split("%")[0])
        return ipaddress.IPv4Address(bare)
    except ValueError:
        pass
    last = bare.rsplit(".", 1)[-1]
    if re.fullmatch(r"0x[0-9a-f]*|[0-9]+", last):  # then it is IPv4, by the URL standard, and nothing else
        return _old_spelling(bare)
    if not _HOST.fullmatch(bare) or len(bare) > 253:
        raise ToolError(f"{host[:100]!r} is no host name")
    return bare


def _old_spelling(text: str) -> ipaddress.IPv4Address:
    """The IPv4 address of a spelling in decimal, octal or hex, with one to four parts, as inet_aton reads it."""
    parts = text.split(".")
    try:
        numbers = [
            int(each, 16 if each[:2] == "0x" else 8 if each[:1] == "0" and each != "0" else 10) for each in parts
        ]
        value = sum(number << (24 - 8 * place) for place, number in enumerate(numbers[:-1])) + numbers[-1]
        if len(parts) > 4 or any(number > 255 for number in numbers[:-1]) or numbers[-1] >= 256 ** (5 - len(parts)):
            raise ValueError
        return ipaddress.IPv4Address(value)
    except ValueError:
        raise ToolError(f"{text[:100]!r} is no host name and no address") from None


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as this system finds them."""
    found = await in_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    return list(dict.fromkeys(str(each[4][0]) for each in found))


async def checked_addresses(host: str, port: int, rules: Rules, resolver: Resolver) -> list[str]:
    """The addresses that a connection to `host` may go to. One forbidden address among them forbids the name."""
    rules.check_port(port)
    read = read_host(host)
    name = read if isinstance(read, str) else str(read)
    if isinstance(read, str):
        try:
            texts = await resolver(read, port)
        except (OSError, UnicodeError) as error:
            raise ToolError(f"the host {read!r} is not known: {getattr(error, 'strerror', None) or error}") from None
        addresses = [ipaddress.ip_address(text.split("%")[0]) for text in texts]
    else:
        addresses = [read]
    if not addresses:
        raise ToolError(f"the host {name!r} has no address")
    for address in addresses:
        if rules.refuses(address, name):
            raise ToolError(
                f"{host[:100]!r} is at {address}, which is no public address: it may not be reached from here"
            )
    return [str(address) for address in addresses]
