//! CPU bindings: reading what users give to launchers, recommending lists, writing them for PALS and
//! MPICH, Open MPI and Slurm.

use crate::cpuset::{CPU_MAX, CpuSet};
use crate::error::{TopologyError, one_line};
use crate::model::Topology;

mod recommend;
pub use recommend::recommend;

/// Ranks per node above this are refused.
pub const PPN_MAX: usize = 4096;

/// A parsed `--cpu-bind` value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// One CPU set per local rank.
    List(Vec<CpuSet>),
    /// `depth`: blocks of cores, as many as `-d` says.
    Depth(usize),
    /// `none`: every rank may run on every CPU.
    Unbound,
}

impl Binding {
    /// Parses a binding: `list:4:9:14`, `list:0-12,104-116:13-25`, `depth` (with `depth` cores per
    /// rank), `none`, Slurm's `map_cpu:4,9,14` and `mask_cpu:0x10,0x200`, a bare `4:9:14`. What
    /// people paste along is taken off: `CPU_BINDING1=`, `export`, `--cpu-bind`, `verbose,`, quotes.
    ///
    /// # Errors
    /// Names the entry that cannot be understood.
    pub fn parse(text: &str, depth: Option<usize>) -> Result<Binding, TopologyError> {
        let bad = |why: String| TopologyError::Syntax(format!("CPU binding: {why}"));
        let text = strip_pasted(text);
        let (kind, rest) = match text.split_once(':') {
            Some((kind, rest)) if kind.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                (kind, rest)
            }
            _ if text.starts_with(|c: char| c.is_ascii_alphabetic()) => (text, ""),
            _ => ("list", text),
        };
        match kind {
            "list" => entries(rest, ':', CpuSet::parse).map_err(bad),
            "map_cpu" => entries(rest, ',', CpuSet::parse).map_err(bad),
            "mask_cpu" => entries(rest, ',', parse_mask).map_err(bad),
            "depth" => match depth.or_else(|| rest.parse().ok()) {
                Some(cores @ 1..CPU_MAX) => Ok(Binding::Depth(cores)),
                _ => Err(bad(
                    "\"depth\" needs the number of cores per rank, 1 or more".to_owned(),
                )),
            },
            "none" => Ok(Binding::Unbound),
            other => Err(bad(format!(
                "\"{}\" is not known (list:A:B:..., depth, none, map_cpu:A,B,..., mask_cpu:...)",
                one_line(other)
            ))),
        }
    }

    /// The CPU set of each of `ppn` ranks on `topology`.
    ///
    /// # Errors
    /// The binding has fewer entries than ranks, names a CPU the node lacks or that is offline, or
    /// has more cores than the node.
    pub fn cpus_of_ranks(
        &self,
        topology: &Topology,
        ppn: usize,
    ) -> Result<Vec<CpuSet>, TopologyError> {
        let bad = |why: String| TopologyError::Syntax(format!("CPU binding: {why}"));
        match self {
            Binding::Unbound => Ok(vec![topology.online(); ppn]),
            Binding::Depth(cores) => depth(topology, *cores, ppn).map_err(bad),
            Binding::List(list) => {
                if list.len() < ppn {
                    return Err(bad(format!("{} entries for {ppn} ranks", list.len())));
                }
                for (rank, cpus) in list.iter().enumerate().take(ppn) {
                    // A topology without CPUs (nothing known) cannot refuse any.
                    let missing = cpus.iter().find(|&cpu| topology.place(cpu).is_none());
                    if let (Some(cpu), false) = (missing, topology.sockets.is_empty()) {
                        return Err(bad(format!("rank {rank}: this node has no CPU {cpu}")));
                    }
                    if let Some(cpu) = cpus.and(&topology.offline).first() {
                        return Err(bad(format!("rank {rank}: CPU {cpu} is offline")));
                    }
                }
                Ok(list.iter().take(ppn).cloned().collect())
            }
        }
    }
}

/// Takes off what is copied along with a binding from a job script.
fn strip_pasted(text: &str) -> &str {
    let mut text = text.trim();
    for prefix in ["export ", "--cpu-bind", "--cpu_bind"] {
        text = text
            .strip_prefix(prefix)
            .unwrap_or(text)
            .trim_start_matches(['=', ' ']);
    }
    if let Some((name, value)) = text.split_once('=')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    {
        text = value;
    }
    let text = text.trim().trim_matches(['"', '\'']);
    ["verbose,", "v,", "quiet,", "q,"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(text)
}

fn entries(
    text: &str,
    separator: char,
    parse: impl Fn(&str) -> Result<CpuSet, TopologyError>,
) -> Result<Binding, String> {
    let mut list = Vec::new();
    for (rank, entry) in text.split(separator).enumerate() {
        if rank == PPN_MAX {
            return Err(format!("more than {PPN_MAX} entries"));
        }
        let cpus = parse(entry).map_err(|error| format!("entry {rank}: {error}"))?;
        if cpus.is_empty() {
            return Err(format!("entry {rank} is empty"));
        }
        list.push(cpus);
    }
    Ok(Binding::List(list))
}

/// A hexadecimal mask, the lowest bit for CPU 0.
fn parse_mask(text: &str) -> Result<CpuSet, TopologyError> {
    let digits = text.trim();
    let digits = digits
        .strip_prefix("0x")
        .or(digits.strip_prefix("0X"))
        .unwrap_or(digits);
    let bad = || TopologyError::Syntax(format!("\"{}\" is not a CPU mask", one_line(text)));
    if digits.is_empty() || digits.len() > CPU_MAX / 4 {
        return Err(bad());
    }
    let mut cpus = CpuSet::new();
    for (position, digit) in digits.chars().rev().enumerate() {
        let value = digit.to_digit(16).ok_or_else(bad)?;
        (0..4)
            .filter(|bit| value >> bit & 1 == 1)
            .for_each(|bit| cpus.insert(position * 4 + bit));
    }
    Ok(cpus)
}

/// Blocks of `cores` cores in core order, all their threads, rank by rank.
fn depth(topology: &Topology, cores: usize, ppn: usize) -> Result<Vec<CpuSet>, String> {
    let all: Vec<CpuSet> = topology
        .sockets
        .iter()
        .flat_map(|socket| &socket.cores)
        .map(|core| {
            core.cpus
                .iter()
                .copied()
                .filter(|&cpu| !topology.offline.contains(cpu))
                .collect()
        })
        .filter(|cpus: &CpuSet| !cpus.is_empty())
        .collect();
    if ppn.saturating_mul(cores) > all.len() {
        return Err(format!(
            "{ppn} ranks of {cores} cores need more than {} cores",
            all.len()
        ));
    }
    Ok(all
        .chunks(cores)
        .take(ppn)
        .map(|c| c.iter().flat_map(CpuSet::iter).collect())
        .collect())
}

/// A binding in the words of a launcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntaxes {
    /// PALS, which starts MPICH jobs on Aurora: `--cpu-bind list:...`.
    pub pals: String,
    /// MPICH's own Hydra: `-bind-to user:...`.
    pub hydra: String,
    /// Open MPI: `--cpu-set ... --bind-to cpu-list:ordered`, or where that cannot say it
    /// `--rankfile FILE` with [`Syntaxes::openmpi_rankfile`].
    pub openmpi: String,
    /// Content of the rank file for one node called `localhost`, if one is needed.
    pub openmpi_rankfile: Option<String>,
    /// Slurm: `--cpu-bind=map_cpu:...`, or `mask_cpu:...` for more than one CPU per rank.
    pub slurm: String,
}

impl Syntaxes {
    /// Writes down `bindings`, one set per local rank, for `topology`.
    #[must_use]
    pub fn of(topology: &Topology, bindings: &[CpuSet]) -> Syntaxes {
        let join = |separator: &str, each: &dyn Fn(&CpuSet) -> String| {
            bindings
                .iter()
                .map(each)
                .collect::<Vec<_>>()
                .join(separator)
        };
        let commas = join(",", &CpuSet::to_string);
        let single = bindings.iter().all(|cpus| cpus.len() == 1);
        let slurm = match single {
            true => format!("--cpu-bind=map_cpu:{commas}"),
            false => format!("--cpu-bind=mask_cpu:{}", join(",", &mask)),
        };
        let hydra = join(",", &|cpus| {
            cpus.iter()
                .map(|cpu| cpu.to_string())
                .collect::<Vec<_>>()
                .join("+")
        });
        let (openmpi, openmpi_rankfile) = match single && open_mpi_set_suffices(topology, bindings)
        {
            true => (
                format!("--cpu-set {commas} --bind-to cpu-list:ordered"),
                None,
            ),
            false => (
                "--mca rmaps_rank_file_physical 1 --rankfile FILE".to_owned(),
                Some(rankfile(bindings)),
            ),
        };
        Syntaxes {
            pals: format!("--cpu-bind list:{}", join(":", &CpuSet::to_string)),
            hydra: format!("-bind-to user:{hydra}"),
            openmpi,
            openmpi_rankfile,
            slurm,
        }
    }
}

/// `--cpu-set` sorts its CPUs and counts cores, not hardware threads: it says the list only if that
/// ascends and names first threads.
fn open_mpi_set_suffices(topology: &Topology, bindings: &[CpuSet]) -> bool {
    let firsts: Vec<usize> = bindings.iter().filter_map(CpuSet::first).collect();
    firsts.is_sorted_by(|a, b| a < b)
        && firsts
            .iter()
            .all(|&cpu| topology.place(cpu).is_none_or(|place| place.thread == 0))
}

fn rankfile(bindings: &[CpuSet]) -> String {
    let line = |(rank, cpus): (usize, &CpuSet)| format!("rank {rank}=localhost slot={cpus}\n");
    bindings.iter().enumerate().map(line).collect()
}

fn mask(cpus: &CpuSet) -> String {
    let last = cpus.iter().last().unwrap_or(0);
    let digit = |position: usize| {
        let value = (0..4)
            .filter(|bit| cpus.contains(position * 4 + bit))
            .fold(0, |v, b| v | 1 << b);
        char::from_digit(value, 16).unwrap_or('0')
    };
    let digits: String = (0..=last / 4).rev().map(digit).collect();
    format!("0x{digits}")
}

#[cfg(test)]
mod tests;
