"""Adds resources to new projects with `make resource` and `make field`, and checks the result."""

import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import bakery
from tests.bakery import ADDED_TESTS, FRUGAL, PYTHONS, REPORTERS, lend_environment, run, user_environ
from tests.conftest import Bake
from tests.test_project import FUZZERS, PYTEST

PROJECT = "name:name description:text? status:enum(draft,active)=draft due:date? budget:decimal(12,2)?"
TASK = "title:name[2..50]! project:ref(project) lead:ref(user)? done:bool=false minutes:int[0..999]=5"
EVERYTHING = (
    "name:name note:line? body:text[3..] mail:email! site:url count_of:int! ratio:float[..9.5] "
    "price:decimal(6,3)[0.5..]=1.5 is_open:bool day:date at:moment token:uuid! settings:json "
    "level:enum(a-b,c_d) project:ref(project) task:ref(task)? nick:name? homepage:url? extra:json? until:moment? "
    "is_new:bool? kind:enum(x,y)? size:int[5..]? weight:float?"
)
# The constraint of this enum is a line with more than 100 characters.
STATUSES = "draft,submitted,approved,rejected,archived,cancelled,completed,in_progress,on_hold,refunded"
# The tests that read all routes, tables and imports.
GENERAL = ("test_layers.py", "test_main.py", "test_migrations.py", "test_secrets.py", "core/test_openapi.py")
SEED = 20261126
NUMBER = 30


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> dict[str, str]:
    """What selects the database of the project's tests."""
    is_sqlite = request.param == "sqlite"
    return FRUGAL if is_sqlite else FRUGAL | {"TEST_DATABASE_URL": request.getfixturevalue("postgresql")}


@pytest.fixture
def project(bake: Bake) -> Path:
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())))
    return project


def add(project: Path, **options: str) -> str:
    target = "field" if "add" in options else "resource"
    return run(["make", target, *(f"{name}={value}" for name, value in options.items())], project)


def check(project: Path, *folders: str, **variables: str) -> None:
    """The checks of the project, and the tests that a new resource can break."""
    run(["make", "check"], project)
    paths = [f"tests/{one}" for one in (*GENERAL, *folders)]
    coverage = [f"--cov=app/{folder}" for folder in folders]
    run([*PYTEST, "-q", *paths, "--cov-branch", *coverage], project, **variables)


def test_resources_and_fields_are_added(project: Path, database: dict[str, str]) -> None:
    add(project, name="project", fields=PROJECT)
    check(project, "projects", **database)
    add(project, name="task", fields=TASK)
    check(project, "projects", "tasks", **database)
    add(project, name="thing", owner="none", fields=EVERYTHING)
    check(project, "projects", "tasks", "things", **database)
    add(project, resource="project", add="archived:bool=false")
    add(project, resource="task", add="level:enum(low,high)=low cost:decimal[0..]=0 note:text? size:int[..9]=3")
    add(project, name="assignment", fields="assignee:ref(user)")
    add(project, name="host", fields="amount:decimal(12,8)[0..] parts:decimal(5,0)=3 status:enum(a,b) status:ref(user)")
    add(project, name="voucher", fields="code:int[0..]!")
    add(project, name="order_line", fields=f"status:enum({STATUSES})")
    check(project, "projects", "tasks", "things", "assignments", "hosts", "vouchers", "order_lines", **database)
    if database != FRUGAL:  # the test of thirty resources runs all tests on SQLite
        run(["make", "test"], project, **database | {"PYTEST_XDIST_AUTO_NUM_WORKERS": "2"})  # or it takes ten minutes


def test_a_new_resource_works_with_a_database_of_postgresql(bake: Bake, postgresql: str) -> None:
    project = bake(database="postgresql")
    lend_environment(project, next(iter(PYTHONS.values())))
    server = postgresql.rpartition("/")[0]
    name = "scaffolded"
    psql = ["psql", postgresql, "--quiet", "--command"]
    run([*psql, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"], project)
    run([*psql, f"CREATE DATABASE {name}"], project)
    try:
        variables = {"DATABASE_URL": f"{server}/{name}"}
        command = ["make", "resource", "name=project", f"fields={PROJECT}"]
        run(command, project, **variables)
        run(["make", "field", "resource=project", "add=archived:bool=false"], project, **variables)
        run([".venv/bin/alembic", "check"], project, **variables)
    finally:
        run([*psql, f"DROP DATABASE {name} WITH (FORCE)"], project)


NOUNS = """
album artist badge basket bird boat book bottle branch bridge bucket cable camera castle chair city cloud coin
comment company contract country course customer device dog door driver engine factory farm flight flower forest
game garden guest harbor hotel house island key2 lamp letter library machine market meeting mountain museum
orchard parcel party pencil person planet recipe river room school ship shop store story street student team
ticket tower train tree valley vehicle village wheel window winter
""".split()  # noqa: SIM905 - a list would have a line for each word
ADJECTIVES = (
    "big",
    "cold",
    "early",
    "first_used",
    "green",
    "narrow",
    "last_seen",
    "main",
    "open_since",
    "far",
    "red",
)
KINDS = {
    "name": ("", "?", "!", "[2..40]", "=Ada"),
    "line": ("", "?", "!", "[..20]", "=none"),
    "text": ("", "?", "[5..]", "=none"),
    "email": ("", "?", "!"),
    "url": ("", "?", "!", "=https://example.com/"),
    "int": ("", "?", "!", "[0..10]", "[-5..]?", "=7"),
    "float": ("", "?", "[0..1]", "=0.5", "[..-1.5]?"),
    "decimal": ("", "?", "=1", "[0..]", "(5,0)=3", "(3,3)?", "(15,2)[-1..1]?", "(12,8)[0..]"),
    "bool": ("", "?", "=true", "=false"),
    "date": ("", "?"),
    "moment": ("", "?"),
    "uuid": ("", "?", "!"),
    "json": ("", "?"),
    "enum": ("(a,b)", "(low,mid-high,very_high)?", "(x1,x2)=x2"),
}


def random_resource(draw: random.Random, existing: list[str]) -> dict[str, str]:
    words = draw.sample(NOUNS, 2)
    name = draw.choice([words[0], "_".join(words)])
    while name in existing:
        name = "_".join(draw.sample(NOUNS, 2))
    fields = []
    for column in draw.sample(
        [*ADJECTIVES, *(f"{one}_{two}" for one in "abc" for two in ADJECTIVES)], draw.randint(1, 8)
    ):
        kind = draw.choice([*KINDS])
        fields.append(f"{column}:{kind}{draw.choice(KINDS[kind])}")
    for number, target in enumerate(draw.sample(["user", *existing], draw.randint(0, min(2, len(existing))))):
        fields.append(f"ref{number}:ref({target}){draw.choice(['', '?'])}")
    owner = {"owner": "none"} if draw.random() < 0.3 else {}
    return {"name": name, "fields": " ".join(fields), **owner}


def test_thirty_random_resources_pass_the_checks_and_all_tests(bake: Bake) -> None:
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())), *FUZZERS, *REPORTERS)
    draw = random.Random(SEED)  # noqa: S311 - no secret
    names: list[str] = []
    unreachable = set()  # schemathesis knows no row that a reference could name
    for _ in range(NUMBER):
        options = random_resource(draw, names)
        print(options)
        before = {*(project / "tests").iterdir()}
        arguments = [f"{one}={text}" for one, text in options.items()]
        run([".venv/bin/python", "-m", "scaffold", "resource", *arguments], project)
        [folder] = {*(project / "tests").iterdir()} - before
        names.append(options["name"])
        if re.search(r"ref\(\w+\)(?!\?)", options["fields"]):
            unreachable.add(folder.name.replace("_", "-"))
    for module in ("mypy", "ruff check", "ruff format --check", "alembic check"):
        run([".venv/bin/python", "-m", *module.split()], project)
    tests = sorted(file.relative_to(project) for file in project.glob("tests/**/test_*.py"))
    for part in range(6):  # one run would take longer than `run` waits
        run([*PYTEST, "-q", *tests[part::6]], project)
    fuzz = (ADDED_TESTS / "test_schemathesis.py").read_text("utf-8")
    old = "assert expected <= responses"
    assert old in fuzz
    new = f'assert {{label.split("/")[2] for label, _ in expected - responses}} == {unreachable}'
    (project / "tests/test_schemathesis.py").write_text(fuzz.replace(old, new), "utf-8")
    run([*PYTEST, "-q", "--timeout=600", "tests/test_schemathesis.py"], project)


def contents(project: Path) -> dict[str, bytes]:
    """Without caches and the environment."""
    skipped = {".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
    paths = [path for path in project.rglob("*") if path.is_file() and not skipped & {*path.parts}]
    return {str(path.relative_to(project)): path.read_bytes() for path in paths}


def add_revision(project: Path) -> None:
    run([".venv/bin/alembic", "revision", "-m", "another"], project)


def add_second_head(project: Path) -> None:
    add_revision(project)
    run([".venv/bin/alembic", "revision", "-m", "second", "--head=base", "--splice"], project)


def change_model(project: Path) -> None:
    models = project / "app/users/models.py"
    models.write_text(models.read_text("utf-8").replace("max_length=254", "max_length=255"), "utf-8")


def break_main(project: Path) -> None:
    main = project / "app/main.py"
    main.write_text(main.read_text("utf-8").replace("app.include_router(", "app.router.include_router ("), "utf-8")
    main.write_text(main.read_text("utf-8").replace("include_router (", "add_router("), "utf-8")


def add_type(project: Path) -> None:
    with (project / "app/parts/schemas.py").open("a", encoding="utf-8") as file:
        file.write("\n\nItemSize = int\n")


def nothing(_: Path) -> None: ...


RESOURCE = {"name": "project", "fields": "name:name"}


@pytest.mark.parametrize(
    ("prepare", "options", "problem"),
    [
        (nothing, {"name": "", "fields": "name:name"}, "Give a name: "),
        (nothing, {"name": "Project", "fields": "name:name"}, "is not a name"),
        (nothing, {"name": "class", "fields": "name:name"}, "is a keyword of Python"),
        (nothing, {"name": "list", "fields": "name:name"}, "is a builtin of Python"),
        (nothing, {"name": "select", "fields": "name:name"}, "is a reserved word of SQL"),
        (nothing, {"name": "core", "fields": "name:name"}, "is already a module"),
        (nothing, {"name": "audit_event", "fields": "name:name"}, "already exists"),
        (nothing, {"name": "project", "plural": "users", "fields": "name:name"}, "is already a module"),
        (nothing, {"name": "project", "owner": "me", "fields": "name:name"}, "owner can only be none"),
        (nothing, {"name": "project", "fields": ""}, "fields is empty"),
        (nothing, {"resource": "item", "add": ""}, "Give a field: "),
        (nothing, {"name": "status", "fields": "name:name"}, "The name of the type Status is taken."),
        (add_type, {"resource": "item", "add": "size:int[0..9]=1"}, "The name of the type ItemSize is taken."),
        (nothing, {"name": "project", "fields": "name:string"}, "string is not a type"),
        (nothing, {"name": "project", "fields": "a:int a:int"}, "Two fields have the name a"),
        (nothing, {"name": "project", "fields": "created_at:moment"}, "is a column of every resource"),
        (nothing, {"name": "project", "fields": "a:int[5..1]"}, "must be increasing"),
        (nothing, {"name": "project", "fields": "a:int=x"}, "is not a number"),
        (nothing, {"name": "project", "fields": "a:enum(x,y)=z"}, "is not one of its values"),
        (nothing, {"name": "project", "fields": "a:ref(dragon)"}, "is unknown"),
        (add_revision, RESOURCE, "The database has unapplied migrations. Run `make migrate` first."),
        (add_second_head, RESOURCE, "The migrations have several heads."),
        (change_model, RESOURCE, "The models have changes without a migration."),
        (break_main, RESOURCE, "was not found"),
        (nothing, {"resource": "dragon", "add": "a:int=1"}, "is not a resource"),
        (nothing, {"resource": "user", "add": "a:int=1"}, "is not a resource"),
        (nothing, {"resource": "item", "add": "a:int"}, "existing rows need a value"),
        (nothing, {"resource": "item", "add": "name:name?"}, "already has the column name"),
        (nothing, {"resource": "item", "add": "a:int!"}, "adds no references and no unique fields"),
        (nothing, {**RESOURCE, "dry": "1"}, ""),
        (nothing, {"resource": "item", "add": "a:int=1", "dry": "1"}, ""),
    ],
)
def test_a_rejection_and_a_dry_run_change_nothing(
    item_project: Path, tmp_path: Path, prepare: Callable[[Path], None], options: dict[str, str], problem: str
) -> None:
    project = Path(shutil.copytree(item_project, tmp_path / "copy", symlinks=True))
    prepare(project)
    before = contents(project)
    target = "field" if "add" in options else "resource"
    command = [".venv/bin/python", "-m", "scaffold", target, *(f"{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, cwd=project, env=user_environ(), capture_output=True, text=True, timeout=60)
    assert contents(project) == before
    if problem:
        assert done.returncode in {1, 2}
        assert problem in done.stderr
        assert done.stderr.count("\n") == 1
    else:
        assert done.returncode == 0, done.stderr
        assert "+    op." in done.stdout or "+    with op." in done.stdout


@pytest.fixture(scope="session")
def item_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the resources `item` and `part`, and their migrations applied."""
    project = bakery.bake(tmp_path_factory.mktemp("items") / "baked")
    lend_environment(project, next(iter(PYTHONS.values())))
    add(project, name="item", fields=PROJECT)
    add(project, name="part", fields=TASK.replace("project", "item"))
    return project


MUTANTS = {
    "the list shows the rows of all users": (
        "service.py",
        "parts if caller.is_admin else parts.where(Part.user_id == caller.user_id)",
        "parts",
    ),
    "reading needs no scope": ("router.py", "requires(Scope.PARTS_READ)", "requires()"),
    "writing needs the wrong scope": ("router.py", "requires(Scope.PARTS_WRITE)", "requires(Scope.PARTS_READ)"),
    "any row can be referred to": ("service.py", "items = items.where(Item.user_id == caller.user_id)", "pass"),
    "unknown rows can be referred to": ("service.py", "if (await session.exec(items)).first() is None:", "if False:"),
    "the wrong status": ("router.py", "status_code=201", "status_code=200"),
    "no Location": ("router.py", 'response.headers["Location"]', 'response.headers["Where"]'),
    "a conflict is not handled": ("service.py", "except IntegrityError:", "except ZeroDivisionError:"),
    "titles are not unique": ("models.py", 'UniqueConstraint("user_id", "title"),', ""),
    "a filter is ignored": ("service.py", "if query.done is not None:", "if False:"),
    "a search is ignored": ("service.py", "if query.q:", "if False:"),
    "a bound is lost": ("schemas.py", "Range(0, 999)", "Range(0, 1000)"),
    "a default is wrong": ("schemas.py", "Field(default=5,", "Field(default=6,"),
    "changes are lost": ("service.py", "part.sqlmodel_update(new)", "pass"),
    "rows are not deleted": ("service.py", "await session.delete(part)", "pass"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_generated_tests_fail_if_the_code_is_wrong(item_project: Path, tmp_path: Path, name: str) -> None:
    project = Path(shutil.copytree(item_project, tmp_path / "copy", symlinks=True))
    file, old, new = MUTANTS[name]
    path = project / "app/parts" / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    if file == "models.py":
        [migration] = project.glob("migrations/versions/*_add_parts.py")
        lines = migration.read_text("utf-8").splitlines()
        migration.write_text("\n".join(line for line in lines if "UniqueConstraint" not in line) + "\n", "utf-8")
    done = subprocess.run(
        [".venv/bin/pytest", "-q", "-x", "tests/parts"],
        cwd=project,
        env=user_environ(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "\n1 failed" in done.stdout, done.stdout
