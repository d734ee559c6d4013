"""The pages of support and operators in Django's admin, which imports this package."""

from .log import PhoneVerificationAdmin

__all__ = ["PhoneVerificationAdmin"]
