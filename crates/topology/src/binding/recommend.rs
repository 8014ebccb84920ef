//! A `--cpu-bind` list for any number of ranks.

use crate::cpuset::CpuSet;
use crate::launcher::LocalRank;
use crate::model::{Socket, Topology};
use crate::plan::{Policy, Process, near_socket_of};

/// One CPU per rank: ranks dealt over the sockets in blocks by their interfaces, on each socket
/// round robin over the interfaces' cores (core index mod number of interfaces), rows of cores
/// spread out, the first row left to the operating system while there is room, second hardware
/// threads after all cores, other sockets' CPUs after the own, and CPUs used twice only when every
/// CPU has a rank. Empty sets if nothing is known about the CPUs.
#[must_use]
pub fn recommend(topology: &Topology, ppn: usize, policy: Policy) -> Vec<CpuSet> {
    let cpus = topology.online();
    let sockets: Vec<(usize, usize)> = (0..ppn)
        .map(|rank| {
            let process = Process {
                cpus: cpus.clone(),
                local: LocalRank::new(rank, ppn),
                current_cpu: None,
            };
            near_socket_of(topology, policy, &process)
        })
        .collect();
    let orders: Vec<Vec<usize>> = (0..topology.socket_count())
        .map(|socket| {
            let of_socket = || sockets.iter().filter(|&&(s, _)| s == socket);
            let width = of_socket().next().map_or(1, |&(_, width)| width);
            order(topology, socket, width, of_socket().count())
        })
        .collect();
    let mut used = CpuSet::new();
    let mut chosen = Vec::with_capacity(ppn);
    for &(socket, _) in &sockets {
        if used.len() == cpus.len() {
            used = CpuSet::new();
        }
        let own = orders.get(socket).into_iter();
        let cpu = own
            .chain(&orders)
            .flatten()
            .copied()
            .find(|&cpu| !used.contains(cpu));
        used.extend(cpu);
        chosen.push(cpu.into_iter().collect());
    }
    chosen
}

/// All CPUs of `socket` in the order in which `count` ranks should take them; its cores belong to
/// `width` interfaces in turn.
fn order(topology: &Topology, socket: usize, width: usize, count: usize) -> Vec<usize> {
    let nothing = Socket::default();
    let cores = &topology.sockets.get(socket).unwrap_or(&nothing).cores;
    let width = width.max(1);
    let rows = cores.len() / width;
    let needed = count.div_ceil(width);
    let (skip, step) = match rows {
        0 => (0, 1),
        _ if needed < rows => (1, (rows - 1) / needed.max(1)),
        _ => (0, 1),
    };
    let spread = |index: usize| (skip + index / width * step) * width + index % width;
    let first_choice = (0..needed * width).map(spread);
    let mut seen = CpuSet::new();
    let mut order = Vec::new();
    for thread in 0..cores.iter().map(|core| core.cpus.len()).max().unwrap_or(0) {
        for index in first_choice.clone().chain(0..cores.len()) {
            let cpu = cores
                .get(index)
                .and_then(|core| core.cpus.get(thread))
                .copied();
            if let Some(cpu) = cpu.filter(|&c| !topology.offline.contains(c) && !seen.contains(c)) {
                seen.insert(cpu);
                order.push(cpu);
            }
        }
    }
    order
}
