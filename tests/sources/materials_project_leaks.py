"""A program for test_materials_project_key: asks in every way that may go wrong, and says all that it can say.

Everything that comes or is raised is printed in full, local variables of every frame of a traceback included; logging
is on at its lowest level, also of the HTTP libraries. The key must not be in it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "servers"))
logging.basicConfig(level=logging.DEBUG, filename="everything.log")

from materials_project import running  # noqa: E402

from aiida_losiko.sources import load_source  # noqa: E402

QUICK = {"pause": 0.01, "max_seconds": 30.0, "timeout": 10.0, "retries": 1}


def tell(label: str, server, **options) -> None:
    """Ask and print the answer or the error, whatever it is."""
    try:
        info, records = load_source("materials_project", endpoint=server.address, **{**QUICK, **options})
    except Exception as exc:
        print(f"{label}: {type(exc).__name__}: {exc} {exc!r} {exc.__dict__} {exc.__cause__!r} {exc.__context__!r}")
        print("".join(traceback.TracebackException.from_exception(exc, capture_locals=True).format()))
    else:
        print(f"{label}: {len(records)} records")
        print(repr(info), info.to_dict(), info.query, repr(records))
        print(json.dumps([{**record.properties, **record.atoms.info} for record in records]))


def main() -> None:
    warnings.simplefilter("always")
    key = os.environ.pop("EXPECTED_KEY")
    with running() as server:
        server.key = key
        server.repeats_the_key = True
        tell("success", server, chemsys="Si-O")
        tell("disordered", server, chemsys="Li-Co-O")
        tell("another thermo type", server, chemsys="C", thermo_type="R2SCAN")
        tell("empty", server, chemsys="Si-O", num_sites=1)
        tell("version", server, chemsys="Si", database_version="1999.01.01")
        for fault in ("429:0", "429:9999", "500", "404", "drop", "cut", "garbage", "slow:3"):
            server.faults.clear()
            server.fail(fault, times=9)
            tell(fault, server, chemsys="Si", timeout=1.0)
        server.faults.clear()
        server.fail("redirect:http://localhost:9/")
        tell("redirect", server, chemsys="Si")
        server.faults.clear()
        for status in (401, 403):
            server.key, server.refusal = "another", status
            tell(f"refused {status}", server, chemsys="Si")
        server.heartbeat_status = 500
        tell("heartbeat", server, chemsys="Si")
        server.heartbeat_status = 404
        tell("no service", server, chemsys="Si")
    tell("nobody", server, chemsys="Si")
    if "MP_API_KEY" in os.environ:
        os.environ["MP_API_KEY"] = key + " " + key
    tell("bad key", server, chemsys="Si")
    print("done")


if __name__ == "__main__":
    main()
