"""Errors in replies of success: the status that they state as a number, or stand for by their names."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.errors import ModelError, PromptTooLong, TransientError
from firsthand.providers.anthropic import AnthropicModel
from firsthand.providers.fault_status import named_status, stated_status
from firsthand.providers.finish_reasons import FailedAnswer
from firsthand.providers.openai_errors import Endpoint

HERE = Endpoint("openai:m", "m", ("s3cret-key-of-mine",), 1.0)


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [
        (None, "server_error", 500), ("server_error", None, 500), ("rate_limit_exceeded", "tokens", 429),
        ("try_again", "server_error", 503), ("queue_full", "rate_limit_error", 429), (None, "InternalServerError", 500),
        ("RESOURCE_EXHAUSTED", None, 429), (None, "overloaded_error", 503), (None, "engine_overloaded_error", 503),
        ("ThrottlingException", None, 429), ("Throttling.RateQuota", None, 429), (None, "timeout_error", 504),
        (None, "api_error", 500), ("UNAVAILABLE", None, 503), ("internal-error", None, 500), (7, "server_error", 500),
        ("invalid_api_key", "invalid_request_error", 401), ("model_not_found", "invalid_request_error", 404),
        ("invalid_timeout", "server_error", 400), (None, "BadRequestError", 400), (None, "permission_denied", 403),
        ("new", "server_error", 500), ("", "server_error", 500),
    ],
)  # fmt: skip
def test_names_of_vendors_stand_for_a_status(code: Any, kind: Any, status: int) -> None:
    error = {"code": code, "type": kind, "message": "m"}
    assert named_status(error)[0] == status
    told = HERE.reported({"error": error})
    assert (type(told) is TransientError) == (status == 429 or status >= 500)
    assert str(told).startswith(f"openai:m answered with {named_status(error)[1]} (m): "), "400 was never answered"


def test_numbers_count_as_texts_too_and_names_that_are_unknown_as_none() -> None:
    for code, number in ((429, 429), ("429", 429), ("400", 400), (599, 599), (600, None), (399, None), ("399", None),
                         ("600", None), (True, None), ("42", None), ("4290", None), ("4٢٩", None)):  # fmt: skip
        assert stated_status({"code": code}) == number, code
    assert type(HERE.reported({"error": {"code": "503", "type": "None"}})) is TransientError
    assert "answered 503 (m): it may pass" in str(HERE.reported({"error": {"code": "503", "message": "m"}}))
    for odd in ("text", None, [1], {"code": "new"}, {"type": ["server_error"]}, {"code": "x" * 100 + "server_error"}):
        assert stated_status(odd) is None and named_status(odd)[0] is None, odd
        assert type(HERE.reported({"error": odd})) is ModelError, odd
    assert named_status({"code": "x" * 87 + "_server_error"})[0] == 500
    assert "s3cret" not in str(HERE.reported({"error": {"code": "s3cret-key-of-mine"}}))


def test_an_unnamed_fault_may_pass_only_once_an_answer_has_begun() -> None:
    for error in ("unexpected EOF", {"message": "unexpected EOF"}, {"code": "new", "message": "unexpected EOF"}):
        late, early = HERE.reported({"error": error}, begun=True), HERE.reported({"error": error})
        assert type(late) is TransientError and str(late).endswith("(unexpected EOF): it may pass, try again")
        assert type(early) is ModelError and "change what it refuses" in str(early)
    assert type(HERE.reported({"error": {"type": "invalid_request_error"}}, begun=True)) is ModelError


def test_credit_and_length_are_told_apart_by_their_names() -> None:
    poor = HERE.reported({"error": {"code": "insufficient_quota", "type": "server_error"}}, begun=True)
    assert type(poor) is ModelError and "no credit left" in str(poor)
    for error in ({"code": "context_length_exceeded"}, {"type": "server_error", "message": "prompt is too long"}):
        assert type(HERE.reported({"error": error})) is PromptTooLong
        assert type(HERE.garbled(FailedAnswer("error", error))) is PromptTooLong


def test_an_error_beside_an_answer_is_tried_again_unless_its_name_says_that_the_request_is_at_fault() -> None:
    for code, kind in (("server_error", TransientError), ("new", TransientError), ("invalid_prompt", ModelError)):
        told = HERE.garbled(FailedAnswer("error", {"code": code, "message": "m"}))
        assert type(told) is kind and str(told).startswith("openai:m ended an answer with error (m): ")
    assert "answered 429 (m)" in str(HERE.garbled(FailedAnswer("error", {"code": "429", "message": "m"})))


def test_anthropic_s_gateways_may_use_names_and_numbers_of_others() -> None:
    reported = AnthropicModel("m", "https://h", api_key="k")._reported
    assert type(reported({"error": {"type": "ThrottlingException", "message": "m"}})) is TransientError
    assert "answered 503" in str(reported({"error": {"type": "None", "code": "503"}}))
    for begun, kind in ((True, TransientError), (False, ModelError)):
        assert type(reported({"error": {"type": "new"}}, begun=begun)) is kind
