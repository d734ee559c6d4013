import requests
from celery import shared_task
from django.conf import settings

from .models import FloorRow


@shared_task(ignore_result=True)
def do_nothing(pk: int) -> None:
    """Only published: no worker runs it."""


@shared_task(name="benchmarks.floors.send", ignore_result=True)
def send(pk: int) -> None:
    """One SELECT, two UPDATEs, one ``requests.post``."""
    row = FloorRow.objects.get(pk=pk)
    FloorRow.objects.filter(pk=pk, status="queued").update(status="sending")
    answer = requests.post(
        f"{settings.IDENFY_PHONE_API_URL}/fraud/send-sms",
        json={"phone_number": row.phone_number},
        auth=(settings.IDENFY_PHONE_API_KEY, settings.IDENFY_PHONE_API_SECRET),
        timeout=12,
    )
    request_id = answer.json()["request_id"]
    FloorRow.objects.filter(pk=pk).update(status="sent", request_id=request_id)
