from starlette.convertors import StringConvertor, register_url_convertor


class UserIdConvertor(StringConvertor):
    """Any text but `me`, which is no id. So the methods of /v1/users/me are those of its routes."""

    regex = "(?!me(?:/|$))[^/]+"


register_url_convertor("user_id", UserIdConvertor())

USER_PATH = "/users/{user_id:user_id}"
