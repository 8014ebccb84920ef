//! Dead processes that still keep something: found before anybody is refused for their sake.

use super::handover::pause;
use super::holds::State;
use crate::{Dfs, Ofd};
use engine::process;
use sys::Result;

/// Times something is tried that dead processes kept, or others that have settled it meanwhile.
pub(crate) const TRIES: u32 = 64;
/// Looks at a dead process whose affairs somebody else is settling.
const LOOKS: u32 = 200;
/// Between two of them.
const PAUSE_NS: u64 = 1_000_000;

impl Dfs {
    /// Settles the affairs of dead processes of which `keeps` says, given their slots, that they keep
    /// something, and how. True if it may be had now: there were some, or nobody keeps it any more,
    /// for somebody else was faster.
    pub(crate) fn settle_dead(&self, keeps: impl Fn(u32) -> Result<Option<State>>) -> Result<bool> {
        let mut settled = false;
        let mut kept = false;
        for slot in 0..process::used(self.pool)? {
            if process::pid(self.pool, slot)? == 0 {
                continue;
            }
            let Some(state) = keeps(slot)? else {
                continue;
            };
            let goes = self.settle_kept(slot, state, &keeps)?;
            settled |= goes;
            kept |= !goes;
        }
        Ok(settled || !kept)
    }

    /// Whether the process in `slot` has stopped keeping something as it did.
    fn settle_kept(
        &self,
        slot: u32,
        state: State,
        keeps: impl Fn(u32) -> Result<Option<State>>,
    ) -> Result<bool> {
        if state == State::Waiting {
            self.sweep(slot)?;
            return Ok(keeps(slot)? != Some(state));
        }
        for _ in 0..LOOKS {
            if self.bury(slot)? || keeps(slot)? != Some(state) {
                return Ok(true);
            }
            if self.forks(slot)? || !process::is_dead(self.pool, slot)? {
                return Ok(false);
            }
            // Somebody else is at it.
            pause(PAUSE_NS);
        }
        Ok(false)
    }

    /// Settles the affairs of dead processes that hold a description; false if somebody lives who
    /// holds it.
    pub(crate) fn settle_dead_holders(&self, ofd: Ofd) -> Result<bool> {
        self.settle_dead(|slot| self.hold_of(slot, ofd))
    }
}
