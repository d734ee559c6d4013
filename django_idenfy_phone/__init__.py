"""Proves that a person owns a phone number; iDenfy sends and checks the code."""

__version__ = "1.0.0"
