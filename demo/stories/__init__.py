"""One file a story: `NAME`, `TITLE`, `OPTIONS`, `LINKS` and `play(stage) -> root event`."""
