"""Download of one file: resumable, with bounded retries, a progress bar and a check of what came."""

from __future__ import annotations

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from aiida_losiko.core.errors import LosikoError

CHUNK = 1 << 18
"""Bytes read at a time."""


@dataclass(frozen=True)
class RemoteFile:
    """A public file: its name here, its address, and its size (bytes) and md5 where they are known."""

    name: str
    url: str
    size: int | None = None
    md5: str | None = None


class _AgainError(Exception):
    """The server sent something that cannot be appended to what is there; not an error for the user."""


def md5_of(path: Path) -> str:
    """Return the md5 of a file in hexadecimal (a check against accidents, not against forgery)."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def download(
    remote: RemoteFile,
    folder: str | Path,
    *,
    progress: bool = True,
    retries: int = 5,
    timeout: float = 60.0,
    pause: float = 1.0,
) -> Path:
    """Fetch a file into a folder, continuing where an earlier attempt was cut off.

    Bytes are collected in ``<name>.part`` and the file gets its name once size and md5 are right.

    Parameters
    ----------
    remote : RemoteFile
        What to fetch.
    folder : str or Path
        Made if it is not there.
    progress : bool
        Show a progress bar on standard error.
    retries : int
        How many attempts in a row may bring nothing new.
    timeout : float
        Seconds without a byte before an attempt counts as failed.
    pause : float
        Seconds before the first repetition, doubled for every further one.

    Returns
    -------
    Path
        The file. One that is there already is checked and not fetched again.

    Raises
    ------
    LosikoError
        The server refuses or keeps failing (what came so far stays for the next attempt), or the file is not the one
        expected (it stays as well and has to be removed by hand).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    target, part = folder / remote.name, folder / f"{remote.name}.part"
    if target.exists():
        _verify(target, remote)
        return target
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        if before and before == remote.size:
            break
        try:
            _attempt(remote, part, progress=progress, timeout=timeout)
            break
        except urllib.error.HTTPError as exc:
            if exc.code < 500 and exc.code not in (408, 429):
                raise LosikoError(
                    f"{remote.url}: the server answers {exc.code} {exc.reason}; "
                    f"get {remote.name} with a browser and put it into {folder}"
                ) from exc
            reason = f"{exc.code} {exc.reason}"
        except (OSError, http.client.HTTPException, _AgainError) as exc:
            reason = str(exc) or type(exc).__name__
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures > retries:
            raise LosikoError(
                f"{remote.url}: no success in {retries + 1} attempts ({reason.splitlines()[0]}); {after} bytes "
                f"are kept in {part}: run the same again to continue, or put {remote.name} into {folder} by hand"
            )
        time.sleep(pause * 2 ** min(failures, 5))
    _verify(part, remote)
    part.replace(target)
    return target


def _attempt(remote: RemoteFile, part: Path, *, progress: bool, timeout: float) -> None:
    """Ask for what is missing and append it; an exception if the end of the file was not reached."""
    from tqdm import tqdm

    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(remote.url, headers={"User-Agent": "aiida-losiko", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as exc:
        if exc.code == 416 and start:
            # Nothing lies beyond what is there: the checks of size and md5 tell whether that is right.
            return
        raise
    with response:
        total = _total_size(response, start)
        if response.status == 200:
            start = 0  # the server does not resume, so that what comes is the whole file
        bar = tqdm(
            desc=remote.name,
            initial=start,
            total=total,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            disable=not progress,
        )
        with part.open("r+b" if start else "wb") as stream, bar:
            stream.seek(start)
            received = start
            while chunk := response.read(CHUNK):
                stream.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
    if total is not None and received < total:
        raise _AgainError(f"the connection ended after {received} of {total} bytes")


def _total_size(response: http.client.HTTPResponse, start: int) -> int | None:
    length = response.headers.get("Content-Length")
    if response.status == 200:
        return int(length) if length else None
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if match and int(match[1]) == start:
            if match[2] != "*":
                return int(match[2])
            return start + int(length) if length else None
        raise _AgainError("the server sent another part of the file than was asked for")
    raise _AgainError(f"the server answered {response.status} {response.reason}")


def _verify(path: Path, remote: RemoteFile) -> None:
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        raise LosikoError(
            f"{path} has {size} bytes, expected are {remote.size}; it is not {remote.name} of {remote.url}: "
            "remove it and run the same again"
        )
    if remote.md5 is not None:
        found = md5_of(path)
        if found != remote.md5:
            raise LosikoError(
                f"{path} has the md5 {found}, expected is {remote.md5}; it is not {remote.name} of {remote.url}: "
                "remove it and run the same again"
            )
