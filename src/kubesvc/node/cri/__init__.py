"""Containers made by a container runtime (containerd, CRI-O) that is asked over CRI v1, in networks of our own.

`wire` is the form of the messages, `config` turns Pods into them (both pure), `client` carries them, `network` gives
sandboxes their addresses through the runtime's CNI plugin, which is `cni`, and `runtime` puts it all together.
"""
