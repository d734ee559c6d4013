"""How sending goes, in the text format of Prometheus."""

from django.http import HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from django_idenfy_phone.health import Trouble, health


class PhoneCollector:
    def collect(self):
        found = health()
        due = found.oldest_due.total_seconds() if found.oldest_due else 0
        pauses = {pause.value: left for pause, left in found.pauses.items()}
        seconds = {name: left.total_seconds() for name, left in pauses.items()}
        troubles = {trouble.value: trouble in found.troubles for trouble in Trouble}
        yield GaugeMetricFamily("phone_queued", "Rows that wait", found.queued)
        yield GaugeMetricFamily("phone_oldest_due_seconds", "The longest wait", due)
        yield family("phone_pause_seconds", "What is left of a pause", "pause", seconds)
        silent = {name: age.total_seconds() for name, age in found.heartbeats.items()}
        yield family("phone_silent_seconds", "Since it last ran", "part", silent)
        yield family("phone_last_hour", "Rows", "outcome", found.outcomes)
        yield family("phone_trouble", "1: a person is needed", "trouble", troubles)


def family(name, text, label, values):
    gauge = GaugeMetricFamily(name, text, labels=[label])
    for each, value in values.items():
        gauge.add_metric([each], value)
    return gauge


def metrics(request):
    registry = CollectorRegistry()
    registry.register(PhoneCollector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
