"""`python -m kubesvc` is `kubesvc`."""

import sys

from kubesvc.cli import main

sys.exit(main())
