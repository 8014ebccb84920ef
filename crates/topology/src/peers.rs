//! The processes of a job on this node: who they are and which interface each has taken.
//!
//! A text file per user and job in `/dev/shm`, a line per process, under flock. A line counts as
//! long as its process lives (process number and start time). Lines that do not parse are dropped,
//! so a writer killed in the middle costs one entry at most. Waiting for the lock is bounded:
//! a stopped process cannot hold up the others, they then choose without knowing their peers.
//!
//! A process joins early (cheap) and chooses late, just before libdaos starts. In an MPI job all
//! ranks have joined by then, and every rank's choice is its entry of the plan.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::cpuset::CpuSet;
use crate::error::TopologyError;
use crate::launcher::LocalRank;
use crate::model::Topology;
use crate::plan::{Choice, Peer, Policy, Process, choose};
use crate::process::Stat;
use crate::recorded::is_interface_name;
use crate::store;

const MAGIC: &str = "daos-nic 2";
const PREFIX: &str = "daos-nic-";
/// Longer than a holder may wait for a processor that many processes want.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(3);
/// Limit where the lock goes round among other processes: hundreds of ranks on few CPUs.
const LOCK_QUEUE_MAX: Duration = Duration::from_secs(30);
/// First pause between attempts; each is twice the one before, up to the second value, or hundreds
/// of waiting ranks would take the time from the one that holds the lock.
const LOCK_PAUSE: Duration = Duration::from_micros(200);
const LOCK_PAUSE_MAX: Duration = Duration::from_millis(10);
/// Files of finished jobs looked at when a new job's file is made.
const SWEEP_MAX: usize = 64;
/// From then on a file of another PID namespace is taken to be of a finished job.
const ELSEWHERE_AGE_MAX: Duration = Duration::from_hours(24);
/// Lines read; more is taken for damage.
const MEMBERS_MAX: usize = 16384;

/// The shared file of a job's processes on this node.
#[derive(Clone, Debug)]
pub struct Registry {
    dir: PathBuf,
    path: PathBuf,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    pid: i32,
    start_ticks: u64,
    peer: Peer,
}

impl Registry {
    /// The registry of `job` (see [`crate::launcher::Identity::job`]) in `dir`. Processes without a
    /// job share one per user.
    #[must_use]
    pub fn new(dir: &Path, job: Option<&str>) -> Registry {
        // Process numbers mean nothing in another PID namespace.
        let key = store::fnv64(&[
            job.unwrap_or("").as_bytes(),
            store::namespace("pid").as_bytes(),
        ]);
        let path = dir.join(format!("{PREFIX}{}-{key:016x}", store::uid()));
        Registry {
            dir: dir.to_owned(),
            path,
        }
    }

    /// Makes this process known. Returns the number of live processes of the job on this node, this
    /// one included.
    ///
    /// # Errors
    /// The file cannot be used, or its lock was not to be had in time.
    pub fn join(&self, me: &Process) -> Result<usize, TopologyError> {
        self.update(|own, members| {
            // A wrapper script joined with the same rank: the program it started replaces it.
            members.retain(|m| m.peer.nic.is_some() || !same_rank(&m.peer.process, me));
            let known = own.and_then(|own| own.peer.nic);
            let count = members.len() + 1;
            (
                Some(Peer {
                    process: me.clone(),
                    nic: known,
                }),
                count,
            )
        })
    }

    /// Chooses with the peers known now and records the choice.
    ///
    /// # Errors
    /// As [`Registry::join`].
    pub fn choose(
        &self,
        topology: &Topology,
        me: &Process,
        policy: Policy,
    ) -> Result<Choice, TopologyError> {
        self.update(|_, members| {
            members.retain(|m| m.peer.nic.is_some() || !same_rank(&m.peer.process, me));
            let mut me = me.clone();
            if members.iter().any(|m| same_rank(&m.peer.process, &me)) {
                // A forked child, or another job under the same name: it counts as one more process.
                me.local = None;
            }
            let peers: Vec<Peer> = members.iter().map(|m| m.peer.clone()).collect();
            let choice = choose(topology, &me, &peers, policy);
            let nic = choice
                .nic
                .and_then(|nic| topology.nics.get(nic))
                .map(|nic| nic.name.clone());
            (Some(Peer { process: me, nic }), choice)
        })
    }

    /// Records an interface that was not chosen here: the one the user named.
    ///
    /// # Errors
    /// As [`Registry::join`].
    pub fn record(&self, me: &Process, nic: &str) -> Result<(), TopologyError> {
        let nic = Some(nic.to_owned()).filter(|nic| is_interface_name(nic));
        let process = me.clone();
        self.update(|_, _| (Some(Peer { process, nic }), ()))
    }

    /// Removes this process.
    ///
    /// # Errors
    /// As [`Registry::join`].
    pub fn leave(&self) -> Result<(), TopologyError> {
        self.update(|_, _| (None, ()))
    }

    /// The live processes of the job on this node, this one included. Reads without the lock: a
    /// change being written may be missed.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn peers(&self) -> Result<Vec<Peer>, TopologyError> {
        let mut members = self.read()?;
        members.retain(Member::is_alive);
        Ok(members.into_iter().map(|member| member.peer).collect())
    }

    /// How many of the job's `size` ranks on this node are not there.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn absent(&self, size: usize) -> Result<usize, TopologyError> {
        let mut members = self.read()?;
        // Most calls find too few lines: whether their processes live is then of no interest.
        let present = match ranks(&members) {
            present if present < size => present,
            _ => {
                members.retain(Member::is_alive);
                ranks(&members)
            }
        };
        Ok(size.saturating_sub(present))
    }

    /// How many ranks have joined and not yet chosen; 0 if none of these lives.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn undecided(&self) -> Result<usize, TopologyError> {
        let mut members = self.read()?;
        members.retain(|m| m.peer.process.local.is_some() && m.peer.nic.is_none());
        // All are waited for: whether the others live is of no interest while one does.
        match members.iter().any(Member::is_alive) {
            true => Ok(members.len()),
            false => Ok(0),
        }
    }

    fn read(&self) -> Result<Vec<Member>, TopologyError> {
        let error = |e: Errno| TopologyError::io(self.path.display(), e);
        let file = store::open(&self.path, OFlags::RDONLY)?;
        let bytes = store::read_all(&file).map_err(error)?;
        let mut members = parse(&bytes, &Era::now());
        // Half of a change may show a line at its old and its new place.
        members.sort_by_key(|member| member.pid);
        members.dedup_by_key(|member| member.pid);
        Ok(members)
    }

    /// Runs `change` on the other live members, with this process's own entry beside them, and
    /// writes back what it leaves and returns.
    fn update<T>(
        &self,
        change: impl FnOnce(Option<Member>, &mut Vec<Member>) -> (Option<Peer>, T),
    ) -> Result<T, TopologyError> {
        let error = |e: Errno| TopologyError::io(self.path.display(), e);
        let file = self.locked()?;
        let era = Era::now();
        let bytes = store::read_all(&file).map_err(error)?;
        let mut members = parse(&bytes, &era);
        let pid = rustix::process::getpid();
        let start_ticks = Stat::of(pid).map_or(0, |stat| stat.start_ticks);
        members.retain(Member::is_alive);
        let own = members
            .iter()
            .position(|m| m.pid == pid.as_raw_pid() && m.start_ticks == start_ticks)
            .map(|position| members.swap_remove(position));
        let (peer, answer) = change(own, &mut members);
        members.extend(peer.map(|peer| Member {
            pid: pid.as_raw_pid(),
            start_ticks,
            peer,
        }));
        let mut text = era.header();
        text.push('\n');
        members
            .iter()
            .for_each(|member| text.push_str(&member.line()));
        store::write_all(&file, text.as_bytes()).map_err(error)?;
        if bytes.is_empty() {
            self.sweep(&era);
        }
        Ok(answer)
    }

    /// The file, open and locked.
    fn locked(&self) -> Result<OwnedFd, TopologyError> {
        let error = |e: Errno| TopologyError::io(self.path.display(), e);
        let end = Instant::now() + LOCK_QUEUE_MAX;
        loop {
            let file = store::open(&self.path, OFlags::RDWR | OFlags::CREATE)?;
            wait_for_lock(&file, end).map_err(error)?;
            // Removed by a sweep between open and lock: make it again.
            if rustix::fs::fstat(&file).map_err(error)?.st_nlink > 0 {
                return Ok(file);
            }
        }
    }

    /// Removes files of this user's finished jobs. Whether one of another PID namespace, a container's,
    /// is finished cannot be seen: it is taken to be after a day.
    fn sweep(&self, era: &Era) {
        let prefix = format!("{PREFIX}{}-", store::uid());
        let Ok(entries) = std::fs::read_dir(&self.dir) else {
            return;
        };
        let others = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().and_then(|name| name.to_str());
                *path != self.path && name.is_some_and(|name| name.starts_with(&prefix))
            })
            .take(SWEEP_MAX);
        for path in others {
            let Ok(file) = store::open(&path, OFlags::RDWR) else {
                continue;
            };
            let lock = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
            let Ok(bytes) = store::read_all(&file) else {
                continue;
            };
            let finished = match era.is_elsewhere(&bytes) {
                true => is_older(&file, ELSEWHERE_AGE_MAX),
                false => !parse(&bytes, era).iter().any(Member::is_alive),
            };
            if lock.is_ok() && !bytes.is_empty() && finished {
                // Failing to remove it leaves it for the next sweep.
                let _removed = std::fs::remove_file(&path).is_ok();
            }
        }
    }
}

/// Waits for the lock until `end`, and for [`LOCK_WAIT_MAX`] at most while nobody else gets it
/// either: then its holder is stopped.
fn wait_for_lock(file: &OwnedFd, end: Instant) -> Result<(), Errno> {
    let written = || rustix::fs::fstat(file).map(|stat| (stat.st_mtime, stat.st_mtime_nsec));
    let (mut seen, mut deadline) = (written()?, Instant::now() + LOCK_WAIT_MAX);
    let mut pause = LOCK_PAUSE;
    while let Err(e) = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        let now = Instant::now();
        if !matches!(e, Errno::WOULDBLOCK | Errno::INTR) || now >= end {
            return Err(e);
        }
        if now >= deadline {
            let latest = written()?;
            if latest == seen {
                return Err(e);
            }
            (seen, deadline) = (latest, now + LOCK_WAIT_MAX);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LOCK_PAUSE_MAX);
    }
    Ok(())
}

/// Number of different ranks.
fn ranks(members: &[Member]) -> usize {
    let ranks = members
        .iter()
        .filter_map(|m| Some(m.peer.process.local?.rank));
    ranks.collect::<BTreeSet<usize>>().len()
}

fn same_rank(a: &Process, b: &Process) -> bool {
    a.local.is_some() && a.local.map(|local| local.rank) == b.local.map(|local| local.rank)
}

/// Where and when process numbers mean what a file says.
struct Era {
    boot: String,
    namespace: String,
}

impl Era {
    fn now() -> Era {
        Era {
            boot: store::boot_id(),
            namespace: store::namespace("pid"),
        }
    }

    /// The first line of a file.
    fn header(&self) -> String {
        format!("{MAGIC} {} {}", self.boot, self.namespace)
    }

    /// Whether a file is of this boot, but of another PID namespace.
    fn is_elsewhere(&self, bytes: &[u8]) -> bool {
        let this_boot = format!("{MAGIC} {} ", self.boot);
        let namespace = bytes
            .strip_prefix(this_boot.as_bytes())
            .and_then(|rest| rest.split(|&byte| byte == b'\n').next());
        namespace.is_some_and(|namespace| namespace != self.namespace.as_bytes())
    }
}

/// Whether nothing was written to `file` for `age`.
fn is_older(file: &OwnedFd, age: Duration) -> bool {
    let written = rustix::fs::fstat(file)
        .ok()
        .and_then(|stat| u64::try_from(stat.st_mtime).ok());
    written.is_some_and(|seconds| {
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        SystemTime::now()
            .duration_since(written)
            .is_ok_and(|passed| passed > age)
    })
}

/// The lines of a file of this boot and namespace; anything else is no member.
fn parse(bytes: &[u8], era: &Era) -> Vec<Member> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Vec::new();
    };
    let mut lines = text.lines();
    if lines.next() != Some(era.header().as_str()) {
        return Vec::new();
    }
    lines.take(MEMBERS_MAX).filter_map(Member::parse).collect()
}

impl Member {
    fn line(&self) -> String {
        let Peer { process, nic } = &self.peer;
        let local = process
            .local
            .map_or("- -".to_owned(), |l| format!("{} {}", l.rank, l.size));
        let nic = nic.as_deref().unwrap_or("-");
        format!(
            "{} {} {local} {nic} {} .\n",
            self.pid, self.start_ticks, process.cpus
        )
    }

    /// The final dot shows that the line is whole.
    fn parse(line: &str) -> Option<Member> {
        let fields: Vec<&str> = line.split(' ').collect();
        let [pid, start_ticks, rank, size, nic, cpus, "."] = fields.as_slice() else {
            return None;
        };
        let local = match (*rank, *size) {
            ("-", "-") => None,
            (rank, size) => Some(LocalRank::new(rank.parse().ok()?, size.parse().ok()?)?),
        };
        let nic = match *nic {
            "-" => None,
            name => Some(name.to_owned()).filter(|name| is_interface_name(name)),
        };
        let process = Process {
            cpus: CpuSet::parse(cpus).ok()?,
            local,
            current_cpu: None,
        };
        Some(Member {
            pid: pid.parse().ok().filter(|&pid| pid > 0)?,
            start_ticks: start_ticks.parse().ok()?,
            peer: Peer { process, nic },
        })
    }

    fn is_alive(&self) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return false;
        };
        // Another user's process is not one that wrote into our file. Where /proc does not say, the
        // process number must do.
        rustix::process::test_kill_process(pid).is_ok()
            && Stat::of(pid)
                .is_none_or(|stat| !stat.is_dead && stat.start_ticks == self.start_ticks)
    }
}
