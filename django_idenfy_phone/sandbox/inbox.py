"""The inbox: messages and requests as an HTML page, or messages as values for JSON."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from html import escape
from importlib import resources
from operator import itemgetter
from string import Template

from django_idenfy_phone.sandbox.pauses import Pause, pause_after
from django_idenfy_phone.sandbox.scenarios import SCENARIOS
from django_idenfy_phone.sandbox.state import (
    KEPT_EXCHANGES,
    Exchange,
    Message,
    SandboxState,
)

REQUESTS = {"send": "Send to", "check": "Check for", "redirect": "Redirected send to"}


def as_json(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Return one object a message, with the fields of ``Message``."""
    return [
        {
            **asdict(message),
            "sent_at": message.sent_at.isoformat(),
            "arrives_at": message.arrives_at.isoformat(),
        }
        for message in messages
    ]


def render_page(state: SandboxState) -> str:
    file = resources.files("django_idenfy_phone.sandbox") / "inbox.html"
    exchanges = state.exchanges
    return Template(file.read_text("utf-8")).substitute(
        pauses="".join(pause_notices(exchanges, state.now())),
        messages="\n".join(map(message_row, state.messages))
        or empty_row("no-messages", "No messages yet."),
        requests="\n".join(map(request_row, exchanges))
        or empty_row("no-requests", "No requests yet."),
        kept=KEPT_EXCHANGES,
        scenarios="\n".join(
            f"<div><dt>{number}</dt> <dd>{escape(scenario.description)}</dd></div>"
            for number, scenario in SCENARIOS.items()
        ),
    )


def message_row(message: Message) -> str:
    title = f"{message.channel} to {message.phone_number}"
    return (
        f'<li id="message-{message.request_id}">{time_of(message.arrives_at)} '
        f"<strong>{escape(title[0].upper() + title[1:])}</strong> "
        f"<span>{escape(message.text)}</span></li>"
    )


def request_row(exchange: Exchange) -> str:
    what = request_text(exchange)
    if exchange.verdict:
        what += f": {exchange.verdict}"
    is_success = exchange.status is not None and exchange.status < 300
    mark = "" if is_success else ' class="refused"'
    return (
        f'<li id="request-{exchange.id}">{time_of(exchange.asked_at)} '
        f"<span>{escape(what)}</span> "
        f"<span{mark}>{escape(answer_text(exchange))}</span></li>"
    )


def request_text(exchange: Exchange) -> str:
    number = exchange.phone_number or "an unknown number"
    return f"{REQUESTS[exchange.endpoint]} {number}"


def answer_text(exchange: Exchange) -> str:
    if exchange.status is None:
        return "no answer"
    body = exchange.body if exchange.endpoint == "check" else ""
    return f"{exchange.status} {exchange.identifier or body}".strip()


def pause_notices(exchanges: Iterable[Exchange], now: datetime) -> list[str]:
    """One paragraph for sends and one for checks, where the app pauses them now."""
    last: dict[str, tuple[datetime, Exchange, Pause]] = {}
    for each in exchanges:
        pause = pause_after(
            each.endpoint, each.status, each.identifier, each.retry_after
        )
        if pause and (ends_at := each.asked_at + pause.duration) > now:
            found = (ends_at, each, pause)
            kind = pause.endpoint
            last[kind] = max(last.get(kind, found), found, key=itemgetter(0))
    return [notice(*last[kind]) for kind in sorted(last)]


def notice(ends_at: datetime, exchange: Exchange, pause: Pause) -> str:
    limit = "about" if pause.is_exact else "at most"
    request = request_text(exchange)
    return (
        f'<p id="pause-{pause.endpoint}">The app now {pause.effect} until {limit} '
        f"{ends_at:%H:%M:%S}, because a {escape(request[0].lower() + request[1:])} "
        f"was answered {answer_text(exchange)}.</p>"
    )


def time_of(moment: datetime) -> str:
    return f'<time datetime="{moment.isoformat()}">{moment:%H:%M:%S}</time>'


def empty_row(row_id: str, text: str) -> str:
    return f'<li id="{row_id}"><span>{text}</span></li>'
