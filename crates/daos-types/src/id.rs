//! Labels and identifiers of pools and containers.

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest label in bytes (`DAOS_PROP_LABEL_MAX_LEN`).
pub const LABEL_BYTES_MAX: usize = 127;

/// What a label may be, for messages.
pub(crate) const LABEL_RULE: &str =
    "use 1 to 127 of the characters A-Z a-z 0-9 . _ : - that do not look like a UUID";

/// A name given by the user: 1 to 127 of `[A-Za-z0-9._:-]`, and not shaped like a UUID.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// A string that cannot be a label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadLabel(pub String);

impl fmt::Display for BadLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid label {:?} ({LABEL_RULE})", self.0)
    }
}

impl core::error::Error for BadLabel {}

impl Label {
    /// Checks and wraps a label.
    pub fn new(text: &str) -> Result<Label, BadLabel> {
        let fits = (1..=LABEL_BYTES_MAX).contains(&text.len());
        let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b':' | b'-');
        // "." and ".." are legal labels in DAOS but would name directories here.
        let path_like = text == "." || text == "..";
        if fits && !path_like && text.bytes().all(legal) && Uuid::try_parse(text).is_err() {
            Ok(Label(text.to_owned()))
        } else {
            Err(BadLabel(text.to_owned()))
        }
    }

    /// The characters of the label.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Label {
    type Err = BadLabel;
    fn from_str(text: &str) -> Result<Label, BadLabel> {
        Label::new(text)
    }
}

impl TryFrom<String> for Label {
    type Error = BadLabel;
    fn try_from(text: String) -> Result<Label, BadLabel> {
        Label::new(&text)
    }
}

impl From<Label> for String {
    fn from(label: Label) -> String {
        label.0
    }
}

macro_rules! uuid_id {
    ($name:ident, $what:literal) => {
        #[doc = $what]
        #[derive(
            Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Makes a version 4 UUID of 16 random bytes.
            pub fn from_random(bytes: [u8; 16]) -> $name {
                $name(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            /// The 16 bytes in network order.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<$name, uuid::Error> {
                Uuid::try_parse(text).map($name)
            }
        }
    };
}

uuid_id!(PoolId, "UUID of a pool.");
uuid_id!(ContId, "UUID of a container.");

/// How a user names a pool or a container: by label or by UUID.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ident {
    /// By label.
    Label(Label),
    /// By UUID.
    Uuid(Uuid),
}

impl FromStr for Ident {
    type Err = BadLabel;
    fn from_str(text: &str) -> Result<Ident, BadLabel> {
        match Uuid::try_parse(text) {
            Ok(uuid) => Ok(Ident::Uuid(uuid)),
            Err(_) => Label::new(text).map(Ident::Label),
        }
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ident::Label(label) => label.fmt(f),
            Ident::Uuid(uuid) => uuid.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_obey_the_rules() {
        let longest = "a".repeat(127);
        for good in ["tank", "a", "A.b_c:d-9", longest.as_str(), "..."] {
            assert_eq!(
                Label::new(good).map(|l| l.as_str().to_owned()),
                Ok(good.to_owned())
            );
        }
        let too_long = "a".repeat(128);
        for bad in [
            "",
            "bad/label",
            "a b",
            "t\u{e4}nk",
            ".",
            "..",
            too_long.as_str(),
            "1cf93de9-ab0a-4f8e-8e72-934e9810a5bf",
        ] {
            assert!(Label::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            Label::new("bad/label").map_err(|e| e.to_string()),
            Err(format!("invalid label \"bad/label\" ({LABEL_RULE})"))
        );
    }

    #[test]
    fn identifiers_split_into_labels_and_uuids() {
        let uuid = "1cf93de9-ab0a-4f8e-8e72-934e9810a5bf";
        assert!(matches!(uuid.parse(), Ok(Ident::Uuid(u)) if u.to_string() == uuid));
        assert!(matches!("tank".parse(), Ok(Ident::Label(l)) if l.as_str() == "tank"));
        assert!("a/b".parse::<Ident>().is_err());
    }

    #[test]
    fn random_ids_are_version_4() {
        let id = PoolId::from_random([0xff; 16]);
        assert_eq!(id.0.get_version_num(), 4);
        assert_eq!(id.to_string().parse::<PoolId>().ok(), Some(id));
    }
}
