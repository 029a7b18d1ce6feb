<%
name, model, table, ALL = names.singular, names.class_name, names.table, names.constant
known = {field.target.names.table: field.target.names for field in references if field.target.names.table != "users"}
others = [field for field in fields if not field.target]
optional = [field for field in fields if field.default_code is not None]
required = [field for field in fields if field.default_code is None]
needs_me = bool(references)
valid = f"await valid_{name}(me)" if needs_me else f"valid_{name}()"
%>\
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient

from app.auth.scopes import Scope
from tests.conftest import AsUser, KeyClient
% for target in known.values():
from tests.${target.table}.test_router import ${target.constant}, create_${target.singular}
% endfor

Json = dict[str, Any]  # Any: a JSON document

${ALL} = "${names.path}"
% if uniques:
NUMBERS = count(100)  # above the numbers in CHANGES
% endif
% if optional:
DEFAULTS: Json = {
% for field in optional:
    "${field.name}": ${repr(field.default_json)},
% endfor
}
% endif
CHANGES: Json = {
% for field in others:
    "${field.name}": ${repr(field.values[1])},
% endfor
}
INVALID: list[tuple[str, object]] = [
% for field in fields:
% for code in field.invalid:
    ("${field.name}", ${code}),
% endfor
% endfor
    ("unknown", 1),
]


% if needs_me:
async def valid_${name}(me: KeyClient) -> Json:
% else:
def valid_${name}() -> Json:
% endif
    return {
% for field in fields:
        "${field.name}": ${field.new_code},
% endfor
    }


async def create_${name}(me: KeyClient, **changes: object) -> Json:
    created = await me.post(${ALL}, json=${valid} | changes)
    assert created.status_code == 201
    ${name}: Json = created.json()
    assert created.headers["location"] == path_of(${name})
    return ${name}


def path_of(${name}: Json) -> str:
    return f"{${ALL}}/{${name}['id']}"


async def test_${names.a_label.replace(" ", "_")}_is_created_read_updated_and_deleted(as_user: AsUser) -> None:
    me = await as_user()
    body = ${valid}
    created = await create_${name}(me, **body)
    assert created == created | body${' | {"user_id": str(me.user.id)}' if names.owned else ""}
    path = path_of(created)
    assert (await me.get(path)).json() == created
% if known:
    changes = CHANGES | {${", ".join(f'"{field.name}": {field.new_code}' for field in references if field.target.names.table != "users")}}
% endif
    updated = (await me.patch(path, json=${"changes" if known else "CHANGES"})).json()
    assert updated == created | ${"changes" if known else "CHANGES"} | {"updated_at": updated["updated_at"]}
% if others or known:
    assert updated["updated_at"] > created["updated_at"]
% endif
    assert (await me.patch(path, json={})).json() == updated
    assert (await me.get(path)).json() == updated
    assert (await me.delete(path)).status_code == 204
    assert (await me.get(path)).json()["code"] == "not_found"


async def test_${table}_are_listed_newest_first_page_by_page(as_user: AsUser) -> None:
    me = await as_user()
    one, two, three = [await create_${name}(me) for _ in range(3)]
    first = (await me.get(${ALL}, params={"limit": 2})).json()
    assert first["items"] == [three, two]
    second = (await me.get(${ALL}, params={"cursor": first["next_cursor"]})).json()
    assert second == {"items": [one], "next_cursor": None}


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
% if names.owned:
async def test_only_the_owner_and_admins_can_access_${names.a_label.replace(" ", "_")}(as_user: AsUser, method: str) -> None:
    me, other, admin = await as_user(), await as_user(), await as_user(admin=True)
    path = path_of(await create_${name}(me))
    body: Json | None = {} if method == "PATCH" else None
    assert (await other.request(method, path, json=body)).json()["code"] == "not_found"
    assert (await other.get(${ALL})).json()["items"] == []
    assert len((await admin.get(${ALL})).json()["items"]) == 1
    assert (await admin.request(method, path, json=body)).is_success
% else:
async def test_${table}_are_shared_by_all_users(as_user: AsUser, method: str) -> None:
    me, other = await as_user(), await as_user()
    ${name} = await create_${name}(me)
    assert (await other.get(${ALL})).json()["items"] == [${name}]
    body: Json | None = {} if method == "PATCH" else None
    assert (await other.request(method, path_of(${name}), json=body)).is_success
% endif


async def test_reading_and_writing_${table}_require_separate_scopes(as_user: AsUser) -> None:
    me = await as_user()
    path = path_of(await create_${name}(me))
    reader = await as_user(user=me.user, scopes=[Scope.${ALL}_READ])
    writer = await as_user(user=me.user, scopes=[Scope.${ALL}_WRITE])
    assert (await reader.get(path)).status_code == 200
    for response in (
        await writer.get(path),
        await writer.get(${ALL}),
        await reader.post(${ALL}, json={}),
        await reader.patch(path, json={}),
        await reader.delete(path),
    ):
        assert response.json()["code"] == "insufficient_scope"
    assert (await writer.delete(path)).status_code == 204


async def test_an_invalid_value_is_rejected(as_user: AsUser) -> None:
    me = await as_user()
    body = ${valid}
    path = path_of(await create_${name}(me))
    for field, value in INVALID:
        for response in (
            await me.post(${ALL}, json=body | {field: value}),
            await me.patch(path, json={field: value}),
        ):
            assert response.status_code == 422, (field, value)
            assert response.json()["errors"][0]["pointer"] == f"/body/{field}"
% if required:


async def test_a_required_field_cannot_be_omitted(as_user: AsUser) -> None:
    me = await as_user()
    errors = (await me.post(${ALL}, json={})).json()["errors"]
    required = [${", ".join(f'"{field.name}"' for field in required)}]
    assert [error["pointer"] for error in errors] == [f"/body/{field}" for field in required]
% endif
% if optional:


async def test_omitted_fields_get_their_defaults(as_user: AsUser) -> None:
    me = await as_user()
    body = {field: value for field, value in ${f"({valid})" if needs_me else valid}.items() if field not in DEFAULTS}
    created = (await me.post(${ALL}, json=body)).json()
    assert created == created | DEFAULTS
% endif
% for field in uniques:


async def test_the_${field.name}_of_${names.a_label.replace(" ", "_")}_is_unique${"_per_owner" if names.owned else ""}(as_user: AsUser) -> None:
    me, other = await as_user(), await as_user()
    one, two = await create_${name}(me), await create_${name}(me)
    same = {"${field.name}": one["${field.name}"]}
    for response in (
        await me.post(${ALL}, json=${valid} | same),
        await me.patch(path_of(two), json=same),
    ):
        assert response.json()["code"] == "conflict"
% if names.owned:
    assert (await create_${name}(other, **same))["user_id"] == str(other.user.id)
% else:
    assert (await other.post(${ALL}, json=${valid.replace("(me)", "(other)")} | same)).status_code == 409
% endif
% endfor
% if searched:


% for field in searched:
async def test_${table}_are_found_by_part_of_their_${field.name}(as_user: AsUser) -> None:
    me = await as_user()
    found = await create_${name}(me)
    await create_${name}(me, ${", ".join(f"{one.name}={one.unlike!r}" for one in searched)})
    part = found["${field.name}"][-3:].upper()
    assert (await me.get(${ALL}, params={"q": part})).json()["items"] == [found]
% if not loop.last:


% endif
% endfor
% endif
% for field in filters:


async def test_${table}_are_filtered_by_${field.name}(as_user: AsUser) -> None:
% if field.target and field.target.names.table == "users":
    admin, other = await as_user(admin=True), await as_user()
    await create_${name}(admin)
    theirs = await create_${name}(admin, ${field.name}=str(other.user.id))
    found = (await admin.get(${ALL}, params={"${field.name}": str(other.user.id)})).json()["items"]
    assert found == [theirs]
% elif field.target:
    me = await as_user()
    ${name}, _ = await create_${name}(me), await create_${name}(me)
    params = {"${field.name}": ${name}["${field.name}"]}
    assert (await me.get(${ALL}, params=params)).json()["items"] == [${name}]
% else:
    me = await as_user()
    one = await create_${name}(me, ${field.name}=${repr(field.values[0])})
    other = await create_${name}(me, ${field.name}=${repr(field.values[1])})
% if field.kind == "bool":
    for value, found in (("true", one), ("false", other)):
% else:
    for value, found in (("${field.values[0]}", one), ("${field.values[1]}", other)):
% endif
        listed = (await me.get(${ALL}, params={"${field.name}": value})).json()["items"]
        assert listed == [found]
% endif
% endfor
% for field in references:
<% is_user = field.target.names.table == "users"; label = field.label.replace(" ", "_") %>

async def test_the_${label}_must_${"be_accessible_to_the_caller" if field.target.owner else "exist"}(as_user: AsUser) -> None:
% if field.target.owner:
    me, other, admin = await as_user(), await as_user(), await as_user(admin=True)
% else:
    me = await as_user()
% endif
    body = ${valid}
    path = path_of(await create_${name}(me))
% if field.target.owner:
    theirs = ${"str(other.user.id)" if is_user else f'(await create_{field.target.names.singular}(other))["id"]'}
    for ${field.name} in (theirs, str(uuid4())):
        change = {"${field.name}": ${field.name}}
        for response in (await me.post(${ALL}, json=body | change), await me.patch(path, json=change)):
            assert response.json()["errors"][0]["pointer"] == "/body/${field.name}"
    updated = (await admin.patch(path, json={"${field.name}": theirs})).json()
    assert updated["${field.name}"] == theirs
    assert (await me.patch(path, json={"${field.name}": theirs})).json() == updated
% else:
    change = {"${field.name}": str(uuid4())}
    for response in (await me.post(${ALL}, json=body | change), await me.patch(path, json=change)):
        assert response.json()["errors"][0]["pointer"] == "/body/${field.name}"
% endif


% if field.optional:
async def test_deleting_the_${label}_keeps_the_${name}(as_user: AsUser) -> None:
% else:
async def test_deleting_the_${label}_deletes_the_${name}(as_user: AsUser) -> None:
% endif
% if is_user:
    admin, other = await as_user(admin=True), await as_user()
    ${name} = await create_${name}(admin, ${field.name}=str(other.user.id))
    assert (await admin.delete(f"/v1/users/{other.user.id}")).status_code == 204
    response = await admin.get(path_of(${name}))
% else:
    me = await as_user()
    ${name} = await create_${name}(me)
    path = f"{${field.target.names.constant}}/{${name}['${field.name}']}"
    assert (await me.delete(path)).status_code == 204
    response = await me.get(path_of(${name}))
% endif
% if field.optional:
    assert response.json()["${field.name}"] is None
% else:
    assert response.json()["code"] == "not_found"
% endif
% endfor
% if names.owned:


async def test_deleting_a_user_deletes_their_${table}(as_user: AsUser) -> None:
    me, admin = await as_user(), await as_user(admin=True)
    path = path_of(await create_${name}(me))
    await admin.delete(f"/v1/users/{me.user.id}")
    assert (await admin.get(path)).json()["code"] == "not_found"
% endif
