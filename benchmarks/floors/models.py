from typing import Any, ClassVar

from django.db import models


class FloorRow(models.Model):
    """As little as a verification could be."""

    phone_number = models.CharField(max_length=16)
    status = models.CharField(max_length=8, default="queued")
    request_id = models.CharField(max_length=64, null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[models.Manager[Any]] = models.Manager()
