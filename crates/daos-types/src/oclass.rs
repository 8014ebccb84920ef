//! Object classes: how an object is protected and over how many redundancy groups it spreads.

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// Group count that stands for `X`: as many groups as the pool has room for.
pub const GROUPS_MAX: u16 = u16::MAX;

/// Protection inside one redundancy group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Redundancy {
    /// `n` identical copies; one copy is class `S`.
    Replicas(u8),
    /// `data` cells and `parity` cells of a Reed-Solomon code.
    Erasure {
        /// Data cells in a stripe.
        data: u8,
        /// Parity cells in a stripe.
        parity: u8,
    },
}

/// An object class such as `S1`, `SX`, `RP_3GX` or `EC_16P2G32`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectClass {
    redundancy: Redundancy,
    groups: u16,
}

/// A string that names no object class.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadClass(pub String);

impl fmt::Display for BadClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown object class {:?}", self.0)
    }
}

impl core::error::Error for BadClass {}

/// Redundancy schemes and their numbers, those of `daos_obj_class.h`.
const SCHEMES: [(u8, Redundancy); 25] = {
    use Redundancy::{Erasure, Replicas};
    [
        (1, Replicas(1)),
        (8, Replicas(2)),
        (9, Replicas(3)),
        (10, Replicas(4)),
        (11, Replicas(5)),
        (12, Replicas(6)),
        (13, Replicas(8)),
        (14, Replicas(12)),
        (15, Replicas(16)),
        (16, Replicas(24)),
        (17, Replicas(32)),
        (18, Replicas(48)),
        (19, Replicas(64)),
        (20, Replicas(128)),
        (32, Erasure { data: 2, parity: 1 }),
        (33, Erasure { data: 2, parity: 2 }),
        (34, Erasure { data: 4, parity: 1 }),
        (35, Erasure { data: 4, parity: 2 }),
        (36, Erasure { data: 8, parity: 1 }),
        (37, Erasure { data: 8, parity: 2 }),
        (
            38,
            Erasure {
                data: 16,
                parity: 1,
            },
        ),
        (
            39,
            Erasure {
                data: 16,
                parity: 2,
            },
        ),
        (40, Erasure { data: 4, parity: 3 }),
        (41, Erasure { data: 8, parity: 3 }),
        (
            42,
            Erasure {
                data: 16,
                parity: 3,
            },
        ),
    ]
};

impl ObjectClass {
    /// One target, no protection.
    pub const S1: ObjectClass = ObjectClass {
        redundancy: Redundancy::Replicas(1),
        groups: 1,
    };
    /// All targets, no protection.
    pub const SX: ObjectClass = ObjectClass {
        redundancy: Redundancy::Replicas(1),
        groups: GROUPS_MAX,
    };

    /// A class of the known schemes; `None` for a scheme DAOS has no number for or zero groups.
    pub fn new(redundancy: Redundancy, groups: u16) -> Option<ObjectClass> {
        let known = SCHEMES.iter().any(|(_, scheme)| *scheme == redundancy);
        (known && groups > 0).then_some(ObjectClass { redundancy, groups })
    }

    /// The protection inside a group.
    pub fn redundancy(self) -> Redundancy {
        self.redundancy
    }

    /// Number of redundancy groups as named; [`GROUPS_MAX`] for `X`.
    pub fn groups(self) -> u16 {
        self.groups
    }

    /// The same protection over another number of groups (at least 1).
    pub fn with_groups(self, groups: u16) -> ObjectClass {
        ObjectClass {
            groups: groups.max(1),
            ..self
        }
    }

    /// Shards (targets in different fault domains) of one group.
    pub fn group_size(self) -> u32 {
        match self.redundancy {
            Redundancy::Replicas(n) => u32::from(n),
            Redundancy::Erasure { data, parity } => u32::from(data) + u32::from(parity),
        }
    }

    /// How many shards of a group may be lost without losing data.
    pub fn fault_tolerance(self) -> u32 {
        match self.redundancy {
            Redundancy::Replicas(n) => u32::from(n).saturating_sub(1),
            Redundancy::Erasure { parity, .. } => u32::from(parity),
        }
    }

    /// Whether the class is erasure coded.
    pub fn is_erasure(self) -> bool {
        matches!(self.redundancy, Redundancy::Erasure { .. })
    }

    /// Groups on a pool of `targets` targets: `X` becomes as many as fit, at least 1.
    pub fn groups_on(self, targets: u32) -> u32 {
        let fit = (targets / self.group_size().max(1)).max(1);
        if self.groups == GROUPS_MAX {
            fit
        } else {
            u32::from(self.groups)
        }
    }

    /// The number kept on disk and in the C interface: scheme in bits 24..32, groups in 0..16.
    pub fn id(self) -> u32 {
        let scheme = SCHEMES
            .iter()
            .find(|(_, scheme)| *scheme == self.redundancy);
        let code = scheme.map_or(0, |(code, _)| *code);
        (u32::from(code) << 24) | u32::from(self.groups)
    }

    /// The class of a number made by [`ObjectClass::id`].
    pub fn from_id(id: u32) -> Option<ObjectClass> {
        let [scheme, zero, high, low] = id.to_be_bytes();
        let (_, redundancy) = SCHEMES.iter().find(|(code, _)| *code == scheme)?;
        let groups = u16::from_be_bytes([high, low]);
        if zero == 0 {
            ObjectClass::new(*redundancy, groups)
        } else {
            None
        }
    }

    /// The class DAOS picks for files when none is given, as far as `serves` allows: with
    /// erasure codes only where `erasure` is set, else `rd_fac` + 1 replicas.
    pub fn automatic_file(rd_fac: u8, domains: u32, erasure: bool) -> ObjectClass {
        let cells: &[(u32, u8)] = match rd_fac {
            1 => &[(18, 16), (10, 8), (6, 4), (3, 2)],
            2 => &[(20, 16), (12, 8), (8, 4), (4, 2)],
            3 => &[(22, 16), (14, 8), (10, 4)],
            _ => &[],
        };
        let coded = cells
            .iter()
            .find(|(needed, _)| erasure && domains >= *needed);
        let redundancy = match coded {
            Some((_, data)) => Redundancy::Erasure {
                data: *data,
                parity: rd_fac,
            },
            None => Redundancy::Replicas(rd_fac.min(4) + 1),
        };
        ObjectClass {
            redundancy,
            groups: GROUPS_MAX,
        }
    }

    /// The class DAOS picks for directories when none is given: `rd_fac` + 1 replicas, one group.
    pub fn automatic_dir(rd_fac: u8) -> ObjectClass {
        ObjectClass {
            redundancy: Redundancy::Replicas(rd_fac.min(4) + 1),
            groups: 1,
        }
    }
}

impl fmt::Display for ObjectClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.redundancy {
            Redundancy::Replicas(1) => f.write_str("S")?,
            Redundancy::Replicas(n) => write!(f, "RP_{n}G")?,
            Redundancy::Erasure { data, parity } => write!(f, "EC_{data}P{parity}G")?,
        }
        match self.groups {
            GROUPS_MAX => f.write_str("X"),
            groups => write!(f, "{groups}"),
        }
    }
}

/// A decimal number without sign or leading zero.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|c| c.is_ascii_digit()) && !text.starts_with('0');
    if plain { text.parse().ok() } else { None }
}

fn parse(text: &str) -> Option<ObjectClass> {
    let groups = |text: &str| match text {
        "X" => Some(GROUPS_MAX),
        _ => number::<u16>(text).filter(|n| *n < GROUPS_MAX),
    };
    if let Some(rest) = text.strip_prefix("RP_") {
        let (copies, count) = rest.split_once('G')?;
        // One copy is spelled S in DAOS.
        let copies = number::<u8>(copies).filter(|n| *n > 1)?;
        ObjectClass::new(Redundancy::Replicas(copies), groups(count)?)
    } else if let Some(rest) = text.strip_prefix("EC_") {
        let (cells, count) = rest.split_once('G')?;
        let (data, parity) = cells.split_once('P')?;
        let redundancy = Redundancy::Erasure {
            data: number(data)?,
            parity: number(parity)?,
        };
        ObjectClass::new(redundancy, groups(count)?)
    } else {
        ObjectClass::new(Redundancy::Replicas(1), groups(text.strip_prefix('S')?)?)
    }
}

impl FromStr for ObjectClass {
    type Err = BadClass;
    fn from_str(text: &str) -> Result<ObjectClass, BadClass> {
        parse(text).ok_or_else(|| BadClass(text.to_owned()))
    }
}

impl TryFrom<String> for ObjectClass {
    type Error = BadClass;
    fn try_from(text: String) -> Result<ObjectClass, BadClass> {
        text.parse()
    }
}

impl From<ObjectClass> for String {
    fn from(class: ObjectClass) -> String {
        class.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_the_guide() {
        let class: ObjectClass = "EC_16P2G32".parse().expect("known");
        assert_eq!(
            (class.group_size(), class.fault_tolerance(), class.groups()),
            (18, 2, 32)
        );
        assert_eq!(class.groups_on(640), 32);
        let class: ObjectClass = "EC_16P2GX".parse().expect("known");
        assert_eq!(class.groups_on(640), 35);
        let class: ObjectClass = "RP_3G1".parse().expect("known");
        assert_eq!((class.group_size(), class.fault_tolerance()), (3, 2));
        assert_eq!("SX".parse(), Ok(ObjectClass::SX));
        assert_eq!(ObjectClass::S1.id(), 0x0100_0001);
        assert_eq!(class.id(), 0x0900_0001);
    }

    #[test]
    fn wrong_names_are_refused() {
        for bad in [
            "",
            "S",
            "S0",
            "s1",
            "SX1",
            "S-1",
            "S+1",
            "S01",
            "S65535",
            "S70000",
            "RP_1G1",
            "RP_3",
            "RP_7G1",
            "RP_3G",
            "RP_3G0",
            "RP_G1",
            "EC_3P1G1",
            "EC_16P4GX",
            "EC_16G1",
            "EC_P2G1",
            "NOPE",
            "RP_3GX ",
            "RP_3Gx",
        ] {
            assert!(bad.parse::<ObjectClass>().is_err(), "{bad:?}");
        }
        let text = "NOPE".parse::<ObjectClass>().map_err(|e| e.to_string());
        assert_eq!(text, Err("unknown object class \"NOPE\"".to_owned()));
    }

    #[test]
    fn automatic_classes_follow_the_table() {
        let file = |rf, domains| ObjectClass::automatic_file(rf, domains, true).to_string();
        assert_eq!(file(0, 20), "SX");
        assert_eq!(file(1, 18), "EC_16P1GX");
        assert_eq!(file(1, 17), "EC_8P1GX");
        assert_eq!(file(1, 2), "RP_2GX");
        assert_eq!(file(2, 20), "EC_16P2GX");
        assert_eq!(file(2, 19), "EC_8P2GX");
        assert_eq!(file(2, 3), "RP_3GX");
        assert_eq!(file(3, 22), "EC_16P3GX");
        assert_eq!(file(4, 99), "RP_5GX");
        assert_eq!(
            ObjectClass::automatic_file(2, 20, false).to_string(),
            "RP_3GX"
        );
        assert_eq!(ObjectClass::automatic_dir(2).to_string(), "RP_3G1");
        assert_eq!(ObjectClass::automatic_dir(0).to_string(), "S1");
    }

    proptest! {
        #[test]
        fn names_and_numbers_round_trip(scheme in 0..SCHEMES.len(), groups in 1u16..) {
            let class = ObjectClass::new(SCHEMES[scheme].1, groups).expect("known scheme");
            prop_assert_eq!(class.to_string().parse(), Ok(class));
            prop_assert_eq!(ObjectClass::from_id(class.id()), Some(class));
        }

        #[test]
        fn any_text_and_number_is_survived(text in ".{0,12}", id in any::<u32>()) {
            if let Ok(class) = text.parse::<ObjectClass>() {
                prop_assert_eq!(class.to_string(), text);
            }
            if let Some(class) = ObjectClass::from_id(id) {
                prop_assert_eq!(class.id(), id);
            }
        }
    }
}
