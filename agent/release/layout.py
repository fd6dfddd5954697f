"""Where the parts of an app lie on a host. Pure.

```
/srv/shop/
  repo.git/               mirror of the repository
  releases/20261124T020304-1a2b3c4/     one folder a release, a worktree of the mirror
    venv -> ../../venvs/5d41402abc4b2a76
  current -> releases/20261124T020304-1a2b3c4
  venvs/                  one folder for each set of requirements, shared by releases that have the same
  shared/                 what outlives releases: linked into each of them
  environment             variables and secrets, for its owner's eyes only; the form that systemd and sh read
  .reflex/                caches, the key of the repository, what is known of each release
```

Other folders below `releases` are those of whoever deployed before (docs/migrating.md): they can be gone back to, and are not removed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RELEASE = re.compile(r"\d{8}T\d{6}-[0-9a-f]{7,12}")
FOREIGN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
"""What a release may be called that Reflex has not made."""

VENV = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below an app's folder."""

    folder: str

    @property
    def mirror(self) -> str:
        """The mirror of the repository."""
        return f"{self.folder}/repo.git"

    @property
    def releases(self) -> str:
        """The folder of releases."""
        return f"{self.folder}/releases"

    @property
    def current(self) -> str:
        """The link to the release that serves."""
        return f"{self.folder}/current"

    @property
    def venvs(self) -> str:
        """The folder of virtual environments."""
        return f"{self.folder}/venvs"

    @property
    def shared(self) -> str:
        """What outlives releases."""
        return f"{self.folder}/shared"

    @property
    def environment(self) -> str:
        """The file of variables and secrets."""
        return f"{self.folder}/environment"

    @property
    def own(self) -> str:
        """What only Reflex uses."""
        return f"{self.folder}/.reflex"

    @property
    def key(self) -> str:
        """The private key that the repository is fetched with."""
        return f"{self.own}/key"

    def release(self, name: str) -> str:
        """The folder of one release."""
        return f"{self.releases}/{name}"


def release_name(stamp: str, commit: str) -> str:
    """A release's name; `stamp` is its time, UTC, as 20261124T020304."""
    return f"{stamp}-{commit[:7]}"
