//! What the measuring programs start from: the privileged caller and a mounted container.

use daos_types::ObjectClass;
use dfs::{Cred, Dfs};
use engine::ContainerInfo;
use engine::testing::TempPool;

/// The privileged caller.
pub(crate) const ROOT: Cred<'static> = Cred {
    uid: 0,
    gid: 0,
    groups: &[],
    privileged: true,
    umask: 0o022,
};

/// A new container with chunks of 1 MiB, mounted.
pub(crate) fn container(
    pool: &TempPool,
    label: &str,
    file_class: ObjectClass,
    dir_class: ObjectClass,
) -> Dfs {
    let spec = ContainerInfo {
        uuid: uuid::Uuid::new_v4(),
        label: label.into(),
        index: 0,
        root: (0, 0),
        file_class: file_class.id(),
        dir_class: dir_class.id(),
        chunk_size: 1 << 20,
        blob: Vec::new(),
    };
    let mut info = pool.pool.create_container(&spec).expect("container");
    let root = Dfs::make_root(pool.pool, &info, 0, 0, 0o755).expect("root");
    info.root = (root.number, root.generation);
    pool.pool.update_container(&info).expect("root recorded");
    Dfs::mount(pool.pool, &info).expect("mount")
}
