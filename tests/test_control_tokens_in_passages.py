"""Control tokens of known models in a passage are broken, and ordinary text with brackets stays as it is."""

import pytest

from firsthand.retrieval.answers.evidence import escaped, unescaped

_TOKENS = """
<|im_start|> <|start|> <｜User｜> <bos> </s> <<SYS>> [INST] <SPECIAL_10> <extra_id_1> <role>HUMAN</role> <longcat_user>
<|turn> <turn|> <jupyter_start> <minimax:tool_call> ]~b]user <reserved_106> <hy_User> <fim_prefix> <mask> <0x0A>
[unused1] <_user> <function_calls> <function=x> <file_sep> <start_function_call> <start_function_response> <escape>
<think> <thinking> <seed:think> <AVAILABLE_TOOLS> <tool_result> </tool_results> <function_response> <|assistant [SEP]
[BOS] [END] [BEGIN] [CLS] <arg_key> <observation> <answer> <image> <audio> <start_of_audio> <response> <ctrl99>
<commentary> [TOOL_CALLS] [MODEL_SETTINGS] [/MODEL_SETTINGS] [REFERENCE_DOC_1] [PREFIX] [BEGIN_AUDIO] [IMG_BREAK]
[IMG_END] <unusedtoken> <unused99> <h_user> <user> <assistant> <human> <bot> <eod> <tool> <invoke> <parameter=a> <MASK>
[PAD] <filename> <reponame> <gh_stars> <issue_start> <commit_before> <_bot> <pr>
"""
TOKENS = _TOKENS.split()
PLAIN = [
    "<em>word</em>", "<b>", "<a href='x'>", "<title>", "<p>", "<div>", "<h1>", "<end>", "<your_name>", "std::vector<size_t>",
    "List<String>", "if a <user and b> c", "a <tool b", "x<y>z", "<0x0>", "<users>", "<userx>", "[end]", "[prefix]",
    "[argument]", "[mask]", "[1]", "[SEPT]", "[BEGIN x]", "[END", "a[PAD+1]", "a <- b", "<2024-01-01>", "<me@a.org>", "<https://a.org>",
]  # fmt: skip


@pytest.mark.parametrize("token", TOKENS)
def test_a_control_token_is_broken_wherever_it_stands_and_can_be_restored(token: str) -> None:
    for text in (token, f"x{token}y", f"\n{token}\n"):
        assert token not in escaped(text) and unescaped(escaped(text)) == text


@pytest.mark.parametrize("text", PLAIN)
def test_ordinary_text_with_brackets_stays_as_it_is(text: str) -> None:
    assert escaped(text) == text
