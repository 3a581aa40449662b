"""Works at the third try."""

import sys
from pathlib import Path

tries = Path("/tries/count")
number = int(tries.read_text()) + 1 if tries.exists() else 1
tries.write_text(str(number))
if number < 3:
    sys.exit(f"try {number} fails")
print(f"try {number} works")
