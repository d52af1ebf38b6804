"""Real daemons on loopback, spoken to by HTTP, WebSocket and command line only."""
