"""The loop: observe, plan, apply. Owns tasks, the busy book, the event history.

    loop     Loop(engine, desired, now=...): run, want, wake, until, view
    history  Event, History (record, follow), what happened by itself between two observations

Does not belong here: decisions (planner), knowledge of any particular engine, sockets.
"""
