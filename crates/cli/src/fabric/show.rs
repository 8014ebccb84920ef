//! `daos fabric show`: the interfaces, and the guide's table of cores under them.

use serde_json::{Value, json};
use topology::launcher::local_identity;
use topology::plan::{Policy, choose};
use topology::process::this_process;
use topology::{Nic, Topology};

use super::{colours, environment, text};
use crate::table;

/// Widest table of cores that is printed without a break.
const COLUMNS_MAX: usize = 8;

pub(super) fn show(topology: &Topology, policy: Policy, here: bool) -> (String, Value) {
    let columns = topology::plan::table(topology, policy);
    let mut out = String::new();
    if !topology.name.is_empty() {
        out += &format!("{}\n", topology.name);
    }
    out += &format!("{}\n", text::summary(topology));
    out += &text::notes(topology);
    if topology.nics.is_empty() {
        out += "No network interface DAOS could use.\n";
    } else {
        out += &format!("\n{}", interfaces(topology));
    }
    if columns.iter().any(|(_, cpus)| !cpus.is_empty()) {
        out += &format!("\nCores by interface{}:\n", siblings(topology));
        for part in columns.chunks(COLUMNS_MAX) {
            out += &format!("\n{}", cores(topology, part));
        }
    }
    let own = here.then(|| own_choice(topology, policy));
    if let Some((line, _)) = &own {
        out += &format!("\n{line}\n");
    }
    let recorded: Value = serde_json::from_str(&topology.to_json()).unwrap_or_default();
    let column = |(nic, cpus): &(usize, Vec<usize>)| {
        let nic = topology.nics.get(*nic);
        json!({"nic": nic.map(|nic| &nic.name), "up": nic.is_some_and(Nic::is_up), "cpus": cpus})
    };
    let response = json!({
        "topology": recorded,
        "table": columns.iter().map(column).collect::<Vec<_>>(),
        "process": own.map(|(_, value)| value),
    });
    (out, response)
}

fn interfaces(topology: &Topology) -> String {
    let dash = || "-".to_owned();
    let row = |nic: &Nic| {
        vec![
            nic.name.clone(),
            nic.domain.clone(),
            nic.kind.to_string(),
            nic.state.to_string(),
            text::gb_per_s(nic.gb_per_s()),
            nic.socket.map_or_else(dash, |socket| socket.to_string()),
            nic.numa.map_or_else(dash, |numa| numa.to_string()),
            nic.pci.clone().unwrap_or_else(dash),
        ]
    };
    let rows: Vec<_> = topology.nics.iter().map(row).collect();
    table::table(
        &[
            "Interface",
            "Domain",
            "Kind",
            "State",
            "Speed",
            "Socket",
            "NUMA",
            "PCI",
        ],
        &rows,
    )
}

/// " (CPU n+104 is the second thread of core n)", where the numbering is that regular.
fn siblings(topology: &Topology) -> String {
    let cores = || topology.sockets.iter().flat_map(|socket| &socket.cores);
    let strides: Vec<Option<usize>> = cores()
        .map(|core| Some(core.cpus.get(1)? - core.cpus.first()?))
        .collect();
    match strides.first() {
        Some(&Some(stride)) if strides.iter().all(|&other| other == Some(stride)) => {
            format!(" (CPU n+{stride} is the second thread of CPU n's core)")
        }
        _ => String::new(),
    }
}

/// The guide's table: a column per interface, its number above, its cores below.
fn cores(topology: &Topology, columns: &[(usize, Vec<usize>)]) -> String {
    let nic = |index: usize| topology.nics.get(index);
    let titles: Vec<[String; 2]> = columns
        .iter()
        .map(|&(index, _)| {
            let state = if nic(index).is_some_and(Nic::is_up) {
                ""
            } else {
                " down"
            };
            [
                format!("NIC {index}{state}"),
                nic(index).map(text::full_name).unwrap_or_default(),
            ]
        })
        .collect();
    let height = columns
        .iter()
        .map(|(_, cpus)| cpus.len())
        .max()
        .unwrap_or(0);
    let width = |title: &[String; 2]| title.iter().map(String::len).max().unwrap_or(0).max(4);
    let colour = |index: usize| match (colours(), nic(index).is_some_and(Nic::is_up)) {
        (false, _) => ("", ""),
        (true, true) => ("\x1b[32m", "\x1b[0m"),
        (true, false) => ("\x1b[31m", "\x1b[0m"),
    };
    let mut out = String::new();
    for row in 0..height + 3 {
        for (title, (index, cpus)) in titles.iter().zip(columns) {
            let width = width(title);
            let [number, name] = title;
            let (on, off) = if row < 2 { colour(*index) } else { ("", "") };
            let cell = match row {
                0 => number.clone(),
                1 => name.clone(),
                2 => "-".repeat(width),
                _ => cpus.get(row - 3).map(usize::to_string).unwrap_or_default(),
            };
            out += &format!("{on}{cell:>width$}{off} ");
        }
        out += "\n";
    }
    out
}

/// What the calling process would use, by its binding and launcher.
fn own_choice(topology: &Topology, policy: Policy) -> (String, Value) {
    let identity = local_identity(&environment);
    let process = this_process(identity.local);
    let choice = choose(topology, &process, &[], policy);
    let nic = choice.nic.and_then(|nic| topology.nics.get(nic));
    let name = nic.map_or("no interface".to_owned(), text::full_name);
    let mut line = format!(
        "A process started like this one uses {name}: {}",
        choice.reason
    );
    for note in &identity.notes {
        line += &format!("\nNote: {note}");
    }
    let value = json!({
        "cpus": process.cpus.to_string(),
        "launcher": identity.launcher.map(|launcher| launcher.to_string()),
        "local_rank": identity.local.map(|local| local.rank),
        "local_size": identity.local.map(|local| local.size),
        "nic": nic.map(|nic| &nic.name),
        "domain": nic.map(|nic| &nic.domain),
        "rule": choice.rule.as_str(),
        "reason": choice.reason,
        "notes": identity.notes,
    });
    (line, value)
}
