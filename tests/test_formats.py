"""Files of arrays: what is read from them, and what is said of files that cannot be used."""

import gzip
import io
import os
import pickle
import struct
import tarfile
import time
import zipfile

import numpy as np
import pytest

from common import formats


def arrays(count=20, **changes):
    """Four small arrays like MNIST's, with every class: five times as many to train on."""
    generator = np.random.default_rng(0)
    made = {}
    for part, images in [("train", 5 * count), ("test", count)]:
        made[f"x_{part}"] = generator.integers(0, 256, (images, 28, 28), dtype=np.uint8)
        made[f"y_{part}"] = np.arange(images, dtype=np.uint8) % 10
    return made | changes


def write_idx(path, array):
    raw = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    raw += array.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_idx_set(folder, suffix="", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    for key, array in arrays(**changes).items():
        write_idx(folder / f"{formats.IDX[key]}{suffix}", array)


def npz(**content):
    file = io.BytesIO()
    np.savez_compressed(file, **content)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def batch(count=20, **changes):
    """One batch of CIFAR-10, as its files hold it."""
    data = np.random.default_rng(count).integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = [i % 10 for i in range(count)]
    made = {b"batch_label": b"a batch", b"labels": labels, b"data": data, b"filenames": []}
    return made | {key.encode(): value for key, value in changes.items()}


def write_batches(folder, **contents):
    folder.mkdir(parents=True)
    for name in formats.BATCHES:
        content = contents.get(name, pickle.dumps(batch(), protocol=3))
        if content is not None:
            (folder / name).write_bytes(content)


def archive(path, folder):
    with tarfile.open(path, "w:gz") as file:
        file.add(folder, "cifar-10-batches-py")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise RuntimeError('the pickle was opened')",))


def sentence(path, function, *arguments):
    """The one line that a reader says of a file that it cannot use, without its path and advice."""
    with pytest.raises(formats.DataError) as error:
        function(*arguments)
    said = str(error.value)
    assert said.startswith(f"{path}: ")
    assert said.endswith(f". {formats.RENEW}")
    assert "\n" not in said
    return said[len(f"{path}: ") : -len(f" {formats.RENEW}")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on Windows")
@pytest.mark.parametrize(
    ("name", "read", "given"),
    [
        ("mnist.npz", formats.read_npz, "mnist.npz"),
        ("train-labels-idx1-ubyte", formats.read_idx, "train-labels-idx1-ubyte"),
        ("train-labels-idx1-ubyte", formats.read_idx_set, ""),
        ("cifar-10-python.tar.gz", formats.read_cifar10, "cifar-10-python.tar.gz"),
        ("data_batch_1", formats.read_cifar10, ""),
    ],
)
def test_a_pipe_under_the_name_of_a_file_is_named(tmp_path, name, read, given):
    write_idx_set(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    assert sentence(tmp_path / name, read, tmp_path / given) == "not a regular file."


@pytest.mark.parametrize("read", [formats.read_idx, formats.read_cifar10])
def test_a_file_that_is_not_there_is_named(tmp_path, read):
    said = sentence(tmp_path / "nothing", read, tmp_path / "nothing")
    assert said == "cannot be read (No such file or directory)."


# .npz files


GOOD = arrays()


def encrypted():
    """An .npz whose members ask for a password."""
    made = bytearray(npz(**GOOD))
    for signature, flags in [(b"PK\x03\x04", 6), (b"PK\x01\x02", 8)]:
        place = made.find(signature)
        while place >= 0:
            made[place + flags] |= 1
            place = made.find(signature, place + 4)
    return bytes(made)


def damaged_inside():
    made = bytearray(npz(**GOOD))
    made[1000:1100] = bytes(100)
    return bytes(made)


def with_member(content):
    """An .npz whose x_test is made of these bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as members:
        for name, array in GOOD.items():
            members.writestr(f"{name}.npy", content if name == "x_test" else npy(array))
    return file.getvalue()


def promising_terabytes():
    """An array whose header promises a billion images, and has twenty."""
    header = npy(GOOD["x_test"]).replace(b"(20, 28, 28), }" + b" " * 8, b"(2000000000, 28, 28), }")
    return with_member(header)


FAULTY = {
    "empty": (b"", "not an .npz file, or cut off"),
    "cut off": (npz(**GOOD)[:20_000], "not an .npz file, or cut off"),
    "a web page": (b"<!DOCTYPE html><html>Not found</html>", "not an .npz file, or cut off"),
    "a pickle": (pickle.dumps(Bomb()), "not an .npz file, or cut off"),
    "objects": (npz(**GOOD | {"x_test": np.array([Bomb()])}), "(Object arrays cannot be loaded"),
    "one array": (npy(GOOD["x_train"]), "not an .npz file, or cut off"),
    "an array lacking": (npz(**{k: v for k, v in GOOD.items() if k != "y_test"}), "y_test missing"),
    "no array": (with_member(b"a text"), "holds something else than arrays"),
    "encrypted": (encrypted(), "is encrypted"),
    "damaged inside": (damaged_inside(), "damaged, cut off, or of another kind ("),
    "terabytes": (promising_terabytes(), "larger than this machine's memory"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_bad_npz_is_named_with_its_fault_and_left_alone(tmp_path, fault):
    content, answer = FAULTY[fault]
    path = tmp_path / "mnist.npz"
    path.write_bytes(content)
    assert answer in sentence(path, formats.read_npz, path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read(tmp_path, save):
    save(tmp_path / "mnist.npz", **GOOD, more=np.zeros(3))
    found = formats.read_npz(tmp_path / "mnist.npz")
    assert set(found) == set(GOOD)
    for name, array in GOOD.items():
        np.testing.assert_array_equal(found[name], array)


# idx files


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_set_is_read(tmp_path, suffix):
    write_idx_set(tmp_path, suffix)
    for name, array in formats.read_idx_set(tmp_path).items():
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array, GOOD[name])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_that_is_cut_off_is_named(tmp_path, suffix):
    write_idx_set(tmp_path, suffix)
    path = tmp_path / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes(path.read_bytes()[:-100])
    answer = "end-of-stream marker" if suffix else "15,580 bytes of data where its header promises"
    assert answer in sentence(path, formats.read_idx_set, tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x08\x03\0\0\0\x01", b"<html>"])
def test_an_idx_file_that_is_none_is_named(tmp_path, content):
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(content)
    assert sentence(path, formats.read_idx, path) == "not an idx file of unsigned bytes."


def test_a_gzipped_file_that_is_none_is_named(tmp_path):
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(b"<html>")
    assert sentence(path, formats.read_idx, path).startswith("damaged (Not a gzipped file")


def test_an_idx_set_that_lacks_a_file_says_which(tmp_path):
    write_idx_set(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.unlink()
    said = sentence(path, formats.read_idx_set, tmp_path)
    assert said == "missing beside the other idx files."


# CIFAR-10


@pytest.fixture
def cifar10(tmp_path):
    """Write and read six batches, of which one has another content: `cifar10(test_batch=...)`."""

    def write_and_read(**contents):
        write_batches(tmp_path / "cifar-10-batches-py", **contents)
        return formats.read_cifar10(tmp_path / "cifar-10-batches-py")

    return write_and_read


class Pickled:
    """Pickled as this call of a function, with this state set afterwards."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def array_by_hand(kind, flags, content):
    """Images of a batch whose pickle gives their type these flags, as NumPy itself never does."""
    state = (3, "|", None, None, None, -1, -1, flags)
    function, arguments, _ = np.zeros(1, np.uint8).__reduce__()
    dtype = Pickled(np.dtype, (kind, False, True), state)
    return Pickled(function, arguments, (1, (20, 3072), dtype, False, content))


def test_images_and_labels_come_as_they_were_stored(cifar10):
    found = cifar10()
    assert found["x_train"].shape == (100, 32, 32, 3)
    assert found["x_test"].shape == (20, 32, 32, 3)
    assert found["x_train"].dtype == found["x_test"].dtype == np.uint8
    assert found["y_train"].tolist() == list(range(10)) * 10
    # Red comes first in a file, then green, then blue, each row by row.
    stored = batch()[b"data"][3]
    np.testing.assert_array_equal(found["x_train"][3, 2, 5], stored[[69, 1093, 2117]])
    np.testing.assert_array_equal(found["x_test"][3], found["x_train"][3])


def test_the_published_spelling_of_arrays_is_read_without_a_warning(cifar10, recwarn):
    # What Python 2 and NumPy 1 wrote: numpy.core, and a dtype with align=0.
    spelled = pickle.dumps(batch(), protocol=2)
    assert b"_codecs" in spelled  # bytes, as Python 3 spells them for Python 2: not admitted
    modern = pickle.dumps(batch(), protocol=3)
    published = modern.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")
    assert published != modern
    assert len(cifar10(data_batch_1=published)["x_train"]) == 100
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["<i8", ">i8", ">u2", "u1"])
def test_labels_may_be_an_array_of_any_byte_order(cifar10, kind):
    labels = np.array([9, 8, 7, 6, 5, 4, 3, 2, 1, 0] * 2, kind)
    found = cifar10(test_batch=pickle.dumps(batch(labels=labels), protocol=3))
    assert found["y_test"].tolist() == labels.tolist()


def test_images_stored_column_by_column_are_read(cifar10):
    data = np.asfortranarray(batch()[b"data"])
    found = cifar10(test_batch=pickle.dumps(batch(data=data), protocol=3))
    np.testing.assert_array_equal(found["x_test"], found["x_train"][:20])


def test_bytes_that_a_pickle_calls_pointers_to_objects_are_read_as_bytes(cifar10):
    # 63 is what the flags of an object array are: NumPy would follow each byte into the memory.
    data = array_by_hand("u1", 63, batch()[b"data"].tobytes())
    found = cifar10(test_batch=pickle.dumps(batch(data=data), protocol=3))
    assert found["x_test"].dtype == np.uint8
    np.testing.assert_array_equal(found["x_test"], found["x_train"][:20])


def endless():
    found = [1] * 20
    for _ in range(64):
        found = [found, found]
    return found


OBJECTS = array_by_hand("O8", 63, bytes(20 * 3072 * 8))
FAULTY_BATCHES = {
    "lacking": (None, "missing beside the other batches"),
    "empty": (b"", "pickle exhausted"),
    "cut off": (pickle.dumps(batch(), protocol=3)[:9000], "damaged, cut off"),
    "a web page": (b"<!DOCTYPE html><html>Not found</html>", "damaged, cut off, or of another"),
    "code": (pickle.dumps(Bomb()), "names builtins.exec, which could run code; it was not opened"),
    "code inside": (pickle.dumps(batch(data=Bomb())), "could run code; it was not opened"),
    "a list": (pickle.dumps([1, 2]), "no batch of CIFAR-10"),
    "CIFAR-100": (pickle.dumps(batch(labels=None), protocol=3), "no batch of CIFAR-10"),
    "floats": (pickle.dumps(batch(data=np.zeros((20, 3072))), protocol=3), "of type 'f8'"),
    "objects": (pickle.dumps(batch(data=np.array([None])), protocol=3), "an array of type 'O8'"),
    "bytes as objects": (pickle.dumps(batch(data=OBJECTS), protocol=3), "an array of type 'O8'"),
    "wide": (
        pickle.dumps(batch(data=np.zeros((20, 3072), np.uint16)), protocol=3),
        "its data are uint16 of shape (20, 3072), not uint8",
    ),
    "one row": (
        pickle.dumps(batch(data=np.zeros(3072, np.uint8)), protocol=3),
        "uint8 of shape (3072,), not",
    ),
    "fewer labels": (pickle.dumps(batch(labels=[1]), protocol=3), "not one whole number as a"),
    "ragged": (
        pickle.dumps(batch(labels=[[1], [1, 2]] * 10), protocol=3),
        "not one whole number as a",
    ),
    "names": (pickle.dumps(batch(labels=["cat"] * 20), protocol=3), "not one whole number as a"),
    # To hash two million nested tuples ends Python; so large a memo takes all memory; and a list
    # that holds itself twice, over and over, is never through.
    "nested": (b"\x80\x03})" + b"\x85" * 2_000_000 + b"Ns.", "made to crash Python"),
    "memo": (b"\x80\x03}r\xff\xff\xff\xff.", "made to crash Python"),
    "endless": (pickle.dumps(batch(labels=endless()), protocol=3), "not one whole number as a"),
}


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch"])
@pytest.mark.parametrize("fault", FAULTY_BATCHES)
def test_a_bad_batch_is_named_with_its_fault_and_left_alone(tmp_path, cifar10, fault, name):
    content, answer = FAULTY_BATCHES[fault]
    path = tmp_path / "cifar-10-batches-py" / name
    assert answer in sentence(path, lambda: cifar10(**{name: content}))
    assert not path.exists() if content is None else path.read_bytes() == content


@pytest.fixture
def packed(tmp_path):
    """The path of an archive as it is published, but small."""
    path = tmp_path / "cifar-10-python.tar.gz"
    write_batches(tmp_path / "made")
    archive(path, tmp_path / "made")
    return path


def test_an_archive_is_read_like_its_folder_and_nothing_is_extracted(tmp_path, packed):
    before = sorted(tmp_path.rglob("*"))
    found = formats.read_cifar10(packed)
    for name, array in formats.read_cifar10(tmp_path / "made").items():
        np.testing.assert_array_equal(found[name], array)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bad_archive_is_named(packed):
    whole = packed.read_bytes()
    for content in [whole[: len(whole) // 2], b"", b"<html>"]:
        packed.write_bytes(content)
        assert sentence(packed, formats.read_cifar10, packed).startswith("damaged, cut off, or ")
        assert packed.read_bytes() == content


SPARSE = {"GNU.sparse.map": "0,512", "GNU.sparse.size": str(10**13)}


@pytest.mark.parametrize(
    ("name", "size", "headers"),
    [("data_batch_1", 512, SPARSE), ("data_batch_1", 10**11, {}), ("readme.html", 10**11, {})],
    ids=["sparse", "a batch", "another file"],
)
def test_an_archive_that_claims_to_hold_terabytes_is_refused_at_once(tmp_path, name, size, headers):
    path = tmp_path / "cifar-10-python.tar.gz"
    member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
    member.size, member.pax_headers = size, headers
    with gzip.open(path, "wb") as file:
        file.write(member.tobuf(tarfile.PAX_FORMAT) + bytes(10_240))
    with tarfile.open(path) as file:
        assert file.next().size >= 10**11
    began = time.monotonic()
    sentence(path, formats.read_cifar10, path)
    assert time.monotonic() - began < 1
