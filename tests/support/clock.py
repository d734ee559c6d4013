"""The time of all machines, moved by hand."""

from django.utils import timezone


class Clock:
    """Replaces ``timezone.now`` by the ``clock`` fixture; stands still until moved."""

    def __init__(self):
        self.now = timezone.now()

    def __call__(self):
        return self.now

    def move(self, by):
        self.now += by
