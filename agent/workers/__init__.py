"""What the agent knows of each kind of worker: one file per kind."""
