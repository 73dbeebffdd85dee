"""The contracts of tables, flow parameters and stage results."""
