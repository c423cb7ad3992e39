"""Damage to checkpoints."""

from pathlib import Path


def flip_a_byte(folder: Path) -> Path:
    """Of the largest file of a checkpoint, which is returned."""
    files = [path for path in (folder / "arrays").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    return largest
