//! Chooses the engine behind a mount and opens it: system root, pool, container.
//!
//! Today there is one engine, the embedded one. Runs inside host programs, at the first use of a
//! mount.

use core::fmt;
use daos_types::{ContainerMeta, ContainerType, Ident};

use dfs::Dfs;
use engine::EngineError;
use engine::system::{SystemError, SystemRoot};
use sys::Errno;

/// Why a mount cannot be used: one line that names the thing and the cure.
#[derive(Debug)]
pub enum MountError {
    /// A name is no label and no UUID.
    Name {
        /// `pool` or `container`.
        what: &'static str,
        /// The name as given.
        name: String,
    },
    /// The pool cannot be found or attached.
    System(SystemError),
    /// The pool has no such container.
    NoContainer {
        /// Pool as named by the user.
        pool: String,
        /// Container as named by the user.
        container: String,
    },
    /// The container's record cannot be read, or the pool not be attached.
    Container {
        /// Pool as named by the user.
        pool: String,
        /// What the engine said.
        error: EngineError,
    },
    /// The container has no root directory, so there is nothing to mount.
    NoFiles {
        /// Pool as named by the user.
        pool: String,
        /// Container as named by the user.
        container: String,
        /// Its type.
        kind: ContainerType,
    },
    /// The container's namespace cannot be opened.
    Namespace {
        /// Container as named by the user.
        container: String,
        /// The error.
        errno: Errno,
    },
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MountError::Name { what, name } => {
                write!(
                    f,
                    "'{name}' is no {what} label or UUID: a label has up to 127 of A-Z a-z 0-9 . _ : -"
                )
            }
            MountError::System(error) => write!(f, "{error}"),
            MountError::NoContainer { pool, container } => write!(
                f,
                "no container {container} in pool {pool}; see: daos container list {pool}"
            ),
            MountError::Container { pool, error } => {
                write!(f, "pool {pool}: {error} (see: daos container list {pool})")
            }
            MountError::NoFiles {
                pool,
                container,
                kind: ContainerType::Posix,
            } => write!(
                f,
                "container {container} has no root directory, its creation was cut short; \
                 daos filesystem check {pool} {container} makes one"
            ),
            MountError::NoFiles {
                pool,
                container,
                kind,
            } => write!(
                f,
                "container {container} has type {}, files need type POSIX: \
                 daos container create --type POSIX {pool} NAME",
                kind.name()
            ),
            MountError::Namespace { container, errno } => {
                write!(f, "container {container} cannot be mounted: {errno}")
            }
        }
    }
}

impl std::error::Error for MountError {}

/// The engine behind a mount.
pub enum Backend {
    /// Pools on this machine, served by this process and its neighbours.
    Embedded(Dfs),
}

impl Backend {
    /// Opens a container. `root` is the value of `DAOS_EMBEDDED_ROOT`, if set.
    ///
    /// # Errors
    /// See [`MountError`]; nothing stays attached then but the pool.
    pub fn open(root: Option<&[u8]>, pool: &[u8], container: &[u8]) -> Result<Self, MountError> {
        let pool_name = ident("pool", pool)?;
        ident("container", container)?;
        let shown_pool = text(pool);
        let shown_container = text(container);
        let system = SystemRoot::locate(root).map_err(MountError::System)?;
        let (_, pool, info) = system
            .open_container(&pool_name, &shown_container)
            .map_err(|error| match error {
                SystemError::Engine(EngineError::NotFound(_)) => MountError::NoContainer {
                    pool: shown_pool.clone(),
                    container: shown_container.clone(),
                },
                SystemError::Engine(error) => MountError::Container {
                    pool: shown_pool.clone(),
                    error,
                },
                other => MountError::System(other),
            })?;
        if info.root.0 == 0 {
            let meta = ContainerMeta::decode(&info.blob);
            return Err(MountError::NoFiles {
                pool: shown_pool,
                container: shown_container,
                kind: meta.map_or(ContainerType::Unknown, |meta| meta.kind),
            });
        }
        Dfs::mount(pool, &info)
            .map(Backend::Embedded)
            .map_err(|errno| MountError::Namespace {
                container: shown_container,
                errno,
            })
    }

    /// The namespace of the container.
    pub fn fs(&self) -> &Dfs {
        match self {
            Backend::Embedded(fs) => fs,
        }
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn ident(what: &'static str, name: &[u8]) -> Result<Ident, MountError> {
    let bad = || MountError::Name {
        what,
        name: text(name),
    };
    core::str::from_utf8(name)
        .ok()
        .and_then(|name| name.parse().ok())
        .ok_or_else(bad)
}
