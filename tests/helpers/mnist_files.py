"""Files in MNIST's format, made by hand."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import torch

from benchmark.data.base import fingerprint
from benchmark.data.images import Mnist, hold_out


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def small_mnist(root: Path, packed: bool) -> tuple[type[Mnist], dict[str, np.ndarray]]:
    """MNIST over 30 + 10 random images, written under `root`."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 30), ("t10k", 10)):
        arrays[f"{part}-images-idx3-ubyte"] = random.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = random.integers(0, 10, n, dtype=np.uint8)
    folder = root / Mnist.folder
    folder.mkdir(parents=True)
    checksums: dict[str, tuple[str, str | None]] = {}
    for name, array in arrays.items():
        content = idx(array)
        plain = hashlib.sha256(content).hexdigest()
        content = gzip.compress(content, mtime=0) if packed else content
        (folder / (f"{name}.gz" if packed else name)).write_bytes(content)
        checksums[name] = (hashlib.sha256(content).hexdigest(), plain)

    class Small(Mnist):
        mirrors = ()
        files = checksums
        validation = 6
        split_sha256 = fingerprint(*hold_out(torch.arange(30), 6, seed=0))

    return Small, arrays
