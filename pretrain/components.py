"""A name and settings to an object: the name is a file, the settings are its constructor's
arguments."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from pretrain.errors import BadInput, refuse

_TYPE_NAMES = {
    int: "a whole number",
    float: "a number (write 0.001 or 1.0e-3: YAML reads 1e-3 as text)",
    str: "text",
    bool: "true or false",
    types.NoneType: "null",
}


def names(package: str) -> list[str]:
    """Components of a folder, ``pretrain.encoders`` say: its files, of which none is imported."""
    return sorted(_files(package))


def _files(package: str) -> dict[str, Path]:
    """Component to its file; not even the folder's own ``__init__`` is imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, package
    folders = spec.submodule_search_locations
    assert folders is not None, f"{package} is not a folder"
    files = [path for folder in folders for path in Path(folder).glob("*.py")]
    return {path.stem: path for path in files if not path.name.startswith("_")}


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
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]
    assert len(classes) == 1, (
        f"{module.__name__} must define one {base.__name__}, it defines {len(classes)}"
    )
    return classes[0]


def summaries(package: str) -> dict[str, str]:
    """Component to the first line of its file's docstring; none is imported."""
    return {
        name: (ast.get_docstring(tree) or "").partition("\n")[0]
        for name, tree in _trees(package).items()
    }


def descriptions(package: str) -> str:
    """What the components of a folder call themselves (``description = "…"``); none is imported."""
    return ", ".join(
        ast.literal_eval(node.value)
        for tree in _trees(package).values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "description"
    )


def _trees(package: str) -> dict[str, ast.Module]:
    return {
        name: ast.parse(path.read_text(encoding="utf-8"))
        for name, path in sorted(_files(package).items())
    }


def settings_of(component: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The settings of a component: the keyword-only arguments of its constructor, or of the
    function that it is."""
    return {
        name: parameter
        for name, parameter in inspect.signature(component, eval_str=True).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def build(package: str, spec: Mapping[str, Any], base: type, *arguments: Any) -> Any:
    """Makes a component of a folder (``pretrain.encoders``) whose abstract class is ``base``, from
    ``{"name": file, setting: value, …}`` as a recipe gives it; the arguments come before its
    settings.

    Raises:
        BadInput: If the name or a setting is unknown or a value has the wrong type; lists what is
            allowed.
    """
    component = find(package, spec.get("name"), base)
    settings = {key: value for key, value in spec.items() if key != "name"}
    refuse(
        setting_errors(settings_of(component), settings),
        about=f"{package.rsplit('.', 1)[-1]}: {spec['name']}",
    )
    return component(*arguments, **settings)


def setting_errors(
    allowed: Mapping[str, inspect.Parameter], settings: Mapping[str, Any]
) -> list[str]:
    """What is wrong with settings, a sentence each: those that are not allowed, of another type or
    beyond their limit, and those that are missing."""
    errors = []
    for key, value in settings.items():
        if key not in allowed:
            defaults = ", ".join(f"{name}={one.default!r}" for name, one in allowed.items())
            errors.append(f"unknown setting {key!r}; allowed: {defaults}")
        else:
            errors += misfits(key, value, allowed[key].annotation)
    return errors + [
        f"{key} is required"
        for key, parameter in allowed.items()
        if parameter.default is parameter.empty and key not in settings
    ]


def fits(value: object, annotation: Any) -> bool:
    """Whether a YAML value has the type that a signature asks for; a whole number passes as a
    float, a text never as a number."""
    kind, arguments = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return fits(value, arguments[0])
    if annotation is Any:
        return True
    if kind is Literal:
        return value in arguments
    if kind in (Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if kind in (Mapping, dict):
        return isinstance(value, Mapping) and all(
            fits(k, arguments[0]) and fits(v, arguments[1]) for k, v in value.items()
        )
    if kind in (Sequence, list, tuple):
        return isinstance(value, list | tuple) and all(fits(v, arguments[0]) for v in value)
    if annotation in (int, float):
        numbers = (int, float) if annotation is float else (int,)
        return isinstance(value, numbers) and not isinstance(value, bool)
    return value is None if annotation in (None, types.NoneType) else isinstance(value, annotation)


def type_name(annotation: Any) -> str:
    """A type as a person would say it."""
    if get_origin(annotation) is Annotated:
        return type_name(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType, Literal):
        return " or ".join(type_name(one) for one in get_args(annotation))
    if isinstance(annotation, str):  # a choice
        return repr(annotation)
    return _TYPE_NAMES.get(annotation) or str(annotation).replace("typing.", "").replace(
        "collections.abc.", ""
    )


def type_errors(key: str, value: object, annotation: Any) -> list[str]:
    """A sentence where the value of a setting has not its type."""
    if fits(value, annotation):
        return []
    return [f"{key} is {value!r}; it must be {type_name(annotation)}"]


def misfits(key: str, value: object, annotation: Any) -> list[str]:
    """A sentence where the value of a setting has not its type or is beyond its limit."""
    return type_errors(key, value, annotation) or _beyond_limits(key, value, annotation)


def field_errors(settings: object) -> list[str]:
    """A sentence for each field of a settings dataclass that is beyond its limit."""
    hints = get_type_hints(type(settings), include_extras=True)
    return [
        error
        for name, annotation in hints.items()
        for error in _beyond_limits(name, getattr(settings, name), annotation)
    ]


def _beyond_limits(key: str, value: object, annotation: Any) -> list[str]:
    return [
        f"{key} is {value!r}; it must {limit.words}"
        for one in (annotation, *get_args(annotation))
        for limit in getattr(one, "__metadata__", ())
        if fits(value, one) and not limit.holds(value)
    ]


class Limit(NamedTuple):
    """What the value of a setting must do besides having its type: ``Annotated[int, Limit(…)]``."""

    words: str
    """After "it must"."""
    holds: Callable[[Any], bool]


MAX_SEED = 2**32 - 1
Count = Annotated[int, Limit("be at least 1", lambda number: number >= 1)]
OddCount = Annotated[int, Limit("be an odd number above 0", lambda n: n >= 1 and n % 2 == 1)]
TwoOrMore = Annotated[int, Limit("be at least 2", lambda number: number >= 2)]
Whole = Annotated[int, Limit("be at least 0", lambda number: number >= 0)]
NotNegative = Annotated[float, Limit("be at least 0", lambda number: number >= 0)]
Positive = Annotated[float, Limit("be above 0", lambda number: number > 0)]
Share = Annotated[float, Limit("lie in 0…1", lambda share: 0 <= share <= 1)]
ShareBelow1 = Annotated[float, Limit("be at least 0 and below 1", lambda share: 0 <= share < 1)]
ShareAbove0 = Annotated[float, Limit("be above 0, at most 1", lambda share: 0 < share <= 1)]
Seed = Annotated[int, Limit(f"lie in 0…{MAX_SEED}", lambda seed: 0 <= seed <= MAX_SEED)]
_EACH = Limit("hold at least one number, each at least 1", lambda some: min(some, default=0) >= 1)
Counts = Annotated[Sequence[int], _EACH]
"""Types of settings."""
