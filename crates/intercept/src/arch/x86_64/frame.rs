//! The record of one hooked call at the top of the hook stack; the gate knows its layout.

/// An intercepted call.
pub(crate) const KIND_CALL: usize = 0;
/// Before `clone` and its kin.
pub(crate) const KIND_CLONE_PRE: usize = 1;
/// After it, in parent or child.
pub(crate) const KIND_CLONE_POST: usize = 2;
/// After a native call that asked for a second round.
pub(crate) const KIND_AFTER: usize = 3;

/// Set in `kind` when the dispatcher faulted and the hook was abandoned.
pub(crate) const KIND_ABANDONED: usize = 1 << 8;

/// The gate returns `result`.
pub(crate) const ACTION_DONE: usize = 0;
/// The gate runs the call natively, unchanged.
pub(crate) const ACTION_PASS: usize = 1;
/// The gate runs `new_nr` with `new_args`.
pub(crate) const ACTION_PASS_WITH: usize = 2;
/// As `ACTION_PASS_WITH`, then enters again with `KIND_AFTER`.
pub(crate) const ACTION_PASS_THEN: usize = 3;

/// Bytes of the vector save area: 16 registers of 32 bytes.
pub(crate) const VECTOR_BYTES: usize = 512;

/// Saved state of one entry; lies at the top of the hook stack, 64-byte aligned.
#[repr(C, align(64))]
pub(crate) struct Frame {
    pub(crate) vectors: [u8; VECTOR_BYTES],
    /// Call number, or the native result with `KIND_AFTER` and `KIND_CLONE_POST`.
    pub(crate) nr: usize,
    pub(crate) args: [usize; 6],
    pub(crate) flags: usize,
    pub(crate) kind: usize,
    /// The program's stack pointer; at `KIND_AFTER` token and number lie at +16 and +24.
    pub(crate) sp: usize,
    pub(crate) result: isize,
    pub(crate) new_nr: usize,
    pub(crate) new_args: [usize; 6],
    pub(crate) token: usize,
    pub(crate) wide: u32,
    pub(crate) pad: u32,
    /// rbx, rbp, r12..r15, restored when a fault in the hook is abandoned.
    pub(crate) preserved: [usize; 6],
    /// The alternate signal stack that was taken away for the hook; length 0 if none was.
    pub(crate) alternate: [usize; 3],
}
