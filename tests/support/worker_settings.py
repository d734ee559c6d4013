"""The settings of the host project, updated from HOST_SETTINGS."""

import json
import os

from hosts.project import settings

globals().update({name: getattr(settings, name) for name in dir(settings)})
globals().update(json.loads(os.environ["HOST_SETTINGS"]))
