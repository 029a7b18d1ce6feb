import re

import pytest

from app.auth import key_format

BODY = "acme_live_4k1z9q0v7m2c8x5b_7VqJw3nB9sK2mX8cR5tY1uP6oL4aZ0hG7dF3eQiWkT2"


def with_checksum(body: str) -> str:
    return body + key_format.checksum(body)


KEY = with_checksum(BODY)


def parse(text: str) -> str | None:
    return key_format.parse(text, "acme", "live")


def test_a_new_key_has_the_documented_format() -> None:
    key = key_format.generate("acme", "live")
    assert re.fullmatch(r"acme_live_[0-9a-z]{16}_[0-9A-Za-z]{49}", key.text)
    assert parse(key.text) == key.id


def test_new_keys_differ_in_id_and_secret() -> None:
    keys = [key_format.generate("acme", "live") for _ in range(1000)]
    secrets = {key.text.split("_")[3][: key_format.SECRET_LENGTH] for key in keys}
    assert len({key.id for key in keys}) == len(secrets) == 1000


def test_the_checksum_never_changes() -> None:
    """Old keys must stay valid, and secret scanners compute the checksum too."""
    assert key_format.checksum("acme_live_4k1z9q0v7m2c8x5b_7Vq") == "0FBFz9"


def test_the_digest_never_changes() -> None:
    """A different digest would invalidate every key in every database."""
    digest = key_format.digest("a pepper", "a key")
    assert digest.hex() == "8d4315228fdb7116319cef4f93aadc9f3abb3ab19f8f845d91659c42e31533c0"


def test_a_key_with_one_wrong_character_is_malformed() -> None:
    for position in range(len(KEY)):
        for character in key_format.BASE62 + "_ \n\0é٤😀\udc80":
            changed = KEY[:position] + character + KEY[position + 1 :]
            assert changed == KEY or parse(changed) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        KEY[:-1],
        KEY + "a",
        KEY + "\n",
        KEY + key_format.checksum(KEY),
        " " + KEY,
        KEY.upper(),
        with_checksum(BODY.replace("acme", "acmf")),
        with_checksum(BODY.replace("live", "test")),
        "acme_live_" + "4" * 200,
        KEY.replace("4k1z", "\N{FULLWIDTH DIGIT FOUR}k1z"),
    ],
)
def test_any_other_text_is_malformed(text: str) -> None:
    assert parse(text) is None


def test_the_hint_shows_only_the_last_four_characters_of_the_secret() -> None:
    assert key_format.hint(KEY) == f"acme_live_4k1z9q0v7m2c8x5b…{KEY[-4:]}"


@pytest.mark.parametrize("underscore", ["_", "%5F", "%5f", "%255F", "%25255f"])
def test_the_secret_is_redacted_however_its_key_is_encoded(underscore: str) -> None:
    text = key_format.generate("acme", "live").text
    start, secret = text[:-49], text[-49:]
    start, encoded = (one.replace("_", underscore) for one in (start, text))
    assert key_format.redact(f"?{encoded}=1 {encoded}") == f"?{start}***=1 {start}***"
    assert key_format.redact_bytes(encoded.encode()) == f"{start}***".encode()
    assert secret not in key_format.redact(encoded)
