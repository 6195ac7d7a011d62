# SPDX-License-Identifier: BSD-3-Clause
"""The harness of fanwire-bench: runs programs in turn, keeps every run, compares, reports. See docs/benchmarks.md."""
