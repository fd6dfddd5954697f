"""Sends tasks of the shop: `python send.py shop.mail 100 [ARGUMENT]`, or `python send.py --deaf` to stop the consumer."""

import sys

from jobs import app  # type: ignore[import-not-found]

if sys.argv[1] == "--deaf":
    app.control.cancel_consumer("celery", reply=True, timeout=5)
else:
    name, count = sys.argv[1], int(sys.argv[2])
    arguments = [float(argument) for argument in sys.argv[3:]]
    with app.connection_for_write() as connection:
        for _ in range(count):
            app.send_task(name, arguments, connection=connection)
