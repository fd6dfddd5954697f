"""reflex-server: keeps one timeline of many hosts and shows it."""
