"""What can be read of a service's settings from outside: its command line, its environment, its files. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """How a service was told to run; None, or nothing, is what cannot be known from outside.

    `worker_class` is Gunicorn's worker class or Celery's pool; `threads` are those of one worker; `workers` are
    processes. `max_requests` is after how many requests, or tasks, a worker is replaced. `binds` are addresses as they
    were given; on `router_binds` a router takes clients in and hands them on to the workers (uWSGI's `--http`).
    `fifo` is the pipe by which uWSGI's master takes orders, `cheaper` the algorithm by which it changes how many of the
    `workers`, at most, there are. `finishes_on_term`: a master that gets TERM lets its workers finish their requests.
    `queues` and `node` are Celery's -Q and -n, `role` is Celery's subcommand (worker, beat).
    """

    app: str | None = None
    workers: int | None = None
    threads: int | None = None
    worker_class: str | None = None
    timeout_s: float | None = None
    max_requests: int | None = None
    preload: bool | None = None
    binds: tuple[str, ...] = ()
    router_binds: tuple[str, ...] = ()
    config_file: str | None = None
    fifo: str | None = None
    cheaper: str | None = None
    queues: tuple[str, ...] = ()
    node: str | None = None
    role: str | None = None
    finishes_on_term: bool = False
