<%
part = " or the ".join(field.label for field in searched)
if len(part) > 40:
    part = "name"
%>\
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from pydantic import Field, JsonValue, StrictBool

from app.core.pagination import PageQuery
from app.core.types import (
    UNSET, Body, Day, DecimalText, Digits, Email, FromRow, Int32, Integer, JsonObject, Line, Moment, Name, Number,
    Range, Text, Url
)
% if enums:
from app.${names.table}.models import ${", ".join(field.own_type for field in enums)}
% endif
% if any(field.definition for field in fields):

% for field in fields:
% if field.definition:
${field.definition}
% endif
% endfor
% endif


class ${names.class_name}Create(Body):
% for field in fields:
    ${field.in_create()}
% endfor


class ${names.class_name}Update(Body):
% for field in fields:
    ${field.in_update()}
% endfor
% if filters or searched:


class ${names.class_name}Query(PageQuery):
% if searched:
    q: Line | None = Field(
        default=None, description="Part of the ${part}."
    )
% endif
% for field in filters:
    ${field.in_query()}
% endfor
% endif


class ${names.class_name}Read(FromRow):
    id: UUID
% if names.owned:
    user_id: UUID
% endif
% for field in fields:
    ${field.in_read()}
% endfor
    created_at: datetime
    updated_at: datetime
