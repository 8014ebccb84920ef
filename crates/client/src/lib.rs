//! Chooses the engine behind a mount.
