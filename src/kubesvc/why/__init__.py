"""Why a Service, a Pod, an address or a name does not work: one snapshot, walked with the parts' own plans."""
