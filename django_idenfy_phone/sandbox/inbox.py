"""The inbox: all messages as an HTML page, or as values for JSON."""

from collections.abc import Iterable
from dataclasses import asdict
from html import escape
from importlib import resources
from string import Template

from django_idenfy_phone.sandbox.scenarios import SCENARIOS
from django_idenfy_phone.sandbox.state import Message


def as_json(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Return one object a message, with the fields of ``Message``."""
    return [
        {**asdict(message), "sent_at": message.sent_at.isoformat()}
        for message in messages
    ]


def render_page(messages: Iterable[Message]) -> str:
    file = resources.files("django_idenfy_phone.sandbox") / "inbox.html"
    return Template(file.read_text("utf-8")).substitute(
        messages="\n".join(
            table_row(f"{message.sent_at:%H:%M:%S}", message.phone_number, message.text)
            for message in messages
        )
        or table_row("", "", "No messages yet."),
        scenarios="\n".join(
            table_row(number, scenario.description)
            for number, scenario in SCENARIOS.items()
        ),
    )


def table_row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
