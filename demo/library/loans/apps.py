"""The app `loans`."""

from django.apps import AppConfig


class LoansConfig(AppConfig):
    """Its name."""

    name = "loans"
