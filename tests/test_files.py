"""Files and states: written whole or not at all, loaded whole or not at all, whatever is in them."""
import contextlib
import copy
import errno
import math
import os
import random
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from pathlib import Path

from checks import saves
from checks import files
import numpy as np
import pytest
from checks.saves import NEW, OLD, is_one_of
from checks.files import ARRAYS, archive_of, bits, contents, npy, state_of, trainer, with_header

import flatgrad
from flatgrad import Tensor, Value, nn, storage
from flatgrad.errors import ArgumentError, ArgumentTypeError, StateError
from flatgrad.optim import SGD, Adadelta, Adagrad, Adam, Adamax, NAdam, RAdam, RMSprop, Rprop, lr_scheduler
from flatgrad.storage import load_arrays, save_arrays, write_file
from flatgrad.train import Checkpoint, EarlyStopping, Trainer, saved as saved_module, trainer as trainer_module
from flatgrad.train.checkpoint import load_tree, save_tree

posix = pytest.mark.skipif(os.name != "posix", reason="of POSIX")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.npz")


def only(folder, *names):
    return sorted(os.listdir(folder)) == sorted(names)


# ---- what is written ----

def test_arrays_come_back_bit_for_bit(path):
    save_arrays(path, ARRAYS)
    found = load_arrays(path)
    assert bits(found) == bits(ARRAYS) and list(found) == list(ARRAYS)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    with np.load(path) as theirs:
        for name in ARRAYS.keys() - {"a", "a.npy"}:   # NumPy takes one for the other
            np.testing.assert_array_equal(theirs[name], ARRAYS[name])
    np.savez_compressed(path, x=np.asfortranarray(np.arange(6.0).reshape(2, 3)), file_=np.arange(3))
    np.testing.assert_equal(load_arrays(path), {"x": np.arange(6.0).reshape(2, 3), "file_": np.arange(3)})


def test_the_same_arrays_are_the_same_file(path):
    save_arrays(path, ARRAYS)
    first = Path(path).read_bytes()
    save_arrays(path, ARRAYS)
    assert Path(path).read_bytes() == first


@pytest.mark.parametrize("names", [
    ["a", "a.npy", "a.npy.npy", ".npy", ""], ["a/b", "a//b", "/a", "../a", "..", ".", "a\\b", "C:a"],
    ["a", "A", "ä", "Ä", "a\u0308"],
    ["x" * 65531, "x" * 65530], ["\n", " ", "'", '"', "\x7f", "😀", "\u202e"], ["file", "self", "args"],
])
def test_names(path, names):
    arrays = {name: np.array(k) for k, name in enumerate(names)}
    save_arrays(path, arrays)
    assert bits(load_arrays(path)) == bits(arrays)
    assert only(os.path.dirname(path), "x.npz")


@pytest.mark.parametrize("name, error", [
    ("a\0b", ArgumentError), ("x" * 65532, ArgumentError), ("\ud800", ArgumentError), (5, ArgumentTypeError),
    (None, ArgumentTypeError),
])
def test_names_that_no_file_can_have(path, name, error):
    save_arrays(path, OLD)
    with pytest.raises(error, match="^arrays: expected names"):
        save_arrays(path, {**NEW, name: np.zeros(2)})
    assert is_one_of(path, OLD)


@pytest.mark.parametrize("entries", [["a", "a.npy"], ["a.npy", "a.npy"]])
def test_two_arrays_of_one_name_in_a_foreign_file(path, entries):
    Path(path).write_bytes(archive_of([(name, npy(k)) for k, name in enumerate(entries)]))
    with pytest.raises(StateError, match="two arrays are called 'a'"):
        load_arrays(path)


def test_large_archives_have_large_numbers(path, monkeypatch):
    """The part of the format for 4 GiB and more, by a limit of a few bytes."""
    monkeypatch.setattr(storage, "LARGEST", 300)
    arrays = {"large": np.arange(100.0), "small": np.arange(3.0), "last": np.arange(50.0)}
    data = bytearray(b"".join(storage.archive_of(arrays)))
    for sign, places in (b"PK\3\4", (18, 22)), (b"PK\1\2", (20, 24, 42)):   # of zipfile, which knows the true limit
        for found in re.finditer(re.escape(sign), bytes(data)):
            for place in places:
                at = found.start() + place
                if data[at:at + 4] == struct.pack("<I", 300):
                    data[at:at + 4] = b"\xff" * 4
    end = len(data) - 22
    for place in (12, 16):
        if data[end + place:end + place + 4] == struct.pack("<I", 300):
            data[end + place:end + place + 4] = b"\xff" * 4
    Path(path).write_bytes(data)
    assert bits(load_arrays(path)) == bits(arrays)
    with np.load(path) as theirs:
        assert all(np.array_equal(theirs[name], arrays[name]) for name in arrays)


def test_very_many_arrays(path):
    arrays = {str(k): np.array(k, np.uint32) for k in range(65540)}
    save_arrays(path, arrays)
    with storage.stored_arrays(path) as found:
        assert len(found) == 65540 and found["65539"].shape == ()
        assert np.asarray(found["65539"]) == 65539
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 65540


# ---- where it is written ----

@posix
def test_nothing_reads_the_umask_by_setting_it(path, monkeypatch):
    def umask(mask):
        raise AssertionError("the umask is every thread's")

    monkeypatch.setattr(os, "umask", umask)
    save_arrays(path, OLD)
    sources = Path(flatgrad.__file__).parent.rglob("*.py")
    assert [str(source) for source in sources if ".umask(" in source.read_text("utf-8")] == []


@posix
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077])
def test_permissions(path, mask):
    """In a process of its own, for the sake of the umask."""
    modes = (0o600, 0o644, 0o660, 0o777, 0o200)
    code = f"""if True:
        import os, sys
        from flatgrad.storage import save_arrays
        os.umask({mask})
        for mode in None, *{modes}:
            if mode is not None:
                os.chmod(sys.argv[1], mode)
            save_arrays(sys.argv[1], {{}})
            print(os.stat(sys.argv[1]).st_mode)"""
    assert [stat.S_IMODE(int(mode)) for mode in run(code, path).stdout.split()] == [0o666 & ~mask, *modes]


def run(code, *arguments, check=True, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    process = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], env=environment, capture_output=True,
                             timeout=300, **options)
    assert not check or process.returncode == 0, process.stderr.decode()
    return process


@posix
def test_a_read_only_file_is_left_alone(path):
    save_arrays(path, OLD)
    os.chmod(path, 0o444)
    for save in (lambda: save_arrays(path, NEW), lambda: nn.Layer(1, 1).save(path), lambda: write_file(path, b"x"),
                 lambda: storage.check_writable(path)):
        with pytest.raises(PermissionError) as caught:
            save()
        assert caught.value.filename == path
    assert is_one_of(path, OLD) and stat.S_IMODE(os.stat(path).st_mode) == 0o444
    assert only(os.path.dirname(path), "x.npz")


@posix
def test_links_stay(tmp_path):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "target.npz"
    save_arrays(target, OLD)
    os.chmod(target, 0o640)
    os.symlink(os.path.join("there", "target.npz"), tmp_path / "link")
    os.symlink("link", tmp_path / "second")
    os.symlink("there", tmp_path / "folder")
    for name in ("link", "second", "folder/target.npz"):
        save_arrays(tmp_path / name, NEW)
        assert is_one_of(target, NEW) and stat.S_IMODE(os.stat(target).st_mode) == 0o640
        save_arrays(target, OLD)
    assert os.readlink(tmp_path / "link") == "there/target.npz" and os.readlink(tmp_path / "second") == "link"
    os.remove(target)
    storage.check_writable(tmp_path / "second")
    assert only(tmp_path / "there") and os.path.islink(tmp_path / "link")
    save_arrays(tmp_path / "second", NEW)   # as open() would, it makes what the link leads to
    assert is_one_of(target, NEW) and only(tmp_path / "there", "target.npz")
    assert only(tmp_path, "there", "link", "second", "folder")
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(OSError) as caught:
        save_arrays(tmp_path / "loop", NEW)
    assert caught.value.errno == errno.ELOOP


@posix
def test_pipes_and_devices_get_the_bytes(tmp_path):
    save_arrays(tmp_path / "x", NEW)
    expected = (tmp_path / "x").read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    save_arrays(pipe, NEW)
    reader.join()
    assert read == [expected] and stat.S_ISFIFO(os.stat(pipe).st_mode)
    with pytest.raises(StateError, match="got a pipe or a device"):
        load_arrays(pipe)
    save_arrays(os.devnull, NEW)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    with pytest.raises(StateError, match="got a pipe or a device"):
        load_arrays(os.devnull)
    assert only(tmp_path, "x", "pipe")
    code = "from checks.saves import NEW; from flatgrad.storage import save_arrays; save_arrays('/dev/stdout', NEW)"
    if os.path.exists("/dev/stdout"):
        assert run(code).stdout == expected
    if os.path.exists("/dev/full"):
        with pytest.raises(OSError) as caught:
            save_arrays("/dev/full", NEW)
        assert caught.value.errno == errno.ENOSPC and caught.value.filename == "/dev/full"


def test_folders(tmp_path):
    for path in (tmp_path, f"{tmp_path}{os.sep}", tmp_path / "new" / "x", f"{tmp_path / 'new'}{os.sep}"):
        for call in (lambda: save_arrays(path, NEW), lambda: storage.check_writable(os.fspath(path))):
            with pytest.raises(OSError) as caught:
                call()
            assert os.fspath(caught.value.filename).rstrip(os.sep) == os.fspath(path).rstrip(os.sep)
    assert only(tmp_path)


@posix
@pytest.mark.parametrize("length", [1, 242, 243, 250, 255])
def test_long_names_of_files(tmp_path, length):
    for name in ("x" * length, ("ü" * 128)[:length // 2] + "x" * (length % 2)):
        save_arrays(tmp_path / name, OLD)
        save_arrays(tmp_path / name, NEW)
        assert is_one_of(tmp_path / name, NEW) and only(tmp_path, name)
        os.remove(tmp_path / name)
    with pytest.raises(OSError) as caught:
        save_arrays(tmp_path / ("x" * 256), NEW)
    assert caught.value.errno == errno.ENAMETOOLONG and only(tmp_path)


def test_relative_paths_in_a_folder_of_any_name(tmp_path, monkeypatch):
    (tmp_path / "a b\n{ü}").mkdir()
    monkeypatch.chdir(tmp_path / "a b\n{ü}")
    save_arrays("x", NEW)
    save_arrays(os.path.join(".", "..", "y"), NEW)
    assert is_one_of("x", NEW) and is_one_of(tmp_path / "y", NEW)


# ---- what comes in between ----

LEFT = ".flatgrad-0123456789abcdef.tmp"


@posix
def test_what_a_kill_has_left_is_removed_and_nothing_else(tmp_path):
    import fcntl

    names = [LEFT, ".flatgrad-1.tmp", "x.npz.abcdefgh.tmp", ".flatgrad-0123456789abcdeg.tmp", f"{LEFT}x"]
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".flatgrad-00000000000000ff.tmp").mkdir()
    os.symlink(names[1], tmp_path / ".flatgrad-00000000000000fe.tmp")
    os.mkfifo(tmp_path / ".flatgrad-00000000000000fd.tmp")
    with open(tmp_path / ".flatgrad-00000000000000fc.tmp", "wb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        save_arrays(tmp_path / "x", NEW)
        kept = {*names[1:], "x", *(f".flatgrad-00000000000000f{k}.tmp" for k in "fec")}
        assert set(os.listdir(tmp_path)) - {".flatgrad-00000000000000fd.tmp"} == kept
    save_arrays(tmp_path / "x", NEW)
    assert not (tmp_path / ".flatgrad-00000000000000fc.tmp").exists()


@posix
def test_a_new_file_that_another_save_takes_for_a_stale_one(path, monkeypatch):
    """Between its making and its lock: then there is another."""
    is_locked, taken = storage.is_locked, []

    def first_removed(handle):
        if not taken:
            name, = os.listdir(os.path.dirname(path))
            taken.append(name)
            os.remove(os.path.join(os.path.dirname(path), name))
        return is_locked(handle)

    monkeypatch.setattr(storage, "is_locked", first_removed)
    save_arrays(path, NEW)
    assert taken and is_one_of(path, NEW) and only(os.path.dirname(path), "x.npz")


def test_without_locks(path, monkeypatch):
    """As on Windows, where only what is old is taken for stale."""
    monkeypatch.setattr(storage, "fcntl", None)
    folder = os.path.dirname(path)
    for name in (LEFT, LEFT.replace("0", "1")):
        Path(folder, name).write_bytes(b"half")
    os.utime(Path(folder, LEFT), (1e9, 1e9))
    save_arrays(path, OLD)
    save_arrays(path, NEW)
    assert is_one_of(path, NEW) and only(folder, "x.npz", LEFT.replace("0", "1"))
    with pytest.raises(ZeroDivisionError):
        write_file(path, (bytes(1 // n) for n in (1, 0)))
    assert is_one_of(path, NEW) and only(folder, "x.npz", LEFT.replace("0", "1"))


@posix
@pytest.mark.parametrize("name", ["write", "fsync", "replace", "fchmod"])
def test_an_error_of_the_disk_leaves_what_was_there(path, monkeypatch, name):
    save_arrays(path, OLD)

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage if name == "write" else os, name, fail, raising=False)
    with pytest.raises(OSError, match="No space left") as caught:
        if name == "fchmod":
            os.chmod(path, 0o620)   # more than a new file has under any usual umask
        save_arrays(path, NEW)
    assert caught.value.filename == path and is_one_of(path, OLD) and only(os.path.dirname(path), "x.npz")


quiet = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@quiet
@pytest.mark.parametrize("old", [OLD, None], ids=["replaced", "new"])
def test_an_interrupt_at_every_line_of_a_save(path, old):
    folder = os.path.dirname(path)

    def begin():
        if old is None:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
        else:
            save_arrays(path, old)

    def check():
        assert os.path.exists(path) or old is None
        if os.path.exists(path):
            assert is_one_of(path, OLD, NEW)
        save_arrays(os.path.join(folder, "other"), OLD)
        assert set(os.listdir(folder)) <= {"x.npz", "other"}
        begin()

    begin()
    assert saves.at_every_line(lambda: save_arrays(path, NEW), check) > 100


@quiet
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer")
def test_an_interrupt_at_any_moment_of_a_save(path):
    save_arrays(path, OLD)
    assert saves.at_any_moment(path, 2.0, random.Random(1)) > 5


@posix
def test_a_kill_at_any_moment_of_two_saves_to_one_file(path):
    saves.killed(path, 3, random.Random(1))


def test_a_file_that_another_save_replaces_while_one_looks(path, monkeypatch):
    save_arrays(path, OLD)
    realpath, looked = os.path.realpath, []

    def replaced_at_once(name, **options):
        if len(looked) < 3:
            looked.append(name)
            os.replace(shutil.copy(path, f"{path}2"), path)
        return realpath(name, **options)

    monkeypatch.setattr(os.path, "realpath", replaced_at_once)
    with open(path, "rb") as reader:
        save_arrays(path, NEW)
        assert len(looked) == 3 and reader.read() == b"".join(storage.archive_of(OLD))   # nobody has written into it


def test_threads_that_save_to_one_file(path):
    errors = []

    def save(state):
        try:
            for _ in range(40):
                save_arrays(path, state)
                assert is_one_of(path, OLD, NEW)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(state,)) for state in (OLD, NEW) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and only(os.path.dirname(path), "x.npz")


LOADERS = [module.__file__ for module in (nn.module, trainer_module, saved_module, sys.modules["flatgrad.optim.optimizers"],
                                          lr_scheduler, storage)]


@quiet
@pytest.mark.parametrize("kind", ["adam", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("sequence", "plateau"))])
def test_an_interrupt_at_every_line_of_loading(path, kind, monkeypatch):
    """All of a Trainer is what it was, or what was saved: at each line when it comes there first, and a second time,
    and at every 61st of the thousands of lines that it takes."""
    monkeypatch.setattr(storage, "CHUNK", 2**30)
    saved, other = trainer(kind, 0, 2), trainer(kind, 5, 1)
    saved.save(path)
    before, after = state_of(other), state_of(trainer(kind, 5, 1).load(path))
    assert before != after
    stop, been, tracer = 0, {}, sys.gettrace()
    while True:
        left, here = stop or None, {}   # None: to the next line that is new; 0: no more

        def trace(frame, event, argument):
            nonlocal left
            if frame.f_code.co_filename not in LOADERS:
                return None
            if event == "line":
                line = frame.f_code, frame.f_lineno
                here[line] = here.get(line, 0) + 1
                if left is None and here[line] <= 2 and here[line] > been.get(line, 0):
                    been[line] = here[line]
                    left = 0
                    raise KeyboardInterrupt
                if left:
                    left -= 1
                    if left == 0:
                        raise KeyboardInterrupt
            return trace

        try:
            sys.settrace(trace)
            other.load(path)
        except KeyboardInterrupt:
            stop += 61 if stop else 0
        else:
            if stop:
                break
            stop = 61
        finally:
            sys.settrace(tracer)
        now = state_of(other)
        assert now in (before, after)
        if now == after:
            other = trainer(kind, 5, 1)
            before = state_of(other)
    assert state_of(other) == after and len(been) > 100


# ---- what is read ----

def test_files_damaged_at_random(tmp_path):
    subjects = files.Subjects(str(tmp_path))
    for seed in range(80):
        subjects.round(seed)


def test_every_bit_of_a_file(path):
    """Each byte is changed: there is an error, or every number is as it was."""
    arrays = {"a": np.arange(3.0), "b": np.array("text"), "c": np.zeros((0, 2), np.int8)}
    save_arrays(path, arrays)
    data = Path(path).read_bytes()
    for k in range(len(data)):
        Path(path).write_bytes(data[:k] + bytes([data[k] ^ 1 << k % 8]) + data[k + 1:])
        with contextlib.suppress(StateError):
            assert bits(load_arrays(path)) == bits(arrays)
    for k in range(0, len(data), 5):
        Path(path).write_bytes(data[:k])
        with pytest.raises(StateError, match="^.*x.npz: expected arrays in the format .npz"):
            load_arrays(path)


@pytest.mark.parametrize("header", files.HEADERS, ids=lambda header: header[:70].decode("latin-1"))
@pytest.mark.parametrize("version", [1, 2])
def test_hostile_headers(path, header, version):
    Path(path).write_bytes(archive_of([("a.npy", with_header(header, bytes(16), version))]))
    tracemalloc.start()
    try:
        with pytest.raises(StateError, match="^.*x.npz: expected arrays in the format .npz"):
            load_arrays(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("entries", [
    [("a.npy", npy(np.array([{}], object), allow_pickle=True))], [("a.txt", b"text")], [("a/", b"")], [("a.npy", b"")],
    [("a.npy", npy(np.zeros(2, "f8,i4")))], [("a.npy", npy(np.zeros(2)) + b"more")], [("a.npy", npy(np.zeros(2))[:-1])],
    [("a.npy", npy(np.array([True])).replace(b"\1" * 1, b"\1")[:-1] + b"\2")],
    [("a.npy", npy(np.array(["a"]))[:-4] + b"\xff" * 4)],
])
def test_entries_that_are_no_arrays_of_ours(path, entries):
    Path(path).write_bytes(archive_of(entries))
    with pytest.raises(StateError, match="^.*x.npz: expected arrays in the format .npz"):
        load_arrays(path)


@pytest.mark.parametrize("flag, place", [(1, 6), (0x20, 6), (12, 8), (14, 8), (99, 8)])
def test_encrypted_and_otherwise_compressed(path, flag, place):
    save_arrays(path, {"a": np.zeros(3)})
    data = bytearray(Path(path).read_bytes())
    data[place] = data[data.index(b"PK\1\2") + place + 2] = flag
    Path(path).write_bytes(data)
    with pytest.raises(StateError, match="compressed or encrypted in a way that is not NumPy's"):
        load_arrays(path)


def peak(call):
    """What an error leaves of its message, and the memory that was taken on the way, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(StateError) as caught:
            call()
        return str(caught.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def bomb():
    """128 MiB of zeros in 130 kB."""
    return npy(np.zeros(2**24))


def test_a_bomb_is_not_read(path, bomb):
    Path(path).write_bytes(archive_of([("layers.0.weight.npy", bomb), ("more.npy", npy(1))], zipfile.ZIP_DEFLATED))
    said, memory = peak(lambda: load_arrays(path))
    assert "in proportion to the file" in said and memory < 2**20
    assert len(load_arrays(path, max_bytes=2**28)["layers.0.weight"]) == 2**24
    model = nn.MLP(2, [3, 1])
    before = state_of(model)
    for strict, message in (True, "layers.0.bias: missing"), (False, r"expected the shape (3, 2), got (16777216,)"):
        said, memory = peak(lambda: model.load(path, strict))
        assert message in said and memory < 2**20 and state_of(model) == before


def test_what_the_model_has_no_room_for_is_not_read(path, bomb):
    """Neither keys that it has not, nor arrays of other types."""
    model = nn.Layer(2, 1)
    entries = [(f"{name}.npy", npy(array)) for name, array in model.state_dict().items()]
    Path(path).write_bytes(archive_of([*entries, ("more.npy", bomb)], zipfile.ZIP_DEFLATED))
    tracemalloc.start()
    assert model.load(path, strict=False).unexpected == ["more"]
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    text = npy(np.zeros((1, 2), "U4000000"))
    Path(path).write_bytes(archive_of([("weight.npy", text), entries[1]], zipfile.ZIP_DEFLATED))
    said, memory = peak(lambda: model.load(path))
    assert "weight: expected an array of numbers" in said and memory < 2**20


def test_a_large_model_that_compresses_well_is_read(path, monkeypatch):
    monkeypatch.setattr(storage, "FREE", 0)
    layer = nn.Layer(200, 200)
    layer.load_state_dict({"weight": np.zeros((200, 200)), "bias": np.zeros(200)})
    np.savez_compressed(path, **layer.state_dict())
    assert 8 * 200 * 200 > storage.RATIO * os.path.getsize(path)
    with pytest.raises(StateError, match="in proportion"):
        load_arrays(path)
    layer.load_state_dict({"weight": np.ones((200, 200)), "bias": np.ones(200)})
    layer.load(path)
    assert not layer.state_dict()["weight"].any()


@pytest.mark.parametrize("name", ["flatgrad.train.Trainer", "model/layers.0.weight", "epochs", "new"])
def test_a_bomb_in_a_checkpoint(path, bomb, name):
    saved = trainer("adam")
    saved.save(path)
    entries = dict(contents(Path(path).read_bytes()))
    entries[f"{name}.npy"] = bomb if name != "flatgrad.train.Trainer" else npy(np.zeros((), "U30000000"))
    Path(path).write_bytes(archive_of(entries.items(), zipfile.ZIP_DEFLATED))
    before = state_of(saved)
    said, memory = peak(lambda: saved.load(path))
    assert said.startswith(f"{path}: expected arrays in proportion") and memory < 2**21 and state_of(saved) == before


def test_a_stream_that_is_longer_or_shorter_than_it_says(path, bomb):
    small = npy(np.zeros(10))
    for claimed in (len(small), len(bomb) * 8):
        data = bytearray(archive_of([("a.npy", bomb)], zipfile.ZIP_DEFLATED))
        for sign, place in (b"PK\3\4", 22), (b"PK\1\2", 24):
            at = data.rindex(sign) + place
            data[at:at + 4] = struct.pack("<I", claimed)
        Path(path).write_bytes(data)
        said, memory = peak(lambda: load_arrays(path, max_bytes=math.inf))
        assert "format .npz" in said and memory < 2**20


def test_a_directory_that_claims_more_than_there_is(path):
    save_arrays(path, {"a": np.zeros(3), "b": np.zeros(3)})
    data = Path(path).read_bytes()
    for place, size in (12, 4), (16, 4), (10, 2), (8, 2):
        at = len(data) - 22 + place
        for number in (b"\xff" * size, b"\0" * size, b"\xff\x7f\xff\x7f"[-size:]):
            Path(path).write_bytes(data[:at] + number + data[at + size:])
            if place != 8:   # how many entries are on this disk
                said, memory = peak(lambda: load_arrays(path))
                assert memory < 2**21
    # Two entries of the directory lead to one array.
    Path(path).write_bytes(data.replace(b"b.npy", b"a.npy"))
    with pytest.raises(StateError, match="two arrays are called 'a'"):
        load_arrays(path)


@pytest.mark.parametrize("limit", [-1, "x", [], math.nan])
def test_a_limit_that_is_none(path, limit):
    save_arrays(path, OLD)
    with pytest.raises((ArgumentError, ArgumentTypeError), match="^max_bytes: expected None or a number of bytes"):
        load_arrays(path, max_bytes=limit)


# ---- states: all or nothing ----

class Refuses:
    """What nothing can be made of."""

    def __array__(self, dtype=None, copy=None):
        raise ValueError("no array")

    def __repr__(self):
        return "Refuses()"


def wrong_arrays(array):
    """(label, value) of what is no state where `array` is one."""
    array = np.asarray(array)
    yield "another shape", np.zeros((*array.shape, 3))
    yield "no dimension" if array.ndim else "a dimension", np.zeros(() if array.ndim else 1)
    yield "objects", np.full(array.shape, None)
    yield "text", np.full(array.shape, "1")
    yield "complex", np.full(array.shape, 1j)
    yield "times", np.zeros(array.shape, "M8[s]")
    if array.dtype.kind != "i":
        yield "an int that float64 cannot hold", np.full(array.shape, 2**53 + 1)
    yield "another", np.full(array.shape, 2**64 - 2**10 - 1, np.uint64)
    yield "a float that float64 cannot hold", np.full(array.shape, np.longdouble("1e400")
                                                      if np.finfo(np.longdouble).max > 1e300 * 1e300 else 1j)
    yield "an int that nothing holds", np.full(array.shape, 10**400, object).tolist()
    yield "ragged", [[1.0], [1.0, 2.0]]
    for x in (None, "x", {}, [], object(), Refuses(), lambda: None):
        if not (x == [] and array.shape == (0,)):
            yield repr(x), x
    if array.dtype.kind == "i":
        for x in (math.nan, 0.5, math.inf, -1e300, 2.0**63):
            yield repr(x), np.full(array.shape, x)


def modules():
    nested = nn.Module()
    nested.rows = [[Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]]
    nested.one, nested.tensor = Value(5.0), Tensor([[1.0, 2.0]])
    nested.parts = {"a/b": nn.Layer(1, 1), 3: nn.BatchNorm(2), "list": [nn.Layer(2, 1, fused=False)]}
    return [nn.MLP(2, [3, 1]), nn.MLP(2, [2, 1], fused=False), nn.BatchNorm(3), nn.LayerNorm(2),
            nn.Conv2d(1, 2, 2, size=4), nn.Embedding(3, 2), nn.LSTMCell(2, 3), nested, files.Noisy(1)]


@pytest.mark.parametrize("k", range(len(modules())))
def test_a_module_takes_all_of_a_state_or_nothing(k):
    model = modules()[k]
    good = {key: array + 1 for key, array in model.state_dict().items()}
    before = state_of(model)

    def refused(state, strict=True, message=None):
        with pytest.raises((StateError, ArgumentTypeError), match=message):
            model.load_state_dict(state, strict)
        assert state_of(model) == before

    for key, array in good.items():
        for _, value in wrong_arrays(array):
            refused({**good, key: value}, message=re.escape(f"{key}: expected"))
            refused({key: value}, strict=False, message=re.escape(f"{key}: expected"))
        refused({other: good[other] for other in good if other != key}, message=re.escape(f"{key}: missing"))
        refused({**good, f"{key}2": array}, message=re.escape(f"{key}2: not in the model"))
    for state in (None, 5, "x", [1, 2], {None: 1}):
        refused(state)
    assert model.load_state_dict(good) == ([], [])
    assert bits(model.state_dict()) == bits({key: np.asarray(array) for key, array in good.items()})


@pytest.mark.parametrize("numbers", [[2**53, -2**53], [2**62, 2**60 + 2**10], [True, False], [math.nan, -math.inf]])
def test_numbers_that_float64_holds_are_taken(numbers):
    for module in (nn.Layer(2, 1), nn.Layer(2, 1, fused=False)):
        module.load_state_dict({"weight": np.array([numbers]), "bias": [0]})
        np.testing.assert_array_equal(module.state_dict()["weight"], np.array([numbers], float))


def test_a_module_that_fails_in_the_middle():
    """As one whose buffer is a property that refuses: what was assigned before is taken back."""
    class Stubborn(nn.Module):
        buffer_names = ("first", "second")

        def __init__(self):
            self.layer, self.first = nn.Layer(2, 1), np.zeros(2)

        @property
        def second(self):
            return np.zeros(1)

        @second.setter
        def second(self, x):
            raise KeyboardInterrupt

    model = Stubborn()
    before = state_of(model)
    with pytest.raises(KeyboardInterrupt):
        model.load_state_dict({key: array + 1 for key, array in model.state_dict().items()})
    assert state_of(model) == before


def test_a_state_that_changes_the_model_while_it_is_read():
    """Conversions come first: what they do to the model is seen, not overwritten in part."""
    model = nn.Module()
    model.weight = Tensor([1.0, 2.0])

    class Shrinks:
        def __array__(self, dtype=None, copy=None):
            model.weight = Tensor([1.0])
            return np.array([3.0, 4.0])

    with pytest.raises(StateError, match=r"weight: expected the shape \(1,\), got \(2,\)"):
        model.load_state_dict({"weight": Shrinks()})
    assert model.weight.data.tolist() == [1.0]


def everywhere(state, path=()):
    """(container, key) of all that is in a state."""
    if isinstance(state, (dict, list)):
        for key, value in list(state.items() if isinstance(state, dict) else enumerate(state)):
            yield state, key
            yield from everywhere(value)


ODD = [None, True, -1, 2**63, 10**400, -0.5, 1.5, math.nan, math.inf, 1e300, "abc", "", [], {}, (), object(), b"x",
       np.zeros(2), np.full(3, math.nan), np.array(["a", "b"]), np.array([None, 1]), np.zeros((3, 1)), [1, "a"],
       {"a": 1}, Refuses(), np.full(3, -1.0), np.array(1.5), 1j]

OPTIMIZERS = {
    "SGD": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True), "Adam": lambda p: Adam(p, lr=0.1, amsgrad=True),
    "RMSprop": lambda p: RMSprop(p, lr=0.1, momentum=0.5, centered=True), "Adagrad": Adagrad, "Adadelta": Adadelta,
    "NAdam": NAdam, "RAdam": RAdam, "Adamax": Adamax, "Rprop": Rprop,
}


def stepped(make, steps=2):
    p = [Value(1.0), Tensor([1.0, 2.0]), Value(3.0)]
    optimizer = make([{"params": p[:2]}, {"params": p[2:]}])
    for _ in range(steps):
        optimizer.zero_grad()
        for x in p:
            x.grad = 0.5
        optimizer.step()
    return optimizer, p


def changes(state):
    """Copies of a state, each with one thing in it changed, as pairs (label, copy)."""
    for k, (_, key) in enumerate(everywhere(state)):
        for x in ODD:
            changed = copy.deepcopy(state)
            at, key = list(everywhere(changed))[k]
            at[key] = x
            yield f"{key}: {x!r}", changed
        changed = copy.deepcopy(state)
        at, key = list(everywhere(changed))[k]
        del at[key]
        yield f"{key}: missing", changed
        changed = copy.deepcopy(state)
        at, key = list(everywhere(changed))[k]
        if isinstance(at, dict):
            at["another"] = 1
        else:
            at.append(at[key])
        yield f"{key}: one more", changed


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_takes_all_of_a_state_or_nothing(name):
    """And what it takes, a step can use."""
    optimizer, p = stepped(OPTIMIZERS[name])
    lr_scheduler.StepLR(optimizer, 3)
    group, good = optimizer.param_groups[0], optimizer.state_dict()
    before = bits(good)
    taken = 0
    for label, state in changes(good):
        try:
            optimizer.load_state_dict(state)
        except StateError as error:
            assert "state_dict" in str(error), label
            assert bits(optimizer.state_dict()) == before, label
            continue
        taken += 1
        assert optimizer.param_groups[0] is group and group["params"] == p[:2]
        with np.errstate(all="ignore"):
            optimizer.step()
        optimizer.load_state_dict(good)
        assert bits(optimizer.state_dict()) == before
    assert 0 < taken < 300


def schedulers():
    optimizer = SGD([Value(1.0)], momentum=0.5)
    yield lr_scheduler.LambdaLR(optimizer, lambda k: 0.5**k)
    yield lr_scheduler.StepLR(optimizer, 3)
    yield lr_scheduler.MultiStepLR(optimizer, [2, 4])
    yield lr_scheduler.ConstantLR(optimizer)
    yield lr_scheduler.LinearLR(optimizer)
    yield lr_scheduler.ExponentialLR(optimizer, 0.5)
    yield lr_scheduler.CosineAnnealingLR(optimizer, 5)
    yield lr_scheduler.ReduceLROnPlateau(optimizer)
    several = [lr_scheduler.ConstantLR(optimizer), lr_scheduler.StepLR(optimizer, 2)]
    yield lr_scheduler.SequentialLR(optimizer, several, [3])
    yield lr_scheduler.OneCycleLR(optimizer, 1.0, 10)


@pytest.mark.parametrize("scheduler", list(schedulers()), ids=lambda scheduler: type(scheduler).__name__)
def test_a_scheduler_takes_all_of_a_state_or_nothing(scheduler):
    good = scheduler.state_dict()
    before, group = bits(good), scheduler.optimizer.param_groups[0]
    kept = dict(group)
    for label, state in changes(good):
        try:
            scheduler.load_state_dict(state)
        except StateError:
            assert bits(scheduler.state_dict()) == before, label
            continue
        try:
            scheduler.step(*[1.0] * isinstance(scheduler, lr_scheduler.ReduceLROnPlateau))
        except ArgumentError as error:   # of a schedule that is over
            assert "steps at most, got one more" in str(error), label
        scheduler.get_last_lr()
        group.update(kept)
        scheduler.load_state_dict(good)
    assert bits(scheduler.state_dict()) == before


@pytest.mark.parametrize("callback", [EarlyStopping("loss"), Checkpoint("x", monitor="loss")],
                         ids=lambda callback: type(callback).__name__)
def test_a_callback_takes_all_of_a_state_or_nothing(callback):
    good = {**callback.state_dict(), "best": 0.5}
    if "best_state" in good:
        good.update(best_epoch=1, wait=2, best_state={"weight": np.zeros(3)})
    callback.load_state_dict(good)
    before = bits(vars(callback))
    for label, state in changes(good):
        try:
            callback.load_state_dict(state)
        except (StateError, KeyError, TypeError, ValueError):   # which a fit makes a StateError
            assert bits(vars(callback)) == before, label
            continue
        assert isinstance(callback.best, float)
        callback.load_state_dict(good)


# ---- checkpoints ----

@pytest.mark.parametrize("change, message", [
    (lambda t: t.update(epoch="abc"), "epoch: expected an int, 0 or more, got 'abc'"),
    (lambda t: t.update(epoch=-1), "epoch: expected an int, 0 or more, got -1"),
    (lambda t: t.update(epoch=2**53 + 1), "epoch: expected an int, 9007199254740992 at most, got 9007199254740993"),
    (lambda t: t.update(epoch=1), "epochs: expected numbers that rise from 1 to 1 at most, got 2 after 1"),
    (lambda t: t.update(seed="x"), "seed: expected an int, 0 or more, got 'x'"),
    (lambda t: t.update(seed=1.5), "seed: expected an int, 0 or more, got 1.5"),
    (lambda t: t.update(epochs=np.zeros((2, 2), int)), "epochs: expected an array of ints with one dimension, got "),
    (lambda t: t.update(epochs=[1, 2]), "epochs: expected an array of ints with one dimension, got [1, 2]"),
    (lambda t: t.update(epochs=np.array([2, 1])),
     "epochs: expected numbers that rise from 1 to 2 at most, got 1 after 2"),
    (lambda t: t["history"].update(loss=np.zeros((2, 2))),
     "history['loss']: expected an array of 2 numbers, got array"),
    (lambda t: t["history"].update(loss=np.zeros(3)), "history['loss']: expected an array of 2 numbers, got array"),
    (lambda t: t["history"].update(loss=np.array(["a", "b"])),
     "history['loss']: expected an array of 2 numbers, got arr"),
    (lambda t: t["history"].update({5: np.zeros(2)}), "history: expected names, got 5"),
    (lambda t: t.update(history=[]), "history: expected a dict of arrays, got []"),
    (lambda t: t["optimizer"]["state"][0].update(step=2**63),
     "state_dict['state'][0]['step']: expected an int, 9007199254740992 at most, got 9223372036854775808"),
    (lambda t: t["optimizer"]["param_groups"][0].update(initial_lr="x"),
     "state_dict['param_groups'][0]['initial_lr']: expected a finite number, 0 or more, got 'x'"),
    (lambda t: t["optimizer"]["param_groups"][0].update(params=[]), "got 'params' as well"),
    (lambda t: t["scheduler"].update(last_epoch=2**63),
     "state_dict['last_epoch']: expected an int, 9007199254740992 at"),
    (lambda t: t["generators"].update(second=(3, (1, 2), None)), "ValueError"),
    (lambda t: t["generators"].update(second=(*t["generators"]["second"][:2], "x")),
     "generators['second']: expected the"),
    (lambda t: t["generators"]["third"]["state"].update(pos=10**6),
     "generators['third']: expected the state of a Generator"),
    (lambda t: t["generators"]["fourth"].update(buffer_pos=10**6),
     "generators['fourth']: expected the state of a Gener"),
    (lambda t: t["generators"]["first"]["state"].update(state=10**400), "OverflowError"),
    (lambda t: t["generators"]["first"].update(bit_generator="MT19937"),
     "generators['first']: expected the state of a Gen"),
    (lambda t: t["generators"].pop("first"), "model: expected the generators ['first'"),
    (lambda t: t.update(generators=5), "model: expected the generators"),
    (lambda t: t["callbacks"].append(5), "callbacks[2]: expected the name of a class and its state, got 5"),
    (lambda t: t.update(callbacks={}), "callbacks: expected a list, got {}"),
    (lambda t: t["callbacks"][0][1].update(wait="x"), "callbacks[0]['wait']: expected an int, 0 or more, got 'x'"),
    (lambda t: t["callbacks"][0][1].update(best=None), "callbacks[0]['best']: expected a number, got None"),
    (lambda t: t["callbacks"][0][1]["best_state"].pop("layers.0.bias"),
     "callbacks[0]['best_state']: expected the shapes"),
    (lambda t: t["callbacks"][1][1].update(mode="x"), "callbacks[1]['mode']: expected one of 'min', 'max', got 'x'"),
    (lambda t: t["classes"].update(optimizer=5), "optimizer: expected the state of an Adam, got that of 5"),
    (lambda t: t.update(classes=None), "classes: expected the keys"),
    (lambda t: t.pop("seed"), "the checkpoint: expected the keys"),
    (lambda t: t.update(more=1), "the checkpoint: expected the keys"),
    (lambda t: t["model"].update({"layers.0.bias": np.full(3, 2**53 + 1)}),
     "layers.0.bias: expected numbers that float64"),
])
def test_a_checkpoint_with_something_that_no_trainer_saves(path, change, message):
    saved = trainer("adam")
    saved.save(path)
    tree = load_tree(path)
    change(tree)
    save_tree(path, tree)
    other = trainer("adam", 5, 1)
    before, objects = state_of(other), (other.history, other._callbacks)
    with pytest.raises(StateError, match=rf"^{re.escape(path)}: .*{re.escape(message)}"):
        other.load(path)
    assert state_of(other) == before and (other.history, other._callbacks) == objects


def test_json_that_is_none(path):
    saved = trainer("sequence")
    for text in ("[" * 10**6, '{"version":1,"tree":' + '{"tuple":[' * 5000 + "]}" * 5000 + "}", "", "nan", "1" * 5000):
        save_arrays(path, {"flatgrad.train.Trainer": np.array(text)})
        with pytest.raises(StateError, match="^.*x.npz: expected a checkpoint of a Trainer, got a damaged one"):
            saved.load(path)


def test_a_part_of_the_users_own_that_refuses(path):
    """Whatever it raises is a StateError, and the parts before it are as they were."""
    class Picky(SGD):
        def load_state_dict(self, state):
            if state["param_groups"][0]["lr"] == 0.5:
                raise OSError("not today")
            super().load_state_dict(state)

    model = nn.Layer(2, 1)
    it = Trainer(model, Picky(model.parameters(), lr=0.5), "mse")
    it.save(path)
    it.optimizer.lr = 0.25
    model.load_state_dict({"weight": [[5.0, 6.0]], "bias": [7.0]})
    before = state_of(it)
    with pytest.raises(StateError, match="a damaged checkpoint: OSError"):
        it.load(path)
    assert state_of(it) == before


@posix
def test_a_checkpoint_that_cannot_be_written_is_told_before_training(path):
    model = nn.MLP(2, [3, 1])
    it = Trainer(model, SGD(model.parameters()), "hinge")
    it.save(path)
    os.chmod(path, 0o444)
    before = state_of(it)
    with pytest.raises(PermissionError) as caught:
        it.fit(files.X, files.Y, 3, callbacks=[Checkpoint(path)], progress=False)
    assert caught.value.filename == path and state_of(it) == before


# ---- other files ----

def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    from flatgrad.cli import main

    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(b"old")

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SystemExit):
        main(["moons", "--steps", "1", "--out", "a.png"])
    assert Path("a.png").read_bytes() == b"old" and only(tmp_path, "a.png")
    assert "cannot write a.png: No space left on device" in capsys.readouterr().err


@posix
def test_looking_whether_a_file_can_be_written_changes_nothing(tmp_path):
    os.symlink("nothing", tmp_path / "link")
    for name in ("link", "new", os.devnull):
        storage.check_writable(str(tmp_path / name))
    assert only(tmp_path, "link") and os.path.islink(tmp_path / "link")


def test_write_file_takes_bytes_or_parts_of_them(path):
    write_file(path, b"")
    assert Path(path).read_bytes() == b""
    write_file(path, (part for part in (b"a", bytearray(b"b"), memoryview(b"c"), np.zeros(1, np.uint8))))
    assert Path(path).read_bytes() == b"abc\0"
    with pytest.raises(TypeError, match="^path: expected a str or path-like object, got 5"):
        write_file(5, b"")


def test_an_error_names_the_path_that_was_given_alone(tmp_path):
    nowhere = str(tmp_path / "none" / "x.npz")
    compiled = flatgrad.compile(lambda x: x * x)
    compiled(1.0)
    for write in nn.MLP(2, [1]).save, lambda path: compiled.to_c(path.replace(".npz", ".c"), gradient=False):
        with pytest.raises(FileNotFoundError, match=r": '[^']*none.x\.(npz|c)'$"):
            write(nowhere)
