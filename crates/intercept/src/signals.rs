//! Signals.
use crate::{Call, tls};
use core::sync::atomic::Ordering;

pub(crate) fn start() {}

/// Ends deferral.
pub(crate) fn flush() {
    let block = tls::block();
    if block.deferred.swap(0, Ordering::Relaxed) != 0 {}
}

/// # Safety
/// x
pub unsafe fn hook_sigaction(call: &Call) -> isize {
    unsafe { sys::raw::syscall(call.nr, call.args) }
}
/// # Safety
/// x
pub unsafe fn hook_sigprocmask(call: &Call) -> isize {
    unsafe { sys::raw::syscall(call.nr, call.args) }
}
