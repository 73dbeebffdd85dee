"""The stages, one folder per flow: each reads files, calls the core, writes files and returns a manifest."""

import runtime as runtime
