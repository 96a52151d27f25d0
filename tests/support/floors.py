"""The rules of the house, read from the source: which file may import which, and what no file may hold.

Imports point downwards only. Everything here is a pure function from a path and its text to findings, each one line
`path:line: what is wrong and what to do`; `test_floors.py` applies them to the project and to sources that break them.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

FACTS = {"spec", "config", "command", "files"}
PARTS = {"devices", "model", "objectives", "data", "interop"}
ASSEMBLY = {"train", "evaluate", "sample"}
DOORS = {"main", "run", "trained"}
TASKS = {"tasks"}
BESIDE = {"isoflop", "analysis"}
TOP = {"experiments", "benchmarks", "tests", "constraints"}
FACTS_ELSEWHERE = {
    "data.manifest",
    "devices.accelerators",
    "devices.cpu_compiler",
    "devices.huge_pages",
    "evaluate.draws",
    "run.orders",
    "run.parent",
    "sample.names",
    "train.metrics",
}
"""Modules that load no jax and keep the rules of the facts, in a folder whose other modules stand higher."""

OTHER_PACKAGES = {
    "facts": {"numpy"},
    "isoflop": {"numpy", "ml_collections"},
    "analysis": {"numpy", "scipy", "pandas", "matplotlib", "pyarrow", "jinja2", "markupsafe"},
}
"""What a room may import besides the standard library; a room that is not named here may import what it needs."""
OF_ONE_FILE = {"mdm_jax/config.py": {"ml_collections"}, "mdm_jax/files/storage.py": {"etils"}}
ONLY_IN = {
    "orbax": "mdm_jax/train/checkpoint.py",
    "ml_collections": "mdm_jax/config.py",
    "etils": "mdm_jax/files/storage.py",
}
AXES_ARE_NAMED_IN = "mdm_jax/devices/sharding.py"
LAZY = {
    "isoflop/preflight/__main__.py": "train",
    "isoflop/refine/evidence.py": "analysis",
    "mdm_jax/__init__.py": "doors",
    "mdm_jax/evaluate/harness/adapter.py": "doors",
    "mdm_jax/interop/smdm/weights.py": "isoflop",
    "mdm_jax/sample/report/__main__.py": "analysis",
}
"""Rooms that one file may reach over the floors, from inside a function."""

AXES = {"replica", "data", "model"}
AXIS_WRITERS = {"P", "PartitionSpec", "NamedSharding", "Mesh", "AbstractMesh", "make_mesh", "shard_map"}
AXIS_WRITERS |= {"psum", "pmean", "pmax", "pmin", "all_gather", "psum_scatter", "ppermute", "axis_index", "axis_size"}
UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
MAX_LINES = 400
EMPTY_NAME = re.compile(r"(.*_)?(utils?|helpers?|misc|v2)|common")
# Assembled, so that this file does not hold what it forbids.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
ELSEWHERE = re.compile(
    r"/(wor[k]|far[m]|roo[t])/|/hom[e]/\w|/User[s]/\w|/tm[p]/w/"
    r"|py[p]i\.org|pythonho[s]ted|registry\.n[p]mjs|de[b]\.debian|proxy\.golan[g]"
)
CODE = {".py", ".md", ".toml", ".cfg", ".yml", ".yaml", ".cff", ".sh", ""}


@dataclass(frozen=True)
class Import:
    """One imported module, by its full dotted name; `lazy` where importing the file does not import it.

    That is inside a function, or below `if TYPE_CHECKING`.
    """

    module: str
    line: int
    lazy: bool


def room(module: str) -> str | None:
    """The room of one of our modules.

    It is "facts", a part, an assembly folder, "doors", "tasks", "isoflop", "analysis" or "top".

    None for a module that has no place in the table.
    """
    package, *rest = module.split(".")
    if package in TOP or module.startswith("analysis.notebooks"):
        return "top"
    if package in BESIDE:
        return package
    if package != "mdm_jax":
        return None
    if not rest or rest[0] in FACTS | {"__version__"} or ".".join(rest[:2]) in FACTS_ELSEWHERE:
        return "facts"
    if rest[0] in TASKS:
        return "tasks"
    if rest[0] in DOORS | {"load"} or "__main__" in rest:
        return "doors"
    return rest[0] if rest[0] in PARTS | ASSEMBLY else None


def may_import(importer: str) -> set[str]:
    """The rooms of our own that a file in this room may import at the top of the file."""
    inside = {"facts", *PARTS, *ASSEMBLY, "doors"}
    if importer == "top":
        return inside | BESIDE | {"tasks", "top"}
    if importer == "tasks":
        return inside | {"analysis", "tasks"}
    if importer == "doors":
        return inside
    below = {"facts", "devices"} if importer in PARTS else {"facts", *PARTS} if importer in ASSEMBLY else {"facts"}
    return below | {importer}


def imports(path: str, tree: ast.AST) -> list[Import]:
    """Every import of a module, also those inside functions and `import_module("…")` of a literal name."""
    package = list(PurePosixPath(path).parent.parts)
    found: list[Import] = []

    def visit(node: ast.AST, lazy: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            found.extend(Import(f"{base}.{alias.name}", node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            names = [name.value for name in node.args[:1] if isinstance(name, ast.Constant)]
            found.extend(Import(str(name), node.lineno, lazy) for name in names)
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            never = isinstance(node, ast.If) and child in node.body and ast.unparse(node.test) == "TYPE_CHECKING"
            visit(child, lazy or later or never)

    visit(tree, lazy=False)
    return found


def called(call: ast.Call) -> str:
    """The last name of what is called: "psum" for `jax.lax.psum(…)`."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def is_command(path: str, tree: ast.Module) -> bool:
    """Whether the file is started from a shell: a door, a `__main__.py`, or one with a `__main__` guard."""
    guards = (node for node in tree.body if isinstance(node, ast.If))
    return (
        room(dotted(path)) == "doors"
        or path.endswith("__main__.py")
        or any("__main__" in ast.unparse(node.test) for node in guards)
    )


def dotted(path: str) -> str:
    """The module name of a file: "mdm_jax.model.layers"."""
    return ".".join(PurePosixPath(path).with_suffix("").parts).removesuffix(".__init__")


def check_import(path: str, here: str, item: Import, command: bool) -> Iterator[str]:
    """Findings for one import of a file that stands in room `here`."""
    root = item.module.split(".")[0]
    if root in {"mdm_jax"} | BESIDE | TOP:
        target = room(item.module)
        by_name = item.lazy and target is not None and LAZY.get(path) == target
        if target is None:
            yield f"imports {item.module}, which has no floor: give it one in tests/support/floors.py"
        elif target not in may_import(here) and not by_name:
            yield f"{here} imports {item.module} ({target}): imports point downwards only"
        return
    if root == "tensorflow":
        yield "imports tensorflow: nothing here may need it"
    if here == "top" or root in sys.stdlib_module_names:
        return
    if root in ONLY_IN and path != ONLY_IN[root] and root not in OTHER_PACKAGES.get(here, set()):
        yield f"imports {root}: only {ONLY_IN[root]} does"
    elif root == "rich" and not (command or (here in BESIDE and item.lazy)):
        yield "imports rich: doors and command lines print, and what they call in isoflop/ or analysis/ loads it lazily"
    elif here in OTHER_PACKAGES and root not in {"rich"} | OF_ONE_FILE.get(path, OTHER_PACKAGES[here]):
        yield f"{here} imports {root}: this floor is free of it"


def check_call(path: str, here: str, call: ast.Call) -> Iterator[str]:
    """Findings for one call: code from strings, unpickling, an axis name outside `devices/sharding.py`."""
    name = called(call)
    if name in {"eval", "exec"}:
        yield f"calls {name}: no code from strings"
    if name in {"read_pickle", "to_pickle"}:
        yield f"calls {name}: nothing here is pickled"
    for keyword in call.keywords:
        if keyword.arg == "allow_pickle" and getattr(keyword.value, "value", None) is not False:
            yield "allows pickle: nothing here is pickled"
    if name in AXIS_WRITERS and here != "top" and path != AXES_ARE_NAMED_IN:
        inner = (node for argument in [*call.args, *call.keywords] for node in ast.walk(argument))
        if names := sorted(
            {str(node.value) for node in inner if isinstance(node, ast.Constant) and node.value in AXES}
        ):
            yield f"{name}(…) writes the axis {' and '.join(map(repr, names))}: only {AXES_ARE_NAMED_IN} names axes"


def check_python(path: str, source: str) -> list[str]:
    """Findings for one Python file: its floor, its calls, its length."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return [f"{path}:{error.lineno}: does not parse"]
    findings = []
    if (length := len(source.splitlines())) > MAX_LINES:
        findings.append(f"{path}:{MAX_LINES}: {length} lines: split it, {MAX_LINES} are the limit")
    here = room(dotted(path))
    if here is None:
        return [*findings, f"{path}:1: has no floor: give it one in tests/support/floors.py"]
    command = is_command(path, tree)
    for item in imports(path, tree):
        if item.module.split(".")[0] in UNPICKLERS:
            findings.append(f"{path}:{item.line}: imports {item.module}: nothing here is pickled")
        findings += [f"{path}:{item.line}: {finding}" for finding in check_import(path, here, item, command)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            findings += [f"{path}:{node.lineno}: {finding}" for finding in check_call(path, here, node)]
        if isinstance(node, ast.FunctionDef) and path.startswith("analysis/notebooks/"):
            findings.append(f"{path}:{node.lineno}: a notebook defines {node.name}: functions belong into analysis/")
    return findings


def check_name(path: str) -> list[str]:
    """Findings for the names of a file and its folders: names that say nothing."""
    stems = [PurePosixPath(part).stem for part in PurePosixPath(path).parts]
    return [f"{path}:1: the name {stem!r} says nothing: name the idea" for stem in stems if EMPTY_NAME.fullmatch(stem)]


def check_text(path: str, text: str) -> list[str]:
    """Findings for any text: unfinished work, a path of one machine, a registry's host."""
    findings = []
    for number, line in enumerate(text.splitlines(), start=1):
        if PurePosixPath(path).suffix in CODE and (mark := UNFINISHED.search(line)):
            findings.append(f"{path}:{number}: {mark.group()}: finish it, or open an issue")
        if place := ELSEWHERE.search(line):
            findings.append(f"{path}:{number}: {place.group()!r}: a path of one machine or the host of a registry")
    return findings


def check_project(files: Mapping[str, str]) -> list[str]:
    """Findings for all text files of the project, given as path to content."""
    findings: list[str] = []
    for path, text in sorted(files.items()):
        findings += check_name(path) + check_text(path, text)
        if path.endswith(".py"):
            findings += check_python(path, text)
    return findings
