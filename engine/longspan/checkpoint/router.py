"""Router: the modules that a text goes through depend on the task of the call.

router_config.json, or config.json of the older Asym:
{"types": {id: class}, "structure": {route: [id, …]}, "parameters": {default_route, allow_empty_key, route_mappings}}
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from .config import Fields
from .entries import ROUTERS, Entry, read_entry

FILES = ("router_config.json", "config.json")
MODALITY = "text"
UNKNOWN_TASK = ""
"""A task that no Router knows: no name is empty."""


@dataclass(frozen=True, slots=True)
class Router:
    """What the file of one Router says.

    Attributes:
        routes: name → modules, which may be Routers too.
        mappings: (task, modality) → name; None stands for any.
        default: the route of a call without a task.
    """

    routes: Mapping[str, tuple[Entry, ...]]
    mappings: Mapping[tuple[object, object], str]
    default: str | None

    @property
    def tasks(self) -> Iterator[str]:
        """Those that lead to a route of their own."""
        yield from self.routes
        yield from (task for task, modality in self.mappings if isinstance(task, str) and modality in (MODALITY, None))

    def route(self, task: str | None) -> tuple[Entry, ...] | None:
        """The modules that a text of a task goes through, or None if sentence-transformers refuses it."""
        keys = ((task, MODALITY), (task, None), (None, MODALITY), (None, None))
        names = [self.mappings.get(key) for key in keys]
        names += [name for name in (task, MODALITY) if name in self.routes]
        names += [self.default] if task is None else []
        return next((self.routes[name] for name in names if name is not None), None)


def read_router(folder: Path) -> Router:
    """Reads the file of a Router.

    Raises:
        CheckpointNotFoundError: there is none.
        CheckpointError: it is damaged; the message names file and field.
    """
    place = next((folder / name for name in FILES if (folder / name).exists()), folder / FILES[0])
    fields = Fields.read(place)
    types, structure, parameters = (fields.table(name) for name in ("types", "structure", "parameters"))
    routes = {name: tuple(_modules(types, structure, name)) for name in structure.values}
    if not routes:
        raise fields.wrong("structure", "names no route")
    default = parameters.optional_text("default_route")
    if default is None and parameters.flag("allow_empty_key", default=True):
        default = next(iter(routes))
    if default is not None and default not in routes:
        raise parameters.wrong("default_route", f"is '{default}'; the routes are {', '.join(routes)}")
    table = parameters.table("route_mappings")
    return Router(routes, dict(_mapping(table, key, routes) for key in table.values), default)


def _modules(types: Fields, structure: Fields, route: str) -> Iterator[Entry]:
    ids = structure.values[route]
    if not isinstance(ids, list) or not ids or not all(isinstance(name, str) and PurePath(name).parts for name in ids):
        raise structure.wrong(route, "must be a list of modules' names")
    return (read_entry(types, module, module, module) for module in ids)


def _mapping(table: Fields, key: str, routes: Mapping[str, object]) -> tuple[tuple[object, object], str]:
    """One pair; its key is written as Python writes a tuple."""
    try:
        pair = ast.literal_eval(key)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        pair = None
    if not isinstance(pair, tuple) or len(pair) != 2 or not all(map(_is_name, pair)):
        raise table.wrong(key, "must be named by a pair of task and modality")
    name = table.optional_text(key)
    if name is None or name not in routes:
        raise table.wrong(key, f"is '{name}'; the routes are {', '.join(routes)}")
    return pair, name


def _is_name(value: object) -> bool:
    """Whether it names a task or a modality, several of which come as a tuple."""
    return isinstance(value, str | None) or (isinstance(value, tuple) and all(isinstance(part, str) for part in value))


def tasks_of(entries: Iterable[Entry]) -> tuple[str, ...]:
    """The tasks that the Routers among the modules know, in their order."""
    found: dict[str, None] = {}
    for router in _routers(entries):
        found.update(dict.fromkeys(router.tasks))
    return tuple(found)


def expanded(entries: Iterable[Entry], task: str | None) -> tuple[Entry, ...] | None:
    """The modules with each Router replaced by its route for a task, or None if one of them has no such route."""
    chain: list[Entry] = []
    for entry in entries:
        if entry.kind not in ROUTERS:
            chain.append(entry)
            continue
        route = read_router(entry.folder).route(task)
        inner = None if route is None else expanded(route, task)
        if inner is None:
            return None
        chain += inner
    return tuple(chain)


def module_entries(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The modules, Routers and theirs among them."""
    for entry in entries:
        yield entry
        if entry.kind in ROUTERS:
            for route in read_router(entry.folder).routes.values():
                yield from module_entries(route)


def _routers(entries: Iterable[Entry]) -> Iterator[Router]:
    return (read_router(entry.folder) for entry in module_entries(entries) if entry.kind in ROUTERS)
