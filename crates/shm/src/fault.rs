//! Named points at which test builds kill or stop the process.

#[cfg(feature = "fault")]
pub use armed::{Action, arm, reached};

/// Nothing: crash points exist only with the `fault` feature.
#[cfg(not(feature = "fault"))]
#[inline(always)]
pub fn reached(_name: &'static str) {}

#[cfg(feature = "fault")]
mod armed {
    use crate::owner::thread_id;
    use core::sync::atomic::{AtomicU64, Ordering};
    use std::sync::Mutex;
    use sys::syscall;

    const SYS_TKILL: usize = if cfg!(target_arch = "x86_64") {
        200
    } else {
        130
    };

    /// What happens at the point.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Action {
        /// `SIGKILL` to the own process.
        Kill,
        /// `SIGSTOP` to the own process.
        Stop,
    }

    static ARMED: Mutex<Option<(&'static str, Action)>> = Mutex::new(None);
    static COUNTDOWN: AtomicU64 = AtomicU64::new(0);

    /// Arms one point: the action happens the `nth` time it is reached (1 = the next time).
    pub fn arm(name: &'static str, action: Action, nth: u64) {
        if let Ok(mut armed) = ARMED.lock() {
            *armed = Some((name, action));
            COUNTDOWN.store(nth, Ordering::SeqCst);
        }
    }

    /// Called by `crash_point!`.
    pub fn reached(name: &'static str) {
        if COUNTDOWN.load(Ordering::SeqCst) == 0 {
            return;
        }
        let action = match ARMED.lock() {
            Ok(armed) => match *armed {
                Some((wanted, action)) if wanted == name => action,
                _ => return,
            },
            Err(_) => return,
        };
        if COUNTDOWN.fetch_sub(1, Ordering::SeqCst) == 1 {
            let signal = match action {
                Action::Kill => rustix::process::Signal::KILL,
                Action::Stop => rustix::process::Signal::STOP,
            };
            // To this thread: another would take it, and this one go on until that has.
            // SAFETY: the call touches no memory.
            let sent = unsafe { syscall!(SYS_TKILL, thread_id(), signal.as_raw()) };
            assert!(sent.is_ok(), "the process can signal itself");
        }
    }
}
