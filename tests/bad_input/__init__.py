"""Broken specs and data files, as bytes by name, made from tables."""
