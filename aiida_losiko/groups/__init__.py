"""Groups of nodes: named releases of databases."""

from __future__ import annotations

from aiida_losiko.groups.database import DatabaseGroup
from aiida_losiko.groups.releases import add_release, find_release, list_releases

__all__ = ["DatabaseGroup", "add_release", "find_release", "list_releases"]
