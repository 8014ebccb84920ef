//! What unit tests start from.

use crate::{Cred, Dfs};
use daos_types::ObjectClass;
use engine::testing::TempPool;

/// The privileged caller.
pub(crate) const ROOT: Cred<'static> = Cred {
    uid: 0,
    gid: 0,
    groups: &[],
    privileged: true,
    umask: 0,
};

/// A mounted container of class `S1`; the pool goes with the first value.
pub(crate) fn container() -> (TempPool, Dfs) {
    let temp = TempPool::new(1, 64);
    let mut info = engine::ContainerInfo {
        uuid: uuid::Uuid::new_v4(),
        label: "test".into(),
        index: 0,
        root: (0, 0),
        file_class: ObjectClass::S1.id(),
        dir_class: ObjectClass::S1.id(),
        chunk_size: 1 << 20,
        blob: Vec::new(),
    };
    temp.pool.create_container(&info).expect("container");
    let root = Dfs::make_root(temp.pool, &info, 0, 0, 0o755).expect("root");
    info.root = (root.number, root.generation);
    let dfs = Dfs::mount(temp.pool, &info).expect("mount");
    (temp, dfs)
}
