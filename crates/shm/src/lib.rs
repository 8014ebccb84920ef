//! Shared-memory segments, owner slots and owner-recorded locks.
