"""The server that forks ranks, and the token store of the engine's tests."""

from tests.support.distributed import start_server

start_server()
