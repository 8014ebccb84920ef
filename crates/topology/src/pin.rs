//! Where progress and dfuse threads run: near the interface, away from the ranks' cores.

use crate::cpuset::CpuSet;
use crate::model::Topology;

/// `CPU_SETSIZE` of sched_setaffinity(2)'s `cpu_set_t`.
const C_CPU_SET_SIZE: usize = 1024;

/// CPUs for `count` threads that serve the interface number `nic`, on its socket: first threads of
/// cores no rank uses, from the last core down; then their other threads; then idle threads of the
/// ranks' cores; then any. Starts again at the first when there are more threads than CPUs. Empty if
/// nothing is known about the CPUs.
///
/// CPUs that are offline are not used; for a process inside a cpuset pass
/// [`Topology::restricted`] to [`crate::process::cgroup_cpus`].
#[must_use]
pub fn place_progress_threads(
    topology: &Topology,
    nic: usize,
    ranks_cpus: &CpuSet,
    count: usize,
) -> Vec<usize> {
    let socket = topology
        .nics
        .get(nic)
        .and_then(|nic| nic.socket)
        .unwrap_or(0);
    let mut order = ordered(topology, socket, ranks_cpus);
    if order.is_empty() {
        order = (0..topology.sockets.len())
            .flat_map(|other| ordered(topology, other, ranks_cpus))
            .collect();
    }
    order.into_iter().cycle().take(count).collect()
}

fn ordered(topology: &Topology, socket: usize, ranks_cpus: &CpuSet) -> Vec<usize> {
    let mut ranked = Vec::new();
    let cores = topology
        .sockets
        .get(socket)
        .map_or(&[][..], |socket| &socket.cores);
    for (index, core) in cores.iter().enumerate() {
        let busy_core = core.cpus.iter().any(|&cpu| ranks_cpus.contains(cpu));
        for (thread, &cpu) in core.cpus.iter().enumerate() {
            if topology.offline.contains(cpu) {
                continue;
            }
            let class = match (busy_core, ranks_cpus.contains(cpu)) {
                (false, _) => thread.min(1),
                (true, false) => 2,
                (true, true) => 3,
            };
            ranked.push(((class, usize::MAX - index, thread), cpu));
        }
    }
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, cpu)| cpu).collect()
}

/// Binds the calling thread to `cpu`. False if the kernel refuses (offline, outside the cpuset) or
/// the number is beyond the C library's CPU set.
#[must_use]
pub fn pin_current(cpu: usize) -> bool {
    cpu < C_CPU_SET_SIZE && core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}
