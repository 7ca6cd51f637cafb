"""Secrets that statements and commands state by their grammar are redacted; ordinary text of the same words stays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.secret_texts import PUT

SECRET = "hunter2hunter2"


def kept(value: Any, name: str = "a") -> Any:
    span = IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, {name: value})
    return json.loads(Redactor().redact(span))["attributes"][name]


@pytest.mark.parametrize(
    "text",
    [
        "ada:%s@tcp(db:3306)/shop", "dsn=shop.ada:%s@unix(/run/mysqld.sock)/shop", "root:a@b:%s@tcp(db)/x",
        "jdbc:oracle:thin:scott/%s@db:1521/x", "JDBC:Oracle:OCI:scott/%s@x",
        "CREATE USER a IDENTIFIED BY '%s'", "create user 'a'@'h' identified\n  by \"%s\";",
        "ALTER USER scott IDENTIFIED BY %s;", "CREATE USER scott IDENTIFIED BY %s DEFAULT TABLESPACE t",
        "GRANT ALL ON x.* TO 'a'@'h' IDENTIFIED BY PASSWORD '%s'",
        "CREATE USER a IDENTIFIED WITH caching_sha2_password BY '%s'",
        "CREATE USER a IDENTIFIED VIA mysql_native_password USING PASSWORD('%s')",
        "ALTER ROLE a WITH PASSWORD '%s'", "create role a login encrypted password '%s' valid until 'x'",
        "CREATE DATABASE LINK l CONNECT TO scott IDENTIFIED BY %s USING 'orcl'",
        "ALTER USER scott IDENTIFIED BY %s REPLACE x",
        "CREATE PUBLIC DATABASE LINK l CONNECT TO a IDENTIFIED BY \"%s\" USING 'x'",
        "CREATE USER u IDENTIFIED BY %s PASSWORD EXPIRE",
        "ALTER USER scott IDENTIFIED BY VALUES 'S:%s'", "ALTER USER 'u'@'h' IDENTIFIED BY 'new' REPLACE '%s'",
        "CREATE USER u IDENTIFIED BY 'pa\\\\'%s'", "SET PASSWORD FOR 'bob'@'%%' = '%s'", "set password = password('%s')",
        "CREATE USER u WITH PASSWORD E'%s'", "CREATE USER u WITH PASSWORD $$%s$$",
        "CREATE USER a IDENTIFIED BY 'it''s%s'", 'q = "ALTER ROLE a PASSWORD \\"%s\\""',
        "setx API_KEY %s", "setx /M API_KEY \"%s\"", "set -x API_KEY %s", "set -gx DB_PASSWORD '%s'",
        "set --global --export API_KEY %s", "setenv API_KEY %s",
        "<key>password</key><string>%s</string>", "<key>dbPassword</key>\n\t<string>%s</string>",
        "<property><name>javax.jdo.option.ConnectionPassword</name>\n  <value>%s</value></property>",
        "https://s3.example/x?X-Amz-Signature=%s&x=1", "https://x.example/?X-Goog-Signature=%s",
        "password：%s", "password＝%s", '{"private_key_id": "%s"}',
    ],
)  # fmt: skip
def test_a_secret_that_a_statement_states_is_redacted(text: str) -> None:
    for given in (text % SECRET, f"before\n{text % SECRET}\nafter"):
        said = kept(given)
        assert SECRET not in said and PUT in said, said
    inside = kept(json.dumps({"sql": text % SECRET}))
    assert SECRET not in inside and PUT in inside


@pytest.mark.parametrize("name", ["private_key_id", "x-amz-signature", "X-Goog-Signature"])
def test_an_attribute_of_these_names_is_redacted(name: str) -> None:
    assert kept("abcdef", name) == PUT


@pytest.mark.parametrize(
    "text",
    [
        "The rows are identified by 'id' and by \"name\".", "It was identified by the team as a password problem.",
        "a user of the shop, identified by \"customer_no\"", "The password 'field' is required.",
        "Users are identified with cookies by 'sid'.",
        "set -x PATH /usr/local/bin:/usr/bin", "set -e -u pipefail", "setx EDITOR notepad.exe", "setenv TERM xterm-256color",
        "set -x; echo the api_key is read from a file", "<key>CFBundleName</key><string>Firsthand</string>",
        "<name>dfs.replication</name><value>3</value>", "root:@tcp(db:3306)/shop", "listen @tcp(80) and @unix(/run/x)",
        "jdbc:oracle:thin:@db:1521/x", "jdbc:postgresql://db/x", "the signature of the function", "public_key_id: 12345678",
        "比例：12345678", "CREATE USER a IDENTIFIED EXTERNALLY", "GRANT SELECT ON shop TO reader",
        "create user stories for those identified by the team as new", "set -e\npasswd appuser1",
        "set -eu\nSECRET handling follows",
        "Grant reviewers: each row is identified by id;",
    ],
)  # fmt: skip
def test_ordinary_text_of_these_words_stays(text: str) -> None:
    beside = f"{text}\n\nwith a password policy"  # every rule is tried
    assert kept(text) == text and kept(beside) == beside and kept(json.dumps({"x": text})) == json.dumps({"x": text})


def test_what_was_redacted_stays_as_it_is() -> None:
    said = kept("ALTER USER scott IDENTIFIED BY VALUES 'S:hunter2'")
    assert said.count(PUT) == 1 and "VALUES" in said and kept(said) == said


def test_what_stands_around_secrets_stays() -> None:
    text = "a\nCREATE USER b IDENTIFIED BY 'hunter2' DEFAULT ROLE c;\nSET PASSWORD FOR b = 'hunter3';\nd"
    assert kept(text) == text.replace("hunter2", PUT).replace("hunter3", PUT)
