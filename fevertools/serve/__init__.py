"""An HTTP server for one machine: detect, embed, classify and similarity, with limits for pictures of strangers.

    pip install "fevertools[serve]"
    fevertools serve --port 8000

>>> from fevertools.serve import Settings, create_app
>>> app = create_app(Settings(max_faces=16))        # an ASGI application, for a server of one's own
"""

from fevertools.errors import MissingExtraError
from fevertools.serve.settings import Settings

try:
    from fevertools.serve.app import create_app
    from fevertools.serve.server import is_loopback, run
except ModuleNotFoundError as _error:
    raise MissingExtraError(f'fevertools.serve needs {_error.name}: pip install "fevertools[serve]"') from _error

__all__ = ["Settings", "create_app", "run", "is_loopback"]
