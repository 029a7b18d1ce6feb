import pytest
from pydantic import TypeAdapter, ValidationError

from app.api_keys.schemas import Network
from app.schemas import Email, Integer, Moment, Name

EMAIL = TypeAdapter(Email)
INTEGER = TypeAdapter(Integer)
MOMENT = TypeAdapter(Moment)
NAME = TypeAdapter(Name)
NETWORK = TypeAdapter(Network)


def test_an_email_is_kept_in_lower_case() -> None:
    assert EMAIL.validate_python("Ada.Lovelace+keys@Example.COM") == "ada.lovelace+keys@example.com"


@pytest.mark.parametrize(
    "email",
    ["", "ada", "ada@", "@example.com", "ada@example", "ada@-example.com", "a b@example.com", "a@example.com\n"],
)
def test_what_is_no_email_is_refused(email: str) -> None:
    with pytest.raises(ValidationError):
        EMAIL.validate_python(email)


@pytest.mark.parametrize("moment", ["2030-01-31T12:00:00Z", "2030-01-31t13:00:00.0+01:00"])
def test_a_moment_is_kept_in_utc(moment: str) -> None:
    assert MOMENT.validate_python(moment).isoformat() == "2030-01-31T12:00:00+00:00"


@pytest.mark.parametrize(
    "moment",
    [
        1_900_000_000,
        "1900000000",
        "2030-01-31",
        "2030-01-31T12:00:00",
        "2030-01-31T12:00Z",
        "2030-01-31 12:00:00Z",
        "2030-02-30T12:00:00Z",
        "9999-12-31T23:59:59-01:00",
    ],
)
def test_what_is_no_time_of_rfc_3339_is_refused(moment: object) -> None:
    with pytest.raises(ValidationError):
        MOMENT.validate_python(moment)


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert INTEGER.validate_python(60.0) == 60
    for number in (60.5, "60", True, float("inf"), float("nan")):
        with pytest.raises(ValidationError):
            INTEGER.validate_python(number)


@pytest.mark.parametrize("name", ["", " ", " ci", "a\nb", "a" * 101])
def test_what_is_no_name_is_refused(name: str) -> None:
    assert NAME.validate_python("my laptop") == "my laptop"
    with pytest.raises(ValidationError):
        NAME.validate_python(name)


@pytest.mark.parametrize("network", ["", "secret", "10.0.0.1/8", "300.0.0.0/8", "fe80::1%eth0", "::/129"])
def test_what_is_no_network_is_refused_and_not_repeated(network: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        NETWORK.validate_python(network)
    assert refusal.value.errors()[0]["msg"].endswith("as in 203.0.113.0/24 or 2001:db8::/32")
