"""spec.yaml → frozen types, with errors that a person can act on."""
