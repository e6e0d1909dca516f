"""The data in a pickle, read without executing it: nothing is imported, called or constructed.

`pickletools.genops` of the standard library takes the bytes apart; the few operations that data
needs are done here, on plain values and on records. Python's own unpickler is not used even with a
`find_class` of its own: a hostile file can still make it allocate a memo of any size, or overflow
the stack by hashing a deep tuple.

The format: https://docs.python.org/3/library/pickletools.html, and pickletools.py itself.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moe.errors import ConfigError

_MOST_VALUES = 50_000_000
"""Values that a file may have; a value takes a byte there, and some fifty in memory."""


@dataclass(frozen=True)
class AllowedNames:
    """What a pickle may name."""

    names: frozenset[str]
    """`module.name` of each."""
    beginnings: tuple[str, ...] = ()
    """Of further ones."""

    def __contains__(self, kind: str) -> bool:
        return kind in self.names or kind.startswith(self.beginnings)


@dataclass(frozen=True)
class Name:
    """What a pickle names in a module, such as a class or torch's number formats."""

    kind: str


class Record:
    """An object in a pickle: the name of its class, what it was made of, and its state."""

    __slots__ = ("arguments", "kind", "state")

    def __init__(self, kind: str, arguments: Any) -> None:
        self.kind, self.arguments = kind, arguments
        self.state: Any = None

    def __repr__(self) -> str:
        return f"<{self.kind}>"

    def fields(self) -> dict[str, Any]:
        """Return the attributes that its state sets; of slots as well."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        tables = (part for part in parts if isinstance(part, dict))
        return {key: value for table in tables for key, value in table.items()}


class _OrderedTable(dict[Any, Any]):
    """An OrderedDict, which may have attributes."""


class _Mark:
    """Where a list of items begins on the stack."""


_MARK = _Mark()
Scalar = (type(None), bool, int, float, str, bytes)


class PickleData:
    """Reads pickles of one file.

    Args:
        origin: What to call the file in errors.
        allowed: What may stand in it.
    """

    def __init__(self, origin: str, allowed: AllowedNames) -> None:
        self.origin, self.allowed = origin, allowed
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self, data: bytes) -> Any:
        """Return the value of a pickle: plain values, `Name`s and `Record`s.

        Raises:
            ConfigError: It names what is not allowed, uses what data does not need, or is damaged.
        """
        self._stack, self._memo = [], {}
        count = 0
        try:
            for opcode, argument, _ in pickletools.genops(data):
                count += 1
                if count > _MOST_VALUES:
                    raise ValueError(f"more than {_MOST_VALUES} values")
                if opcode.name == "STOP":
                    return self._only_value()
                operation = _OPERATIONS.get(opcode.name)
                if operation is None:
                    raise self._refused(f"the pickle operation {opcode.name}")
                operation(self, argument)
        except ConfigError:
            raise
        except Exception as error:  # pickletools raises what its parsers raise
            raise ConfigError(f"{self.origin}: damaged: {_one_line(str(error))}") from None
        raise ConfigError(f"{self.origin}: damaged: the pickle does not end")

    def _only_value(self) -> Any:
        (value,) = self._stack
        return value

    def _refused(self, what: str) -> ConfigError:
        return ConfigError(
            f"{self.origin}: holds {_one_line(what)}, which data of Megatron does not need"
            " and which is never executed here: save the checkpoint without it; if it is in the"
            " arguments, give the model with --model FILE.toml"
        )

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Take the last value; a mark is none."""
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a value is missing")
        return value

    def pop_items(self) -> list[Any]:
        """Take all values since the last mark, and the mark."""
        items = []
        while (value := self._stack.pop()) is not _MARK:
            items.append(value)
        items.reverse()
        return items

    def top(self, kind: type) -> Any:
        """Return the last value, which must be of a kind."""
        if not isinstance(self._stack[-1], kind):
            raise ValueError(f"a {type(self._stack[-1]).__name__} stands where a"
                             f" {kind.__name__} belongs")  # fmt: skip
        return self._stack[-1]

    def put(self, index: int) -> None:
        """Remember the last value."""
        self._memo[index] = self._stack[-1]

    def put_next(self) -> None:
        """Remember the last value under the next number."""
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, index: int) -> None:
        """Repeat a remembered value."""
        self._stack.append(self._memo[index])

    def name(self, module: Any, name: Any) -> None:
        """Name something of a module, which is not imported."""
        kind = f"{module}.{name}"
        if not isinstance(module, str) or not isinstance(name, str) or kind not in self.allowed:
            raise self._refused(f"the class {kind}")
        self.push(Name(kind))

    def record(self) -> None:
        """Make a record of a named class and its arguments."""
        arguments = self.pop()
        kind = self.pop()
        if not isinstance(kind, Name):
            raise self._refused(f"a call of a {type(kind).__name__}")
        if kind.kind == "collections.OrderedDict" and arguments == ():
            self.push(_OrderedTable())
        else:
            self.push(Record(kind.kind, arguments))

    def build(self) -> None:
        """Give a record its state; attributes of an ordered table, as `state_dict` has, go."""
        state = self.pop()
        if not (isinstance(self._stack[-1], _OrderedTable) and isinstance(state, dict)):
            self.top(Record).state = state

    def add_items(self, items: list[Any]) -> None:
        """Add items to a list."""
        self.top(list).extend(items)

    def set_items(self, pairs: list[Any]) -> None:
        """Add keys and values, in turn, to a table."""
        table = self.top(dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            plain = isinstance(key, (*Scalar, Name, Record))
            if not plain and not (
                isinstance(key, tuple) and all(isinstance(k, Scalar) for k in key)
            ):
                raise ValueError(f"a {type(key).__name__} as a key")  # its hash has no end
            table[key] = value

    def pop_pair(self) -> list[Any]:
        """Take a key and its value."""
        value = self.pop()
        return [self.pop(), value]

    def pop_tuple(self, size: int) -> None:
        """Make a tuple of the last values."""
        items = [self.pop() for _ in range(size)]
        self.push(tuple(reversed(items)))


def _one_line(text: str) -> str:
    return text[:120].encode("unicode_escape").decode()


def _named(machine: PickleData, argument: str) -> None:
    machine.name(*argument.split(" ", 1))


def _stack_named(machine: PickleData, _: None) -> None:
    name = machine.pop()
    machine.name(machine.pop(), name)


def _persistent(machine: PickleData, _: None) -> None:
    machine.push(Record("persistent id", machine.pop()))


_Operation = Callable[[PickleData, Any], Any]
_LITERALS = (
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINUNICODE", "BINBYTES", "BINBYTES8", "SHORT_BINBYTES",
)  # fmt: skip
_OPERATIONS: dict[str, _Operation] = {
    **dict.fromkeys(_LITERALS, PickleData.push),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), PickleData.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), PickleData.get),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, _: machine.record()),
    **dict.fromkeys(("PROTO", "FRAME"), lambda *_: None),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push([]),
    "MARK": lambda machine, _: machine.push(_MARK),
    "MEMOIZE": lambda machine, _: machine.put_next(),
    "APPEND": lambda machine, _: machine.add_items([machine.pop()]),
    "APPENDS": lambda machine, _: machine.add_items(machine.pop_items()),
    "ADDITEMS": lambda machine, _: machine.add_items(machine.pop_items()),
    "FROZENSET": lambda machine, _: machine.push(machine.pop_items()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop_pair()),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_items()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_items())),
    "TUPLE1": lambda machine, _: machine.pop_tuple(1),
    "TUPLE2": lambda machine, _: machine.pop_tuple(2),
    "TUPLE3": lambda machine, _: machine.pop_tuple(3),
    "BUILD": lambda machine, _: machine.build(),
    "GLOBAL": _named,
    "STACK_GLOBAL": _stack_named,
    "BINPERSID": _persistent,
}
"""What data needs. Not here: instances by INST and OBJ, extension codes, persistent ids as text,
buffers out of the stream, and what protocols before 2 write; sets become lists."""
