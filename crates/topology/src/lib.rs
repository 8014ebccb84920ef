//! CPUs, NUMA nodes, network interfaces and the choice between them.
