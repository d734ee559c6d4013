"""Values that the tests share."""

import re

# Valid to libphonenumber. Its last digits are searched for in everything that a test
# writes: see MARKERS.
NUMBER = "+37061234567"

# The number, the secret and the Basic header: no log line, exception text or output of
# any test may hold one of them.
MARKERS = ("61234567", "test-secret", "dGVzdC1rZXk6dGVzdC1zZWNyZXQ=")

# The markers, a redeem token, and an id in a line that our own code logs.
ID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
OUR_LINE = r"django_idenfy_phone[\w.]*:\w+\.py:\d+ "
LEAK = re.compile("|".join([*MARKERS, rf"{ID}:[\w-]{{43}}", rf"{OUR_LINE}.*{ID}"]))
