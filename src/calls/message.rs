//! Descriptors that travel between processes: in messages (see also `socket.rs`), and through
//! `pidfd_getfd(2)`.

use crate::dispatch::{After, Served, Stop};
use intercept::Call;

pub(crate) fn recvmmsg(_c: &mut Call) -> Served {
    Err(Stop::PassThen(After::Recvmmsg))
}

pub(crate) fn pidfd_getfd(_c: &mut Call) -> Served {
    Err(Stop::PassThen(After::Pidfd))
}
