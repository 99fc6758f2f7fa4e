"""Imports point one way, and importing a package is cheap: no torch, no onnxruntime."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

from tests.source_tree import ROOT, SourceFile, imports, source_files

LAYERS = ("search_spaces", "predictors", "nas", "experiments")


def wrong_way(file: SourceFile) -> list[str]:
    """Return the imports of a file that reach a later layer, or the tests."""
    layer = LAYERS.index(file.path.split("/")[0])
    later = {*LAYERS[layer + 1 :], "tests"}
    return [f"{file.path}:{line} imports {name}" for line, name in imports(file.tree) if name.split(".")[0] in later]


def newly_imported(*modules: str) -> set[str]:
    """Return the top-level modules that a new interpreter loads to import some modules."""
    code = (
        "import importlib, json, sys; before = set(sys.modules)\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        # Compiled extensions leave bookkeeping entries without a spec, such as cython_runtime: they are no imports.
        "new = [n for n, m in sys.modules.items() if n not in before and getattr(m, '__spec__', None)]\n"
        "print(json.dumps(sorted({n.split('.')[0] for n in new})))"
    )
    done = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer: str) -> None:
    files = source_files(layer)
    assert files, f"no Python file in {layer}/"
    assert [line for file in files for line in wrong_way(file)] == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("search_spaces/a.py", "import predictors"),
        ("search_spaces/a.py", "from nas.lut import build_lut"),
        ("predictors/a.py", "def late() -> None:\n    import nas.lut as lut"),
        ("predictors/a.py", "if TYPE_CHECKING:\n    from nas import Run"),
        ("predictors/a.py", "import importlib\nimportlib.import_module('nas.lut')"),
        ("predictors/a.py", "from importlib import import_module as load\nload('nas.lut')"),
        ("nas/a.py", "from experiments import study"),
        ("nas/a.py", "import tests.conftest"),
        ("experiments/a.py", "import tests"),
    ],
)
def test_an_import_of_a_later_layer_is_found(path: str, text: str) -> None:
    assert len(wrong_way(SourceFile(path, text))) == 1


def test_an_import_of_an_earlier_layer_is_allowed() -> None:
    assert wrong_way(SourceFile("nas/a.py", "import nas.lut, predictors, search_spaces.space, nasty, torch")) == []


@pytest.mark.parametrize("module", ["search_spaces", "predictors", "nas", "nas.cli"])
def test_importing_loads_no_torch_and_no_onnxruntime(module: str) -> None:
    loaded = newly_imported(module)
    assert module.split(".")[0] in loaded
    assert loaded & {"torch", "onnxruntime"} == set()


def test_specs_of_block_families_load_no_torch() -> None:
    specs = [file.path for file in source_files("search_spaces") if file.path.endswith("/spec.py")]
    families = [path.removesuffix(".py").replace("/", ".") for path in specs if "/blocks/" in path]
    assert families
    assert newly_imported(*families) & {"torch", "onnxruntime"} == set()


def test_the_heavy_imports_are_noticed() -> None:
    assert "torch" in newly_imported("torch")


def test_measuring_needs_only_numpy_until_it_measures() -> None:
    own = {"nas", "predictors", "search_spaces"}
    third_party = newly_imported("nas.measure") - set(sys.stdlib_module_names) - own
    assert third_party <= {"numpy"}


def test_public_names_are_sorted_and_can_be_imported() -> None:
    import nas

    names = list(nas.__all__)
    # The order that ruff gives a literal `__all__`: constants, classes, functions.
    assert names == sorted(set(names), key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert [name for name in names if not hasattr(nas, name)] == []


def test_no_public_name_equals_a_submodule() -> None:
    # A name that is both would change its meaning with the order of imports.
    import nas

    submodules = {module.name for module in pkgutil.iter_modules(nas.__path__)}
    assert "cli" in submodules
    assert submodules & set(nas.__all__) == set()


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = importlib.import_module("nas").no_such_name


def test_dotted_imports_are_read_in_full() -> None:
    tree = ast.parse("import a.b, c as d\nfrom e.f import g, h\nfrom . import i")
    assert [name for _, name in imports(tree)] == ["a.b", "c", "e.f.g", "e.f.h"]
