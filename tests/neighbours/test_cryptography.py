"""cryptography: ciphers, hashes, signatures and certificates in parallel, by tasks that change their OS threads."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from crowd import run_crowd
from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.x509.oid import NameOID

Wait = Callable[[], None]
DATA = bytes(range(256)) * 64
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def digests(wait: Wait) -> Any:
    """One object, fed piece by piece: its state in C moves with the task."""
    digest, code = hashes.Hash(hashes.SHA256()), hmac.HMAC(b"key", hashes.SHA256())
    for start in range(0, len(DATA), 4096):
        digest.update(DATA[start : start + 4096])
        wait()
        code.update(DATA[start : start + 4096])
    return digest.finalize().hex() == hashlib.sha256(DATA).hexdigest(), len(code.finalize())


def ciphers(wait: Wait) -> Any:
    cipher = Cipher(algorithms.AES(b"k" * 32), modes.CTR(b"n" * 16))
    encryptor, decryptor = cipher.encryptor(), cipher.decryptor()
    plain = b""
    for start in range(0, len(DATA), 4096):
        sealed = encryptor.update(DATA[start : start + 4096])
        wait()
        plain += decryptor.update(sealed)
    return plain + decryptor.finalize() + encryptor.finalize() == DATA


def sealed_boxes(wait: Wait) -> Any:
    opened = []
    for kind, size in ((AESGCM, 32), (ChaCha20Poly1305, 32)):
        box = kind(b"k" * size)
        sealed = box.encrypt(b"n" * 12, DATA, b"header")
        wait()
        opened.append(box.decrypt(b"n" * 12, sealed, b"header") == DATA)
        with pytest.raises(InvalidTag):  # OpenSSL's queue of errors is per OS thread
            box.decrypt(b"n" * 12, sealed, b"other")
        wait()
    return opened


def fernet(wait: Wait) -> Any:
    token = Fernet(key := Fernet.generate_key()).encrypt(b"secret")
    wait()
    return Fernet(key).decrypt(token)


def signatures(wait: Wait) -> Any:
    signature = RSA_KEY.sign(b"message", padding.PKCS1v15(), hashes.SHA256())
    wait()
    RSA_KEY.public_key().verify(signature, b"message", padding.PKCS1v15(), hashes.SHA256())
    other = EC_KEY.sign(b"message", ec.ECDSA(hashes.SHA256()))
    wait()
    with pytest.raises(InvalidSignature):
        EC_KEY.public_key().verify(other, b"another", ec.ECDSA(hashes.SHA256()))
    key = ed25519.Ed25519PrivateKey.generate()
    signed = key.sign(b"message")
    wait()
    key.public_key().verify(signed, b"message")
    return True


def certificates(wait: Wait) -> Any:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pygo")])
    today = datetime.datetime(2026, 1, 1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(EC_KEY.public_key())
    builder = builder.serial_number(7).not_valid_before(today).not_valid_after(today + datetime.timedelta(days=1))
    wait()
    certificate = builder.sign(EC_KEY, hashes.SHA256())
    text = certificate.public_bytes(serialization.Encoding.PEM)
    wait()
    loaded = x509.load_pem_x509_certificate(text)
    loaded.verify_directly_issued_by(certificate)
    return loaded.serial_number, loaded.subject.rfc4514_string()


def key_derivation(wait: Wait) -> Any:
    wait()
    return Scrypt(salt=b"salt", length=16, n=2**10, r=8, p=1).derive(b"password").hex()


def password_callbacks(wait: Wait) -> Any:
    """Buffers of Python objects, read by Rust: a ``__bytes__``-like callback is a memoryview's exporter here."""
    sealed = EC_KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    wait()
    with pytest.raises(ValueError):
        serialization.load_pem_private_key(sealed, memoryview(b"wrong"))
    wait()
    key = serialization.load_pem_private_key(sealed, memoryview(b"password"))
    return isinstance(key, ec.EllipticCurvePrivateKey)


WAYS = {
    digests: (True, 32),
    ciphers: True,
    sealed_boxes: [True, True],
    fernet: b"secret",
    signatures: True,
    certificates: (7, "CN=pygo"),
    key_derivation: Scrypt(salt=b"salt", length=16, n=2**10, r=8, p=1).derive(b"password").hex(),
    password_callbacks: True,
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_cryptography_works_in_tasks_that_move(way: Any, workers: int) -> None:
    run_crowd(way, WAYS[way], stays=False)
