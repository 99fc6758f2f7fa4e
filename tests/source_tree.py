"""The source files of the packages, parsed, and the names that their imports and calls stand for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHEEL_PACKAGES = ("search_spaces", "predictors", "nas")


@dataclass(frozen=True)
class SourceFile:
    """One Python file: its path relative to the project, and its text."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)


@cache
def source_files(*packages: str) -> tuple[SourceFile, ...]:
    """Return every Python file of some top-level packages."""
    paths = sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))
    return tuple(SourceFile(path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths)


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything that a file imports, wherever in the file it does so.

    ``from a.b import c`` yields ``a.b.c``; a literal name given to `importlib.import_module` or `__import__` counts.
    """
    names = bound_names(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            case ast.Call(func=func, args=[ast.Constant(value=str(name)), *_]):
                if dotted_name(func, names) in {"importlib.import_module", "__import__"}:
                    yield node.lineno, name


def bound_names(tree: ast.Module) -> dict[str, str]:
    """Return what each imported name of a file stands for: ``{"np": "numpy", "load": "torch.load"}``."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            # `import a.b` binds `a`, `import a.b as c` binds `c` to `a.b`.
            names |= {
                alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dotted_name(node: ast.expr, names: dict[str, str]) -> str | None:
    """Return the full name of an expression such as ``np.random.seed``, or None when it is not a plain name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        owner = dotted_name(node.value, names)
        return f"{owner}.{node.attr}" if owner else None
    return None
