//! Local rank, local size and node count from the launcher's environment variables.
//!
//! Variables are inherited: a batch shell, an outer `mpiexec` or a wrapper may have left some that
//! do not speak about this process. So a launcher is believed only if its rank is below its size;
//! one that says "the only rank here" gives way to one that says more; MPI launchers go before
//! resource managers; and two that still contradict each other are both ignored, with the reason.

use std::fmt;

use crate::error::one_line;

/// Reads an environment variable.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// More ranks on one node than this is taken for a damaged variable.
pub const LOCAL_SIZE_MAX: usize = 65536;

/// The programs whose variables are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Launcher {
    /// HPE PALS (`mpiexec` on Aurora).
    Pals,
    /// Cray PMI.
    CrayPmi,
    /// MPICH's Hydra, Intel MPI.
    Hydra,
    /// Open MPI.
    OpenMpi,
    /// MVAPICH2.
    Mvapich2,
    /// Slurm's `srun`.
    Slurm,
    /// Flux.
    Flux,
    /// IBM's `jsrun`.
    Jsrun,
    /// PyTorch's `torchrun`.
    Torchrun,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Launcher::Pals => "PALS",
            Launcher::CrayPmi => "Cray PMI",
            Launcher::Hydra => "MPICH Hydra",
            Launcher::OpenMpi => "Open MPI",
            Launcher::Mvapich2 => "MVAPICH2",
            Launcher::Slurm => "Slurm",
            Launcher::Flux => "Flux",
            Launcher::Jsrun => "jsrun",
            Launcher::Torchrun => "torchrun",
        })
    }
}

/// This process's place among the ranks of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalRank {
    /// From 0, below `size`.
    pub rank: usize,
    /// Ranks on this node.
    pub size: usize,
}

impl LocalRank {
    /// `rank` of `size`, if that is possible.
    #[must_use]
    pub fn new(rank: usize, size: usize) -> Option<LocalRank> {
        (rank < size && size <= LOCAL_SIZE_MAX).then_some(LocalRank { rank, size })
    }
}

/// What the environment says about this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The launcher that was believed.
    pub launcher: Option<Launcher>,
    /// Local rank and size.
    pub local: Option<LocalRank>,
    /// Nodes of the job, where known.
    pub nodes: Option<usize>,
    /// Names the job step on this node: launcher and its number.
    pub job: Option<String>,
    /// What was ignored and why, a line each.
    pub notes: Vec<String>,
}

/// Variables of one launcher, each list in order of preference.
struct Names {
    launcher: Launcher,
    rank: &'static str,
    size: &'static [&'static str],
    /// Variables that hold the number of nodes.
    nodes: &'static [&'static str],
    /// Rank and size in the whole job; the size gives the number of nodes where nothing else does.
    global: Option<(&'static str, &'static str)>,
    job: &'static [&'static str],
}

/// MPI launchers, then resource managers and generic names; first hit wins inside each group.
const LAUNCHERS: &[Names] = &[
    Names {
        launcher: Launcher::Pals,
        rank: "PALS_LOCAL_RANKID",
        size: &["PALS_LOCAL_SIZE"],
        nodes: &[],
        global: Some(("PMI_RANK", "PMI_SIZE")),
        job: &["PALS_APID"],
    },
    Names {
        launcher: Launcher::CrayPmi,
        rank: "PMI_LOCAL_RANK",
        size: &["PMI_LOCAL_SIZE"],
        nodes: &[],
        global: Some(("PMI_RANK", "PMI_SIZE")),
        job: &["PMI_JOBID"],
    },
    Names {
        launcher: Launcher::Hydra,
        rank: "MPI_LOCALRANKID",
        size: &["MPI_LOCALNRANKS"],
        nodes: &[],
        global: Some(("PMI_RANK", "PMI_SIZE")),
        job: &[],
    },
    Names {
        launcher: Launcher::OpenMpi,
        rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        size: &["OMPI_COMM_WORLD_LOCAL_SIZE"],
        nodes: &[],
        global: Some(("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")),
        job: &["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"],
    },
    Names {
        launcher: Launcher::Mvapich2,
        rank: "MV2_COMM_WORLD_LOCAL_RANK",
        size: &["MV2_COMM_WORLD_LOCAL_SIZE"],
        nodes: &[],
        global: Some(("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE")),
        job: &[],
    },
    Names {
        launcher: Launcher::Slurm,
        rank: "SLURM_LOCALID",
        size: &[
            "SLURM_STEP_TASKS_PER_NODE",
            "SLURM_TASKS_PER_NODE",
            "SLURM_NTASKS_PER_NODE",
        ],
        nodes: &[
            "SLURM_STEP_NUM_NODES",
            "SLURM_NNODES",
            "SLURM_JOB_NUM_NODES",
        ],
        global: Some(("SLURM_PROCID", "SLURM_NTASKS")),
        job: &["SLURM_JOB_ID", "SLURM_JOBID"],
    },
    Names {
        launcher: Launcher::Flux,
        rank: "FLUX_TASK_LOCAL_ID",
        size: &[],
        nodes: &["FLUX_JOB_NNODES"],
        global: Some(("FLUX_TASK_RANK", "FLUX_JOB_SIZE")),
        job: &["FLUX_JOB_ID"],
    },
    Names {
        launcher: Launcher::Jsrun,
        rank: "JSM_NAMESPACE_LOCAL_RANK",
        size: &["JSM_NAMESPACE_LOCAL_SIZE"],
        nodes: &[],
        global: Some(("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE")),
        job: &["LSB_JOBID"],
    },
    Names {
        launcher: Launcher::Torchrun,
        rank: "LOCAL_RANK",
        size: &["LOCAL_WORLD_SIZE"],
        nodes: &["GROUP_WORLD_SIZE"],
        global: Some(("RANK", "WORLD_SIZE")),
        job: &["TORCHELASTIC_RUN_ID"],
    },
];

impl Launcher {
    /// Sets every variable anew for its own ranks, while a resource manager's may be left over from
    /// the batch shell that called an MPI launcher.
    fn is_mpi(self) -> bool {
        use Launcher::{CrayPmi, Hydra, Mvapich2, OpenMpi, Pals};
        matches!(self, Pals | CrayPmi | Hydra | OpenMpi | Mvapich2)
    }
}

/// Finds this process's local rank, local size and node count.
#[must_use]
pub fn local_identity(variable: &Lookup<'_>) -> Identity {
    let mut notes = Vec::new();
    let mut heard = Vec::new();
    for names in LAUNCHERS {
        match names.read(variable) {
            Ok(Some(found)) => heard.push((names, found)),
            Ok(None) => {}
            Err(why) => notes.push(why),
        }
    }
    let chosen = settle(heard, &mut notes);
    let mut identity = Identity {
        notes,
        ..Identity::default()
    };
    if let Some((names, local)) = chosen {
        identity.launcher = Some(names.launcher);
        identity.local = Some(local);
        identity.nodes = names.nodes(variable, local.size);
        identity.job = names.job(variable);
    }
    identity
}

/// Picks the launcher to believe among those that make sense by themselves.
fn settle<'a>(
    mut heard: Vec<(&'a Names, LocalRank)>,
    notes: &mut Vec<String>,
) -> Option<(&'a Names, LocalRank)> {
    if heard.iter().any(|(names, _)| names.launcher.is_mpi()) {
        heard.retain(|(names, _)| names.launcher.is_mpi());
    }
    if heard.iter().any(|(_, local)| local.size > 1) {
        heard.retain(|(_, local)| local.size > 1);
    }
    let &(first, said) = heard.first()?;
    if let Some((other, differs)) = heard.iter().find(|(_, local)| *local != said) {
        notes.push(format!(
            "contradictory rank variables ignored: {} says {} of {}, {} says {} of {}",
            first.launcher, said.rank, said.size, other.launcher, differs.rank, differs.size,
        ));
        return None;
    }
    Some((first, said))
}

impl Names {
    /// The local rank this launcher tells; `None` if it did not start this process.
    fn read(&self, variable: &Lookup<'_>) -> Result<Option<LocalRank>, String> {
        let Some(text) = variable(self.rank) else {
            return Ok(None);
        };
        let ignored = |why: &str| Err(format!("{} ignored: {why}", self.launcher));
        let Ok(rank) = text.trim().parse::<usize>() else {
            return ignored(&format!(
                "{}=\"{}\" is not a rank",
                self.rank,
                one_line(&text)
            ));
        };
        let size = match self.size(variable) {
            Ok(Some(size)) => size,
            Ok(None) => return ignored("the number of ranks on this node is not given"),
            Err(why) => return ignored(&why),
        };
        if let Some((rank_name, size_name)) = self.global {
            let number = |name| variable(name).and_then(|text| text.trim().parse::<usize>().ok());
            if let (Some(global), Some(total)) = (number(rank_name), number(size_name))
                && (global >= total || size > total)
            {
                return ignored(&format!(
                    "{rank_name}={global}, {size_name}={total} and {size} ranks here contradict"
                ));
            }
        }
        match LocalRank::new(rank, size) {
            Some(local) => Ok(Some(local)),
            None => ignored(&format!("rank {rank} of {size} on this node is impossible")),
        }
    }

    fn size(&self, variable: &Lookup<'_>) -> Result<Option<usize>, String> {
        for name in self.size {
            let Some(text) = variable(name) else { continue };
            let node = variable("SLURM_NODEID")
                .and_then(|id| id.trim().parse().ok())
                .unwrap_or(0);
            return match tasks_on_node(text.trim(), node) {
                Some(size) => Ok(Some(size)),
                None => Err(format!(
                    "{name}=\"{}\" is not a number of ranks",
                    one_line(&text)
                )),
            };
        }
        if self.launcher == Launcher::Flux {
            // Flux gives totals only; it fills nodes evenly and in order, and where that leaves some
            // over, the first ones get one more.
            let number = |name| variable(name).and_then(|text| text.trim().parse::<usize>().ok());
            if let (Some(total), Some(nodes @ 1..)) =
                (number("FLUX_JOB_SIZE"), number("FLUX_JOB_NNODES"))
            {
                let (least, over) = (total / nodes, total % nodes);
                let local = number(self.rank);
                let first = number("FLUX_TASK_RANK").zip(local);
                let first = first.and_then(|(rank, local)| rank.checked_sub(local));
                let is_larger = first.is_none_or(|first| first < over * (least + 1))
                    // In another order than that: not fewer than there are.
                    || local.is_some_and(|local| local >= least);
                return Ok(Some(least + usize::from(over > 0 && is_larger)));
            }
        }
        Ok(None)
    }

    fn nodes(&self, variable: &Lookup<'_>, local_size: usize) -> Option<usize> {
        let number = |name: &str| variable(name).and_then(|text| text.trim().parse::<usize>().ok());
        let given = self
            .nodes
            .iter()
            .find_map(|name| number(name))
            .filter(|&n| n > 0);
        given.or_else(|| Some(number(self.global?.1)?.div_ceil(local_size)))
    }

    fn job(&self, variable: &Lookup<'_>) -> Option<String> {
        let mut id = self.job.iter().find_map(|name| variable(name))?;
        if self.launcher == Launcher::Slurm
            && let Some(step) = variable("SLURM_STEP_ID").or_else(|| variable("SLURM_STEPID"))
        {
            id = format!("{id}.{step}");
        }
        Some(format!("{}:{}", self.launcher, one_line(&id)))
    }
}

/// Slurm's notation for the ranks of each node, `12(x2),4`: the value for node number `node`. A
/// plain number is the same on every node.
fn tasks_on_node(text: &str, node: usize) -> Option<usize> {
    let mut first_of_part = 0usize;
    let mut answer = None;
    let parts: Vec<&str> = text.split(',').collect();
    for part in &parts {
        let (count, nodes) = match part.split_once("(x") {
            Some((count, nodes)) => (count, nodes.strip_suffix(')')?.parse::<usize>().ok()?),
            None => (*part, 1),
        };
        let count: usize = count.parse().ok()?;
        let end = first_of_part.checked_add(nodes)?;
        if (first_of_part..end).contains(&node) {
            answer = Some(count);
        }
        first_of_part = end;
        if parts.len() == 1 {
            answer = Some(count);
        }
    }
    answer.filter(|&count| count > 0)
}

#[cfg(test)]
mod tests;
