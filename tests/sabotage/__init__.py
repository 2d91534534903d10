"""Damages to the files of a finished run: each must be named, refused by what would ship it, and repaired."""
