"""Secrets in the commands of MCP servers: a variable of the environment stands for each in what is stored or shown."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import pytest

from firsthand.errors import ConfigError
from firsthand.system.address_secrets import command_without_secrets, with_secrets, without_secrets

KEY = "sk-ARGSECRET1234567890abcdef"
MASKED = {
    f"mcp:python srv.py --api-key {KEY}": "mcp:python srv.py --api-key ${API_KEY_SRV_PY}",
    f"mcp:python srv.py --api-key={KEY} --port 80": "mcp:python srv.py --api-key=${API_KEY_SRV_PY} --port 80",
    f"calculator,mcp:uvx serve --token '{KEY}',fetch": "calculator,mcp:uvx serve --token ${TOKEN_SERVE},fetch",
    f"mcp:npx -y @org/web --key {KEY}": "mcp:npx -y @org/web --key ${KEY_WEB}",
    f"mcp:docker run -e API_KEY={KEY} box": "mcp:docker run -e API_KEY=${API_KEY_BOX} box",
    f"mcp:npx mcp-remote https://h/mcp --header 'Authorization: Bearer {KEY}'": (
        "mcp:npx mcp-remote https://h/mcp --header 'Authorization: ${AUTHORIZATION_MCP_REMOTE}'"
    ),
    f'mcp:serve --password "two words" --secret={KEY}': "mcp:serve --password ${PASSWORD_SERVE} --secret=${SECRET_SERVE}",
    f"mcp:env MODE=x serve --secret {KEY}": "mcp:env MODE=x serve --secret ${SECRET_SERVE}",
    f"mcp:uvx --token {KEY} serve": "mcp:uvx --token ${TOKEN_SERVE} serve",
    f"--tools=mcp:serve --access-token {KEY}": "--tools=mcp:serve --access-token ${ACCESS_TOKEN_SERVE}",
    f"mcp:docker run --env=API_KEY={KEY} box": "mcp:docker run --env=API_KEY=${API_KEY_BOX} box",
    f"mcp:npx mcp-remote --header=Authorization:{KEY}": (
        "mcp:npx mcp-remote --header=Authorization:${AUTHORIZATION_MCP_REMOTE}"
    ),
    f'mcp:npx mcp-remote --header="Authorization: Bearer {KEY}"': (
        "mcp:npx mcp-remote '--header=Authorization: ${AUTHORIZATION_MCP_REMOTE}'"
    ),
    f"mcp:npx web --oauth2Bearer {KEY}": "mcp:npx web --oauth2Bearer ${OAUTH2BEARER_WEB}",
    f"mcp:npx web --key {KEY},mcp:uvx serve --secret {KEY} --db x": (
        "mcp:npx web --key ${KEY_WEB},mcp:uvx serve --secret ${SECRET_SERVE} --db x"
    ),
    f"mcp:serve --password 'two words' --port 80,mcp:serve --password {KEY}": (
        "mcp:serve --password ${PASSWORD_SERVE} --port 80,mcp:serve --password ${PASSWORD_SERVE_2}"
    ),
    f"mcp:serve --secret {KEY} -e SECRET={KEY}": "mcp:serve --secret ${SECRET_SERVE} -e SECRET=${SECRET_SERVE}",
    f"mcp:web --token ${{SECRET_SERVE}},mcp:serve --secret {KEY}2": (
        "mcp:web --token ${SECRET_SERVE},mcp:serve --secret ${SECRET_SERVE_2}"
    ),
    f"mcp:serve --secret ${{SECRET_SERVE}},mcp:serve --secret {KEY}2": (
        "mcp:serve --secret ${SECRET_SERVE},mcp:serve --secret ${SECRET_SERVE_2}"
    ),
    "mcp:serve --db postgres://me:pw@h/d": "mcp:serve --db postgres://me:${PASSWORD_ME_H}@h/d",
}
KEPT = [
    "mcp:serve --key topic --port 80", "mcp:serve --label=token:true", "mcp:serve --env=MODE=x", "mcp:serve --no-auth true",
    "mcp:serve --use-token true", "mcp:serve --token-limit 500",
    "mcp:serve --api-key-env MY_KEY", "mcp:servers.toml#mail", "mcp:serve --api-key ${MINE}", "mcp:serve --token", "mcp:",
    f"Say --api-key {KEY} in one word", "mcp:serve --token --port", "mcp:serve 'a b' \"c\" it's",
]  # fmt: skip


@pytest.mark.parametrize("text", MASKED)
def test_a_secret_of_a_command_is_a_variable_that_opens_it_again(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    masked = MASKED[text]
    assert without_secrets(text) == masked == without_secrets(masked)
    values = {
        "PASSWORD_SERVE": "two words", "AUTHORIZATION_MCP_REMOTE": f"Bearer {KEY}", "PASSWORD_ME_H": "pw",
        "OAUTH2BEARER_WEB": KEY, "PASSWORD_SERVE_2": KEY, "SECRET_SERVE_2": f"{KEY}2",
    }  # fmt: skip
    for name in ("API_KEY_SRV_PY", "TOKEN_SERVE", "KEY_WEB", "API_KEY_BOX", "SECRET_SERVE", "ACCESS_TOKEN_SERVE"):
        values[name] = KEY
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    if ":${" in masked:  # the whole value of the header is the key
        monkeypatch.setenv("AUTHORIZATION_MCP_REMOTE", KEY)
    assert shlex.split(with_secrets(masked)) == shlex.split(with_secrets(text))


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_secret_of_a_command_stays(text: str) -> None:
    assert without_secrets(text) == text


def test_many_keys_of_one_name_take_time_linear_in_them() -> None:
    began = time.process_time()
    masked = without_secrets("mcp:serve " + "".join(f"--token x{number} " for number in range(8000)))
    assert masked.endswith("--token ${TOKEN_SERVE_8000} ") and time.process_time() - began < 2


def test_a_variable_of_a_command_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_KEY_SERVE", raising=False)
    with pytest.raises(ConfigError, match=r"API_KEY_SERVE .* with the secret of that command"):
        with_secrets("mcp:serve --api-key ${API_KEY_SERVE}")


def test_a_declared_server_shows_its_command_without_secrets_and_fills_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")
    from firsthand.catalog import tools_and_sources
    from firsthand.tools.mcp.server_declaration import ServerDeclaration, read_declarations

    made = ServerDeclaration("s", command="python", args=("srv.py", "--api-key", KEY, f"--token={KEY}"))
    assert made.target == "python srv.py --api-key '${API_KEY_SRV_PY}' '--token=${TOKEN_SRV_PY}'"
    assert ServerDeclaration("s", command="serve", args=("--key", KEY, "x")).target == "serve --key '${KEY_SERVE}' x"
    assert made.filled_args == made.args and command_without_secrets(["serve", "x"]) == ["serve", "x"]
    file = tmp_path / "s.toml"
    file.write_text(
        '[servers.s]\ncommand = "sh"\nargs = ["--key", "${MY_K}", "--env=ID=${MY_K}", "-c", "echo ${MY_K} ${OTHER}"]\n'
    )
    monkeypatch.delenv("MY_K", raising=False)
    with pytest.raises(ConfigError, match="the command of the MCP server s needs the variable MY_K"):
        read_declarations(file)
    with pytest.raises(ConfigError, match="the command of the MCP server serve needs the variable MY_K"):
        tools_and_sources("mcp:serve ${MY_K}")
    monkeypatch.setenv("MY_K", KEY)
    read = read_declarations(file)["s"]
    assert (
        read.filled_args == ("--key", KEY, f"--env=ID={KEY}", "-c", "echo ${MY_K} ${OTHER}") and KEY not in read.target
    )
    monkeypatch.setenv("API_KEY_SERVE", "a b")
    (source,) = tools_and_sources("mcp:serve --api-key ${API_KEY_SERVE}")
    assert source.declaration.args == ("--api-key", "a b")  # type: ignore[union-attr]
