"""Everything onceover raises on purpose.

OnceoverError                 code   exit
├── InputError                1      3     an image, folder or file of the user's cannot be used
├── UsageError                2      2     an argument or a combination of arguments makes no sense
├── UnknownNameError          3      2     a backbone, detector, engine, ISA … that does not exist
├── PackageError              4      3     a package is damaged or not a package
│   └── UnsupportedPackageError 5    3     a package of another format version or with unknown required members
├── EngineError               6      3     the engine failed, or answered something that cannot be trusted
├── MemoryLimitError          7      3     a session or a fit would need more memory than it may use
├── NotFittedError            8      2     a detector was used before `fit`
├── MissingExtraError         9      2     an optional dependency is not installed
├── VerificationError         10     1     a package does not reproduce its own record
├── OutputError               12     3     a result cannot be written
└── InternalError             11     3     a defect of onceover itself

`code` is the status of the C ABI (`csrc/include/onceover.h`, one list for C, C++ and Python; 13, CANCELLED, is of C
alone: here what a callback raises comes back itself); `exit` is the exit status of the command line. A message says
what, where, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OnceoverError(Exception):
    """Base of all errors that onceover raises on purpose."""

    code = 0
    exit_code = 3


class InputError(OnceoverError, ValueError):
    """An image, folder or file of the user's cannot be used."""

    code = 1


class UsageError(OnceoverError, ValueError):
    """An argument, or a combination of arguments, makes no sense."""

    code = 2
    exit_code = 2


class UnknownNameError(OnceoverError, LookupError):
    """A backbone, detector, engine or instruction set that does not exist."""

    code = 3
    exit_code = 2


class PackageError(OnceoverError, ValueError):
    """A package is damaged, or is not a package."""

    code = 4


class UnsupportedPackageError(PackageError):
    """A package of another format version, or with required members this version does not know."""

    code = 5


class EngineError(OnceoverError, RuntimeError):
    """The engine failed, or its answer cannot be trusted."""

    code = 6


class MemoryLimitError(OnceoverError, MemoryError):
    """A session or a fit would need more memory than it was allowed to use."""

    code = 7


class NotFittedError(OnceoverError, RuntimeError):
    """A detector was used before `fit`."""

    code = 8
    exit_code = 2


class MissingExtraError(OnceoverError, ImportError):
    """An optional dependency is not installed."""

    code = 9
    exit_code = 2


class VerificationError(OnceoverError, RuntimeError):
    """A package does not reproduce its own record on this machine."""

    code = 10
    exit_code = 1


class InternalError(OnceoverError, RuntimeError):
    """A defect of onceover itself; please report it."""

    code = 11


class OutputError(OnceoverError, OSError):
    """A result cannot be written (read-only, full, or missing target)."""

    code = 12


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for an unknown name: near matches first, then everything that exists."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    return UnknownNameError(f"unknown {kind} {name!r}{hint} Known: {', '.join(names) or 'none'}")


def missing_extra(module: str, extra: str, purpose: str) -> MissingExtraError:
    """The error for an optional dependency that is not installed."""
    return MissingExtraError(f"{purpose} needs the module {module!r}; install it with: pip install 'onceover[{extra}]'")
