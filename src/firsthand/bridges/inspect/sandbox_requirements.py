"""Reads a compose file or Dockerfile as requirements on our sandbox, which is no container, and refuses unmet ones.

Supported: a working folder, environment variables, copied files, a memory limit, packages that are already installed, and
commands that change files. Refused: another operating system, a program or Python package that is not installed, listening
services, a network, devices, other users. Nothing is downloaded and no image is built.
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
"""Images that promise no more than a shell and Python; the minor version of Python is not guaranteed here."""
_IDLE = re.compile(r"(?:exec )?(?:tail -f /dev/null|sleep (?:infinity|\d+)|cat|bash|sh|/bin/(?:ba)?sh|python3?)")
_HARMLESS = {
    "image", "build", "command", "entrypoint", "init", "cpus", "mem_limit", "memswap_limit", "mem_reservation", "deploy",
    "working_dir", "environment", "x_default", "hostname", "stdin_open", "tty", "restart", "network_mode", "pids_limit",
    "read_only", "stop_grace_period", "pull_policy", "platform", "cap_drop", "security_opt", "shm_size", "ulimits", "tmpfs",
}  # fmt: skip
_WHY = {
    "ports": "listens on a port", "expose": "listens on a port", "healthcheck": "has a health check",
    "networks": "is on a network", "depends_on": "needs other services", "volumes": "mounts folders of the host",
    "devices": "needs devices", "privileged": "wants to be privileged", "cap_add": "wants capabilities",
    "runtime": "needs its own runtime", "user": "runs as another user", "env_file": "reads an environment file",
    "extra_hosts": "adds host names", "cgroup": "joins a cgroup",
}  # fmt: skip
_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}
REMEDY = "install Docker, so that Inspect builds the image, or add :sandbox=firsthand to run without these"


@dataclass(frozen=True)
class RequiredSandbox:
    """Requirements of one sandbox of a sample, a service in a compose file."""

    name: str = "default"
    folder: str = FOLDER
    folders: tuple[str, ...] = ()
    """Further folders that must exist."""
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 0
    steps: tuple[BuildStep, ...] = ()
    source: str = ""


def required_sandboxes(config: Any, *, lenient: bool = False) -> list[RequiredSandbox]:
    """Return the sandboxes that an Inspect configuration requires, the default one first.

    Raises ConfigError naming what we cannot provide; with `lenient` it is left out, and the sample gets a plain system.
    """
    from inspect_ai.util._sandbox.compose import ComposeConfig, is_compose_yaml, is_dockerfile, parse_compose_yaml
    from yaml import YAMLError

    if config is None or config == "":
        return [RequiredSandbox()]
    if isinstance(config, LenientConfig):
        return required_sandboxes(config.config, lenient=True)
    if isinstance(config, str) and is_dockerfile(config):
        service, lacks = _built(RequiredSandbox(source=config), Path(config), Path(config).parent)
        _refuse(config, lacks, lenient)
        return [service]
    if isinstance(config, str) and (is_compose_yaml(config) or Path(config).suffix in (".yaml", ".yml")):
        try:
            return _services(parse_compose_yaml(config), Path(config), lenient)
        except (OSError, ValueError, YAMLError, RecursionError) as error:
            raise ConfigError(f"{config} cannot be read: {' '.join(str(error).split())[:200]}") from None
    if isinstance(config, ComposeConfig):
        return _services(config, Path("compose.yaml"), lenient)
    raise ConfigError(f"the sandbox's configuration {str(config)[:80]!r} is neither a compose file nor a Dockerfile")


@dataclass(frozen=True)
class LenientConfig:
    """A configuration to follow as far as possible."""

    config: Any


def _services(compose: Any, file: Path, lenient: bool) -> list[RequiredSandbox]:
    found: list[RequiredSandbox] = []
    lacks: list[str] = []
    for name, asked in compose.services.items():
        service, missing = _service(name, asked, file)
        lacks += [f"service {name!r} {why}" for why in missing]
        found.insert(0 if asked.x_default or name == "default" else len(found), service)
    _refuse(str(file), lacks, lenient)
    if not found:
        raise ConfigError(f"{file} has no services: a sandbox needs one")
    return found


def _service(name: str, asked: Any, file: Path) -> tuple[RequiredSandbox, list[str]]:
    given = {key: value for key, value in asked.model_dump(exclude_none=True).items() if value not in ([], {}, False)}
    lacks = [_WHY.get(key, f"asks for {key}") for key in given if key not in _HARMLESS]
    if (asked.network_mode or "none") not in ("none", "bridge"):
        lacks.append(f"is on the network {asked.network_mode!r}")
    for key in ("command", "entrypoint"):
        words = getattr(asked, key)
        line = words if isinstance(words, str) else " ".join(words or ())
        if line and not _IDLE.fullmatch(line.removeprefix("/bin/sh -c ").removeprefix("sh -c ").strip("\"'")):
            lacks.append(f"keeps `{line[:60]}` running")
    service = RequiredSandbox(
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


def _built(service: RequiredSandbox, dockerfile: Path, context: Path) -> tuple[RequiredSandbox, list[str]]:
    """Return the service with its Dockerfile's requirements, and those of them that we cannot meet."""
    built = read_dockerfile(dockerfile, context, PLAIN)
    folder = service.folder if service.folder != FOLDER else built.folder or FOLDER
    made = RequiredSandbox(
        service.name, folder, built.folders, {**built.environment, **service.environment}, service.memory_bytes,
        built.steps, str(dockerfile),
    )  # fmt: skip
    return made, built.lacks


def _refuse(source: str, lacks: list[str], lenient: bool) -> None:
    if lacks and not lenient:
        unmet = "; ".join(lacks[:6]) + (f"; and {len(lacks) - 6} more" if len(lacks) > 6 else "")
        raise ConfigError(f"{source} needs what the sandbox does not have: {unmet}. To run it, {REMEDY}")


def _variables(given: Any) -> dict[str, str]:
    if isinstance(given, list):
        given = dict(each.partition("=")[::2] for each in given)
    return {str(key): "" if value is None else str(value) for key, value in (given or {}).items()}


def _bytes(text: str | None) -> int:
    """Return the bytes in a size such as `512m`; 0 for None."""
    matched = re.fullmatch(r"([\d.]+)\s*([bkmg]?)b?", (text or "").lower())
    return int(float(matched[1]) * _UNITS[matched[2]]) if matched else 0
