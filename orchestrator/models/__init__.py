"""Base models and what they become: adapters, merged models, GGUFs, and what each takes of memory."""
