"""The ground: errors, files, layout, processes, rendering, downloads, secrecy, and LLaMA-Factory's own tables."""
