"""Machine code as a function of Python.

Through ctypes a call with six numbers takes half a microsecond, and some layers take five. CPython hands a builtin the
array of its arguments (METH_FASTCALL), and what has to stand between that and the code is emitted like everything else:
it makes 64 bits of each argument, gives up Python's lock, calls the code, and takes the lock again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding as llvm

FASTCALL = 0x80  # of CPython's methodobject.h
USED = {  # of Python's C interface
    "PyLong_AsVoidPtr": "ptr (ptr)",
    "PyLong_FromLong": "ptr (i64)",
    "PyErr_Occurred": "ptr ()",
    "PyErr_BadArgument": "i32 ()",
    "PyEval_SaveThread": "ptr ()",
    "PyEval_RestoreThread": "void (ptr)",
}
ENTRY = """
define ptr @entry(ptr %self, ptr %given, i64 %count) {{
  %code = call ptr @PyLong_AsVoidPtr(ptr %self)
  %fits = icmp eq i64 %count, {count}
  br i1 %fits, label %read, label %misfit
misfit:
  %ignored = call i32 @PyErr_BadArgument()
  ret ptr null
read:
{reads}
  %error = call ptr @PyErr_Occurred()
  %fine = icmp eq ptr %error, null
  br i1 %fine, label %run, label %failed
failed:
  ret ptr null
run:
  %state = call ptr @PyEval_SaveThread()
  call void %code({values})
  call void @PyEval_RestoreThread(ptr %state)
  %zero = call ptr @PyLong_FromLong(i64 0)
  ret ptr %zero
}}
"""


class _CodeAddress(int):
    """The address of machine code, and what owns it: it lives as long as a function that calls it."""

    owners: tuple[object, ...]


class _Method(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("entry", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def function(address: int, arguments: int, owner: object) -> Callable[..., Any]:
    """The code at `address`, void, as a function of so many addresses or 64-bit integers; it keeps `owner` alive.

    The call releases Python's lock. TypeError for another number of arguments, or for one that is no int.

    >>> seen = []
    >>> called = ctypes.CFUNCTYPE(None, ctypes.c_int64)(seen.append)
    >>> function(ctypes.cast(called, ctypes.c_void_p).value, 1, called)(42), seen
    (0, [42])
    """
    method, engine = _method(arguments)
    code = _CodeAddress(address)
    code.owners = owner, method, engine
    kind = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    made: Callable[..., Any] = kind(("PyCFunction_NewEx", ctypes.pythonapi))(
        ctypes.addressof(method), code, None
    )
    return made


def address(run: Callable[..., Any]) -> int:
    """Where the code of such a function begins."""
    code: _CodeAddress = run.__self__  # type: ignore[attr-defined]
    return int(code)


@cache
def _method(arguments: int) -> tuple[_Method, llvm.ExecutionEngine]:
    """How Python calls code of so many arguments."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name in USED:
        llvm.add_symbol(name, ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0)
    module, target = llvm.parse_assembly(_entry(arguments)), llvm.Target.from_default_triple()
    engine = llvm.create_mcjit_compiler(module, target.create_target_machine(opt=3))
    engine.finalize_object()
    return _Method(b"run", engine.get_function_address("entry"), FASTCALL, None), engine


def _entry(arguments: int) -> str:
    declared = [f"declare {kind.replace(' ', f' @{name}', 1)}" for name, kind in USED.items()]
    reads = [
        f"  %place{number} = getelementptr ptr, ptr %given, i64 {number}\n"
        f"  %object{number} = load ptr, ptr %place{number}\n"
        f"  %value{number} = call ptr @PyLong_AsVoidPtr(ptr %object{number})"
        for number in range(arguments)
    ]
    values = ", ".join(f"ptr %value{number}" for number in range(arguments))
    return "\n".join(declared) + ENTRY.format(count=arguments, reads="\n".join(reads), values=values)
