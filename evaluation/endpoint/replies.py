"""What a server's reply says: an answer, or why there is none and whether another call can cure it.

Decided by what the body says (``code``, ``type``, ``param``, ``message``), in whichever of the forms that endpoints
give it, then by the status: an error that comes with status 200, as a page or inside a choice, is an error, too.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from evaluation.endpoint.bodies import Said, error_of, json_of, page_of
from evaluation.scores import Status

Usage = tuple[int | None, int | None]  # prompt and completion tokens, if the server said


class Next(StrEnum):
    """What can be done about a call without an answer."""

    PAUSE = "pause"  # the server has no capacity: all calls wait
    UNREACHABLE = "unreachable"  # nothing listens there: all calls wait
    RETRY = "retry"  # this call, once more
    OTHERWISE = "otherwise"  # this call at once, without the parameter that was refused
    NEVER = "never"  # not this call: the text is what is refused
    STOP = "stop"  # no call: key, model, address, or what is asked for


@dataclass(frozen=True)
class Refusal:
    """A call without an answer.

    Attributes:
        words: the server's own, with its status; not yet cleaned of the key.
        status: that the text's scores get.
        parameter: that was refused, by the name under which it was sent; unexplained, for its value.
        retry_after_s: what the server asks for, in seconds.
        final: nothing that the server said to other calls speaks against it, as a quota that is used up.
        explained: whether it is known what the matter is.
        usage: what it cost.
    """

    next: Next
    words: str
    status: Status = Status.FAILED
    parameter: str | None = None
    retry_after_s: float | None = None
    final: bool = False
    explained: bool = True
    usage: Usage = (0, 0)


_QUOTA = {
    "insufficient_quota", "insufficient_credits", "insufficient_balance", "billing_hard_limit_reached",
    "out_of_credits", "billing_not_active", "billing_error", "quota_exhausted", "exceeded_current_quota_error",
    "payment_required",
}  # fmt: skip
_QUOTA_WORDS = re.compile(
    r"exceeded (your|the) (current |monthly )?(quota|credit|budget|spend)|(insufficient|not enough|out of|no more) "
    r"(quota|credit|balance|fund)|billing (hard )?limit|credit balance|quota (is |has been )?(used up|exhausted)"
    r"|(requires|add) more credits|payment required|insufficient_(quota|credits|balance)",
    re.IGNORECASE,
)
_LENGTH = {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length", "request_too_large"}
_LENGTH_WORDS = re.compile(
    r"context[ _]?(length|window|size|limit)|maximum (context|input|prompt|sequence|model) length|max_model_len"
    r"|(prompt|input|request|message|text|content|query)s? (is |are |was |were )?(too|much too) (long|large|big)"
    r"|too many (input |prompt |total )?tokens|reduce the length|longer than (the|this) (maximum|model|context)"
    r"|exceeds? the (available|maximum|model'?s?) (context|input|number of tokens|token)",
    re.IGNORECASE,
)
_POLICY = {
    "content_filter", "content_policy_violation", "responsibleaipolicyviolation", "moderation", "content_policy",
    "safety", "prohibited_content", "data_inspection_failed", "datainspectionfailed",
}  # fmt: skip
_POLICY_WORDS = re.compile(
    r"content (management |usage )?polic|content[_ ]filter|flagged (by|as|for|input)|was flagged|safety system"
    r"|moderation",
    re.IGNORECASE,
)
_THROTTLE = {
    "rate_limit_exceeded", "rate_limit_error", "ratelimiterror", "overloaded_error", "overloaded", "too_many_requests",
    "throttled", "throttlingexception", "resource_exhausted", "engine_overloaded", "slow_down", "tokens", "requests",
    "ratelimitexceeded", "ratelimit",
}  # fmt: skip
_THROTTLE_WORDS = re.compile(
    r"rate[ _-]?limit|too many requests|overloaded|at capacity|no capacity|server is busy|queue is full|model is "
    r"(currently )?loading|loading model|no slot available|try again (in|later|after)|retry (in|after)",
    re.IGNORECASE,
)
_ACCESS = {
    "invalid_api_key", "invalid_authentication", "authentication_error", "authenticationerror", "unauthorized",
    "unauthenticated", "permission_error", "permission_denied", "permissiondenied", "invalid_token", "token_expired",
    "account_deactivated", "invalid_organization", "access_denied", "accessdenied", "forbidden",
    "unsupported_country_region_territory",
}  # fmt: skip
_ACCESS_WORDS = re.compile(
    r"(incorrect|invalid|missing|wrong|no|expired|unknown|malformed) "
    r"(api[ _-]?key|authentication|auth token|access token|credential|bearer)"
    r"|api[ _-]?key (is )?(not valid|invalid|missing|required|not found|expired|incorrect)"
    r"|unauthori[sz]ed|not authenticated|authentication (failed|required|error|fails)|pass a valid api key",
    re.IGNORECASE,
)
_MODEL = {"model_not_found", "modelnotfound", "deploymentnotfound", "invalid_model", "model_not_available",
          "unknown_model", "model_not_supported", "unknown_url", "notfounderror"}  # fmt: skip
_MODEL_WORDS = re.compile(
    r"\bmodel\b.{0,120}?(not found|n[o']t exist|not exist|no such|is unknown|not available|unavailable for|not loaded"
    r"|is not served|not a valid|decommissioned|deprecated and|been (removed|retired|shut down))"
    r"|\b(no such|unknown|invalid|nonexistent|unrecognized) model\b|not a valid model|no models? (is |are )?loaded"
    r"|\bmodel id(entifier)? is invalid|model (name |identifier |id )(is )?invalid|invalid model (name|id)"
    r"|unexpected endpoint|no route|unknown (url|endpoint|path)|invalid url",
    re.IGNORECASE,
)
# The parameter is known, and its value is what is refused ...
_VALUE_WORDS = re.compile(
    r"too (large|small|high|low|big|many)|at most|at least|exceeds?\b|maximum|minimum|greater than|less than"
    r"|larger than|smaller than|out of range|between -?\d|supports? (at most|up to)|(less|greater) than or equal",
    re.IGNORECASE,
)
# ... unless it says that it takes none, or another in its place.
_OTHER_WORDS = re.compile(
    r"max_completion_tokens|unsupport|not support|unknown|unrecogni|instead|\buse\b", re.IGNORECASE
)
# Of these parameters: without them a budget can't be kept.
_SIZES = ("max_tokens", "max_completion_tokens")
_REFUSING = re.compile(
    r"unsupport|not support|n[o']t support|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed|not accept"
    r"|extra|invalid|must |only |deprecated|\buse\b|instead|cannot|can't|does ?n[o']t|not (available|implemented"
    r"|recogni[sz]ed|compatible|enabled|valid)|forbidden|should|failed|remove|no longer|too (large|small|high|low)"
    r"|between|disabled",
    re.IGNORECASE,
)
# What else a server may call a parameter.
_ALSO: Mapping[str, str] = {
    "response_format": r"response[_ ]?format|json[_ ]?schema|structured[_ ]outputs?|guided[_ ](json|decoding)|grammar",
    "max_tokens": r"max_tokens|max_completion_tokens",
}


def read_reply(http: int, headers: Mapping[str, str], body: bytes, sent: Collection[str]) -> dict[str, Any] | Refusal:
    """The answer's JSON object, or why there is none.

    Args:
        http: status of the reply.
        headers: with names in lower case.
        sent: the parameters that were sent.
    """
    payload = json_of(body)
    if http == 200 and isinstance(payload, dict):
        choices = payload.get("choices")
        broken = error_of(payload) if payload.get("error") or payload.get("object") == "error" else None
        if isinstance(choices, list) and choices and broken is None:
            first = choices[0] if isinstance(choices[0], dict) else {}
            if first.get("error") or first.get("finish_reason") == "error":
                said = error_of(first.get("error") or first.get("message", {}).get("content") or "no more than that")
                return _classified(said or Said(), 200, headers, sent)
            return payload
        said = broken or error_of({name: payload.get(name) for name in ("detail", "message", "msg", "errors")})
        if said is None or not said.words:
            return Refusal(Next.RETRY, "the server answered without choices", usage=(None, None), explained=False)
        return _classified(said, 200, headers, sent)
    said = error_of(payload) if payload is not None else Said(page_of(body))
    return _classified(said or Said(), http, headers, sent)


def read_exception(error: BaseException) -> Refusal:
    """Why there was no reply: an unknown host, nobody who listens, a call that took too long or was cut off."""
    chain = list(_causes(error))
    named = {type(each).__name__ for each in chain}
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            words = f"the server's certificate can't be trusted ({each.verify_message})"
            return Refusal(Next.STOP, words, final=True)
        if isinstance(each, socket.gaierror):
            words = f"its host can't be found ({each.strerror})"
            known = each.errno in (socket.EAI_AGAIN, getattr(socket, "EAI_SYSTEM", None))
            return Refusal(Next.UNREACHABLE if known else Next.STOP, words)
    if named & {"UnsupportedProtocol", "InvalidURL", "LocalProtocolError"}:
        return Refusal(Next.STOP, f"the call can't be made ({chain[-1]})", final=True)
    if isinstance(error, UnicodeEncodeError):
        return Refusal(Next.NEVER, "the text holds half a surrogate pair, which can't be sent")
    if isinstance(error, TimeoutError) or named & {"APITimeoutError", "ReadTimeout", "WriteTimeout"}:
        if named & {"ConnectTimeout"}:
            return Refusal(Next.UNREACHABLE, "no connection within the time limit of a call")
        return Refusal(Next.RETRY, "no whole answer within the time limit of a call", usage=(None, None))
    if named & {"ConnectError", "ConnectTimeout", "ProxyError"}:
        numbers = [n for each in chain if isinstance(each, OSError) and (n := each.errno) in errno.errorcode and n]
        why = os.strerror(numbers[-1]).lower() if numbers else str(chain[-1])
        return Refusal(Next.UNREACHABLE, f"no connection ({why})")
    # Such a call may have been answered, and billed.
    return Refusal(Next.RETRY, f"the connection broke off ({chain[-1]})", usage=(None, None))


def retry_after_s(headers: Mapping[str, str], words: str, now: datetime | None = None) -> float | None:
    """How long the server wants to be left alone: by header (seconds, milliseconds or a date), else by its words."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    asked = headers.get("retry-after", "").strip()
    seconds = _number(asked)
    if seconds is not None:
        return seconds
    if asked:
        try:
            moment = parsedate_to_datetime(asked)
        except (ValueError, TypeError, IndexError, OverflowError):
            pass
        else:
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
    return _seconds_in(words)


def _classified(said: Said, http: int, headers: Mapping[str, str], sent: Collection[str]) -> Refusal:
    status = http if http != 200 else said.number or 0
    begin = f"HTTP {http}" if http != 200 else "an error in the place of an answer"
    words = f"{begin}: {said.words}" if said.words else f"{begin}, without a word of why"
    found = _verdict(said, status, retry_after_s(headers, said.words), sent)
    # What a server refused cost nothing; what came with status 200 may have.
    return replace(found, words=words, usage=(0, 0) if http != 200 else (None, None))


def _verdict(said: Said, status: int, wait_s: float | None, sent: Collection[str]) -> Refusal:
    codes, words = said.codes, said.words
    if codes & _QUOTA or status == 402 or (wait_s is None and _QUOTA_WORDS.search(words)):
        return Refusal(Next.STOP, words, Status.FAILED, final=True)
    if codes & _LENGTH or status == 413 or _LENGTH_WORDS.search(words):
        return Refusal(Next.NEVER, words, Status.REFUSED)
    if codes & _POLICY or status == 451 or (status < 500 and _POLICY_WORDS.search(words)):
        return Refusal(Next.NEVER, words, Status.REFUSED)
    if status == 429 or status == 529 or codes & _THROTTLE or _is_busy(status, words, wait_s):
        return Refusal(Next.PAUSE, words, Status.THROTTLED, retry_after_s=wait_s)
    if status in (401, 407) or codes & _ACCESS or (status < 500 and _ACCESS_WORDS.search(words)):
        return Refusal(Next.STOP, words)
    parameter = _parameter(said, sent) if status not in (403, 404, 405) else None
    if parameter in _SIZES and _VALUE_WORDS.search(words) and not _OTHER_WORDS.search(words):
        return Refusal(Next.OTHERWISE, words, parameter=parameter, explained=False)
    if parameter is not None:
        return Refusal(Next.OTHERWISE, words, parameter=parameter)
    if status in (403, 404, 405, 410, 501, 505) or 300 <= status < 400:
        return Refusal(Next.STOP, words)
    if status < 500 and (codes & _MODEL or said.param == "model" or _MODEL_WORDS.search(words)):
        return Refusal(Next.STOP, words)
    if 400 <= status < 500 and status not in (408, 409, 425):
        return Refusal(Next.NEVER, words, explained=False)
    return Refusal(Next.RETRY, words, explained=False)


def _is_busy(status: int, words: str, wait_s: float | None) -> bool:
    """A server that says so in words, or says when to come back."""
    if status >= 500 and wait_s is not None:
        return True
    return (status in (0, 403) or status >= 500) and _THROTTLE_WORDS.search(words) is not None


def _parameter(said: Said, sent: Collection[str]) -> str | None:
    """The parameter that is refused, by the name under which it was sent."""
    head = re.split(r"[.\[]", said.param.removeprefix("body."))[0]
    if head:
        for name in sent:
            if head == name or re.fullmatch(_ALSO.get(name, re.escape(name)), head):
                return name
        if head not in ("body", "request"):
            return None  # of something else
    refusing = _REFUSING.search(said.words) is not None
    for name in sent:  # the very name before what else it may be called
        quoted = "" if refusing or "_" in name else "['\"`]"  # a word of English alone may mean anything
        if re.search(rf"(?<![\w-]){quoted}{re.escape(name)}{quoted}(?![\w-])", said.words):
            return name
    if not refusing:
        return None
    for name in sent:
        known = "max_tokens" if name == "max_completion_tokens" else name
        if known in _ALSO and re.search(rf"(?<![\w-])({_ALSO[known]})(?![\w-])", said.words, re.IGNORECASE):
            return name
    return None


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"\s*\d{1,12}(\.\d{0,9})?\s*", text) else None


_UNITS = {"milli": 0.001, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = r"(\d{1,9}(?:\.\d{1,9})?)\s*(milli|ms|h|m|s)[a-z]*"


def _seconds_in(words: str) -> float | None:
    """``try again in 1m2.5s`` as 62.5."""
    asked = re.search(rf"(?:again|retry)(?: in| after)\s+((?:{_DURATION}\s*)+)", words[:2000], re.IGNORECASE)
    if asked is None:
        return None
    parts = re.findall(_DURATION, asked.group(1), re.IGNORECASE)
    return sum(float(number) * _UNITS[unit.lower()] for number, unit in parts)


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found and len(found) < 20:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
