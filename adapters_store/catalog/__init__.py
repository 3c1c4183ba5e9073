"""The catalog: names, versions and aliases in SQL. Rules live in transactions, not in callers.

Functions here take an open connection of :class:`~adapters_store.catalog.database.Database`; the
store composes them. Nothing in this package imports torch.
"""
