"""What the tests stand on: real daemons, plain clients, models."""
