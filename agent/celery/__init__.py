"""Celery understood from outside: nodes asked over their own remote control, queues read at the broker."""
