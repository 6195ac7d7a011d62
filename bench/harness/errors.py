# SPDX-License-Identifier: BSD-3-Clause
"""What ends a scenario early: it cannot run here, or it went wrong."""


class Skip(Exception):
    """The scenario, or a part of it, cannot run on this machine: why, and what to do."""


class Failure(Exception):
    """It should have run and did not: what, where, what to do."""
