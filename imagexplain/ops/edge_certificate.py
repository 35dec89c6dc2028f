"""A certificate that a machine signs for itself, for clients on it and for tests."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
from pathlib import Path

from imagexplain.client.loopback import ANYWHERE
from imagexplain.ops.edge_settings import EdgeError

DAYS = 365
RENEWED_DAYS = 30
"""Days before its end from which a certificate is made anew."""

NAMES = ("DNS:localhost", "IP:127.0.0.1", "IP:::1")


def ensure_certificate(folder: Path, listen: str) -> tuple[Path, Path]:
    """Files of a certificate for this machine and of its key, which are made where there are none that will do.

    Args:
        folder: Directory of both.
        listen: Address for which it holds, beside those of the loopback.

    Raises:
        EdgeError: no openssl, or it fails.
    """
    certificate, key = folder / "certificate.pem", folder / "certificate.key"
    names = list(NAMES)
    if listen not in (ANYWHERE, "::") and not ipaddress.ip_address(listen).is_loopback:
        names.append(f"IP:{listen}")
    if certificate.is_file() and key.is_file() and _holds(certificate, listen):
        return certificate, key
    key.touch(mode=0o600)
    _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-sha256"),
        *("-days", str(DAYS), "-subj", "/CN=localhost", "-addext", f"subjectAltName={','.join(names)}"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    return certificate, key


def _holds(certificate: Path, listen: str) -> bool:
    """Tell whether a certificate is valid for some time yet, and for the address."""
    seconds = str(RENEWED_DAYS * 86400)
    ends = subprocess.run(
        [_binary(), "x509", "-in", str(certificate), "-noout", "-checkend", seconds], capture_output=True, check=False
    )
    if ends.returncode:
        return False
    if listen in (ANYWHERE, "::"):
        return True
    matches = subprocess.run(
        [_binary(), "x509", "-in", str(certificate), "-noout", "-checkip", listen],
        capture_output=True,
        text=True,
        check=False,
    )
    return "does match" in matches.stdout


def _openssl(*arguments: str) -> None:
    done = subprocess.run([_binary(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EdgeError(f"openssl cannot make a certificate: {done.stderr.strip()}")


def _binary() -> str:
    found = shutil.which("openssl")
    if found is None:
        raise EdgeError("openssl not found: make setup-ops installs it, or name a certificate in the settings (tls)")
    return found
