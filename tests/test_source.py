"""What the source of the packages must never do, found in its syntax tree.

ruff forbids part of this too, but a `noqa` comment silences ruff; nothing silences these.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

import pytest

from tests.source_tree import WHEEL_PACKAGES, SourceFile, bound_names, dotted_name, imports, source_files

MAX_LINES = 500

CODE_IN_FILES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
"""Modules whose files can run code when they are read."""

RUNS_TEXT = {"eval", "exec", "compile", "builtins.eval", "builtins.exec", "builtins.compile"}
RUNS_SHELL = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
EXPLICIT_RANDOM = {"Generator", "BitGenerator", "SeedSequence", "default_rng", "PCG64", "Philox"}
"""The names of numpy.random that hold their state in a value; all others share one hidden state."""


def executable_files(tree: ast.Module) -> Iterator[int]:
    """Find readers of files that can hold code."""
    yield from (line for line, name in imports(tree) if name.split(".")[0] in CODE_IN_FILES)
    for call, name in calls(tree):
        if name == "torch.load" and not is_constant(keyword(call, "weights_only"), True):
            yield call.lineno
        if keyword(call, "allow_pickle") is not None and not is_constant(keyword(call, "allow_pickle"), False):
            yield call.lineno
        if name.endswith((".read_pickle", ".to_pickle")):
            yield call.lineno


def text_as_code(tree: ast.Module) -> Iterator[int]:
    """Find text that is run as Python."""
    yield from (call.lineno for call, name in calls(tree) if name in RUNS_TEXT)


def shell(tree: ast.Module) -> Iterator[int]:
    """Find commands that a shell interprets."""
    for call, name in calls(tree):
        if name in RUNS_SHELL:
            yield call.lineno
        if keyword(call, "shell") is not None and not is_constant(keyword(call, "shell"), False):
            yield call.lineno


def unpacked_archives(tree: ast.Module) -> Iterator[int]:
    """Find archives that choose where their members are written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"extractall", "unpack_archive"}:
            yield node.lineno
    yield from (line for line, name in imports(tree) if name == "shutil.unpack_archive")


def hidden_random_state(tree: ast.Module) -> Iterator[int]:
    """Find the standard library's `random`, and whatever of numpy.random keeps its state for itself."""
    names = bound_names(tree)
    yield from (line for line, name in imports(tree) if name.split(".")[0] == "random" or is_legacy_numpy(name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_legacy_numpy(dotted_name(node, names) or ""):
            yield node.lineno


def imports_onnxruntime(tree: ast.Module) -> Iterator[int]:
    """Find imports of ONNX Runtime: one module switches its telemetry off before, the other goes through that one."""
    yield from (line for line, name in imports(tree) if name.split(".")[0] == "onnxruntime")


Check = Callable[[ast.Module], Iterator[int]]
CHECKS: tuple[Check, ...] = (
    executable_files,
    text_as_code,
    shell,
    unpacked_archives,
    hidden_random_state,
    imports_onnxruntime,
)
EXEMPT: dict[Check, set[str]] = {imports_onnxruntime: {"nas/runtime.py", "nas/quantization.py"}}


def is_legacy_numpy(name: str) -> bool:
    return name.startswith("numpy.random.") and name.split(".")[2] not in EXPLICIT_RANDOM


def calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    """Yield every call with the full name of what is called, ``*.attribute`` when its owner is an expression."""
    names = bound_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            attribute = f"*.{node.func.attr}" if isinstance(node.func, ast.Attribute) else "*"
            yield node, dotted_name(node.func, names) or attribute


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((item.value for item in call.keywords if item.arg == name), None)


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def too_long(file: SourceFile) -> bool:
    return len(file.text.splitlines()) > MAX_LINES


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_source_is_free_of(check: Check) -> None:
    files = [file for file in source_files(*WHEEL_PACKAGES) if file.path not in EXEMPT.get(check, ())]
    assert files
    assert [f"{file.path}:{line}" for file in files for line in check(file.tree)] == []


def test_no_file_is_too_long() -> None:
    assert [file.path for file in source_files(*WHEEL_PACKAGES) if too_long(file)] == []


@pytest.mark.parametrize(
    ("check", "snippet"),
    [
        (executable_files, "import pickle"),
        (executable_files, "def f():\n    from joblib import load"),
        (executable_files, "import dill as d"),
        (executable_files, "import importlib\nimportlib.import_module('cloudpickle')"),
        (executable_files, "import yaml"),
        (executable_files, "import torch\ntorch.load(path)"),
        (executable_files, "import torch as t\nt.load(path, weights_only=False)"),
        (executable_files, "from torch import load as read\nread(path, weights_only=flag)"),
        (executable_files, "import numpy as np\nnp.load(path, allow_pickle=True)"),
        (executable_files, "import pandas as pd\npd.read_pickle(path)"),
        (executable_files, "frame().to_pickle(path)"),
        (text_as_code, "eval('1')"),
        (text_as_code, "exec(text)"),
        (text_as_code, "import builtins\nbuiltins.eval('1')"),
        (shell, "import subprocess\nsubprocess.run('ls', shell=True)"),
        (shell, "Popen('ls', shell=flag)"),
        (shell, "from os import system\nsystem('ls')"),
        (unpacked_archives, "import tarfile\ntarfile.open(path).extractall()"),
        (unpacked_archives, "import shutil\nshutil.unpack_archive(path)"),
        (unpacked_archives, "from shutil import unpack_archive"),
        (hidden_random_state, "import random"),
        (hidden_random_state, "from random import choice"),
        (hidden_random_state, "import numpy as np\nnp.random.seed(0)"),
        (hidden_random_state, "import numpy\nnumpy.random.rand(3)"),
        (hidden_random_state, "from numpy import random\nrandom.shuffle(x)"),
        (hidden_random_state, "from numpy.random import permutation"),
        (imports_onnxruntime, "def f():\n    import onnxruntime as ort"),
        (imports_onnxruntime, "from onnxruntime.quantization import quantize_static"),
    ],
)
def test_each_check_can_fail(check: Check, snippet: str) -> None:
    assert list(check(ast.parse(snippet))) != []


@pytest.mark.parametrize(
    "snippet",
    [
        "import torch\ntorch.load(path, weights_only=True)",
        "import numpy as np\nnp.load(path, allow_pickle=False)\nnp.random.default_rng(0).random(3)",
        "from numpy.random import Generator, default_rng",
        "random = compare(front)\nprint(random.hypervolume)",
        "model.eval()\nself.space.exec(genome)\nre.compile(pattern)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "archive.extractfile(member)",
        "import onnx\nfrom importlib.metadata import version\nversion('onnxruntime')",
    ],
)
def test_honest_code_passes_every_check(snippet: str) -> None:
    assert [check.__name__ for check in CHECKS if list(check(ast.parse(snippet)))] == []


def test_a_file_above_the_limit_is_found() -> None:
    assert not too_long(SourceFile("a.py", "x = 1\n" * MAX_LINES))
    assert too_long(SourceFile("a.py", "x = 1\n" * (MAX_LINES + 1)))
