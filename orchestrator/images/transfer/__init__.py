"""Between a registry and the store.

pulling    a name -> an image in the store
arriving   its layers on their way in
puller     the same as a process of its own, for the supervisor
push       an image goes to its registry
packing    plain layers are compressed before that
"""
