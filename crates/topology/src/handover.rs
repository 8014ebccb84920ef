//! Telling genuine DAOS which interface to use: environment variables libdaos reads at its start.
//!
//! This module only says what to set; the caller sets it, before libdaos is loaded and while no
//! other thread runs.

use crate::launcher::{Identity, Lookup};
use crate::model::{Nic, NicKind, Topology};
use crate::plan::Choice;

/// Names a client reads. DAOS 2.6 reads the new ones and warns if both are set; 2.4 and before know
/// the old ones only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// `D_INTERFACE`, `D_DOMAIN`.
    New,
    /// `OFI_INTERFACE`, `OFI_DOMAIN`.
    Old,
    /// All four, where the client's version is not known.
    #[default]
    Both,
}

/// What to do before libdaos starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// Variables to set, with their values. Never one that the user has set.
    pub set: Vec<(&'static str, String)>,
    /// Interface that will be used, as far as known: the user's or the chosen one.
    pub interface: Option<String>,
    /// Whether the user named it.
    pub by_user: bool,
    /// Warnings for the user, a line each; only local rank 0 (or a process without rank) has them,
    /// so that a job says them once per node.
    pub warnings: Vec<String>,
}

/// Works out the variables for `choice`, leaving alone what the user set.
#[must_use]
pub fn handover(
    topology: &Topology,
    choice: &Choice,
    identity: &Identity,
    names: Names,
    variable: &Lookup<'_>,
) -> Handover {
    let mut warnings = Vec::new();
    let interface = user_value(variable, "D_INTERFACE", "OFI_INTERFACE", &mut warnings);
    let domain = user_value(variable, "D_DOMAIN", "OFI_DOMAIN", &mut warnings);
    let mut handover = match (interface, domain) {
        (Some(name), domain) => {
            named_interface(topology, &name, domain.as_deref(), names, &mut warnings)
        }
        (None, Some(domain)) => named_domain(topology, &domain, names, &mut warnings),
        (None, None) => {
            let nic = choice.nic.and_then(|nic| topology.nics.get(nic));
            nic.map(|nic| give(nic, names, true, true))
                .unwrap_or_default()
        }
    };
    if identity.local.is_none_or(|local| local.rank == 0) {
        handover.warnings = warnings;
    }
    handover
}

/// The user's value under the new or the old name. The new one wins, as in DAOS.
fn user_value(
    variable: &Lookup<'_>,
    new: &str,
    old: &str,
    warnings: &mut Vec<String>,
) -> Option<String> {
    let get = |name| variable(name).filter(|value| !value.is_empty());
    match (get(new), get(old)) {
        (Some(a), Some(b)) if a != b => {
            warnings.push(format!("{new}={a} and {old}={b} differ: {new} counts"));
            Some(a)
        }
        (a, b) => a.or(b),
    }
}

/// The user named the interface: honoured in any case. What is missing for cxi is added, because
/// DAOS would take the interface's name for the domain.
fn named_interface(
    topology: &Topology,
    name: &str,
    domain: Option<&str>,
    names: Names,
    warnings: &mut Vec<String>,
) -> Handover {
    let nic = topology
        .nic_named(name)
        .and_then(|index| topology.nics.get(index));
    match nic {
        None => warnings.push(format!(
            "interface {} named by the user is not on this machine; it is used all the same",
            crate::error::one_line(name)
        )),
        Some(nic) if !nic.is_up() => warnings.push(format!(
            "interface {name} named by the user is down; it is used all the same"
        )),
        Some(nic) => {
            if let Some(domain) = domain.filter(|&domain| domain != nic.domain) {
                warnings.push(format!(
                    "domain {} named by the user is not that of {name} ({}); it is used all the same",
                    crate::error::one_line(domain),
                    nic.domain
                ));
            }
        }
    }
    let added = nic.filter(|nic| domain.is_none() && needs_domain(nic));
    Handover {
        interface: Some(name.to_owned()),
        by_user: true,
        ..added
            .map(|nic| give(nic, names, false, true))
            .unwrap_or_default()
    }
}

/// The user named the domain only: the interface that belongs to it is added.
fn named_domain(
    topology: &Topology,
    domain: &str,
    names: Names,
    warnings: &mut Vec<String>,
) -> Handover {
    let nic = topology.nics.iter().find(|nic| nic.domain == domain);
    let shown = crate::error::one_line(domain);
    match nic {
        None => warnings.push(format!(
            "domain {shown} named by the user is not on this machine; it is used all the same"
        )),
        Some(nic) if !nic.is_up() => warnings.push(format!(
            "domain {shown} named by the user is down; it is used all the same"
        )),
        Some(_) => {}
    }
    Handover {
        interface: nic.map(|nic| nic.name.clone()),
        by_user: true,
        ..nic
            .map(|nic| give(nic, names, true, false))
            .unwrap_or_default()
    }
}

/// On Ethernet libfabric's domain is the interface, which DAOS assumes by itself.
fn needs_domain(nic: &Nic) -> bool {
    match nic.kind {
        NicKind::Cxi | NicKind::InfiniBand | NicKind::Roce => true,
        NicKind::Ethernet | NicKind::Virtual => false,
    }
}

fn give(nic: &Nic, names: Names, interface: bool, domain: bool) -> Handover {
    let mut set = Vec::new();
    let pairs: &[(&'static str, &'static str)] = match names {
        Names::New => &[("D_INTERFACE", "D_DOMAIN")],
        Names::Old => &[("OFI_INTERFACE", "OFI_DOMAIN")],
        Names::Both => &[("D_INTERFACE", "D_DOMAIN"), ("OFI_INTERFACE", "OFI_DOMAIN")],
    };
    for (interface_name, domain_name) in pairs {
        if interface {
            set.push((*interface_name, nic.name.clone()));
        }
        if domain && needs_domain(nic) {
            set.push((*domain_name, nic.domain.clone()));
        }
    }
    Handover {
        set,
        interface: Some(nic.name.clone()),
        ..Handover::default()
    }
}
