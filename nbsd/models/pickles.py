"""Pickles, read by an interpreter of our own that knows tensors and plain values and nothing else.

A pickle is a program. Python's own `pickle` runs whatever it names; here each instruction is one of a short list, and what it
names is one of a short list too: nothing is ever imported or called on a file's word, and there is no switch to change that.
Training programs leave objects of theirs in checkpoints (callbacks, settings); those become inert `Placeholder`s.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

from nbsd.errors import ModelError, UnsafeFileError
from nbsd.models.weights import Stored

LONGEST_PICKLE = 64 * 1024 * 1024   # bytes, without the tensors' numbers; real ones have a few hundred kilobytes
NAMED = 5                           # globals that an error names at most

# torch's storage classes and its element types, as pickles name them.
STORAGES = {
    "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64", "LongStorage": "I64",
    "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL", "UntypedStorage": "U8",
}  # fmt: skip
ELEMENTS = {
    "float32": "F32", "float": "F32", "float16": "F16", "half": "F16", "bfloat16": "BF16", "float64": "F64", "double": "F64",
    "int64": "I64", "long": "I64", "int32": "I32", "int": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip

# What training programs leave behind, read as placeholders. A capital letter: classes, never functions.
INERT_PACKAGES = ("pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities", "omegaconf")
BUILTINS = ("int", "long", "float", "str", "unicode", "bool", "bytes", "list", "dict", "tuple", "set", "frozenset", "object")
INERT = frozenset({
    *(("builtins", name) for name in BUILTINS),     # as types, in settings; "long" and "unicode": as Python 2 and protocol 2 say it
    *((module, f"{kind}Path") for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows", "PurePosix", "PureWindows")),
    ("typing", "Any"), ("argparse", "Namespace"), ("torch", "device"), ("torch", "layout"), ("torch", "strided"),
    *((f"numpy{core}.multiarray", name) for core in (".core", "._core") for name in ("scalar", "_reconstruct")),
    ("numpy", "dtype"), ("numpy", "ndarray"),
})  # fmt: skip


class Placeholder:
    """Stands for an object of a foreign program: it keeps its name and swallows what is done to it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Kept(Placeholder):
    """An object of a class that the caller asked for: its name and its state, of which nothing was run."""

    __slots__ = ("state",)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.state: dict[str, Any] = {}


class _Kind(Placeholder):
    """The class of such an object."""

    __slots__ = ()


class Parameters(dict[str, Any]):
    """Stands for torch's ParameterDict, which the web UI's first embeddings were saved in."""


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file."""

    dtype: str
    count: int                  # elements
    start: int                  # bytes from the start of the file or of `member`
    member: str | None = None


@dataclass(frozen=True)
class _Name:
    """What a pickle names and we know: a storage class, an element type, or a function of our own that stands for it."""

    name: str
    dtype: str | None = None
    call: Callable[..., Any] | None = None


class _Mark:
    pass


MARK = _Mark()
# What following a broken pickle can raise.
BROKEN = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, EOFError, RecursionError)
FindStorage = Callable[[tuple[Any, ...]], Storage]     # the persistent id of a storage -> where it lies
Keeps = Callable[[str, str], bool]                      # module and name of a class -> whether objects of it come as `Kept`


def read_pickle(source: bytes | BinaryIO, find_storage: FindStorage, what: str, keeps: Keeps = lambda module, name: False) -> Any:
    """The value of one pickle; tensors come as `Stored`. A file object is left behind the pickle's end.

    `what` names the file in errors. Raises UnsafeFileError for what is not on the lists, ModelError for broken pickles.
    """
    machine = _Machine(find_storage, what, keeps)
    try:
        for opcode, argument, _ in pickletools.genops(BytesIO(source) if isinstance(source, bytes) else source):
            machine.step(opcode.name, argument)
        value = machine.stack.pop()
    except BROKEN as error:
        if machine.strangers:
            raise UnsafeFileError(refusal(what, machine.strangers)) from error
        raise ModelError(f"'{what}' is damaged: its pickle cannot be followed ({str(error)[:80]}). Download it again.") from error
    if machine.strangers:
        raise UnsafeFileError(refusal(what, machine.strangers))
    return value


def refusal(what: str, names: list[str]) -> str:
    named = ", ".join(list(dict.fromkeys(names))[:NAMED])
    return f"'{what}' was not loaded: besides tensors it asks for {named}, which could run a program. Choose a .safetensors version of it."


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_rest: Any, dtype: str | None = None) -> Stored:
    """torch._utils._rebuild_tensor_v2: a view of a storage; sizes and steps count elements."""
    shape, stride = tuple(shape), tuple(stride)
    numbers = (offset, *shape, *stride)
    if not isinstance(storage, Storage) or len(shape) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("a tensor without a storage, or of no possible shape")
    from nbsd.models.weights import ITEM_SIZES

    dtype = dtype or storage.dtype
    size = ITEM_SIZES[dtype]
    stored = Stored(dtype, shape, storage.start + offset * size, _unless_packed(shape, stride), storage.member)
    room = storage.count * ITEM_SIZES[storage.dtype]
    if (offset + stored.span) * size > room or stored.count * size > room:
        raise ValueError("a tensor reaches beyond its storage")
    return stored


def _unless_packed(shape: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...] | None:
    """The stride, or None where the tensor lies packed with the last dimension fastest."""
    step = 1
    for size, got in zip(reversed(shape), reversed(stride), strict=True):
        if size > 1 and got != step:
            return stride
        step *= size
    return None


def _tensor_v3(storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, element: Any, *_rest: Any) -> Stored:
    if not isinstance(element, _Name) or element.dtype is None:
        raise ValueError("a tensor of no known type")
    return _tensor(storage, offset, shape, stride, dtype=element.dtype)


def _encode(text: Any, _encoding: Any = None) -> bytes:
    """_codecs.encode: how bytes are written in pickles of protocol 2."""
    if not isinstance(text, str):
        raise TypeError("bytes that are written as something else than a text")
    return text.encode("latin-1", errors="replace")


FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    ("torch.nn.modules.container", "ParameterDict"): lambda *_: Parameters(),
    ("torch", "Size"): lambda sizes=(): tuple(sizes),
    ("collections", "OrderedDict"): lambda pairs=(): dict(pairs),
    ("collections", "defaultdict"): lambda *_: {},
    ("_codecs", "encode"): _encode,
}


def _resolve(module: str, name: str) -> _Name | Placeholder | None:
    """What a global means here; None: it is on no list."""
    module = {"__builtin__": "builtins", "torch.cuda": "torch"}.get(module, module)
    full = f"{module}.{name}"
    if call := FUNCTIONS.get((module, name)):
        return _Name(full, call=call)
    if module in ("torch", "torch.storage") and name in STORAGES:
        return _Name(full, dtype=STORAGES[name])
    if module == "torch" and name in ELEMENTS:
        return _Name(full, dtype=ELEMENTS[name])
    ours = module.split(".")[0] in INERT_PACKAGES and name.isidentifier() and name[:1].isupper()
    return Placeholder(full) if ours or (module, name) in INERT else None


def _plain(keys: list[Any]) -> list[Any]:
    """Keys that hash in no time: a tuple that holds one tuple twice, forty deep, would take for ever."""
    if not all(isinstance(key, (str, int, float, bytes, type(None), Placeholder)) for key in keys):
        raise ValueError("a table whose keys are no texts or numbers")
    return keys


class _Machine:
    """The stack, the memory and the instructions of a pickle."""

    def __init__(self, find_storage: FindStorage, what: str, keeps: Keeps) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.strangers: list[str] = []      # globals on no list; all are collected, then refused together
        self._find_storage, self._what, self._keeps = find_storage, what, keeps

    def step(self, opcode: str, argument: Any) -> None:
        """Follow one instruction; one that is not known here is refused."""
        if opcode in PUSHES_ARGUMENT:
            self.stack.append(argument)
        elif opcode in PUSHES_VALUE:
            self.stack.append(PUSHES_VALUE[opcode]())
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif method := getattr(self, f"_{opcode.lower()}", None):
            method(argument)
        elif opcode == "INST":
            self._name(*argument.split(" ", 1))
            raise UnsafeFileError(refusal(self._what, self.strangers or [argument.replace(" ", ".")]))
        else:
            raise UnsafeFileError(refusal(self._what, [*self.strangers, f"the instruction {opcode}"]))

    def _proto(self, _: Any) -> None:
        """Version and framing say nothing that matters here."""

    _frame = _stop = _proto

    def _marked(self) -> list[Any]:
        """What lies above the newest mark, which goes with it."""
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is MARK:
                items = self.stack[at + 1:]
                del self.stack[at:]
                return items
        raise ValueError("an end without a start")

    def _pop(self, _: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._marked()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._marked()))

    def _tuple1(self, _: Any) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _tuple2(self, _: Any) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _tuple3(self, _: Any) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _list(self, _: Any) -> None:
        self.stack.append(self._marked())

    def _frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(_plain(self._marked())))

    def _dict(self, _: Any) -> None:
        items = self._marked()
        self.stack.append({})
        self._fill(items)

    def _append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._marked())

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], Placeholder):
            list.extend(self.stack[-1], items)

    def _additems(self, _: Any) -> None:
        items = self._marked()
        set.update(self.stack[-1], _plain(items))

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key, value])

    def _setitems(self, _: Any) -> None:
        self._fill(self._marked())

    def _fill(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], Placeholder):
            dict.update(self.stack[-1], zip(_plain(items[::2]), items[1::2], strict=True))

    def _global(self, argument: str) -> None:
        self._name(*argument.split(" ", 1))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._name(module, name)

    def _name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name that is no text")
        found = _Kind(f"{module}.{name}") if self._keeps(module, name) else _resolve(module, name)
        if found is None:
            self.strangers.append(f"{module}.{name}"[:100])
            found = Placeholder(f"{module}.{name}")
        self.stack.append(found)

    def _reduce(self, _: Any) -> None:
        arguments, named = self.stack.pop(), self.stack.pop()
        self.stack.append(self._made(named, arguments, {}))

    _newobj = _reduce

    def _newobj_ex(self, _: Any) -> None:
        keywords, arguments, named = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(self._made(named, arguments, keywords))

    def _made(self, named: Any, arguments: Any, keywords: Any) -> Any:
        if isinstance(named, _Kind):
            return Kept(named.name)
        if isinstance(named, Placeholder):
            return Placeholder(f"{named.name}(...)")
        if self.strangers:      # the file is refused anyway, and a stranger may stand among the arguments
            return Placeholder("refused")
        if not isinstance(named, _Name) or named.call is None or keywords:
            raise ValueError("a call of something that cannot be called")
        return named.call(*arguments)

    def _build(self, _: Any) -> None:
        """State of an object: of a ParameterDict its tensors; an OrderedDict's attributes or a placeholder's are of no use here."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Kept) and isinstance(state, dict):
            self.stack[-1].state = state
        if isinstance(self.stack[-1], Parameters) and isinstance(state, dict) and isinstance(state.get("_parameters"), dict):
            self._fill([item for pair in state["_parameters"].items() for item in pair])
        if not isinstance(self.stack[-1], (Placeholder, dict, Stored)):
            raise TypeError("a state for something that has none")

    def _binpersid(self, _: Any) -> None:
        known = self.stack.pop()
        if self.strangers:
            self.stack.append(Placeholder("refused"))
            return
        if isinstance(known, tuple) and len(known) > 1 and known[0] == "module":
            # torch's old format gives a module's class with its source code, which is not looked at
            self.stack.append(known[1])
            return
        if not isinstance(known, tuple) or len(known) < 5 or known[0] != "storage":
            raise ValueError("a reference that is no storage")
        self.stack.append(self._find_storage(known))


PUSHES_ARGUMENT = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip
PUSHES_VALUE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list, "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple, "EMPTY_SET": set, "MARK": lambda: MARK,
}  # fmt: skip


def storage_dtype(known: tuple[Any, ...]) -> str:
    """Element type of a persistent id ('storage', class, key, location, elements)."""
    if not isinstance(known[1], _Name) or known[1].dtype is None:
        raise ValueError("a storage of no known type")
    return known[1].dtype
