"""A public library's catalogue, its members and their loans: a Django project that is deployed, and knows nothing of Reflex."""

from library.celery import app as celery_app

__all__ = ("celery_app",)
