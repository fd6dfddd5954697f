"""What the timeline says of deploys: parts of its sentences. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from server.pipeline.deploys import Deploy, Part


def deploy_subject(deploy: Deploy) -> str:
    """The deploy as the beginning of a sentence."""
    commit = next((part.commit for part in deploy.parts if part.commit), "")
    what = f"{deploy.ref} ({commit[:12]})" if commit and not commit.startswith(deploy.ref or "-") else deploy.ref
    return f"The {'rollback' if deploy.is_rollback else 'deploy'} of {deploy.app} to {what or 'the release before'}"


def deploy_object(deploy: Deploy) -> str:
    """The deploy inside of a sentence."""
    return deploy_subject(deploy).replace("The", "the", 1)


def because(why: str) -> str:
    """Why, as the end of a sentence; nothing where nobody has said it."""
    return f": {why}" if why else ""


def left_out(deploy: Deploy, part: Part) -> str:
    """That a host may not serve what was deployed, as a clause."""
    what = deploy.ref or "the release before"
    how = f"was left in the middle when {what}" if part.is_unsure else f"was away when {what}"
    return f"{part.host} {how} was deployed"


def what_serves(deploy: Deploy) -> str:
    """Which hosts serve what, as a sentence, where they differ or it is not known; empty where all serve the same."""
    serving: dict[str, list[str]] = {}
    for part in deploy.parts:
        if part.serves and not (part.is_unsure or part.is_unseen):
            serving.setdefault(_commit_of(part.serves), []).append(part.host)
    unsure = [part.host for part in deploy.parts if part.is_unsure]
    if len(serving) < 2 and not unsure:
        return ""
    said = [f"{', '.join(hosts)} {_serve(hosts)} {commit}" for commit, hosts in serving.items()]
    said += [f"what {', '.join(unsure)} {_serve(unsure)} is not known until heard"] if unsure else []
    return f"Hosts differ: {'; '.join(said)}."


def where_it_is(parts: Sequence[Part]) -> str:
    """On which of these hosts, which have it, it serves, and on which it only could, as a clause."""
    good = [part.host for part in parts if not part.is_unseen]
    unseen = [part.host for part in parts if part.is_unseen]
    said = f"serves on {', '.join(good)}" if good else "serves nowhere"
    return said + (f"; is current on {', '.join(unseen)}, where nothing that runs it is seen" if unseen else "")


def _serve(hosts: Sequence[str]) -> str:
    return "serves" if len(hosts) == 1 else "serve"


def _commit_of(serves: str) -> str:
    """The commits in the names of releases, which differ from host to host by their times."""
    return " and ".join(one.rpartition("-")[2] for one in serves.split(", "))
