//! Phrases of `daos fabric`.

use topology::{Nic, Topology};

/// "2 sockets, 104 cores, 208 CPUs, 8 interfaces (8 up)".
pub(super) fn summary(topology: &Topology) -> String {
    let cores: usize = topology
        .sockets
        .iter()
        .map(|socket| socket.cores.len())
        .sum();
    let up = topology.nics.iter().filter(|nic| nic.is_up()).count();
    let offline = match topology.offline.len() {
        0 => String::new(),
        count => format!(" ({count} offline)"),
    };
    format!(
        "{}, {}, {}{offline}, {} ({up} up)",
        count(topology.sockets.len(), "socket"),
        count(cores, "core"),
        count(topology.cpus().len(), "CPU"),
        count(topology.nics.len(), "interface"),
    )
}

/// "1 rank", "2 ranks".
pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// "25.0 GB/s", or a dash where the speed is not known.
pub(super) fn gb_per_s(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.1} GB/s"))
}

/// "hsn0/cxi0", or the name alone where the domain is the same.
pub(super) fn full_name(nic: &Nic) -> String {
    match nic.name == nic.domain {
        true => nic.name.clone(),
        false => format!("{}/{}", nic.name, nic.domain),
    }
}

/// A remark block, a line each.
pub(super) fn notes(topology: &Topology) -> String {
    topology
        .notes
        .iter()
        .map(|note| format!("Note: {note}\n"))
        .collect()
}
