"""A name and settings to an object: the name is a file, the settings are its constructor's
arguments."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pretrain.errors import BadInput, refuse


def names(package: str) -> list[str]:
    """Components of a folder, ``pretrain.encoders`` say: its files, of which none is imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, package
    folders = spec.submodule_search_locations
    assert folders is not None, f"{package} is not a folder"
    return sorted(
        module.name for module in pkgutil.iter_modules(folders) if not module.name.startswith("_")
    )


def find(package: str, name: object, base: type) -> type:
    """The one concrete subclass of ``base`` that the file ``name`` defines.

    Raises:
        BadInput: If there is no such file; lists those there are.
    """
    known = names(package)
    if name not in known:
        raise BadInput(
            f"{package.rsplit('.', 1)[-1]}: there is no {name!r}; there are: {', '.join(known)}"
        )
    module = importlib.import_module(f"{package}.{name}")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]
    assert len(found) == 1, (
        f"{module.__name__} must define one {base.__name__}, it defines {len(found)}"
    )
    return found[0]


def settings_of(kind: type) -> dict[str, inspect.Parameter]:
    """The keyword settings of a component, from its constructor's signature."""
    return {
        name: parameter
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def build(package: str, spec: Mapping[str, Any], base: type, *given: Any) -> Any:
    """Makes a component.

    Args:
        package: Its folder as a package, ``pretrain.encoders``.
        spec: ``{"name": file, setting: value, …}`` as a recipe gives it.
        base: The abstract class of the folder.
        given: What every component of the folder takes first.

    Raises:
        BadInput: If the name or a setting is unknown or a value has the wrong type; lists what is
            allowed.
    """
    kind = find(package, spec.get("name"), base)
    settings = {key: value for key, value in spec.items() if key != "name"}
    check_settings(kind, settings, about=f"{package.rsplit('.', 1)[-1]}: {spec['name']}")
    return kind(*given, **settings)


def check_settings(kind: type, settings: Mapping[str, Any], *, about: str) -> None:
    """Refuses settings that the constructor does not take or whose values have another type.

    Raises:
        BadInput: With all problems at once.
    """
    known = settings_of(kind)
    hints = typing.get_type_hints(vars(kind)["__init__"])
    allowed = ", ".join(f"{name}={parameter.default!r}" for name, parameter in known.items())
    problems = []
    for key, value in settings.items():
        if key not in known:
            problems.append(f"unknown setting {key!r}; allowed: {allowed}")
        elif not fits(value, hints[key]):
            problems.append(f"{key} is {value!r}; it must be {type_name(hints[key])}")
    problems += [
        f"{key} is required"
        for key, p in known.items()
        if p.default is p.empty and key not in settings
    ]
    refuse(problems, about=about)


def fits(value: object, hint: Any) -> bool:
    """Whether a YAML value has the type a signature asks for; a whole number passes as a float, a
    text never as a number."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is typing.Literal:
        return value in inside
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inside)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            fits(k, inside[0]) and fits(v, inside[1]) for k, v in value.items()
        )
    if isinstance(origin, type) and issubclass(origin, Sequence | tuple):
        return isinstance(value, list | tuple) and all(fits(v, inside[0]) for v in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is None or hint is type(None):
        return value is None
    return isinstance(value, hint)


def type_name(hint: Any) -> str:
    """A type as a person would say it."""
    said = {
        int: "a whole number",
        float: "a number (write 0.001 or 1.0e-3: YAML reads 1e-3 as text)",
        str: "text",
        bool: "true or false",
    }
    return said.get(hint) or str(hint).replace("typing.", "").replace("collections.abc.", "")
