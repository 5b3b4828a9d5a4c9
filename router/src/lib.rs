//! The role that appends, owns partitions and serves backends.
