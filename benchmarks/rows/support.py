"""The pages of the admin's log with many rows, against themselves with few.

The summary page is measured against half a second.

The few are all of this hour, so that their pages are as full as those of the many.
"""

from collections.abc import Iterator
from statistics import median

from ..support.bench import Bench
from ..support.database import FULL_SPAN, VERIFICATIONS, Database
from ..support.figures import Figure, by_time, milliseconds
from ..support.site import Agent

LIST = "/admin/django_idenfy_phone/phoneverification/"
# No filled row is locked, Lithuanian, for "order", or failed: all are looked through.
QUERIES = {
    "today": "",
    "7 days": "?period=7d",
    "any time": "?period=all",
    "last page": "?period=all&p=60",
    "rare status": "?period=all&status__exact=locked",
    "common status": "?period=all&status__exact=verified",
    "rare failure": "?period=30d&failure__exact=unknown",
    "rare region": "?period=all&region=LT",
    "rare purpose": "?period=all&purpose=order",
    "number": "?q=%2B44{number}",
    "id": "?q={pk}",
    "user name": "?q=user{user}",
    "e-mail": "?q=user{user}@example.com",
    "user": "?user={user}",
    "nothing": "?q=nonsense",
    "one attempt": "{pk}/change/",
    "explain": "explain/",
}
# What is posted to a page.
FORMS = {"explain/": {"number": "+44{number}", "user": "user{user}"}}
# A user who has as many rows in both.
USER, EACH = 1, 30
NAMES = [f"log: {page}" for page in QUERIES]
SUMMARY, SUMMARY_SECONDS = "summary/?period=30d", 0.5
# In each hour of 30 days, 20 regions with 7 outcomes, and 16 counts of refusals.
TALLIES = """
    INSERT INTO django_idenfy_phone_tally (hour, name, reason, region, shard, count)
    SELECT date_trunc('hour', now()) - hour * interval '1 hour',
        CASE WHEN kind < 7 THEN (ARRAY['started', 'sent', 'verified', 'expired',
            'locked', 'failed', 'failed'])[kind + 1] ELSE 'refused' END,
        CASE WHEN kind < 5 THEN '' ELSE 'reason ' || kind % 6 END,
        'R' || region, CASE WHEN kind < 7 THEN 0 ELSE kind END, 60
    FROM generate_series(0, 719) AS hour, generate_series(1, 20) AS region,
        generate_series(0, 22) AS kind"""
SETTINGS = {
    "ROOT_URLCONF": "benchmarks.host.admin_urls",
    "INSTALLED_APPS": [
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "django_idenfy_phone",
    ],
    "MIDDLEWARE": [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    "STATIC_URL": "static/",
    "IDENFY_PHONE_REGIONS": None,
}


def measure(bench: Bench) -> Iterator[Figure]:
    sizes = {bench.pick(3_000_000, 30_000): FULL_SPAN, 3_000: "interval '1 hour'"}
    sites = [filled(bench, rows, since) for rows, since in sizes.items()]
    for page, query in QUERIES.items():
        many, few = (time_page(bench, *site, query) for site in sites)
        yield by_time(f"log: {page}", many, few)
    yield time_summary(bench, *sites[0])


def time_summary(bench: Bench, agent: Agent, database: Database) -> Figure:
    database.execute(TALLIES)
    database.execute("VACUUM ANALYZE django_idenfy_phone_tally")
    took, most = time_page(bench, agent, database, SUMMARY), SUMMARY_SECONDS
    return Figure("summary", milliseconds(took), milliseconds(most), took / most)


def filled(bench: Bench, rows: int, since: str) -> tuple[Agent, Database]:
    database = bench.database()
    database.fill_much(rows, since)
    database.execute(f"""
        UPDATE {VERIFICATIONS} SET user_id = {USER} WHERE id IN (
            SELECT id FROM {VERIFICATIONS} ORDER BY created_at DESC LIMIT {EACH})""")
    agent = bench.agent(database, **SETTINGS)
    agent.call("migrate")
    agent.call("login")
    return agent, database


def time_page(bench: Bench, agent: Agent, database: Database, query: str) -> float:
    """The median, of a row of its own where the query names one."""
    row = newest(database)
    url = LIST + query.format(**row)
    form = {key: text.format(**row) for key, text in FORMS.get(query, {}).items()}
    agent.call("page", url, form)
    return median(agent.call("page", url, form) for _ in range(bench.pick(20, 5)))


def newest(database: Database) -> dict[str, str]:
    [row] = database.execute(f"""
        SELECT id::text, substr(phone_number, 4), user_id::text FROM {VERIFICATIONS}
        ORDER BY created_at DESC LIMIT 1""")
    return dict(zip(("pk", "number", "user"), row, strict=True))
