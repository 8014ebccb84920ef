//! Descriptors that travel between processes: in messages, and through `pidfd_getfd(2)`.

use crate::dispatch::{After, Served, Stop};
use crate::handover::{self, MMSGHDR_BYTES};
use intercept::Call;

/// `sendmsg(2)`: descriptors of ours get their identity first.
pub(crate) fn sendmsg(c: &mut Call) -> Served {
    handover::sending(c.args[1]);
    Err(Stop::Pass)
}

pub(crate) fn sendmmsg(c: &mut Call) -> Served {
    const MESSAGES_MAX: usize = 1024;
    for index in 0..c.args[2].min(MESSAGES_MAX) {
        handover::sending(c.args[1] + index * MMSGHDR_BYTES);
    }
    Err(Stop::Pass)
}

pub(crate) fn recvmsg(_c: &mut Call) -> Served {
    Err(Stop::PassThen(After::Recvmsg))
}

pub(crate) fn recvmmsg(_c: &mut Call) -> Served {
    Err(Stop::PassThen(After::Recvmmsg))
}

pub(crate) fn pidfd_getfd(_c: &mut Call) -> Served {
    Err(Stop::PassThen(After::Pidfd))
}
