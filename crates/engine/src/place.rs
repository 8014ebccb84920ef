//! Which ranks hold what: a pure function of the pool's shape, the object class and the object.

use crate::limits::REPLICAS_MAX;
use daos_types::ObjectClass;

/// The ranks of one redundancy group, first replica first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RankList {
    len: u8,
    ranks: [u16; REPLICAS_MAX],
}

impl RankList {
    /// The ranks.
    pub fn as_slice(&self) -> &[u16] {
        &self.ranks[..usize::from(self.len)]
    }
}

/// Spreads numbers evenly (the finaliser of splitmix64).
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Ranks of chunk `chunk` of `object` in a pool of `rank_count` ranks.
///
/// A class with `g` groups deals its chunks round robin over `g` groups of consecutive ranks that
/// start at the object's own place. Groups lie side by side where there are ranks enough; else, and with
/// `GX`, which uses as many groups as there are ranks, each starts one rank further.
pub fn ranks(rank_count: u16, class: ObjectClass, object: u64, chunk: u64) -> RankList {
    let count = u64::from(rank_count.max(1));
    let replicas = u64::from(class.group_size()).clamp(1, count.min(REPLICAS_MAX as u64));
    let groups = u64::from(class.groups()).clamp(1, count);
    let stride = if groups * replicas <= count {
        replicas
    } else {
        1
    };
    let first = (mix(object) % count + chunk % groups * stride) % count;
    let mut list = RankList {
        len: replicas as u8,
        ranks: [0; REPLICAS_MAX],
    };
    for (i, rank) in list.ranks.iter_mut().take(replicas as usize).enumerate() {
        *rank = ((first + i as u64) % count) as u16;
    }
    list
}

/// Target (lock domain and first rank) of a directory object, and copies of its metadata.
pub fn directory(target_count: u64, class: ObjectClass, object: u64) -> (u16, u8) {
    (
        (mix(object) % target_count.max(1)) as u16,
        class.group_size().clamp(1, REPLICAS_MAX as u32) as u8,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use daos_types::Redundancy;

    #[test]
    fn groups_share_no_ranks_while_there_are_enough() {
        for (name_groups, count, distinct) in
            [(2, 4, 4), (2, 20, 4), (2, 3, 3), (8, 20, 16), (8, 9, 9)]
        {
            let class = ObjectClass::new(Redundancy::Replicas(2), name_groups).expect("class");
            for object in 0..100 {
                let mut used: Vec<u16> = (0..64)
                    .flat_map(|chunk| ranks(count, class, object, chunk).as_slice().to_vec())
                    .collect();
                used.sort_unstable();
                used.dedup();
                assert_eq!(used.len(), distinct, "RP_2G{name_groups} of {count} ranks");
            }
        }
    }
}
