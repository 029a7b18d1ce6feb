"""What every endpoint that is measured answers."""

from pydantic import BaseModel


class Item(BaseModel):
    id: int
    name: str
    price: float
    tags: list[str]


ITEM = Item(id=1, name="a teapot", price=12.5, tags=["kitchen", "china"])
