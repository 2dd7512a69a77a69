"""What must reach no file, no log and no screen, and what is no secret and stays readable."""

from __future__ import annotations

import pytest

from personas.secrets import (
    has_credentials,
    is_variable_name,
    masked,
    masked_words,
    names_a_secret,
    shown_name,
    without_forms,
    without_key,
)

KEY = "q7Zp-Secret-0123456789"


@pytest.mark.parametrize(
    "name", ["api_key", "apiKey", "OPENAI_API_KEY", "key", "x-auth-token", "password", "Authorization"]
)
def test_names_of_secrets(name: str) -> None:
    assert names_a_secret(name)


@pytest.mark.parametrize(
    "name", ["max_tokens", "prompt_tokens", "monkey", "keyboard", "author", "base_url", "tokenizer"]
)
def test_names_of_no_secrets(name: str) -> None:
    assert not names_a_secret(name)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "JUDGE_KEY_2", "_k", "my_key", "AZURE_OPENAI_API_KEY_EASTUS2"])
def test_names_of_variables(name: str) -> None:
    assert is_variable_name(name)


@pytest.mark.parametrize(
    "text",
    [
        "sk-proj-abcdefgh",
        "gsk_a1b2c3d4e5f6g7h8",
        "hf_AbCdEfGh1234567890",
        "AIzaSyA1234567890abcdefghijklmn",
        "0123456789abcdef0123456789abcdef",
        "abcdef0123456789abcdef0123456789",
        "q7ZpSecret0123456789",
        "A" * 65,
        "my key",
        "a-b",
        "",
    ],
)
def test_what_was_pasted_in_the_place_of_a_name(text: str) -> None:
    assert not is_variable_name(text) and shown_name(text) is None


def test_only_names_that_are_surely_none_are_shown() -> None:
    assert shown_name("OPENAI_API_KEY") == "OPENAI_API_KEY" and shown_name("hunter") is None


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://user:hunter2@host/v1", True),
        ("https://user@host/v1", True),
        ("user:hunter2@host", True),
        ("https://user:hun/ter2@host", True),
        ("https://host/v1?api_key=hunter2", True),
        ("https://host/v1?x=1&Token=hunter2", True),
        ("https://host/sk-abcdef123456/v1", True),
        ("https://host/v1?sv=2024&sig=hunter2", True),
        ("https://host/v1?X-Amz-Signature=hunter2", True),
        ("https://host/v1?api-version=2024-10-21", False),
        ("http://localhost:8000/v1", False),
    ],
)
def test_addresses_that_hold_a_key(url: str, wanted: bool) -> None:
    assert has_credentials(url) == wanted


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: {KEY}.",
        f"Bearer {KEY}",
        f"illegal header b'Bearer {KEY}\\n'",
        f"cut off: {KEY[:12]}",
        f"at https://user:{KEY}@host/v1",
        f"twice {KEY}{KEY}",
    ],
)
def test_a_servers_words_without_the_key(text: str) -> None:
    said = without_key(text, KEY)
    assert KEY[:10] not in said and "***" in said and said.split()[0] == text.split()[0]


@pytest.mark.parametrize("name", ["token", "sig", "X-Amz-Signature", "X-Goog-Credential", "accessToken"])
def test_a_parameter_that_gives_rights_is_hidden_in_any_text(name: str) -> None:
    said = without_forms(f"GET https://host/a?x=1&{name}=hunter2&y=2 failed")
    assert said == f"GET https://host/a?x=1&{name}=***&y=2 failed"


@pytest.mark.parametrize("n", [4, 6, 12])
def test_the_end_of_a_key_behind_stars_is_hidden_too(n: int) -> None:
    said = without_key(f"Incorrect API key provided: {KEY[:8]}************{KEY[-n:]}. You can find yours at home.", KEY)
    assert KEY[-n:] not in said and "You can find yours at home" in said


@pytest.mark.parametrize("mask", ["*****", "•••••", "...", "…", "** "])
def test_the_end_of_a_key_is_hidden_however_a_server_shows_it(mask: str) -> None:
    assert without_key(f"key sk{mask}{KEY[-4:]}, sorry", KEY) == "key ***, sorry"


@pytest.mark.parametrize("key", ["not-needed", "no-key-is-needed", KEY])
def test_words_that_are_no_key_stay(key: str) -> None:
    for text in ("an answer is needed", "well... needed", f"{KEY[-3:]} apples", "* * * needed", "x" * 280):
        assert without_key(text, key) == text


def test_a_key_that_is_none_hides_nothing() -> None:
    assert without_key("exceeded the context of x\nand \x1b[2J", "x") == "exceeded the context of *** and \\x1b[2J"
    assert without_key("no models loaded", "none") == "no models loaded"
    assert len(without_key("x" * 10**6, KEY)) == 300


@pytest.mark.parametrize(
    "text",
    [
        "api_key: hunter2",
        "judges: [{kind: openai, api_key: hunter2, model: m}]",
        "judges.0.password=hunter2 and more",
        "'token' : 'hunter2'",
        "base_url: https://user:hunter2@host",
    ],
)
def test_a_users_text_without_its_secrets(text: str) -> None:
    assert "hunter2" not in masked(text) and "***" in masked(text)


def test_a_command_line_without_its_secrets() -> None:
    said = masked_words("unrecognized arguments: --secret hunter2 --token=hunter2 --x sk-abcdef1234 FILE")
    assert said == "unrecognized arguments: --secret *** --token=*** --x *** FILE"
    assert masked_words("argument --api-key-env: expected one argument") == (
        "argument --api-key-env: expected one argument"
    )
