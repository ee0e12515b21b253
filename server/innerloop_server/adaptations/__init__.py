"""Keeping task states for their owners: the store, and Adapt requests that may be repeated safely."""
