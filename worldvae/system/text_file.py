"""Text files that are replaced as a whole."""

from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write a file as UTF-8; a reader, also after a crash, finds either the old file or the new one.

    Raises:
        OSError: If the file cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(text.encode("utf-8"))  # not as text: a system's own ends of lines would change what is kept
    part.replace(path)
