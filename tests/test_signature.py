"""Signatures: who signed is checked before anything of a package is parsed, and every refusal is an exit status 1."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Capture, answer, refusal
from fuzz_seeds import SEEDS, seed_bytes
from tiny_package import tiny_image, tiny_package

from onceover import _core
from onceover.errors import InputError, MissingExtraError, OutputError, PackageError, VerificationError
from onceover.images import write_image
from onceover.runtime.package import open_package
from onceover.runtime.signature import new_key_pair, open_signed, sign_package, signature_path

pytest.importorskip("cryptography")

SIGNED = 80  # bytes of the record before the signature: export/FORMAT.md


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return new_key_pair(tmp_path / "line")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "part.onceover"
    path.write_bytes(seed_bytes(SEEDS["plain"]))
    return path


def test_a_package_that_was_signed_opens_with_the_public_key(package: Path, keys: tuple[Path, Path]) -> None:
    path, package_id = sign_package(package, keys[0])
    assert path == signature_path(package)
    assert open_signed(package, keys[1]).id == package_id == open_package(package).id


def test_the_signature_file_is_as_the_format_page_says(package: Path, keys: tuple[Path, Path]) -> None:
    """Checked without our reader: a stranger can write it from FORMAT.md."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    data = sign_package(package, keys[0])[0].read_bytes()
    assert len(data) == 144
    assert data[:16] == bytes.fromhex("894f4f530d0a1a0a") + (1).to_bytes(4, "little") + bytes(4)
    assert data[16:48].hex() == open_package(package).id
    Ed25519PublicKey.from_public_bytes(data[48:80]).verify(data[80:], data[:80])


def test_signing_leaves_the_package_as_it_is_and_gives_the_same_bytes_again(
    package: Path, keys: tuple[Path, Path]
) -> None:
    before = package.read_bytes()
    first = sign_package(package, keys[0])[0].read_bytes()
    assert sign_package(package, keys[0])[0].read_bytes() == first
    assert package.read_bytes() == before


def test_an_unsigned_package_is_refused(package: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(
        VerificationError, match=r"part\.onceover\.sig: no such file, so the package is not signed; sign"
    ):
        open_signed(package, keys[1])


def test_a_package_signed_by_another_key_is_refused(package: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    sign_package(package, new_key_pair(tmp_path / "other")[0])
    with pytest.raises(VerificationError, match=r"signed by key .*, expected .*; do not use the package"):
        open_signed(package, keys[1])


def test_a_signature_that_only_names_the_key_is_refused(package: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """The public key in the file is a hint for the message; trusting it would trust the attacker."""
    own = sign_package(package, keys[0])[0].read_bytes()
    forged = sign_package(package, new_key_pair(tmp_path / "other")[0])[0].read_bytes()
    signature_path(package).write_bytes(own[:SIGNED] + forged[SIGNED:])
    with pytest.raises(VerificationError, match="the signature is wrong"):
        open_signed(package, keys[1])


def test_a_package_with_other_content_and_right_hashes_is_refused(package: Path, keys: tuple[Path, Path]) -> None:
    sign_package(package, keys[0])
    package.write_bytes(seed_bytes(SEEDS["uncalibrated"]))
    with pytest.raises(VerificationError, match="changed or replaced after it was signed"):
        open_signed(package, keys[1])


def test_a_signature_rewritten_for_a_changed_package_is_refused(package: Path, keys: tuple[Path, Path]) -> None:
    signature, _ = sign_package(package, keys[0])
    package.write_bytes(seed_bytes(SEEDS["uncalibrated"]))
    data = bytearray(signature.read_bytes())
    data[16:48] = bytes.fromhex(open_package(package).id)
    signature.write_bytes(data)
    with pytest.raises(VerificationError, match="the signature is wrong"):
        open_signed(package, keys[1])


def test_a_signed_package_with_a_changed_byte_is_damaged(package: Path, keys: tuple[Path, Path]) -> None:
    sign_package(package, keys[0])
    data = bytearray(package.read_bytes())
    for offset in range(0, len(data), 97):
        changed = bytearray(data)
        changed[offset] ^= 1
        package.write_bytes(changed)
        with pytest.raises(PackageError):
            open_signed(package, keys[1])


def test_every_changed_or_missing_byte_of_a_signature_is_refused(package: Path, keys: tuple[Path, Path]) -> None:
    signature, _ = sign_package(package, keys[0])
    data = signature.read_bytes()
    damaged = [data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :] for i in range(len(data))]
    for content in [*damaged, b"", data[:-1], data + b"\n"]:
        signature.write_bytes(content)
        with pytest.raises(VerificationError):
            open_signed(package, keys[1])


def test_the_signature_is_checked_before_anything_is_parsed(
    tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest that is no JSON, and a graph that would end a parser, are not looked at in an unsigned package."""
    writer = _core.PackageWriter()
    writer.add("manifest.json", b"{" * 1000)
    writer.add("graph.onnx", b"\xff" * 1000)
    path = tmp_path / "hostile.onceover"
    writer.save(path)
    monkeypatch.setattr("onceover.runtime.package.json.loads", lambda _: pytest.fail("parsed"))
    monkeypatch.setattr("onceover._core.Session", lambda *_: pytest.fail("a session was made"))
    with pytest.raises(VerificationError, match="not signed"):
        open_signed(path, keys[1])


def test_what_was_checked_is_what_is_used(package: Path, keys: tuple[Path, Path]) -> None:
    sign_package(package, keys[0])
    opened = open_signed(package, keys[1])
    expected = opened.core.array("memory_bank").copy()
    package.write_bytes(b"x" * package.stat().st_size)  # in place, after the check
    assert (opened.core.array("memory_bank") == expected).all()


def test_a_private_key_is_for_its_owner_only_and_no_key_is_replaced(tmp_path: Path) -> None:
    private, public = new_key_pair(tmp_path / "line")
    assert private.stat().st_mode & 0o777 == 0o600
    before = private.read_bytes(), public.read_bytes()
    with pytest.raises(OutputError, match=r"line\.private\.pem: exists already, and keys are never replaced"):
        new_key_pair(tmp_path / "line")
    private.unlink()
    with pytest.raises(OutputError, match=r"line\.public\.pem: exists already"):
        new_key_pair(tmp_path / "line")
    assert not private.exists()
    assert public.read_bytes() == before[1]
    with pytest.raises(OutputError, match="cannot write the key"):
        new_key_pair(tmp_path / "absent" / "line")


def other_keys(folder: Path) -> tuple[Path, Path, Path]:
    """An EC key pair, and an Ed25519 key with a password."""
    from cryptography.hazmat.primitives import serialization as encodings
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    pem, pkcs8, plain = encodings.Encoding.PEM, encodings.PrivateFormat.PKCS8, encodings.NoEncryption()
    curve, own = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    contents = {
        "ec.pem": curve.private_bytes(pem, pkcs8, plain),
        "ec_public.pem": curve.public_key().public_bytes(pem, encodings.PublicFormat.SubjectPublicKeyInfo),
        "password.pem": own.private_bytes(pem, pkcs8, encodings.BestAvailableEncryption(b"secret")),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    private, public, password = (folder / name for name in contents)
    return private, public, password


def test_an_unusable_key_is_an_input_error_that_says_what_to_do(
    package: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    curve, curve_public, password = other_keys(tmp_path)
    junk = tmp_path / "junk.pem"
    junk.write_text("no key")
    cases = ((tmp_path / "absent.pem", "cannot read the key"), (junk, "in PEM; "), (tmp_path, "cannot read the key"))
    for key, words in (*cases, (keys[1], "not a private key"), (curve, "expected Ed25519"), (password, "a password")):
        with pytest.raises(InputError, match=words):
            sign_package(package, key)
    for key, words in (*cases, (keys[0], "not a public key"), (curve_public, "expected Ed25519")):
        with pytest.raises(InputError, match=words):
            open_signed(package, key)
    assert not signature_path(package).exists()


def test_without_cryptography_the_extra_is_named(package: Path, keys: tuple[Path, Path]) -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from onceover.runtime.signature import new_key_pair, open_signed, sign_package\n"
        "for call in (lambda: sign_package(*sys.argv[1:3]), lambda: open_signed(*sys.argv[1:3]),\n"
        "             lambda: new_key_pair(sys.argv[1])):\n"
        "    try: call()\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    words = [sys.executable, "-c", program, str(package), str(keys[0])]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(printed) == 3
    for line in printed:
        assert line.startswith(MissingExtraError.__name__)
        assert "pip install 'onceover[sign]'" in line


def test_the_commands_make_a_key_sign_and_verify(tmp_path: Path, capsys: Capture) -> None:
    path = tiny_package(tmp_path / "tiny.onceover")
    status, made = answer(capsys, "keygen", "-o", str(tmp_path / "line"))
    assert status == 0
    status, refused = refusal(capsys, "verify", str(path), "--key", made["public_key"])
    assert (status, "not signed" in refused) == (1, True)
    status, signed = answer(capsys, "sign", str(path), "--key", made["private_key"])
    assert (status, signed["signature"]) == (0, f"{path}.sig")
    status, verified = answer(capsys, "verify", str(path), "--key", made["public_key"])
    assert (status, verified["verified"], verified["signed"]) == (0, True, True)
    assert verified["id"] == signed["id"]
    status, unasked = answer(capsys, "verify", str(path))
    assert (status, unasked["signed"]) == (0, False)
    write_image(tmp_path / "part.png", tiny_image(300))
    for words in (("inspect", str(path), str(tmp_path / "part.png")), ("evaluate", str(path), str(tmp_path))):
        status, refused = refusal(capsys, *words, "--key", str(new_key_pair(tmp_path / words[0])[1]))
        assert (status, "signed by key" in refused) == (1, True)
    status, inspected = answer(capsys, "inspect", str(path), str(tmp_path / "part.png"), "--key", made["public_key"])
    assert (status in (0, 1), inspected["id"]) == (True, signed["id"])
    shutil.copy(tiny_package(tmp_path / "other.onceover"), path)
    assert answer(capsys, "verify", str(path), "--key", made["public_key"])[0] == 0  # the same bytes, the same id
    path.write_bytes(seed_bytes(SEEDS["plain"]))
    status, refused = refusal(capsys, "verify", str(path), "--key", made["public_key"])
    assert (status, "changed or replaced" in refused) == (1, True)
