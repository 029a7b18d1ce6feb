<%
name, model, table = names.singular, names.class_name, names.table
query_type = f"{model}Query" if filters or searched else "PageQuery"
taken = f"{names.a_label.capitalize()} with this {' or '.join(field.label for field in uniques)} already exists."
if len(taken) > 80:
    taken = f"This {names.label} already exists."
%>\
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.auth.caller import Caller
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.pagination import PageQuery, Rows, paginate
from app.core.search import contains
% for target in {field.target.module: field.target for field in references}.values():
from ${target.module} import ${target.model}
% endfor
from app.${table}.models import ${model}
from app.${table}.schemas import ${model}Create, ${model}Query, ${model}Update
% if names.owned:


def _visible_to(caller: Caller) -> SelectOfScalar[${model}]:
    ${table} = select(${model})
    return ${table} if caller.is_admin else ${table}.where(${model}.user_id == caller.user_id)
% endif


async def create(session: AsyncSession, new: ${model}Create${", caller: Caller" if names.owned or checks_caller else ""}) -> ${model}:
% if references:
    values = new.model_dump()
    await _check_references(session, values${", caller" if checks_caller else ""})
    ${name} = ${model}(**values${", user_id=caller.user_id" if names.owned else ""})
% else:
    ${name} = ${model}(**new.model_dump()${", user_id=caller.user_id" if names.owned else ""})
% endif
    session.add(${name})
% if uniques:
    await _flush(session)
% else:
    await session.flush()
% endif
    return ${name}


async def list_page(session: AsyncSession, query: ${query_type}${", caller: Caller" if names.owned else ""}) -> Rows[${model}]:
% if filters or searched:
    statement = ${"_visible_to(caller)" if names.owned else f"select({model})"}
% if len(searched) == 1:
    if query.q:
        statement = statement.where(contains(col(${model}.${searched[0].name}), query.q))
% elif searched:
    if query.q:
        columns = (${", ".join(f"col({model}.{field.name})" for field in searched)})
        statement = statement.where(or_(*(contains(column, query.q) for column in columns)))
% endif
% for field in filters:
    if query.${field.name} is not None:
        statement = statement.where(${model}.${field.name} == query.${field.name})
% endfor
    return await paginate(session, statement, ${model}, query)
% else:
    return await paginate(session, ${"_visible_to(caller)" if names.owned else f"select({model})"}, ${model}, query)
% endif


async def get(session: AsyncSession, ${name}_id: UUID, ${"caller: Caller, " if names.owned else ""}*, lock: bool = False) -> ${model}:
    statement = ${"_visible_to(caller)" if names.owned else f"select({model})"}.where(${model}.id == ${name}_id)
    ${name} = (await session.exec(statement.with_for_update() if lock else statement)).first()
    if ${name} is None:
        raise NotFound
    return ${name}


async def update(session: AsyncSession, ${name}: ${model}, changes: ${model}Update${", caller: Caller" if checks_caller else ""}) -> ${model}:
% if references:
    values = changes.model_dump(exclude_unset=True)
    new = {field: values[field] for field in values if values[field] != getattr(${name}, field)}
    await _check_references(session, new${", caller" if checks_caller else ""})
    ${name}.sqlmodel_update(new)
% else:
    ${name}.sqlmodel_update(changes.model_dump(exclude_unset=True))
% endif
% if uniques:
    await _flush(session)
% else:
    await session.flush()
% endif
    return ${name}


async def delete(session: AsyncSession, ${name}: ${model}) -> None:
    await session.delete(${name})
    await session.flush()
% if references:


async def _check_references(session: AsyncSession, values: dict[str, Any]${", caller: Caller" if checks_caller else ""}) -> None:
% if checks_caller:
    """Callers can only refer to what they can access. Others cannot delete it until the commit."""
% else:
    """What is referred to exists, and cannot be deleted until the commit."""
% endif
% for field in references:
<% target = field.target %>\
    if (${field.name} := values.get("${field.name}")) is not None:
        ${target.names.table} = select(${target.model}.id).where(${target.model}.id == ${field.name})
% if target.owner:
        if not caller.is_admin:
            ${target.names.table} = ${target.names.table}.where(${target.model}.${target.owner} == caller.user_id)
% endif
        ${target.names.table} = ${target.names.table}.with_for_update(read=True, key_share=True)
        if (await session.exec(${target.names.table})).first() is None:
            raise InvalidInput(("/body/${field.name}", "This ${field.label} does not exist."))
% endfor
% endif
% if uniques:


async def _flush(session: AsyncSession) -> None:
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict("${taken}") from None
% endif
