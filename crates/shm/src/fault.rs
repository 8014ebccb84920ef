//! Named points at which test builds kill or stop the process.

#[cfg(feature = "fault")]
pub use armed::{Action, arm, reached};

/// Nothing: crash points exist only with the `fault` feature.
#[cfg(not(feature = "fault"))]
#[inline(always)]
pub fn reached(_name: &'static str) {}

#[cfg(feature = "fault")]
mod armed {
    use core::sync::atomic::{AtomicU64, Ordering};
    use std::sync::Mutex;

    const SYS_TGKILL: usize = if cfg!(target_arch = "x86_64") {
        234
    } else {
        131
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
            let pid = rustix::process::getpid().as_raw_pid();
            let tid = rustix::thread::gettid().as_raw_pid();
            // To the thread, which is stopped before the call returns; of a process any thread may be
            // stopped first, while this one goes on for a while.
            // SAFETY: no memory is touched.
            let sent = unsafe { sys::syscall!(SYS_TGKILL, pid, tid, signal.as_raw()) };
            assert!(sent.is_ok(), "the thread can signal itself");
        }
    }
}
