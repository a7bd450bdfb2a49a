//! The gRPC wire types of Conductor, the reasons that its errors carry, and the client's connection to the daemon.
//!
//! Nothing of the domain is here: no file format, no policy, no default.

pub mod client;
pub mod metadata;
pub mod reason;

/// The generated types, clients and servers of the package `conductor.v1`.
pub mod v1 {
    tonic::include_proto!("conductor.v1");
}

/// The encoded `FileDescriptorSet` of the package with its imports, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
