"""Arrays by name in a file of NumPy's format `.npz`, without pickle, written whole or not at all."""
import contextlib
import os
import tempfile
import zipfile

import numpy as np

from flatgrad.arguments import path_of, shortened
from flatgrad.errors import ArgumentTypeError, StateError

__all__ = ["load_arrays", "save_arrays"]


def save_arrays(path, arrays):
    """Write arrays to a file, which is replaced only once all of it has reached the disk.

    Parameters
    ----------
    path : str or path-like
        Written as it is: no ending is added.
    arrays : dict of str to array_like
        Of numbers, bools or text; no objects.

    Raises
    ------
    OSError
        If the file cannot be written. What was there before is as it was.
    TypeError, ValueError
        If an argument is not as described, or there is something in an array that only pickle could write.
    """
    path = os.path.abspath(path_of("path", path))
    if not isinstance(arrays, dict):
        raise ArgumentTypeError(f"arrays: expected a dict of arrays, got {shortened(arrays)}")
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ArgumentTypeError(f"arrays[{name!r}]: expected numbers, bools or text, got {array!r}")
    mode = 0o666 & ~umask()
    with contextlib.suppress(OSError):
        mode = os.stat(path).st_mode & 0o777
    try:
        handle, temporary = tempfile.mkstemp(".tmp", os.path.basename(path) + ".", os.path.dirname(path))
    except OSError as error:
        error.filename = path   # and not the temporary one's, which nobody has asked for
        raise
    try:
        with os.fdopen(handle, "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:   # as numpy.savez, which takes no array called 'file'
                for name, array in arrays.items():
                    with archive.open(name + ".npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def load_arrays(path):
    """The arrays that `save_arrays` wrote, or `numpy.savez`, by name.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    OSError
        If the file cannot be read.
    StateError
        If it is not such a file, or damaged.
    """
    path = path_of("path", path)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile, NotImplementedError) as error:
        raise StateError(f"{path}: expected arrays in the format .npz, got another file or a damaged one "
                         f"({error})") from None


def umask():
    """The permissions that new files do not get. It can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
