"""Declarations and stored tokens of MCP servers, each as a whole value."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

from pydantic import AnyUrl

from firsthand.declaration import Declaration
from firsthand.errors import ConfigError
from firsthand.tool import Effect
from firsthand.tools.mcp.oauth_sign_in import StoredTokens
from firsthand.tools.mcp.server_declaration import ServerDeclaration, declarations, read_declarations, to_json


def server(**settings: Any) -> ServerDeclaration:
    return ServerDeclaration("mail", **{"command": "serve", **settings})


# -- declarations --


@pytest.mark.parametrize("effect", get_args(Effect))
def test_a_tool_that_does_more_than_read_is_declared_by_its_authority_or_its_recipients(effect: str) -> None:
    bare, owner = Declaration((), (), (), "public"), {"tells": "MCP server mail"}
    to_owner = replace(bare, **owner)
    only_read = to_owner if effect == "read" else None
    effects = {"effects": {"t": effect}}
    assert server(**effects).declares("t") == only_read
    assert server(**effects, authority={"u": "to"}, recipients={"u": "to"}).declares("t") == only_read
    rest = server(**effects, trusts={"t": "id"}, spends={"t": "fee"}, private=("t",), grants=("t",)).declares("t")
    whole = Declaration((), ("id",), (), "user", grants=True, spends=("fee",), **owner)
    assert rest == (whole if effect == "read" else None)
    assert server(**effects, authority={"t": ""}).declares("t") == to_owner
    assert server(**effects, recipients={"t": " "}).declares("t") == bare
    assert server(**effects, authority={"t": "a b"}).declares("t") == replace(to_owner, authority=("a", "b"))
    assert server(**effects, recipients={"t": "c"}).declares("t") == replace(to_owner, recipients=("c",))
    assert server().declares("t") is None, "external, where nothing is told"


def test_the_first_pattern_that_fits_a_tool_counts_for_its_effect_and_its_declaration() -> None:
    mail = server(
        effects={"get_*": "read", "get_key": "irreversible", "send": "write"},
        authority={"send*": "to cc", "send_all": "list", "quiet": "", "get_key": "name"},
        recipients={"share": "with", "send": "to bcc"},
        trusts={"get_*": "id sender"},
        spends={"share": "amount fee"},
        private=("get_mail", "quiet"),
        grants=("share", "nothing"),
        only=("get_*", "send"),
    )
    assert [mail.effect_of(name) for name in ("get_mail", "get_key", "send", "Send", "quiet")] == [
        "read", "read", "write", "external", "external",
    ]  # fmt: skip
    owner = {"tells": "MCP server mail"}
    assert {
        name: mail.declares(name) for name in ("get_mail", "get_key", "send", "send_all", "quiet", "share", "x")
    } == {
        "get_mail": Declaration((), ("id", "sender"), (), "user", **owner),
        "get_key": Declaration(("name",), ("id", "sender"), (), "public", **owner),
        "send": Declaration(("to", "cc"), (), ("to", "bcc"), "public", **owner),
        "send_all": Declaration(("to", "cc"), (), (), "public", **owner),
        "quiet": Declaration((), (), (), "user", **owner),
        "share": Declaration((), (), ("with",), "public", grants=True, spends=("amount", "fee"), **owner),
        "x": None,
    }
    assert [name for name in ("get_mail", "send", "sends", "quiet") if mail.offers(name)] == ["get_mail", "send"]
    assert server().offers("anything")
    assert mail.origin == "MCP server mail" and mail.target == "serve"
    assert server(args=("a b", "-c")).target == "serve 'a b' -c"
    assert to_json(mail) == {
        "name": "mail",
        "target": "serve",
        "trusted": False,
        "effects": {"get_*": "read", "get_key": "irreversible", "send": "write"},
        "revision": "auto",
    }


def test_what_a_server_may_do_without_any_setting() -> None:
    tables: Any = {key: {} for key in ("env", "headers", "effects", "authority", "recipients", "trusts", "spends")}
    lists = dict.fromkeys(("args", "scopes", "private", "grants", "only", "roots"), ())
    texts = dict.fromkeys(("cwd", "url", "allow", "issuer", "client_id", "client_secret", "client_metadata_url"), "")
    switches = {"oauth": False, "trusted": False, "shared": False}
    switches |= dict.fromkeys(("resources", "prompts", "sampling", "elicitation"), True)
    limits = {"timeout_s": 60.0, "opening_s": 30.0, "lazy_above": 40, "revision": "auto"}
    given = {"name": "mail", "command": "serve"}
    assert asdict(server()) == {**given, **tables, **lists, **texts, **switches, **limits}


def test_settings_are_refused_beyond_their_limits_and_not_at_them() -> None:
    for name, value in (("timeout_s", 86_400), ("opening_s", 86_400), ("timeout_s", 0.001), ("lazy_above", 1)):
        assert getattr(server(**{name: value}), name) == value
    assert ServerDeclaration("a" * 24, command="x").name == "a" * 24
    for settings, said in (
        ({"timeout_s": 86_400.5}, "'mail' has timeout_s = 86400.5: seconds above 0"),
        ({"opening_s": 0}, "'mail' has opening_s = 0: seconds above 0"),
        ({"opening_s": -1}, "opening_s = -1"),
        ({"lazy_above": 0}, "lazy_above = 0: a number of tools above 0"),
        ({"command": ""}, "has neither a command and a url"),
        ({"url": "http://h/"}, "has both a command and a url"),
        ({"command": "", "url": "ftp://h/"}, "has the url 'ftp://h/'"),
        ({"command": "", "url": "http:///x"}, "has the url 'http:///x'"),
        ({"command": "", "url": "https://me@h/"}, "has a password in its url"),
        ({"client_id": "c", "client_secret": "s"}, "has a client_id and no issuer, so the server could"),
        ({"client_secret": "s"}, "has a client_secret and no client_id: give both"),
        ({"issuer": "login.example"}, "has the issuer 'login.example': an address with https://"),
        ({"issuer": "https:///x"}, "has the issuer 'https:///x': an address"),
        ({"revision": "2024"}, "has the revision '2024'"),
        ({"effects": {"t": "zzz"}}, r"the effect of 't' is 'zzz'; one of \('read', 'write'"),
        ({"effects": {"t": "extrenal"}}, "is 'extrenal'; did you mean 'external'[?] one of"),
    ):
        with pytest.raises(ConfigError, match=said):
            server(**settings)
    for name in ("a" * 25, "", "a.b", "ä"):
        with pytest.raises(ConfigError, match="a name of 1 to 24 letters"):
            ServerDeclaration(name, command="x")


def test_a_command_is_named_by_its_first_word_that_is_no_wrapper_and_no_flag() -> None:
    names = {
        "uvx mcp-server-time": "time",
        "uv tool run --with=x mcp_time": "time",
        "node C:/tools/weather-mcp-server.js": "weather",
        "docker run -i --rm -e KEY=v acme/notes-mcp:1": "notes-mcp-1",
        "python3.12 /opt/my_tool.py": "my_tool",
        "python -m mcp_server_git": "git",
        "npx -y @modelcontextprotocol/server-files@1.2": "files",
        "server": "server",
        "mcp": "mcp",
        "env": "env",
        "'/opt/My Tool!!'": "My-Tool",
        f"{'x' * 23}.y": "x" * 23,
        "!!!": "server",
    }
    assert {text: declarations(text)[0].name for text in names} == names
    (spoken,) = declarations("  uvx  'a b' --c  ")
    assert (spoken.name, spoken.command, spoken.args, spoken.url) == ("a-b", "uvx", ("a b", "--c"), "")
    (there,) = declarations(" HTTPS://Mcp.Example.org:8443/x?key=1#part ")
    assert (there.name, there.url) == ("mcp-example-org", "HTTPS://Mcp.Example.org:8443/x?key=1#part")
    assert (there.command, there.target) == ("", "HTTPS://Mcp.Example.org:8443/x")
    with pytest.raises(ConfigError, match="is no command: No closing quotation"):
        declarations("uvx 'open")
    for empty in ("", "  \n"):
        with pytest.raises(ConfigError, match="names no server"):
            declarations(empty)


def test_a_file_of_servers_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_KEY", "k1")
    monkeypatch.setenv("MAIL_ID", "i2")
    file = tmp_path / "servers.toml"
    file.write_text(
        """
[servers.mail]
command = "serve"
args = ["--all", "${MAIL_KEY}"]
env = {A = "x${MAIL_KEY}y${MAIL_ID}", B = "$MAIL_KEY"}
cwd = "sub"
roots = ["../data", "/abs"]
timeout_s = 7
lazy_above = 3
trusted = true
private = ["get_*"]
revision = "2025-11-25"
[servers.web]
url = "https://h.example/mcp"
headers = {Authorization = "Bearer ${MAIL_KEY}"}
client_id = "id-${MAIL_ID}"
client_secret = "${MAIL_KEY}"
issuer = "https://login.example"
opening_s = 2.5
prompts = false
[servers.web.trusts]
"a*" = "id"
"""
    )
    mail = ServerDeclaration(
        "mail",
        command="serve",
        args=("--all", "${MAIL_KEY}"),
        env={"A": "xk1yi2", "B": "$MAIL_KEY"},
        cwd=str(tmp_path / "sub"),
        roots=(str(tmp_path.parent / "data"), "/abs"),
        timeout_s=7.0,
        lazy_above=3,
        trusted=True,
        private=("get_*",),
        revision="2025-11-25",
    )
    web = ServerDeclaration(
        "web",
        url="https://h.example/mcp",
        headers={"Authorization": "Bearer k1"},
        client_id="id-i2",
        client_secret="k1",
        issuer="https://login.example",
        opening_s=2.5,
        prompts=False,
        trusts={"a*": "id"},
    )
    assert read_declarations(file) == {"mail": mail, "web": web}
    assert declarations(str(file)) == (mail, web) and declarations(f"{file}#web") == (web,)
    for chosen, said in (
        ("wbe", "no server 'wbe'; did you mean 'web'[?] there are mail, web"),
        ("zz", "'zz'; there are"),
    ):
        with pytest.raises(ConfigError, match=said):
            declarations(f"{file}#{chosen}")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_declarations(tmp_path / "none.toml")
    for text, said in (
        ("servers = {}", "declares no servers"),
        ("[servers.a]\ncommand='x'\n[more]", "declares no servers"),
        ("servers = [1]", "declares no servers"),
        ("servers = {a = 1}", r"servers\.a is 1: a table was expected"),
        (
            "[servers.a]\ncomand='x'",
            r"servers\.a has no setting 'comand'; did you mean 'command'[?] there are command, args",
        ),
        ("[servers.a]\nname='x'", "has no setting 'name'"),
        (
            "[servers.a]\nargs='x'",
            r"servers\.a\.args is 'x': a list of texts was expected, as in \[\"-m\", \"server\"\]",
        ),
        (
            "[servers.a]\nallow=['127.0.0.1']",
            (
                r"servers\.a\.allow is \['127.0.0.1'\]: a text was expected, with \+ between networks and hosts, as in "
                '"10.0.0.0/8\\+auth.local"$'
            ),
        ),
        ("[servers.a]\nscopes='a b'", r"scopes is 'a b': a list of texts was expected, as in \[\"files:read\", "),
        ("[servers.a]\nurl=5", "url is 5: a text was expected$"),
        ("[servers.a]\nargs=['x', 1]", "a list of texts was expected"),
        ("[servers.a]\nenv={A=1}", r"env is \{'A': 1\}: a table of texts was expected"),
        ("[servers.a]\ntrusted=1", "trusted is 1: true or false was expected"),
        ("[servers.a]\ntimeout_s=true", "timeout_s is True: a number was expected"),
        ("[servers.a]\nlazy_above=true", "lazy_above is True: a whole number was expected"),
        ("[servers.a]\ncommand=5", "command is 5: a text was expected"),
        ("[servers.a]\nclient_id='${NOT_SET_X}'", r"servers\.a\.client_id needs the variable NOT_SET_X of"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_declarations(file)


def test_variables_may_be_empty_folders_begin_at_the_file_or_at_home_and_no_name_asks_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    file = tmp_path / "s.toml"
    file.write_text("""
[servers.b]
command = "x"
args = []
env = {A = "${EMPTY}-${EMPTY}"}
roots = ["~/r", "."]
cwd = "~/c"
[servers.a]
url = "https://h:8443/?q=1"
client_id = "${EMPTY}"
timeout_s = 1
oauth = true
""")
    b, a = declarations(f"{file}#")
    assert (b.name, b.args, b.env, b.target) == ("b", (), {"A": "-"}, "x")
    assert (b.roots, b.cwd) == ((str(tmp_path / "me" / "r"), str(tmp_path)), str(tmp_path / "me" / "c"))
    assert (a.name, a.client_id, a.timeout_s, a.oauth, a.target) == ("a", "", 1.0, True, "https://h:8443/")
    assert declarations(f" {file}#a ") == (a,) and declarations(str(file)) == (b, a)
    for url in ("https://@h/", "https://:p@h/", "HTTP://u@h/"):
        with pytest.raises(ConfigError, match="has a password in its url: give it as a header, from the environment"):
            declarations(url)
    for table, said in (
        ("args=[1]", "a list of texts was expected"), ("env={A=true}", "a table of texts was expected"),
        ("timeout_s='1'", "timeout_s is '1': a number was expected"), ("trusted='yes'", "true or false was expected"),
        ("lazy_above=1.0", "lazy_above is 1.0: a whole number was expected"), ("lazy_above=0", "lazy_above = 0"),
        ("headers={A='${NONE_X}'}", r"headers needs the variable NONE_X of the environment"),
    ):  # fmt: skip
        file.write_text(f"[servers.a]\ncommand='x'\n{table}\n")
        with pytest.raises(ConfigError, match=said):
            declarations(str(file))


# -- tokens --


def test_a_registration_counts_for_its_own_address_or_another_port_of_it(tmp_path: Path) -> None:
    from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

    there = ServerDeclaration("web", url="https://h.example/mcp")

    def stored(uri: str, declared: ServerDeclaration = there) -> StoredTokens:
        return StoredTokens(declared, uri, tmp_path)

    async def registered(uri: str, declared: ServerDeclaration = there) -> Any:
        return await stored(uri, declared).get_client_info()

    async def main() -> None:
        first = stored("http://127.0.0.1:1/callback")
        assert await first.get_client_info() is None and await first.get_tokens() is None
        mine = OAuthClientInformationFull(client_id="c", redirect_uris=[AnyUrl("http://127.0.0.1:1/callback")])
        await first.set_client_info(mine)
        await first.set_tokens(OAuthToken(access_token="t", token_type="Bearer"))
        for uri, known in (
            ("http://127.0.0.1:1/callback", "c"),
            ("http://127.0.0.1:2/callback", "c"),
            ("http://127.0.0.1:1/other", None),
            ("http://localhost:1/callback", None),
            ("https://127.0.0.1:1/callback", None),
        ):
            found = await registered(uri)
            assert (None if found is None else found.client_id) == known, uri
        kept = first.path
        assert kept == tmp_path / "mcp" / "tokens" / "h.example-0d7c199b47e9813f.json"
        assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700), "its owner's alone"
        assert [each.name for each in kept.parent.iterdir()] == [kept.name]
        kept.with_suffix(f".{os.getpid()}.new").write_text("left by a process of that number")
        await first.set_client_info(mine)
        assert [each.name for each in kept.parent.iterdir()] == [kept.name]
        tokens = await first.get_tokens()
        assert tokens is not None and tokens.access_token == "t", "both parts are kept"
        whole = kept.read_bytes()
        kept.write_bytes(b'{"tokens": "\xff"}')
        assert await first.get_tokens() is None, "a damaged file asks for a new sign-in"
        kept.write_bytes(whole)
        other = ServerDeclaration("web", url="https://other.example/mcp")
        assert await registered("http://127.0.0.1:1/callback", other) is None
        for secret, method in (("s", "client_secret_basic"), ("", "none")):
            declared = replace(there, issuer="https://i", client_id="mine", client_secret=secret)
            given = await registered("http://127.0.0.1:3/callback", declared)
            assert (given.client_id, given.client_secret, given.token_endpoint_auth_method, given.issuer) == (
                "mine",
                secret or None,
                method,
                "https://i",
            )
            assert [str(each) for each in given.redirect_uris] == ["http://127.0.0.1:3/callback"]
        first.path.write_text('{"tokens": {"access_token": 5}, "client": []}')
        assert await first.get_tokens() is None and await first.get_client_info() is None
        for damaged in ("[1]", "{"):
            first.path.write_text(damaged)
            assert await first.get_tokens() is None

    asyncio.run(main())


def test_the_data_for_a_trace_hold_the_endpoint_with_its_arguments_and_none_of_its_secrets() -> None:
    hidden = {
        "env": {"K": "SECRET"},
        "headers": {"K": "SECRET"},
        "client_secret": "SECRET",
        "client_id": "me",
        "issuer": "https://i",
    }
    rest = {"name": "mail", "trusted": False, "effects": {}, "revision": "auto"}
    for url, target in (
        ("https://h/mcp?key=SECRET", "https://h/mcp"),
        ("https://h:8443/mcp?a=1?b=2&key=SECRET", "https://h:8443/mcp"),
        ("https://h?SECRET", "https://h"),
        ("http://h/mcp", "http://h/mcp"),
    ):
        there = ServerDeclaration("mail", url=url, **hidden)  # type: ignore[arg-type]
        assert to_json(there) == rest | {"target": target}
        assert there.target == target == ServerDeclaration("other", url=url + "?more").target
    for command, args, target in (
        ("serve", (), "serve"),
        ("serve", ("--port", "1"), "serve --port 1"),
        ("/my programs/serve", ("a b", "", "it's"), "'/my programs/serve' 'a b' '' 'it'\"'\"'s'"),
        ("serve", ("https://h/?key",), "serve 'https://h/?key'"),
    ):
        here = ServerDeclaration("mail", command, args, **hidden)  # type: ignore[arg-type]
        assert to_json(here) == rest | {"target": target}
    effects = {"get_*": "read", "send": "write"}
    told = to_json(server(trusted=True, effects=effects, revision="2026-07-28"))
    assert told == {"name": "mail", "target": "serve", "trusted": True, "effects": effects, "revision": "2026-07-28"}
    told["effects"]["x"] = "read"
    assert effects == {"get_*": "read", "send": "write"}
