"""A proven number is kept on its owner, and no older proof replaces a newer one."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from django_idenfy_phone import announce, maintenance, services
from django_idenfy_phone.exceptions import (
    AlreadyRedeemed,
    NotVerified,
    NumberTaken,
    UnknownUser,
)
from django_idenfy_phone.ownership import keep_number, release_number
from django_idenfy_phone.signals import phone_released, phone_verified
from hosts.accounts.models import BARRED, Member, Profile
from support.constants import NUMBER
from support.steps import logged_messages

pytestmark = pytest.mark.django_db
OTHER_NUMBER = "+37061234500"
LATER = timedelta(minutes=1)
owners = Profile._base_manager


@pytest.fixture
def accounts(django_user_model):
    """Profiles of two users."""
    users = [django_user_model.objects.create_user(name) for name in ("jonas", "rasa")]
    return [Profile.objects.create(user=user) for user in users]


@pytest.fixture
def prove(make, clock):
    """Make a proof, each a minute newer than the one before."""

    def prove(owner, number=NUMBER, **fields):
        clock.move(LATER)
        named = {"user": owner.user, "phone_number": number} | fields
        return make("verified", verified_at=clock.now, **named)

    return prove


@pytest.fixture
def moving(settings):
    settings.IDENFY_PHONE_TAKEN_NUMBER = "move"


@pytest.fixture
def keeping(settings):
    """Numbers are kept on profiles by themselves."""
    settings.IDENFY_PHONE_OWNER = "accounts.Profile.user"


@pytest.fixture
def connect():
    """Connect a receiver for one test. Returns a list of what the signal brings."""
    connected = []

    def connect(signal, act=lambda **received: None):
        def receiver(signal, **received):
            heard.append(received)
            act(**received)

        heard = []
        signal.connect(receiver, weak=False)
        connected.append((signal, receiver))
        return heard

    yield connect
    for signal, receiver in connected:
        signal.disconnect(receiver)


@pytest.fixture
def released(connect, django_capture_on_commit_callbacks):
    """The owner and number of each phone_released, after the commits of the test."""
    heard = connect(phone_released)

    def released(function, *args):
        with django_capture_on_commit_callbacks(execute=True):
            function(*args)
            assert heard == []
        return [(each["sender"], each["owner"], each["phone_number"]) for each in heard]

    return released


def held_by(owner):
    """The number and the time of the proof in the owner's row."""
    row = type(owner)._base_manager.get(pk=owner.pk)
    number = row.phone_number and row.phone_number.as_e164
    return number, row.phone_confirmed_at


NOTHING = (None, None)


def test_number_is_kept_with_the_time_of_its_proof(accounts, prove):
    proof = prove(accounts[0])
    assert keep_number(accounts[0], proof) is True
    assert held_by(accounts[0]) == (NUMBER, proof.verified_at)


def test_owner_at_hand_changes_too(accounts, prove):
    keep_number(accounts[0], prove(accounts[0]))
    accounts[0].save()
    assert held_by(accounts[0])[0] == accounts[0].phone_number.as_e164 == NUMBER
    release_number(accounts[0])
    accounts[0].save()
    assert held_by(accounts[0]) == NOTHING


def test_lazy_owner_is_taken(accounts, prove):
    assert keep_number(SimpleLazyObject(lambda: accounts[0]), prove(accounts[0]))
    assert held_by(accounts[0])[0] == NUMBER


def test_model_may_name_fields_of_its_own(user, prove):
    member = Member.objects.create(user=user)
    proof = prove(member)
    keep_number(member, proof)
    kept = Member.objects.get()
    assert (kept.mobile, kept.mobile_proven_at) == (NUMBER, proof.verified_at)
    release_number(member)
    kept.refresh_from_db()
    assert (kept.mobile, kept.mobile_proven_at) == NOTHING


def test_keeping_again_changes_nothing(accounts, prove):
    proof = prove(accounts[0])
    assert [keep_number(accounts[0], proof) for _ in range(2)] == [True, True]
    assert held_by(accounts[0]) == (NUMBER, proof.verified_at)


def test_newer_proof_of_the_user_replaces_an_older_one(accounts, prove):
    keep_number(accounts[0], prove(accounts[0], OTHER_NUMBER))
    proof = prove(accounts[0])
    assert keep_number(accounts[0], proof) is True
    assert held_by(accounts[0]) == (NUMBER, proof.verified_at)


def test_older_proof_never_replaces_a_newer_one_of_the_user(accounts, prove):
    older, newer = prove(accounts[0]), prove(accounts[0], OTHER_NUMBER)
    assert keep_number(accounts[0], newer) is True
    assert keep_number(accounts[0], older) is False
    assert held_by(accounts[0]) == (OTHER_NUMBER, newer.verified_at)


def test_older_proof_is_not_kept_before_the_newer_one_is(accounts, prove):
    older, _newer = prove(accounts[0]), prove(accounts[0], OTHER_NUMBER)
    assert keep_number(accounts[0], older) is False
    assert held_by(accounts[0]) == NOTHING


def test_newer_proof_for_another_purpose_does_not_count_until_kept(accounts, prove):
    older, newer = prove(accounts[0]), prove(accounts[0], OTHER_NUMBER, purpose="order")
    assert keep_number(accounts[0], older) is True
    assert keep_number(accounts[0], newer) is True
    assert keep_number(accounts[0], older) is False


@pytest.mark.parametrize("purpose", ["", "signup"])
def test_proof_that_a_visitor_redeemed_is_kept(accounts, prove, purpose):
    owner = accounts[0]
    proof = prove(owner, user=None, is_anonymous=True, purpose=purpose)
    with transaction.atomic():
        services.redeem_verification(proof, user=owner.user, purpose=purpose)
        assert keep_number(owner, proof) is True
    assert held_by(owner)[0] == NUMBER


def test_number_without_proof_is_not_kept(accounts, make):
    with pytest.raises(NotVerified):
        keep_number(accounts[0], make("sent"))


def test_owner_that_is_not_stored_is_refused(accounts, prove, user):
    with pytest.raises(UnknownUser):
        keep_number(Profile(user=user), prove(accounts[0]))


def test_other_integrity_errors_are_not_taken_for_a_race(accounts, prove):
    member = Member.objects.create(user=accounts[0].user)
    with pytest.raises(IntegrityError), transaction.atomic():
        keep_number(member, prove(member, BARRED))


# A number that another account holds


def test_confirmed_holder_keeps_the_number(accounts, prove, released):
    holder, other = accounts
    keep_number(holder, prove(holder))
    proof = prove(other)

    def keep():
        with pytest.raises(NumberTaken):
            keep_number(other, proof)

    assert released(keep) == []
    assert (held_by(holder)[0], held_by(other)) == (NUMBER, NOTHING)


def test_refusal_leaves_the_callers_transaction_whole(accounts, prove):
    holder, other = accounts
    keep_number(holder, prove(holder))
    with transaction.atomic():
        with pytest.raises(NumberTaken):
            keep_number(other, prove(other))
        other.is_deleted = True
        other.save()
    assert owners.get(pk=other.pk).is_deleted


@pytest.mark.parametrize("policy", ["refuse", "move"])
def test_holder_who_only_typed_the_number_gives_way(
    accounts, prove, settings, policy, released
):
    settings.IDENFY_PHONE_TAKEN_NUMBER = policy
    typed, other = accounts
    Profile.objects.filter(pk=typed.pk).update(phone_number=NUMBER)
    assert released(keep_number, other, prove(other)) == [(Profile, typed, NUMBER)]
    assert (held_by(typed), held_by(other)[0]) == (NOTHING, NUMBER)


def test_number_whose_holder_changes_at_each_look_is_taken(accounts, prove):
    def confirm_first(execute, sql, *arguments):
        if "phone_number" in sql and "UPDATE" in sql:
            rows = owners.filter(pk=typed.pk)
            rows.update(phone_confirmed_at=timezone.now())
        return execute(sql, *arguments)

    typed, other = accounts
    Profile.objects.filter(pk=typed.pk).update(phone_number=NUMBER)
    proof = prove(other)
    with connection.execute_wrapper(confirm_first), pytest.raises(NumberTaken):
        keep_number(other, proof)
    assert (held_by(typed)[0], held_by(other)) == (NUMBER, NOTHING)


@pytest.mark.parametrize("policy", ["refuse", "move"])
def test_hidden_holder_is_seen(accounts, prove, settings, policy):
    settings.IDENFY_PHONE_TAKEN_NUMBER = policy
    hidden, other = accounts
    keep_number(hidden, prove(hidden))
    Profile.objects.filter(pk=hidden.pk).update(is_deleted=True)
    if policy == "move":
        assert keep_number(other, prove(other)) is True
        assert held_by(hidden) == NOTHING
    else:
        with pytest.raises(NumberTaken):
            keep_number(other, prove(other))


@pytest.mark.usefixtures("moving")
def test_number_moves_to_the_newest_proof(accounts, prove, released):
    former, other = accounts
    keep_number(former, prove(former))
    assert released(keep_number, other, prove(other)) == [(Profile, former, NUMBER)]
    assert (held_by(former), held_by(other)[0]) == (NOTHING, NUMBER)


@pytest.mark.usefixtures("moving")
def test_released_owner_comes_as_it_is_now(accounts, prove, released, connect):
    former, other = accounts
    keep_number(former, prove(former))
    [(_sender, owner, _number)] = released(keep_number, other, prove(other))
    assert (owner.phone_number, owner.phone_confirmed_at) == NOTHING


@pytest.mark.usefixtures("moving")
def test_number_does_not_move_to_an_older_proof(accounts, prove, released):
    holder, other = accounts
    older = prove(other)
    keep_number(holder, prove(holder))
    assert released(keep_number, other, older) == []
    assert (held_by(holder)[0], held_by(other)) == (NUMBER, NOTHING)


@pytest.mark.usefixtures("moving")
def test_older_proof_of_a_number_is_not_kept_before_the_newer_one_is(accounts, prove):
    older, _newer = prove(accounts[0]), prove(accounts[1])
    assert keep_number(accounts[0], older) is False


def test_first_kept_proof_of_a_number_holds_it(accounts, prove):
    older, newer = prove(accounts[0]), prove(accounts[1])
    assert keep_number(accounts[0], older) is True
    with pytest.raises(NumberTaken):
        keep_number(accounts[1], newer)


def test_change_of_the_own_number_is_no_release(accounts, prove, released):
    keep_number(accounts[0], prove(accounts[0], OTHER_NUMBER))
    assert released(keep_number, accounts[0], prove(accounts[0])) == []


def test_released_number_is_free(accounts, prove, released):
    keep_number(accounts[0], prove(accounts[0]))
    was_released = released(release_number, accounts[0])
    assert was_released == [(Profile, accounts[0], NUMBER)]
    assert keep_number(accounts[1], prove(accounts[1])) is True


def test_release_without_a_number_is_silent(accounts, released):
    assert released(release_number, accounts[0]) == []


def test_rolled_back_release_is_silent(accounts, prove, released):
    keep_number(accounts[0], prove(accounts[0]))

    @transaction.atomic
    def release_and_fail():
        release_number(accounts[0])
        raise LookupError

    def roll_back():
        with pytest.raises(LookupError):
            release_and_fail()

    assert released(roll_back) == []
    assert held_by(accounts[0])[0] == NUMBER


def test_refused_number_rolls_the_redeeming_back(accounts, prove):
    holder, other = accounts
    keep_number(holder, prove(holder))
    proof = prove(other)

    @transaction.atomic
    def change_number():
        services.redeem_verification(proof, user=other.user)
        keep_number(other, proof)

    with pytest.raises(NumberTaken):
        change_number()
    release_number(holder)
    change_number()
    with pytest.raises(AlreadyRedeemed):
        change_number()


# Keeping by itself


@pytest.mark.usefixtures("keeping")
def test_number_is_kept_before_the_receivers(accounts, prove, connect):
    held = []
    connect(phone_verified, lambda user, **kwargs: held.append(held_by(user.profile)))
    proof = prove(accounts[0])
    announce.verified(proof)
    assert held == [(NUMBER, proof.verified_at)]
    proof.refresh_from_db()
    assert (proof.number_taken, bool(proof.announced_at)) == (False, True)


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize(
    "fields",
    [
        {"purpose": "order"},
        {"user": None, "is_anonymous": True},
        {"is_anonymous": True},
    ],
    ids=["purpose", "visitor", "redeemed"],
)
def test_other_proofs_are_not_kept_by_themselves(accounts, prove, fields):
    proof = prove(accounts[0], **fields)
    announce.verified(proof)
    assert (held_by(accounts[0]), proof.number_taken) == (NOTHING, None)
    proof.refresh_from_db()
    assert proof.announced_at


def test_nothing_is_kept_by_itself_without_the_setting(accounts, prove):
    proof = prove(accounts[0])
    announce.verified(proof)
    assert (held_by(accounts[0]), proof.number_taken) == (NOTHING, None)


@pytest.mark.usefixtures("keeping")
def test_taken_number_is_an_outcome_and_is_not_announced(accounts, prove, connect):
    heard = connect(phone_verified)
    keep_number(accounts[0], prove(accounts[0]))
    proof = prove(accounts[1])
    announce.verified(proof)
    proof.refresh_from_db()
    assert (proof.is_verified, proof.number_taken, proof.failure) == (True, True, "")
    assert bool(proof.announced_at) is True
    assert heard == []


@pytest.mark.usefixtures("keeping")
def test_outcome_is_final(accounts, prove, connect, clock):
    """A receiver that fails makes the signal come again: the number does not."""

    def fails(**kwargs):
        raise LookupError("down")

    heard = connect(phone_verified, fails)
    proof = prove(accounts[0], announce_at=clock.now)
    announce.verified(proof)
    assert held_by(accounts[0])[0] == NUMBER
    release_number(accounts[0])
    maintenance.sweep(lambda pk: True)
    assert (len(heard), held_by(accounts[0])) == (2, NOTHING)


@pytest.mark.usefixtures("keeping")
def test_user_without_an_owner_is_logged_and_announced(user, make, caplog, connect):
    heard = connect(phone_verified)
    proof = make("verified", verified_at=timezone.now())
    announce.verified(proof)
    text = (
        f"Verification {proof.reference}: its user has no accounts.Profile, so its "
        "number was not kept."
    )
    assert logged_messages(caplog) == [("ERROR", text)]
    assert len(heard) == 1


def test_keeping_that_fails_is_tried_again_by_the_sweep(
    accounts, prove, settings, connect, clock
):
    heard = connect(phone_verified)
    settings.IDENFY_PHONE_OWNER = "accounts.Missing.user"
    proof = prove(accounts[0], announce_at=clock.now)
    announce.verified(proof)
    assert heard == []
    settings.IDENFY_PHONE_OWNER = "accounts.Profile.user"
    maintenance.sweep(lambda pk: True)
    assert (held_by(accounts[0])[0], len(heard)) == (NUMBER, 1)
