"""Whether a change widens a key: it could then do more, or do it from more places or for longer."""

from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_network

from limits import parse


def is_higher(limit: str | None, than: str | None) -> bool:
    """Whether a rate limit allows more requests in any window. None means no limit."""
    if limit is None or than is None:
        return than is not None
    new, old = parse(limit), parse(than)
    windows = max(1, old.get_expiry() / new.get_expiry())
    return new.amount * windows > old.amount


def is_wider(networks: Sequence[str] | None, than: Sequence[str] | None) -> bool:
    """Whether the networks contain other addresses. None means all addresses."""
    if networks is None or than is None:
        return than is not None
    old = [ip_network(one) for one in than]
    new = [ip_network(one) for one in networks]
    return any(not any(one[0] in parent and one[-1] in parent for parent in old) for one in new)


def is_later(expires_at: datetime | None, than: datetime | None) -> bool:
    """None means never."""
    if expires_at is None or than is None:
        return than is not None
    return expires_at > than
