<%
name, model, table = names.singular, names.class_name, names.table
query_type = f"{model}Query" if filters or searched else "PageQuery"
%>\
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from app.auth.caller import Caller
from app.auth.dependencies import requires
from app.auth.scopes import Scope
from app.core.database import SessionDep
from app.core.pagination import Page, PageQuery, Rows
from app.${table} import service
from app.${table}.models import ${model}
from app.${table}.schemas import ${model}Create, ${model}Query, ${model}Read, ${model}Update

router = APIRouter(prefix="${names.path}", tags=["${names.labels}"])

Reader = Annotated[Caller, requires(Scope.${names.constant}_READ)]
Writer = Annotated[Caller, requires(Scope.${names.constant}_WRITE)]


async def readable_${name}(${name}_id: UUID, ${"caller" if names.owned else "_"}: Reader, session: SessionDep) -> ${model}:
    return await service.get(session, ${name}_id${", caller" if names.owned else ""})


async def writable_${name}(${name}_id: UUID, ${"caller" if names.owned else "_"}: Writer, session: SessionDep) -> ${model}:
    return await service.get(session, ${name}_id${", caller" if names.owned else ""}, lock=True)


Readable${model} = Annotated[${model}, Depends(readable_${name})]
Writable${model} = Annotated[${model}, Depends(writable_${name})]


@router.post("", status_code=201, response_model=${model}Read)
async def create_${name}(
    new: ${model}Create, ${"caller" if names.owned or checks_caller else "_"}: Writer, session: SessionDep, request: Request, response: Response
) -> ${model}:
    """Create ${names.a_label}"""
    ${name} = await service.create(session, new${", caller" if names.owned or checks_caller else ""})
    response.headers["Location"] = request.url_for("read_${name}", ${name}_id=${name}.id).path
    return ${name}


@router.get("", response_model=Page[${model}Read])
async def list_${table}(
    ${"caller" if names.owned else "_"}: Reader, session: SessionDep, query: Annotated[${query_type}, Query()]
) -> Rows[${model}]:
    """List ${names.labels}

    Newest first.${f" Admins see the {names.labels} of all users." if names.owned else ""}
    """
    return await service.list_page(session, query${", caller" if names.owned else ""})


@router.get("/{${name}_id}", response_model=${model}Read)
async def read_${name}(${name}: Readable${model}) -> ${model}:
    """Get ${names.a_label}"""
    return ${name}


@router.patch("/{${name}_id}", response_model=${model}Read)
async def update_${name}(
    changes: ${model}Update, ${name}: Writable${model}, ${"caller: Writer, " if checks_caller else ""}session: SessionDep
) -> ${model}:
    """Update ${names.a_label}

    Omitted fields keep their values.
    """
    return await service.update(session, ${name}, changes${", caller" if checks_caller else ""})


@router.delete("/{${name}_id}", status_code=204)
async def delete_${name}(${name}: Writable${model}, session: SessionDep) -> None:
    """Delete ${names.a_label}"""
    await service.delete(session, ${name})
