"""The zoo: miniatures of the models that people bring, each taken through the whole chain; docs/models.md says how."""
