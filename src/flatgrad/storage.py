"""Arrays by name in a file of NumPy's format `.npz`, without pickle, written completely or not at all.

A save writes a new file beside the old one. The new file replaces the old one only after all its bytes have reached
the disk. A process that writes holds a lock on its new file. Every save removes new files that no process has locked,
such as the file of a process that was killed.

A load does not trust the file. First it reads the directory of the archive and the headers of the arrays: names, shapes
and types, which have to agree. Then it reads the numbers into memory of this size. No load ever reads a pickle.
"""
from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from flatgrad.arguments import path_of, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad._core import _Path

try:
    import fcntl
except ImportError:   # Windows
    fcntl = None

__all__ = ["load_arrays", "save_arrays", "write_file"]

KINDS = "biufcSUmM"              # the kinds of types: numbers, bools, text and times
TEMPORARY = re.compile(r"\.flatgrad-[0-9a-f]{16}\.tmp")
OLD = 24 * 3600.0                # seconds after which a temporary file counts as stale, on systems without locks
LONGEST_HEADER = 2**16           # bytes; the header of an array has some 120
LONGEST_NAME = 2**16 - 1         # bytes, the limit of the format
LARGEST = 2**32 - 1              # largest number of 4 bytes; with all bits set, the 4 bytes mean "look elsewhere"
MOST = 2**16 - 1                 # the same for 2 bytes
CHUNK = 2**20                    # bytes that one read returns
FREE, RATIO = 2**26, 100         # limits of compressed arrays: bytes in all, and bytes for each byte of the file
DATE = 0x21                      # 1980-01-01, so that equal arrays give equal files
MAGIC = b"\x93NUMPY"
HEADER = re.compile(rb"\{'descr':'([<>=|]?[biufcSUmM][0-9]{0,9}(?:\[[0-9]{0,9}[a-zA-Z]{1,2}\])?)',"
                    rb"'fortran_order':(True|False),'shape':\(((?:[0-9]{1,19}L?,){0,64}(?:[0-9]{1,19}L?)?)\),?\}")


# ---- arrays ----

def save_arrays(path: _Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to a file; the file is replaced only after all bytes have reached the disk.

    Parameters
    ----------
    path : str or path-like
        The path as it is: no ending is added. `write_file` explains links and devices.
    arrays : dict of str to array_like
        Arrays of numbers, bools or text, no objects. A name has no zero byte and at most 65,531 bytes.

    Raises
    ------
    OSError
        If the file cannot be written. A file that was there before has not changed.
    TypeError, ValueError
        If an argument is not as described, or an array contains objects that only pickle could write.

    Examples
    --------
    >>> import os, tempfile
    >>> from flatgrad.storage import load_arrays, save_arrays
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_arrays(os.path.join(folder, "x.npz"), {"a": [1.0, 2.0], "b/c": "text"})
    ...     load_arrays(os.path.join(folder, "x.npz"))
    {'a': array([1., 2.]), 'b/c': array('text', dtype='<U4')}
    """
    path = path_of("path", path)
    if not isinstance(arrays, dict):
        raise ArgumentTypeError(f"arrays: expected a dict of arrays, got {shortened(arrays)}")
    arrays = {check_name(name): np.asarray(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in KINDS:
            raise ArgumentTypeError(f"arrays[{name!r}]: expected numbers, bools or text, got {array!r}")
    write_file(path, archive_of(arrays))


def load_arrays(path: _Path, max_bytes: int | None = None) -> dict[str, NDArray[Any]]:
    """The arrays by name, from a file of `save_arrays`, `numpy.savez` or `numpy.savez_compressed`.

    Parameters
    ----------
    path : str or path-like
    max_bytes : int, optional
        The limit for all compressed arrays together, in bytes after decompression. None: 64 MiB, and 100 times the size
        of the file, because a small file may claim more bytes than there is memory. Arrays that are not compressed
        never take more bytes than the file.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    OSError
        If the file cannot be read.
    StateError
        If the file has another format, is damaged, or would take more memory than the limit.
    """
    path = path_of("path", path)
    with stored_arrays(path, max_bytes) as arrays:
        return {name: np.asarray(array) for name, array in arrays.items()}


@contextlib.contextmanager
def stored_arrays(path: _Path, max_bytes: int | None = None) -> Iterator[Stored]:
    """The arrays of a file by name, each a `StoredArray`, while the file is open.

    The message of every StateError within this context begins with `path`.
    """
    if max_bytes is not None and not (isinstance(max_bytes, (int, float)) and max_bytes >= 0):
        kind = ArgumentError if isinstance(max_bytes, (int, float)) else ArgumentTypeError
        raise kind(f"max_bytes: expected None or a number of bytes, 0 or more, got {shortened(max_bytes)}")
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
            raise StateError("expected a file with arrays in the format .npz, got a pipe or a device")
        with open(path, "rb") as file:
            with damage_named():
                try:
                    arrays = directory(file, max_bytes)
                except MemoryError as error:   # because of a damaged directory
                    raise ValueError(error) from None
            yield arrays
    except StateError as error:
        raise StateError(f"{path}: {error}") from None


class StoredArray:
    """An array in an open file, with a known shape and type. `numpy.asarray` reads its numbers."""

    archive: Any
    entry: Any
    start: int
    dtype: Any
    fortran: bool
    shape: tuple[Any, ...]

    def __init__(self, archive: Any, entry: Any, start: int, dtype: Any, fortran: bool, shape: tuple[Any, ...]) -> None:
        self.archive, self.entry, self.start = archive, entry, start
        self.dtype, self.fortran, self.shape = dtype, fortran, shape

    def __array__(self, dtype: None = None, copy: None = None) -> NDArray[Any]:
        with damage_named():
            array = self.read()
        return array if dtype is None else array.astype(dtype)

    def read(self) -> NDArray[Any]:
        size = self.dtype.itemsize * math.prod(self.shape)
        data = np.empty(size, np.uint8)
        place, done = memoryview(data), 0
        with self.archive.open(self.entry) as stream:
            stream.read(self.start)
            while done < size:
                part = stream.read(min(size - done, CHUNK))
                if not part:
                    raise ValueError(f"{self.entry.filename!r} ends early")
                place[done:done + len(part)] = part
                done += len(part)
            stream.read(1)   # reach the end, where zipfile compares the checksum
        if size == 0:
            return np.zeros(self.shape, self.dtype)
        check_elements(data, self.dtype, self.entry.filename)
        return data.view(self.dtype).reshape(self.shape, order="F" if self.fortran else "C")

    def __repr__(self) -> str:
        return f"an array of {self.dtype.name} of shape {self.shape}"


def directory(file: Any, max_bytes: float | None) -> Stored:
    """The arrays of an archive by name. Any exception, except an error of the disk, means that the archive is
    damaged."""
    if file.read(4)[:2] != b"PK":
        raise ValueError("it does not begin as an archive does")
    archive = zipfile.ZipFile(file)
    length = os.fstat(file.fileno()).st_size
    entries, packed, unpacked = {}, 0, 0
    for entry in archive.infolist():
        name = entry.orig_filename   # the name in the file: zipfile has changed `filename` for this system
        if entry.flag_bits & 0x61 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{shortened(name)} is compressed or encrypted in a way that is not NumPy's")
        if entry.compress_type == zipfile.ZIP_STORED:
            if entry.compress_size != entry.file_size:
                raise ValueError(f"{shortened(name)} has two sizes")
        else:
            unpacked += entry.file_size
        packed += entry.compress_size
        short = name.removesuffix(".npy")
        if short in entries:
            raise ValueError(f"two arrays are called {shortened(short)}")
        entries[short] = entry
    if len(entries) != count_at_end(file, length):   # zipfile ignores this count
        raise ValueError("its directory ends early")
    if packed > length:
        raise ValueError("its arrays overlap")
    if unpacked > (FREE + RATIO * length if max_bytes is None else max_bytes):
        raise StateError(f"expected arrays in proportion to the file of {length} bytes, got {unpacked} bytes once "
                         "they are not compressed; load_arrays() with max_bytes reads them")
    return Stored(archive, entries)


def count_at_end(file: Any, length: int) -> int:
    """The number of arrays, from the end of the archive."""
    file.seek(max(0, length - 98))
    end = file.read()
    if end[-22:-18] != b"PK\5\6":
        raise ValueError("it does not end as an archive does")
    count, = struct.unpack("<H", end[-12:-10])
    if count == MOST and end[:4] == b"PK\6\6":
        count, = struct.unpack("<Q", end[32:40])
    return count


class Stored(Mapping[str, "StoredArray"]):
    """Name -> StoredArray. The header of an array is read at its first use: often only the names are needed."""

    archive: Any
    entries: dict[str, Any]

    arrays: dict[str, Any]

    def __init__(self, archive: Any, entries: dict[str, Any]) -> None:
        self.archive, self.entries, self.arrays = archive, entries, {}

    def __getitem__(self, name: str) -> Any:
        if name not in self.arrays:
            with damage_named():
                entry = self.entries[name]
                self.arrays[name] = StoredArray(self.archive, entry, *header(self.archive, entry))
        return self.arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def header(archive: Any, entry: Any) -> tuple[Any, Any, Any, Any]:
    """(length, type, whether columns come first, shape) from the header of an array. All of these have to agree
    with the size in the directory."""
    name = shortened(entry.orig_filename)
    with archive.open(entry) as stream:
        head = stream.read(10)
        if head[:6] != MAGIC or len(head) < 10:
            raise ValueError(f"{name} is no array")
        if head[6] == 1:
            length = int.from_bytes(head[8:10], "little")
        elif head[6] in (2, 3):
            head += stream.read(2)
            length = int.from_bytes(head[8:12], "little")
        else:
            raise ValueError(f"{name} is of version {head[6]}")
        if length > LONGEST_HEADER:
            raise ValueError(f"the header of {name} has {length} bytes")
        text = stream.read(length)
    found = HEADER.fullmatch(b"".join(text.split())) if len(text) == length else None
    if found is None:
        raise ValueError(f"the header of {name} is {shortened(text)}")
    dtype = np.dtype(found[1].decode())
    if dtype.kind not in KINDS:   # such as objects, which only pickle reads
        raise ValueError(f"{name} is of type {dtype}")
    shape = tuple(int(n.rstrip(b"L")) for n in found[3].split(b",") if n)
    start = len(head) + length
    if start + dtype.itemsize * math.prod(shape) != entry.file_size:
        raise ValueError(f"{name} has {entry.file_size} bytes, and its header says {dtype} of shape {shape}")
    np.broadcast_to(np.empty((), "u1"), shape)   # raises if NumPy has no array of so many dimensions or elements
    return start, dtype, found[2] == b"True", shape


def check_elements(data: NDArray[Any], dtype: Any, name: str) -> None:
    """Raise ValueError for bytes that are no element of this type: NumPy accepts them, and fails later."""
    if dtype.kind == "b":
        wrong = (data > 1).any()
    elif dtype.kind == "U":
        points = data.view(np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        wrong = (points > 0x10FFFF).any()
    else:
        wrong = False
    if wrong:
        raise ValueError(f"{shortened(name)} has elements that are none of {dtype}")


@contextlib.contextmanager
def damage_named():
    """Turn every exception from reading a damaged file into StateError, except errors of the disk and of memory."""
    try:
        yield
    except (StateError, MemoryError):
        raise
    except Exception as error:
        # A damaged file can cause an OSError without a number, or one about a position that is impossible.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        said = str(error) or type(error).__name__
        raise StateError("expected arrays in the format .npz, got another file or a damaged one "
                         f"({said if len(said) <= 200 else said[:197] + '...'})") from None


# ---- the format ----

def check_name(name: str) -> str:
    """`name`, if an array in a file can have this name."""
    if not isinstance(name, str):
        raise ArgumentTypeError(f"arrays: expected names to be str, got {shortened(name)}")
    try:
        length = len(name.encode()) + len(".npy")
    except UnicodeEncodeError:
        raise ArgumentError(f"arrays: expected names that can be written in UTF-8, got {shortened(name)}") from None
    if length > LONGEST_NAME or "\0" in name:
        raise ArgumentError(f"arrays: expected names without zero bytes, and of {LONGEST_NAME - 4} bytes at most, "
                            f"got {shortened(name)} of {length - 4}")
    return str(name)


def archive_of(arrays: dict[str, Any]) -> Iterator[bytes]:
    """The bytes of the file, in pieces. Each array has a header of the archive, its own header, and its elements,
    without compression. The directory of the archive comes last, and repeats the headers.

    This module does not write with `zipfile`, which turns an interrupt in the middle into a ValueError.
    """
    listed, at = [], 0
    for name, array in arrays.items():
        name = name.encode() + b".npy"
        text = f"{{'descr': {array.dtype.str!r}, 'fortran_order': False, 'shape': {array.shape}, }}".encode()
        text += b" " * (-(len(MAGIC) + 4 + len(text) + 1) % 64) + b"\n"
        head = MAGIC + b"\1\0" + struct.pack("<H", len(text)) + text
        data = array.tobytes()   # a copy: a change from another thread reaches neither the checksum nor the file
        size, checksum = len(head) + len(data), zlib.crc32(data, zlib.crc32(head))
        flags = 0 if name.isascii() else 0x800
        extra = struct.pack("<2H2Q", 1, 16, size, size) if size >= LARGEST else b""
        needs = 45 if extra else 20
        small = min(size, LARGEST)
        yield struct.pack("<4s5H3I2H", b"PK\3\4", needs, flags, 0, 0, DATE, checksum, small, small,
                          len(name), len(extra)) + name + extra + head
        yield data
        if at >= LARGEST or size >= LARGEST:
            large = (size, size) if size >= LARGEST else ()
            large += (at,) if at >= LARGEST else ()
            needs, more = 45, struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large)
        else:
            more = b""
        listed.append(struct.pack("<4s6H3I5H2I", b"PK\1\2", 3 << 8 | needs, needs, flags, 0, 0, DATE, checksum, small,
                                  small, len(name), len(more), 0, 0, 0, 0o600 << 16, min(at, LARGEST)) + name + more)
        at += 30 + len(name) + len(extra) + size
        del data
    whole, count = b"".join(listed), len(listed)
    yield whole
    if count >= MOST or len(whole) >= LARGEST or at >= LARGEST:
        yield struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 3 << 8 | 45, 45, 0, 0, count, count, len(whole), at)
        yield struct.pack("<4sIQI", b"PK\6\7", 0, at + len(whole), 1)
    yield struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, min(count, MOST), min(count, MOST), min(len(whole), LARGEST),
                      min(at, LARGEST), 0)


# ---- files ----

def write_file(path: _Path, parts: bytes | Iterable[bytes]) -> None:
    """Write a file completely or not at all: `path` always has either its old bytes or all new bytes.

    Parameters
    ----------
    path : str or path-like
        An old file keeps its permissions; a read-only file is not replaced. For a symbolic link, the file at its end is
        written. Bytes for a pipe or a device, such as ``/dev/stdout``, are written directly, as with `open`.
    parts : bytes, or iterable of bytes
        The bytes of the file.

    Raises
    ------
    OSError
        If the file cannot be written; PermissionError also if its folder does not allow a new file.

    Examples
    --------
    >>> import os, tempfile
    >>> from flatgrad.storage import write_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_file(os.path.join(folder, "a.txt"), b"text")
    ...     os.listdir(folder)
    ['a.txt']
    """
    path = path_of("path", path)
    parts = [parts] if isinstance(parts, bytes) else parts
    path = absolute(path)
    try:
        target, before = replaced(path)
        if target is None:
            with open(path, "wb", buffering=0) as file:
                write(file, parts)
            return
        remove_stale(os.path.dirname(target))
        with NewFile(os.path.dirname(target), 0o666 if before is None else before.st_mode & 0o777) as new:
            if before is not None:
                keep_owner_and_mode(new.file.fileno(), before)
            write(new.file, parts)
            os.fsync(new.file.fileno())
            new.rename(target)
    except OSError as error:
        error.filename = path   # not the temporary path, which the user does not know
        del error.filename2     # None would be told
        raise


def absolute(path: _Path) -> str:
    """`path` as an absolute path; IsADirectoryError if only a directory can have this path."""
    if os.path.basename(path) == "":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return os.path.abspath(path)


def check_writable(path: _Path) -> None:
    """Raise OSError if `write_file` would not write to `path`. Changes nothing."""
    path = absolute(path)
    try:
        target, _ = replaced(path)
        if target is not None:
            with NewFile(os.path.dirname(target), 0o600):
                pass
        elif not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        error.filename = path
        del error.filename2
        raise


def replaced(path: _Path) -> tuple[Any, Any]:
    """The file that a new file replaces: its path without links, and its status, None if it does not exist. (None,
    None) if the path is no regular file, or leads to no place in a folder."""
    for _ in range(100):
        try:
            before = os.stat(path)
        except FileNotFoundError:   # there is no file, or a link to a file that does not exist yet
            return os.path.realpath(path), None
        if stat.S_ISDIR(before.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(before.st_mode):
            return None, None
        target = os.path.realpath(path)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(before, os.stat(target)):
                break
        # The file differs from the one before only if another save has just replaced it; then try again.
    else:
        return None, None   # a file without a name; /dev/stdout may lead to one
    if not before.st_mode & 0o222 or not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return target, before


class NewFile:
    """A new file in a folder. No save takes it for a stale file while it is open. At the end the file is removed,
    unless it was renamed."""

    path: str | None
    file: Any

    path = file = None

    def __init__(self, folder: str, mode: int) -> None:
        # The kernel applies the umask; reading the umask would mean setting it for all threads.
        def opener(path, flags):
            return os.open(path, flags, mode)

        try:
            for _ in range(100):
                self.path = os.path.join(folder, f".flatgrad-{os.urandom(8).hex()}.tmp")   # set before the file exists
                try:
                    self.file = open(self.path, "x+b", buffering=0, opener=opener)
                except FileExistsError:   # another process has a file of this name
                    self.path = None
                    continue
                # Another save may have removed the file as stale before this one locked it.
                if is_locked(self.file.fileno()) is not False and is_at(self.file.fileno(), self.path):
                    return
                self.file.close()
        except BaseException:
            self.remove()
            raise
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), folder)

    def rename(self, path: _Path) -> None:
        if fcntl is None:   # on Windows an open file keeps its name
            self.file.close()
        os.replace(self.path, path)
        self.path = None

    def remove(self) -> None:
        if fcntl is None and self.file is not None:   # on Windows an open file cannot be removed
            self.file.close()
        if self.path is not None:
            with contextlib.suppress(OSError):
                os.remove(self.path)
            self.path = None
        if self.file is not None:
            self.file.close()

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


def remove_stale(folder: str) -> None:
    """Remove the files that killed saves have left in a folder."""
    with contextlib.suppress(OSError):
        with os.scandir(folder) as entries:
            stale = [entry.path for entry in entries if TEMPORARY.fullmatch(entry.name)]
        for path in stale:
            with contextlib.suppress(OSError):
                if fcntl is None:
                    if time.time() - os.stat(path).st_mtime > OLD:
                        os.remove(path)
                    continue
                handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if is_locked(handle) and is_at(handle, path):
                        os.remove(path)
                finally:
                    os.close(handle)


def is_locked(handle: int) -> bool:
    """Lock the file. True if this handle has the lock, False if another one has it, None if this cannot be known."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (BlockingIOError, PermissionError):
        return False
    except OSError:   # because of a file system without locks
        return None


def is_at(handle: int, path: _Path) -> bool:
    """Whether the open file still has this name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def keep_owner_and_mode(handle: int, before: Any) -> None:
    """Give a new file the mode of the file that it will replace, and its owner if this process may."""
    if not hasattr(os, "fchmod"):
        return
    now = os.fstat(handle)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        for owner in (before.st_uid, before.st_gid), (-1, before.st_gid):
            with contextlib.suppress(OSError):
                os.fchown(handle, *owner)
                break
    if (now.st_mode ^ before.st_mode) & 0o777:
        os.fchmod(handle, before.st_mode & 0o777)


def write(file: Any, parts: Iterator[Any] | list[bytes]) -> None:
    """Write all bytes to an unbuffered file; an error would have to empty a buffer."""
    for part in parts:
        rest = memoryview(part)
        while rest:
            rest = rest[file.write(rest):]
