"""Named releases of databases: adding, finding and listing them."""

from __future__ import annotations

from typing import Any

from aiida.common.exceptions import IntegrityError, UniquenessError
from aiida.orm import QueryBuilder

from aiida_losiko.core.errors import LosikoError, did_you_mean
from aiida_losiko.data import EnvironmentDatabaseData
from aiida_losiko.data.deduplicate import HASH_EXTRA
from aiida_losiko.groups.database import DatabaseGroup

__all__ = ("add_release", "find_release", "list_releases")


def add_release(
    node: EnvironmentDatabaseData, name: str, description: str = "", *, force: bool = False
) -> DatabaseGroup:
    """Give a database a name that protocols can ask for.

    Parameters
    ----------
    node
        The database; it is stored if it is not yet.
    name
        What is in it, `@` and the date or version, and what else tells it apart after `/`: `Si-O@2026-11-20/0.3eV`.
    description
        For `verdi group show` and `list_releases`.
    force
        Let the same content have another name as well.

    Returns
    -------
    DatabaseGroup

    Raises
    ------
    LosikoError
        For a name that is no such name or is taken, for a node of another type, and for content that has a name.
    """
    DatabaseGroup.check_name(name)
    if not isinstance(node, EnvironmentDatabaseData):
        raise LosikoError(
            f"a release is of an EnvironmentDatabaseData, not of a {type(node).__name__}: give an output `database` of "
            "losiko.database"
        )
    taken = QueryBuilder().append(DatabaseGroup, filters={"label": name}).count()
    if taken:
        raise LosikoError(_taken(name))
    if not node.is_stored:
        node.store()
    others = [] if force else _names_of(node)
    if others:
        raise LosikoError(
            f"this database has the name {others[0]!r}: use that, or give force to have it under {name!r} as well"
        )
    try:
        group: DatabaseGroup = DatabaseGroup(name, description=description).store()
    except (IntegrityError, UniquenessError):
        raise LosikoError(_taken(name)) from None
    try:
        group.add_nodes(node)
    except BaseException:
        DatabaseGroup.collection.delete(int(group.pk or 0))
        raise
    return group


def find_release(name: str) -> EnvironmentDatabaseData:
    """Return the database of that name.

    Raises
    ------
    LosikoError
        If there is none, with the names that there are.
    """
    found = QueryBuilder().append(DatabaseGroup, filters={"label": str(name)}).first(flat=True)
    if found is None:
        names = [row["name"] for row in list_releases()]
        told = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") if names else "none"
        raise LosikoError(
            f"no release {name!r} in this profile{did_you_mean(name, names)}; there are: {told}; make one with "
            "losiko.database and aiida_losiko.groups.add_release"
        )
    database: EnvironmentDatabaseData = found.database
    return database


def list_releases() -> list[dict[str, Any]]:
    """Return the releases of this profile, by name.

    Returns
    -------
    list of dict
        `name`, `description`, `time` (when it was added), `pk` and `uuid` of the database, its `species`,
        `n_environments` (per species), `n_sources` and `protocol`.
    """
    builder = QueryBuilder().append(DatabaseGroup, tag="group", project=["label", "description", "time"])
    builder.append(EnvironmentDatabaseData, with_group="group", project="*")
    rows = []
    for label, description, time, node in builder.iterall():
        rows.append(
            {
                "name": label,
                "description": description or "",
                "time": time,
                "pk": node.pk,
                "uuid": node.uuid,
                "species": list(node.species),
                "n_environments": node.n_environments,
                "n_sources": node.n_sources,
                "protocol": node.protocol,
            }
        )
    return sorted(rows, key=lambda row: str(row["name"]))


def _names_of(node: EnvironmentDatabaseData) -> list[str]:
    """Return the names of releases with this content, sorted."""
    same = {"or": [{"uuid": node.uuid}, {HASH_EXTRA: node.base.caching.get_hash()}]}
    builder = QueryBuilder().append(EnvironmentDatabaseData, filters=same, tag="node")
    builder.append(DatabaseGroup, with_node="node", project="label")
    return sorted(builder.all(flat=True))


def _taken(name: str) -> str:
    return f"there is a release {name!r}, and releases do not change: give a new date or version"
