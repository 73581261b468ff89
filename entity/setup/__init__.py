"""From a configuration to what is run: reading, checks, identity, data, clients, resuming."""
