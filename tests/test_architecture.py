"""What import-linter cannot see: single functions, and imports of the HTTP framework made anywhere in a file."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVICE = sorted((ROOT / "service").rglob("*.py"))
SOURCES = [*SERVICE, *sorted((ROOT / "training").rglob("*.py"))]
KNOWS_NO_HTTP = (
    *(
        "catalogue",
        "pipeline",
        "resolver",
        "metrics",
        "sampler",
        "batcher",
        "engine",
        "variants",
        "encoder",
        "generator",
        "lowering",
        "bundle",
        "manifest",
        "operators",
        "sample",
        "watchdog",
        "memory",
    ),
    *("settings", "errors"),
)


def _imported_names(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names that a file imports, `from a.b import c` as `a.b.c`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


def _torchscript(source: str) -> set[str]:
    """Return what a file uses of torch.jit ("load", "save", ...), however torch, torch.jit or the function came in."""
    tree = ast.parse(source)
    aliases = {"torch": "torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom) and node.module:
            aliases.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            head, _, tail = ast.unparse(node).partition(".")
            name = f"{aliases.get(head, head)}.{tail}".rstrip(".")
            if name.startswith("torch.jit."):
                used.add(name.split(".")[2])
    return used


@cache
def _uses() -> dict[str, set[str]]:
    return {path.relative_to(ROOT).as_posix(): _torchscript(path.read_text("utf-8")) for path in SOURCES}


def _users(*functions: str) -> set[str]:
    """Return the files that use one of these functions of torch.jit, or any of it if none is given."""
    return {name for name, used in _uses().items() if (used & set(functions) if functions else used)}


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.jit.load(path)",
        "import torch as t\nt.jit.load(path)",
        "import torch.jit as jit\njit.load(path)",
        "from torch import jit\njit.load(path)",
        "from torch.jit import load\nload(path)",
        "from torch.jit import load as read\nf = read",
    ],
)
def test_use_of_torchscript_is_found_however_it_is_imported(source: str) -> None:
    """The tests below cannot be passed by importing a function under another name."""
    assert _torchscript(source) == {"load"}


def test_torchscript_stays_in_three_files() -> None:
    """TorchScript is deprecated, so leaving it must stay a change of two files; a third reads somebody else's."""
    assert _users() == {"service/generator.py", "training/export.py", "training/metrics/inception.py"}
    assert _uses()["training/metrics/inception.py"] == {"load"}


def test_bundles_are_written_in_one_place_and_served_from_one() -> None:
    """Only the export writes TorchScript (and reads it back to check it); in the service only the bundle reads it."""
    assert _users("save") == {"training/export.py"}
    assert {name for name in _users("load") if name.startswith("service/")} == {"service/generator.py"}


@pytest.mark.parametrize("module", KNOWS_NO_HTTP)
def test_module_knows_no_http(module: str) -> None:
    """Everything from the catalogue down works without the HTTP framework."""
    files = [path for path in SERVICE if path.relative_to(ROOT / "service").with_suffix("").parts[0] == module]
    imported = {name for path in files for name in _imported_names(ast.parse(path.read_text("utf-8")))}

    assert files
    assert {name for name in imported if name.split(".")[0] in {"fastapi", "starlette", "uvicorn"}} == set()
