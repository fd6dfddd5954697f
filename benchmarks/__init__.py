"""Measurements that print a table, and `--json` for machines. They are never tests: machines are noisy."""
