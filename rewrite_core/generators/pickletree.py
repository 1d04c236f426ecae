"""A pickle of unknown origin → a tree of plain values. No object is made, nothing is imported, nothing is called.

A pickle is a program for a small stack machine. The machine here knows the operations that the pickles of numbers need
(protocols 2 to 5) and makes only numbers, texts, bytes, tuples, lists, dictionaries and sets of its own. A name that
the pickle gives (``torch._utils _rebuild_tensor_v2``) becomes a `Name`, a call becomes a `Call`: a record of what was
asked for, which the reader may interpret. Everything else is refused: other operations (``INST``, ``OBJ``, ``EXT1``,
``NEWOBJ_EX`` …), names that are not in the reader's list, and state for anything but a call.

Memory and time are in proportion to the file, whatever it says: bytes are views into the file, an operation makes at
most one value, there are at most `LARGEST_PROGRAM` operations, and keys are texts (a tuple of tuples can unfold without
end). Nothing here recurses; whoever walks the tree must expect that it contains itself.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

__all__ = ["LARGEST_PROGRAM", "PERSISTENT", "Call", "Name", "Refused", "read_tree"]

LARGEST_PROGRAM = 200_000
"""Operations. A network pickle of 1024 pixels has about 45,000."""

PERSISTENT = "persistent_load"
"""The function of the call that stands for a persistent id."""


class Refused(ValueError):
    """A pickle that asks for something other than plain values; the text says for what."""


@dataclass(frozen=True)
class Name:
    """A global that the pickle names, as ``module.name``; it is never looked up."""

    text: str


@dataclass(eq=False)
class Call:
    """A call that the pickle asks for and that is not made; `state` is what it would have given to the result."""

    function: str
    args: tuple[Any, ...]
    state: Any = None


_ARGUMENT = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_BYTES = {"SHORT_BINBYTES": 2, "BINBYTES": 5, "BINBYTES8": 9, "BYTEARRAY8": 9}  # bytes before their content
_CONSTANT: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: Mapping[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CONTAINERS = {
    "collections.OrderedDict", "dnnlib.util.EasyDict", "builtins.set", "builtins.bytes", "_codecs.encode",
}  # fmt: skip
_LARGEST_SET = 64  # of protocols 2 and 3, where one list can become many sets
_MOVED = {"__builtin__.": "builtins.", "numpy._core.": "numpy.core."}  # what a module is called elsewhere


class _Machine:
    """The stack, the marks on it and the memo."""

    def __init__(self, data: memoryview, known: Collection[str]) -> None:
        self.data, self.known = data, known
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0  # bytes made of texts, as protocol 2 has them; each is in the file once

    def step(self, operation: str, argument: Any, at: int) -> None:
        """Carry out one operation, which lies at byte `at`."""
        if operation in _ARGUMENT:
            self.stack.append(argument)
        elif operation in _CONSTANT:
            self.stack.append(_CONSTANT[operation])
        elif operation in _EMPTY:
            self.stack.append(_EMPTY[operation]())
        elif operation in _BYTES:
            start = at + _BYTES[operation]
            self.stack.append(self.data[start : start + len(argument)])
        elif operation in _TUPLES:
            self.stack.append(tuple(self.take(_TUPLES[operation])))
        elif operation in _STEPS:
            _STEPS[operation](self, argument)
        else:
            raise Refused(f"the operation {operation}")

    def take(self, count: int | None = None) -> list[Any]:
        """What is on top of the stack, taken off it: so many values, or all down to the last mark."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise ValueError("values that are not there")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.take()))

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _binput(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def _binget(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def _append(self, _: Any) -> None:
        self._extend(self.take(1))

    def _appends(self, _: Any) -> None:
        self._extend(self.take())

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise Refused(f"items for a {type(target).__name__}")
        target.extend(values)

    def _additems(self, _: Any) -> None:
        values = self.take()
        target = self.stack[-1]
        if not isinstance(target, set):
            raise Refused(f"members for a {type(target).__name__}")
        target.update(_key(value) for value in values)

    def _setitem(self, _: Any) -> None:
        self._update(self.take(2))

    def _setitems(self, _: Any) -> None:
        self._update(self.take())

    def _update(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise Refused(f"named values for a {type(target).__name__}")
        target.update(zip((_key(value) for value in values[::2]), values[1::2], strict=True))

    def _global(self, argument: str) -> None:
        self._name(*argument.split(" ", 1))

    def _stack_global(self, _: Any) -> None:
        self._name(*self.take(2))

    def _name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise Refused("a name that is no text")
        text = f"{module}.{name}"
        for before, after in _MOVED.items():
            text = after + text.removeprefix(before) if text.startswith(before) else text
        if text not in self.known and text not in _CONTAINERS:
            raise Refused(text[:80])
        self.stack.append(Name(text))

    def _reduce(self, _: Any) -> None:
        function, args = self.take(2)
        if not (isinstance(function, Name) and isinstance(args, tuple)):
            raise Refused(f"a call of a {type(function).__name__}")
        self.stack.append(self._made(function.text, args))

    def _made(self, function: str, args: tuple[Any, ...]) -> Any:
        """A container of our own for the few calls that make one; else the record of the call."""
        match function, args:
            case "collections.OrderedDict" | "dnnlib.util.EasyDict", ():
                return {}
            case "builtins.set", (list() as values,) if len(values) <= _LARGEST_SET:
                return {_key(value) for value in values}
            case "builtins.bytes", ():
                return memoryview(b"")
            case "_codecs.encode", (str() as text, "latin1"):
                self.encoded += len(text)
                if self.encoded > len(self.data):
                    raise Refused("one text as many bytes")
                return memoryview(text.encode("latin1"))
            case name, _ if name in self.known:
                return Call(function, args)
            case _:
                raise Refused(f"{function} with other arguments")

    def _binpersid(self, _: Any) -> None:
        if PERSISTENT not in self.known:
            raise Refused("a persistent id")
        self.stack.append(Call(PERSISTENT, tuple(self.take(1))))

    def _build(self, _: Any) -> None:
        (state,) = self.take(1)
        target = self.stack[-1]
        if not isinstance(target, Call) or target.state is not None:
            raise Refused(f"state for a {type(target).__name__}")
        target.state = state


_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine._mark,
    "TUPLE": _Machine._tuple,
    "MEMOIZE": _Machine._memoize,
    "BINPUT": _Machine._binput,
    "LONG_BINPUT": _Machine._binput,
    "BINGET": _Machine._binget,
    "LONG_BINGET": _Machine._binget,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "ADDITEMS": _Machine._additems,
    "SETITEM": _Machine._setitem,
    "SETITEMS": _Machine._setitems,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "BINPERSID": _Machine._binpersid,
    "BUILD": _Machine._build,
}


def read_tree(
    stream: BinaryIO, data: memoryview, known: Collection[str], longest: int = LARGEST_PROGRAM
) -> Any:
    """The value of one pickle; the stream stands behind it afterwards.

    Args:
        stream: where the pickle is read from; its positions are those of `data`.
        data: the file's bytes, of which the tree holds views.
        known: names that may occur, with `PERSISTENT` if persistent ids may. Those of containers may anyway.
        longest: operations that it may have.

    Raises:
        Refused: the pickle asks for something else.
        ValueError, IndexError, KeyError: it is damaged.
    """
    machine = _Machine(data, known)
    for count, (operation, argument, position) in enumerate(pickletools.genops(stream)):
        if count == longest:
            raise Refused(f"more than {longest:,} operations")
        if (count == 0) != (operation.name == "PROTO"):
            raise ValueError("it is of no known protocol")
        if operation.name == "STOP":
            break
        if operation.name not in ("PROTO", "FRAME"):
            machine.step(operation.name, argument, cast(int, position))
    (value,) = machine.stack
    return value


def _key(value: Any) -> str:
    """A text: what else can be hashed may take without end, or (numbers) be chosen to collide."""
    if not isinstance(value, str):
        raise Refused(f"a {type(value).__name__} as a key")
    return value
