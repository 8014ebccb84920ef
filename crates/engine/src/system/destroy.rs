//! Destroying pools and clearing up after commands that were killed. Uses `std::fs`.

use crate::system::create::flock;
use crate::system::find::{known_rank_paths, list_dir};
use crate::system::home::other_home;
use crate::system::join::{own_arena, remove_arena_files};
use crate::system::{AttachFile, SystemError, SystemRoot};
use daos_types::{Ident, PoolId};
use std::path::Path;

/// Removes the rank directories that lie outside the pool's own directory, unless they belong to one
/// of which it is a copy.
///
/// Only paths of the form `.../<uuid>/rankNN` are touched, whatever a damaged map may say.
fn remove_ranks(dir: &Path, uuid: PoolId) -> Result<(), SystemError> {
    let name = uuid.to_string();
    let home = AttachFile::open(dir)?.home();
    for path in known_rank_paths(dir, uuid) {
        let Some(parent) = path.parent() else {
            continue;
        };
        let ours = parent.file_name().is_some_and(|n| *n == *name)
            && path
                .file_name()
                .and_then(|n| n.to_str())
                .is_some_and(|n| n.starts_with("rank"));
        if !ours || parent.starts_with(dir) || other_home(&path, &home).is_some() {
            continue;
        }
        for (removed, what) in [
            (std::fs::remove_dir_all(&path), &*path),
            (std::fs::remove_dir(parent), parent),
        ] {
            match removed {
                Ok(()) => {}
                // The parent goes with the last rank; a rank may be gone with its device.
                Err(e) if matches!(e.raw_os_error(), Some(2 | 39)) => {}
                Err(e) => return Err(SystemError::std("remove", what, &e)),
            }
        }
    }
    Ok(())
}

/// Removes the directory of a pool. Who was about to attach may make the `attach` file anew meanwhile.
fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for _ in 0..8 {
        match std::fs::remove_dir_all(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
            removed => return removed,
        }
    }
    std::fs::remove_dir_all(dir)
}

impl SystemRoot {
    /// Destroys a pool: label, ranks, data. With `force` also while processes are attached.
    ///
    /// Errors: `NoPool`; `Attached`; a pool whose map is damaged can be destroyed all the same.
    pub fn destroy_pool(&self, name: &Ident, force: bool) -> Result<(), SystemError> {
        self.resolve(name)?;
        let _system = flock(&self.path().join("lock"), true)?;
        self.clean_leftovers();
        let (uuid, dir, _) = self.resolve(name)?;
        let attach = AttachFile::open(&dir)?;
        // Held until everything is gone, so that nobody attaches to what is being removed.
        let _deciding = attach.lock()?;
        if let Some(process) = attach.holder()?
            && !force
        {
            return Err(SystemError::Attached {
                pool: name.to_string(),
                process,
            });
        }
        let arena = own_arena(&attach, uuid);
        let doomed = self.pools().join(format!("{uuid}.old"));
        // Every copy of the map must still be found under the old name.
        let ranks = remove_ranks(&dir, uuid);
        std::fs::rename(&dir, &doomed).map_err(|e| SystemError::std("rename", &dir, &e))?;
        self.remove_labels(uuid)?;
        // Before the file that says which it is.
        let freed = arena.map_or(Ok(()), |arena| remove_arena_files(&arena));
        remove_tree(&doomed).map_err(|e| SystemError::std("remove", &doomed, &e))?;
        ranks.and(freed)
    }

    /// Removes the label links of a pool.
    fn remove_labels(&self, uuid: PoolId) -> Result<(), SystemError> {
        let labels = self.path().join("labels");
        for label in list_dir(&labels)? {
            let Some(text) = label.to_str() else { continue };
            if matches!(self.label_uuid(text), Ok(Some(found)) if found == uuid) {
                let link = labels.join(&label);
                std::fs::remove_file(&link).map_err(|e| SystemError::std("remove", &link, &e))?;
            }
        }
        Ok(())
    }

    /// Removes what killed creations and destructions left; the system lock is held.
    pub(crate) fn clean_leftovers(&self) {
        let Ok(names) = list_dir(&self.pools()) else {
            return;
        };
        for name in names {
            let Some((uuid, kind)) = name.to_str().and_then(|n| n.rsplit_once('.')) else {
                continue;
            };
            let Ok(uuid) = uuid.parse::<PoolId>() else {
                continue;
            };
            let dir = self.pools().join(&name);
            // A creation at work holds this lock; a destruction holds the system lock.
            let dead = match kind {
                "new" => matches!(flock(&dir.join("lock"), false), Ok(Some(_))),
                "old" => true,
                _ => false,
            };
            if dead {
                // What cannot be removed now is tried again by the next command.
                remove_ranks(&dir, uuid).unwrap_or(());
                let arena = AttachFile::open_existing(&dir).ok();
                if let Some(arena) = arena.and_then(|file| own_arena(&file, uuid)) {
                    remove_arena_files(&arena).unwrap_or(());
                }
                remove_tree(&dir).unwrap_or(());
            }
        }
    }
}
