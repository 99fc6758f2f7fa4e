"""The source ``MODULE:FUNCTION``: arrays of images and labels from a function of the user's, see `nas.data.arrays`.

This runs code that the user names, with the current folder on the path, as ``python -m`` would. The function takes no
arguments and returns a mapping of names to arrays.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nas.data.arrays import Arrays, ArraySource
from search_spaces.errors import InputError, ToolError, kind_and_first_line


class FunctionSource(ArraySource):
    """What a function returns; it is called anew by every command."""

    usage = "MODULE:FUNCTION"

    def arrays(self, argument: str, *, pixels: bool) -> Arrays:
        """Return what the function returns."""
        return _arrays(argument)


def names_a_function(spec: str) -> bool:
    """Return whether a text is ``MODULE:FUNCTION`` for a module that can be found and is not Python's own."""
    module, _, function = spec.partition(":")
    if not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        return False
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == "__main__":
        return False
    with _here_on_the_path():
        return importlib.util.find_spec(top) is not None


def called(spec: str, what: str) -> object:
    """Return what a function of the user's returns, which takes no arguments.

    Args:
        spec: ``MODULE:FUNCTION``.
        what: what it is for, as error messages call it.

    Raises:
        InputError: there is no such function, or it raises: one line, with its own error as the cause.
    """
    module_name, _, function_name = spec.partition(":")
    try:
        with _here_on_the_path():
            module = importlib.import_module(module_name)
            function = getattr(module, function_name, None)
            if callable(function):
                return function()
    except ToolError:
        raise
    except Exception as error:
        raise InputError(f"{what} {spec!r} raised {kind_and_first_line(error)}") from error
    raise InputError(f"{what} {spec!r}: {getattr(module, '__file__', module_name)} has no function {function_name!r}")


def _arrays(spec: str) -> Arrays:
    returned = called(spec, "data")
    if not isinstance(returned, Mapping) or not all(isinstance(name, str) for name in returned):
        raise InputError(f"data {spec!r} must return a mapping of names to arrays, not {type(returned).__name__}")
    try:
        return {name: np.asarray(array) for name, array in returned.items()}
    except Exception as error:
        raise InputError(f"data {spec!r} raised {kind_and_first_line(error)}") from error


@contextmanager
def _here_on_the_path() -> Iterator[None]:
    """Look for modules in the current folder, too, where a command is not started by ``python -m``."""
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added:
            sys.path.remove(here)
