"""The app `members`."""

from django.apps import AppConfig


class MembersConfig(AppConfig):
    """Its name."""

    name = "members"
