"""Who made a package: an Ed25519 signature of its id in a file beside it, NAME.onceover.sig (export/FORMAT.md).

The id names every byte of the package through the member hashes, so the signature does, once all hashes are checked.
The arithmetic is that of the module `cryptography`; nothing of it is ours.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onceover import _core
from onceover.errors import InputError, OutputError, VerificationError, missing_extra
from onceover.runtime.package import PackageFile, view_package

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

StrPath = str | os.PathLike[str]

MAGIC = b"\x89OOS\r\n\x1a\n"
VERSION = 1
SIGNED_BYTES = 80  # magic, version u32, zero u32, package id, public key; then the signature of these
SIGNATURE_BYTES = SIGNED_BYTES + 64


@dataclass(frozen=True)
class SignatureRecord:
    """The content of a signature file."""

    package_id: bytes
    public_key: bytes
    signature: bytes = b""

    def signed(self) -> bytes:
        """What is signed: it begins with a magic of its own, so it can be taken for no other message of this key."""
        return MAGIC + VERSION.to_bytes(4, "little") + bytes(4) + self.package_id + self.public_key

    def to_bytes(self) -> bytes:
        return self.signed() + self.signature


def signature_path(package: StrPath) -> Path:
    """part.onceover → part.onceover.sig"""
    return Path(os.fspath(package) + ".sig")


def new_key_pair(name: StrPath) -> tuple[Path, Path]:
    """Write NAME.private.pem, for its owner's eyes only, and NAME.public.pem, for the devices; returns both.

    Neither replaces a file. Raises OutputError, MissingExtraError.
    """
    _need_cryptography()
    from cryptography.hazmat.primitives import serialization as encodings
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(encodings.Encoding.PEM, encodings.PrivateFormat.PKCS8, encodings.NoEncryption())
    public = key.public_key().public_bytes(encodings.Encoding.PEM, encodings.PublicFormat.SubjectPublicKeyInfo)
    paths = Path(f"{os.fspath(name)}.private.pem"), Path(f"{os.fspath(name)}.public.pem")
    for path in paths:
        if path.exists():
            raise OutputError(f"{path}: exists already, and keys are never replaced; choose another name")
    _write_new(paths[0], private, 0o600)
    try:
        _write_new(paths[1], public, 0o644)
    except OutputError:
        paths[0].unlink()  # half a pair would be in the way of the next try
        raise
    return paths


def sign_package(package: StrPath, private_key: StrPath) -> tuple[Path, str]:
    """Check every byte of the package, sign its id; returns the path of the signature file, and the id.

    Raises what open_package raises, InputError for an unusable key, OutputError, MissingExtraError.
    """
    key = _read_private_key(private_key)
    core = _core.Package.open(os.fspath(package), "all", True)
    record = SignatureRecord(bytes.fromhex(core.id), key.public_key().public_bytes_raw())
    record = SignatureRecord(record.package_id, record.public_key, key.sign(record.signed()))
    path = signature_path(package)
    _core.save_atomically(path, record.to_bytes())
    return path, core.id


def open_signed(package: StrPath, public_key: StrPath) -> PackageFile:
    """Open a package only if the owner of `public_key` signed it.

    The file is copied to memory and hashed, then the signature is checked, then the first of its members is parsed:
    what was checked is what is used, whatever happens to the file. Raises VerificationError for a missing, foreign or
    wrong signature, InputError for an unusable key, and what open_package raises.
    """
    key = _read_public_key(public_key)
    core = _core.Package.open(os.fspath(package), "all", True)
    _check_signature(core, key, signature_path(package))
    return view_package(core)


def _check_signature(core: _core.Package, key: Ed25519PublicKey, path: Path) -> None:
    from cryptography.exceptions import InvalidSignature

    record = _read_signature(path)
    if record.package_id.hex() != core.id:
        raise VerificationError(
            f"{path}: signs package {record.package_id.hex()[:16]}, but {core.label} is {core.id[:16]}: the package "
            "was changed or replaced after it was signed; do not use it, or sign it again"
        )
    own = key.public_bytes_raw()
    if record.public_key != own:
        raise VerificationError(
            f"{path}: signed by key {record.public_key.hex()[:16]}, expected {own.hex()[:16]}; "
            "do not use the package, or take the public key of whoever should have signed it"
        )
    try:
        key.verify(record.signature, record.signed())
    except InvalidSignature:
        raise VerificationError(
            f"{path}: the signature is wrong: it was not made by key {own.hex()[:16]}; do not use the package"
        ) from None


def _read_signature(path: Path) -> SignatureRecord:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise VerificationError(
            f"{path}: no such file, so the package is not signed; sign it with `onceover sign`, or copy the "
            "signature along with the package"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot read the signature ({error.strerror}); check the path") from error
    start = SignatureRecord(data[16:48], data[48:80], data[80:])
    if len(data) != SIGNATURE_BYTES or data[:SIGNED_BYTES] != start.signed():
        raise VerificationError(
            f"{path}: not a signature of version {VERSION} ({len(data)} bytes, expected {SIGNATURE_BYTES}); it is "
            "damaged or of a newer onceover, copy it again or update"
        )
    return start


def _read_private_key(path: StrPath) -> Ed25519PrivateKey:
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read_key(path)
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise InputError(f"{path}: this key has a password; write it without one for signing") from error
    except ValueError as error:
        raise InputError(f"{path}: not a private key in PEM; make one with `onceover keygen`") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path}: is another kind of key, expected Ed25519; make one with `onceover keygen`")
    return key


def _read_public_key(path: StrPath) -> Ed25519PublicKey:
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _read_key(path)
    try:
        key = load_pem_public_key(content)
    except ValueError as error:
        raise InputError(
            f"{path}: not a public key in PEM; give the .public.pem that `onceover keygen` wrote"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{path}: is another kind of key, expected Ed25519; make one with `onceover keygen`")
    return key


def _read_key(path: StrPath) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the key ({error.strerror}); check the path") from error


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise missing_extra("cryptography", "sign", "signing and checking signatures") from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    except OSError as error:
        raise OutputError(f"{path}: cannot write the key ({error.strerror}); choose another name") from error


__all__ = ["new_key_pair", "open_signed", "sign_package", "signature_path"]
