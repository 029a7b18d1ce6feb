"""What `make migration` writes, and what `make check` compares."""

import enum
import logging
import re
from contextlib import suppress
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, Literal, get_args

from alembic import context
from alembic.autogenerate import comparators
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import (
    AddColumnOp,
    AddConstraintOp,
    DropConstraintOp,
    MigrationScript,
    ModifyTableOps,
)
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import (
    DATETIME,
    CheckConstraint,
    Column,
    ColumnDefault,
    Connection,
    DateTime,
    DefaultClause,
    Enum,
    MetaData,
    String,
    Table,
    inspect,
)
from sqlalchemy.orm import Mapper
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import AutoString
from sqlmodel.main import default_registry

logger = logging.getLogger("alembic.runtime.migration")

# The second one finds check constraints that were added or removed.
PLUGINS = ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"]

# SQLModel declares these as text columns, but the drivers reject the values.
NOT_STORABLE = {Path, IPv4Address, IPv4Network, IPv6Address, IPv6Network}

AnyColumn = Column[Any]  # Any: of any type
AnyType = TypeEngine[Any]


def render_item(kind: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """Write types as those of SQLAlchemy: migrations outlive the code, and suit both databases."""
    if not isinstance(item, TypeEngine):
        return False
    generic = as_generic(item)
    if generic and generic.compile(context.dialect) == item.compile(context.dialect):
        return f"sa.{generic!r}"
    module = type(item).__module__
    if not module.startswith("sqlalchemy."):
        context.imports.add(f"import {module}")
    return False


def as_generic(type_: AnyType) -> AnyType | None:
    if isinstance(type_, DATETIME):  # of SQLite, which stores no time zone
        return DateTime(timezone=True)
    if isinstance(type_, Enum) and not type_.native_enum:
        return String(type_.length)
    if isinstance(type_, TypeDecorator) and not type(type_).__module__.startswith("sqlalchemy."):
        return type_.impl_instance
    if type(type_).__name__.isupper() and not isinstance(type_, Enum):  # of the database
        with suppress(NotImplementedError):
            return type_.as_generic()
    return None


def compare_server_default(
    context: MigrationContext, stored: AnyColumn, column: AnyColumn, *_: object
) -> bool | None:
    """Compare what the database makes of both defaults, because it changes their spelling."""
    if column.server_default is None and column.default is not None:
        return False  # a migration may have added it for existing rows
    if not isinstance(column.server_default, DefaultClause) or context.connection is None:
        return None
    probe = Table(
        "probe",
        MetaData(),
        Column(stored.name, stored.type, server_default=DefaultClause(column.server_default.arg)),
        prefixes=["TEMPORARY"],
    )
    with context.connection.begin_nested() as savepoint:
        probe.create(context.connection)
        default = default_of(context.connection, probe, stored.name)
        savepoint.rollback()
    return default != default_of(context.connection, stored.table, stored.name)


def default_of(connection: Connection, table: Table, column: str) -> str | None:
    columns = inspect(connection).get_columns(table.name, schema=table.schema)
    return next(one["default"] for one in columns if one["name"] == column)


@comparators.dispatch_for("table")
def compare_members(
    _: AutogenContext,
    operations: ModifyTableOps,
    __: str | None,
    ___: str,
    stored: Table | None,
    table: Table | None,
) -> None:
    """Replace the check constraint of an enum whose members have changed."""
    if stored is None or table is None:
        return
    old_checks, new_checks = checks_of(stored), checks_of(table)
    for column in table.columns:
        name = f"ck_{table.name}_{column.name}"
        if isinstance(column.type, Enum) and name in old_checks:
            old = old_checks[name]
            if {*re.findall("'(.*?)'", str(old.sqltext))} != {*column.type.enums}:
                operations.ops.append(DropConstraintOp.from_constraint(old))
                operations.ops.append(AddConstraintOp.from_constraint(new_checks[name]))


def checks_of(table: Table) -> dict[str, CheckConstraint]:
    checks = (one for one in table.constraints if isinstance(one, CheckConstraint))
    return {str(one.name): one for one in checks}


def finish(_: MigrationContext, __: object, scripts: list[MigrationScript]) -> None:
    """Reject or complete what was generated, before it is written."""
    for mapper in default_registry.mappers:
        reject_what_drivers_reject(mapper)
    if not getattr(context.config.cmd_opts, "autogenerate", False):
        return
    [operations] = scripts[0].upgrade_ops_list
    if operations.is_empty():
        scripts.clear()
        logger.warning("The models have not changed: there is nothing to migrate.")
    for table in operations.ops:
        for operation in table.ops if isinstance(table, ModifyTableOps) else []:
            if isinstance(operation, AddColumnOp):
                add_server_default(operation.table_name, operation.column)


def reject_what_drivers_reject(mapper: Mapper[Any]) -> None:
    for name, field in mapper.class_.model_fields.items():
        types = {field.annotation, *get_args(field.annotation)} & NOT_STORABLE
        if types and isinstance(mapper.columns[name].type, AutoString):
            raise CommandError(
                f"{mapper.class_.__name__}.{name}: databases do not accept {types.pop().__name__}, "
                "so declare the column as str and convert it in the schema."
            )


def add_server_default(table: str, column: AnyColumn) -> None:
    """Give existing rows the default of the model."""
    if column.nullable or column.server_default is not None:
        return
    default = column.default.arg if isinstance(column.default, ColumnDefault) else None
    if not isinstance(default, str | bool | int | float | Decimal | enum.Enum):
        raise CommandError(
            f"{table}.{column.name}: existing rows need a value, so give the field a constant "
            'default, allow None, or set sa_column_kwargs={"server_default": …}.'
        )
    if isinstance(default, enum.Enum) and isinstance(column.type, Enum):
        default = default.name
    elif isinstance(default, bool):
        default = int(default)
    column.server_default = DefaultClause(str(default))
