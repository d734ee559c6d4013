import pytest
from django.utils import timezone

from django_idenfy_phone import services
from support.steps import client_of
from support.wire import answer


@pytest.fixture
def other_user(django_user_model):
    return django_user_model.objects.create_user("rasa")


@pytest.fixture
def allow_anonymous(settings):
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = True


@pytest.fixture
def visitor(allow_anonymous):
    """A client without a login, which may start and confirm."""
    return client_of(None)


@pytest.fixture
def custom_host(settings):
    """The URLs of a host with its own views: see hosts/custom.py."""
    settings.ROOT_URLCONF = "hosts.custom"


@pytest.fixture
def every_code_is_wrong(wire):
    wire.will(answer(200, {"is_verified": False}))
    return wire


@pytest.fixture
def proof(make):
    """Store a row that was just verified."""

    def proof(**fields):
        return make("verified", **{"verified_at": timezone.now()} | fields)

    return proof


@pytest.fixture
def anonymous_proof(proof):
    return proof(user=None, is_anonymous=True, purpose="signup")


@pytest.fixture
def redeemed(anonymous_proof, other_user, allow_anonymous):
    """An anonymous proof that ``other_user`` redeemed."""
    return services.redeem_verification(
        anonymous_proof, user=other_user, purpose="signup"
    )
