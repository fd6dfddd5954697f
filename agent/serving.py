"""How a service serves its requests: by which threads, and who ends a worker that stands still. Pure.

What is not known of a service counts as what raises no alarm.
"""

from __future__ import annotations

from agent.service import Service

_NO_LOOP = ("sync", "prefork", "threads")


def is_sync(service: Service) -> bool:
    """Whether each worker is Gunicorn's sync worker: one request at a time, and a heartbeat before each."""
    return service.kind == "gunicorn" and service.settings.worker_class == "sync"


def has_threads(service: Service) -> bool:
    """Whether each worker serves requests by a pool of threads of a known size: gthread, uWSGI's threads."""
    threads = service.settings.threads
    return service.kind in ("gunicorn", "uwsgi") and threads is not None and threads > 1


def has_pool(service: Service) -> bool:
    """Whether requests may be served by threads besides the main one: `has_threads`, and the pools of ASGI applications."""
    worker_class = (service.settings.worker_class or "").lower()
    return has_threads(service) or service.kind == "uvicorn" or "uvicorn" in worker_class or worker_class == "asgi"


def is_loop(service: Service) -> bool:
    """Whether the main thread is an event loop, which waits for everything by one epoll set."""
    return service.kind != "uwsgi" and service.settings.worker_class not in _NO_LOOP


def master_ends_it(service: Service) -> bool:
    """Whether the master kills a worker that stands still. Celery's tasks are judged elsewhere."""
    if service.kind == "gunicorn":
        return service.timeout_s is None or service.timeout_s > 0
    if service.kind == "uwsgi":
        return service.settings.workers is None or service.timeout_s is not None
    return service.kind == "celery"
