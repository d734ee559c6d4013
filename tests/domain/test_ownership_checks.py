"""A model that cannot hold proven numbers is reported before the first proof."""

import pytest
from django.core.checks import ERROR, WARNING, run_checks

from django_idenfy_phone.signals import phone_released

pytestmark = pytest.mark.usefixtures("account")
APP = "django_idenfy_phone"


@pytest.fixture
def found(settings):
    """Check settings of ownership; return the levels and ids of our messages."""

    def found(owner, taken_number="refuse"):
        settings.IDENFY_PHONE_OWNER = owner
        settings.IDENFY_PHONE_TAKEN_NUMBER = taken_number
        own = [each for each in run_checks() if each.id.startswith(APP)]
        assert all(each.hint for each in own)
        return [(each.level, each.id.removeprefix(f"{APP}.")) for each in own]

    return found


@pytest.fixture
def receiver():
    def receiver(**kwargs):
        """Tell the user."""

    phone_released.connect(receiver)
    yield
    phone_released.disconnect(receiver)


@pytest.mark.parametrize(
    "owner", [None, "accounts.Profile.user", "accounts.Member.user"]
)
def test_fit_owner_gives_no_message(found, owner):
    assert found(owner) == []


@pytest.mark.parametrize(
    "owner",
    [
        "",
        5,
        "Profile",
        "accounts.Profile.user.phone",
        "accounts.Missing",
        "missing.Profile.user",
        # Not the user model.
        "accounts.Profile",
        "accounts.Profile.missing",
        # No user, or several rows for one user.
        "accounts.Profile.phone_number",
        "accounts.Device.user",
        "auth.User.groups",
    ],
)
def test_owner_must_name_a_model_of_one_user(found, owner):
    assert found(owner) == [(ERROR, "E020")]


@pytest.mark.parametrize(
    ("owner", "number"),
    [
        ("auth.User", "E021"),
        ("accounts.WithoutFields.user", "E021"),
        ("accounts.ConfirmedByFlag.user", "E021"),
        ("accounts.NeverNull.user", "E022"),
        ("accounts.AlwaysConfirmed.user", "E022"),
        ("accounts.Shared.user", "E023"),
        ("accounts.UniqueForTenant.user", "E023"),
        ("accounts.UniqueAtCommit.user", "E023"),
    ],
)
def test_unfit_field_is_an_error(found, owner, number):
    assert found(owner) == [(ERROR, number)]


@pytest.mark.parametrize("policy", ["", None, "MOVE", True, ["move"]])
def test_unknown_policy_is_an_error(found, policy):
    assert found(None, policy) == [(ERROR, "E024")]


@pytest.mark.usefixtures("receiver")
def test_number_that_moves_must_not_be_the_login(found):
    assert found("accounts.NamedByNumber.user") == []
    assert found("accounts.NamedByNumber.user", "move") == [(ERROR, "E026")]


@pytest.mark.parametrize("owner", [None, "accounts.Profile.user"])
def test_move_without_a_receiver_is_a_warning(found, owner):
    assert found(owner, "move") == [(WARNING, "W012")]


@pytest.mark.usefixtures("receiver")
def test_receiver_avoids_the_warning(found):
    assert found("accounts.Profile.user", "move") == []


class AccountsElsewhere:
    def db_for_write(self, model, **hints):
        return "other" if model._meta.app_label == "accounts" else None


def test_owner_must_live_in_our_database(found, settings):
    settings.DATABASE_ROUTERS = [AccountsElsewhere()]
    assert found("accounts.Profile.user") == [(ERROR, "E025")]
