"""The contracts: what a table holds, what a flow takes, what a stage hands on."""
