from celery import shared_task

from . import idenfy
from .models import FloorRow


@shared_task(ignore_result=True)
def do_nothing(pk: int) -> None:
    """Only published: no worker runs it."""


@shared_task(name="benchmarks.floors.send", ignore_result=True)
def send(pk: int) -> None:
    """One SELECT, two UPDATEs, one ``requests.post``."""
    row = FloorRow.objects.get(pk=pk)
    FloorRow.objects.filter(pk=pk, status="queued").update(status="sending")
    answer = idenfy.ask("/fraud/send-sms", {"phone_number": row.phone_number})
    sent = {"status": "sent", "request_id": answer["request_id"]}
    FloorRow.objects.filter(pk=pk).update(**sent)
