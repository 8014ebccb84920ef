//! A process's way to its interface: identity, topology, peers, choice, hand-over.
//!
//! ```no_run
//! let environment = |name: &str| std::env::var(name).ok();
//! let session = topology::select::Session::start(&environment); // when the library is loaded
//! let selection = session.choose(&environment);                 // just before libdaos starts
//! for (name, value) in &selection.handover.set { /* set it */ }
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cache::{Cache, Source, is_up_now, refresh_states};
use crate::cpuset::CpuSet;
use crate::discover::root_from;
use crate::error::TopologyError;
use crate::handover::{Handover, Names, handover};
use crate::launcher::{Identity, Lookup, local_identity};
use crate::model::Topology;
use crate::peers::Registry;
use crate::plan::{Choice, Policy, Process, choose};
use crate::process::{launcher_daemon, this_process};
use crate::store;

/// Environment variable that names a recorded topology to use instead of this machine.
pub const FILE_VARIABLE: &str = "DAOS_TOPOLOGY_FILE";

/// How long a rank waits for others when none has come lately.
const QUIET_MAX: Duration = Duration::from_secs(1);
/// How long in all.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Pauses between looks grow from the first value to the second: looking takes the time of the ranks
/// that are waited for.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(64);

/// A process that may need an interface later.
#[derive(Clone, Debug)]
pub struct Session {
    /// Rank and launcher.
    pub identity: Identity,
    /// Live processes of the job on this node when this one joined; `None` if they are not known.
    pub joined: Option<usize>,
    registry: Option<Registry>,
    /// CPUs to assume instead of asking the kernel.
    cpus: Option<CpuSet>,
    notes: Vec<String>,
}

/// The outcome.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The node.
    pub topology: Topology,
    /// Where the topology came from; `None` for a recording.
    pub source: Option<Source>,
    /// The interface and the reason.
    pub choice: Choice,
    /// What to set, and warnings for the user.
    pub handover: Handover,
    /// Remarks for the log: what was missing, ignored or odd.
    pub notes: Vec<String>,
}

impl Session {
    /// Makes the process known to the other ranks of its node. Chooses nothing and reads no
    /// topology: launchers, shells and wrapper scripts come here as well.
    #[must_use]
    pub fn start(variable: &Lookup<'_>) -> Session {
        Session::start_in(variable, store::default_dir(variable), None)
    }

    /// The same with another directory for the shared file (`None` for no shared file), and as if
    /// the process were bound to `cpus`: to see what ranks would do elsewhere.
    #[must_use]
    pub fn start_in(variable: &Lookup<'_>, dir: Option<PathBuf>, cpus: Option<CpuSet>) -> Session {
        let identity = local_identity(variable);
        let job = identity.job.clone().or_else(|| {
            // Only ranks have a launcher; for others there is nothing to find.
            identity.local.and_then(|_| launcher_daemon())
        });
        let registry = dir.map(|dir| Registry::new(&dir, job.as_deref()));
        let notes = identity.notes.clone();
        let mut session = Session {
            identity,
            joined: None,
            registry,
            cpus,
            notes,
        };
        let me = session.process();
        session.joined = match &session.registry {
            Some(registry) => noted(registry.join(&me), &mut session.notes),
            None => {
                let note = "no directory for shared files: other ranks not known";
                session.notes.push(note.to_owned());
                None
            }
        };
        session
    }

    fn process(&self) -> Process {
        let mut me = this_process(self.identity.local);
        if let Some(cpus) = &self.cpus {
            me.cpus.clone_from(cpus);
        }
        me
    }

    /// Chooses the interface for this process, in the machine's topology (cached in the
    /// standard place), the tree `DAOS_TOPOLOGY_ROOT` or the recording `DAOS_TOPOLOGY_FILE`. Always
    /// answers: without a topology there is no interface, and DAOS decides by itself.
    #[must_use]
    pub fn choose(&self, variable: &Lookup<'_>) -> Selection {
        let mut notes = self.notes.clone();
        let root = root_from(variable);
        let (mut topology, source) = match read_topology(&root, variable) {
            Ok((topology, source)) => (topology, source),
            Err(error) => {
                notes.push(error.to_string());
                (Topology::default(), None)
            }
        };
        notes.extend(topology.notes.iter().cloned());
        let (policy, ignored) = Policy::from_env(variable);
        notes.extend(ignored);
        let mut choice = self.decide(&topology, policy, &mut notes);
        let nic = choice.nic.and_then(|nic| topology.nics.get(nic));
        if source == Some(Source::Cached)
            && nic.is_some_and(|nic| !is_up_now(&root, nic))
            && refresh_states(&root, &mut topology).is_ok()
        {
            choice = self.decide(&topology, policy, &mut notes);
        }
        let names = Names::default();
        let handover = handover(&topology, &choice, &self.identity, names, variable);
        if let (true, Some(nic), Some(registry)) =
            (handover.by_user, &handover.interface, &self.registry)
        {
            // Peers that cannot be told plan with the choice recorded before.
            let _told = registry.record(&self.process(), nic).is_ok();
        }
        Selection {
            topology,
            source,
            choice,
            handover,
            notes,
        }
    }

    /// As [`Session::choose`], for a process that starts with its job: waits until the other ranks
    /// of the node have joined, so that all take their entries of one plan, and then until they have
    /// chosen, because a rank that ends is missing from the plan of those that come later. Either
    /// wait ends a second after it last got shorter, and after ten at most.
    #[must_use]
    pub fn choose_together(&self, variable: &Lookup<'_>) -> Selection {
        let shared = self.registry.as_ref().filter(|_| self.joined.is_some());
        let job = shared.zip(self.identity.local.filter(|local| local.size > 1));
        let Some((registry, local)) = job else {
            return self.choose(variable);
        };
        let absent = wait(|| registry.absent(local.size));
        let mut selection = self.choose(variable);
        if absent > 0 {
            let note = "ranks of this node had not joined when this one chose";
            selection
                .notes
                .push(format!("{absent} of {} {note}", local.size));
        }
        // Without an interface there is nothing to count.
        if selection.choice.nic.is_some() {
            let _undecided = wait(|| registry.undecided());
        }
        selection
    }

    fn decide(&self, topology: &Topology, policy: Policy, notes: &mut Vec<String>) -> Choice {
        let me = self.process();
        let shared = self.registry.as_ref();
        let shared = shared.map(|registry| registry.choose(topology, &me, policy));
        shared
            .and_then(|shared| noted(shared, notes))
            .unwrap_or_else(|| choose(topology, &me, &[], policy))
    }

    /// Number of live processes of the job on this node now; `None` if they are not known.
    #[must_use]
    pub fn peer_count(&self) -> Option<usize> {
        Some(self.registry.as_ref()?.peers().ok()?.len())
    }

    /// How many of them have chosen an interface.
    #[must_use]
    pub fn chosen_count(&self) -> Option<usize> {
        let peers = self.registry.as_ref()?.peers().ok()?;
        Some(peers.iter().filter(|peer| peer.nic.is_some()).count())
    }

    /// Gives the place up, for a process that stops using DAOS but goes on. Processes that end need
    /// not call it.
    pub fn leave(&self) {
        // A place that cannot be given up is freed when the process ends.
        let _left = self
            .registry
            .as_ref()
            .is_some_and(|registry| registry.leave().is_ok());
    }
}

/// Waits until `missing` is zero, has not become less for [`QUIET_MAX`], or [`WAIT_MAX`] is over;
/// returns what is left. A registry that cannot be read is not waited for.
fn wait(missing: impl Fn() -> Result<usize, TopologyError>) -> usize {
    let start = Instant::now();
    let (mut least, mut since) = (usize::MAX, start);
    let mut pause = PAUSE_FIRST;
    loop {
        let now = missing().unwrap_or(0);
        if now < least {
            (least, since) = (now, Instant::now());
        }
        if now == 0 || since.elapsed() >= QUIET_MAX || start.elapsed() >= WAIT_MAX {
            return now;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn noted<T>(result: Result<T, TopologyError>, notes: &mut Vec<String>) -> Option<T> {
    result
        .map_err(|error| notes.push(format!("other ranks not known: {error}")))
        .ok()
}

fn read_topology(
    root: &Path,
    variable: &Lookup<'_>,
) -> Result<(Topology, Option<Source>), TopologyError> {
    if let Some(file) = variable(FILE_VARIABLE).filter(|file| !file.is_empty()) {
        return Ok((Topology::load(file.as_ref())?, None));
    }
    // Another root is somebody's own tree, which changes as a machine does not, and may be named
    // relative to a directory.
    let is_machine = root == Path::new("/");
    let (topology, source) = match Cache::standard(variable).filter(|_| is_machine) {
        Some(cache) => cache.topology(root)?,
        None => (Topology::discover(root)?, Source::Discovered),
    };
    Ok((topology, Some(source)))
}

impl Selection {
    /// Lines for `D_IL_REPORT` and the log: the interface, the reason, the loads.
    #[must_use]
    pub fn report(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match (&self.handover.interface, self.handover.by_user) {
            (Some(name), true) => lines.push(format!("NIC {name}: named by the user")),
            (Some(name), false) => lines.push(format!("NIC {name}: {}", self.choice.reason)),
            (None, true) => lines.push("NIC: domain named by the user".to_owned()),
            (None, false) => lines.push(format!("no NIC chosen: {}", self.choice.reason)),
        }
        let loads: Vec<String> = self
            .topology
            .nics
            .iter()
            .zip(&self.choice.loads)
            .filter(|&(_, &load)| load > 0)
            .map(|(nic, load)| format!("{} {load}", nic.name))
            .collect();
        if !loads.is_empty() {
            lines.push(format!(
                "processes per NIC on this node: {}",
                loads.join(", ")
            ));
        }
        lines
    }
}
