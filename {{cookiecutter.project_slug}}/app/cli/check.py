import json
import sys

from app.check import find_problems
from app.cli.run import say


def check(as_json: bool) -> None:
    problems = find_problems()
    if as_json:
        print(json.dumps({"problems": problems}))
    for problem in problems:
        say(problem)
    if problems:
        sys.exit(1)
    say("All is well: the settings are valid, and the database is migrated.")
