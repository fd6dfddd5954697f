"""The brain: decisions within limits, pure. It is not in version 0.1; the timeline has names for what it will tell."""
