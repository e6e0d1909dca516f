"""Pickles are read as data: nothing in them is executed, imported, or allocated by their say-so."""

import argparse
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe.convert.megatron.pickle_data import AllowedNames, Name, PickleData, Record
from moe.errors import ConfigError

ALLOWED = AllowedNames(frozenset({"argparse.Namespace", "torch.Size"}))
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=12,
)


def read(data: bytes) -> Any:
    return PickleData("x.pt", ALLOWED).read(data)


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


@settings(max_examples=60, deadline=None)
@given(PLAIN, st.integers(3, 5))
def test_plain_values_are_what_they_were(value: Any, protocol: int) -> None:
    assert read(pickle.dumps(value, protocol)) == value


def test_a_namespace_is_a_record_of_its_attributes() -> None:
    for protocol in range(2, 6):
        found = read(pickle.dumps(argparse.Namespace(a=1, b=[None, "c"]), protocol))
        assert isinstance(found, Record) and found.kind == "argparse.Namespace"
        assert found.fields() == {"a": 1, "b": [None, "c"]}


class Evil:
    """What a pickle would call; `touched` is a file it would make."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


def test_calls_are_refused_by_name_and_not_made(tmp_path: Path) -> None:
    import os

    touched = tmp_path / "touched"
    calls = {
        "posix.system": Evil(os.system, f"touch {touched}"),
        "builtins.eval": Evil(eval, f"open({str(touched)!r}, 'w')"),
        "builtins.exec": Evil(exec, f"open({str(touched)!r}, 'w')"),
        "builtins.getattr": Evil(getattr, Evil(__import__, "os"), "system"),
        "pathlib.Path": Evil(Path.touch, touched),
    }
    for protocol in (2, 4, 5):
        for name, evil in calls.items():
            with pytest.raises(ConfigError, match=r"x\.pt: holds the class") as caught:
                read(pickle.dumps({"args": [evil]}, protocol))
            named = str(caught.value)
            assert "never executed" in named and "\n" not in named
            # Before protocol 3, Python 2's names; of a nested call, the inner one comes first.
            assert name.partition(".")[2] in named or "getattr" in named or "import" in named
    assert not touched.exists()


NAMESPACE = b"cargparse\nNamespace\n"
HOSTILE = {
    "module that is not loaded": (b"cantigravity\nfly\n)R.", "class antigravity.fly"),
    "dotted name": (text("os") + text("path.os.system") + b"\x93.", "class os.path.os.system"),
    "name that is a number": (b"K\x01K\x02\x93.", "class 1.2"),
    "name of two lines": (text("os") + text("a\nb") + b"\x93.", "class os.a\\nb"),
    "INST with text": (b"(S'id'\nios\nsystem\n.", "operation STRING"),
    "INST": (b"(ios\nsystem\n.", "operation INST"),
    "OBJ": (b"(" + NAMESPACE + b"o.", "operation OBJ"),
    "NEWOBJ_EX": (NAMESPACE + b")}\x92.", "operation NEWOBJ_EX"),
    "EXT1": (b"\x82\x01.", "operation EXT1"),
    "EXT4": (b"\x84\x01\x00\x00\x00.", "operation EXT4"),
    "persistent id as text": (b"Pid\n.", "operation PERSID"),
    "buffer out of the stream": (b"\x97.", "operation NEXT_BUFFER"),
    "call of text": (text("os.system") + b")R.", "a call of a str"),
    "call of a record": (NAMESPACE + b")\x81)R.", "a call of a Record"),
    "state of a class": (NAMESPACE + b"}b.", "damaged: a Name stands"),
    "state of a table": (b"}}b.", "damaged: a dict stands"),
    "items of a record": (NAMESPACE + b")\x81(K\x01e.", "damaged: a Record stands"),
    "memo never put": (b"j\xff\xff\xff\x7f.", "damaged: "),
    "huge text": (b"\x8d" + struct.pack("<Q", 1 << 60) + b"a.", "damaged: "),
    "huge bytes": (b"\x8e" + struct.pack("<Q", 1 << 40) + b"a.", "damaged: "),
    "huge number": (b"\x8b\xff\xff\xff\x7fa.", "damaged: "),
    "negative length": (b"\x8b\xff\xff\xff\xffa.", "damaged: "),
    "deep tuple as a key": (b"})" + b"\x85" * 200_000 + b"K\x01s.", "a tuple as a key"),
    "list as a key": (b"}]K\x01s.", "a list as a key"),
    "a mark for a value": (b"}(K\x01s.", "damaged: a value is missing"),
    "nothing": (b"", "damaged: "),
    "no end": (b"K\x01", "damaged: "),
    "two values": (b"K\x01K\x02.", "damaged: "),
    "half of a pair": (b"}(K\x01u.", "damaged: "),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles_are_one_line(kind: str) -> None:
    data, message = HOSTILE[kind]
    loaded = set(sys.modules)
    with pytest.raises(ConfigError) as caught:
        read(data)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 and set(sys.modules) == loaded


def test_numbers_in_it_allocate_nothing() -> None:
    assert read(b"Nr\xff\xff\xff\x7f.") is None  # Python's own would make a memo of 2**32 places
    assert read(b"\x95" + struct.pack("<Q", 1 << 60) + b"N.") is None
    doubled = b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
    assert isinstance(read(b"](" + doubled + b"e."), list)  # 2**60 leaves, shared


def test_nesting_has_no_end() -> None:
    deep = read(b"]" * 300_000 + b"a" * 299_999 + b".")
    assert isinstance(deep, list) and len(deep) == 1


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_data_or_one_line(data: bytes) -> None:
    try:
        read(data)
    except ConfigError as error:
        assert "\n" not in str(error)


def test_names_are_names() -> None:
    assert read(b"ctorch\nSize\n.") == Name("torch.Size")
