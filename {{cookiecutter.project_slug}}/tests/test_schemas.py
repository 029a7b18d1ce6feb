import pytest
from pydantic import TypeAdapter, ValidationError

from app.schemas import Email

EMAIL = TypeAdapter(Email)


def test_an_email_is_kept_in_lower_case() -> None:
    assert EMAIL.validate_python("Ada.Lovelace+keys@Example.COM") == "ada.lovelace+keys@example.com"


@pytest.mark.parametrize(
    "email",
    ["", "ada", "ada@", "@example.com", "ada@example", "ada@-example.com", "a b@example.com", "a@example.com\n"],
)
def test_what_is_no_email_is_refused(email: str) -> None:
    with pytest.raises(ValidationError):
        EMAIL.validate_python(email)
