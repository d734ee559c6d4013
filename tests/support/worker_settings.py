"""The host project in a process of its own, with the settings that a test gives it."""

import json
import os

from hosts.project import settings

globals().update({name: getattr(settings, name) for name in dir(settings)})
globals().update(json.loads(os.environ["HOST_SETTINGS"]))
