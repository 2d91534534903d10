"""From a project to a finished run: what is to be done, when, where, and what to say when it fails."""
