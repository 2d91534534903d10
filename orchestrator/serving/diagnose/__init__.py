"""A model that somebody else's commands trained and shipped: what is served otherwise than it was trained, and where.

`trained` reads the training, `shipped` what an Ollama, a GGUF or a server makes of the same questions, `judge` compares
the two, `weights` looks whether what was learnt is in the file, `corrected` writes the Modelfile as it should be.
"""
