"""Upstream's conformance cases that exercise only the API, step by step."""
