"""What a model sees: LLaMA-Factory's templates, and the same in the languages of the servers."""
