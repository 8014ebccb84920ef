//! What a container remembers about itself beside its objects: type, properties, owner, times
//! and user attributes, as one small text record kept by the engine.

use crate::escape::{escape, unescape};
use crate::{ContainerProps, Hlc, ObjectClass, PropRow, PropValue, SETTABLE_AT_CREATE};
use core::fmt;

/// Largest record in bytes.
pub const RECORD_BYTES_MAX: usize = 3072;

const MAGIC: &str = "daos-container 1";

/// Layout type of a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ContainerType {
    /// Not given at creation.
    #[default]
    Unknown,
    /// A POSIX namespace.
    Posix,
    /// HDF5.
    Hdf5,
    /// Python.
    Python,
    /// Spark.
    Spark,
    /// A data base.
    Database,
    /// ROOT.
    Root,
    /// Seismic data.
    Seismic,
    /// Meteorological data.
    Meteo,
}

/// Names and numbers of the types, those of `daos_cont_layout_t`.
const TYPES: [(ContainerType, &str, u16); 9] = [
    (ContainerType::Unknown, "unknown", 0),
    (ContainerType::Posix, "POSIX", 1),
    (ContainerType::Hdf5, "HDF5", 2),
    (ContainerType::Python, "PYTHON", 3),
    (ContainerType::Spark, "SPARK", 4),
    (ContainerType::Database, "DATABASE", 5),
    (ContainerType::Root, "ROOT", 6),
    (ContainerType::Seismic, "SEISMIC", 7),
    (ContainerType::Meteo, "METEO", 8),
];

impl ContainerType {
    /// The type of a name in any case; `None` if unknown.
    pub fn parse(name: &str) -> Option<ContainerType> {
        let found = TYPES
            .iter()
            .find(|(_, text, _)| text.eq_ignore_ascii_case(name));
        found
            .filter(|(kind, ..)| *kind != ContainerType::Unknown)
            .map(|(kind, ..)| *kind)
    }

    /// The printed name.
    pub fn name(self) -> &'static str {
        TYPES
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or("unknown", |(_, name, _)| name)
    }

    /// The number DAOS gives the type.
    pub fn number(self) -> u16 {
        TYPES
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or(0, |(.., number)| *number)
    }
}

/// The record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ContainerMeta {
    /// Layout type.
    pub kind: ContainerType,
    /// Chosen properties.
    pub props: ContainerProps,
    /// `--oclass` as given at creation.
    pub object_class: Option<ObjectClass>,
    /// `--hints` as given at creation.
    pub hints: String,
    /// Owner, `user@`.
    pub owner: String,
    /// Group, `group@`.
    pub group: String,
    /// Time of creation, nanoseconds since the Unix epoch.
    pub created_ns: i64,
    /// Time of the last change of this record.
    pub changed_ns: i64,
    /// User-defined attributes in the order they were first set.
    pub attrs: Vec<(String, Vec<u8>)>,
}

/// A record that cannot be read or does not fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadRecord {
    /// Written by newer software; with the first line found.
    Newer(String),
    /// Damaged; with the part that does not parse.
    Damaged(String),
    /// Larger than [`RECORD_BYTES_MAX`]; with its size.
    TooLarge(usize),
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRecord::Newer(line) => write!(f, "container record of newer software ({line:?})"),
            BadRecord::Damaged(part) => write!(f, "damaged container record ({part:?})"),
            BadRecord::TooLarge(bytes) => write!(
                f,
                "properties and attributes of the container need {bytes} bytes, \
                 {RECORD_BYTES_MAX} fit; delete or shorten attributes"
            ),
        }
    }
}

impl core::error::Error for BadRecord {}

fn unescape_text(text: &str) -> Option<String> {
    String::from_utf8(unescape(text)?).ok()
}

impl ContainerMeta {
    /// The record as kept by the engine.
    pub fn encode(&self) -> Result<Vec<u8>, BadRecord> {
        let mut out = format!("{MAGIC}\n");
        let mut line = |key: &str, value: &[u8]| {
            escape(key.as_bytes(), b"=", &mut out);
            out.push('=');
            escape(value, b"=", &mut out);
            out.push('\n');
        };
        line("type", self.kind.name().as_bytes());
        let defaults = ContainerProps::default();
        for key in SETTABLE_AT_CREATE {
            match self.props.written(key) {
                Some(value) if defaults.written(key).as_ref() != Some(&value) => {
                    line(key, value.as_bytes());
                }
                _ => {}
            }
        }
        if !self.props.healthy {
            line("unclean", b"1");
        }
        if let Some(class) = self.object_class {
            line("oclass", class.to_string().as_bytes());
        }
        for (key, text) in [
            ("hints", &self.hints),
            ("owner", &self.owner),
            ("group", &self.group),
        ] {
            if !text.is_empty() {
                line(key, text.as_bytes());
            }
        }
        line("created", self.created_ns.to_string().as_bytes());
        line("changed", self.changed_ns.to_string().as_bytes());
        for (name, value) in &self.attrs {
            line(&format!("attr:{name}"), value);
        }
        if out.len() > RECORD_BYTES_MAX {
            return Err(BadRecord::TooLarge(out.len()));
        }
        Ok(out.into_bytes())
    }

    /// Reads a record; trailing zero bytes are ignored.
    pub fn decode(bytes: &[u8]) -> Result<ContainerMeta, BadRecord> {
        let damaged = |part: &str| BadRecord::Damaged(part.chars().take(40).collect());
        let text = core::str::from_utf8(bytes).map_err(|_| damaged("not text"))?;
        let text = text.trim_end_matches('\0');
        let (magic, body) = text.split_once('\n').ok_or_else(|| damaged(text))?;
        if magic != MAGIC {
            let known = magic.starts_with("daos-container ");
            return Err(if known {
                BadRecord::Newer(magic.to_owned())
            } else {
                damaged(magic)
            });
        }
        let mut meta = ContainerMeta::default();
        for line in body.lines() {
            meta.read_line(line).ok_or_else(|| damaged(line))?;
        }
        Ok(meta)
    }

    fn read_line(&mut self, line: &str) -> Option<()> {
        let (key, raw) = line.split_once('=')?;
        if let Some(name) = unescape_text(key)?.strip_prefix("attr:") {
            self.attrs.push((name.to_owned(), unescape(raw)?));
            return Some(());
        }
        let value = unescape_text(raw)?;
        match key {
            "type" if value == "unknown" => self.kind = ContainerType::Unknown,
            "type" => self.kind = ContainerType::parse(&value)?,
            "unclean" => self.props.healthy = false,
            "oclass" => self.object_class = Some(value.parse().ok()?),
            "hints" => self.hints = value,
            "owner" => self.owner = value,
            "group" => self.group = value,
            "created" => self.created_ns = value.parse().ok()?,
            "changed" => self.changed_ns = value.parse().ok()?,
            _ => self.props.set(key, &value).ok()?,
        }
        Some(())
    }

    /// Sets a user attribute, replacing an older value.
    pub fn set_attr(&mut self, name: &str, value: &[u8]) {
        match self.attrs.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value.to_vec(),
            None => self.attrs.push((name.to_owned(), value.to_vec())),
        }
    }

    /// The row of `get-prop` for a key of the table or `acl`; `None` for an unknown key.
    pub fn row(&self, key: &str) -> Option<PropRow> {
        let value = match key {
            "alloc_oid" | "max_snapshot" => PropValue::Number(0),
            "global_version" => PropValue::Number(3),
            "layout_version" => PropValue::Number(1),
            "obj_version" => PropValue::Number(2),
            "group" => PropValue::Text(self.group.clone()),
            "owner" => PropValue::Text(self.owner.clone()),
            "layout_type" => {
                PropValue::Text(format!("{} ({})", self.kind.name(), self.kind.number()))
            }
            "acl" => PropValue::List(vec!["A::OWNER@:rwdtTaAo".into(), "A:G:GROUP@:rwtT".into()]),
            _ => self.props.value(key)?,
        };
        Some(PropRow::new(key, value))
    }

    /// Time of creation as DAOS prints times.
    pub fn created(&self) -> Hlc {
        Hlc::from_unix_ns(self.created_ns)
    }

    /// Time of the last change.
    pub fn changed(&self) -> Hlc {
        Hlc::from_unix_ns(self.changed_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_record_round_trips() {
        let mut meta = ContainerMeta {
            kind: ContainerType::Posix,
            object_class: "RP_3GX".parse().ok(),
            hints: "file:max,dir:single".into(),
            owner: "root@".into(),
            group: "staff@".into(),
            created_ns: 1_795_349_082_973_847_552,
            changed_ns: -5,
            ..ContainerMeta::default()
        };
        for (key, value) in [("label", "c1"), ("rd_fac", "2"), ("ec_cell_sz", "131072")] {
            meta.props.set(key, value).expect("settable");
        }
        meta.props.healthy = false;
        meta.set_attr("dfuse-attr-time", b"5s");
        meta.set_attr("odd=%\n", &[0, 255, b'%', b'=', b'\n']);
        meta.set_attr("dfuse-attr-time", b"6s");
        let bytes = meta.encode().expect("fits");
        assert_eq!(ContainerMeta::decode(&bytes), Ok(meta.clone()));
        let padded: Vec<u8> = bytes.iter().copied().chain([0; 7]).collect();
        assert_eq!(ContainerMeta::decode(&padded), Ok(meta));
    }

    #[test]
    fn newer_damaged_and_oversized_records_are_told_apart() {
        assert!(matches!(
            ContainerMeta::decode(b"daos-container 2\n"),
            Err(BadRecord::Newer(_))
        ));
        for bad in [
            &b""[..],
            b"\xff\n",
            b"daos-container 1\ntype",
            b"daos-container 1\nx=%G0\n",
        ] {
            assert!(
                matches!(ContainerMeta::decode(bad), Err(BadRecord::Damaged(_))),
                "{bad:?}"
            );
        }
        let mut meta = ContainerMeta::default();
        meta.set_attr("big", &[b'x'; RECORD_BYTES_MAX]);
        assert!(matches!(meta.encode(), Err(BadRecord::TooLarge(_))));
    }

    #[test]
    fn the_rows_of_get_prop() {
        let meta = ContainerMeta {
            kind: ContainerType::Posix,
            ..ContainerMeta::default()
        };
        for (key, description) in crate::PROP_KEYS {
            let row = meta.row(key).expect("every key has a row");
            assert_eq!(row.title(), format!("{description} ({key})"));
        }
        let text = |key: &str| meta.row(key).map(|row| row.value.to_string());
        assert_eq!(text("layout_type"), Some("POSIX (1)".to_owned()));
        assert_eq!(
            text("acl"),
            Some("A::OWNER@:rwdtTaAo, A:G:GROUP@:rwtT".to_owned())
        );
        assert_eq!(text("nope"), None);
        let row = meta.row("cksum_size").expect("known");
        let json = serde_json::to_string(&row).expect("json");
        assert_eq!(
            json,
            r#"{"value":32768,"name":"cksum_size","description":"Checksum Chunk Size"}"#
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut text = b"daos-container 1\n".to_vec();
            text.extend(&bytes);
            prop_assert!(ContainerMeta::decode(&bytes).is_err());
            if let Ok(meta) = ContainerMeta::decode(&text) {
                prop_assert!(meta.encode().is_ok());
            }
        }

        #[test]
        fn attributes_round_trip(
            attrs in proptest::collection::btree_map(
                ".{1,8}", proptest::collection::vec(any::<u8>(), 0..20), 0..5)
        ) {
            let mut meta = ContainerMeta::default();
            for (name, value) in &attrs {
                meta.set_attr(name, value);
            }
            let bytes = meta.encode().expect("fits");
            prop_assert_eq!(ContainerMeta::decode(&bytes), Ok(meta));
        }
    }
}
