"""The borders between the packages, read from the imports in their sources."""

import ast
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = {"collector", "gateway", "cli", "exporter"}
HOMES = {
    name: ROOT / folder / "src" / name
    for name, folder in {
        "wire": "libs/wire",
        "eventfilters": "libs/eventfilters",
        "eventjson": "libs/eventjson",
        "eventstream": "libs/eventstream",
        "eventcolumns": "libs/eventcolumns",
        "bus": "libs/bus",
        "chassis": "libs/chassis",
        "readymade": "libs/readymade",
        "tracingpolicy": "libs/tracingpolicy",
        "collector": "services/collector",
        "gateway": "services/gateway",
        "cli": "services/cli",
        "exporter": "services/exporter",
        "embedded": "embedded",
    }.items()
}


@cache
def imported_modules(source: Path) -> set[str]:
    """Return the dotted names that ``source`` imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text(), source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}:{node.lineno}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


# Container runtimes serve gRPC; events leave the collector on the bus.
CRI_CLIENT = ["services/collector/src/collector/metadata/containers/cri.py"]


def packages_imported_by(name: str) -> dict[str, list[str]]:
    """Return top-level package -> files of package ``name`` that import it."""
    found: dict[str, list[str]] = {}
    for source in HOMES[name].rglob("*.py"):
        for top in {module.partition(".")[0] for module in imported_modules(source)}:
            found.setdefault(top, []).append(str(source.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("collector", {"gateway", "cli", "embedded", "grpc"}),
        ("gateway", {"collector", "cli", "embedded", "bcc"}),
        ("cli", {"collector", "gateway", "embedded", "bus", "nats", "bcc"}),
        ("exporter", {"collector", "gateway", "cli", "embedded", "bcc"}),
        # It starts the services as processes, as a container engine would.
        ("embedded", {*SERVICES, "bus", "bcc", "grpc", "nats"}),
        (
            "eventfilters",
            {*SERVICES, "embedded", "bus", "chassis", "eventjson", "bcc", "nats", "grpc"},
        ),
        (
            "eventjson",
            {*SERVICES, "embedded", "bus", "chassis", "eventfilters", "bcc", "nats", "grpc"},
        ),
        ("eventstream", {*SERVICES, "embedded", "eventjson", "bcc", "grpc"}),
        ("eventcolumns", {*SERVICES, "embedded", "bus", "eventjson", "bcc", "nats", "grpc"}),
        ("wire", {*SERVICES, "embedded", "bus", "chassis", "tetragon", "tetra", "bcc", "nats"}),
        ("bus", {*SERVICES, "embedded", "tetragon", "tetra", "bcc"}),
        ("chassis", {*SERVICES, "embedded", "bus", "tetragon", "tetra", "bcc", "nats"}),
        (
            "readymade",
            {*SERVICES, "embedded", "bus", "chassis", "tracingpolicy", "tetragon", "tetra", "bcc"},
        ),
        ("tracingpolicy", {*SERVICES, "embedded", "bus", "chassis", "tetragon", "tetra", "bcc"}),
    ],
)
def test_package_stays_inside_its_borders(package, forbidden):
    crossed = packages_imported_by(package)
    if crossed.get("grpc") == CRI_CLIENT:
        del crossed["grpc"]
    assert {top: files for top, files in crossed.items() if top in forbidden} == {}


def test_only_the_compiler_knows_bcc():
    importers = {
        str(source.relative_to(ROOT))
        for home in HOMES.values()
        for source in home.rglob("*.py")
        if "bcc" in imported_modules(source)
    }
    assert importers == {"services/collector/src/collector/bpf/compiler.py"}


def test_imports_between_members_are_in_their_metadata():
    distributions = {
        "wire": "tetra-wire",
        "eventfilters": "tetra-eventfilters",
        "eventjson": "tetra-eventjson",
        "eventstream": "tetra-eventstream",
        "eventcolumns": "tetra-eventcolumns",
        "bus": "tetra-bus",
        "chassis": "tetra-chassis",
        "tetragon": "tetra-proto",
        "tetra": "tetra-proto",
        "readymade": "tetra-readymade",
        "tracingpolicy": "tetra-tracingpolicy",
    }
    for name, home in HOMES.items():
        project = tomllib.loads((home.parents[1] / "pyproject.toml").read_text())["project"]
        used = {distributions[x] for x in packages_imported_by(name) if x in distributions}
        needed = {one.partition("[")[0] for one in project["dependencies"]}
        assert used - {project["name"]} <= needed, name


def test_command_line_uses_only_what_of_chassis_needs_no_package():
    light = {"chassis.backoff", "chassis.capabilities", "chassis.durations", "chassis.goquote"}
    used = {
        module
        for source in HOMES["cli"].rglob("*.py")
        for module in imported_modules(source)
        if module.startswith("chassis.") and module.count(".") == 1
    }
    assert used <= light
    for module in light:
        source = HOMES["chassis"] / f"{module.removeprefix('chassis.')}.py"
        tops = {name.partition(".")[0] for name in imported_modules(source)}
        assert tops <= set(sys.stdlib_module_names)


def graph_of_modules() -> dict[str, set[str]]:
    """Return module -> modules of this repository that it imports, anywhere in it."""
    sources = {}
    for home in HOMES.values():
        for source in home.rglob("*.py"):
            name = ".".join(source.relative_to(home.parent).with_suffix("").parts)
            sources[name.removesuffix(".__init__")] = source
    return {
        name: {one for one in imported_modules(source) if one in sources and one != name}
        - _packages_of(name, sources)
        for name, source in sources.items()
    }


def _packages_of(name: str, sources: dict[str, Path]) -> set[str]:
    # `from package.part import name` names the package too; its __init__ is no dependency of it.
    return {one for one in sources if name.startswith(f"{one}.")}


def test_no_module_imports_itself_by_a_detour():
    graph = graph_of_modules()
    assert len(graph) > 200
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for imported in sorted(graph[name]):
                walk(imported, (*path, name))
            done.add(name)

    for name in graph:
        walk(name, ())


# From the kernel to the bus; a package imports only those before it.
COLLECTOR_LAYERS = (
    "bpf", "records", "processes", "metadata", "policies", "events", "sensors", "delivery",
    "recovery", "kubernetes",
)  # fmt: skip


def test_data_moves_one_way_through_the_collector():
    upward = [
        f"{name} -> {imported}"
        for name, found in graph_of_modules().items()
        for imported in found
        if _layer(imported) > _layer(name) >= 0
    ]
    assert upward == []


def _layer(module: str) -> int:
    parts = module.split(".")
    if parts[0] != "collector" or len(parts) < 2 or parts[1] not in COLLECTOR_LAYERS:
        return -1
    return COLLECTOR_LAYERS.index(parts[1])
