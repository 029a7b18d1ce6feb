

async def test_the_default_of_${field.name}(as_user: AsUser) -> None:
    me = await as_user()
    body = ${valid}
    del body["${field.name}"]
    created = await me.post(${names.constant}, json=body)
    assert created.json()["${field.name}"] ${"is" if field.default_json is None or isinstance(field.default_json, bool) else "=="} ${repr(field.default_json)}
