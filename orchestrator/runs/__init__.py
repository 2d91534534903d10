"""Records of runs: their only reader and writer, whose results may be used again, and the proof that they are whole."""
