"""Imports point to the same layer of app/ or to a lower one, and never in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter

import pytest

from app.settings import ROOT

# Each feature may import the ones before it. All other features may import only these.
FEATURES = ["audit", "users", "api_keys"]

Graph = dict[str, set[str]]


def layer_of(module: str) -> int:
    match module.split(".")[1:]:
        case ["settings"] | ["core", *_]:
            return 1
        case [_, "models"]:
            return 2
        case ["auth", *_]:
            return 3
        case ["main" | "check" | "cli" | "__main__", *_]:
            return 5
    return 4  # a feature


def objection_to(importer: str, imported: str) -> str | None:
    layer, other_layer = layer_of(importer), layer_of(imported)
    folder, other_folder = importer.split(".")[1], imported.split(".")[1]
    allowed = FEATURES[: FEATURES.index(folder)] if folder in FEATURES else FEATURES
    if layer < other_layer:
        return "the layer is higher"
    if folder == other_folder:
        return None
    if imported.endswith(".router") and importer != "app.main":
        return "only app.main may import a router"
    if layer == other_layer == 4 and other_folder not in allowed:
        return f"{folder} may only import these features: {', '.join(allowed)}"
    return None


def find_problems(graph: Graph) -> list[str]:
    problems = [
        f"{importer} imports {imported}: {objection}"
        for importer, imports in graph.items()
        for imported in imports
        if (objection := objection_to(importer, imported))
    ]
    # The two models of a relationship may import each other.
    models = {module for module in graph if module.endswith(".models")}
    for one in models:
        graph = graph | {one: {other for other in graph[one] if one not in graph[other] & models}}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        problems.append("circular import: " + " → ".join(error.args[1]))
    return problems


def read_graph(sources: dict[str, str]) -> Graph:
    """Imports in functions and for type checkers count too."""
    graph: Graph = {module: set() for module in sources}
    for module, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                graph[module] |= {alias.name for alias in node.names} & graph.keys()
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}: write absolute imports"
                for alias in node.names:  # each is a module or something in one
                    name = f"{node.module}.{alias.name}"
                    graph[module] |= {name} & graph.keys() or {str(node.module)} & graph.keys()
    return graph


def test_every_import_in_app_is_allowed() -> None:
    sources = {}
    for file in (ROOT / "app").rglob("*.py"):
        name = file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        sources[name.removesuffix(".__init__")] = file.read_text("utf-8")
    graph = read_graph(sources)
    assert sum(map(len, graph.values())) > 50
    assert find_problems(graph) == []


@pytest.mark.parametrize(
    "statement",
    ["import app.b", "from app import b", "from app.b import x", "def f():\n  import app.b"],
)
def test_every_kind_of_import_is_read(statement: str) -> None:
    sources = {"app": "", "app.a": f"import ast\nif TYPE_CHECKING:\n {statement}", "app.b": ""}
    assert read_graph(sources) == {"app": set(), "app.a": {"app.b"}, "app.b": set()}


def test_each_rule_applies_to_every_layer_and_feature() -> None:
    for importer, imported, problem in (
        ("users.service", "main", "the layer is higher"),
        ("auth.cache", "users.service", "the layer is higher"),
        ("users.router", "api_keys.service", "users may only import"),
        ("items.service", "lists.service", "items may only import"),
        ("cli.users", "users.router", "only app.main may import a router"),
    ):
        [found] = find_problems({f"app.{importer}": {f"app.{imported}"}})
        assert problem in found


@pytest.mark.parametrize(
    ("cycle", "problems"),
    [
        (["core.a", "core.b", "core.c"], 1),
        (["items.schemas", "items.service"], 1),
        (["items.models", "users.models", "lists.models"], 1),
        (["items.models", "users.models"], 0),
    ],
)
def test_only_two_models_may_import_each_other(cycle: list[str], problems: int) -> None:
    imported = [*cycle[1:], cycle[0]]
    graph = {f"app.{one}": {f"app.{other}"} for one, other in zip(cycle, imported, strict=True)}
    assert len(find_problems(graph)) == problems
