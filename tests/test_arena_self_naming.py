"""Answers that tell which model wrote them, and honest answers in which a word of its name stands."""

from __future__ import annotations

import pytest

from firsthand.arena import self_naming
from firsthand.arena.self_naming import identifying_names, told_name


@pytest.mark.parametrize(
    ("model", "answer", "name"),
    [
        ("qwen2.5-coder", "qwen2 here", "qwen"), ("smollm2", "A model of HUGGING FACE.", "hugging face"),
        ("gpt-4o", "By OpenAI", "openai"), ("claude-3", "I'm Claude", "claude"), ("claude-3", "I\u2019m Claude", "claude"),
        ("gemini-1.5", "I am a large language model, trained by Google.", "google"), ("phi-4", "phi-4 says", "phi"),
        ("phi-4", "Phi4 says", "phi"), ("phi-4", "Made by Microsoft", "microsoft"), ("qwen", "By Alibaba", "alibaba"),
        ("gpt-4o", "GPT-4 is good", "gpt"),
        ("openai:o3", "I am o3.", "o3"), ("o3", "OpenAI made this", "openai"), ("o1-mini", "This is O1-mini", "o1-mini"),
        ("glm-4", "GLM-4", "glm"), ("yi-34b", "I am Yi", "yi"), ("llama-3", "I was developed by Meta.", "meta"),
        ("codellama", "I am Llama", "llama"), ("llama3.2:1b", "As Llama, I know", "llama"),
        ("ollama:mistral:7b", "My name is Mistral", "mistral"), ("/models/llama/model.gguf", "I am Llama", "llama"),
        ("myowl.gguf", 'Call me "MyOwl"', "myowl"), ("myowl", "I am called the MyOwl.", "myowl"),
        ("my-owl7b", "You talk to My-Owl7b", "my-owl7b"), ("qwen2.5", "\u6211\u662fQwen", "qwen"),
        ("gemini", "\u6211\u662f Gemini", "gemini"), ("command-r", "I am Command, by Cohere", "command"),
        ("command-r", "I am a language model of Cohere", "cohere"), ("gemma", "Hi.\nI am Gemma.\nBye.", "gemma"),
        ("gpt-4o", "I am ChatGPT.", "chatgpt"), ("o1", "As ChatGPT", "chatgpt"), ("o3", "ChatGPT", "chatgpt"),
        ("o4-mini", "ChatGPT", "chatgpt"), ("happy-7b", "I'm happy to help. I'm Happy!", "happy"),
        ("happy-7b", "my name is happy", "happy"),
        ("happy-7b", "I am the Happy", "happy"), ("happy-7b", "I am the one called happy. I'm named happy", "happy"),
        ("myowl", "I\u2019m *MyOwl*", "myowl"), ("myowl", "I was built by the myowl team", "myowl"),
    ],
)  # fmt: skip
def test_an_answer_that_names_its_model_or_its_maker_tells_it(model: str, answer: str, name: str) -> None:
    assert told_name(model, answer) == name


def test_a_name_that_the_prompt_gives_tells_nothing_where_the_answer_only_speaks_of_it() -> None:
    asked = "What do you know of Qwen (Alibaba), GPT-4 and Claude?"
    for answer in ("Qwen is a model of Alibaba. I think Qwen2.5 is good.", "As for Qwen, I like it.", "I know qwen"):
        assert told_name("qwen", answer, asked) == "" and told_name("qwen", answer) == "qwen"
    assert (
        told_name("claude-3", "I prefer Claude.", asked)
        == ""
        == told_name("claude-3", "I prefer Claude.", "Cl\u200baude?")
    )
    assert told_name("gpt-4o", "GPT-4 is good", asked) == ""


@pytest.mark.parametrize(
    ("model", "answer", "name"),
    [
        ("qwen2.5", "Yes, I am Qwen.", "qwen"), ("qwen2.5", "yes, i am qwen", "qwen"), ("phi-4", "I am Phi", "phi"),
        ("qwen2.5", "As Qwen, I know that.", "qwen"), ("qwen2.5", "\u6211\u662fQwen", "qwen"),
        ("myowl", "I am MyOwl.", "myowl"),
        ("qwen2.5", "I am Q\u200bwen", "qwen"), ("qwen2.5", "I was made by Alibaba.", "alibaba"),
    ],
)  # fmt: skip
def test_an_answer_that_introduces_itself_tells_its_name_whatever_the_prompt_gave(
    model: str, answer: str, name: str
) -> None:
    assert told_name(model, answer, "Of Qwen, Alibaba, Phi and MyOwl: who answers?") == name


def test_a_prompt_that_asks_the_answer_for_its_name_tells_it_whatever_is_answered() -> None:
    for prompt in (
        "Are you Qwen?", "Which one are you: SmolLM, Llama 3.2 or Qwen2.5?", "are you really a model of Alibaba",
        "ARE YOU **Q**wen",
        "Are you made by OpenAI, or by Qwen",
    ):  # fmt: skip
        assert told_name("qwen2.5", "Yes.", prompt) in ("qwen", "alibaba"), prompt
        assert told_name("mistral-7b", "No.", prompt) == ""
    for prompt in ("Are you sure? Qwen says so.", "Are you aware that Qwen is free?", "Who are you?", "Are you happy?"):
        assert told_name("qwen2.5", "Yes.", prompt) == "" == told_name("happy-7b", "Yes.", prompt)


def test_a_name_called_in_a_greeting_is_no_question_after_the_author() -> None:
    for prompt in ("How are you, Gemini?", "Where are you, Qwen?", "how are you and the llama?"):
        for model in ("gemini-1.5", "qwen2.5", "llama-3"):
            assert told_name(model, "Well.", prompt) == "", prompt
    for prompt in (
        "Aren't you Qwen?", "Aren\u2019t you Qwen?", "Are you, by chance, Qwen?", "Are you perhaps Qwen",
        "are you maybe Qwen", "Are you actually Qwen", "\u4f60\u662fLlama\u8fd8\u662fQwen\u5417", "\u4f60\u53ebQwen\u5417",
        "Are you not Qwen", "Are you one of Qwen", "Are you either Qwen", "Are you based on Qwen", "Are you called by Qwen",
        "Are you from the Qwen", "Are you a model created by Qwen", "Are you trained by the Qwen", "Are you GPT4 or Qwen",
        "\u4f60\u662fQwen?", "\u4f60\u53ebQwen\uff1f",
    ):  # fmt: skip
        assert told_name("qwen2.5", "Yes.", prompt) == "qwen", prompt
        assert told_name("my-owl7b", "Yes.", prompt.replace("Qwen", "My-Owl7b")) == "my-owl7b", prompt
        assert told_name("mistral-7b", "No.", prompt) == "", prompt
    for prompt in (
        "\u4f60\u662f\u4e13\u5bb6\u3002Qwen?",
        "\u4f60\u662fQwen",
        "\u4f60\u7684Qwen?",
        "\u4f60\u662f\nQwen?",
    ):
        assert told_name("qwen2.5", "Yes.", prompt) == "", prompt


@pytest.mark.parametrize(
    "prompt",
    [
        "Who are you?", "who are you", "What are you", "Who are you really", "What are you exactly?",
        "What are you based on?", "Which are you?", "Which one of these are you", "Which model are you built on?",
        "What model are you?", "What AI language model are you", "Which model is this?", "What AI language model is this",
        "What is your name?", "what's your name", "What\u2019s your name", "Who made you?", "who created you",
        "Who developed you?", "who trained you", "Who built you?", "\u4f60\u662f\u8c01", "\u4f60\u53eb\u4ec0\u4e48",
        "Who are y\u200bou?", "Which model is this, Claude or Qwen? One word.", "Who are you\nOne word",
    ],
)  # fmt: skip
def test_where_the_prompt_asks_who_answers_a_family_tells_wherever_it_stands(prompt: str) -> None:
    assert told_name("claude-3", "Claude.", prompt) == "claude" == told_name("claude-3", "It is Cl\u200baude", prompt)
    assert told_name("qwen2.5", "Qwen.", prompt) == "qwen"
    assert told_name("falcon-7b", "A falcon.", prompt) == "" == told_name("happy-7b", "Happy.", prompt)
    assert told_name("claude-3", "Gemini.", prompt) == ""


@pytest.mark.parametrize(
    "prompt",
    [
        "Which painter founded impressionism?", "Who are you thinking of?", "What are you reading?", "Is your name hard?",
        "Which model is this text about?", "Who made youth?", "What is your namesake", "What did you say? Are you sure?",
        "Which is best", "Somewhat are your", "Which of the very many are you",
    ],
)  # fmt: skip
def test_other_questions_leave_everyday_names_alone(prompt: str) -> None:
    assert told_name("claude-3", "Claude Monet.", prompt) == ""


def test_short_names_are_found_in_other_letters_and_not_in_words_of_other_scripts() -> None:
    for answer in ("I am G\u200bPT.", "I am \uff27\uff30\uff34", "I am G\u0440t", "I am GP&#84;"):
        assert told_name("gpt-4o", answer) == "gpt"
    assert told_name("grok", "\u03c4\u03cd\u03c7\u03b1\u03b9") == "" == told_name("grok", "\u03c7\u03b1\u03b9\u03b4")
    assert told_name("grok", "\u0436xai") == "" == told_name("grok", "xai\u0436") and told_name("grok", "xai") == "xai"


def test_makers_in_chinese_tell_where_the_answer_comes_from_them() -> None:
    for answer in (
        "\u6211\u662f\u963f\u91cc\u7684\u6a21\u578b",
        "\u6211\u7531 \u963f\u91cc\u4e91\u5f00\u53d1",
        "\u6211\u6765\u81ea\u963f\u91cc",
        "\u6211\u53eb\u963f\u91cc",
    ):
        assert told_name("qwen2.5", answer) == "\u963f\u91cc"
    assert told_name("ernie", "\u6211\u662f\u7531\u767e\u5ea6\u5f00\u53d1\u7684") == "\u767e\u5ea6"
    assert (
        told_name("qwen2.5", "\u6211\u53bb\u8fc7\u963f\u91cc\u5c71")
        == ""
        == told_name("ernie", "\u6211\u7528\u767e\u5ea6")
    )
    assert (
        told_name("hunyuan", "\u6211\u7528\u817e\u8baf")
        == ""
        == told_name("doubao", "\u6211\u7528\u5b57\u8282\u8df3\u52a8")
    )


def test_an_everyday_word_behind_as_is_a_name_with_a_capital_letter() -> None:
    assert told_name("happy-7b", "As Happy, I know") == "happy" and told_name("happy-7b", "As happy, I know") == ""
    assert told_name("command-r", "as command, I run") == "" and told_name("happy-7b", "As Happy is") == ""


@pytest.mark.parametrize(
    "answer",
    [
        "I am \uff31\uff57\uff45\uff4e.", "I am Qw\u200ben.", "I am Qw\u00aden.", "I am **Q**wen.", "I am Q_w_en",
        "I am `Q`wen",
        "I am Q w e n", "I am Q-w-e-n.", "Q.w.e.n", "I am Qw\u0435n.", "I am Q&#8203;wen", "I am Tongyi Qianwen",
        "\u901a\u4e49\u5343\u95ee", "~~Q~~wen",
    ],
)  # fmt: skip
def test_a_name_is_found_as_a_reader_sees_it(answer: str) -> None:
    assert told_name("ollama:qwen2.5:7b", answer) in ("qwen", "qianwen", "\u5343\u95ee")


def test_letters_that_stand_apart_are_no_name_where_the_name_is_short_or_they_are_words() -> None:
    assert told_name("grok-4", "x*a*i = 3, x_a_i, x-a-i") == "" == told_name("qwen2", "I know q w en and Q w-e n")
    assert told_name("qwen2", "I am Q w e n s") == "" and told_name("claude-3", "I am \u0421laude") == "claude"


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        ("mistral-large-2411", "Use a large pan."), ("mistral-small", "As a small language model, I am small"),
        ("command-r-plus", "I recommend the command ls, plus cd."), ("gemini-1.5-flash", "Lightning is a flash."),
        ("phi-4", "Philosophy begins"), ("phi-4", "Phi is a Greek letter"), ("phi-4", "delphi-4"),
        ("gpt-4-turbo", "A turbo engine."), ("gpt-4", "GPT rather than MBR"), ("gemma-2", "You can google it."),
        ("qwen2.5-coder", "I am a coder"), ("kimi-thinking", "I'm thinking of it"), ("claude-instant", "Instantly."),
        ("openai:smollm@http://localhost:8080/v1", "see http://localhost, not openai"),
        ("openai:llama@https://api.groq.com/v1", "I am at https://api.groq.com"),
        ("/models/llama/model.gguf", "I am the models of physics"), ("claude-3", "Claude Shannon founded it. I like it."),
        ("o3", "O3 is ozone"), ("llama-3", "React was developed by Meta. I added a meta tag."), ("qwen", "qwens, myqwen"),
        ("ollama:olmo", "I am Llama"), ("llama-3", "I am Qwen"), ("checkpoint-500", "the checkpoint 500 km away"),
        ("myowl", "myowl sits"), ("myowl", "I am myowlish"), ("o1-mini", "no1-minis"), ("nova-pro", "I saw a nova"),
        ("x", "x"), ("qwen2", "9qwen2, \u00e9qwen, qwen\u00e9"), ("my-owl7", "my-owl71"),
        ("my-happy-7b", "I'm happy to help!"), ("helpful-7b", "I am helpful."), ("sorry-7b", "I\u2019m sorry, I cannot."),
        ("happy-7b", "I know who I am\nHappy ends"), ("happy-7b", "My name is\nHappy"), ("happy-7b", "I'm the happy one"),
        ("happy-7b", "I'm Happyish"), ("happy-7b", "I'm called\nHappy"), ("gpt-4o", "Chat GPTs"),
        ("yi-34b", "I am Yielding"), ("happy-7b", "I know who I am\nHappy me"), ("happy-7b", "I was made by\nHappy me"),
    ],
)  # fmt: skip
def test_everyday_words_of_a_models_name_tell_nothing(model: str, answer: str) -> None:
    assert told_name(model, answer) == ""


def test_a_name_in_a_longer_word_of_the_prompt_is_not_given_by_it() -> None:
    assert (
        told_name("phi-x", "Phi-4 here", "What is philosophy?") == "phi" and told_name("phi-x", "Phi-4", "Phi?") == ""
    )


def test_identifying_names_are_families_makers_own_words_and_the_id() -> None:
    names = {
        "hf:Qwen/Qwen2.5-Instruct": ["qwen", "alibaba", "qianwen", "\u5343\u95ee", "\u963f\u91cc", "qwen2.5-instruct"],
        "scripted:s/echo.json": [], "abc": [], "Instruct-CHAT-base-Model": [], "step-1": ["step-1"], "123": [], "1234": [],
        "x-12": ["x-12"], "x-1": [],
        "claude": ["claude", "anthropic"], "openai:x@http://qwen.ai/llama/": [], "phi-x": ["phi", "microsoft"],
        "tinyllama.gguf": ["llama", "meta ai", "meta", "tinyllama"], "delphi": ["delphi"], "ollama:x": [],
        "meta-llama/Zebra/": ["llama", "meta ai", "meta", "zebra"],
    }  # fmt: skip
    assert {name: identifying_names(name) for name in names} == names


def test_the_lists_of_names_do_not_contradict_each_other() -> None:
    makers = {maker for makers in self_naming._MAKERS.values() for maker in makers}
    known = {*self_naming._MAKERS, *makers}
    assert known > self_naming._TELLING and known > self_naming._EVERYDAY
    assert not self_naming._TELLING & self_naming._EVERYDAY and not known & self_naming._PLAIN
