"""The live picture: a Service, its slices, Pods, rules and connections, as they change; on a page and in a terminal."""
