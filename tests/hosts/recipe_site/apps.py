from django.apps import AppConfig


class RecipeSiteConfig(AppConfig):
    name = "hosts.recipe_site"
    label = "recipe_site"
    default_auto_field = "django.db.models.BigAutoField"
