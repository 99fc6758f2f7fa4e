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
from search_spaces.errors import InputError, ToolError


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


def _arrays(spec: str) -> Arrays:
    """Call the function; whatever goes wrong in the user's code becomes one line, with the error as its cause."""
    module_name, _, function_name = spec.partition(":")
    try:
        with _here_on_the_path():
            module = importlib.import_module(module_name)
            function = getattr(module, function_name, None)
            returned = function() if callable(function) else None
        if isinstance(returned, Mapping) and all(isinstance(name, str) for name in returned):
            return {name: np.asarray(array) for name, array in returned.items()}
    except ToolError:
        raise
    except Exception as error:
        line = next(iter(str(error).splitlines()), "")
        raise InputError(f"data {spec!r} raised {type(error).__name__}: {line}") from error
    if not callable(function):
        raise InputError(f"data {spec!r}: {getattr(module, '__file__', module_name)} has no function {function_name!r}")
    raise InputError(f"data {spec!r} must return a mapping of names to arrays, not {type(returned).__name__}")


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
