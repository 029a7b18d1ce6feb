import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api_keys import format as key_format

KEY = "acme_live_4k1z9q0v7m2c8x5b_7VqJw3nB9sK2mX8cR5tY1uP6oL4aZ0hG7dF3eQiWkT2"


secrets = st.text(key_format.BASE62, min_size=43, max_size=43)


def good_key() -> str:
    return KEY + key_format.checksum(KEY)


def parse(text: str) -> str | None:
    return key_format.parse(text, "acme", "live")


def test_a_new_key_has_the_documented_format() -> None:
    key = key_format.generate("acme", "live")
    assert re.fullmatch(r"acme_live_[0-9a-z]{16}_[0-9A-Za-z]{49}", key.text)
    assert parse(key.text) == key.id


def test_no_two_keys_are_alike() -> None:
    keys = [key_format.generate("acme", "live") for _ in range(1000)]
    secrets = [key.text.split("_")[3][: key_format.SECRET_LENGTH] for key in keys]  # without the checksum of the id
    assert len({key.id for key in keys}) == len(set(secrets)) == 1000


def test_the_checksum_never_changes() -> None:
    """Keys that were issued years ago must still be recognised, and scanners elsewhere compute it too."""
    assert key_format.checksum("acme_live_4k1z9q0v7m2c8x5b_7Vq") == "0FBFz9"


def test_the_digest_never_changes() -> None:
    """If it did, every key in every database would stop working."""
    digest = key_format.digest("a pepper", "a key")
    assert digest.hex() == "8d4315228fdb7116319cef4f93aadc9f3abb3ab19f8f845d91659c42e31533c0"


def test_a_good_key_parses_to_its_id() -> None:
    assert parse(good_key()) == "4k1z9q0v7m2c8x5b"


@given(secret=secrets, position=st.integers(0, 75), character=st.characters())
def test_no_change_of_one_character_is_accepted(secret: str, position: int, character: str) -> None:
    body = f"acme_live_4k1z9q0v7m2c8x5b_{secret}"
    good = body + key_format.checksum(body)
    changed = good[:position] + character + good[position + 1 :]
    assert parse(good) == "4k1z9q0v7m2c8x5b"
    assert changed == good or parse(changed) is None


def test_no_change_of_one_character_of_this_key_is_accepted() -> None:
    good = good_key()
    for position in range(len(good)):
        for character in key_format.BASE62 + "_":
            changed = good[:position] + character + good[position + 1 :]
            assert changed == good or parse(changed) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        good_key()[:-1],
        good_key() + "a",
        good_key() + "\n",
        good_key() + key_format.checksum(good_key()),
        " " + good_key(),
        good_key().upper(),
        good_key().replace("acme", "acmf"),
        "acme_live_" + "4" * 200,
        good_key().replace("4k1z", "\N{FULLWIDTH DIGIT FOUR}k1z"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    assert parse(text) is None


def test_a_key_of_another_environment_is_refused() -> None:
    test_key = key_format.generate("acme", "test")
    assert parse(test_key.text) is None


def test_a_key_of_another_project_is_refused() -> None:
    assert parse(key_format.generate("acmf", "live").text) is None


def test_the_digest_depends_on_pepper_and_key() -> None:
    digests = {key_format.digest(pepper, key) for pepper in ("a", "b") for key in ("x", "y")}
    assert len(digests) == 4


def test_the_hint_holds_nothing_of_the_secret_but_its_last_four_characters() -> None:
    assert key_format.hint(good_key()) == f"acme_live_4k1z9q0v7m2c8x5b…{good_key()[-4:]}"
