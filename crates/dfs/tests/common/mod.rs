//! A container in a temporary pool.
#![allow(dead_code, reason = "each test binary uses a part")]

use dfs::{Cred, Dfs, How, Ino, Place, Walk};
use engine::ContainerInfo;
use engine::testing::TempPool;
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

/// A mounted container; the pool goes with it.
pub(crate) struct Container {
    pub(crate) pool: TempPool,
    pub(crate) info: ContainerInfo,
    pub(crate) dfs: Dfs,
}

impl Container {
    /// A container of class RP_3GX in a fresh pool; the root belongs to uid 0, mode 0755.
    pub(crate) fn new() -> Container {
        let pool = TempPool::new(4, 1024);
        let class = daos_types::ObjectClass::new(
            daos_types::Redundancy::Replicas(3),
            daos_types::GROUPS_MAX,
        )
        .expect("class");
        let spec = ContainerInfo {
            uuid: uuid::Uuid::new_v4(),
            label: "test".into(),
            index: 0,
            root: (0, 0),
            file_class: class.id(),
            dir_class: class.id(),
            chunk_size: 1 << 20,
            blob: Vec::new(),
        };
        let mut info = pool.pool.create_container(&spec).expect("container");
        let root = Dfs::make_root(pool.pool, &info, 0, 0, 0o755).expect("root");
        info.root = (root.number, root.generation);
        pool.pool.update_container(&info).expect("root recorded");
        let dfs = Dfs::mount(pool.pool, &info).expect("mount");
        Container { pool, info, dfs }
    }
}

/// Walks from the root; panics when the walk leaves the container.
pub(crate) fn walk(dfs: &Dfs, cred: &Cred<'_>, path: &str, follow: bool) -> Result<Place> {
    let mut buf = [0; 4096];
    let how = How {
        follow,
        ..How::default()
    };
    match dfs.walk(cred, dfs.root(), path.as_bytes(), how, &mut buf)? {
        Walk::Here(place) => Ok(place),
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
