"""Specs of models and data sets: `family:name?option=value&option=value`, and functions named by `package.module:function`."""

from __future__ import annotations

import ast
import contextlib
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dnnviz.errors import DNNVizError


def first_line(error: BaseException) -> str:
    """First line of an error's message, at most 200 characters; its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0][:200].rstrip(".") if text else type(error).__name__


def options(spec: str, query: str) -> dict[str, Any]:
    """Options behind the question mark of a spec; values are Python literals, anything else is a string."""
    found: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        name, equals, text = part.partition("=")
        if not equals or not name.isidentifier():
            raise DNNVizError(f"{part!r} in {spec!r} is no option; write name=value, such as width=8.")
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text
    return found


def check_allowed(spec: str, allow: Sequence[str] | None) -> None:
    """Raise DNNVizError unless the package of `package.module:function` is among those allowed (None: any)."""
    where = spec.partition(":")[0]
    if allow is not None and not any(where == package or where.startswith(f"{package}.") for package in allow):
        raise DNNVizError(
            f"{spec} is code outside DNNViz and torchvision, and is not run unless its package is allowed; "
            f"allow it, if you trust it: DNNVIZ_ALLOW={where.partition('.')[0]} in the environment."
        )


def import_function(spec: str, what: str) -> Callable[..., Any]:
    """The function of `package.module:function`, looked for from the current directory too."""
    from dnnviz.models.torchvision_import import import_torchvision

    where, _, name = spec.partition(":")
    with contextlib.suppress(DNNVizError):
        import_torchvision()  # the user's module may import it by itself: the guard must come first
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, str(Path.cwd()))  # an installed command does not have it
    try:
        found: Any = importlib.import_module(where)
        for part in name.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        raise DNNVizError(f"{spec!r} is no {what}: there is no module {error.name!r} here.") from None
    except AttributeError:
        raise DNNVizError(f"{spec!r} is no {what}: module {where} has no {name}.") from None
    except Exception as error:
        raise DNNVizError(f"{spec!r}: importing {where} failed ({type(error).__name__}: {first_line(error)}).") from error
    if not callable(found):
        raise DNNVizError(f"{spec!r} is no function.")
    return found
