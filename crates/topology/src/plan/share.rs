//! Step 4: dealing the ranks of a group to its interfaces, within one of each other.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::seat::{Fabric, Seat};

/// The interface of every rank, in rank order. The result depends on nothing but the seats.
pub(super) fn assign(fabric: &Fabric, seats: &[Seat]) -> Vec<Option<usize>> {
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (rank, seat) in seats.iter().enumerate() {
        groups
            .entry(fabric.group_number(seat))
            .or_default()
            .push(rank);
    }
    let mut answer = vec![None; seats.len()];
    for ranks in groups.values() {
        assign_group(fabric, seats, ranks, &mut answer);
    }
    answer
}

fn assign_group(fabric: &Fabric, seats: &[Seat], ranks: &[usize], answer: &mut [Option<usize>]) {
    let members = || {
        ranks
            .iter()
            .filter_map(|&rank| Some((rank, seats.get(rank)?)))
    };
    let Some((_, first)) = members().next() else {
        return;
    };
    let mut room = shares(fabric.group(first), members().map(|(_, seat)| seat));
    let mut take = |nic: usize| match room.get_mut(&nic) {
        Some(left @ 1..) => {
            *left -= 1;
            Some(nic)
        }
        _ => None,
    };
    let mut set = |rank: usize, nic: Option<usize>| {
        if let (Some(slot), Some(_)) = (answer.get_mut(rank), nic) {
            *slot = nic;
        }
        nic.is_none()
    };
    // First everybody who can have the wanted interface, then the rest: near ones, then any.
    let mut left: Vec<(usize, &Seat)> = members()
        .filter(|(rank, seat)| set(*rank, seat.wanted.and_then(&mut take)))
        .collect();
    left.retain(|(rank, seat)| {
        set(
            *rank,
            fabric
                .of_socket(seat.home)
                .iter()
                .find_map(|&nic| take(nic)),
        )
    });
    left.retain(|(rank, seat)| set(*rank, fabric.group(seat).iter().find_map(|&nic| take(nic))));
}

/// How many ranks each interface gets: floor(P/K), and one more for the P mod K that are wanted most
/// (equally wanted: the lower one).
fn shares<'a>(nics: &[usize], members: impl Iterator<Item = &'a Seat>) -> BTreeMap<usize, usize> {
    let mut wanted: BTreeMap<usize, usize> = nics.iter().map(|&nic| (nic, 0)).collect();
    let mut count = 0usize;
    for seat in members {
        count += 1;
        if let Some(wants) = seat.wanted.and_then(|nic| wanted.get_mut(&nic)) {
            *wants += 1;
        }
    }
    let base = count.checked_div(nics.len()).unwrap_or(0);
    let extra = count.checked_rem(nics.len()).unwrap_or(0);
    let mut order: Vec<(usize, usize)> = wanted.into_iter().collect();
    order.sort_by_key(|&(nic, wants)| (Reverse(wants), nic));
    order
        .into_iter()
        .enumerate()
        .map(|(position, (nic, _))| (nic, base + usize::from(position < extra)))
        .collect()
}
