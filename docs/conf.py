"""The manual. ``tox run -e docs`` builds it, and a warning is an error."""

project = "django-idenfy-phone"
html_title = project
html_theme = "furo"
exclude_patterns = ["_build"]
