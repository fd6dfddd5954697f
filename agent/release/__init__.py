"""Releases on a host: fetched, built and checked beside what serves, switched to, watched, and taken back."""
