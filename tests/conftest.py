"""Settings of all tests."""

from hypothesis import settings

# A slow machine is not a failure: no test may depend on the clock.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
