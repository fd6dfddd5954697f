"""The app `catalogue`."""

from django.apps import AppConfig


class CatalogueConfig(AppConfig):
    """Its name."""

    name = "catalogue"
