"""One account holds a number, whoever proves or keeps it at the same moment."""

from collections import Counter
from datetime import timedelta
from itertools import count

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from django_idenfy_phone import services
from django_idenfy_phone.exceptions import NumberTaken
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.ownership import keep_number
from django_idenfy_phone.signals import phone_released
from django_idenfy_phone.transactions import is_definite_abort
from hosts.accounts.models import Profile
from support.constants import NUMBER
from support.wire import answer

pytestmark = pytest.mark.django_db(transaction=True)
NUMBERS = [f"+3706{n:03}4567" for n in range(100, 120)]


@pytest.fixture
def accounts(django_user_model):
    """Profiles of 20 users."""
    django_user_model.objects.bulk_create(
        django_user_model(username=f"user{n}") for n in range(20)
    )
    users = django_user_model.objects.filter(username__startswith="user").order_by("pk")
    return [Profile.objects.create(user=user) for user in users]


@pytest.fixture
def proofs(make):
    """A proof for each owner and number, each a second newer than the one before."""

    now = timezone.now()
    seconds = count()

    def proofs(owners, numbers=(NUMBER,) * 20, **fields):
        return [
            make(
                "verified",
                phone_number=number,
                verified_at=now + timedelta(seconds=next(seconds)),
                **{"user": owner.user, "purpose": f"purpose{n}"} | fields,
            )
            for n, (owner, number) in enumerate(zip(owners, numbers, strict=True))
        ]

    return proofs


@pytest.fixture
def released():
    """The primary keys of the owners that phone_released was sent for."""

    def receiver(owner, **kwargs):
        pks.append(owner.pk)

    pks = []
    phone_released.connect(receiver)
    yield pks
    phone_released.disconnect(receiver)


@pytest.fixture
def moving(settings):
    settings.IDENFY_PHONE_TAKEN_NUMBER = "move"


@pytest.fixture(params=["refuse", "move"])
def policy(request, settings):
    settings.IDENFY_PHONE_TAKEN_NUMBER = request.param
    return request.param


def keep(owner_and_proof):
    """What ``keep_number`` returns, or the code of the error that it raises."""
    try:
        return keep_number(*owner_and_proof)
    except NumberTaken as error:
        return error.code


def holders(number=NUMBER):
    return list(Profile.objects.filter(phone_number=number))


def test_first_of_20_accounts_keeps_the_number(accounts, proofs, at_once):
    results = at_once(keep, zip(accounts, proofs(accounts), strict=True))
    assert Counter(results) == {True: 1, "number_taken": 19}
    assert holders() == [accounts[results.index(True)]]


@pytest.mark.usefixtures("moving")
def test_newest_of_20_proofs_takes_the_number(accounts, proofs, at_once, released):
    rows = proofs(accounts, purpose="")
    Profile.objects.filter(pk=accounts[3].pk).update(
        phone_number=NUMBER, phone_confirmed_at=rows[3].verified_at
    )
    results = at_once(keep, zip(accounts, rows, strict=True))
    assert Counter(results) == {True: 1, False: 19}
    assert (holders(), released) == (accounts[-1:], [accounts[3].pk])


@pytest.mark.usefixtures("moving")
def test_number_moves_on_with_each_newer_proof(accounts, proofs, at_once, released):
    """No row tells of a newer proof, as each is for another purpose."""
    rows = proofs(accounts)
    results = at_once(keep, zip(accounts, rows, strict=True))
    [holder] = holders()
    assert (holder, holder.phone_confirmed_at) == (accounts[-1], rows[-1].verified_at)
    assert len(set(released)) == len(released) == results.count(True) - 1


@pytest.mark.usefixtures("moving")
def test_20_accounts_that_swap_their_numbers_end_with_them(accounts, proofs, at_once):
    for each in zip(accounts, proofs(accounts, NUMBERS), strict=True):
        assert keep(each) is True
    swapped = proofs(accounts, NUMBERS[::-1])
    results = at_once(keep, zip(accounts, swapped, strict=True))
    assert Counter(results) == {True: 20}
    assert [holders(number) for number in NUMBERS[::-1]] == [[a] for a in accounts]


def test_newest_of_20_numbers_of_one_account_stays(accounts, proofs, at_once, policy):
    rows = proofs(accounts[:1] * 20, NUMBERS)
    at_once(keep, [(Profile.objects.get(pk=accounts[0].pk), row) for row in rows])
    assert holders(NUMBERS[-1]) == accounts[:1]
    assert Profile.objects.exclude(phone_number=None).count() == 1


def test_20_confirms_at_once_keep_one_number(
    accounts, make, at_once, policy, settings, wire
):
    def confirm(owner):
        row = make("sent", user=owner.user)
        try:
            return services.confirm_verification(row.pk, "1234", user=owner.user).status
        except NumberTaken as error:
            return error.code

    settings.IDENFY_PHONE_OWNER = "accounts.Profile.user"
    wire.will(*[answer(200, {"is_verified": True})] * 20)
    results = Counter(at_once(confirm, accounts))
    [holder] = holders()
    of_holder = PhoneVerification.objects.get(user=holder.user)
    assert (holder.phone_confirmed_at, of_holder.number_taken) == (
        of_holder.verified_at,
        False,
    )
    if policy == "refuse":
        assert results == {"verified": 1, "number_taken": 19}
    else:
        assert results == {"verified": 20}
        assert of_holder == PhoneVerification.objects.latest("verified_at")


REPEATABLE_READ = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL "
    "REPEATABLE READ",
    "mysql": "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
}


@pytest.fixture(params=["host's level", "REPEATABLE READ"])
def set_level(request):
    """Set the isolation level of a thread's connection."""
    statement = REPEATABLE_READ.get(connection.vendor)
    if request.param == "host's level":
        return lambda: None
    if statement is None:
        pytest.skip("set DATABASE_URL to a PostgreSQL or MariaDB server to run this")

    def set_level():
        with connection.cursor() as cursor:
            cursor.execute(statement)

    return set_level


@transaction.atomic
def sign_up(proof):
    """As a host does; it reads before ``keep_number``."""
    user = get_user_model().objects.create_user(proof.pk.hex)
    owner = Profile.objects.create(user=user)
    services.redeem_verification(proof, user=user, purpose=proof.purpose)
    return keep_number(owner, proof)


def test_first_of_20_sign_ups_keeps_the_number(proofs, accounts, at_once, set_level):
    def attempt(proof):
        set_level()
        try:
            return sign_up(proof)
        except NumberTaken as error:
            return error.code

    rows = proofs(accounts, user=None, is_anonymous=True)
    results = at_once(attempt, rows)
    assert Counter(results) == {True: 1, "number_taken": 19}
    [holder] = holders()
    assert holder.user.username == rows[results.index(True)].pk.hex


@pytest.mark.usefixtures("moving")
def test_newest_of_20_sign_ups_takes_the_number(proofs, accounts, at_once, set_level):
    def attempt(proof):
        set_level()
        while True:
            try:
                return sign_up(proof)
            except NumberTaken:
                # In REPEATABLE READ, PostgreSQL does not show who took the number.
                assert connection.vendor == "postgresql"
            except OperationalError as error:
                # On MariaDB, some end by a deadlock.
                if not is_definite_abort(error):
                    raise

    rows = proofs(accounts, user=None, is_anonymous=True)
    assert set(at_once(attempt, rows)) <= {True, False}
    [holder] = holders()
    assert holder.user.username == rows[-1].pk.hex
