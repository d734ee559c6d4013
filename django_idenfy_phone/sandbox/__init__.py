"""A stateful stand-in of iDenfy's phone verification, for development and tests."""
