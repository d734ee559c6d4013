"""Values that the tests share."""

# Valid to libphonenumber. Its last digits are searched for in everything that a test
# writes: see MARKERS.
NUMBER = "+37061234567"

# The number, the secret and the Basic header: no log line, exception text or output of
# any test may hold one of them.
MARKERS = ("61234567", "test-secret", "dGVzdC1rZXk6dGVzdC1zZWNyZXQ=")
