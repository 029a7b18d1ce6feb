from typing import Annotated

import typer

Email = Annotated[str, typer.Argument(help="The user's email address.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
