"""Secrets in the places where programs put them without a name of their own before the value: pairs, logins and forms."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import FAILED, PUT, Redactor

SECRET = "hunter2hunter2"
KEY = "sk-" + "A1b2" * 6
BASIC = base64.b64encode(f"ada:{SECRET}".encode()).decode()


def kept(value: Any) -> Any:
    span = IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, {"a": value})
    return json.loads(Redactor().redact(span))["attributes"]["a"]


@pytest.mark.parametrize("name", [f"{KEY}.password", f"http://ada:{KEY}@h/api_key"])
def test_a_name_that_holds_a_secret_is_redacted_beside_its_value(name: str) -> None:
    for attributes in ({name: "x"}, {"a": {name: "x"}}, {"a": json.dumps({name: "x"})}):
        said = Redactor().redact(IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, attributes)).decode()
        assert KEY not in said and said.count(PUT) == 2
    deep: Any = "x"
    for _ in range(70):
        deep = [deep]
    body = Redactor().redact(IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, {f"a {KEY}": deep}))
    assert json.loads(body)["attributes"] == {f"a {PUT}": FAILED}


@pytest.mark.parametrize(
    "before", ["token_", "é", "\\n", "\\t", "%3D", "%3a", "\\u003d", "\x1b[1m", "\x1b[32m", "=", ""]
)
def test_a_known_shape_is_found_behind_an_underscore_or_an_escape(before: str) -> None:
    for key in (KEY, "sk-lf-12345678", "rk_live_1234567890", "AKIA" + "A" * 16, "ghp_" + "a" * 20, "github_pat_" + "a" * 20,
                "glpat-" + "a" * 16, "xoxb-1234567890", "AIza" + "a" * 30, "hf_" + "a" * 20, "npm_" + "a" * 30,
                "pypi-" + "a" * 30, "eyJ" + "a" * 8 + "." + "b" * 8 + ".c"):  # fmt: skip
        assert kept(f"x {before}{key} y") == f"x {before}{PUT} y", key


def test_a_word_that_ends_in_the_beginning_of_a_key_is_none() -> None:
    for text in (
        "risk-adjusted_returns_of_2024",
        "n risk-adjusted_returns_of_2024",
        "shf_" + "a" * 20,
        "[132mtask-" + "a" * 20,
    ):
        assert kept(text) == text


@pytest.mark.parametrize(
    "pair",
    [
        {"key": "Authorization", "values": [SECRET]}, {"header": "Authorization", "value": SECRET},
        {"Key": "X-Api-Key", "Value": SECRET}, {"value": SECRET, "name": "Cookie"}, {"k": "api_key", "v": SECRET},
        {"ParameterKey": "DbPassword", "ParameterValue": SECRET}, {"field": "password", "value": SECRET},
        {"headerName": "authorization", "headerValue": SECRET}, {"name": "h1", "key": "Authorization", "value": SECRET},
        {"variable": "DB_PASSWORD", "val": SECRET}, {"NAME": "session_token", "VALUE": {"x": SECRET}},
    ],
)  # fmt: skip
def test_a_pair_of_a_secret_name_and_a_value_loses_the_value(pair: dict[str, Any]) -> None:
    for value in (pair, [1, pair], json.dumps([pair])):
        said = json.dumps(kept(value))
        assert SECRET not in said and PUT in said
    names = [each for each in pair.values() if isinstance(each, str) and each != SECRET]
    assert all(name in json.dumps(kept(pair)) for name in names)
    span = IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, dict(pair))
    assert SECRET not in Redactor().redact(span).decode()


def test_pairs_of_other_names_and_schemas_of_fields_stay_as_they_are() -> None:
    for value in (
        {"key": "Accept", "values": ["text/html"]}, {"name": "password", "type": "string", "required": True},
        {"name": "password", "value": ""}, {"key": "token_count.secret", "value": 5},
        {"properties": {"v": 1, "k": 2}, "name": "secretary", "value": "Ada"},
    ):  # fmt: skip
        assert kept(value) == value and kept(json.dumps(value)) == json.dumps(value)


def test_a_value_behind_a_secret_name_is_found_at_any_place_of_a_list() -> None:
    assert kept(["x", "Authorization", SECRET]) == ["x", "Authorization", PUT]
    assert kept(["mysql", "--user", "ada", "--password", SECRET, "db"]) == [
        "mysql",
        "--user",
        "ada",
        "--password",
        PUT,
        "db",
    ]
    fields = ["id", "username", "password", "email", "grant_type", "password", "created_at"]
    assert kept(fields) == fields


@pytest.mark.parametrize(
    "text",
    [
        "a=1&api%5Fkey=%s", "a=1&api%2Dkey=%s", "user%5Bpassword%5D=%s", "user[password]=%s",
        "curl -u ada:%s https://h", "curl -s \\\n  --user 'ada:%s' \\\n  https://h", "curl -x h --proxy-user=ada:%s h",
        "['curl', '-u', 'ada:%s']", '/usr/bin/curl -U "ada:%s"',
        "requests.get(url, auth=('ada', '%s'))", 'httpx.BasicAuth("ada", "%s")', "HTTPDigestAuth(b'ada', b'%s')",
        "machine h login ada password %s", "machine h\n  login ada\n  password %s\n",
        'Content-Disposition: form-data; name="password"\r\n\r\n%s\r\n--x', "form-data; name='pwd'\n\nab\n%s\n--x",
        "b'form-data; name=\"api_key\"\\r\\nContent-Type: text/plain\\r\\n\\r\\n%s\\r\\n--x'",
        'form-data; name="password"\n\n%s',
        "{'key': 'Authorization', 'values': ['%s']}",
    ],
)  # fmt: skip
def test_a_login_or_a_form_in_a_text_loses_its_password(text: str) -> None:
    for said in (kept(text.replace("%s", SECRET)), kept([text.replace("%s", SECRET)])[0]):
        assert SECRET not in said and PUT in said
    inside = kept(json.dumps({"x": text.replace("%s", SECRET)}))
    assert SECRET not in inside and PUT in inside
    for end in (" https://h", "' \\\n  https://h", "\r\n--x", "\\r\\n--x'", "\n--x"):
        assert text.partition("%s")[2] != end or kept(text.replace("%s", SECRET)).endswith(f"{PUT}{end}")


def test_a_password_of_a_login_is_replaced_whole_up_to_its_quote() -> None:
    for quote, secret in (("'", 'it"s a b'), ('"', "it's a b"), ("", "a\\$b:c")):
        assert kept(f"curl -u {quote}ada:{secret}{quote} h") == f"curl -u {quote}ada:{PUT}{quote} h"
        if quote:
            assert kept(f"auth=('ada', {quote}{secret}{quote})") == f"auth=('ada', {quote}{PUT}{quote})"
    form = "".join(f'form-data; name="{name}"\r\n\r\n{name}-1 2\n3\r\n--x\r\n' for name in ("note", "pwd", "end"))
    assert kept(form) == form.replace("pwd-1 2\n3", PUT)
    assert kept('form-data; name="note"\n\nx\nform-data; name="pwd"\n\ny').endswith(PUT)


@pytest.mark.parametrize(
    "piece",
    ["auth(", "auth=", "auth('a','", "auth=a", "form-data; name='pwd'\n\n", "form-data; name='a'", "-u a:b ", "curl -u ",
     "-u a", "machine ", "\nmachine a login ", "form-data; name='a'\ncontent-a\ncontent-b\n", "curl -u 'a:", "sk-", "\\nhf_",
     "password%5D", "api%5F"],
)  # fmt: skip
def test_a_long_text_made_of_what_begins_a_login_is_read_in_the_time_of_its_length(piece: str) -> None:
    def steps(length: int) -> float:
        text = "curl password " + piece * (length // len(piece))
        start = time.process_time()
        kept(text)
        return time.process_time() - start

    short = min(steps(10_000) for _ in range(3))
    assert steps(80_000) < 8 * 4 * short + 0.3


def test_the_login_of_docker_and_npm_is_found_by_what_it_decodes_to() -> None:
    config = {"auths": {"registry.example": {"auth": BASIC, "email": "a@b.example"}}}
    put = {"auths": {"registry.example": {"auth": PUT, "email": "a@b.example"}}}
    assert kept(config) == put and json.loads(kept(json.dumps(config))) == put
    assert kept(f"cat: {json.dumps(config)}") == f"cat: {json.dumps(put)}"
    assert kept(f"//registry.example/:_auth={BASIC}\n") == f"//registry.example/:_auth={PUT}\n"
    assert kept(f"auth: '{BASIC}'") == f"auth: '{PUT}'"
    odd = base64.urlsafe_b64encode("ü>?>?:pä>?>?ss".encode()).decode()
    assert ("-" in odd or "_" in odd) and kept({"auth": odd.rstrip("=")}) == {"auth": PUT}


def test_curl_in_a_list_loses_the_password_of_its_user_alone() -> None:
    assert kept(["/bin/curl", "-s", "-u", f"ada:{SECRET}", "h"]) == ["/bin/curl", "-s", "-u", f"ada:{PUT}", "h"]
    assert kept(["docker", "run", "-u", "1000:1000", "curl-image"]) == [
        "docker",
        "run",
        "-u",
        "1000:1000",
        "curl-image",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "docker run -u 1000:1000 app", "docker run --user app:staff app", "curl https://h\ndocker run -u 1000:1000 app",
        "curl -u ada https://h", "curl --user-agent x:y", "auth: bearer_tokens", '{"auth": "oauth2"}',
        "auth=(user, password)",
        "the author: abcdefghijkl", "the machine learning login page password reset",
        "form-data; name=\"comment\"\n\nhello there\n--x",
        "name='password'\n\nprint('hello')", "report%5F2024.pdf", "a%2Db", "auth: aGVsbG8gd29ybGQ=",
        "auth_type=password_file",
    ],
)  # fmt: skip
def test_ordinary_commands_and_settings_stay_as_they_are(text: str) -> None:
    assert kept(text) == text


TOKEN = "Zq9" + "aB3x" * 5


@pytest.mark.parametrize(
    "text",
    [
        "prog --token %s", "prog -token %s", "prog --token=%s", "call token=%s", "https://x.example/cb?token=%s&a=1",
        "https://x.example/cb?a=1&token=%s", "token: '%s'", 'f(token="%s")', "TOKEN := %s", "{'token': '%s'}",
        "x?token%%3D%s",
        "['prog', '--token=%s']", 'log: {\\"token\\": \\"%s\\"}',
        "https://a.blob.core.example/x?sv=1&sig=%s&se=2", "https://a.example/x?sig=%s%%2B%%3D",
        "u=https%%3A%%2F%%2Fa%%3Fsv%%3D1%%26sig%%3D%s",
        "docker login -u me -p %s reg.io", "docker login reg.io -p '%s'",
        "docker run x, then docker login docker.io run -p %s",
        "cd x && az acr login -n r -u me -p %s",
        "helm registry login -u me -p=%s h", "sshpass -p %s ssh me@h", "sshpass -p%s ssh me@h", "mysql -u root -p%s db",
        "mysqldump -h h -p'%s' db", "docker \\\n login -u me \\\n -p %s", "['docker', 'login', '-p', '%s']",
        "first\ndocker login -p %s\nlast",
    ],
)  # fmt: skip
def test_tokens_signatures_and_passwords_of_commands_are_replaced(text: str) -> None:
    said = kept(text % TOKEN)
    assert TOKEN not in said and said.count(PUT) == 1, said
    before, after = (text.replace("%%", "%")).split("%s")
    assert said.startswith(before.rstrip("'\"")) and (said.endswith(after) or after.startswith("%2B"))
    assert TOKEN not in str(kept({"name": [text % TOKEN]}))


@pytest.mark.parametrize(
    "given",
    [
        ["prog", "--token", TOKEN, "x"], ["docker", "login", "-u", "me", "-p", TOKEN, "reg.io"],
        ["/usr/bin/az", "login", "-p", TOKEN],
        ["sshpass", "-p", TOKEN, "ssh", "h"],
    ],
)  # fmt: skip
def test_tokens_and_passwords_in_a_list_of_arguments_are_replaced(given: list[str]) -> None:
    assert kept(given) == [PUT if each == TOKEN else each for each in given]
    assert json.loads(kept(json.dumps({"cmd": given}))) == {"cmd": [PUT if each == TOKEN else each for each in given]}


@pytest.mark.parametrize(
    "text",
    [
        "docker run -p 8080:80 nginx", "Say `docker login`, then `docker run -p 8080:80 nginx`",
        "docker login reg.io && docker run -p 8080:80 nginx",
        "docker login\ndocker run -p 8080:80 x",
        "mysql -P 3306 -h db -p shop", "mkdir -p a/b/login", "login: mkdir -p a/b", "next_token=" + TOKEN,
        "x-token: " + TOKEN,
        "max_token=1234567890abcdefgh", "the token internationalisation1 is rare", "token: internationalisation",
        "design=" + TOKEN, "https://x.example/?significance=" + TOKEN, "a token " + TOKEN, "?sig=short",
        '[{"token": "internationalisation", "logprob": -0.1}]',
    ],
)  # fmt: skip
def test_what_only_looks_like_a_token_or_a_login_stays(text: str) -> None:
    assert kept(text) == text
    if text.startswith(("docker run", "mkdir", "mysql")):
        assert kept(text.split()) == text.split()
    assert kept(["docker", "run", "-p", "8080:80", "login-page"])[3] == "8080:80"
    for given in (["docker", "run", "-p", "8080:80", "x", "login"], ["cp", "-p", "a1", "sshpass"]):
        assert kept(given) == given and kept(" ".join(given)) == " ".join(given)


@pytest.mark.parametrize(
    "part", ["token ", "--token ", "token=", "sig=", "?sig=", "docker login -p ", "mysql -p", "-p'", "a1" * 10]
)
def test_texts_made_of_such_beginnings_take_time_linear_in_them(part: str) -> None:
    begun = time.process_time()
    kept(part * (200_000 // len(part)))
    assert time.process_time() - begun < 3
