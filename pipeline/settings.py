"""From a TOML file to frozen settings: read, override, check; every error is one line.

Nothing here knows which settings there are; `workflow.py` and `config.py` do.
"""

from __future__ import annotations

import glob
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cellseg.models.errors import CellsegError, nearest
from cellseg.models.settings import Frozen

__all__ = ["Table", "absolute", "assign", "check", "parse_value", "read_toml", "read_with"]

Table = dict[str, Any]
Settings = TypeVar("Settings", bound=Frozen)

_NOUNS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text in quotes",
    "boolean": "true or false",
}
_LONGEST_VALUE = 80


def read_toml(path: Path) -> Table:
    """Return the content of a TOML file.

    Raises
    ------
    CellsegError
        If the file is missing, is not text or is not TOML; with the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        beside = sorted(other.name for other in path.parent.glob("*.toml"))
        raise CellsegError(f"{path}: no such file.{nearest(path.name, beside)}") from None
    except UnicodeDecodeError:
        raise CellsegError(f"{path}: not a TOML file: not UTF-8 text.") from None
    except OSError as error:
        raise CellsegError(f"{path}: cannot be read: {error.strerror}.") from None
    except tomllib.TOMLDecodeError as error:
        raise CellsegError(f"{path}: not valid TOML: {error}.") from None


def parse_value(text: str) -> Any:
    """Return `text` read as a TOML value; what is none, as the text itself."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def assign(raw: Table, assignment: str) -> tuple[str, ...]:
    """Carry out ``table.key=value`` on `raw`, making tables on demand; return the keys' path.

    Raises
    ------
    CellsegError
        If `assignment` has another form or leads through a key that is no table.
    """
    assignment = assignment.replace("\n", "\\n")
    keys, equals, text = assignment.partition("=")
    path = tuple(key.strip() for key in keys.split("."))
    if not equals or not all(path):
        raise CellsegError(
            f"--set {assignment}: expected table.key=value, as in --set tiling.size=512."
        )
    table = raw
    for key in path[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise CellsegError(f"--set {assignment}: {key} is not a table.")
    table[path[-1]] = parse_value(text.strip())
    return path


def read_with(
    path: Path, overrides: Sequence[str], expand: Callable[[Table], None]
) -> tuple[Table, dict[tuple[str, ...], str]]:
    """Return a TOML file with `overrides` carried out, and which keys these set.

    Parameters
    ----------
    path : path
        The file.
    overrides : sequence of str
        ``table.key=value`` each.
    expand : function
        Writes shorthands out, in place, so that an override finds the table it is for.

    Raises
    ------
    CellsegError
        If the file cannot be read, or an override is not one.
    """
    raw = read_toml(path)
    expand(raw)
    sources = {}
    for text in overrides:
        sources[assign(raw, text)] = f"--set {text}"
        expand(raw)
    return raw, sources


def absolute(entry: str, folder: Path) -> str:
    """Return a path or glob as seen from `folder`; ``~`` is the home folder.

    In front of a glob, brackets in the folder's own name are escaped.
    """
    # "~name" may be a file as well as another user's home.
    path = Path(entry).expanduser() if entry.startswith("~/") else Path(entry)
    if glob.has_magic(entry) and not (folder / path).exists():
        return str(Path(glob.escape(str(folder))) / path)
    return str(folder / path)


def check(
    settings: type[Settings],
    raw: Table,
    where: str,
    sources: Mapping[tuple[str, ...], str] | None = None,
    classes: Mapping[str, type[BaseModel]] | None = None,
) -> Settings:
    """Return `raw` as `settings`, each value of exactly the type that is asked for.

    Parameters
    ----------
    settings : type
        The class to build.
    raw : dict
        Tables and values as TOML gave them.
    where : str
        Where `raw` was read; the first words of an error.
    sources : mapping, optional
        Says the same for the keys (as a path from the top) that came from elsewhere.
    classes : mapping, optional
        The class of each table that may be of several.

    Raises
    ------
    CellsegError
        For the first key that is unknown, missing, or of a wrong type or range,
        with the number of others.
    """
    try:
        # JSON, because strict validation of Python objects takes no list for a tuple.
        return settings.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        tables: dict[str, type[BaseModel]] = {"": settings, **_tables(settings), **(classes or {})}
        problems: dict[tuple[str, ...], str] = {}
        for detail in error.errors(include_url=False):
            path = _path(raw, detail)
            source = _source(path, sources or {}, where)
            problems.setdefault(path, f"{source}: {_problem(tables, raw, path, detail)}")
    first, *others = problems.values()
    message = first + (f" (And {len(others)} more.)" if others else "")
    raise CellsegError(message.replace("\n", "\\n"))


def _source(path: tuple[str, ...], sources: Mapping[tuple[str, ...], str], where: str) -> str:
    """Return who set the key at `path`, or if it is a table, one of its keys."""
    inside = [source for key, source in sources.items() if path and key[: len(path)] == path]
    return inside[0] if inside else where


def _tables(settings: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return the class of each key that is a table and of one class only."""
    fields = {name: field.annotation for name, field in settings.model_fields.items()}
    return {
        name: annotation
        for name, annotation in fields.items()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel)
    }


def _path(raw: Table, detail: ErrorDetails) -> tuple[str, ...]:
    """Return the keys that lead to the fault, without places in lists and pydantic's own marks."""
    keys: list[str] = []
    node: Any = raw
    for part in detail["loc"]:
        if isinstance(node, dict) and part in node:
            keys.append(str(part))
            node = node[part]
    last = detail["loc"][-1] if detail["loc"] else 0
    missing = detail["type"] == "missing" and isinstance(last, str)
    return (*keys, str(last)) if missing else tuple(keys)


def _problem(
    tables: Mapping[str, type[BaseModel]], raw: Table, path: tuple[str, ...], detail: ErrorDetails
) -> str:
    """Return what is wrong at `path`: table, key, what was got, what is allowed."""
    if not path:
        return f"{detail['msg']}."
    inside, key = (path[0], path[1]) if len(path) > 1 else ("", path[0])
    prefix = f"[{inside}] " if inside else ""
    if detail["type"] == "value_error":
        at = inside or (key if isinstance(raw[key], dict) else "")
        return (f"[{at}] " if at else "") + str(detail["ctx"]["error"])
    if detail["type"] == "extra_forbidden":
        name = f"table [{key}]" if not inside and isinstance(raw[key], dict) else key
        return f"{prefix}{name} is not a key here.{_known(tables, inside, key)}"
    values = raw.get(inside, {}) if inside else raw
    if key not in values:
        description = tables[inside].model_fields[key].description
        return f"{prefix}{key} is missing. Expected: {description}"
    value = _written(values[key])
    schema = tables[inside].model_json_schema()["properties"][key]
    return f"{prefix}{key} = {value} is not {_allowed(schema)}."


def _known(tables: Mapping[str, type[BaseModel]], inside: str, key: str) -> str:
    """Return which keys there are: the nearest, or the table where `key` belongs, then all."""
    known = sorted(tables[inside].model_fields)
    homes = [name for name, table in tables.items() if key in table.model_fields]
    hint = nearest(key, known)
    if homes:
        hint = f" It belongs in [{homes[0]}]." if homes[0] else " It belongs above the tables."
    return f"{hint} Known: {', '.join(known)}."


def _written(value: object) -> str:
    """Return `value` about as TOML writes it, at most a line of it."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."


def _allowed(schema: Mapping[str, Any]) -> str:
    """Return a JSON schema in words."""
    if "anyOf" in schema:
        choices = [_allowed(part) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(choices))
    if "enum" in schema or "const" in schema:
        return " or ".join(json.dumps(word) for word in schema.get("enum", [schema.get("const")]))
    if "examples" in schema:
        return f"text like {json.dumps(schema['examples'][0])}"
    if "prefixItems" in schema:
        entries = schema["prefixItems"]
        return f"a list in [ ] of {len(entries)}, each {_allowed(entries[0])}"
    if "items" in schema:
        least = ", not empty," if schema.get("minItems") else ","
        return f"a list in [ ]{least} each entry {_allowed(schema['items'])}"
    return _NOUNS.get(schema.get("type", ""), "a table") + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {
        "minimum": "of at least",
        "exclusiveMinimum": "above",
        "maximum": "of at most",
        "exclusiveMaximum": "below",
        "multipleOf": "a multiple of",
    }
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}"
    found = [f"{word} {schema[key]}" for key, word in words.items() if key in schema]
    if schema.get("minLength"):
        found.append("that is not empty")
    return " " + " and ".join(found) if found else ""
