"""This machine: its hardware, what is installed, and what a training needs of both."""
