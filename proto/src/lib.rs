//! The versioned protocol buffers and their generated code.
//!
//! Owns: what backends speak ([`publish`], [`users`], [`upstream`], [`control`], [`presence`]), what operators ask for ([`cluster`]), what stands in the log ([`log`]), what gateways and
//! routers say to each other ([`deliver`]) and what both say to registry members ([`registry`]). `proto/check` lints
//! the files and refuses changes that break a released
//! version. Holds no logic besides the conversions of `frames` and what all internal calls have in common, `calls` (features).

#[cfg(feature = "frames")]
pub mod frames;
#[cfg(feature = "calls")]
pub mod key;
#[cfg(feature = "calls")]
pub mod problem;

/// What backends publish.
pub mod publish {
    /// Version 1.
    #[expect(clippy::allow_attributes, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("tidegate.publish.v1");
    }
}

/// What holds for the whole cluster at once.
pub mod control {
    /// Version 1.
    #[expect(clippy::allow_attributes, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("tidegate.control.v1");
    }
}

/// What backends address to users now, and where users are.
pub mod users {
    /// Version 1.
    #[expect(clippy::allow_attributes, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("tidegate.users.v1");
    }
}

/// The cluster itself, for operators.
pub mod cluster {
    /// Version 1.
    #[expect(clippy::allow_attributes, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("tidegate.cluster.v1");
    }
}

/// What clients say, for backends to read.
pub mod upstream {
    /// Version 1.
    #[expect(clippy::allow_attributes, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("tidegate.upstream.v1");
    }
}

/// Who comes and who goes, for backends.
pub mod presence {
    /// Version 1.
    #[expect(clippy::allow_attributes, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("tidegate.presence.v1");
    }
}

/// What stands in the log.
pub mod log {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("tidegate.log.v1");
    }
}

/// The ordered stream between a node and a router.
pub mod deliver {
    /// Version 1.
    #[expect(clippy::allow_attributes, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("tidegate.deliver.v1");
    }
}

/// Where users are.
pub mod registry {
    /// Version 1.
    #[expect(clippy::allow_attributes, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("tidegate.registry.v1");
    }
}

/// All of the above as an encoded `FileDescriptorSet`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
