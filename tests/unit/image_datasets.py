"""Datasets of the library datasets, made of a folder of images, in the forms that it can be read from."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit


def rows_of(root: Path, split: str) -> list[dict[str, Any]]:
    """Content, name and class of each image below root/split, in the order of their names."""
    files = sorted(file for file in (root / split).rglob("*") if file.is_file())
    return [{"image": {"bytes": file.read_bytes(), "path": file.name}, "label": file.parent.name} for file in files]


def dataset_of(rows: Sequence[dict[str, Any]], image_type: Any = None) -> Any:  # noqa: ANN401  a feature; a Dataset
    """A dataset with columns image and label."""
    from datasets import ClassLabel, Dataset, Features, Image

    classes = ClassLabel(names=sorted({row["label"] for row in rows}))
    encoded = Dataset.from_list(list(rows), Features({"image": Image(decode=False), "label": classes}))
    return encoded.cast_column("image", Image() if image_type is None else image_type)


def saved(root: Path, out: Path) -> Path:
    """The images below root/train and root/test, as ``save_to_disk`` writes them."""
    from datasets import DatasetDict

    DatasetDict({split: dataset_of(rows_of(root, split)) for split in ("train", "test")}).save_to_disk(out)
    return out


@contextmanager
def dataset_hub(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder's files as the dataset user/photos of a Hub. Yields its address, and names of files downloaded."""
    files, downloads, commit = {file.name: file.read_bytes() for file in root.iterdir()}, list[str](), "1" * 40

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            path = urlsplit(self.path).path
            name = path.rpartition("/")[2]
            if path.startswith("/api/datasets/user/photos") and "/tree/" not in path:
                siblings = [{"rfilename": file} for file in files]
                self.send(200, json.dumps({"id": "user/photos", "sha": commit, "siblings": siblings}).encode())
            elif path == f"/api/datasets/user/photos/tree/{commit}":
                sizes = {file: len(content) for file, content in files.items()}
                tree = [{"type": "file", "path": file, "size": size, "oid": commit} for file, size in sizes.items()]
                self.send(200, json.dumps(tree).encode())
            elif path.startswith("/datasets/user/photos/resolve/") and name in files:
                downloads.extend([name] if self.command == "GET" else [])
                self.send(200, files[name])
            else:
                self.send(404, b"", code="RepoNotFound" if "photos" not in path else "EntryNotFound")

        do_GET = do_HEAD = answer

        def send(self, status: int, content: bytes, code: str = "") -> None:
            self.send_response(status)
            headers = {"Content-Length": str(len(content)), "X-Repo-Commit": commit, "X-Error-Code": code}
            for name, value in (headers | {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", downloads
        server.shutdown()
