"""A value is witnessed by the user's words as a whole: no part of a longer number, address, URL or path with blanks."""

import asyncio

import pytest

from firsthand import Agent, Task, catalog
from firsthand.declaration import Declaration
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.rules.witness import occurs
from firsthand.tool import tool


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("12", "pay 12,500 to bob"), ("500", "pay 12,500 to bob"), ("12", "pay 12'500"), ("12", "pay 12\u202f500"),
        ("12", "pay 12 500 euros"), ("12", "pay 12,50 euros"), ("50", "pay 12,50 euros"), ("12", "pay 12.5"),
        ("1", "pay 1,234,567"), ("234", "pay 1,234,567"), ("567", "pay 1,234,567"), ("order-12", "order-12,500"),
        ("https://x.com/pay", "open https://x.com/pay?to=1&q=2"), ("https://x.com/pay", "open https://x.com/pay#a"),
        ("https://x.com/a", "open https://x.com/a,b"), ("https://x.com/a", "open https://x.com/a;b=1"),
        ("https://x.com", "open https://x.com'@evil.com"), ("https://x.com", "open https://x.com!a"),
        ("evil.com", "see https://x.com?u=evil.com"), ("evil.com", "see https://x.com/?a=(evil.com)"),
        ("evil.com", "see https://x.com?u=https://evil.com"), ("https://e.com", "see https://x.com?u=,https://e.com"),
        ("bob", "mail to 'bob'@evil.com"), ("bob@corp.com", "write to bob@corp.com'evil"), ("report", "read report(1).txt"),
        ("a.org/x", "see a.org/x?y=1"), ("a.org/x", "see a.org/x#y"), ("a.org/x", "see a.org/x=y"), ("data", "delete data*"),
        (".log", "delete *.log"), ("report.txt", "read (1)report.txt"), ("/data/bob", "delete /data/bob's stuff"),
    ],
)  # fmt: skip
def test_a_part_of_a_longer_number_or_address_is_no_witness(value, text):
    assert not occurs(value, text) and not occurs(value, text, exact=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("/data/My", "delete /data/My Docs/old.txt"), ("data/My", "Please delete the file data/My Docs/old.txt"),
        ("/data/My", "delete /data/My Old Docs/x"), ("/data/My", "delete /data/My Report.pdf"),
        ("/data/My", "delete '/data/My Docs'"), ("/data/My", 'delete "/data/My and Yours"'),
        ("/data/v1.2", "delete /data/v1.2 Docs/old.txt"), ("C:\\My", "delete C:\\My Docs\\old.txt"),
        ("Docs/old.txt", "delete /data/My Docs/old.txt"), ("Docs/old.txt", "delete /data/My Own Docs/old.txt"),
        ("C:\\Users", "read C:\\Users\\Ann"), ("data/My", "delete data/My Docs\\a"),
    ],
)  # fmt: skip
def test_a_part_of_a_path_with_blanks_is_no_witness(value, text):
    assert not occurs(value, text) and not occurs(value, text, exact=True)
    assert occurs(value, f"delete {value}", exact=True) and occurs(value, f'delete "{value}", not more', exact=True)


def test_a_name_that_is_followed_by_more_of_a_path_is_none_where_the_argument_is_a_path():
    assert not occurs("My", "delete My Docs/old.txt", exact=True) and not occurs(
        "My", "delete My Report.pdf", exact=True
    )
    assert occurs("Ann", "tell Ann Docs/old.txt is there") and occurs("notes", "delete notes now", exact=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("/data/a", "copy /data/a to backup/b"), ("backup/b", "copy /data/a to backup/b"), ("/data/a", "cp /data/a /data/b"),
        ("/data/b", "cp /data/a /data/b"), ("data/b", "cp data/a data/b"), ("data/a", "cp data/a data/b"),
        ("data/a.txt", "compare data/a.txt tests/b.txt"), ("tests/b.txt", "compare data/a.txt tests/b.txt"),
        ("/data/My Docs/old.txt", "delete /data/My Docs/old.txt, please"), ("/data/My", "delete /data/My and b/c.txt"),
        ("/data/My", "delete /data/My, then read b/c.txt"), ("/data/My", "delete /data/My. Docs/old.txt stays"),
        ("/data/My", "delete /data/My (not Docs/old.txt)"), ("/data/My", "delete /data/My\nDocs/old.txt"),
        ("/data/My", "lösche /data/My und alt/b.txt"), ("/data/My", "list /data/My -v x/y"), ("src", "list src and/or a/b"),
        ("/data/My", "delete '/data/My' now, don't ask"), ("/data/My", "delete `/data/My` and `Docs/old.txt`"),
        ("/home/u/notes", "tidy /home/u/notes (but nothing else)"), ("/data/My", "what is in /data/My?"),
        ("data/x", "read and/or write data/x"), ("data/x", "do 1/2 data/x"), ("/data/x", "run 'cat /data/x'"),
        ("1", "in 1, 2, and 3"), ("2", "delete 1,2,3"), ("20", "delete 10,20,30"), ("5", "delete 4 5 6"),
        ("3", "May 3 2026"),
        ("12,500", "pay 12,500 to bob"), ("12", "pay $12, now"), ("12", "is it 12?"), ("a12", "room a12 500 people"),
        ("12", "pay 12. 500 people came"), ("12", "pay bob 12"), ("2026-11-27", "on 2026-11-27, 3 people"),
        ("https://x.com/pay", "open https://x.com/pay?"), ("https://x.com/pay", "open https://x.com/pay, please!"),
        ("https://x.com", "(see https://x.com)."), ("https://x.com", "[site](https://x.com)"), ("site", "[site](https://x.com)"),
        ("https://x.com", "<https://x.com>"), ("https://b.com", "https://a.com,https://b.com"),
        ("https://a.com", "https://a.com,https://b.com"), ("https://x.com", "is https://x.com's page up"),
        ("https://x.com?a=1", "open https://x.com?a=1"), ("bob@c.com", "to ann@c.com,bob@c.com;x"),
        ("ann@c.com", "to ann@c.com,bob@c.com"), ("bob@c.com", "empty bob@c.com's inbox"), ("bob", "empty bob's inbox"),
        ("ann@c.com", "Ann <ann@c.com>"), ("Ann", "Ann<ann@c.com>"), ("bob", "tell **bob** now"), ("bob", "tell bob?"),
        ("home", "to=home"), ("bob@c.com", "“bob@c.com”"), ("general", "to #general!"), ("bob", "'bob' and ann@c.com"),
    ],
)  # fmt: skip
def test_what_users_write_is_a_witness_as_before(value, text):
    assert occurs(value, text, exact=True) and occurs(value, text)


@pytest.mark.parametrize(
    "text",
    [
        "请发邮件给bob@home.org问好。", "给BOB@home.org发个消息",
        "发给bob@home.org和ann@x.org", "請分別寄給bob@home.org。不急。",
        "删除bob@home.org的邮件", "bob@home.orgに挨拶を送ってください",
        "必ずbob@home.orgへ", "bob@home.org에게 안녕 메시지를 보내줘",
        "메일은 bob@home.org로", "ส่งถึงbob@home.orgหน่อย",
        "bob@home.org'a selam gönder", "ann@home.org ve bob@home.org’un",
        "bob@home.org'dan gelen", "[Bob](mailto:bob@home.org) gets hi", "write to mailto:bob@home.org and me",
        200 * "好的" + "。发给bob@home.org",
    ],
)  # fmt: skip
def test_words_of_a_language_without_blanks_may_be_joined_to_an_address(text):
    assert occurs("bob@home.org", text)
    assert not occurs("bob@home.org", text, exact=True), "a path may hold any letters"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[("bob@home.org", text) for text in (
            "不要发给bob@home.org", "别发给bob@home.org。",
            "发给ann@x.org，除了bob@home.org以外", "bob@home.orgに送らないで",
            "bob@home.orgには送るな", "bob@home.org에게 보내지 마",
            "bob@home.org에게는 보내면 안돼", "อย่าส่งถึงbob@home.org",
            "bob@home.org'a gönderme", "bob@home.org'a yazmayın.",
            "never发给bob@home.org", "发给xbob@home.org", "发给x.bob@home.org",
            "发给bob@home.org.uk吧", "发给bob@home.org中文.com",
            "发给bob@home.org中@x.com", "ébob@home.org", "bob@home.orgé",
            "бbob@home.org", "bob@home.org'evil", "bob@home.org'a@x.org", "xmailto:bob@home.org", "cc:bob@home.org",
            "mailto:bob@home.org?cc=eve@x.org", "https://x.com/给bob@home.org",
            "发给bob@home.org\u200b问好", "给\u200bbob@home.org",
        )],
        *[("bob@home.org", text) for text in (
            "不要发给：\nbob@home.org先生", "mailto:bob@home.org에게 보내지 마", "不要" + 200 * "好的" + "发给bob@home.org",
            "bob@home.orgに" + 200 * "はい" + "送らないで",
        )],
        ("12", "付12万元"), ("notes.txt", "删除我的notes.txt"), ("home.org", "bob@home.org问好"), ("bob", "给bob发"),
        ("bob@home", "给bob@home.org发"), ("b", "给b发"),
    ],
)  # fmt: skip
def test_what_is_joined_to_words_that_may_forbid_or_to_more_of_an_address_is_no_witness(value, text):
    assert not occurs(value, text)


def test_a_folder_whose_name_only_begins_the_users_path_is_not_deleted_without_a_question():
    done = []

    @tool(effect="write", declares=Declaration(authority=("path",)))
    def delete(path: str) -> str:
        """Delete."""
        done.append(path)
        return "deleted"

    async def tries(task, ctx):
        paths = ("data/My", "data/My Docs/old.txt")
        return "|".join([(await ctx.call(ToolCall(path, "delete", {"path": path}))).content for path in paths])

    agent = Agent("a", Scripted([]), tries, tools=(delete,), guard=catalog.guards(["policy"]))
    trace = asyncio.run(rollout(agent, Task("1", "Please delete the file data/My Docs/old.txt")))
    assert trace.answer.startswith("Error: ") and trace.answer.endswith("|deleted")
    assert done == ["data/My Docs/old.txt"]
