"""Spool first, send second, forget on ack: what the agent has to say, kept on disk until the server has it.

A record that `append_*` gave a number to is in the kernel's hands: kill -9 of the agent loses nothing. A power cut may
take the events since the last `sync`, one second with the agent's beat, and samples that the kernel had not yet written.

Errors: SpoolError when the folder cannot be used at all. A full or failing disk later on is no error: records wait in
bounded memory and the trouble is told by `take_drops` and the log.
"""

from agent.spool.log import Drop
from agent.spool.spool import Spool, SpoolBatch, SpoolError

__all__ = ["Drop", "Spool", "SpoolBatch", "SpoolError"]
