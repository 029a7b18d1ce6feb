"""The text of an API key: `prefix_environment_id_secretchecksum`. Pure functions, no input or output.

    acme_live_4k1z9q0v7m2c8x5b_7Vq…43 characters…Zk0gT2aB
    │    │    │                │                   └ 6 base62 digits: the CRC-32 of everything before them
    │    │    │                └ 43 base62 digits: 256 bits from the system's random source
    │    │    └ id: public, the primary key, safe to log and to show
    │    └ live in production, test elsewhere
    └ the project's prefix

The checksum lets a mistyped key be refused, and a leaked one be recognised, without asking the database.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from functools import cache
from string import ascii_lowercase, ascii_uppercase, digits
from typing import NamedTuple

BASE62 = digits + ascii_uppercase + ascii_lowercase
PAIRS = [first + second for first in BASE62 for second in BASE62]  # the digits of base 3844, each two of base 62
ID_CHARACTERS = digits + ascii_lowercase
ID_LENGTH = 16
SECRET_LENGTH = 43  # 43 × log2(62) = 256.03 bits
CHECKSUM_LENGTH = 6
LONGEST_KEY = 128  # characters; anything longer is refused unread


class NewKey(NamedTuple):
    id: str
    text: str


def generate(prefix: str, environment: str) -> NewKey:
    key_id = "".join(secrets.choice(ID_CHARACTERS) for _ in range(ID_LENGTH))
    secret = "".join(secrets.choice(BASE62) for _ in range(SECRET_LENGTH))
    body = f"{prefix}_{environment}_{key_id}_{secret}"
    return NewKey(key_id, body + checksum(body))


def checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    return PAIRS[number // len(PAIRS) ** 2] + PAIRS[number // len(PAIRS) % len(PAIRS)] + PAIRS[number % len(PAIRS)]


@cache
def _pattern(prefix: str, environment: str) -> re.Pattern[str]:
    tail = SECRET_LENGTH + CHECKSUM_LENGTH
    return re.compile(rf"{prefix}_{environment}_([0-9a-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{tail}}}")


def parse(text: str, prefix: str, environment: str) -> str | None:
    """The id in a well-formed key of this project and environment whose checksum is right, else None."""
    if len(text) > LONGEST_KEY:
        return None
    match = _pattern(prefix, environment).fullmatch(text)
    if match is None or checksum(text[:-CHECKSUM_LENGTH]) != text[-CHECKSUM_LENGTH:]:
        return None
    return match[1]


def digest(pepper: str, text: str) -> bytes:
    """What is stored of a key: 32 bytes that are useless without the pepper.

    A fast MAC is right here: a key is 256 random bits, so there is nothing to guess, and nothing for a slow hash to
    slow down but ourselves (OWASP ASVS 5.0, 6.5.2 and 11.5.1). Passwords need argon2; this is no password.
    """
    mac = _keyed(pepper).copy()  # less than half the time of a new one
    mac.update(text.encode())
    return mac.digest()


@cache
def _keyed(pepper: str) -> hmac.HMAC:
    return hmac.new(pepper.encode(), b"apikey.v1\0", hashlib.sha256)


def fingerprint(text: str) -> bytes:
    """What this process knows a key by while it runs. It is kept in memory only, where the peppers are too."""
    return hashlib.sha256(text.encode()).digest()


def hint(text: str) -> str:
    """What people recognise a key by: all up to its id, and its last four characters."""
    return f"{text.rpartition('_')[0]}…{text[-4:]}"
