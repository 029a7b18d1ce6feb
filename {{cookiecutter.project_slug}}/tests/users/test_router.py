from tests.conftest import AsUser


async def test_me_is_the_owner_of_the_key_and_needs_no_scope(as_user: AsUser) -> None:
    me = await as_user(scopes=[], admin=True)
    assert (await me.get("/v1/users/me")).json() == {
        "id": str(me.user.id),
        "email": me.user.email,
        "first_name": "",
        "last_name": "",
        "is_active": True,
        "is_admin": True,
        "created_at": me.user.created_at.isoformat().replace("+00:00", "Z"),
        "updated_at": me.user.updated_at.isoformat().replace("+00:00", "Z"),
    }
