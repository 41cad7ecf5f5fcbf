"""One running kubesvc on this machine: its files, its processes and namespaces, and the ways in from the host.

Everything that a crash can leave behind is written into the instance's record before it is made, so that `down` and
the next `up` can remove it.
"""
