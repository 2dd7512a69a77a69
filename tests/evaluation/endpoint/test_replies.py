"""What endpoints say, each in its own form, and what is made of it: by the body, not by the exception's class."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from evaluation.endpoint.replies import Next, Refusal, read_reply, retry_after_s
from evaluation.scores import Status

SENT = ("temperature", "max_tokens", "seed", "response_format", "top_k")


def read(http: int, body: Any, **headers: str) -> Refusal:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    found = read_reply(http, {name.replace("_", "-"): value for name, value in headers.items()}, content, SENT)
    assert isinstance(found, Refusal)
    return found


def openai(message: str, kind: str = "invalid_request_error", code: str | None = None, param: str | None = None) -> Any:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


PARAMETERS = [
    # OpenAI
    (400, openai("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
                 "instead.", code="unsupported_parameter", param="max_tokens"), "max_tokens"),
    (400, openai("Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is "
                 "supported.", code="unsupported_value", param="temperature"), "temperature"),
    (400, openai("Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
                 param="response_format"), "response_format"),
    (400, openai("Unknown parameter: 'seed'."), "seed"),
    # in a word
    (400, "response_format: oh no", "response_format"),
    (400, "'seed'?", "seed"),
    (400, "use max_completion_tokens", "max_tokens"),
    (400, {"error": "max_tokens is deprecated"}, "max_tokens"),
    (400, {"error": {"message": "json_schema is not supported by this model"}}, "response_format"),
    (400, {"message": "Extra inputs are not permitted: seed", "object": "error", "code": 400}, "seed"),
    (200, {"error": "'response_format.type' must be 'text'"}, "response_format"),
    (500, {"error": {"code": 500, "message": "failed to parse grammar", "type": "server_error"}}, "response_format"),
    # FastAPI's validation, and servers built on it
    (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "temperature"], "msg": "Extra inputs are not "
                       "permitted", "input": 0.0}]}, "temperature"),
    (422, {"detail": [{"loc": ["body", "response_format", "type"], "msg": "unexpected value"}]}, "response_format"),
    (400, {"detail": "seed: unknown field"}, "seed"),
    # handed on as text
    (400, {"error": {"message": json.dumps(openai("unsupported", param="seed")), "code": 400}}, "seed"),
    (400, {"error": {"message": "Provider returned error", "code": 400,
                     "metadata": {"raw": json.dumps(openai("top_k is not supported"))}}}, "top_k"),
]  # fmt: skip


@pytest.mark.parametrize(("http", "body", "parameter"), PARAMETERS)
def test_a_parameter_that_is_refused_is_named(http: int, body: Any, parameter: str) -> None:
    found = read(http, body)
    assert (found.next, found.parameter) == (Next.OTHERWISE, parameter)


STOPS = [
    (401, openai("Incorrect API key provided: sk-ab***yz.", code="invalid_api_key"), "Incorrect API key"),
    (401, "", "HTTP 401, without a word of why"),
    (403, {"error": {"message": "no access", "type": "permission_error"}}, "no access"),
    (400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.",
                      "status": "INVALID_ARGUMENT"}}], "API key not valid"),
    (404, {"error": {"message": 'model "x" not found, try pulling it first', "type": "api_error"}}, "try pulling"),
    (404, {"detail": "Not Found"}, "Not Found"),
    (404, "<html><head><title>404 Not Found</title></head></html>", "404 Not Found"),
    (400, {"error": {"message": "foo is not a valid model ID", "code": 400}}, "not a valid model"),
    (400, openai("Invalid model name passed in model=foo"), "Invalid model name"),
    (400, openai("The requested model 'x' does not exist.", code="model_not_found"), "does not exist"),
    (405, {"detail": "Method Not Allowed"}, "Method Not Allowed"),
    (200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}, "Unexpected endpoint"),
    (200, {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}, "x-api-key"),
]  # fmt: skip


@pytest.mark.parametrize(("http", "body", "words"), STOPS)
def test_what_no_later_call_cures(http: int, body: Any, words: str) -> None:
    found = read(http, body)
    assert found.next is Next.STOP and words in found.words


QUOTA = [
    (429, openai("You exceeded your current quota, please check.", "insufficient_quota", "insufficient_quota")),
    (429, {"error": {"message": "You exceeded your current quota."}}),
    (402, {"error": {"message": "Insufficient credits", "code": 402}}),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}}),
    (200, {"error": {"code": 402, "message": "This request requires more credits"}}),
]  # fmt: skip


@pytest.mark.parametrize(("http", "body"), QUOTA)
def test_a_quota_that_is_used_up_ends_at_once(http: int, body: Any) -> None:
    found = read(http, body)
    assert found.next is Next.STOP and found.final


def test_a_quota_a_minute_is_waited_for() -> None:
    body = [{"error": {"code": 429, "message": "You exceeded your current quota. Please retry in 34.5s.",
                       "status": "RESOURCE_EXHAUSTED"}}]  # fmt: skip
    found = read(429, body)
    assert (found.next, found.retry_after_s) == (Next.PAUSE, 34.5)


THROTTLED = [
    (429, openai("Rate limit reached; please try again in 1m2.5s", "tokens", "rate_limit_exceeded"), {}, 62.5),
    (429, "", {"retry_after": "7"}, 7.0),
    (429, "", {"retry_after_ms": "250", "retry_after": "1"}, 0.25),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, {}, None),
    (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, {}, None),
    (503, "", {"retry_after": "3"}, 3.0),
    (502, "<html>", {"retry_after": "3"}, 3.0),
    (200, {"error": {"code": 429, "message": "slow down"}}, {}, None),
    (500, {"detail": "The server is busy, try again later"}, {}, None),
]


@pytest.mark.parametrize(("http", "body", "headers", "wait_s"), THROTTLED)
def test_a_server_without_capacity(http: int, body: Any, headers: dict[str, str], wait_s: float | None) -> None:
    found = read(http, body, **headers)
    assert (found.next, found.status, found.retry_after_s) == (Next.PAUSE, Status.THROTTLED, wait_s)


NEVER = [
    (400, "I like the temperature of your text", Status.FAILED),
    (400, openai("This model's maximum context length is 4096 tokens. However, you requested 9000.", param="messages",
                 code="context_length_exceeded"), Status.REFUSED),
    (400, {"object": "error", "message": "'max_tokens' or 'max_completion_tokens' is too large: 600. This model's "
           "maximum context length is 512 tokens", "type": "BadRequestError", "code": 400}, Status.REFUSED),
    (400, {"error": {"code": 400, "message": "the request exceeds the available context size", "n_ctx": 512,
                     "type": "exceed_context_size_error"}}, Status.REFUSED),
    (413, "<html><h1>413 Request Entity Too Large</h1></html>", Status.REFUSED),
    (400, {"error": {"code": "content_filter", "message": "The response was filtered", "param": "prompt",
                     "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, Status.REFUSED),
    (403, {"error": {"code": 403, "message": "Your input was flagged", "metadata": {"reasons": ["x"]}}},
     Status.REFUSED),
    (422, {"detail": [{"loc": ["body", "messages", 0], "msg": "field required"}]}, Status.FAILED),
    (418, "", Status.FAILED),
]  # fmt: skip


@pytest.mark.parametrize(("http", "body", "status"), NEVER)
def test_what_is_about_one_text_is_not_asked_again(http: int, body: Any, status: Status) -> None:
    found = read(http, body)
    assert (found.next, found.status) == (Next.NEVER, status)


RETRIED = [
    (500, {"error": {"message": "The server had an error"}}, "The server had an error"),
    (502, "<html><head><title>502 Bad Gateway</title></head></html>", "502 Bad Gateway"),
    (200, "<!doctype html><title>Sign in</title>", "a page and no JSON (Sign in)"),
    (200, "", "an error in the place of an answer"),
    (200, "null", "null"),
    (200, {"choices": []}, "without choices"),
    (200, {"choices": None, "error": {"message": "upstream died"}}, "upstream died"),
    (200, {"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "fell over"}}]}, "fell over"),
    (200, "[" * 100_000, "[["),
    (408, "", "HTTP 408"),
]


@pytest.mark.parametrize(("http", "body", "words"), RETRIED)
def test_what_another_call_may_cure(http: int, body: Any, words: str) -> None:
    found = read(http, body)
    assert found.next is Next.RETRY and words in found.words


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"retry-after": "Thu, 26 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 26 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 26 Nov 2026 12:01:00 -0000"}, 60.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, None),
        ({}, None),
    ],
)
def test_when_to_come_back(headers: dict[str, str], wanted: float | None) -> None:
    assert retry_after_s(headers, "", datetime(2026, 11, 26, 12, tzinfo=UTC)) == wanted


def test_an_answer_is_an_answer() -> None:
    body = {"choices": [{"message": {"content": "error: rate limit"}}], "error": None}
    assert read_reply(200, {}, json.dumps(body).encode(), SENT) == body


@pytest.mark.parametrize(
    ("words", "for_its_value"),
    [
        ("max_tokens is too large: 600. This model supports at most 256 completion tokens", True),
        ("max_tokens must be less than or equal to 512", True),
        ("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.", False),
        ("use max_completion_tokens", False),
    ],
)  # fmt: skip
def test_a_value_that_is_refused_is_no_parameter_that_is_unknown(words: str, for_its_value: bool) -> None:
    body = json.dumps({"error": {"message": words, "param": "max_tokens"}}).encode()
    found = read_reply(400, {}, body, ("max_tokens", "temperature"))
    assert isinstance(found, Refusal) and found.parameter == "max_tokens" and found.next is Next.OTHERWISE
    assert found.explained is not for_its_value


def test_a_quota_inside_a_choice_is_a_quota() -> None:
    error = {"code": 429, "message": "quota exceeded for the day: insufficient_quota"}
    body = json.dumps({"choices": [{"index": 0, "error": error}]}).encode()
    found = read_reply(200, {}, body, ())
    assert isinstance(found, Refusal) and found.next is Next.STOP
