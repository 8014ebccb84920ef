//! The words in which a stub and the dispatcher talk about one system call.

/// A system call as the program made it: number and six arguments.
///
/// The dispatcher may change `nr` and `args`; with [`Outcome::Pass`] the call then runs natively
/// as changed. The program's own registers are restored in every case.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// System-call number, see [`crate::nr`].
    pub nr: usize,
    /// Arguments in kernel order (rdi, rsi, rdx, r10, r8, r9); unused ones hold garbage.
    pub args: [usize; 6],
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Served: the value, or `-errno`, that the program gets.
    Done(isize),
    /// Run natively, with `nr` and `args` as they stand in the [`Call`] now. It runs on the
    /// program's stack after the hook has ended, so it may block, be interrupted, restarted or
    /// cancelled like any other call.
    Pass,
    /// As [`Outcome::Pass`], then [`crate::Config::after`] is called with the same [`Call`], the
    /// kernel's result and this token, and decides the final result.
    PassThen(usize),
}
