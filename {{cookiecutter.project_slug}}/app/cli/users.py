from typing import Annotated

import typer
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.cli.arguments import AsJson, Email
from app.cli.run import print_query, print_rows, run
from app.cli.service import get_user
from app.users import service
from app.users.models import User
from app.users.schemas import UserCreate, UserRead, UserUpdate

cli = typer.Typer()

COLUMNS = ("id", "email", "is_active", "is_admin")


def print_user(user: User, as_json: bool) -> None:
    print_rows([UserRead.model_validate(user)], COLUMNS, as_json)


@cli.command("create")
def create(
    email: Email,
    admin: Annotated[bool, typer.Option("--admin", help="Make the user an admin.")] = False,
    first_name: str = "",
    last_name: str = "",
    as_json: AsJson = False,
) -> None:
    """Create a user"""

    async def work(session: AsyncSession) -> User:
        new = UserCreate(email=email, first_name=first_name, last_name=last_name, is_admin=admin)
        return await service.create(session, new, None)

    print_user(run(work), as_json)


@cli.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List users"""
    by_email = select(User).order_by(User.email)
    run(
        lambda session: print_query(session, by_email, UserRead, COLUMNS, as_json),
        read_only=True,
    )


@cli.command("disable")
def disable(email: Email, as_json: AsJson = False) -> None:
    """Disable a user, whose keys are then rejected"""
    print_user(run(lambda session: set_active(session, email, is_active=False)), as_json)


@cli.command("enable")
def enable(email: Email, as_json: AsJson = False) -> None:
    """Enable a user"""
    print_user(run(lambda session: set_active(session, email, is_active=True)), as_json)


async def set_active(session: AsyncSession, email: str, *, is_active: bool) -> User:
    user = await get_user(session, email)
    return await service.update(session, user.id, UserUpdate(is_active=is_active), None)
