//! What can go wrong around pools, each with the thing it is about and the cure.

use crate::EngineError;
use core::fmt;
use daos_types::{Der, format_base10};
use std::path::{Path, PathBuf};
use sys::Errno;

/// An error of the system directory, the pool registry or the attach rules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SystemError {
    /// A system call failed on a path.
    Io {
        /// What was being done, for example `open`.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The error.
        errno: Errno,
    },
    /// The system root is not an absolute path.
    RelativeRoot(PathBuf),
    /// A directory belongs to somebody else.
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who asks.
        caller: u32,
    },
    /// A directory can be written by others.
    OpenToOthers(PathBuf),
    /// A path lies on a file system without working shared mappings and locks.
    NetworkFileSystem {
        /// The path.
        path: PathBuf,
        /// Name of the file system.
        name: &'static str,
    },
    /// No pool of this label or UUID.
    NoPool {
        /// As the user named it.
        name: String,
        /// The system root that was searched.
        root: PathBuf,
    },
    /// The label is taken.
    LabelTaken(String),
    /// The pool has no size.
    ZeroSize,
    /// The pool is smaller than its ranks need.
    TooSmall {
        /// Bytes asked for.
        asked: u64,
        /// Bytes needed at least.
        needed: u64,
        /// Ranks.
        ranks: u16,
    },
    /// The pool does not fit the device.
    BeyondDevice {
        /// Bytes asked for on this device.
        asked: u64,
        /// Bytes free there.
        free: u64,
        /// A path on the device.
        path: PathBuf,
    },
    /// A rank would be larger than the format allows.
    RankTooLarge {
        /// Bytes of one rank.
        asked: u64,
        /// Bytes one rank can have.
        limit: u64,
    },
    /// A number outside its limits.
    OutOfRange {
        /// What it counts, for example `ranks`.
        what: &'static str,
        /// The number.
        asked: u64,
        /// Largest number allowed.
        limit: u64,
    },
    /// A pool map written by newer software.
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format understood here.
        known: u32,
    },
    /// A file that does not read as what it should be.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// Too few ranks have a readable pool map.
    NoMajority {
        /// The pool.
        pool: String,
        /// Readable and agreeing copies.
        found: usize,
        /// Copies needed.
        needed: usize,
        /// A directory that is missing or damaged.
        missing: PathBuf,
    },
    /// Processes are attached.
    Attached {
        /// The pool.
        pool: String,
        /// One of them (as numbered where it runs).
        process: u32,
    },
    /// Processes are attached whose shared memory this process cannot see.
    OtherRuntime {
        /// The pool directory.
        path: PathBuf,
        /// The shared memory they use.
        arena: PathBuf,
        /// One of them.
        process: u32,
    },
    /// Processes are attached, and the file that says through which shared memory is damaged.
    AttachDamaged {
        /// The file.
        path: PathBuf,
        /// One of them.
        process: u32,
    },
    /// A rank belongs to another directory of the pool than the one it is used through.
    OtherHome {
        /// The rank.
        rank: PathBuf,
        /// The directory it belongs to.
        home: PathBuf,
    },
    /// A rank is in use through a directory that is not visible here.
    RankInUse {
        /// The rank.
        rank: PathBuf,
        /// A process that uses it.
        process: u32,
    },
    /// The engine refused.
    Engine(EngineError),
}

impl From<EngineError> for SystemError {
    fn from(error: EngineError) -> SystemError {
        SystemError::Engine(error)
    }
}

impl EngineError {
    /// The DAOS error number.
    pub fn der(&self) -> Der {
        match self {
            EngineError::System { errno, .. } => Der::from_errno(errno.code()),
            EngineError::Corrupt(_) => Der::Io,
            EngineError::Invalid(_) => Der::Inval,
            EngineError::NotFound(_) => Der::NonExist,
            EngineError::Exists(_) => Der::Exist,
            EngineError::Busy(_) => Der::Busy,
            EngineError::Lacking(_) => Der::Rf,
        }
    }
}

impl SystemError {
    pub(crate) fn io(doing: &'static str, path: &Path, errno: Errno) -> SystemError {
        SystemError::Io {
            doing,
            path: path.to_owned(),
            errno,
        }
    }

    pub(crate) fn std(doing: &'static str, path: &Path, error: &std::io::Error) -> SystemError {
        SystemError::io(doing, path, Errno::new(error.raw_os_error().unwrap_or(5)))
    }

    /// The DAOS error number.
    pub fn der(&self) -> Der {
        match self {
            SystemError::Io { errno, .. } => Der::from_errno(errno.code()),
            SystemError::RelativeRoot(_)
            | SystemError::ZeroSize
            | SystemError::TooSmall { .. }
            | SystemError::RankTooLarge { .. }
            | SystemError::OutOfRange { .. } => Der::Inval,
            SystemError::ForeignOwner { .. } | SystemError::OpenToOthers(_) => Der::NoPerm,
            SystemError::NetworkFileSystem { .. } => Der::NotSupported,
            SystemError::NoPool { .. } => Der::NonExist,
            SystemError::LabelTaken(_) => Der::Exist,
            SystemError::BeyondDevice { .. } => Der::NoSpace,
            SystemError::NewerFormat { .. } => Der::DfIncompt,
            SystemError::Damaged { .. } | SystemError::NoMajority { .. } => Der::Io,
            SystemError::Attached { .. }
            | SystemError::OtherRuntime { .. }
            | SystemError::AttachDamaged { .. }
            | SystemError::OtherHome { .. }
            | SystemError::RankInUse { .. } => Der::Busy,
            SystemError::Engine(error) => error.der(),
        }
    }

    /// The Linux error number a host program sees.
    pub fn errno(&self) -> Errno {
        match self {
            SystemError::Io { errno, .. } => *errno,
            SystemError::Engine(error) => error.errno(),
            other => Errno::new(other.der().errno()),
        }
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SystemError::Io { doing, path, errno } => {
                write!(f, "cannot {doing} {}: {errno}", path.display())
            }
            SystemError::RelativeRoot(path) => write!(
                f,
                "system root {} is not an absolute path; set DAOS_EMBEDDED_ROOT to one",
                path.display()
            ),
            SystemError::ForeignOwner {
                path,
                owner,
                caller,
            } => write!(
                f,
                "{} belongs to uid {owner}, not to uid {caller}; set DAOS_EMBEDDED_ROOT to a \
                 directory of your own, or have the owner mount it with dfuse",
                path.display()
            ),
            SystemError::OpenToOthers(path) => write!(
                f,
                "{} can be written by others; chmod it to 0700 or set DAOS_EMBEDDED_ROOT to a \
                 directory of your own",
                path.display()
            ),
            SystemError::NetworkFileSystem { path, name } => write!(
                f,
                "{} lies on {name}; pools need a local file system (ext4, XFS, tmpfs): set \
                 DAOS_EMBEDDED_ROOT or --rank-path to a local directory",
                path.display()
            ),
            SystemError::NoPool { name, root } => write!(
                f,
                "no pool {name} in system root {}; see: daos pool list, or set DAOS_EMBEDDED_ROOT",
                root.display()
            ),
            SystemError::LabelTaken(label) => write!(
                f,
                "pool label {label:?} already exists in the system; use another label, or \
                 destroy the old pool: dmg pool destroy {label}"
            ),
            SystemError::ZeroSize => f.write_str("pool size is 0; give a size such as --size=4GiB"),
            SystemError::TooSmall {
                asked,
                needed,
                ranks,
            } => write!(
                f,
                "pool size {asked} bytes is too small for {ranks} ranks: at least {needed} bytes \
                 ({}); raise --size or lower --nranks",
                format_base10(*needed)
            ),
            SystemError::BeyondDevice { asked, free, path } => write!(
                f,
                "pool needs {asked} bytes ({}) on the device of {}, which has {free} bytes ({}) \
                 free; lower --size or use --rank-path on a larger device",
                format_base10(*asked),
                path.display(),
                format_base10(*free)
            ),
            SystemError::RankTooLarge { asked, limit } => write!(
                f,
                "a rank of {asked} bytes exceeds the limit of {limit} bytes ({}); raise --nranks",
                format_base10(*limit)
            ),
            SystemError::OutOfRange { what, asked, limit } => {
                write!(f, "{asked} {what}: must be 1 to {limit}")
            }
            SystemError::NewerFormat { path, found, known } => write!(
                f,
                "{} has pool map format {found}, newer than {known}, the newest this software \
                 reads; use the software that created the pool",
                path.display()
            ),
            SystemError::Damaged { path, why } => write!(f, "{} is damaged: {why}", path.display()),
            SystemError::NoMajority {
                pool,
                found,
                needed,
                missing,
            } => write!(
                f,
                "pool {pool}: {found} agreeing copies of the pool map, {needed} needed; restore \
                 the rank directories (for example {})",
                missing.display()
            ),
            SystemError::Attached { pool, process } => write!(
                f,
                "pool {pool} is in use by process {process} or its children; end it, or use --force"
            ),
            SystemError::OtherRuntime {
                path,
                arena,
                process,
            } => write!(
                f,
                "{} is attached by process {process} through shared memory {} that is not visible \
                 here; end that process, or run with the same /dev/shm (the same container)",
                path.display(),
                arena.display()
            ),
            SystemError::AttachDamaged { path, process } => write!(
                f,
                "{} is damaged and does not say which shared memory process {process} uses; end that \
                 process, and try again",
                path.display()
            ),
            SystemError::OtherHome { rank, home } => write!(
                f,
                "{} belongs to the pool directory {}, of which this is a copy; use that one \
                 (DAOS_EMBEDDED_ROOT={}), or remove it to give its ranks to the copy",
                rank.display(),
                home.display(),
                home.parent()
                    .and_then(Path::parent)
                    .unwrap_or(home)
                    .display()
            ),
            SystemError::RankInUse { rank, process } => write!(
                f,
                "{} is in use by process {process} through a pool directory that is not visible here; \
                 end that process, and try again",
                rank.display()
            ),
            SystemError::Engine(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SystemError {}
