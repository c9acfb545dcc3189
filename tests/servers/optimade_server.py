"""The reference OPTIMADE server (optimade-python-tools, in-memory backend) on loopback, with crystals as entries.

    python optimade_server.py --folder DIR [--port N] [--real FOLDER Si-O]

One process serves one database for every provider that is asked for, at http://127.0.0.1:PORT/<prefix>, and says
``ready PORT`` on standard output. Needs the extra ``tests``.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
from pathlib import Path
from typing import Any

import optimade_crystals as crystals

PAGE_LIMIT_MAX = 100
PREFIXES = ("mp", "alexandria", "oqmd", "jarvis", "cod")
LICENCES = {"mp": "https://spdx.org/licenses/CC-BY-4.0", "oqmd": "https://example.org/terms"}


def make_app(prefix: str, name: str, jsonl: Path, folder: Path) -> Any:
    """Return the application of one provider; it reads its entries from a file of OPTIMADE JSON lines."""
    from optimade.server.config import ServerConfig
    from optimade.server.create_app import create_app

    config = ServerConfig(
        insert_test_data=False,  # it would ask for the list of providers, in the network
        insert_from_jsonl=jsonl,
        mongo_database=name,
        page_limit=5,
        page_limit_max=PAGE_LIMIT_MAX,
        log_dir=folder,
        log_level="error",
        provider={"prefix": prefix, "name": f"Test of {prefix}", "description": "On loopback"},
        provider_fields={"structures": crystals.provider_fields(prefix)},
    )
    # Past the validator, which opens the address of the licence in the network.
    config.__dict__["license"] = LICENCES.get(prefix)
    return create_app(config, logger_tag=name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where to put the entries and logs")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--real", nargs=2, action="append", default=[], metavar=("FOLDER", "SYSTEM"))
    arguments = parser.parse_args()
    folder = arguments.folder
    # Both are read when the server is imported: no settings of the person, no logs in /var/log.
    os.environ["OPTIMADE_LOG_DIR"] = str(folder)
    os.environ["OPTIMADE_CONFIG_FILE"] = str(folder / "optimade.json")
    (folder / "optimade.json").write_text(json.dumps({"log_level": "error"}))

    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()
    for prefix in PREFIXES:
        path = folder / f"{prefix}.jsonl"
        crystals.write_jsonl(path, crystals.known_entries(prefix))
        app.mount(f"/{prefix}", make_app(prefix, prefix, path, folder))
    for data, system in arguments.real:
        path = folder / f"real-{system}.jsonl"
        crystals.write_jsonl(path, crystals.real_entries("mp", Path(data), system))
        app.mount(f"/real-{system}", make_app("mp", f"real-{system}", path, folder))

    listener = socket.socket()
    listener.bind(("127.0.0.1", arguments.port))
    listener.listen()
    print("ready", listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    main()
