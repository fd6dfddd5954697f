"""Keeps the secrets of apps: encrypted at rest, given to nobody but the hosts that need them."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from server.errors import StateUnusable

KEY_FILE = "vault.key"


class Vault:
    """Encrypts and decrypts with one key, which lies beside the state file for its owner's eyes only."""

    def __init__(self, folder: Path) -> None:
        """Reads the key, or makes one. Raises StateUnusable."""
        path = folder / KEY_FILE
        try:
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                pass
            else:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(Fernet.generate_key())
                    file.flush()
                    os.fsync(file.fileno())
            self._fernet = Fernet(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StateUnusable(
                f"the key of the vault {path} cannot be used ({error}); restore it, or remove it and set every secret anew"
            ) from None

    def close(self, secret: str) -> str:
        """The secret as it is written down."""
        return self._fernet.encrypt(secret.encode()).decode()

    def open(self, token: str) -> str | None:
        """The secret itself; None where it was closed by another key."""
        try:
            return self._fernet.decrypt(token.encode()).decode()
        except InvalidToken:
            return None
