//! `libpil4dfs.so`: serves file calls on DAOS containers in user space.
