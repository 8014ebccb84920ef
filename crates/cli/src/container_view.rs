//! A container as `create` and `query` show it.

use crate::session::now_ns;
use crate::table::block;
use daos_types::{ContainerMeta, Hlc, ObjectClass, format_base2};
use engine::ContainerInfo;
use serde::Serialize;

/// The answer of `create` and `query`, keys in the order of DAOS.
#[derive(Serialize)]
pub(crate) struct ContainerJson {
    pool_uuid: String,
    container_uuid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    container_label: String,
    latest_snapshot: u64,
    redundancy_factor: u8,
    num_handles: u32,
    num_snapshots: u32,
    open_time: u64,
    close_modify_time: u64,
    container_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dir_object_class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_object_class: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    hints: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_size: Option<u32>,
}

fn class_name(id: u32) -> String {
    ObjectClass::from_id(id).map_or_else(|| "UNKNOWN".to_owned(), |class| class.to_string())
}

fn is_posix(meta: &ContainerMeta) -> bool {
    meta.kind == daos_types::ContainerType::Posix
}

impl ContainerJson {
    /// Describes a container that has just been opened to be looked at.
    pub(crate) fn new(pool: &str, info: &ContainerInfo, meta: &ContainerMeta) -> ContainerJson {
        let posix = is_posix(meta);
        let unset = || "UNKNOWN".to_owned();
        ContainerJson {
            pool_uuid: pool.to_owned(),
            container_uuid: info.uuid.to_string(),
            container_label: info.label.clone(),
            latest_snapshot: 0,
            redundancy_factor: meta.props.rd_fac,
            num_handles: 1,
            num_snapshots: 0,
            open_time: Hlc::from_unix_ns(now_ns()).0,
            close_modify_time: meta.changed().0,
            container_type: meta.kind.name(),
            object_class: posix.then(|| {
                meta.object_class
                    .map_or_else(unset, |class| class.to_string())
            }),
            dir_object_class: posix.then(|| class_name(info.dir_class)),
            file_object_class: posix.then(|| class_name(info.file_class)),
            hints: meta.hints.clone(),
            chunk_size: posix.then_some(info.chunk_size),
        }
    }

    /// The block `create` prints.
    pub(crate) fn short_text(&self) -> String {
        let mut rows = vec![("Container UUID ", self.container_uuid.clone())];
        if !self.container_label.is_empty() {
            rows.push(("Container Label", self.container_label.clone()));
        }
        rows.push(("Container Type ", self.container_type.to_owned()));
        block(&rows)
    }

    /// The block `query` prints.
    pub(crate) fn long_text(&self) -> String {
        let time = |stamp: u64| format!("{stamp:#x} ({})", Hlc(stamp));
        let mut rows = vec![("Container UUID", self.container_uuid.clone())];
        if !self.container_label.is_empty() {
            rows.push(("Container Label", self.container_label.clone()));
        }
        rows.extend([
            ("Container Type", self.container_type.to_owned()),
            ("Pool UUID", self.pool_uuid.clone()),
            (
                "Container redundancy factor",
                self.redundancy_factor.to_string(),
            ),
            ("Number of open handles", self.num_handles.to_string()),
            ("Latest open time", time(self.open_time)),
            ("Latest close/modify time", time(self.close_modify_time)),
            ("Number of snapshots", self.num_snapshots.to_string()),
        ]);
        for (key, value) in [
            ("Object Class", &self.object_class),
            ("Dir Object Class", &self.dir_object_class),
            ("File Object Class", &self.file_object_class),
        ] {
            rows.extend(value.clone().map(|value| (key, value)));
        }
        if !self.hints.is_empty() {
            rows.push(("Hints", self.hints.clone()));
        }
        rows.extend(
            self.chunk_size
                .map(|size| ("Chunk Size", format_base2(size.into()))),
        );
        let width = rows.iter().map(|(key, _)| key.len()).max().unwrap_or(0) + 1;
        let padded: Vec<(String, String)> = rows
            .into_iter()
            .map(|(key, value)| (format!("{key:<width$}"), value))
            .collect();
        block(
            &padded
                .iter()
                .map(|(key, value)| (key.as_str(), value.clone()))
                .collect::<Vec<_>>(),
        )
    }
}
