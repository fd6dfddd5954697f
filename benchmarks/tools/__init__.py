"""The tools whose footprints are compared: one file each."""
