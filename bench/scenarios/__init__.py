# SPDX-License-Identifier: BSD-3-Clause
"""One module a scenario: TITLE, ORDER, SECONDS (quick, full) and run(bench)."""
