//! System-call interception: rewriting, guard, user memory.
