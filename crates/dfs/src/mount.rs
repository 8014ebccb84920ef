//! A mounted container: the handle everything else is a method of.

use crate::Ino;
use crate::inode::{Guard, is_dir};
use engine::{ContainerInfo, Pool};
use sys::{Errno, Result};

/// A container of an attached pool, as this process holds it. All methods may be called from any
/// thread at any time.
pub struct Dfs {
    pub(crate) pool: &'static Pool,
    pub(crate) root: Ino,
}

impl Dfs {
    /// Opens the namespace of a container. `EIO` if its root is not a directory.
    pub fn mount(pool: &'static Pool, container: &ContainerInfo) -> Result<Dfs> {
        let root = crate::inode::from_number(pool, container.root.0)?.ok_or(Errno::EIO)?;
        if !is_dir(Guard::of(pool, root)?.mode) {
            return Err(Errno::EIO);
        }
        Ok(Dfs { pool, root })
    }

    /// The root directory.
    pub fn root(&self) -> Ino {
        self.root
    }
}
