//! A container in a temporary pool.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod kernel;
pub(crate) mod memory;
pub(crate) mod ops;
pub(crate) mod ours;

use daos_types::{GROUPS_MAX, ObjectClass, Redundancy};
use dfs::{Cred, Dfs, How, Ino, Walk};
use engine::testing::TempPool;
use engine::{ContainerInfo, Pool};
use std::sync::Mutex;
use sys::Result;

/// The privileged caller.
pub(crate) const ROOT: Cred<'static> = Cred {
    uid: 0,
    gid: 0,
    groups: &[],
    privileged: true,
    umask: 0,
};

/// Any other caller.
pub(crate) fn user(uid: u32, groups: &[u32]) -> Cred<'_> {
    Cred {
        uid,
        gid: uid,
        groups,
        privileged: false,
        umask: 0o022,
    }
}

/// The pool of this test program: a process may attach only a few. It goes at exit.
static POOL: Mutex<Option<TempPool>> = Mutex::new(None);

extern "C" fn remove_pool() {
    drop(POOL.lock().map(|mut pool| pool.take()));
}

unsafe extern "C" {
    safe fn atexit(callback: extern "C" fn()) -> i32;
}

/// The pool, and what another process needs to attach it.
pub(crate) fn pool() -> (&'static Pool, String) {
    let mut shared = POOL.lock().expect("pool");
    let pool = shared.get_or_insert_with(|| {
        assert_eq!(atexit(remove_pool), 0);
        TempPool::new(4, 4096)
    });
    (pool.pool, pool.handover())
}

/// A mounted container.
pub(crate) struct Container {
    pub(crate) info: ContainerInfo,
    pub(crate) dfs: Dfs,
}

impl Container {
    /// A new container of class RP_3GX; the root belongs to uid 0, mode 0755.
    pub(crate) fn new() -> Container {
        let (pool, _) = pool();
        let info = Container::in_pool(pool, &uuid::Uuid::new_v4().to_string());
        let dfs = Dfs::mount(pool, &info).expect("mount");
        Container { info, dfs }
    }

    /// The same in a pool of the caller's, not mounted.
    pub(crate) fn in_pool(pool: &'static Pool, label: &str) -> ContainerInfo {
        let class = ObjectClass::new(Redundancy::Replicas(3), GROUPS_MAX).expect("class");
        Container::of_class(pool, label, class.id())
    }

    /// The same with files of another class.
    pub(crate) fn of_class(pool: &'static Pool, label: &str, file_class: u32) -> ContainerInfo {
        let class = ObjectClass::new(Redundancy::Replicas(3), GROUPS_MAX).expect("class");
        let spec = ContainerInfo {
            uuid: uuid::Uuid::new_v4(),
            label: label.into(),
            index: 0,
            root: (0, 0),
            file_class,
            dir_class: class.id(),
            chunk_size: 1 << 20,
            blob: Vec::new(),
        };
        let mut info = pool.create_container(&spec).expect("container");
        let root = Dfs::make_root(pool, &info, 0, 0, 0o755).expect("root");
        info.root = (root.number, root.generation);
        pool.update_container(&info).expect("root recorded");
        info
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let dfs = Dfs::mount(self.dfs.pool(), &self.info);
        let destroyed = dfs.and_then(|dfs| dfs.destroy(&mut |_| ()));
        let removed = self.dfs.pool().remove_container(self.info.uuid);
        if !std::thread::panicking() {
            destroyed.expect("emptied");
            removed.expect("removed");
        }
    }
}

/// What a path from the root names; panics when the walk leaves the container.
pub(crate) fn walk(dfs: &Dfs, cred: &Cred<'_>, path: &str, follow: bool) -> Result<Option<Ino>> {
    let mut buf = [0; 4096];
    let how = How {
        follow,
        ..How::default()
    };
    match dfs.walk(cred, dfs.root(), path.as_bytes(), how, &mut buf)? {
        Walk::Here(place) => Ok(place.target),
        Walk::Leave { len, .. } => panic!("left by {:?}", String::from_utf8_lossy(&buf[..len])),
    }
}

/// Names listed in a directory, without the dots.
pub(crate) fn list(dfs: &Dfs, dir: Ino) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut cursor = dfs::DirCursor::default();
    dfs.getdents(dir, &mut cursor, &mut |entry| {
        names.push(String::from_utf8_lossy(entry.name).into_owned());
        true
    })?;
    assert_eq!(names[..2], [".", ".."]);
    Ok(names.split_off(2))
}
