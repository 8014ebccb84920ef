//! From the names a user types to open pools and containers.

use crate::names::ContNames;
use crate::output::Failure;
use crate::progress::Bar;
use daos_types::{ContainerMeta, Der, Ident};
use dfs::Dfs;
use engine::system::{PoolDescriptor, SystemError, SystemRoot};
use engine::{ContainerInfo, EngineError, Pool};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use sys::Errno;

/// Nanoseconds since the Unix epoch.
pub(crate) fn now_ns() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}

/// Name of an id in a file like `/etc/passwd`; the number itself if there is none.
fn name_of(file: &str, id: u32) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut entries = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let known = entries.find(|fields| fields.get(2).is_some_and(|text| *text == id.to_string()));
    let name = known.and_then(|fields| fields.first().map(|name| (*name).to_owned()));
    name.unwrap_or_else(|| id.to_string())
}

/// Name of the user who runs the command.
pub(crate) fn user_name() -> String {
    name_of("/etc/passwd", rustix::process::geteuid().as_raw())
}

/// Name of the group of the user who runs the command.
pub(crate) fn group_name() -> String {
    name_of("/etc/group", rustix::process::getegid().as_raw())
}

/// The system root of this environment.
pub(crate) fn system_root() -> Result<SystemRoot, Failure> {
    let value = std::env::var_os("DAOS_EMBEDDED_ROOT");
    Ok(SystemRoot::locate(
        value.as_ref().map(|value| value.as_bytes()),
    )?)
}

/// Every pool of the system, and for those that cannot be read why. Whatever another command creates
/// or destroys meanwhile is no failure.
pub(crate) fn all_pools() -> Result<(Vec<PoolDescriptor>, Vec<Failure>), Failure> {
    let root = system_root()?;
    let mut listed = root.list_pools()?;
    let missing = |error: &SystemError| error.der() == Der::NonExist;
    let texts = |listed: &[Result<_, SystemError>]| -> Vec<String> {
        let errors = listed.iter().filter_map(|entry| entry.as_ref().err());
        errors.map(ToString::to_string).collect()
    };
    let before = texts(&listed);
    if listed
        .iter()
        .any(|entry| entry.as_ref().is_err_and(missing))
    {
        // What is missing for good is missing at the second look too.
        listed = root.list_pools()?;
        listed.retain(|entry| match entry {
            Err(error) if missing(error) => before.contains(&error.to_string()),
            _ => true,
        });
    }
    let (mut pools, mut failures) = (Vec::new(), Vec::new());
    for entry in listed {
        match entry {
            Ok(pool) => pools.push(pool),
            Err(error) => failures.push(error.into()),
        }
    }
    Ok((pools, failures))
}

/// Whether a pool that gave an error is no longer there.
pub(crate) fn is_gone(pool: &PoolDescriptor) -> bool {
    !pool.dir.exists()
}

/// Finds a pool for a `daos` command; `outer` opens the error line.
pub(crate) fn find_pool(name: &str, outer: &str) -> Result<PoolDescriptor, Failure> {
    let ident: Ident = name
        .parse()
        .map_err(|bad| Failure::der(outer, Der::Inval).because(bad))?;
    match system_root()?.find_pool(&ident) {
        Ok(pool) => Ok(pool),
        Err(error) => Err(Failure::der(outer, error.der()).because(error)),
    }
}

/// Finds a pool in the words of `dmg`.
pub(crate) fn find_pool_dmg(name: &str, outer: &str) -> Result<PoolDescriptor, Failure> {
    let ident: Ident = name
        .parse()
        .map_err(|bad| Failure::plain(format!("{outer}: {bad}")))?;
    system_root()?
        .find_pool(&ident)
        .map_err(|error| not_found(name, outer, &error))
}

/// The failure of a `dmg` command that did not get hold of a pool.
pub(crate) fn not_found(name: &str, outer: &str, error: &SystemError) -> Failure {
    if is_missing(error) {
        Failure::plain(format!(
            "{outer}: unable to find pool service with label {name:?}"
        ))
        .because(error)
    } else {
        Failure::der(outer, error.der()).because(error)
    }
}

/// Whether an error means that the pool does not exist.
fn is_missing(error: &SystemError) -> bool {
    matches!(error, SystemError::NoPool { .. })
}

/// Finds and attaches a pool.
pub(crate) fn open_pool(
    name: &str,
    outer: &str,
) -> Result<(PoolDescriptor, &'static Pool), Failure> {
    let ident: Ident = name
        .parse()
        .map_err(|bad| Failure::der(outer, Der::Inval).because(bad))?;
    let opened = system_root()?.open_pool(&ident);
    opened.map_err(|error| Failure::der(outer, error.der()).because(error))
}

/// A container that was found.
pub(crate) struct Opened {
    /// Its pool.
    pub(crate) pool: PoolDescriptor,
    /// The attached pool.
    pub(crate) attached: &'static Pool,
    /// What the engine knows of it.
    pub(crate) info: ContainerInfo,
    /// Its properties and attributes.
    pub(crate) meta: ContainerMeta,
}

impl Failure {
    /// A failure of the engine; `outer` opens the error line.
    pub(crate) fn engine(outer: &str, error: &EngineError) -> Failure {
        Failure::der(outer, error.der()).because(error)
    }
}

/// Finds a container; `outer` opens the error line.
pub(crate) fn open_container(names: ContNames, outer: &str) -> Result<Opened, Failure> {
    let (pool, attached) = open_pool(&names.pool, outer)?;
    let info = attached
        .find_container(&names.cont)
        .map_err(|error| match error {
            EngineError::NotFound(_) => Failure::der(outer, Der::NonExist).because(format!(
                "no container {} in pool {}; see: daos container list {}",
                names.cont, names.pool, names.pool
            )),
            other => Failure::engine(outer, &other),
        })?;
    let meta = decode(&info, &names.cont, outer)?;
    Ok(Opened {
        pool,
        attached,
        info,
        meta,
    })
}

/// The right to change what a pool keeps of its containers, for as long as it lives; another
/// command waits.
fn changing(pool: &PoolDescriptor) -> Result<OwnedFd, Failure> {
    let failed = |error: rustix::io::Errno| {
        let outer = format!("locking {}", pool.dir.display());
        Failure::errno(outer, Errno::new(error.raw_os_error()))
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(&pool.dir, flags, Mode::empty()).map_err(failed)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&dir, FlockOperation::LockExclusive))
        .map_err(failed)?;
    Ok(dir)
}

fn decode(info: &ContainerInfo, name: &str, outer: &str) -> Result<ContainerMeta, Failure> {
    ContainerMeta::decode(&info.blob)
        .map_err(|bad| Failure::der(outer, Der::Io).because(format!("container {name}: {bad}")))
}

impl Opened {
    /// Marks the container as in use by this process, for good: it is not destroyed meanwhile.
    pub(crate) fn hold(self, outer: &str) -> Result<Opened, Failure> {
        let (pool, uuid) = (self.pool.uuid.0, self.info.uuid.to_string());
        let held = system_root()?.open_container(&Ident::Uuid(pool), &uuid);
        held.map_err(|error| Failure::der(outer, error.der()).because(error))?;
        Ok(self)
    }

    /// Edits properties and attributes as they are now, and stores them: what another command
    /// changes meanwhile is kept.
    pub(crate) fn change(
        &mut self,
        edit: impl FnOnce(&mut ContainerMeta) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let _changing = changing(&self.pool)?;
        self.read_again("")?;
        edit(&mut self.meta)?;
        self.store()
    }

    fn read_again(&mut self, outer: &str) -> Result<(), Failure> {
        let uuid = self.info.uuid.to_string();
        let found = self.attached.find_container(&uuid);
        self.info = found.map_err(|error| Failure::engine(outer, &error))?;
        self.meta = decode(&self.info, &uuid, outer)?;
        Ok(())
    }

    /// Makes the root directory of a container that has none yet: a creation that was cut.
    pub(crate) fn ensure_root(&mut self, outer: &str) -> Result<(), Failure> {
        if self.info.root.0 != 0 {
            return Ok(());
        }
        let _changing = changing(&self.pool)?;
        self.read_again(outer)?;
        if self.info.root.0 != 0 {
            return Ok(());
        }
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let root = Dfs::make_root(self.attached, &self.info, uid, gid, 0o755)
            .map_err(|e| Failure::errno(format!("{outer}: cannot make the root directory"), e))?;
        self.info.root = (root.number, root.generation);
        let updated = self.attached.update_container(&self.info);
        updated.map_err(|error| Failure::engine(outer, &error))
    }

    /// Stores changed properties and attributes.
    fn store(&mut self) -> Result<(), Failure> {
        self.meta.changed_ns = now_ns();
        let inval = |why: &dyn std::fmt::Display| Failure::der("", Der::Inval).because(why);
        self.info.blob = self.meta.encode().map_err(|bad| inval(&bad))?;
        self.info.label = self
            .meta
            .props
            .label
            .as_ref()
            .map_or("", |label| label.as_str())
            .to_owned();
        self.attached
            .update_container(&self.info)
            .map_err(|error| match error {
                EngineError::Exists(_) => Failure::der("", Der::Exist).because(format!(
                    "another container of pool {} has the label {}",
                    self.pool.label, self.info.label
                )),
                other => Failure::engine("", &other),
            })
    }

    /// Removes everything in the container, then the container.
    ///
    /// Without `force`, `DER_BUSY` while a process has the container mounted.
    pub(crate) fn destroy(self, force: bool) -> Result<(), Failure> {
        if !force && self.pool.container_is_open(&self.info)? {
            return Err(Failure::der("", Der::Busy).because(format!(
                "programs use the container; end them, or use --force: daos container destroy -f \
                 {} {}",
                self.pool.label, self.info.uuid
            )));
        }
        let bar = Bar::count("Removing");
        // Without a namespace there is nothing to empty: another type of container, or a
        // destruction that was cut behind the removal of its root.
        if let Ok(dfs) = Dfs::mount(self.attached, &self.info) {
            dfs.destroy(&mut |removed| bar.at(removed))
                .map_err(|e| Failure::errno("removing the files of the container", e))?;
        }
        bar.finish();
        self.attached
            .remove_container(self.info.uuid)
            .map_err(|e| Failure::engine("", &e))
    }
}
