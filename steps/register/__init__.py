"""The entry point register: evaluate the best candidate, register it."""
