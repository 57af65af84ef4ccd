"""Files that are whole or absent, whatever interrupts the program."""

import errno
import os
from pathlib import Path

import cv2


def write_whole(path, data: bytes) -> None:
    """Writes a file under a temporary name of this process and renames it: nobody ever reads half of it, and two
    programs that write the same file do not write into each other's.

    Raises `OSError` that names the file and the next step.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {error.strerror}; make room or name another place, and run the same command again"
        ) from error
    finally:  # also when the program is interrupted
        temporary.unlink(missing_ok=True)


def append_line(path, line: str) -> None:
    """Adds a line to a file, whole or not at all: half a line that a full disk or an end of power left there goes away again.

    Raises `OSError` that names the file and the next step.
    """
    data = line.encode() + b"\n"
    try:
        with open(path, "ab+", buffering=0) as file:
            end = whole_lines(file)
            file.truncate(end)
            if file.write(data) < len(data):
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}; make room, and run the same command again") from error


def whole_lines(file) -> int:
    """How many bytes of a file that is open for reading are whole lines."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def encoded(ending: str, image, quality: int = 85) -> bytes:
    """A picture (H, W, 3) RGB or (H, W) as the bytes of a file with this ending: .jpg, or .png at its smallest."""
    options = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, quality], ".png": [cv2.IMWRITE_PNG_COMPRESSION, 9]}
    if ending not in options:
        raise OSError(f"a picture cannot be written as {ending or 'a file without an ending'}; use .jpg or .png")
    done, data = cv2.imencode(ending, image[..., ::-1] if image.ndim == 3 else image, options[ending])
    if not done:
        raise OSError(f"a picture of shape {image.shape} cannot be written as {ending}")
    return data.tobytes()


def write_picture(path, image, quality: int = 85) -> None:
    """`encoded` into a file, by the file's own ending."""
    path = Path(path)
    write_whole(path, encoded(path.suffix, image, quality))
