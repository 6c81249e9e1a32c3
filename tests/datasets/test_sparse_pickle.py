"""A pickle is read without being run: whatever tries is refused, and no canary appears."""

import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from scipy.sparse import coo_matrix, csr_array

from gtc_pyg.datasets.raw_files import read_sparse_pickle
from gtc_pyg.datasets.sparse_pickle import MAX_OPERATIONS, load_sparse

MATRIX = coo_matrix(np.array([[0, 1, 0], [2, 0, 3]]))
NUMPY = b"cnumpy.core.multiarray\n_reconstruct\n"
BUFFER = b"cnumpy.core.numeric\n_frombuffer\n"
DTYPE = b"\x80\x03cnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tR"


class Calls:
    """A pickle of it calls ``function`` when it is loaded."""

    def __init__(self, function, *arguments):
        self.how = function, arguments

    def __reduce__(self):
        return self.how


def short(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


def hostile(canary):
    """Name to stream; those of the first part make the canary where they are really loaded."""
    import os

    touch = f"touch {canary}"
    argument = b"X" + struct.pack("<I", len(touch)) + touch.encode()
    inner = pickle.dumps(Calls(os.system, touch))
    running = {
        **{f"reduce, protocol {p}": pickle.dumps(Calls(os.system, touch), p) for p in range(6)},
        "global": b"cposix\nsystem\n(" + argument + b"tR.",
        "nested global": b"\x80\x04"
        + short("os")
        + short("path.os.system")
        + b"\x93"
        + argument
        + b"\x85R.",
        "inst": b"(" + b"S'" + touch.encode() + b"'\niposix\nsystem\n.",
        "obj": b"(cposix\nsystem\n" + argument + b"o.",
        "eval": pickle.dumps(Calls(eval, f"open({str(canary)!r}, 'w')")),
        "exec in a dictionary": pickle.dumps({"data": Calls(exec, f"open({str(canary)!r}, 'w')")}),
        "open": pickle.dumps(Calls(open, str(canary), "w")),
        "behind a matrix": pickle.dumps(MATRIX)[:-1] + b"0" + inner[2:],
        "in a matrix": pickle.dumps([MATRIX, Calls(os.system, touch)]),
        "pickle in a pickle": pickle.dumps(Calls(pickle.loads, inner)),
        "map": pickle.dumps(Calls(list, [Calls(os.system, touch)])),
        "numpy's file": pickle.dumps(Calls(np.ndarray.tofile, np.zeros(3), str(canary))),
        "numpy's memmap": pickle.dumps(Calls(np.memmap, str(canary), "f8", "w+", 0, (3,))),
    }
    refused = {
        "extension": b"\x80\x03\x82\x01.",
        "long extension": b"\x80\x03\x84\x01\x00\x00\x00.",
        "persistent id": b"P1\n.",
        "binary persistent id": b"\x80\x03K\x01Q.",
        "out of band": b"\x80\x05\x97.",
        "newobj_ex": b"\x80\x04cscipy.sparse\ncoo_matrix\n)}\x92.",
        "newobj of no class": b"\x80\x03K\x01)\x81.",
        "a state for a function": b"\x80\x03" + BUFFER + b"}" + short("__defaults__") + b"Nsb.",
        "a state for a class": b"\x80\x03cscipy.sparse\ncoo_matrix\n}" + short("x") + b"K\x01sb.",
        "getattr": b"cbuiltins\ngetattr\n.",
        "scipy's function": b"\x80\x03cscipy.sparse\nload_npz\n" + short("x") + b"\x85R.",
        "scipy's module": b"\x80\x03cscipy.sparse.os\nsystem\n" + short("x") + b"\x85R.",
        "numpy's function": b"\x80\x03cnumpy\nload\n" + short("x") + b"\x85R.",
        "module that is a number": b"\x80\x04K\x01K\x02\x93.",
        "memo far away": b"\x80\x03Nr\xff\xff\xff\x7f.",
        "memo of nothing": b"\x80\x03h\x05.",
        "bytes past the end": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
        "more bytes than there are numbers": b"\x80\x04\x8e" + b"\xff" * 8 + b"x.",
        "bytearray past the end": b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b"x.",
        "text past the end": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
        "huge integer": b"\x80\x03\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
        "digits without end": b"I" + b"9" * 50_000 + b"\n.",
        "array of objects": DTYPE.replace(b"f8", b"O8") + b".",
        "array of records": DTYPE.replace(b"X\x02\x00\x00\x00f8", b"X\x05\x00\x00\x00f8,f8") + b".",
        "huge elements": DTYPE.replace(b"X\x02\x00\x00\x00f8", b"X\x0a\x00\x00\x00V999999999")
        + b".",
        "huge array": b"\x80\x03" + NUMPY + b"cnumpy\nndarray\n\x8a\x05\0\0\0\0\1\x85C\x01b\x87R.",
        "matrix of nothing": b"\x80\x03cscipy.sparse\ncoo_matrix\n)\x81.",
        "nesting": b"\x80\x03)" + b"\x85" * 1_000_000 + b".",
        "nested key": b"\x80\x03})" + b"\x85" * 9_000 + b"Ns.",
        "laughs": b"\x80\x03})" + b"q\x01h\x01\x86" * 60 + b"Ns.",
        "marks": b"(" * 100_000 + b".",
        "nothing": b"",
        "no stop": b"\x80\x03N",
        "stop alone": b".",
        "empty stack": b"\x80\x03\x87.",
    }
    return running, refused


NAMES = hostile("canary")


@pytest.mark.parametrize("name", [*NAMES[0], *NAMES[1]])
def test_what_is_no_plain_matrix_is_refused_and_runs_nothing(name, tmp_path):
    canary = tmp_path / "canary"
    stream = {k: v for part in hostile(canary) for k, v in part.items()}[name]
    path = tmp_path / "m.pkl"
    path.write_bytes(stream)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"m\.pkl: "):
        read_sparse_pickle(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.pkl"]
    assert peak < 2**24 + 20 * len(stream)


@pytest.mark.parametrize("name", [n for n in NAMES[0] if n not in ("in a matrix",)])
def test_the_canaries_would_sing(name, tmp_path):
    """Under pickle itself the same streams do what they say."""
    canary = tmp_path / "canary"
    if name == "obj":
        pytest.skip("a function is no class, which OBJ asks for")
    try:
        pickle.loads(hostile(canary)[0][name])
    except Exception:
        assert canary.exists(), name
    assert canary.exists()


def test_the_forbidden_name_is_told(tmp_path):
    path = tmp_path / "m.pkl"
    path.write_bytes(b"cposix\nsystem\n.")
    with pytest.raises(ValueError, match=r"m\.pkl: names the forbidden global 'posix\.system'"):
        read_sparse_pickle(str(path))


def test_numpy_is_as_it_was_after_a_state_for_its_function(tmp_path):
    from numpy._core.numeric import _frombuffer

    before = _frombuffer.__defaults__, dict(vars(_frombuffer))
    path = tmp_path / "m.pkl"
    path.write_bytes(b"\x80\x04" + BUFFER + b"}" + short("x") + b"Nsb.")
    with pytest.raises(ValueError, match="gives a state to what is no array"):
        read_sparse_pickle(str(path))
    assert (_frombuffer.__defaults__, dict(vars(_frombuffer))) == before


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<f2", "i1", "<i8", "?", "u2"])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_every_kind_of_number_is_read(dtype, protocol, tmp_path):
    values = np.array([1, 1, 0], dtype=dtype)
    matrix = csr_array((values, [1, 0, 2], [0, 1, 3]), shape=(2, 3))
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(matrix, protocol=protocol))
    edge_index, shape = read_sparse_pickle(str(path))
    assert shape == (2, 3) and edge_index.tolist() == [[0, 1], [1, 0]]


def test_a_matrix_is_far_below_the_limit(tmp_path):
    import pickletools

    assert sum(1 for _ in pickletools.genops(pickle.dumps(MATRIX, 5))) < MAX_OPERATIONS / 20


def test_repeated_content_is_refused_before_it_fills_memory() -> None:
    text = "\xff" * 10_000
    encode = b"c_codecs\nencode\n" + b"X" + len(text.encode()).to_bytes(4, "little") + text.encode()
    encode += b"q\x00X\x06\x00\x00\x00latin1q\x01\x86R"
    again = b"c_codecs\nencode\nh\x00h\x01\x86R"
    with pytest.raises(ValueError, match="repeats its content"):
        load_sparse(b"\x80\x02" + encode + 50 * again + b".")


def test_an_empty_matrix_of_protocol_2_is_read() -> None:
    found = load_sparse(pickle.dumps(coo_matrix((2, 3)), protocol=2))
    assert found.state["data"].size == 0
