"""Reads OpenTelemetry's variables of the OTLP exporter, for spans that are sent without its SDK.

A variable for traces wins over the one for all signals, and an empty one counts as unset. The timeout is not read: it is in
milliseconds by the specification, and in seconds to the SDK for Python.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from firsthand.errors import ConfigError

_PREFIX = "OTEL_EXPORTER_OTLP_"
_PATH = "/v1/traces"


def traces_address(environment: Mapping[str, str]) -> str | None:
    """The URL that spans are sent to; None if the environment asks for none, ConfigError if it names no URL.

    `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is the URL itself, and `OTEL_EXPORTER_OTLP_ENDPOINT` the one below which it lies.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporters = [each.strip() for each in environment.get("OTEL_TRACES_EXPORTER", "").split(",")]
    if any(exporters) and "otlp" not in exporters:
        return None
    variable, address = _found("ENDPOINT", environment)
    if not address:
        return None
    try:
        parts = urlsplit(address)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_url = False
    if not is_url:
        raise ConfigError(f"{variable} is no URL: give an address such as http://127.0.0.1:4318")
    if variable == f"{_PREFIX}TRACES_ENDPOINT" or parts.path.rstrip("/").endswith(_PATH):
        return address
    return parts._replace(path=parts.path.rstrip("/") + _PATH).geturl()


def exporter_headers(environment: Mapping[str, str]) -> dict[str, str]:
    """The headers of each request."""
    return pairs_of(_found("HEADERS", environment)[1])


def is_compressed(environment: Mapping[str, str]) -> bool:
    """True if requests are to be gzipped, which they are unless the environment says `none`."""
    return _found("COMPRESSION", environment)[1].lower() != "none"


def trusted(environment: Mapping[str, str]) -> ssl.SSLContext | bool:
    """The certificates that a collector's is checked against, with our own if it asks for one; True for the usual ones."""
    variable, authority = _found("CERTIFICATE", environment)
    client = _found("CLIENT_CERTIFICATE", environment)[1]
    if not authority and not client:
        return True
    try:
        context = ssl.create_default_context(cafile=authority or None)
        if client:
            variable = f"{_PREFIX}CLIENT_CERTIFICATE"
            context.load_cert_chain(client, _found("CLIENT_KEY", environment)[1] or None, password=lambda: "")
    except OSError as error:  # an SSLError, too
        raise ConfigError(f"{variable} cannot be read ({error.strerror or error}): give a file in PEM format") from None
    return context


def resource_attributes(environment: Mapping[str, str]) -> dict[str, str]:
    """The attributes of the program, `service.name` among them if the environment names it."""
    named = environment.get("OTEL_SERVICE_NAME", "").strip()
    return pairs_of(environment.get("OTEL_RESOURCE_ATTRIBUTES", "")) | ({"service.name": named} if named else {})


def pairs_of(text: str) -> dict[str, str]:
    """The pairs of `name=value` with commas between, values percent-encoded."""
    pairs = [each.partition("=") for each in text.split(",") if "=" in each]
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


def _found(name: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """The variable that states a setting, and its value; the one for all signals and "" if neither does."""
    own, general = (f"{_PREFIX}{kind}{name}" for kind in ("TRACES_", ""))
    value = environment.get(own, "").strip()
    return (own, value) if value else (general, environment.get(general, "").strip())
