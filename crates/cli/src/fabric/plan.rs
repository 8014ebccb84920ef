//! `daos fabric plan`: rank, cores, interface, load and share; advice; a recommended binding.

use clap::Args;
use serde_json::{Value, json};
use topology::binding::{Binding, PPN_MAX, Syntaxes, recommend};
use topology::plan::{Choice, Plan, Policy, Rule};
use topology::{CpuSet, Nic, Topology};

use super::{failed, text};
use crate::output::Failure;
use crate::table;

/// The job to plan for.
#[derive(Args, Debug)]
pub(crate) struct Job {
    /// Ranks per node
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=PPN_MAX as i64))]
    ppn: u16,
    /// The binding to judge: list:A:B:..., depth, none (default: the recommended one)
    #[arg(long, value_name = "BINDING")]
    cpu_bind: Option<String>,
    /// Cores per rank for --cpu-bind depth
    #[arg(long, short = 'd')]
    depth: Option<usize>,
}

pub(super) fn plan(
    topology: &Topology,
    policy: Policy,
    job: &Job,
) -> Result<(String, Value), Failure> {
    let ppn = usize::from(job.ppn);
    let recommended = recommend(topology, ppn, policy);
    let bindings = match &job.cpu_bind {
        None => recommended.clone(),
        Some(text) => Binding::parse(text, job.depth)
            .and_then(|binding| binding.cpus_of_ranks(topology, ppn))
            .map_err(failed)?,
    };
    let judged = Judged::new(topology, policy, &bindings);
    let best = Judged::new(topology, policy, &recommended);
    let advice = advice(&judged, &best);
    let syntaxes = Syntaxes::of(topology, &recommended);
    let recommends = !topology.sockets.is_empty() && !best.usable.is_empty();
    let mut out = format!("{} per node", text::count(ppn, "rank"));
    if !topology.name.is_empty() {
        out += &format!(" on {}", topology.name);
    }
    out += match job.cpu_bind {
        Some(_) => ", bound as given\n\n",
        None => ", bound as recommended below\n\n",
    };
    out += &judged.rank_table(&bindings);
    if !judged.usable.is_empty() {
        out += &format!("\n{}", judged.load_table());
    }
    out += "\n";
    advice.iter().for_each(|line| out += &format!("{line}\n"));
    out += &text::notes(topology);
    if recommends {
        out += &recommendation(&best, &syntaxes);
    }
    let response = json!({
        "ppn": ppn,
        "topology": topology.name,
        "binding": job.cpu_bind,
        "ranks": judged.ranks_json(&bindings),
        "nics": judged.nics_json(),
        "total_gb_per_s": judged.total(),
        "advice": advice,
        "recommended": recommends.then(|| json!({
            "cpus": recommended.iter().map(CpuSet::to_string).collect::<Vec<_>>(),
            "loads": best.nics_json(),
            "pals": syntaxes.pals,
            "hydra": syntaxes.hydra,
            "openmpi": syntaxes.openmpi,
            "openmpi_rankfile": syntaxes.openmpi_rankfile,
            "slurm": syntaxes.slurm,
        })),
    });
    Ok((out, response))
}

fn recommendation(best: &Judged<'_>, syntaxes: &Syntaxes) -> String {
    let mut out = format!(
        "\nRecommended binding (ranks per interface {}):\n",
        best.loads_text()
    );
    for (launcher, options) in [
        ("PALS, Aurora's mpiexec", &syntaxes.pals),
        ("MPICH Hydra", &syntaxes.hydra),
        ("Open MPI", &syntaxes.openmpi),
        ("Slurm", &syntaxes.slurm),
    ] {
        out += &format!("  {launcher:<23} {options}\n");
    }
    if let Some(rankfile) = &syntaxes.openmpi_rankfile {
        out += "  with this FILE for Open MPI (repeat it with every node's name):\n";
        rankfile
            .lines()
            .for_each(|line| out += &format!("    {line}\n"));
    }
    out
}

/// A plan and what it gives.
struct Judged<'a> {
    topology: &'a Topology,
    plan: Plan,
    /// Interfaces that ranks could be using: those of the kind in play that are up.
    usable: Vec<usize>,
}

impl<'a> Judged<'a> {
    fn new(topology: &'a Topology, policy: Policy, bindings: &[CpuSet]) -> Judged<'a> {
        let plan = topology::plan::plan(topology, bindings, policy);
        let table = topology::plan::table(topology, policy);
        let up = |nic: &usize| topology.nics.get(*nic).is_some_and(Nic::is_up);
        let usable = table.into_iter().map(|(nic, _)| nic).filter(up).collect();
        Judged {
            topology,
            plan,
            usable,
        }
    }

    fn nic(&self, choice: &Choice) -> Option<&'a Nic> {
        self.topology.nics.get(choice.nic?)
    }

    fn load(&self, nic: usize) -> usize {
        self.plan.loads.get(nic).copied().unwrap_or(0)
    }

    fn loads(&self) -> Vec<usize> {
        self.usable.iter().map(|&nic| self.load(nic)).collect()
    }

    fn loads_text(&self) -> String {
        self.loads()
            .iter()
            .map(usize::to_string)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// An interface's bandwidth shared by its ranks, GB/s.
    fn share(&self, nic: usize) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "ranks per interface are few")]
        let ranks = self.load(nic).max(1) as f64;
        Some(self.topology.nics.get(nic)?.gb_per_s()? / ranks)
    }

    /// Bandwidth of all interfaces that have a rank, GB/s; `None` if one's speed is not known.
    fn total(&self) -> Option<f64> {
        let used = self.usable.iter().filter(|&&nic| self.load(nic) > 0);
        let speeds: Option<Vec<f64>> = used
            .map(|&nic| self.topology.nics.get(nic)?.gb_per_s())
            .collect();
        speeds
            .map(|speeds| speeds.iter().sum())
            .filter(|&total| total > 0.0)
    }

    fn displaced(&self) -> usize {
        self.plan
            .choices
            .iter()
            .filter(|choice| choice.rule == Rule::Balance)
            .count()
    }

    fn rank_table(&self, bindings: &[CpuSet]) -> String {
        let row = |(rank, (choice, cpus)): (usize, (&Choice, &CpuSet))| {
            let nic = self.nic(choice);
            vec![
                rank.to_string(),
                if cpus.is_empty() {
                    "any".to_owned()
                } else {
                    cpus.to_string()
                },
                choice.socket.to_string(),
                nic.map_or("-".to_owned(), text::full_name),
                text::gb_per_s(choice.nic.and_then(|nic| self.share(nic))),
                choice.reason.clone(),
            ]
        };
        let rows: Vec<_> = self
            .plan
            .choices
            .iter()
            .zip(bindings)
            .enumerate()
            .map(row)
            .collect();
        table::table(&["Rank", "CPUs", "Socket", "NIC", "Share", "Why"], &rows)
    }

    fn load_table(&self) -> String {
        let row = |&index: &usize| {
            let nic = self.topology.nics.get(index)?;
            Some(vec![
                format!("NIC {index}"),
                text::full_name(nic),
                self.load(index).to_string(),
                text::gb_per_s(nic.gb_per_s().filter(|_| self.load(index) > 0)),
                text::gb_per_s(self.share(index).filter(|_| self.load(index) > 0)),
            ])
        };
        let rows: Vec<_> = self.usable.iter().filter_map(row).collect();
        let mut out = table::table(&["NIC", "Interface", "Ranks", "Together", "Each"], &rows);
        let used = self.loads().iter().filter(|&&load| load > 0).count();
        out += &format!(
            "{used} of {} in use, expected {} per direction and node\n",
            text::count(self.usable.len(), "interface"),
            text::gb_per_s(self.total())
        );
        out
    }

    fn ranks_json(&self, bindings: &[CpuSet]) -> Value {
        let rank = |(rank, (choice, cpus)): (usize, (&Choice, &CpuSet))| {
            let nic = self.nic(choice);
            json!({
                "rank": rank,
                "cpus": cpus.to_string(),
                "socket": choice.socket,
                "nic": nic.map(|nic| &nic.name),
                "domain": nic.map(|nic| &nic.domain),
                "gb_per_s": choice.nic.and_then(|nic| self.share(nic)),
                "rule": choice.rule.as_str(),
                "reason": choice.reason,
            })
        };
        self.plan
            .choices
            .iter()
            .zip(bindings)
            .enumerate()
            .map(rank)
            .collect()
    }

    fn nics_json(&self) -> Value {
        let one = |&index: &usize| {
            let nic = self.topology.nics.get(index)?;
            Some(json!({
                "name": nic.name,
                "domain": nic.domain,
                "ranks": self.load(index),
                "gb_per_s": nic.gb_per_s(),
                "gb_per_s_per_rank": self.share(index).filter(|_| self.load(index) > 0),
            }))
        };
        self.usable.iter().filter_map(one).collect()
    }
}

/// What is wrong with the judged binding, and what would be better.
fn advice(judged: &Judged<'_>, best: &Judged<'_>) -> Vec<String> {
    let ranks = judged.plan.choices.len();
    let nics = judged.usable.len();
    if nics == 0 {
        return vec!["No interface is up: DAOS would choose by itself.".to_owned()];
    }
    if nics == 1 {
        return vec!["There is one interface: every rank uses it, however it is bound.".to_owned()];
    }
    let mut lines = Vec::new();
    let (loads, best_loads) = (judged.loads(), best.loads());
    let idle = |loads: &[usize]| loads.iter().filter(|&&load| load == 0).count();
    let highest = |loads: &[usize]| loads.iter().max().copied().unwrap_or(0);
    if idle(&loads) > idle(&best_loads) {
        lines.push(format!(
            "Better: {} of {nics} interfaces idle here, {} with the recommended binding ({} instead \
             of {} per node).",
            idle(&loads),
            idle(&best_loads),
            text::gb_per_s(best.total()),
            text::gb_per_s(judged.total()),
        ));
    } else if highest(&loads) > highest(&best_loads) {
        lines.push(format!(
            "Better: up to {} ranks share an interface here, {} with the recommended binding.",
            highest(&loads),
            highest(&best_loads),
        ));
    }
    if judged.displaced() > best.displaced() {
        lines.push(format!(
            "{} would be moved from the interface of their core to an emptier one; with the \
             recommended binding every rank keeps the interface of its core.",
            text::count(judged.displaced(), "rank"),
        ));
    }
    if lines.is_empty() {
        lines.push(format!(
            "No binding of {} loads {} more evenly than {}.",
            text::count(ranks, "rank"),
            text::count(nics, "interface"),
            judged.loads_text()
        ));
    }
    if !ranks.is_multiple_of(nics) {
        let above = ranks.next_multiple_of(nics);
        let below = above - nics;
        let numbers = match below {
            0 => above.to_string(),
            _ => format!("{below} or {above}"),
        };
        lines.push(format!(
            "Better still: {numbers} ranks per node load all {nics} interfaces alike; {ranks} cannot."
        ));
    }
    lines
}
