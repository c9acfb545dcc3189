"""How the tests ask the local Materials Project."""

from __future__ import annotations

import os
from pathlib import Path

from aiida_losiko.sources import load_source

KEY_VARIABLES = ("MP_API_KEY", "PMG_MAPI_KEY", "MAPI_KEY", "PMG_CONFIG_FILE", "MP_API_ENDPOINT")
QUICK = {"pause": 0.01, "max_seconds": 60.0, "timeout": 20.0, "retries": 3}


def ask(service, selection=None, **options):
    """Load from the local service, impatiently."""
    return load_source("materials_project", None, selection, endpoint=service.address, **{**QUICK, **options})


def names(records) -> list[str]:
    return [record.identifier for record in records]


def real_entries() -> list[Path]:
    folder = Path(os.environ.get("LOSIKO_DATA", Path(__file__).resolve().parents[2] / "../shared/data")) / "mp"
    return sorted(folder.glob("mp_*.jsonl.xz"))
