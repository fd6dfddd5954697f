"""How a release fails."""


class ReleaseFailed(Exception):
    """A step of a release could not be done; the text says why, as the end of a sentence. `commit` is its, once known."""

    def __init__(self, step: str, text: str) -> None:
        super().__init__(text)
        self.step = step
        self.commit = ""
