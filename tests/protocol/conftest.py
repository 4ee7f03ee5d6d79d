"""How hypothesis runs here: no limits of wall time, which a busy machine passes; a failure prints how to repeat it."""

from hypothesis import HealthCheck, settings

settings.register_profile("protocol", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("protocol")
