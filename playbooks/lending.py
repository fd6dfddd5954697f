"""How a limit of the whole fleet is shared out to hosts that run a playbook by themselves, also while nobody reaches them.

A host that was lent a share may use it up unseen until its lease ends, and what it has used counts for an hour after
that. So a share is charged for as long; what is free goes to others, and the server keeps at least one for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from playbooks.model import HOUR_US

Charges: TypeAlias = Mapping[str, tuple[tuple[int, int], ...]]
"""By `charge_key`: shares that a host was lent, each with the time (UTC, us) until which it may matter."""


def charge_key(playbook: str, host: str) -> str:
    """Under which a host's shares of a playbook are kept."""
    return f"{playbook}\n{host}"


def charged(charges: Charges, playbook: str, now_us: int, *, besides: str = "") -> int:
    """How much of a playbook's limit hosts other than `besides` may use up, at most."""
    own = charge_key(playbook, besides)
    return sum(
        max((share for share, until_us in shares if until_us > now_us), default=0)
        for key, shares in charges.items()
        if key.partition("\n")[0] == playbook and key != own
    )


def share_for(fleet: int, hosts: int, charges: Charges, playbook: str, host: str, now_us: int, *, own: int) -> int:
    """What a host can be lent of `fleet` runs an hour, with `hosts` of them in all; 0: the server has to run it.

    `own` is how many the server has used itself within the hour.
    """
    free = fleet - max(own, 1) - charged(charges, playbook, now_us, besides=host)
    return max(0, min((fleet - 1) // max(hosts, 1), free))


def charge(charges: Charges, playbook: str, host: str, share: int, until_us: int, now_us: int) -> Charges:
    """The charges with one more loan, which ends at `until_us`."""
    key = charge_key(playbook, host)
    kept = tuple(one for one in charges.get(key, ()) if one[1] > now_us)
    return {**charges, key: (*kept, (share, until_us + HOUR_US))}


def confirm(charges: Charges, playbook: str, host: str, *, held: bool, now_us: int) -> Charges:
    """The host goes by its newest loan (`held`), or by none: the others matter for one more hour."""
    key = charge_key(playbook, host)
    shares = charges.get(key, ())
    newest = len(shares) - 1 if held else len(shares)
    fresh = tuple(
        (share, until_us if place == newest else min(until_us, now_us + HOUR_US))
        for place, (share, until_us) in enumerate(shares)
        if until_us > now_us
    )
    rest = {other: value for other, value in charges.items() if other != key}
    return {**rest, key: fresh} if fresh else rest
