//! The containers of a pool: one page each, chained from the arena's header.

use crate::error::EngineError;
use crate::layout::{PageLink, header, kind};
use crate::limits::{PAGE, PAGE_REPLICAS_MAX};
use crate::pool::{LockId, Pool};
use crate::tx::Tx;
use sys::Errno;

/// Bytes of the blob a container keeps for the layers above.
pub const BLOB_BYTES_MAX: usize = 3072;

/// Words of a container's page, as byte offsets: identity, namespace root, blob.
mod at {
    pub(super) const TAG: u64 = 0;
    pub(super) const NEXT: u64 = 8;
    pub(super) const UUID: u64 = 16;
    pub(super) const INDEX: u64 = 32;
    pub(super) const ROOT: u64 = 40;
    pub(super) const CLASSES: u64 = 56;
    pub(super) const CHUNK: u64 = 64;
    pub(super) const LABEL_LEN: u64 = 72;
    pub(super) const BLOB_LEN: u64 = 80;
    pub(super) const LABEL: u64 = 128;
    pub(super) const BLOB: u64 = 256;
}

/// `DAOSCONT`: tells a container's page from a page reused for something else.
const TAG: u64 = u64::from_le_bytes(*b"DAOSCONT");

/// What a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerInfo {
    /// Identity.
    pub uuid: uuid::Uuid,
    /// Label; empty when it has none.
    pub label: String,
    /// Number inside the pool, never reused while the pool exists.
    pub index: u32,
    /// Inode number and generation of the root directory; 0 until the namespace layer makes it.
    pub root: (u64, u32),
    /// Object class of new files (`ObjectClass::id`).
    pub file_class: u32,
    /// Object class of new directories.
    pub dir_class: u32,
    /// Chunk size of new files in bytes.
    pub chunk_size: u32,
    /// Whatever the layers above keep: properties, attributes.
    pub blob: Vec<u8>,
}

/// Most containers a chain is followed for: damage must not become an endless loop.
const CONTAINERS_MAX: usize = 65_536;

impl Pool {
    /// All containers, oldest last.
    pub fn containers(&self) -> Result<Vec<ContainerInfo>, EngineError> {
        let mut found = Vec::new();
        let mut link = self.container_head()?;
        while !link.is_none() && found.len() < CONTAINERS_MAX {
            let (info, next) = self.read_container(link)?;
            found.push(info);
            link = next;
        }
        Ok(found)
    }

    /// The container with this label or UUID.
    pub fn find_container(&self, name: &str) -> Result<ContainerInfo, EngineError> {
        Ok(self.locate(name)?.1)
    }

    fn container_head(&self) -> Result<PageLink, EngineError> {
        Ok(PageLink(self.load(header::CONTAINERS).map_err(damaged)?))
    }

    fn locate(&self, name: &str) -> Result<(PageLink, ContainerInfo), EngineError> {
        let uuid = uuid::Uuid::parse_str(name).ok();
        let mut link = self.container_head()?;
        for _ in 0..CONTAINERS_MAX {
            if link.is_none() {
                break;
            }
            let (info, next) = self.read_container(link)?;
            if info.label == name && !name.is_empty() || Some(info.uuid) == uuid {
                return Ok((link, info));
            }
            link = next;
        }
        Err(EngineError::NotFound(format!("container {name}")))
    }

    /// Adds a container; `index` and `root` of `spec` are ignored. The label must be free.
    pub fn create_container(&self, spec: &ContainerInfo) -> Result<ContainerInfo, EngineError> {
        if spec.label.len() > 127 || spec.blob.len() > BLOB_BYTES_MAX {
            return Err(EngineError::Invalid(format!(
                "container {}: label or properties too long",
                spec.label
            )));
        }
        let mut tx = self.containers_tx()?;
        for other in self.containers()? {
            if other.uuid == spec.uuid || !spec.label.is_empty() && other.label == spec.label {
                return Err(EngineError::Exists(format!("container {}", spec.label)));
            }
        }
        let index = self
            .containers()?
            .iter()
            .map(|c| c.index)
            .max()
            .unwrap_or(0)
            + 1;
        let info = ContainerInfo {
            index,
            root: (0, 0),
            ..spec.clone()
        };
        self.protect_log(&info).map_err(damaged)?;
        let replicas = self.rank_count().min(PAGE_REPLICAS_MAX as u16) as u8;
        let add = |tx: &mut Tx<'_>| {
            let link = tx.alloc_page(kind::CONTAINER, 0, replicas, true)?;
            write_container(tx, link, &info)?;
            tx.set(link.offset() + at::NEXT, tx.load(header::CONTAINERS)?)?;
            tx.set(link.offset() + at::TAG, TAG)?;
            tx.set(header::CONTAINERS, link.0)
        };
        add(&mut tx)
            .and_then(|()| tx.commit())
            .map_err(|e| changing(&spec.label, e))?;
        Ok(info)
    }

    /// Replaces what a container keeps (label, root, classes, blob); found by its UUID.
    pub fn update_container(&self, info: &ContainerInfo) -> Result<(), EngineError> {
        if info.label.len() > 127 || info.blob.len() > BLOB_BYTES_MAX {
            return Err(EngineError::Invalid(format!(
                "container {}: too long",
                info.label
            )));
        }
        self.protect_log(info).map_err(damaged)?;
        let mut tx = self.containers_tx()?;
        let (link, _) = self.locate(&info.uuid.to_string())?;
        for other in self.containers()? {
            if other.uuid != info.uuid && !info.label.is_empty() && other.label == info.label {
                return Err(EngineError::Exists(format!("container {}", info.label)));
            }
        }
        write_container(&mut tx, link, info)
            .and_then(|()| tx.commit())
            .map_err(|e| changing(&info.label, e))?;
        Ok(())
    }

    /// Removes a container from the pool. Its namespace must have been emptied before.
    pub fn remove_container(&self, uuid: uuid::Uuid) -> Result<(), EngineError> {
        let mut tx = self.containers_tx()?;
        let mut before = header::CONTAINERS;
        let mut link = self.container_head()?;
        for _ in 0..CONTAINERS_MAX {
            if link.is_none() {
                break;
            }
            let (info, next) = self.read_container(link)?;
            if info.uuid == uuid {
                tx.set(before, next.0)
                    .and_then(|()| tx.set(link.offset() + at::TAG, 0))
                    .and_then(|()| tx.free_page(link))
                    .and_then(|()| tx.commit())
                    .map_err(|e| changing(&info.label, e))?;
                return Ok(());
            }
            before = link.offset() + at::NEXT;
            link = next;
        }
        Err(EngineError::NotFound(format!("container {uuid}")))
    }

    fn containers_tx(&self) -> Result<Tx<'_>, EngineError> {
        // Their pages lie on target 0.
        self.tx(&[LockId::Containers, LockId::Target(0)])
            .map_err(|e| EngineError::system("changing the containers of the pool", e))
    }

    /// Chains a container's page that recovery found on disk.
    pub(crate) fn adopt_container(&self, link: PageLink) -> sys::Result<()> {
        if self.load(link.offset() + at::TAG)? != TAG {
            return Ok(());
        }
        self.store(link.offset() + at::NEXT, self.load(header::CONTAINERS)?)?;
        self.store(header::CONTAINERS, link.0)?;
        let (info, _) = self.read_container(link).map_err(|_| Errno::EIO)?;
        self.protect_log(&info)
    }

    fn read_container(&self, link: PageLink) -> Result<(ContainerInfo, PageLink), EngineError> {
        let mut words = [0u64; (PAGE / 8) as usize];
        self.words(link.offset(), &mut words).map_err(damaged)?;
        let word = |off: u64| words[(off / 8) as usize];
        let bytes = |off: u64, len: usize| -> Vec<u8> {
            words[(off / 8) as usize..]
                .iter()
                .flat_map(|w| w.to_le_bytes())
                .take(len)
                .collect()
        };
        if word(at::TAG) != TAG {
            return Err(damaged(Errno::EIO));
        }
        let label_len = (word(at::LABEL_LEN) as usize).min(127);
        let blob_len = (word(at::BLOB_LEN) as usize).min(BLOB_BYTES_MAX);
        let info = ContainerInfo {
            uuid: uuid::Uuid::from_u64_pair(word(at::UUID), word(at::UUID + 8)),
            label: String::from_utf8_lossy(&bytes(at::LABEL, label_len)).into_owned(),
            index: word(at::INDEX) as u32,
            root: (word(at::ROOT), word(at::ROOT + 8) as u32),
            file_class: (word(at::CLASSES) >> 32) as u32,
            dir_class: word(at::CLASSES) as u32,
            chunk_size: word(at::CHUNK) as u32,
            blob: bytes(at::BLOB, blob_len),
        };
        Ok((info, PageLink(word(at::NEXT))))
    }
}

fn write_container(tx: &mut Tx<'_>, link: PageLink, info: &ContainerInfo) -> sys::Result<()> {
    let base = link.offset();
    let (high, low) = info.uuid.as_u64_pair();
    tx.put(base + at::UUID, &[high, low])?;
    tx.set(base + at::INDEX, u64::from(info.index))?;
    tx.put(base + at::ROOT, &[info.root.0, u64::from(info.root.1)])?;
    tx.set(
        base + at::CLASSES,
        u64::from(info.file_class) << 32 | u64::from(info.dir_class),
    )?;
    tx.set(base + at::CHUNK, u64::from(info.chunk_size))?;
    tx.put(
        base + at::LABEL_LEN,
        &[info.label.len() as u64, info.blob.len() as u64],
    )?;
    put_bytes(tx, base + at::LABEL, info.label.as_bytes())?;
    put_bytes(tx, base + at::BLOB, &info.blob)
}

fn put_bytes(tx: &mut Tx<'_>, off: u64, bytes: &[u8]) -> sys::Result<()> {
    let mut words = Vec::with_capacity(bytes.len().div_ceil(8));
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        words.push(u64::from_le_bytes(word));
    }
    if words.is_empty() {
        Ok(())
    } else {
        tx.put(off, &words)
    }
}

fn damaged(errno: Errno) -> EngineError {
    EngineError::Corrupt(format!(
        "the pool's list of containers is damaged ({errno})"
    ))
}

fn changing(label: &str, errno: Errno) -> EngineError {
    EngineError::system(format!("container {label}"), errno)
}
