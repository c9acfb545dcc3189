from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources import download as module
from aiida_losiko.sources.download import RemoteFile, download
from aiida_losiko.sources.qm9 import ARCHIVE, UNCHARACTERIZED, download_qm9, read_qm9

from .qm9_files import UNCHARACTERIZED as LIST_TEXT
from .qm9_files import write_archive

CONTENT = bytes(range(256)) * 4096  # 1 MiB, four chunks


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files``; cuts the connection ``server.cuts`` times halfway, resumes if ``server.ranges``."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append(self.headers.get("Range"))
        if server.statuses:
            status = server.statuses.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = server.files[self.path]
        start = 0
        if server.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if server.cuts > 0:
            server.cuts -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(body)


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests, server.statuses = {"/file": CONTENT}, [], []
    server.cuts, server.ranges = 0, True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def remote(server, content=CONTENT, **changes) -> RemoteFile:
    facts = {"size": len(content), "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(), **changes}
    return RemoteFile("file", f"http://127.0.0.1:{server.server_address[1]}/file", **facts)


def get(server, folder, **changes):
    return download(remote(server, **changes), folder, progress=False, retries=2, pause=0.0, timeout=10)


def test_plain_download_and_no_second_one(server, tmp_path):
    path = get(server, tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert [item.name for item in path.parent.iterdir()] == ["file"]
    get(server, path.parent)
    assert server.requests == [None]


@pytest.mark.parametrize("known", [True, False])
def test_a_cut_connection_is_continued(server, tmp_path, known):
    server.cuts = 1
    path = get(server, tmp_path, **({} if known else {"size": None}))
    assert path.read_bytes() == CONTENT
    assert server.requests == [None, f"bytes={len(CONTENT) // 2}-"]


def test_an_earlier_part_is_continued(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == ["bytes=1000-"]


def test_a_complete_part_is_only_checked(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == []
    (tmp_path / "file").replace(tmp_path / "file.part")
    assert get(server, tmp_path, size=None).read_bytes() == CONTENT  # the server says 416


def test_a_server_that_cannot_resume_starts_anew(server, tmp_path):
    server.ranges = False
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_retries_are_bounded_and_keep_what_came(server, tmp_path):
    server.statuses = [503] * 10
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    with pytest.raises(LosikoError, match=r"no success in 3 attempts.*503.*1000 bytes are kept") as excinfo:
        get(server, tmp_path)
    assert "\n" not in str(excinfo.value)
    assert len(server.requests) == 3
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:1000]
    server.statuses = [503, 202]
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_a_refusal_is_final(server, tmp_path):
    server.statuses = [404]
    with pytest.raises(LosikoError, match="answers 404"):
        get(server, tmp_path)
    assert len(server.requests) == 1


def test_nobody_listens(server, tmp_path):
    gone = RemoteFile("file", "http://127.0.0.1:9/file")
    with pytest.raises(LosikoError, match="no success in 1 attempts"):
        download(gone, tmp_path, progress=False, retries=0, pause=0.0, timeout=5)


def test_wrong_bytes_are_an_error_and_stay(server, tmp_path):
    wrong = b"y" + CONTENT[1:]
    server.files["/file"] = wrong
    with pytest.raises(LosikoError, match=r"file\.part has the md5 \w+, expected is \w+.*remove it") as excinfo:
        get(server, tmp_path)
    assert "\n" not in str(excinfo.value)
    assert (tmp_path / "file.part").read_bytes() == wrong
    assert not (tmp_path / "file").exists()
    server.files["/file"] = CONTENT[:-5]
    (tmp_path / "file.part").unlink()
    with pytest.raises(LosikoError, match=f"{len(CONTENT) - 5} bytes, expected are {len(CONTENT)}"):
        get(server, tmp_path)


def test_a_wrong_file_in_place_is_an_error_and_stays(server, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(LosikoError, match="has 4 bytes"):
        get(server, tmp_path)
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert server.requests == []


def test_progress_bar_counts_all_bytes(server, tmp_path, capsys):
    download(remote(server), tmp_path, progress=True, pause=0.0)
    assert "1.00M/1.00M" in capsys.readouterr().err


def test_download_qm9_then_read_it(server, tmp_path, monkeypatch):
    archive = write_archive(tmp_path / "source.tar.bz2", (1, 2, 4)).read_bytes()
    server.files = {"/a": archive, "/u": LIST_TEXT.encode()}
    base = f"http://127.0.0.1:{server.server_address[1]}"
    files = [
        RemoteFile(known.name, base + address, len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())
        for known, address, content in ((UNCHARACTERIZED, "/u", LIST_TEXT.encode()), (ARCHIVE, "/a", archive))
    ]
    monkeypatch.setattr(module, "CHUNK", 64)
    server.cuts = 1
    path = download_qm9(tmp_path / "qm9", progress=False, files=files, pause=0.0)
    assert path.name == "dsgdb9nsd.xyz.tar.bz2"
    assert [record.identifier for record in read_qm9(path)] == ["gdb_1", "gdb_2"]


def test_nothing_is_fetched_by_reading(server, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a reader went to the network")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    path = write_archive(tmp_path / "a.tar.bz2", (1,))
    with pytest.warns(UserWarning, match="not left out"):
        assert len(list(read_qm9(path))) == 1
    with pytest.raises(LosikoError, match="download_qm9"):
        read_qm9(tmp_path / "missing")


def test_official_facts():
    assert ARCHIVE.md5 == "ad1ebd51ee7f5b3a6e32e974e5d54012" and ARCHIVE.size == 86144227
    assert UNCHARACTERIZED.md5 == "a361887bacb427b8a0ce7903d92a53b4" and UNCHARACTERIZED.size == 486752
