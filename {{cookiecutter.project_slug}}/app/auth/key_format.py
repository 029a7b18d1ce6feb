"""The text of an API key: `prefix_environment_id_secretchecksum`. Pure functions.

    acme_live_4k1z9q0v7m2c8x5b_7Vq…43 characters…Zk0gT2aB
    │    │    │                │                   └ 6 base62: CRC-32 of everything before it
    │    │    │                └ 43 base62: 256 bits from the system's random source
    │    │    └ id: public, the primary key, safe to log and to show
    │    └ live in production, test elsewhere
    └ the project's prefix

The checksum lets a mistyped key be rejected, and a leaked one be recognised, without the database.
"""

import hmac
import re
import secrets
import zlib
from collections.abc import Callable
from functools import cache, partial
from string import ascii_lowercase, ascii_uppercase, digits
from typing import NamedTuple

BASE62 = digits + ascii_uppercase + ascii_lowercase
PAIRS = [first + second for first in BASE62 for second in BASE62]  # the digits of base 62²
ID_CHARACTERS = digits + ascii_lowercase
ID_LENGTH = 16
SECRET_LENGTH = 43  # 43 × log2(62) = 256.03 bits
CHECKSUM_LENGTH = 6


class NewKey(NamedTuple):
    id: str
    text: str


def generate(prefix: str, environment: str) -> NewKey:
    key_id = "".join(map(secrets.choice, [ID_CHARACTERS] * ID_LENGTH))
    secret = "".join(map(secrets.choice, [BASE62] * SECRET_LENGTH))
    body = f"{prefix}_{environment}_{key_id}_{secret}"
    return NewKey(key_id, body + checksum(body))


def checksum(body: str) -> str:
    rest, last = divmod(zlib.crc32(body.encode()), len(PAIRS))
    first, second = divmod(rest, len(PAIRS))
    return PAIRS[first] + PAIRS[second] + PAIRS[last]


@cache
def _pattern(prefix: str, environment: str) -> re.Pattern[str]:
    tail = SECRET_LENGTH + CHECKSUM_LENGTH
    return re.compile(rf"{prefix}_{environment}_([0-9a-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{tail}}}")


def parse(text: str, prefix: str, environment: str) -> str | None:
    """The id in a key of this project and environment, or None if the key is malformed."""
    match = _pattern(prefix, environment).fullmatch(text)
    if match is None or checksum(text[:-CHECKSUM_LENGTH]) != text[-CHECKSUM_LENGTH:]:
        return None
    return match[1]


def digest(pepper: str, text: str) -> bytes:
    """What the database stores of a key: 32 bytes, useless without the pepper.

    A fast MAC is right for 256 random bits: there is nothing to guess, so a slow hash would only
    slow this API down (OWASP ASVS 5.0, 6.5.2 and 11.5.1). Passwords need argon2 instead.
    """
    return hmac.digest(pepper.encode(), b"apikey.v1\0" + text.encode(), "sha256")


def hint(text: str) -> str:
    """The start of a key up to and including its id, and its last 4 characters."""
    return f"{text.rpartition('_')[0]}…{text[-4:]}"


# Of the keys of any project and environment, also if their end is mistyped or missing, and if their
# underscores are percent-encoded, even several times.
UNDERSCORE = "(?:_|%(?:25)*5[Ff])"
ID = f"[0-9a-z]{{{ID_LENGTH}}}"
SECRET = f"({UNDERSCORE}(?:live|test){UNDERSCORE}{ID}{UNDERSCORE})[0-9A-Za-z]{{20,}}"

# They return the text with `_***` instead of the secret of each key in it.
redact: Callable[[str], str] = partial(re.compile(SECRET).sub, r"\1***")
redact_bytes: Callable[[bytes], bytes] = partial(re.compile(SECRET.encode()).sub, rb"\1***")
