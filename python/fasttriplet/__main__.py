"""``python -m fasttriplet``."""

import sys

from fasttriplet.cli import main

sys.exit(main())
