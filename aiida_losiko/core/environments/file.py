"""The file of an environment database: one safetensors file, without pickle, checked and memory-mapped.

The layout is that of safetensors (eight bytes with the length of a JSON header, the header, the tensors one after the
other), so any program that knows the format can read it. The header is written here, in a fixed order, because the
package writes its metadata in an order that changes from run to run, and equal databases are to be equal files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.files import temporary_target, to_jsonable

if TYPE_CHECKING:
    import torch

FORMAT = "losiko-environments/1"
_FAMILY = "losiko-environments/"
_DTYPES = {"float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32", "uint8": "U8"}
_LARGEST_HEADER = 100_000_000  # the limit of safetensors
_BLANK = b'"header_sha256":"' + b"0" * 64 + b'"'
_REMEDY = "get the file again or build the database anew"


class Tensors(Mapping[str, "torch.Tensor"]):
    """Named tensors in memory."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """See the class."""
        self._tensors = dict(tensors)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a tensor."""
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._tensors)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without touching its content."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> str:
        """Return the type of a tensor, such as "float32", without touching its content."""
        return str(self._tensors[name].dtype).removeprefix("torch.")


class _Entry(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    sha256: str


class MappedTensors(Tensors):
    """Tensors of a file: mapped into memory when first asked for, and compared with their checksum then.

    Parameters
    ----------
    path : Path
        The file.
    entries : mapping
        Type, shape and checksum of each tensor.
    """

    def __init__(self, path: Path, entries: Mapping[str, _Entry]) -> None:
        """See the class."""
        from safetensors import safe_open

        super().__init__({})
        self._path = path
        self._entries = dict(entries)
        # safetensors maps the file once and hands out tensors that look into the map; nothing is copied.
        self._file = safe_open(path, framework="pt")

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a tensor whose bytes have been found to be those that were written."""
        if name not in self._tensors:
            expected = self._entries[name].sha256  # KeyError for unknown names, as of any mapping
            tensor: torch.Tensor = self._file.get_tensor(name)  # type: ignore[no-untyped-call]
            if _digest(tensor) != expected:
                raise LosikoError(f"{self._path}: the checksum of {name!r} is wrong, the file was altered; {_REMEDY}")
            self._tensors[name] = tensor
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._entries)

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def is_of(self, other: MappedTensors) -> bool:
        """Whether both files have the same tensors, as their headers tell."""
        return self._entries == other._entries

    @property
    def checked(self) -> tuple[str, ...]:
        """Names of the tensors that were read and checked so far."""
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without touching its content."""
        return self._entries[name].shape

    def dtype(self, name: str) -> str:
        """Return the type of a tensor, such as "float32", without touching its content."""
        return self._entries[name].dtype


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    import numpy as np

    return tensor.detach().cpu().contiguous().numpy().reshape(-1).view(np.uint8).data


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(_bytes_of(tensor)).hexdigest()


def write_tensors(path: str | Path, tensors: Tensors, header: Mapping[str, Any]) -> None:
    """Write tensors and a header; equal content gives equal bytes.

    Parameters
    ----------
    path : str or Path
        Written under another name in the same folder, then moved, so that it never holds half a database.
    tensors : Tensors
        Of the types float32, float64, int32, int64 and uint8.
    header : mapping
        JSON-able values by name.

    Raises
    ------
    LosikoError
        The header has no JSON form, or the file cannot be written.
    """
    path = Path(path)
    # The widest numbers first, which keeps every tensor aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    table: dict[str, Any] = {}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].numel() * tensors[name].element_size()
        table[name] = {
            "dtype": _DTYPES[tensors.dtype(name)],
            "shape": list(tensors.shape(name)),
            "data_offsets": [begin, end],
        }
    checksums = {name: _digest(tensors[name]) for name in names}
    metadata = {key: _to_json(key, value) for key, value in {**header, "checksums": checksums}.items()}
    table["__metadata__"] = {**metadata, "format": FORMAT, "header_sha256": "0" * 64}
    raw = json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    raw = raw.replace(_BLANK, b'"header_sha256":"' + hashlib.sha256(raw).hexdigest().encode() + b'"')
    if len(raw) > _LARGEST_HEADER:
        raise LosikoError(f"the metadata take {len(raw)} bytes, allowed are {_LARGEST_HEADER}: keep less of them")
    with temporary_target(path) as target, target.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name in names:
            file.write(_bytes_of(tensors[name]))


def _to_json(key: str, value: Any) -> str:
    try:
        return json.dumps(to_jsonable(value), sort_keys=True, ensure_ascii=False)
    except TypeError as exc:
        raise LosikoError(f"{key} cannot be written to a file: it holds {exc}; use JSON values only") from exc


def open_tensors(path: str | Path) -> tuple[dict[str, Any], MappedTensors]:
    """Open a file: the header is read and checked, the size is compared with it, the tensors are not read.

    Returns
    -------
    header : dict
        The values that were given to `write_tensors`.
    tensors : MappedTensors
        The tensors, read and checked on first use.

    Raises
    ------
    LosikoError
        The file does not exist, is of another kind or version, truncated, or its header was altered.
    """
    path = Path(path)
    raw, size = _read_header(path)
    foreign = f"{path} is not an environment database: expected a file of the format {FORMAT}"
    way_out = "make one with `losiko database build`"
    try:
        table = json.loads(raw)
        metadata = table.pop("__metadata__")
        found = str(metadata["format"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        if _FAMILY.encode() in raw:
            raise LosikoError(f"{path}: the header is damaged, the file was altered; {_REMEDY}") from exc
        raise LosikoError(f"{foreign}; {way_out}") from exc
    if not found.startswith(_FAMILY):
        raise LosikoError(f"{foreign}, found {found[:40]!r}; {way_out}")
    digest = str(metadata.get("header_sha256")).encode()
    blank = raw.replace(b'"header_sha256":"' + digest + b'"', _BLANK)
    if found == FORMAT and hashlib.sha256(blank).hexdigest().encode() != digest:
        raise LosikoError(f"{path}: the checksum of the header is wrong, the file was altered; {_REMEDY}")
    if found != FORMAT:
        raise LosikoError(f"{path} has the format {found!r}, this version reads {FORMAT!r}: update aiida-losiko")
    expected = 8 + len(raw) + max((entry["data_offsets"][1] for entry in table.values()), default=0)
    if size != expected:
        state = "truncated" if size < expected else "too long"
        raise LosikoError(f"{path} is {state}: it has {size} bytes, its header tells of {expected}; {_REMEDY}")
    header = {key: json.loads(value) for key, value in metadata.items() if key not in ("format", "header_sha256")}
    checksums = header.pop("checksums")
    kinds = {short: name for name, short in _DTYPES.items()}
    entries = {
        name: _Entry(kinds[entry["dtype"]], tuple(entry["shape"]), checksums[name]) for name, entry in table.items()
    }
    return header, MappedTensors(path, entries)


def _read_header(path: Path) -> tuple[bytes, int]:
    """Return the bytes of the header and the size of the file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            start = file.read(min(length, _LARGEST_HEADER))
    except OSError as exc:
        raise LosikoError(f"cannot read {path}: {exc.strerror}; give a file made by `losiko database build`") from exc
    if length > _LARGEST_HEADER or len(start) < length or length == 0:
        if _FAMILY.encode() in start:
            raise LosikoError(f"{path} is truncated or was altered: its header is not complete; {_REMEDY}")
        raise LosikoError(
            f"{path} is not an environment database: expected a file of the format {FORMAT}; "
            "make one with `losiko database build`"
        )
    return start, size
