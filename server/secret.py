"""Making secrets and the only form in which they are kept. Pure but for the source of randomness."""

from __future__ import annotations

import hashlib
import secrets
from typing import Literal

SecretKind = Literal["op", "host", "session"]


def new_secret(kind: SecretKind) -> str:
    """256 random bits behind a prefix (`rfx_op_…`) by which people and leak scanners know what they found."""
    return f"rfx_{kind}_{secrets.token_urlsafe(32)}"


def hash_of(secret: str) -> str:
    """SHA-256 in hex. A secret of 256 bits cannot be guessed, so no slow hash is needed.

    Rows are found by this hash. How long a look-up takes tells nothing about a stored secret,
    because nobody can choose a secret whose hash begins like another's.
    """
    return hashlib.sha256(secret.encode()).hexdigest()
