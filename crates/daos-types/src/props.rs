//! Container properties: keys, accepted values, defaults, and the table `get-prop` prints.
//!
//! Keys, descriptions, values, defaults and error texts are those of DAOS 2.6.

use crate::{BadLabel, Label, format_base2, parse_size};
use core::fmt;

/// Keys `container create --properties` accepts, as error texts list them.
pub const SETTABLE_AT_CREATE: &[&str] = &[
    "cksum",
    "cksum_size",
    "compression",
    "dedup",
    "dedup_threshold",
    "ec_cell_sz",
    "ec_pda",
    "encryption",
    "label",
    "perf_domain",
    "rd_fac",
    "rd_lvl",
    "rp_pda",
    "srv_cksum",
    "status",
];

/// Keys `container set-prop` accepts.
pub const SETTABLE_AFTER_CREATE: &[&str] = &["label", "status"];

/// Every key of `get-prop` with its printed description, in printed order.
pub const PROP_KEYS: &[(&str, &str)] = &[
    ("alloc_oid", "Highest Allocated OID"),
    ("cksum", "Checksum"),
    ("cksum_size", "Checksum Chunk Size"),
    ("compression", "Compression"),
    ("dedup", "Deduplication"),
    ("dedup_threshold", "Dedupe Threshold"),
    ("ec_cell_sz", "EC Cell Size"),
    ("ec_pda", "Performance domain affinity level of EC"),
    ("encryption", "Encryption"),
    ("global_version", "Global Version"),
    ("group", "Group"),
    ("label", "Label"),
    ("layout_type", "Layout Type"),
    ("layout_version", "Layout Version"),
    ("max_snapshot", "Max Snapshot"),
    ("obj_version", "Object Version"),
    ("owner", "Owner"),
    ("perf_domain", "Performance domain level"),
    ("rd_fac", "Redundancy Factor"),
    ("rd_lvl", "Redundancy Level"),
    ("rp_pda", "Performance domain affinity level of RP"),
    ("srv_cksum", "Server Checksumming"),
    ("status", "Health"),
];

/// The printed description of a key; the key itself if it has none.
pub fn prop_description(key: &str) -> &str {
    match key {
        "acl" => "Access Control List",
        _ => PROP_KEYS
            .iter()
            .find(|(name, _)| *name == key)
            .map_or(key, |(_, text)| text),
    }
}

/// A property argument that was refused; its text is the line DAOS prints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PropError {
    /// Not of the form `key:value`.
    NotPair(String),
    /// A key nobody may set here; with those that may be set.
    NotSettable(String, &'static [&'static str]),
    /// A key `get-prop` does not know.
    Unknown(String),
    /// A value outside the list of choices.
    BadChoice {
        /// Property.
        key: &'static str,
        /// What was given.
        value: String,
        /// The choices, comma separated.
        valid: &'static str,
    },
    /// An erasure-code cell size that is no size.
    BadCellSize(String),
    /// An erasure-code cell size outside 4 KiB to 1 MiB or no multiple of 32 bytes.
    CellSizeRange(u64),
    /// Another property whose value does not parse.
    BadValue {
        /// Property.
        key: &'static str,
        /// What was given.
        value: String,
    },
    /// A label that breaks the rules of labels.
    BadLabel(String),
}

impl fmt::Display for PropError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PropError::NotPair(text) => write!(f, "invalid property {text:?} (must be key:val)"),
            PropError::NotSettable(key, valid) => {
                write!(
                    f,
                    "{key:?} is not a settable property (valid: {})",
                    valid.join(",")
                )
            }
            PropError::Unknown(key) => {
                let keys: Vec<&str> = PROP_KEYS.iter().map(|(key, _)| *key).collect();
                write!(
                    f,
                    "properties: unknown property {key:?} (valid: {})",
                    keys.join(",")
                )
            }
            PropError::BadChoice { key, value, valid } => {
                write!(
                    f,
                    "properties: invalid choice {value:?} for {key} (valid: {valid})"
                )
            }
            PropError::BadCellSize(text) => {
                write!(f, "properties: invalid EC cell size {text:?} (try N<unit>)")
            }
            PropError::CellSizeRange(bytes) => write!(
                f,
                "invalid argument for flag `--properties' (expected main.CreatePropertiesFlag): \
                 invalid EC cell size {bytes}"
            ),
            PropError::BadValue { key, value } => {
                write!(f, "properties: invalid value {value:?} for {key}")
            }
            PropError::BadLabel(text) => write!(f, "properties: {}", BadLabel(text.clone())),
        }
    }
}

impl core::error::Error for PropError {}

/// Splits `k:v,k:v`; a part without colon is refused.
pub fn split_pairs(text: &str) -> Result<Vec<(String, String)>, PropError> {
    text.split(',')
        .map(|pair| match pair.split_once(':') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok((key.trim().to_owned(), value.trim().to_owned()))
            }
            _ => Err(PropError::NotPair(pair.to_owned())),
        })
        .collect()
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident $key:literal valid $valid:literal
     $($variant:ident $text:literal $what:literal;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $(#[doc = $what] $variant,)* }

        impl $name {
            /// The name users write.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            fn parse(value: &str) -> Result<$name, PropError> {
                match value.to_ascii_lowercase().as_str() {
                    $($text => Ok($name::$variant),)*
                    _ => Err(bad_choice($key, value, $valid)),
                }
            }
        }
    };
}

fn bad_choice(key: &'static str, value: &str, valid: &'static str) -> PropError {
    PropError::BadChoice {
        key,
        value: value.to_owned(),
        valid,
    }
}

choice! {
    /// Checksum algorithm of a container.
    Checksum "cksum" valid "adler32,crc16,crc32,crc64,off,sha1,sha256,sha512"
    Off "off" "No checksums.";
    Adler32 "adler32" "Adler-32.";
    Crc16 "crc16" "CRC-16.";
    Crc32 "crc32" "CRC-32.";
    Crc64 "crc64" "CRC-64.";
    Sha1 "sha1" "SHA-1.";
    Sha256 "sha256" "SHA-256.";
    Sha512 "sha512" "SHA-512.";
}

choice! {
    /// Deduplication of written data.
    Dedup "dedup" valid "hash,memcmp,off"
    Off "off" "None.";
    Memcmp "memcmp" "By comparing.";
    Hash "hash" "By hash.";
}

choice! {
    /// Level of the performance domain.
    PerfDomain "perf_domain" valid "group,root"
    Root "root" "The whole system.";
    Group "group" "A group of ranks.";
}

/// What counts as one failure for the redundancy factor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedundancyLevel {
    /// A rank.
    Rank,
    /// A node; in the embedded engine every rank stands for a node.
    Node,
}

impl RedundancyLevel {
    /// As `get-prop` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            RedundancyLevel::Rank => "rank (1)",
            RedundancyLevel::Node => "node (2)",
        }
    }

    fn parse(value: &str) -> Result<RedundancyLevel, PropError> {
        match value.to_ascii_lowercase().as_str() {
            "1" | "rank" => Ok(RedundancyLevel::Rank),
            "2" | "node" => Ok(RedundancyLevel::Node),
            _ => Err(bad_choice("rd_lvl", value, "1,2,node,rank")),
        }
    }
}

/// The properties of a container that a user may choose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContainerProps {
    /// Name; `None` prints as `container_label_not_set`.
    pub label: Option<Label>,
    /// Checksum algorithm.
    pub cksum: Checksum,
    /// Bytes covered by one checksum.
    pub cksum_size: u64,
    /// Verify checksums also on the server side at update.
    pub srv_cksum: bool,
    /// Deduplication.
    pub dedup: Dedup,
    /// Bytes from which deduplication applies.
    pub dedup_threshold: u64,
    /// Names of compression algorithms; a placeholder also in DAOS.
    pub compression: String,
    /// Name of the cipher; a placeholder also in DAOS.
    pub encryption: String,
    /// Failures that objects must survive, 0 to 4.
    pub rd_fac: u8,
    /// What counts as a failure.
    pub rd_lvl: RedundancyLevel,
    /// Whether data may have been lost (`false` prints `UNCLEAN`).
    pub healthy: bool,
    /// Bytes of an erasure-code cell.
    pub ec_cell_sz: u64,
    /// Performance domain affinity of erasure-coded objects.
    pub ec_pda: u32,
    /// Performance domain affinity of replicated objects.
    pub rp_pda: u32,
    /// Performance domain level.
    pub perf_domain: PerfDomain,
}

impl Default for ContainerProps {
    fn default() -> ContainerProps {
        ContainerProps {
            label: None,
            cksum: Checksum::Off,
            cksum_size: 32 << 10,
            srv_cksum: false,
            dedup: Dedup::Off,
            dedup_threshold: 4 << 10,
            compression: "off".to_owned(),
            encryption: "off".to_owned(),
            rd_fac: 0,
            rd_lvl: RedundancyLevel::Node,
            healthy: true,
            ec_cell_sz: 64 << 10,
            ec_pda: 1,
            rp_pda: u32::MAX,
            perf_domain: PerfDomain::Root,
        }
    }
}

fn size_value(key: &'static str, value: &str) -> Result<u64, PropError> {
    parse_size(value).map_err(|_| PropError::BadValue {
        key,
        value: value.to_owned(),
    })
}

fn number_value(key: &'static str, value: &str) -> Result<u32, PropError> {
    value.parse().map_err(|_| PropError::BadValue {
        key,
        value: value.to_owned(),
    })
}

/// A name made of letters, digits and separators, so that it stays on one line of a record.
fn word_value(key: &'static str, value: &str) -> Result<String, PropError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+');
    if !value.is_empty() && value.len() <= 64 && value.chars().all(plain) {
        Ok(value.to_ascii_lowercase())
    } else {
        Err(PropError::BadValue {
            key,
            value: value.to_owned(),
        })
    }
}

fn cell_size(value: &str) -> Result<u64, PropError> {
    let bytes = parse_size(value).map_err(|_| PropError::BadCellSize(value.to_owned()))?;
    if (4096..=1 << 20).contains(&bytes) && bytes % 32 == 0 {
        Ok(bytes)
    } else {
        Err(PropError::CellSizeRange(bytes))
    }
}

impl ContainerProps {
    /// Sets one property at creation time; the old names `rf` and `rf_lvl` are understood.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), PropError> {
        match key {
            "label" => {
                let label = Label::new(value).map_err(|bad| PropError::BadLabel(bad.0))?;
                self.label = Some(label);
            }
            "cksum" => self.cksum = Checksum::parse(value)?,
            "cksum_size" => self.cksum_size = size_value("cksum_size", value)?,
            "srv_cksum" => {
                self.srv_cksum = match value.to_ascii_lowercase().as_str() {
                    "on" => true,
                    "off" => false,
                    _ => return Err(bad_choice("srv_cksum", value, "off,on")),
                }
            }
            "dedup" => self.dedup = Dedup::parse(value)?,
            "dedup_threshold" => self.dedup_threshold = size_value("dedup_threshold", value)?,
            "compression" => self.compression = word_value("compression", value)?,
            "encryption" => self.encryption = word_value("encryption", value)?,
            "rd_fac" | "rf" => {
                self.rd_fac = match value {
                    "0" => 0,
                    "1" => 1,
                    "2" => 2,
                    "3" => 3,
                    "4" => 4,
                    _ => return Err(bad_choice("rd_fac", value, "0,1,2,3,4")),
                }
            }
            "rd_lvl" | "rf_lvl" => self.rd_lvl = RedundancyLevel::parse(value)?,
            "status" if value.eq_ignore_ascii_case("healthy") => self.healthy = true,
            "status" => return Err(bad_choice("status", value, "healthy")),
            "ec_cell_sz" => self.ec_cell_sz = cell_size(value)?,
            "ec_pda" => self.ec_pda = number_value("ec_pda", value)?,
            "rp_pda" => self.rp_pda = number_value("rp_pda", value)?,
            "perf_domain" => self.perf_domain = PerfDomain::parse(value)?,
            _ => return Err(PropError::NotSettable(key.to_owned(), SETTABLE_AT_CREATE)),
        }
        Ok(())
    }

    /// Sets one property of an existing container: `label` and `status` only.
    pub fn change(&mut self, key: &str, value: &str) -> Result<(), PropError> {
        if SETTABLE_AFTER_CREATE.contains(&key) {
            self.set(key, value)
        } else {
            Err(PropError::NotSettable(
                key.to_owned(),
                SETTABLE_AFTER_CREATE,
            ))
        }
    }

    /// The value of a property a user may choose, as written in `key:value`.
    pub(crate) fn written(&self, key: &str) -> Option<String> {
        Some(match key {
            "label" => self.label.as_ref()?.as_str().to_owned(),
            "cksum" => self.cksum.name().to_owned(),
            "cksum_size" => self.cksum_size.to_string(),
            "srv_cksum" => if self.srv_cksum { "on" } else { "off" }.to_owned(),
            "dedup" => self.dedup.name().to_owned(),
            "dedup_threshold" => self.dedup_threshold.to_string(),
            "compression" => self.compression.clone(),
            "encryption" => self.encryption.clone(),
            "rd_fac" => self.rd_fac.to_string(),
            "rd_lvl" => match self.rd_lvl {
                RedundancyLevel::Rank => "1",
                RedundancyLevel::Node => "2",
            }
            .to_owned(),
            "ec_cell_sz" => self.ec_cell_sz.to_string(),
            "ec_pda" => self.ec_pda.to_string(),
            "rp_pda" => self.rp_pda.to_string(),
            "perf_domain" => self.perf_domain.name().to_owned(),
            _ => return None,
        })
    }

    /// The row of a settable property; `None` for keys the container itself supplies.
    pub fn value(&self, key: &str) -> Option<PropValue> {
        Some(match key {
            "label" => PropValue::Text(match &self.label {
                Some(label) => label.as_str().to_owned(),
                None => "container_label_not_set".to_owned(),
            }),
            "cksum_size" => PropValue::Size(self.cksum_size),
            "dedup_threshold" => PropValue::Size(self.dedup_threshold),
            "ec_cell_sz" => PropValue::Size(self.ec_cell_sz),
            "rd_fac" => PropValue::Text(format!("rd_fac{}", self.rd_fac)),
            "rd_lvl" => PropValue::Text(self.rd_lvl.name().to_owned()),
            "status" => {
                PropValue::Text(if self.healthy { "HEALTHY" } else { "UNCLEAN" }.to_owned())
            }
            "perf_domain" => PropValue::Text(match self.perf_domain {
                PerfDomain::Root => "root (255)".to_owned(),
                PerfDomain::Group => "group (3)".to_owned(),
            }),
            _ => PropValue::Text(self.written(key)?),
        })
    }
}

/// A value of the `get-prop` table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PropValue {
    /// Text.
    Text(String),
    /// A count, a number also in JSON.
    Number(u64),
    /// Bytes: with a unit in text, a number in JSON.
    Size(u64),
    /// A list, an array in JSON.
    List(Vec<String>),
}

impl fmt::Display for PropValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PropValue::Text(text) => f.write_str(text),
            PropValue::Number(number) => number.fmt(f),
            PropValue::Size(bytes) => f.write_str(&format_base2(*bytes)),
            PropValue::List(items) => f.write_str(&items.join(", ")),
        }
    }
}

impl serde::Serialize for PropValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            PropValue::Text(text) => serializer.serialize_str(text),
            PropValue::Number(number) | PropValue::Size(number) => {
                serializer.serialize_u64(*number)
            }
            PropValue::List(items) => items.serialize(serializer),
        }
    }
}

/// One row of `get-prop`.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct PropRow {
    /// The value.
    pub value: PropValue,
    /// The key.
    pub name: String,
    /// The description.
    pub description: String,
}

impl PropRow {
    /// A row for a key.
    pub fn new(key: &str, value: PropValue) -> PropRow {
        PropRow {
            value,
            name: key.to_owned(),
            description: prop_description(key).to_owned(),
        }
    }

    /// First column: `Description (key)`.
    pub fn title(&self) -> String {
        format!("{} ({})", self.description, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(pair: &str) -> String {
        let mut props = ContainerProps::default();
        let outcome = split_pairs(pair).and_then(|pairs| {
            pairs
                .iter()
                .try_for_each(|(key, value)| props.set(key, value))
        });
        outcome.err().map_or_else(String::new, |e| e.to_string())
    }

    #[test]
    fn refusals_print_what_daos_prints() {
        let settable = "cksum,cksum_size,compression,dedup,dedup_threshold,ec_cell_sz,ec_pda,\
                        encryption,label,perf_domain,rd_fac,rd_lvl,rp_pda,srv_cksum,status";
        for (pair, text) in [
            (
                "frob:1",
                format!("\"frob\" is not a settable property (valid: {settable})"),
            ),
            (
                "rd_fac:9",
                "properties: invalid choice \"9\" for rd_fac (valid: 0,1,2,3,4)".to_owned(),
            ),
            ("rf:0", String::new()),
            (
                "cksum:md5",
                "properties: invalid choice \"md5\" for cksum \
                 (valid: adler32,crc16,crc32,crc64,off,sha1,sha256,sha512)"
                    .to_owned(),
            ),
            (
                "srv_cksum:maybe",
                "properties: invalid choice \"maybe\" for srv_cksum (valid: off,on)".to_owned(),
            ),
            (
                "ec_cell_sz:100",
                "invalid argument for flag `--properties' (expected main.CreatePropertiesFlag): \
                 invalid EC cell size 100"
                    .to_owned(),
            ),
            (
                "ec_cell_sz:xyz",
                "properties: invalid EC cell size \"xyz\" (try N<unit>)".to_owned(),
            ),
            (
                "rd_fac",
                "invalid property \"rd_fac\" (must be key:val)".to_owned(),
            ),
            (
                "layout_type:1",
                format!("\"layout_type\" is not a settable property (valid: {settable})"),
            ),
            (
                "rd_lvl:disk",
                "properties: invalid choice \"disk\" for rd_lvl (valid: 1,2,node,rank)".to_owned(),
            ),
            (
                "status:unclean",
                "properties: invalid choice \"unclean\" for status (valid: healthy)".to_owned(),
            ),
        ] {
            assert_eq!(refusal(pair), text, "{pair}");
        }
    }

    #[test]
    fn the_line_of_the_guide_is_understood() {
        let mut props = ContainerProps::default();
        let pairs = split_pairs("rd_fac:2,ec_cell_sz:131072,cksum:crc32,srv_cksum:on");
        for (key, value) in pairs.expect("pairs") {
            props.set(&key, &value).expect("known");
        }
        assert_eq!((props.rd_fac, props.ec_cell_sz), (2, 131_072));
        assert_eq!((props.cksum, props.srv_cksum), (Checksum::Crc32, true));
        let shown = |key: &str| props.value(key).map(|v| v.to_string());
        assert_eq!(shown("rd_fac"), Some("rd_fac2".to_owned()));
        assert_eq!(shown("ec_cell_sz"), Some("128 KiB".to_owned()));
        assert_eq!(shown("status"), Some("HEALTHY".to_owned()));
        assert_eq!(shown("rp_pda"), Some("4294967295".to_owned()));
    }

    #[test]
    fn after_creation_only_label_and_status_change() {
        let mut props = ContainerProps::default();
        assert_eq!(
            props.change("rd_fac", "1").map_err(|e| e.to_string()),
            Err("\"rd_fac\" is not a settable property (valid: label,status)".to_owned())
        );
        assert_eq!(props.change("label", "c2"), Ok(()));
        assert_eq!(props.change("status", "Healthy"), Ok(()));
    }

    proptest! {
        #[test]
        fn any_pair_is_survived_and_written_values_read_back(
            key in proptest::sample::select(SETTABLE_AT_CREATE), value in "[a-z0-9:]{0,8}"
        ) {
            let mut props = ContainerProps::default();
            if props.set(key, &value).is_ok() && let Some(written) = props.written(key) {
                let mut again = ContainerProps::default();
                prop_assert_eq!(again.set(key, &written), Ok(()));
                prop_assert_eq!(again, props);
            }
        }
    }
}
