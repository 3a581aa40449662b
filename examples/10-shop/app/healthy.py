"""The health check of the web: does it answer?"""

import urllib.request

urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=2).close()
