"""A shipped model folder, read whole: both graphs are the ones that its manifest names, or nothing is read."""

import hashlib
import tomllib
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

MANIFEST = "manifest.toml"


class ModelError(Exception):
    """A model folder that cannot be used; names the file and says what to do."""


def read_model(folder: Path) -> tuple:
    """Trunk and head of a model folder as graphs, and its manifest as a dictionary.

    Raises `ModelError` where the manifest cannot be read or a graph is not the file whose SHA-256 it names: an export that
    was interrupted leaves no manifest, and files of two exports are not taken for one model.
    """
    folder = Path(folder)
    manifest = read_manifest(folder / MANIFEST)
    trunk, head = (read_graph(folder / f"{part}.onnx", manifest[part]["sha256"]) for part in ("trunk", "head"))
    return trunk, head, manifest


def read_manifest(path: Path) -> dict:
    """The manifest with what this program reads of it: the digests of both graphs and the person bias."""
    try:
        manifest = tomllib.loads(path.read_text())
        for part in ("trunk", "head"):
            str(manifest[part]["sha256"])
        float(manifest["person_bias"])
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist: this is no model folder, or its export was interrupted; export the model again") from error
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: no whole manifest ({type(error).__name__}: {error}); export the model again") from error
    return manifest


def read_graph(path: Path, digest: str) -> onnx.ModelProto:
    """One graph, whose file must have this SHA-256."""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ModelError(f"{path} is not the file that {MANIFEST} names; export the model again")
    try:
        return onnx.load_from_string(data)
    except DecodeError as error:
        raise ModelError(f"{path}: no ONNX file ({error}); export the model again") from error
