"""A stateful stand-in for iDenfy's phone verification, for development and tests."""
