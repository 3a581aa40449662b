"""How many small faults in the planner and the effect model the tests would find (docs/testing.md)."""
