"""The HTTP API: views, fields, parser, permission, errors."""
