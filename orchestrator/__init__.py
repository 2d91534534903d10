"""From 300 question-answer pairs to a small language model of your own, with numbers you can trust."""

__version__ = "0.2.0"
