"""The key and the address of the Materials Project, looked up when they are needed and kept nowhere."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

from aiida_losiko.core.errors import LosikoError

ENDPOINT = "https://api.materialsproject.org/"
KEY_LENGTH = 32
KEY_PAGE = "https://materialsproject.org/api"
WITHOUT_KEY = "the embedded crystals (source reference_crystals) and OPTIMADE (source optimade) need none"


class NoKeyError(LosikoError):
    """No key is set at all, which is no mistake: there are sources that need none."""


def find_endpoint(endpoint: str | None) -> str:
    """Return the address of the service: the one given, ``MP_API_ENDPOINT``, or the official one.

    Raises
    ------
    LosikoError
        An address that would send the key unencrypted through a network, or that is none.
    """
    address = endpoint or os.environ.get("MP_API_ENDPOINT") or ENDPOINT
    parts = urlsplit(address)
    if parts.username or parts.password:
        raise LosikoError(
            "the endpoint holds a user name or password, which would be recorded with the query; give the address "
            "alone, such as " + ENDPOINT
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise LosikoError(f"endpoint {address!r} is no address of a service; give one such as {ENDPOINT}")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise LosikoError(
            f"endpoint {address!r} would send the key unencrypted; allowed are https:// and, on this machine, http://"
        )
    return address if address.endswith("/") else address + "/"


def find_key() -> str:
    """Return the key: ``MP_API_KEY``, or ``PMG_MAPI_KEY`` in the environment or in pymatgen's settings file.

    Raises
    ------
    NoKeyError
        There is none.
    LosikoError
        What is there cannot be one, or the settings file is damaged. The message never holds the key.
    """
    place, key = "MP_API_KEY", os.environ.get("MP_API_KEY")
    if not key:
        place, key = "PMG_MAPI_KEY", os.environ.get("PMG_MAPI_KEY") or os.environ.get("MAPI_KEY")
    if not key:
        place, key = _from_settings()
    key = (key or "").strip()
    length, fits = len(key), len(key) == KEY_LENGTH and key.isascii() and key.isalnum()
    if fits:
        return key
    del key  # a traceback that shows local variables does not show it
    if length:
        raise LosikoError(
            f"the key of the Materials Project in {place} has {length} characters and cannot be one; it has "
            f"{KEY_LENGTH} letters and digits: copy it again from {KEY_PAGE}"
        )
    raise NoKeyError(
        f"no key of the Materials Project: get one at {KEY_PAGE} and set MP_API_KEY, or PMG_MAPI_KEY in "
        f"~/.config/.pmgrc.yaml; {WITHOUT_KEY}"
    )


def _from_settings() -> tuple[str, str | None]:
    """Return the settings file that pymatgen would read, and the key in it.

    Not through pymatgen, which reads the file once per process and quotes its lines in a warning if it is damaged.
    """
    import yaml

    home = Path.home()
    candidates = [Path(os.environ.get("PMG_CONFIG_FILE") or home / ".config" / ".pmgrc.yaml"), home / ".pmgrc.yaml"]
    for path in candidates:
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            settings = None
            damaged = True
        else:
            damaged = not (settings is None or isinstance(settings, dict))
        if damaged:
            raise LosikoError(f"{path} cannot be read as YAML; write it as PMG_MAPI_KEY: <key>, or set MP_API_KEY")
        key = (settings or {}).get("PMG_MAPI_KEY")
        return str(path), None if key is None else str(key)
    return "", None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
