"""OPTIMADE databases by name, and what they call properties that the OPTIMADE standard does not have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiida_losiko.core.checks import is_real
from aiida_losiko.core.errors import LosikoError, did_you_mean

OPTIMADE_REFERENCE = "10.1038/s41597-021-00974-z"
"""Andersen et al., Sci. Data 8, 217 (2021): what to cite for a database that the table does not hold."""


@dataclass(frozen=True)
class Dialect:
    """Names of a provider's own properties, with its prefix.

    Parameters
    ----------
    hull : str
        Energy above hull (eV/atom); with dots where it lies within a dictionary. Empty: the provider gives none.
    by_thermo_type : bool
        ``hull`` is a dictionary of dictionaries, by the set of calculations that makes the hull (Materials Project).
        Their names hold a ``+``, which no OPTIMADE filter can, so that this one is applied to what comes.
    space_group, space_group_symbol : str
        Number and Hermann-Mauguin symbol of the space group, where these are not the standard's own.
    """

    hull: str = ""
    by_thermo_type: bool = False
    space_group: str = ""
    space_group_symbol: str = ""

    def fields(self) -> list[str]:
        """Return the properties to ask for."""
        names = (self.hull.partition(".")[0], self.space_group, self.space_group_symbol)
        return [name for name in names if name]

    def energy_above_hull(self, attributes: Mapping[str, Any], thermo_type: str) -> float | None:
        """Return what an entry says (eV/atom), None where it says nothing.

        JARVIS writes -99999 or ``na`` for what it does not know; others leave the value out.
        """
        value: Any = attributes
        for key in self.hull.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if self.by_thermo_type and isinstance(value, Mapping):
            by_name = {str(name).lower(): each for name, each in value.items()}
            chosen = by_name.get(thermo_type.lower())
            value = chosen.get("energy_above_hull") if isinstance(chosen, Mapping) else None
        return float(value) if is_real(value) and value > -1000 else None


# By the prefix that the server itself says. Sources: Materials Project: emmet.core.optimade.OptimadeMaterialsDoc;
# OQMD: qmpy.rester serializers of its OPTIMADE API; Alexandria and JARVIS: their /info/structures; odbx: its
# maintainer in materialsproject/emmet#375. The loader makes sure that the server lists the property.
DIALECTS: dict[str, Dialect] = {
    "mp": Dialect("_mp_stability", by_thermo_type=True),
    "alexandria": Dialect("_alexandria_hull_distance", space_group="_alexandria_space_group"),
    "oqmd": Dialect("_oqmd_stability", space_group_symbol="_oqmd_spacegroup"),
    "jarvis": Dialect("_jarvis_ehull", space_group="_jarvis_spg_number", space_group_symbol="_jarvis_spg_symbol"),
    "odbx": Dialect("_odbx_thermodynamics.hull_distance"),
}


@dataclass(frozen=True)
class Database:
    """One OPTIMADE database: its address without the version, and what to cite (DOI)."""

    base_url: str
    reference: str = OPTIMADE_REFERENCE


DATABASES: dict[str, Database] = {
    "mp": Database("https://optimade.materialsproject.org", "10.1063/1.4812323"),
    "alexandria": Database("https://alexandria.icams.rub.de/pbe", "10.1002/adma.202210788"),
    "alexandria.pbesol": Database("https://alexandria.icams.rub.de/pbesol", "10.1002/adma.202210788"),
    "oqmd": Database("https://oqmd.org/optimade", "10.1007/s11837-013-0755-4"),
    "jarvis": Database("https://jarvis.nist.gov/optimade/jarvisdft", "10.1038/s41524-020-00440-1"),
    "odbx": Database("https://optimade.odbx.science"),
    "aflow": Database("https://aflow.org/API/optimade", "10.1016/j.commatsci.2012.02.005"),
    "cod": Database("https://www.crystallography.net/cod/optimade", "10.1093/nar/gkr900"),
    "mcloud.mc3d": Database("https://aiida.materialscloud.org/mc3d/optimade"),
}
"""The names are those of pymatgen's ``OptimadeRester.aliases``; any other database goes by its ``base_url``."""


def find_database(provider: str, base_url: str) -> tuple[str, str]:
    """Return the name (empty where the table has none) and the address of a database.

    Raises
    ------
    LosikoError
        Neither or both are given, the name is unknown, or the address cannot be one.
    """
    if bool(provider) == bool(base_url):
        raise LosikoError(
            f"source optimade needs one of provider and base_url, {'both' if provider else 'neither'} given; "
            f"providers are {', '.join(DATABASES)}"
        )
    if provider:
        if provider not in DATABASES:
            raise LosikoError(
                f"unknown OPTIMADE provider {provider!r}{did_you_mean(provider, DATABASES)}; allowed are "
                f"{', '.join(DATABASES)}, or give the address of another one as base_url"
            )
        return provider, DATABASES[provider].base_url
    address = _address(base_url)
    for name, database in DATABASES.items():
        if database.base_url == address:
            return name, address
    return "", address


def _address(base_url: str) -> str:
    """Return the address without a version and a slash at its end."""
    import re
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(base_url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or parts.query or parts.fragment:
        raise LosikoError(f"base_url {base_url!r} is no address of an OPTIMADE server; give one like https://host/path")
    if parts.username or parts.password:
        # The address becomes part of the account of where structures come from.
        raise LosikoError("base_url holds a name or password, which would be recorded; give the address without them")
    return re.sub(r"(/v\d+(\.\d+)*)?/*$", "", base_url)
