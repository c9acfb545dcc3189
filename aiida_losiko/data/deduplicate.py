"""Finding a stored node with the same content, so that nothing is stored twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from aiida.common.hashing import make_hash
from aiida.orm import Data, QueryBuilder

__all__ = ("find_stored", "store_once")

DataType = TypeVar("DataType", bound=Data)

#: The extra in which AiiDA keeps the hash that it computed when the node was stored.
HASH_EXTRA = "extras._aiida_hash"


def find_stored(node: DataType) -> DataType | None:
    """Return the oldest stored node of the same class and content as `node`, or None.

    Parameters
    ----------
    node
        A node, usually not stored yet. Content means class, attributes and repository files: what AiiDA hashes for
        caching. Labels, descriptions, extras and links do not count.

    Returns
    -------
    Data or None
        A stored node, never `node` itself, that may be used in its place.
    """
    return next(_same_nodes(node), None)


def store_once(node: DataType) -> DataType:
    """Return a stored node with the content of `node`: an existing one, else `node` itself, now stored.

    Nodes that came out of a process are passed over: an input that silently was the output of another calculation
    would drag that calculation into the provenance of what is made from it.

    Parameters
    ----------
    node
        A node, stored or not. A stored one is returned as it is.

    Returns
    -------
    Data
        A stored node.
    """
    if node.is_stored:
        return node
    for stored in _same_nodes(node):
        if stored.creator is None:
            return stored
    node.store()
    return node


def _same_nodes(node: DataType) -> Iterator[DataType]:
    builder = QueryBuilder(backend=node.backend)
    filters = {HASH_EXTRA: make_hash(node.base.caching.get_objects_to_hash())}
    builder.append(type(node), filters=filters, subclassing=False, tag="node")
    builder.order_by({"node": {"id": "asc"}})
    for (stored,) in builder.iterall():
        if stored.uuid != node.uuid and stored.base.caching.is_valid_cache:
            yield stored
