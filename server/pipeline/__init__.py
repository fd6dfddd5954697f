"""The pipeline: from a push to a release that serves on every host of an app, watched, and back if it is worse."""
