"""A compose file or a Dockerfile -> what it asks of a sandbox that is no container, or the sentence that says what it lacks.

What can be had: a folder to begin in, environment variables, files copied in, a limit of memory, packages that are installed
here already, and commands that change files. What cannot: another system than this one, a program or a Python package that
is not here, services that listen, a network, devices, other users. Nothing is downloaded and no image is built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firsthand.errors import ConfigError
from firsthand.sandbox.box import FOLDER
from firsthand.sandbox.dockerfile import BuildStep, read_dockerfile

PLAIN = re.compile(
    r"(?:docker\.io/)?(?:library/)?(?:python|debian|ubuntu|buildpack-deps|bash|busybox)(?::[\w.-]+)?(?:@sha256:[0-9a-f]+)?"
    r"|aisiuk/inspect-tool-support(?::[\w.-]+)?(?:@sha256:[0-9a-f]+)?"
)
"""Images that promise a system with a shell and Python and nothing more; a minor version of Python is not promised here."""
_IDLE = re.compile(r"(?:exec )?(?:tail -f /dev/null|sleep (?:infinity|\d+)|cat|bash|sh|/bin/(?:ba)?sh|python3?)")
_HARMLESS = {
    "image", "build", "command", "entrypoint", "init", "cpus", "mem_limit", "memswap_limit", "mem_reservation", "deploy",
    "working_dir", "environment", "x_default", "hostname", "stdin_open", "tty", "restart", "network_mode", "pids_limit",
    "read_only", "stop_grace_period", "pull_policy", "platform", "cap_drop", "security_opt", "shm_size", "ulimits", "tmpfs",
}  # fmt: skip
_WHY = {
    "ports": "listens on a port", "expose": "listens on a port", "healthcheck": "is a service that must come up",
    "networks": "is on a network", "depends_on": "needs other services", "volumes": "shows folders of the host",
    "devices": "needs devices", "privileged": "wants to be privileged", "cap_add": "wants capabilities",
    "runtime": "needs a runtime of its own", "user": "runs as another user", "env_file": "reads a file of variables",
    "extra_hosts": "names hosts", "cgroup": "joins a cgroup",
}  # fmt: skip
_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}
HOW = "install Docker, where Inspect builds what it asks for, or add :sandbox=firsthand to run it without"


@dataclass(frozen=True)
class Service:
    """One sandbox of a sample."""

    name: str = "default"
    folder: str = FOLDER
    folders: tuple[str, ...] = ()
    """More of them that must be there."""
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 0
    steps: tuple[BuildStep, ...] = ()
    source: str = ""


def demanded(config: Any, *, whatever: bool = False) -> list[Service]:
    """The sandboxes that a configuration of Inspect asks for, the default one first; ConfigError names what cannot be had.

    With `whatever`, what cannot be had is left out: the sample sees a plain system instead.
    """
    from inspect_ai.util._sandbox.compose import ComposeConfig, is_compose_yaml, is_dockerfile, parse_compose_yaml
    from yaml import YAMLError

    if config is None or config == "":
        return [Service()]
    if isinstance(config, Bare):
        return demanded(config.config, whatever=True)
    if isinstance(config, str) and is_dockerfile(config):
        service, lacks = _built(Service(source=config), Path(config), Path(config).parent)
        _refuse(config, lacks, whatever)
        return [service]
    if isinstance(config, str) and (is_compose_yaml(config) or Path(config).suffix in (".yaml", ".yml")):
        try:
            return _services(parse_compose_yaml(config), Path(config), whatever)
        except (OSError, ValueError, YAMLError, RecursionError) as error:
            raise ConfigError(f"{config} cannot be read: {' '.join(str(error).split())[:200]}") from None
    if isinstance(config, ComposeConfig):
        return _services(config, Path("compose.yaml"), whatever)
    raise ConfigError(f"the sandbox's configuration {str(config)[:80]!r} is neither a compose file nor a Dockerfile")


@dataclass(frozen=True)
class Bare:
    """A configuration to be followed as far as it can be."""

    config: Any


def _services(compose: Any, file: Path, whatever: bool) -> list[Service]:
    found: list[Service] = []
    lacks: list[str] = []
    for name, asked in compose.services.items():
        service, missing = _service(name, asked, file)
        lacks += [f"service {name!r} {why}" for why in missing]
        found.insert(0 if asked.x_default or name == "default" else len(found), service)
    _refuse(str(file), lacks, whatever)
    if not found:
        raise ConfigError(f"{file} has no services")
    return found


def _service(name: str, asked: Any, file: Path) -> tuple[Service, list[str]]:
    given = {key: value for key, value in asked.model_dump(exclude_none=True).items() if value not in ([], {}, False)}
    lacks = [_WHY.get(key, f"asks for {key}") for key in given if key not in _HARMLESS]
    if (asked.network_mode or "none") not in ("none", "bridge"):
        lacks.append(f"is on the network {asked.network_mode!r}")
    for key in ("command", "entrypoint"):
        words = getattr(asked, key)
        line = words if isinstance(words, str) else " ".join(words or ())
        if line and not _IDLE.fullmatch(line.removeprefix("/bin/sh -c ").removeprefix("sh -c ").strip("\"'")):
            lacks.append(f"runs `{line[:60]}` all the while")
    service = Service(
        name=name,
        folder=asked.working_dir or FOLDER,
        environment=_variables(asked.environment),
        memory_bytes=_bytes(asked.mem_limit),
        source=str(file),
    )
    if asked.build is not None:
        build = asked.build if isinstance(asked.build, str) else asked.build.context or "."
        context = file.parent / build
        named = None if isinstance(asked.build, str) else asked.build.dockerfile
        service, missing = _built(service, context / (named or "Dockerfile"), context)
        return service, lacks + missing
    if asked.image and not PLAIN.fullmatch(asked.image):
        lacks.append(f"is the image {asked.image.partition('@')[0]!r}")
    return service, lacks


def _built(service: Service, dockerfile: Path, context: Path) -> tuple[Service, list[str]]:
    """The service with what its Dockerfile says, and what of that cannot be had."""
    built = read_dockerfile(dockerfile, context, PLAIN)
    folder = service.folder if service.folder != FOLDER else built.folder or FOLDER
    made = Service(
        service.name, folder, built.folders, {**built.environment, **service.environment}, service.memory_bytes,
        built.steps, str(dockerfile),
    )  # fmt: skip
    return made, built.lacks


def _refuse(source: str, lacks: list[str], whatever: bool) -> None:
    if lacks and not whatever:
        told = "; ".join(lacks[:6]) + (f"; and {len(lacks) - 6} more" if len(lacks) > 6 else "")
        raise ConfigError(f"{source} asks for what the sandbox does not have: {told}. To run it, {HOW}")


def _variables(given: Any) -> dict[str, str]:
    if isinstance(given, list):
        given = dict(each.partition("=")[::2] for each in given)
    return {str(key): "" if value is None else str(value) for key, value in (given or {}).items()}


def _bytes(text: str | None) -> int:
    """`512m` as a number; 0 for none."""
    matched = re.fullmatch(r"([\d.]+)\s*([bkmg]?)b?", (text or "").lower())
    return int(float(matched[1]) * _UNITS[matched[2]]) if matched else 0
