"""What happens after the chain: talk to an artifact, serve it, bring it to Ollama or to a hub."""
